/**
 * Why a call was refused by the limit stage.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * The caller has used up a limit. `retryAfter` is when the same call would pass: infinite for a call that costs more than
 * the limit ever grants.
 *
 * @category errors
 * @since 0.1.0
 */
export class RateLimited extends Schema.TaggedError<RateLimited>("effect-toolops/limit/RateLimitError/RateLimited")(
  "RateLimited",
  { limit: Schema.String, per: Schema.String, retryAfter: Schema.DurationFromMillis }
) {
  override get message(): string {
    return "The rate limit is used up"
  }
}

/**
 * The limits cannot be checked, and the store's mode is to refuse then.
 *
 * @category errors
 * @since 0.1.0
 */
export class LimitStoreUnavailable extends Schema.TaggedError<LimitStoreUnavailable>(
  "effect-toolops/limit/RateLimitError/LimitStoreUnavailable"
)("LimitStoreUnavailable", {}) {
  override get message(): string {
    return "The rate limit cannot be checked at the moment"
  }
}

/**
 * A refusal of the limit stage. Catch one reason with `Effect.catchReason("RateLimitError", "RateLimited", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class RateLimitError extends Schema.TaggedError<RateLimitError>("effect-toolops/limit/RateLimitError")(
  "RateLimitError",
  { reason: Schema.Union([RateLimited, LimitStoreUnavailable]) }
) {
  override get message(): string {
    return this.reason.message
  }

  /** When a retry makes sense, if it does. */
  get retryAfter(): Duration.Duration | undefined {
    return this.reason._tag === "RateLimited" && Duration.isFinite(this.reason.retryAfter)
      ? this.reason.retryAfter
      : undefined
  }
}

// What `refusal` makes, by constructor: every refused caller is told a time of its own, and copying the fields costs more
// than all the rest.
function Refused(this: { _tag: string; reason: RateLimitError["reason"] }, reason: RateLimitError["reason"]) {
  this._tag = "RateLimitError"
  this.reason = reason
}
Refused.prototype = RateLimitError.prototype

function Limited(
  this: { _tag: string; limit: string; per: string; retryAfter: Duration.Duration },
  limit: string,
  per: string,
  retryAfter: Duration.Duration
) {
  this._tag = "RateLimited"
  this.limit = limit
  this.per = per
  this.retryAfter = retryAfter
}
Limited.prototype = RateLimited.prototype

const RefusedClass = Refused as unknown as new(reason: RateLimitError["reason"]) => RateLimitError
const LimitedClass = Limited as unknown as new(
  limit: string,
  per: string,
  retryAfter: Duration.Duration
) => RateLimited

/** @internal A refusal, without a stack. */
export const rateLimitError = (reason: RateLimitError["reason"]): RateLimitError => new RefusedClass(reason)

/** @internal A reason, without a stack. */
export const rateLimited = (limit: string, per: string, retryAfter: Duration.Duration): RateLimited =>
  new LimitedClass(limit, per, retryAfter)
