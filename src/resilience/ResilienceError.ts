/**
 * Why a resilience part gave up on an effect or never started it.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * The circuit is open: the dependency failed too often. `retryAfter` is when the next probe is admitted.
 *
 * @category errors
 * @since 0.1.0
 */
export class CircuitOpen extends Schema.TaggedError<CircuitOpen>(
  "effect-toolops/resilience/ResilienceError/CircuitOpen"
)("CircuitOpen", { name: Schema.String, retryAfter: Schema.DurationFromMillis }) {
  override get message(): string {
    return "The circuit is open"
  }
}

/**
 * As many calls run, and as many wait, as the bulkhead allows. `retryAfter` is a hint, not a promise.
 *
 * @category errors
 * @since 0.1.0
 */
export class BulkheadFull extends Schema.TaggedError<BulkheadFull>(
  "effect-toolops/resilience/ResilienceError/BulkheadFull"
)("BulkheadFull", { name: Schema.String, retryAfter: Schema.DurationFromMillis }) {
  override get message(): string {
    return "Too many calls are running"
  }
}

/**
 * The work was not done in time. `timeout` is the time that it had.
 *
 * @category errors
 * @since 0.1.0
 */
export class TimedOut extends Schema.TaggedError<TimedOut>("effect-toolops/resilience/ResilienceError/TimedOut")(
  "TimedOut",
  { name: Schema.String, timeout: Schema.DurationFromMillis }
) {
  override get message(): string {
    return "The call was not done in time"
  }
}

/**
 * Every attempt failed. Only where asked for: by default the last error of the work comes out unchanged.
 *
 * @category errors
 * @since 0.1.0
 */
export class RetriesExhausted extends Schema.TaggedError<RetriesExhausted>(
  "effect-toolops/resilience/ResilienceError/RetriesExhausted"
)("RetriesExhausted", { attempts: Schema.Int, cause: Schema.Defect() }) {
  override get message(): string {
    return "Every attempt failed"
  }
}

/**
 * The program is shutting down and takes no new calls. Nothing was started; another replica, or this one when it is back,
 * may take the call after `retryAfter`.
 *
 * @category errors
 * @since 0.1.0
 */
export class Draining extends Schema.TaggedError<Draining>("effect-toolops/resilience/ResilienceError/Draining")(
  "Draining",
  { retryAfter: Schema.DurationFromMillis }
) {
  override get message(): string {
    return "The server is shutting down"
  }
}

/**
 * Every reason of a `ResilienceError`.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([CircuitOpen, BulkheadFull, TimedOut, RetriesExhausted, Draining])

/**
 * A refusal of a resilience part. Catch one reason with `Effect.catchReason("ResilienceError", "CircuitOpen", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class ResilienceError extends Schema.TaggedError<ResilienceError>("effect-toolops/resilience/ResilienceError")(
  "ResilienceError",
  { reason: Reason }
) {
  override get message(): string {
    return this.reason.message
  }

  /** When a retry makes sense, if it does. */
  get retryAfter(): Duration.Duration | undefined {
    return "retryAfter" in this.reason ? this.reason.retryAfter : undefined
  }
}

// What `refusal` makes, made by a constructor of our own: setting two fields costs a fifth of copying them, and a refusal
// is little else. The instance is a `ResilienceError` like any other, since that is its prototype.
function Refused(this: { _tag: string; reason: unknown }, reason: ResilienceError["reason"]): void {
  this._tag = "ResilienceError"
  this.reason = reason
}
Refused.prototype = ResilienceError.prototype

function Opened(
  this: { _tag: string; name: string; retryAfter: Duration.Duration },
  name: string,
  retryAfter: Duration.Duration
): void {
  this._tag = "CircuitOpen"
  this.name = name
  this.retryAfter = retryAfter
}
Opened.prototype = CircuitOpen.prototype

const RefusedClass = Refused as unknown as new(reason: ResilienceError["reason"]) => ResilienceError
const OpenedClass = Opened as unknown as new(name: string, retryAfter: Duration.Duration) => CircuitOpen

/** @internal A refusal, without a stack. */
export const resilienceError = (reason: ResilienceError["reason"]): ResilienceError => new RefusedClass(reason)

/** @internal A reason, without a stack. */
export const circuitOpen = (name: string, retryAfter: Duration.Duration): CircuitOpen =>
  new OpenedClass(name, retryAfter)
