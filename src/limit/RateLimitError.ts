/**
 * Why a call was refused by the limit stage.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { refusal } from "../internal/refusal.ts"

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

/** @internal */
export const rateLimitError = (reason: RateLimitError["reason"]): RateLimitError =>
  refusal(RateLimitError, { _tag: "RateLimitError", reason })
