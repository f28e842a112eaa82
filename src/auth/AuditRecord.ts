/**
 * One line of the audit log: who did what with which tool, what was decided, and what became of it.
 *
 * A record is plain JSON, so its decoded and its encoded form are the same, and a log is one JSON object per line. It holds
 * no credential, no header, no claim and no result. Of a call's input it holds a digest and the fields that the operator has
 * named, nothing else.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { outcomes } from "../CallRecord.ts"
import { toLine as escapeLine } from "../internal/jsonLine.ts"

/**
 * The version of the form of records. It changes when a reader of the old form would misread the new one; members that are
 * added do not change it.
 *
 * @category constants
 * @since 0.1.0
 */
export const version = 1

/**
 * What a record tells.
 *
 * - `call`: a whole call, written when it has ended. What `best-effort` writes.
 * - `decision`: that a call was decided on, before its handler starts; `outcome`: what became of it, under the same
 *   `callId`. What `required` writes. A decision without an outcome is a call that the process did not survive.
 * - `repeats`: how often the same refusal has been repeated since it was told in full: of the same caller with the same
 *   credential from the same address, who wanted to do the same with the same tool, for the same reason.
 * - `lost`: how many records could not be written and are missing here.
 * - `repaired`: that a crash had left an unfinished line, how many bytes of it, and that they have been moved aside.
 *
 * @category models
 * @since 0.1.0
 */
export const Kind = Schema.Literals(["call", "decision", "outcome", "repeats", "lost", "repaired"])

/**
 * Who called. `issuer` is who vouches for the caller, where somebody outside does. `keyId` is the name of the credential, where it has one: of an API key its id.
 *
 * @category models
 * @since 0.1.0
 */
export const Caller = Schema.Struct({
  issuer: Schema.optional(Schema.String),
  tenant: Schema.optional(Schema.String),
  principal: Schema.String,
  method: Schema.String,
  keyId: Schema.optional(Schema.String)
})

/** @category models @since 0.1.0 */
export type Caller = typeof Caller.Type

/**
 * What of a call's input is recorded.
 *
 * - `digest`: SHA-256 over the input's canonical JSON (RFC 8785), or HMAC-SHA-256 where the log has an `inputKey`, in
 *   hexadecimal. Absent for an input that is no JSON.
 * - `fields`: top-level members that the operator has named. Texts are cut at 256 characters, lists and objects left out.
 *
 * @category models
 * @since 0.1.0
 */
export const Input = Schema.Struct({
  digest: Schema.optional(Schema.String),
  fields: Schema.optional(
    Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Number, Schema.Boolean, Schema.Null]))
  )
})

/** @category models @since 0.1.0 */
export type Input = typeof Input.Type

/**
 * The Schema of a record.
 *
 * - `version`: 1. `kind`: see `Kind`.
 * - `callId`: the call's name, the same in spans and log lines. Empty for `repeats` and `lost`.
 * - `time`: when the call started, of `repeats` when the first of them came, of `lost` when it was noticed; milliseconds since 1970 by the wall clock.
 *   `offsetMillis`: when the record was made, in milliseconds of the monotonic clock since the log was opened.
 * - `caller`: absent when nobody was authenticated. `peer`: the network address, where the edge gave one.
 * - `tool`: its id, the digest of its description and Schemas, and what the caller wanted to do with it. The id `_other`
 *   without a digest stands for all of them, in `lost` and in `repeats` of refusals that were too many to tell apart. Such
 *   `repeats` name the caller, or the IPv6 network of one who was not authenticated, unless these were too many as well.
 * - `input`: see `Input`.
 * - `decision`: whether the call was let in, the rule that said so, and the reason of a refusal. Absent when the caller went
 *   away, or something broke, before it was decided.
 * - `outcome`, `errorType`: as in the `CallRecord`. `durationMillis`: by the monotonic clock. `attempts`: how often the
 *   handler was started. Absent from a `decision`.
 * - `traceId`, `spanId`: the trace of the call.
 * - `count`: how many calls `repeats`, and how many records `lost` stands for; bytes for `repaired`.
 *
 * @category models
 * @since 0.1.0
 */
export const AuditRecord = Schema.Struct({
  version: Schema.Literal(version),
  kind: Kind,
  callId: Schema.String,
  time: Schema.Number,
  offsetMillis: Schema.Number,
  caller: Schema.optional(Caller),
  peer: Schema.optional(Schema.String),
  tool: Schema.Struct({
    id: Schema.String,
    digest: Schema.optional(Schema.String),
    action: Schema.String
  }),
  input: Schema.optional(Input),
  decision: Schema.optional(Schema.Struct({
    allow: Schema.Boolean,
    rule: Schema.optional(Schema.String),
    reason: Schema.optional(Schema.String)
  })),
  outcome: Schema.optional(Schema.Literals(outcomes)),
  errorType: Schema.optional(Schema.String),
  durationMillis: Schema.optional(Schema.Number),
  attempts: Schema.optional(Schema.Number),
  traceId: Schema.optional(Schema.String),
  spanId: Schema.optional(Schema.String),
  count: Schema.optional(Schema.Number)
})

/** @category models @since 0.1.0 */
export type AuditRecord = typeof AuditRecord.Type

/**
 * The record as one line of JSON, without the line's end. Control characters in it are escaped.
 *
 * @category encoding
 * @since 0.1.0
 */
export const toLine = (record: AuditRecord): string => escapeLine(JSON.stringify(record))

/**
 * Reads what `toLine` has written. Fails for what is not a record of this version; members that are not known are left out.
 *
 * @category decoding
 * @since 0.1.0
 */
export const fromLine: (line: string) => Effect.Effect<AuditRecord, Schema.SchemaError> = Schema.decodeEffect(
  Schema.fromJsonString(AuditRecord)
)
