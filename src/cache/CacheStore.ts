/**
 * Where cached answers are kept.
 *
 * A store keeps texts under keys until their time is over, and forgets them by label. It decides nothing: who may be
 * given an answer is in the key, and what a store returns is checked by `ToolCache`, so a store of your own can lose
 * entries but cannot make a wrong one be served under another key. Test yours with the contract suite of this package's
 * tests (`test/cache/CacheStoreTest.ts`).
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { CacheError } from "./CacheError.ts"
import { checkMemoryOptions, makeMemoryStore, type MemoryOptions } from "./internal/memoryStore.ts"

/**
 * An entry as it is read.
 *
 * - `key`: the key that it was stored under.
 * - `text`: the answer, as `ToolCache` encoded it.
 * - `freshUntil`, `keepUntil`: milliseconds of the reading fiber's monotonic clock.
 * - `labels`: what it was labelled with, where the store can tell at no cost.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  readonly key: string
  readonly text: string
  readonly labels?: ReadonlyArray<string> | undefined
  readonly freshUntil: number
  readonly keepUntil: number
}

/**
 * An entry as it is written.
 *
 * - `text`: the answer.
 * - `freshMillis`, `keepMillis`: for how long it is fresh, and for how long it is kept, from now.
 * - `labels`: what it can be invalidated by: `tool:`, `namespace:`, `tenant:`, `identity:` and `tag:` followed by a name
 *   or its digest.
 * - `mark`: what `mark` gave before the answer was computed.
 *
 * @category models
 * @since 0.1.0
 */
export interface NewEntry {
  readonly text: string
  readonly freshMillis: number
  readonly keepMillis: number
  readonly labels: ReadonlyArray<string>
  readonly mark: unknown
}

/**
 * What a store counts. `bytes` and `entries` are `undefined` where the backend does not tell. `tiers` is
 * what a store that is made of several says of each.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoreStats {
  readonly store: string
  readonly entries: number | undefined
  readonly bytes: number | undefined
  readonly evictions: number
  readonly errors: number
  readonly tiers?: ReadonlyArray<StoreStats> | undefined
}

/**
 * A place for cached answers.
 *
 * - `get`: the entry under `key` unless its `keepMillis` are over.
 * - `set`: stores an entry in place of what is there. Stores nothing when one of its labels was invalidated after `mark`
 *   was taken: the answer may have been computed from what was true before. May decline for lack of room.
 * - `remove`: forgets one key. `invalidate`: forgets every entry with one of the labels. `clear`: forgets all.
 * - `mark`: a point in time that `set` can compare invalidations with. A store that only one `ToolCache` uses may leave it
 *   out, since that keeps such answers back itself.
 * - `flight`: for stores that several processes share: makes one of them compute an answer. See `Flight`. It hands
 *   `onLead` what gives the lead back in the same step in which it takes it, so that no interruption comes between.
 * - `changes`: tells what other processes make it forget, for as long as it runs. Fails when it can hear no more.
 *
 * @category models
 * @since 0.1.0
 */
export interface Store {
  readonly name: string
  readonly get: (key: string) => Effect.Effect<Entry | undefined, CacheError>
  readonly set: (key: string, entry: NewEntry) => Effect.Effect<void, CacheError>
  readonly remove: (key: string) => Effect.Effect<void, CacheError>
  readonly invalidate: (labels: ReadonlyArray<string>) => Effect.Effect<void, CacheError>
  readonly clear: Effect.Effect<void, CacheError>
  readonly stats: Effect.Effect<StoreStats, CacheError>
  readonly mark?: Effect.Effect<unknown, CacheError> | undefined
  readonly flight?:
    | ((key: string, onLead: (release: Effect.Effect<void>) => void) => Effect.Effect<Flight, CacheError>)
    | undefined
  readonly changes?: ((onChange: (change: Change) => void) => Effect.Effect<never, CacheError>) | undefined
  /** @internal `get` of a store that has its entries at hand, without an effect. `now` is the monotonic clock's. */
  readonly "~peek"?: ((key: string, now: number) => Entry | undefined) | undefined
}

/**
 * What another process has made a shared store forget.
 *
 * @category models
 * @since 0.1.0
 */
export type Change =
  | { readonly _tag: "labels"; readonly labels: ReadonlyArray<string> }
  | { readonly _tag: "key"; readonly key: string }
  | { readonly _tag: "all" }

/**
 * What a process that has no answer is told by a store that several share.
 *
 * - `lead`: compute it, and store it with `mark`.
 * - `landed`: another process has computed it meanwhile; look again.
 *
 * @category models
 * @since 0.1.0
 */
export type Flight =
  | { readonly _tag: "lead"; readonly mark: unknown }
  | { readonly _tag: "landed" }

/**
 * The store of a `ToolCache`.
 *
 * @category services
 * @since 0.1.0
 */
export class CacheStore extends Context.Service<CacheStore, Store>()("effect-toolops/cache/CacheStore") {}

/**
 * What `layerMemory` takes.
 *
 * - `maxEntries`: most entries held, a whole number from 1. Default 10,000; the least recently used goes first.
 * - `maxBytes`: about how much memory they may take, keys and bookkeeping included. Default 64 MiB. It bounds what is
 *   held, not what V8 has yet to collect: see `layerMemory`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends MemoryOptions {}

/**
 * Provides a store in this process's memory.
 *
 * **Details**
 *
 * Answers are kept as text, so what a caller does to an answer changes nothing for the next one. Both bounds hold at all
 * times. Time is the monotonic clock's.
 *
 * **Gotchas**
 *
 * A process takes more than `maxBytes` while it replaces entries as fast as it can. V8 lets its young generation grow to
 * 128 MiB and collects the old one late. With 64 MiB and 300,000 keys of 1 KB, Node 24 held 61 MiB and grew by up to
 * 374 MiB between collections, by 166 MiB when a full one was forced (a bare `lru-cache` of the same texts: 470 and
 * 166). Under `--max-old-space-size=120 --max-semi-space-size=4` it was 86 MiB over 2,000,000 keys. Where memory is
 * short, give the process such limits.
 *
 * Two calls of `layerMemory` are two stores. Bind it once to share it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options?: Options): Layer.Layer<CacheStore> =>
  layerMemoryOf("CacheStore.layerMemory", options)

/** @internal Errors of options name the constructor that the caller has called. */
export const layerMemoryOf = (where: string, options: Options | undefined): Layer.Layer<CacheStore> => {
  checkMemoryOptions(where, options)
  return Layer.sync(CacheStore, () => makeMemoryStore(where, options))
}

/**
 * `layerMemory` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryConfig = (options: Config.Wrap<Options>): Layer.Layer<CacheStore, Config.ConfigError> =>
  Layer.effect(
    CacheStore,
    Effect.map(Config.unwrap(options), (resolved) => makeMemoryStore("CacheStore.layerMemory", resolved))
  )
