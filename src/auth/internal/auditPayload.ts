import { type AuditRecord, toLine } from "../AuditRecord.ts"
import { cut } from "./auditCaller.ts"
import { maxPayloadBytes } from "./auditChain.ts"

const isTooLong = (line: string): boolean =>
  line.length > maxPayloadBytes ||
  (line.length * 3 > maxPayloadBytes && new TextEncoder().encode(line).length > maxPayloadBytes)

// The texts of a record that the pipeline makes are short. One that somebody else has made may be any size.
const shortened = (record: AuditRecord): AuditRecord => {
  const { caller, decision, input, tool } = record
  return {
    version: record.version,
    kind: record.kind,
    callId: cut(record.callId),
    time: record.time,
    offsetMillis: record.offsetMillis,
    caller: caller === undefined ? undefined : {
      issuer: cut(caller.issuer),
      tenant: cut(caller.tenant),
      principal: cut(caller.principal),
      method: cut(caller.method),
      keyId: cut(caller.keyId)
    },
    peer: cut(record.peer),
    tool: { id: cut(tool.id), digest: cut(tool.digest), action: cut(tool.action) },
    input: input === undefined ? undefined : { digest: cut(input.digest) },
    decision: decision === undefined
      ? undefined
      : { allow: decision.allow, rule: cut(decision.rule), reason: cut(decision.reason) },
    outcome: record.outcome,
    errorType: cut(record.errorType),
    durationMillis: record.durationMillis,
    attempts: record.attempts,
    traceId: cut(record.traceId),
    spanId: cut(record.spanId),
    count: record.count
  }
}

/**
 * The record as JSON that fits into a line of the audit file. Of one that is too long texts are cut, and the members of the
 * input left out: a longer line could not be read again.
 */
export const toPayload = (record: AuditRecord): string => {
  const line = toLine(record)
  return isTooLong(line) ? toLine(shortened(record)) : line
}
