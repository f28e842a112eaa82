import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type { AuditError } from "../AuditError.ts"
import type { AuditRecord } from "../AuditRecord.ts"
import type { Recording } from "./auditRecording.ts"

// What `AuditLog` is, apart from the logs that there are: each of them imports it, and `AuditLog.ts` exports it all.

/**
 * What happens to a call that cannot be recorded.
 *
 * - `best-effort`: it goes on. Its record is counted as lost.
 * - `required`: it does not run. A decision is acknowledged by the sink before the handler of its call starts.
 *
 * @category models
 * @since 0.1.0
 */
export type Mode = "required" | "best-effort"

/**
 * What is written, and how often.
 *
 * - `input`: `digest` records a digest of each call's input, `none` nothing of it. Default `digest`.
 * - `inputKey`: makes the digest an HMAC under this key, so that short inputs cannot be guessed from their digest. At least
 *   16 characters.
 * - `fields`: which top-level members of an input are recorded as they are, by tool: an exact id, `namespace:*` or `*`. Where
 *   several match the closest counts. Only texts, numbers, booleans and null, and never what the tool's Schema marks as
 *   sensitive. Default none.
 * - `repeatInterval`: how long repeats of one refusal of one caller are counted before they are told. Default 1 minute.
 * - `maxRepeats`: most callers whose first refusal is told in full while refusals repeat, a whole number from 1: so many who
 *   were authenticated, and so many peers who were not (of IPv6 networks of 64 bits). Of what else they are refused as many
 *   again are told apart, of one caller a twentieth. Those beyond are told together. Default 1,000.
 *
 * @category options
 * @since 0.1.0
 */
export interface RecordingOptions {
  readonly input?: "digest" | "none" | undefined
  readonly inputKey?: Redacted.Redacted<string> | undefined
  readonly fields?: Readonly<Record<string, ReadonlyArray<string>>> | undefined
  readonly repeatInterval?: Duration.Input | undefined
  readonly maxRepeats?: number | undefined
}

/**
 * What every log that writes in the background takes.
 *
 * - `mode`: default `best-effort`.
 * - `maxQueued`: most records that wait to be written, a whole number from 1. Default 10,000. Outcomes of calls that are
 *   running in `required` mode may exceed it twice over.
 * - `maxBatch`: most records per write, a whole number from 1. Default 1,000.
 * - `writeTimeout`: how long one write may take. Default 5 seconds.
 * - `closeTimeout`: how long closing waits for what is still to be written. Default 5 seconds.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends RecordingOptions {
  readonly mode?: Mode | undefined
  readonly maxQueued?: number | undefined
  readonly maxBatch?: number | undefined
  readonly writeTimeout?: Duration.Input | undefined
  readonly closeTimeout?: Duration.Input | undefined
}

/**
 * Where a log writes to.
 *
 * - `write`: writes records in the order given, all or none as far as it can, and succeeds when they are safe: that is what
 *   acknowledges each of them. Called with 1 to `maxBatch` records, and one more that says how
 *   many were lost if any were, and never while an earlier write is still running, so one
 *   `fsync` does for all of a batch. After `writeTimeout` it is interrupted; the next write waits until it has really ended.
 *   Whatever it fails or dies with, its records count as lost and it is called again for those that follow.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sink {
  readonly write: (records: ReadonlyArray<AuditRecord>) => Effect.Effect<void, unknown>
}

/**
 * What a log has done so far. `written`, `lost`: records. `repeated`: calls that are told as a count. `queued`: records that
 * wait. `lagMillis`: how long the last written record had waited.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly written: number
  readonly lost: number
  readonly repeated: number
  readonly queued: number
  readonly lagMillis: number
}

/**
 * The audit log of a program. `AuthMiddleware.layer` writes to the one that it is given.
 *
 * - `mode`: see `Mode`.
 * - `record`: hands a record over. In `required` mode succeeds when the sink has acknowledged it; in `best-effort` mode at
 *   once, and never fails.
 * - `recordUnsafe`: hands a record over and waits for nothing. False when it is lost.
 * - `flush`: waits until what has been handed over so far is written or lost. Repeats are told at their own time.
 * - `stats`: what was done so far.
 *
 * @category services
 * @since 0.1.0
 */
export class AuditLog extends Context.Service<AuditLog, {
  readonly mode: Mode
  readonly record: (record: AuditRecord) => Effect.Effect<void, AuditError>
  readonly recordUnsafe: (record: AuditRecord) => boolean
  readonly flush: Effect.Effect<void>
  readonly stats: Effect.Effect<Stats>
  readonly "~recording": Recording | undefined
}>()("effect-toolops/auth/AuditLog") {}

/** The names of `RecordingOptions`, for checking those of a log. */
export const recordingNames: ReadonlyArray<keyof RecordingOptions> = [
  "input",
  "inputKey",
  "fields",
  "repeatInterval",
  "maxRepeats"
]

/** The names of `Options`. */
export const optionNames: ReadonlyArray<keyof Options> = [
  "mode",
  "maxQueued",
  "maxBatch",
  "writeTimeout",
  "closeTimeout",
  ...recordingNames
]
