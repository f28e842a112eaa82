import { type AuditRecord, version } from "../AuditRecord.ts"

// A caller that is refused again and again is told in full once, then as a count per interval. What is kept is bounded:
// refusals that find no room are counted together, by reason alone.

/** A refusal that repeats. */
interface Repeat {
  readonly first: AuditRecord
  count: number
  since: number
}

/** All refusals of one caller by one tool, by their reason. */
type OfCaller = Map<string, Repeat>

const other = "_other"

const part = (text: string): string => `${text.length}:${text}`

const isByPeer = ({ caller }: AuditRecord): boolean => caller === undefined || caller.method === "anonymous"

/** What makes callers, and what they do, the same: with lengths in front, so that no part slides into the next. */
const keyOf = (record: AuditRecord): string => {
  const { caller, peer, tool } = record
  const address = isByPeer(record) ? peer ?? "" : ""
  const who = caller === undefined
    ? "?"
    : part(caller.method) + (caller.tenant === undefined ? "-" : part(caller.tenant)) + part(caller.principal)
  return part(tool.id) + part(tool.action) + part(address) + who
}

const reasonOf = (record: AuditRecord): string => `${record.outcome ?? ""} ${record.errorType ?? ""}`

/** The refusals that have been told in full and are being counted. */
export class Repeats {
  readonly maxKeys: number
  #callers = new Map<string, OfCaller>()
  #others = new Map<string, Repeat>()
  #size = 0

  constructor(maxKeys: number) {
    this.maxKeys = maxKeys
  }

  get isEmpty(): boolean {
    return this.#size === 0 && this.#others.size === 0
  }

  /** Whether the refusal is to be told in full. If not, it has been counted. */
  isFirst(record: AuditRecord): boolean {
    if (this.open(record)) return true
    const reason = reasonOf(record)
    const repeat = this.#callers.get(keyOf(record))?.get(reason)
    if (repeat !== undefined) count(repeat, record)
    else this.countOther(reason, record)
    return false
  }

  /** Starts counting refusals like this one. False when they are being counted, or there is no room. */
  open(record: AuditRecord): boolean {
    const key = keyOf(record)
    const reason = reasonOf(record)
    const known = this.#callers.get(key)
    if (this.#size >= this.maxKeys || known?.has(reason) === true) return false
    this.#size += 1
    const fresh = { first: record, count: 0, since: record.time }
    if (known === undefined) this.#callers.set(key, new Map([[reason, fresh]]))
    else known.set(reason, fresh)
    return true
  }

  /** Whether the caller of this record has been refused by the same tool of late, after having been let in. */
  isOpen(record: AuditRecord): boolean {
    if (this.#size === 0) return false
    const known = this.#callers.get(keyOf(record))
    if (known === undefined) return this.#others.size > 0
    for (const { first } of known.values()) if (first.outcome === "limited" || first.outcome === "rejected") return true
    return false
  }

  countOther(reason: string, record: AuditRecord): void {
    const repeat = this.#others.get(reason)
    if (repeat !== undefined) count(repeat, record)
    else this.#others.set(reason, { first: record, count: 1, since: record.time })
  }

  /** The counts of the interval that has passed. Who has not come again is forgotten. */
  take(offsetMillis: number): ReadonlyArray<AuditRecord> {
    const records: Array<AuditRecord> = []
    for (const [key, repeats] of this.#callers) {
      for (const [reason, repeat] of repeats) {
        if (repeat.count === 0) {
          repeats.delete(reason)
          this.#size -= 1
        } else {
          const { caller, peer, tool } = repeat.first
          // Known callers may have come from elsewhere meanwhile.
          records.push(
            toRecord(repeat, offsetMillis, { caller, peer: isByPeer(repeat.first) ? peer : undefined, tool })
          )
          repeat.count = 0
        }
      }
      if (repeats.size === 0) this.#callers.delete(key)
    }
    for (const repeat of this.#others.values()) {
      records.push(toRecord(repeat, offsetMillis, { tool: { id: other, action: "" } }))
    }
    this.#others.clear()
    return records
  }
}

const count = (repeat: Repeat, record: AuditRecord): void => {
  if (repeat.count === 0) repeat.since = record.time
  repeat.count += 1
}

const toRecord = (
  { count, first, since }: Repeat,
  offsetMillis: number,
  who: Pick<AuditRecord, "caller" | "peer" | "tool">
): AuditRecord => ({
  version,
  kind: "repeats",
  callId: "",
  time: since,
  offsetMillis,
  ...who,
  decision: first.decision,
  outcome: first.outcome,
  errorType: first.errorType,
  count
})
