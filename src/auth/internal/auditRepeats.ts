import { type AuditRecord, version } from "../AuditRecord.ts"
import { peerGroup } from "./auditPeer.ts"

// A caller that is refused again and again is told in full once, then as a count per interval. What is kept is bounded, and
// so that nobody's refusals hide somebody else's:
//
// - callers who were authenticated and those who were not have places of their own;
// - every caller has one place for a first refusal, and all of them share as many for what else they try, of which one
//   caller takes a twentieth at most;
// - what finds no place is counted by reason alone: of its caller, or of all callers when there is no place for the caller.

/** A refusal that repeats. */
interface Repeat {
  readonly first: AuditRecord
  /** Whom and what its count is about. */
  readonly about: About
  count: number
  since: number
}

type About = Pick<AuditRecord, "caller" | "peer" | "tool">

type ByReason = Map<string, Repeat>

/** One caller's refusals. */
interface OfCaller {
  /** By what was called and how, then by reason. */
  readonly kinds: Map<string, ByReason>
  readonly others: ByReason
  size: number
}

const other = { id: "_other", action: "" }

const part = (text: string | undefined): string => text === undefined ? "-" : `${text.length}:${text}`

const isByPeer = ({ caller }: AuditRecord): boolean => caller === undefined || caller.method === "anonymous"

/** What makes callers the same: with lengths in front, so that no part slides into the next. */
const callerKey = (record: AuditRecord): string => {
  const { caller, peer } = record
  return isByPeer(record)
    ? part(peerGroup(peer))
    : part(caller?.issuer) + part(caller?.method) + part(caller?.tenant) + part(caller?.principal)
}

const kindKey = ({ caller, peer, tool }: AuditRecord): string =>
  part(tool.id) + part(tool.action) + part(peer) + part(caller?.keyId) + part(caller?.method) +
  part(caller?.tenant) + part(caller?.principal) + part(caller?.issuer)

const reasonOf = (record: AuditRecord): string => `${record.outcome ?? ""} ${record.errorType ?? ""}`

/** What is told of a caller whose refusals are not told apart. */
const aboutCaller = (record: AuditRecord): About => {
  const { caller, peer } = record
  return isByPeer(record)
    ? { caller, peer: peerGroup(peer), tool: other }
    : { caller: caller === undefined ? undefined : { ...caller, keyId: undefined }, tool: other }
}

const start = (first: AuditRecord, about: About): Repeat => ({ first, about, count: 0, since: first.time })

/** The refusals of callers of one kind: authenticated, or not. */
class Pool {
  readonly #maxCallers: number
  readonly #maxPerCaller: number
  readonly #callers = new Map<string, OfCaller>()
  readonly #others: ByReason = new Map()
  // Those beyond each caller's first.
  #extras = 0

  constructor(maxCallers: number) {
    this.#maxCallers = maxCallers
    this.#maxPerCaller = Math.ceil(maxCallers / 20)
  }

  get isEmpty(): boolean {
    return this.#callers.size === 0 && this.#others.size === 0
  }

  /** What counts refusals like this one, and whether it has just been made for it alone. */
  repeatOf(record: AuditRecord): { readonly repeat: Repeat; readonly isFirst: boolean } {
    const reason = reasonOf(record)
    const key = callerKey(record)
    let caller = this.#callers.get(key)
    if (caller === undefined) {
      if (this.#callers.size >= this.#maxCallers) return { repeat: among(this.#others, reason, record), isFirst: false }
      caller = { kinds: new Map(), others: new Map(), size: 0 }
      this.#callers.set(key, caller)
    }
    const kind = kindKey(record)
    const known = caller.kinds.get(kind)
    const counted = known?.get(reason)
    if (counted !== undefined) return { repeat: counted, isFirst: false }
    if (caller.size > 0) {
      if (caller.size >= this.#maxPerCaller || this.#extras >= this.#maxCallers) {
        return { repeat: among(caller.others, reason, record, aboutCaller), isFirst: false }
      }
      this.#extras += 1
    }
    caller.size += 1
    const { peer, tool } = record
    const repeat = start(record, { caller: record.caller, peer, tool })
    if (known === undefined) caller.kinds.set(kind, new Map([[reason, repeat]]))
    else known.set(reason, repeat)
    return { repeat, isFirst: true }
  }

  isOpen(record: AuditRecord): boolean {
    // As in most programs at most times: then no call pays for keys.
    if (this.isEmpty) return false
    const caller = this.#callers.get(callerKey(record))
    if (caller === undefined) return hasLetIn(this.#others)
    const known = caller.kinds.get(kindKey(record))
    return (known !== undefined && hasLetIn(known)) || hasLetIn(caller.others)
  }

  take(tell: (repeat: Repeat) => void): void {
    for (const [key, caller] of this.#callers) {
      for (const [kind, repeats] of caller.kinds) {
        const gone = takeFrom(repeats, tell)
        // A caller's first place is no extra one.
        this.#extras -= Math.min(gone, caller.size - 1)
        caller.size -= gone
        if (repeats.size === 0) caller.kinds.delete(kind)
      }
      takeFrom(caller.others, tell)
      if (caller.size === 0 && caller.others.size === 0) this.#callers.delete(key)
    }
    takeFrom(this.#others, tell)
  }
}

const among = (
  repeats: ByReason,
  reason: string,
  record: AuditRecord,
  about: (record: AuditRecord) => About = () => ({ tool: other })
): Repeat => {
  const known = repeats.get(reason)
  if (known !== undefined) return known
  const fresh = start(record, about(record))
  repeats.set(reason, fresh)
  return fresh
}

const hasLetIn = (repeats: ByReason): boolean => {
  for (const { first } of repeats.values()) if (first.outcome === "limited" || first.outcome === "rejected") return true
  return false
}

/** Tells counts and begins them anew. What has not come again is forgotten; says how much that is. */
const takeFrom = (repeats: ByReason, tell: (repeat: Repeat) => void): number => {
  let gone = 0
  for (const [reason, repeat] of repeats) {
    if (repeat.count === 0) {
      repeats.delete(reason)
      gone += 1
    } else {
      tell(repeat)
      repeat.count = 0
    }
  }
  return gone
}

/** The refusals that have been told in full and are being counted. */
export class Repeats {
  readonly #authenticated: Pool
  readonly #unknown: Pool

  constructor(maxCallers: number) {
    this.#authenticated = new Pool(maxCallers)
    this.#unknown = new Pool(maxCallers)
  }

  get isEmpty(): boolean {
    return this.#authenticated.isEmpty && this.#unknown.isEmpty
  }

  /** Whether the refusal is to be told in full. If not, it has been counted. */
  isFirst(record: AuditRecord): boolean {
    const { isFirst, repeat } = this.#poolOf(record).repeatOf(record)
    if (isFirst) return true
    if (repeat.count === 0) repeat.since = record.time
    repeat.count += 1
    return false
  }

  /** Starts counting refusals like this one, which has been told in full. */
  open(record: AuditRecord): void {
    this.#poolOf(record).repeatOf(record)
  }

  /** Whether the caller of this record has been refused by the same tool of late, after having been let in. */
  isOpen(record: AuditRecord): boolean {
    return this.#poolOf(record).isOpen(record)
  }

  /** The counts of the interval that has passed. Who has not come again is forgotten. */
  take(offsetMillis: number): ReadonlyArray<AuditRecord> {
    const records: Array<AuditRecord> = []
    for (const pool of [this.#authenticated, this.#unknown]) {
      pool.take((repeat) => records.push(toRecord(repeat, offsetMillis)))
    }
    return records
  }

  #poolOf(record: AuditRecord): Pool {
    return isByPeer(record) ? this.#unknown : this.#authenticated
  }
}

const toRecord = ({ about, count, first, since }: Repeat, offsetMillis: number): AuditRecord => ({
  version,
  kind: "repeats",
  callId: "",
  time: since,
  offsetMillis,
  ...about,
  decision: first.decision,
  outcome: first.outcome,
  errorType: first.errorType,
  count
})
