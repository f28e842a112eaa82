/**
 * What a model or an MCP client is told when the pipeline refuses a call.
 *
 * A refusal is a plain answer, not an error with a stack: it says what was decided and what the caller can do about it
 * (wait, ask for a scope, give up), and nothing about what is behind the tool. `ToolkitOps.guard` declares it as a
 * failure of every tool.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { AuthError } from "../auth/AuthError.ts"
import { refusal } from "../internal/refusal.ts"
import { RateLimitError } from "../limit/RateLimitError.ts"
import { ResilienceError } from "../resilience/ResilienceError.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import type { PipelineError } from "../ToolPipeline.ts"

/**
 * Why a call was refused: the tag of the reason of the pipeline's error.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason = PipelineError["reason"]["_tag"]

const reasons = Object.keys(
  {
    MissingCredentials: true,
    InvalidCredentials: true,
    TokenExpired: true,
    TokenMalformed: true,
    TokenInactive: true,
    KeyNotFound: true,
    AuthUnavailable: true,
    Forbidden: true,
    InsufficientScope: true,
    RateLimited: true,
    LimitStoreUnavailable: true,
    CircuitOpen: true,
    BulkheadFull: true,
    TimedOut: true,
    RetriesExhausted: true,
    Draining: true
  } satisfies { readonly [K in Reason]: true }
) as ReadonlyArray<Reason>

/**
 * A refused call.
 *
 * - `reason`: why, for programs.
 * - `message`: why, and what to do, for readers and models.
 * - `retryable`: the same call may pass later. Never set where a repetition could do something twice.
 * - `retryAfterMillis`: when it may pass, where that is known.
 * - `requiredScopes`: what the caller's identity lacks or must have, where that is the reason.
 *
 * @category models
 * @since 0.1.0
 */
export class ToolRefusal extends Schema.TaggedClass<ToolRefusal>("effect-toolops/ai/ToolRefusal")("ToolRefused", {
  reason: Schema.Literals(reasons),
  message: Schema.String,
  retryable: Schema.Boolean,
  retryAfterMillis: Schema.optionalKey(Schema.Int),
  requiredScopes: Schema.optionalKey(Schema.Array(Schema.String))
}) {}

/**
 * Says whether a value is an error that a stage of the pipeline raises.
 *
 * @category guards
 * @since 0.1.0
 */
export const isPipelineError = (error: unknown): error is PipelineError =>
  error instanceof AuthError || error instanceof RateLimitError || error instanceof ResilienceError

/**
 * Turns an error of the pipeline into what its caller is told.
 *
 * **Details**
 *
 * `tool` decides whether a call that ran out of time may be repeated: only one that is read-only or idempotent may.
 *
 * **Example** (Telling a caller about a limit)
 *
 * ```ts
 * import { Duration } from "effect"
 * import { ToolMeta } from "effect-toolops"
 * import { ToolRefusal } from "effect-toolops/ai"
 * import { RateLimitError } from "effect-toolops/limit"
 *
 * const limited = new RateLimitError.RateLimitError({
 *   reason: new RateLimitError.RateLimited({ limit: "calls", per: "identity", retryAfter: Duration.seconds(12) })
 * })
 * const refusal = ToolRefusal.fromError(limited, ToolMeta.make({ name: "search", readOnly: true }))
 *
 * refusal.message // => "The rate limit is used up. Try again in 12 seconds."
 * refusal.retryAfterMillis // => 12_000
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromError = (
  error: PipelineError,
  tool: Pick<ToolMeta, "readOnly" | "idempotent">
): ToolRefusal => {
  const { advice, retryable } = adviceOf(error.reason, tool)
  const retryAfter = "retryAfter" in error.reason ? millisOf(error.reason.retryAfter) : undefined
  return refusal(ToolRefusal, {
    _tag: "ToolRefused",
    reason: error.reason._tag,
    message: `${error.reason.message}. ${advice}`,
    retryable,
    ...(retryAfter === undefined ? undefined : { retryAfterMillis: retryAfter }),
    ...(error.reason._tag === "InsufficientScope" ? { requiredScopes: error.reason.requiredScopes } : undefined)
  })
}

// Rounded up, because a caller that comes back a millisecond early is refused again.
const millisOf = (duration: Duration.Duration): number | undefined => {
  const millis = Math.ceil(Duration.toMillis(duration))
  return Number.isSafeInteger(millis) ? millis : undefined
}

interface Advice {
  readonly advice: string
  readonly retryable: boolean
}

const waitFor = (duration: Duration.Duration): Advice => {
  const millis = millisOf(duration)
  // Some calls are too big for their limit and never pass.
  if (millis === undefined) return { advice: "Do not try again.", retryable: false }
  const seconds = Math.ceil(millis / 1000)
  return { advice: `Try again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`, retryable: true }
}

const adviceOf = (reason: PipelineError["reason"], tool: Pick<ToolMeta, "readOnly" | "idempotent">): Advice => {
  switch (reason._tag) {
    case "MissingCredentials":
    case "InvalidCredentials":
    case "TokenExpired":
    case "TokenMalformed":
    case "TokenInactive":
    case "KeyNotFound":
      return { advice: "Do not try again without valid credentials.", retryable: false }
    case "Forbidden":
      return { advice: "Do not try again.", retryable: false }
    case "InsufficientScope":
      return { advice: `Ask for these scopes: ${reason.requiredScopes.join(" ")}.`, retryable: false }
    case "RateLimited":
    case "CircuitOpen":
    case "Draining":
      return waitFor(reason.retryAfter)
    case "AuthUnavailable":
    case "LimitStoreUnavailable":
    case "BulkheadFull":
      return { advice: "Try again in a moment.", retryable: true }
    case "TimedOut":
    case "RetriesExhausted":
      // The work may have been done all the same.
      return tool.readOnly || tool.idempotent
        ? { advice: "Try again later.", retryable: true }
        : { advice: "It may have taken effect: check before you try again.", retryable: false }
  }
}
