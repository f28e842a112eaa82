/**
 * Why something could not be written to the audit log.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The sink failed. `cause` is what it failed with.
 *
 * @category errors
 * @since 0.1.0
 */
export class SinkFailed extends Schema.TaggedError<SinkFailed>("effect-toolops/auth/AuditError/SinkFailed")(
  "SinkFailed",
  { cause: Schema.Defect() }
) {
  override get message(): string {
    return "The audit log cannot be written"
  }
}

/**
 * The sink did not answer within `writeTimeout`.
 *
 * @category errors
 * @since 0.1.0
 */
export class SinkTimedOut extends Schema.TaggedError<SinkTimedOut>("effect-toolops/auth/AuditError/SinkTimedOut")(
  "SinkTimedOut",
  {}
) {
  override get message(): string {
    return "The audit log was not written in time"
  }
}

/**
 * As many records wait to be written as may wait.
 *
 * @category errors
 * @since 0.1.0
 */
export class QueueFull extends Schema.TaggedError<QueueFull>("effect-toolops/auth/AuditError/QueueFull")(
  "QueueFull",
  {}
) {
  override get message(): string {
    return "Too many records wait for the audit log"
  }
}

/**
 * The log has been closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class LogClosed extends Schema.TaggedError<LogClosed>("effect-toolops/auth/AuditError/LogClosed")(
  "LogClosed",
  {}
) {
  override get message(): string {
    return "The audit log is closed"
  }
}

/**
 * The log cannot be opened, or what is there is not a log. `problem` says why, in words for an operator.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unusable extends Schema.TaggedError<Unusable>("effect-toolops/auth/AuditError/Unusable")("Unusable", {
  problem: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return "The audit log cannot be used"
  }
}

/**
 * Every reason of an `AuditError`.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([SinkFailed, SinkTimedOut, QueueFull, LogClosed, Unusable])

/**
 * A failure of the audit log. Catch one reason with `Effect.catchReason("AuditError", "QueueFull", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class AuditError extends Schema.TaggedError<AuditError>("effect-toolops/auth/AuditError")("AuditError", {
  reason: Reason
}) {
  override get message(): string {
    return this.reason.message
  }
}
