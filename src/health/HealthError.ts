/**
 * What can go wrong with health checks themselves. A check that fails is no error but a result.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/** @category errors @since 0.1.0 */
export class DuplicateCheck extends Schema.TaggedError<DuplicateCheck>(
  "effect-toolops/health/HealthError/DuplicateCheck"
)("DuplicateCheck", { name: Schema.String }) {
  override get message(): string {
    return `A check named ${this.name} is registered already`
  }
}

/** @category errors @since 0.1.0 */
export class CheckNotFound extends Schema.TaggedError<CheckNotFound>(
  "effect-toolops/health/HealthError/CheckNotFound"
)("CheckNotFound", { name: Schema.String }) {
  override get message(): string {
    return "No check of this name is registered"
  }
}

/** @category errors @since 0.1.0 */
export class NoCheckers extends Schema.TaggedError<NoCheckers>("effect-toolops/health/HealthError/NoCheckers")(
  "NoCheckers",
  { group: Schema.String }
) {
  override get message(): string {
    return `No check is registered in the group ${this.group}`
  }
}

/**
 * Every reason of a `HealthError`.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([DuplicateCheck, CheckNotFound, NoCheckers])

/**
 * A mistake in the use of health checks. Catch one reason with `Effect.catchReason("HealthError", "NoCheckers", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class HealthError extends Schema.TaggedError<HealthError>("effect-toolops/health/HealthError")("HealthError", {
  reason: Reason
}) {
  override get message(): string {
    return this.reason.message
  }
}
