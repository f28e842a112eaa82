/**
 * Why the cache could not do what it was asked for in so many words. A call never fails with it: to a call, a cache
 * that does not work is a cache that knows nothing.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The store cannot be reached, or did not answer in time. `store` names it.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>(
  "effect-toolops/cache/CacheError/StoreUnavailable"
)("StoreUnavailable", { store: Schema.String, cause: Schema.optionalKey(Schema.Defect()) }) {
  override get message(): string {
    return "The cache store is not available"
  }
}

/**
 * What was to be named by a key or a tag cannot be: too long, empty, or with control characters.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidName extends Schema.TaggedError<InvalidName>("effect-toolops/cache/CacheError/InvalidName")(
  "InvalidName",
  { kind: Schema.Literals(["key", "tag"]) }
) {
  override get message(): string {
    return "A cache key or tag must be 1 to 512 characters without control characters"
  }
}

/**
 * Every reason of a `CacheError`.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([StoreUnavailable, InvalidName])

/**
 * A failure of the explicit cache operations. Catch one reason with
 * `Effect.catchReason("CacheError", "StoreUnavailable", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class CacheError extends Schema.TaggedError<CacheError>("effect-toolops/cache/CacheError")("CacheError", {
  reason: Reason
}) {
  override get message(): string {
    return this.reason.message
  }
}
