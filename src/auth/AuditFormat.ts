/**
 * Records of the audit log in the words of other systems: OCSF for data lakes, CEF for SIEMs.
 *
 * Both are functions of one record, to be used in a sink of your own or on lines that have been written.
 *
 * @since 0.1.0
 */
import type { AuditRecord } from "./AuditRecord.ts"
import { isIpv4, isIpv6 } from "./internal/auditPeer.ts"

/**
 * An event of the OCSF class *API Activity* as JSON.
 *
 * @category models
 * @since 0.1.0
 */
export interface OcsfEvent {
  readonly category_uid: 6
  readonly category_name: "Application Activity"
  readonly class_uid: 6003
  readonly class_name: "API Activity"
  readonly activity_id: 99
  readonly activity_name: string
  readonly type_uid: 600399
  readonly severity_id: number
  readonly status_id: number
  readonly status: string
  readonly status_detail: string | undefined
  readonly time: number
  readonly start_time: number
  readonly duration: number | undefined
  readonly count: number | undefined
  readonly metadata: Readonly<Record<string, unknown>>
  readonly actor: Readonly<Record<string, unknown>>
  readonly api: Readonly<Record<string, unknown>>
  readonly src_endpoint: Readonly<Record<string, unknown>>
  readonly resources: ReadonlyArray<Readonly<Record<string, unknown>>>
  readonly unmapped: Readonly<Record<string, unknown>>
}

const product = "effect-toolops"

/** How bad a record is, from 1: nothing, refused or failed, denied or died, records are missing. */
const gravityOf = ({ kind, outcome }: AuditRecord): 1 | 2 | 3 | 4 => {
  if (kind === "lost" || kind === "repaired") return 4
  switch (outcome) {
    case "denied":
    case "unauthenticated":
    case "defect":
      return 3
    case "limited":
    case "rejected":
    case "timed_out":
    case "failed":
      return 2
    default:
      return 1
  }
}

const statuses = { unknown: 0, success: 1, failure: 2, other: 99 } as const

const statusOf = ({ decision, kind, outcome }: AuditRecord): keyof typeof statuses => {
  if (kind === "lost" || kind === "repaired") return "other"
  switch (outcome) {
    case "ok":
    case "cached":
    case "stale":
    case "coalesced":
      return "success"
    case "interrupted":
      return "other"
    case undefined:
      return decision?.allow === false ? "failure" : "unknown"
    default:
      return "failure"
  }
}

/**
 * Turns a record into an event of OCSF 1.3.0, class API Activity (6003): https://schema.ocsf.io/1.3.0/classes/api_activity
 *
 * **Details**
 *
 * A call of a tool is none of create, read, update and delete, so `activity_id` is 99 and `activity_name` the action. The
 * tool is `api.operation`, the call `api.request.uid` and `metadata.correlation_uid`, the caller `actor.user` with the tenant
 * as `org`, the decision `actor.authorizations`. `severity_id` is 1 for answers, 2 for limits and failures, 3 for denials and
 * defects, 4 where records are missing. What OCSF has no word for is in `unmapped`.
 *
 * **Example** (Finding who was denied)
 *
 * ```ts
 * import { AuditFormat } from "effect-toolops/auth"
 *
 * const event = AuditFormat.toOcsf({
 *   version: 1,
 *   kind: "call",
 *   callId: "c-1",
 *   time: 0,
 *   offsetMillis: 5,
 *   caller: { tenant: "acme", principal: "ada", method: "api_key" },
 *   tool: { id: "hr:salaries", action: "call" },
 *   decision: { allow: false, rule: "no rule grants it", reason: "Forbidden" },
 *   outcome: "denied",
 *   errorType: "Forbidden"
 * })
 *
 * event.status // => "failure"
 * event.actor.user // => { uid: "ada", name: "ada", org: { uid: "acme" }, type_id: 0 }
 * ```
 *
 * @category converting
 * @since 0.1.0
 */
export const toOcsf = (record: AuditRecord): OcsfEvent => {
  const { caller, callId, count, decision, durationMillis, errorType, kind, outcome, peer, time, tool } = record
  const isNote = kind === "lost" || kind === "repaired"
  const status = statusOf(record)
  return {
    category_uid: 6,
    category_name: "Application Activity",
    class_uid: 6003,
    class_name: "API Activity",
    activity_id: 99,
    activity_name: isNote ? kind : tool.action,
    type_uid: 600399,
    severity_id: gravityOf(record),
    status_id: statuses[status],
    status,
    status_detail: outcome,
    time,
    start_time: time,
    duration: durationMillis === undefined ? undefined : Math.round(durationMillis),
    count,
    metadata: {
      version: "1.3.0",
      product: { name: product, vendor_name: product },
      log_name: "audit",
      log_version: String(record.version),
      event_code: kind,
      correlation_uid: callId === "" ? undefined : callId
    },
    actor: isNote
      ? { app_name: product }
      : {
        user: caller === undefined ? { name: "unknown", type_id: 0 } : compact({
          uid: caller.principal,
          name: caller.principal,
          org: caller.tenant === undefined ? undefined : { uid: caller.tenant },
          credential_uid: caller.keyId,
          type_id: 0
        }),
        authorizations: decision === undefined ? undefined : [
          compact({
            decision: decision.allow ? "allowed" : "denied",
            policy: decision.rule === undefined ? undefined : { name: decision.rule }
          })
        ]
      },
    api: {
      operation: isNote ? `audit.${kind}` : tool.id,
      request: callId === "" ? undefined : { uid: callId },
      response: errorType === undefined ? undefined : { error: errorType }
    },
    src_endpoint: peer === undefined
      ? { name: "unknown" }
      : isIpv4(peer) || isIpv6(peer)
      ? { ip: peer }
      : { name: peer },
    resources: [compact({ uid: tool.id, type: "tool", version: tool.digest })],
    unmapped: compact({
      offset_millis: record.offsetMillis,
      attempts: record.attempts,
      auth_method: caller?.method,
      issuer: caller?.issuer,
      reason: decision?.reason,
      input: record.input,
      trace_id: record.traceId,
      span_id: record.spanId
    })
  }
}

const compact = (members: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined))

// Beside line ends nothing that is not printed has a place in CEF: it would end the line for somebody, or command a
// terminal, turn text around, or make two texts look the same.
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu
const header = (text: string): string =>
  text.toWellFormed().replace(unprintable, " ").replace(/[\\|]/g, (character) => `\\${character}`)

const extension = (text: string): string =>
  text.toWellFormed()
    .replace(/[\\=]/g, (character) => `\\${character}`)
    .replace(unprintable, (character) => character === "\n" ? "\\n" : character === "\r" ? "\\r" : " ")

const severities = { 1: 2, 2: 4, 3: 7, 4: 9 } as const

/**
 * Turns a record into one line of CEF 0, the Common Event Format of ArcSight (Implementing ArcSight Common Event Format,
 * version 26).
 *
 * **Details**
 *
 * In the header `\` and `|` are escaped, in extensions `\`, `=`, and line ends as `\n` and `\r`; other control characters
 * and those that only format (Unicode Cc and Cf, which cannot be seen) become spaces. The event class is kind and outcome, such as `call:denied`. Extensions are those of the dictionary (`rt`,
 * `externalId`, `suid`, `src`, `act`, `outcome`, `reason`, `cnt`, `destinationServiceName`), and custom ones with labels:
 * tenant, rule, digests, trace, key and issuer of the caller.
 *
 * **Example** (A line for a SIEM)
 *
 * ```ts
 * import { AuditFormat } from "effect-toolops/auth"
 *
 * AuditFormat.toCef({
 *   version: 1,
 *   kind: "call",
 *   callId: "c-1",
 *   time: 0,
 *   offsetMillis: 5,
 *   caller: { principal: "ada=1", method: "api_key" },
 *   tool: { id: "docs:search", action: "call" },
 *   outcome: "ok"
 * })
 * // => "CEF:0|effect-toolops|effect-toolops|1|call:ok|Tool call|2|rt=0 externalId=c-1 act=call outcome=ok destinationServiceName=docs:search suid=ada\\=1 ToolopsMethod=api_key"
 * ```
 *
 * @category converting
 * @since 0.1.0
 */
export const toCef = (record: AuditRecord): string => {
  const { caller, decision, input, kind, outcome, peer, tool } = record
  const isNote = kind === "lost" || kind === "repaired"
  const event = outcome === undefined ? kind : `${kind}:${outcome}`
  const head = [
    "CEF:0",
    product,
    product,
    String(record.version),
    event,
    isNote ? "Audit log" : "Tool call",
    String(severities[gravityOf(record)])
  ]
  const members: Array<readonly [string, string | number | undefined]> = [
    ["rt", record.time],
    ["externalId", record.callId === "" ? undefined : record.callId],
    ["act", tool.action === "" ? undefined : tool.action],
    ["outcome", outcome],
    ["reason", record.errorType ?? decision?.reason],
    ["cnt", record.count],
    ["destinationServiceName", tool.id],
    ["suid", caller?.principal],
    ...source(peer),
    ["ToolopsMethod", caller?.method],
    ["ToolopsDecision", decision === undefined ? undefined : decision.allow ? "allowed" : "denied"],
    ...labelled("cs1", "tenant", caller?.tenant),
    ...labelled("cs2", "rule", decision?.rule),
    ...labelled("cs3", "toolDigest", tool.digest),
    ...labelled("cs4", "inputDigest", input?.digest),
    ...labelled("cs5", "traceId", record.traceId),
    ...labelled("cs6", "keyId", caller?.keyId),
    ...labelled("cn1", "durationMillis", whole(record.durationMillis)),
    ...labelled("cn2", "attempts", record.attempts),
    ...labelled("flexString1", "input", input?.fields === undefined ? undefined : JSON.stringify(input.fields)),
    ...labelled("flexString2", "issuer", caller?.issuer)
  ]
  const text = members
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${extension(String(value))}`)
  return `${head.map(header).join("|")}|${text.join(" ")}`
}

const whole = (value: number | undefined): number | undefined => value === undefined ? undefined : Math.round(value)

const labelled = (
  name: string,
  label: string,
  value: string | number | undefined
): ReadonlyArray<readonly [string, string | number | undefined]> =>
  value === undefined ? [] : [[`${name}Label`, label], [name, value]]

const source = (peer: string | undefined): ReadonlyArray<readonly [string, string | undefined]> =>
  peer === undefined || isIpv4(peer)
    ? [["src", peer]]
    : isIpv6(peer)
    ? [["c6a2Label", "Source IPv6 Address"], ["c6a2", peer]]
    : [["shost", peer]]
