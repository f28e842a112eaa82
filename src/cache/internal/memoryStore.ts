import * as Effect from "effect/Effect"
import { LRUCache } from "lru-cache"
import { monotonicMillis } from "../../internal/monotonic.ts"
import * as Check from "../../internal/options.ts"
import { isCacheKey } from "../CacheKey.ts"
import type { Entry, Store } from "../CacheStore.ts"
import type { KeptEntry } from "./recentAnswers.ts"

/** Documented as `CacheStore.Options`. */
export interface MemoryOptions {
  readonly maxEntries?: number | undefined
  readonly maxBytes?: number | undefined
}

// Invalidation is by epoch: each label remembers when it was last invalidated, and an entry that is older is dead. It
// costs nothing per entry, takes constant time whatever it hits, and holds as well for an answer that was under way.
interface MemoryEntry extends KeptEntry {
  readonly labels: ReadonlyArray<string>
  readonly since: number
  /** The epoch up to which this entry is known to be alive. */
  aliveAt: number
  /** What gives this entry, from the first time that it is asked for. */
  found: Effect.Effect<Entry> | undefined
}

/** Labels whose last invalidation is remembered. Beyond it, everything older than the oldest one counts as dead. */
const maxLabels = 10_000

// What V8 and lru-cache take for an entry beside its texts: the record, its numbers, list links, map slot and key index.
const entryOverhead = 320

// A string is one byte a character unless it holds one beyond Latin-1.
// oxlint-disable-next-line no-control-regex -- the range is all of Latin-1
const wide = /[^\u0000-\u00ff]/
const stringBytes = (text: string): number => wide.test(text) ? text.length * 2 : text.length

/** Resolves the options, so that a bad one is found where the layer is made. */
export const checkMemoryOptions = (
  where: string,
  options: MemoryOptions = {}
): { readonly maxEntries: number; readonly maxBytes: number } => {
  Check.known(where, options, ["maxEntries", "maxBytes"])
  return {
    maxEntries: Check.integer(where, "maxEntries", options.maxEntries ?? 10_000, 1, 2 ** 26),
    maxBytes: Check.integer(where, "maxBytes", options.maxBytes ?? 64 * 1024 * 1024, 1024)
  }
}

export const makeMemoryStore = (where: string, options: MemoryOptions | undefined): Store => {
  const { maxBytes, maxEntries } = checkMemoryOptions(where, options)
  let evictions = 0
  let written = 0
  let epoch = 0
  let floor = 0
  const epochs = new Map<string, number>()
  const entries = new LRUCache<string, MemoryEntry>({
    max: maxEntries,
    maxSize: maxBytes,
    dispose: (_entry, _key, reason) => {
      if (reason === "evict") evictions++
    }
  })

  const isAlive = (entry: MemoryEntry): boolean => {
    if (entry.aliveAt === epoch) return true
    if (entry.since < floor) return false
    for (const label of entry.labels) {
      const invalidated = epochs.get(label)
      if (invalidated !== undefined && invalidated > entry.since) return false
    }
    entry.aliveAt = epoch
    return true
  }

  const forget = (label: string): void => {
    // Deleted first, so that the map's order is the order of invalidation.
    epochs.delete(label)
    epochs.set(label, ++epoch)
    if (epochs.size <= maxLabels) return
    for (const [oldest, at] of epochs) {
      epochs.delete(oldest)
      floor = at
      break
    }
  }

  // Dead entries that nobody asks for would otherwise wait for their turn at the end of the list. Every 32 entries, up
  // to 64 are looked at, oldest use first, so that more can go than come.
  const sweep = (now: number): void => {
    let steps = 0
    for (const key of entries.rkeys()) {
      const entry = entries.peek(key)
      if (++steps > 64 || entry === undefined || (entry.keepUntil > now && isAlive(entry))) return
      entries.delete(key)
    }
  }

  const peek = (key: string, now: number): MemoryEntry | undefined => {
    const entry = entries.get(key)
    if (entry === undefined || (entry.keepUntil > now && isAlive(entry))) return entry
    // Nothing ran since the look-up, so what is deleted is what was looked at.
    entries.delete(key)
    return undefined
  }

  return {
    name: "memory",
    get: (key) =>
      Effect.withFiber((fiber) => {
        const entry = peek(key, monotonicMillis(fiber))
        return entry === undefined ? nothing : entry.found ??= Effect.succeed(entry)
      }),
    "~peek": peek,
    set: (key, entry) =>
      Effect.withFiber((fiber) => {
        const now = monotonicMillis(fiber)
        if ((++written & 31) === 0) sweep(now)
        const since = typeof entry.mark === "number" ? entry.mark : epoch
        const kept: MemoryEntry = {
          key,
          text: entry.text,
          freshUntil: now + entry.freshMillis,
          keepUntil: now + entry.keepMillis,
          labels: entry.labels,
          since,
          aliveAt: since,
          found: undefined,
          "~asked": undefined
        }
        if (!isCacheKey(key) || !(entry.keepMillis > 0) || !isAlive(kept)) return Effect.void
        let size = entryOverhead + key.length + stringBytes(entry.text)
        for (const label of entry.labels) size += label.length + 16
        entries.set(key, kept, { size })
        return Effect.void
      }),
    remove: (key) => Effect.sync(() => void entries.delete(key)),
    invalidate: (labels) =>
      Effect.sync(() => {
        for (const label of labels) forget(label)
      }),
    clear: Effect.sync(() => {
      floor = ++epoch
      epochs.clear()
      entries.clear()
    }),
    stats: Effect.sync(() => ({
      store: "memory",
      entries: entries.size,
      bytes: entries.calculatedSize,
      evictions,
      errors: 0
    })),
    mark: Effect.sync(() => epoch)
  }
}

const nothing: Effect.Effect<undefined> = Effect.succeed(undefined)
