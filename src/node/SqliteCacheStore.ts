/**
 * A `CacheStore` in a file: answers survive a restart, and the processes of one machine share them.
 *
 * The file is SQLite's, in WAL mode, and may be killed, truncated or overwritten at any time: an entry carries a checksum
 * of itself and its whole key, so what comes back is what was stored under that key or nothing. A file that is not ours or is damaged is moved aside as
 * `<path>.corrupt-<time>` and a new one begun; an empty file `<path>.rebuild` stays, which sees to it that one process does
 * so. While the file cannot be used (locked, full disk) the cache is bypassed. Versions of this library whose answers are
 * kept differently may use one file: each has tables of its own in it, and a newer one drops those of older ones.
 *
 * Entries outlive the process, so their times are the wall clock's. An entry from the future counts as none: when the
 * clock is set back, answers end early rather than late.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { crc32 } from "node:zlib"
import * as CacheError from "../cache/CacheError.ts"
import { isCacheKey } from "../cache/CacheKey.ts"
import { CacheStore, type Entry, type NewEntry, type Store, type StoreStats } from "../cache/CacheStore.ts"
import { monotonicMillis, monotonicMillisOf } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { CacheFile, idOf, isDamage, isUnknownTable } from "./internal/cacheFile.ts"

/**
 * What `layer` takes.
 *
 * - `path`: the file. Its folder must exist. It is made with mode 0600, because answers may be private.
 * - `maxBytes`: how many bytes of answers, keys and bookkeeping are held. Default 256 MiB; what would end soonest goes
 *   first. The file may be larger by what SQLite keeps for reuse and by its write-ahead log.
 * - `busyTimeout`: how long a write waits for another process's write. It waits on the event loop. Default 25 ms.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly path: string
  readonly maxBytes?: number | undefined
  readonly busyTimeout?: Duration.Input | undefined
}

const where = "SqliteCacheStore.layer"

const resolve = (options: Options) => {
  Check.known(where, options, ["path", "maxBytes", "busyTimeout"])
  if (typeof options.path !== "string" || options.path.length === 0) {
    throw new TypeError(`${where}: path must be a non-empty string`)
  }
  return {
    path: options.path,
    maxBytes: Check.integer(where, "maxBytes", options.maxBytes ?? 256 * 1024 * 1024, 4096),
    busyMillis: Check.millis(where, "busyTimeout", options.busyTimeout ?? 25, { allowZero: true })
  }
}

/**
 * A file that could not be opened is tried again no sooner than this. As often it is asked whether the one that is open is
 * still at its path, and was not moved aside or deleted: invalidations by others would not reach it.
 */
const reopenMillis = 1000

/** A file is moved aside no more often than this, so that a disk that damages files is not filled with them. */
const rebuildMillis = 10_000

/** Labels that wait until the file can be used again. Beyond it, everything is invalidated then. */
const maxOwed = 10_000

/** Entries deleted in one transaction, so that a large invalidation does not hold up the event loop. */
const step = 500

class SqliteStore implements Store {
  readonly name = "sqlite"
  readonly #options: ReturnType<typeof resolve>
  #file: CacheFile | undefined = undefined
  #triedAt = -Infinity
  #rebuiltAt = -Infinity
  #tablesGoneAt = -Infinity
  #owed: Set<string> | "all" = new Set()
  #errors = 0
  #evictions = 0

  constructor(options: ReturnType<typeof resolve>) {
    this.#options = options
  }

  readonly get = (key: string): Effect.Effect<Entry | undefined, CacheError.CacheError> =>
    this.#use((file, fiber) => {
      const id = idOf(key)
      const sealed = file.read(id)
      if (sealed === undefined) return undefined
      const clock = fiber.getRef(Clock.Clock)
      const now = clock.currentTimeMillisUnsafe()
      const entry = unseal(key, sealed)
      if (entry === "damaged") file.remove(id)
      if (entry === "damaged" || entry === "another's") return undefined
      if (now >= entry.keepUntil || now < entry.written) return undefined
      const offset = monotonicMillisOf(clock) - now
      return {
        key,
        text: entry.text,
        freshUntil: entry.freshUntil + offset,
        keepUntil: entry.keepUntil + offset
      }
    })

  readonly set = (key: string, entry: NewEntry): Effect.Effect<void, CacheError.CacheError> =>
    this.#use((file, fiber) => {
      if (!isCacheKey(key) || !(entry.keepMillis > 0)) return
      const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
      const keep = Math.min(Math.floor(now + entry.keepMillis), Number.MAX_SAFE_INTEGER)
      const id = idOf(key)
      const body = digits(now) + digits(now + entry.freshMillis) + digits(keep) + named(key) + entry.text
      this.#evictions += file.write({
        id,
        sealed: seal(body),
        written: now,
        keep,
        labels: entry.labels,
        mark: typeof entry.mark === "number" ? entry.mark : undefined
      }, this.#options.maxBytes)
    })

  readonly remove = (key: string): Effect.Effect<void, CacheError.CacheError> =>
    this.#use((file) => file.remove(idOf(key)))

  readonly invalidate = (labels: ReadonlyArray<string>): Effect.Effect<void, CacheError.CacheError> =>
    Effect.onError(
      Effect.andThen(
        this.#use((file) => file.markInvalid(labels)),
        this.#inSteps((file) => file.removeLabelled(labels, step))
      ),
      () => Effect.sync(() => this.#owe(labels))
    )

  readonly clear: Effect.Effect<void, CacheError.CacheError> = Effect.suspend(() =>
    Effect.onError(
      Effect.andThen(this.#use((file) => file.markAllInvalid()), this.#inSteps((file) => file.removeAny(step))),
      () =>
        Effect.sync(() => {
          this.#owed = "all"
        })
    )
  )

  readonly mark: Effect.Effect<unknown, CacheError.CacheError> = Effect.suspend(() => this.#use((file) => file.mark()))

  readonly stats: Effect.Effect<StoreStats, CacheError.CacheError> = Effect.suspend(() =>
    Effect.map(
      Effect.orElseSucceed(this.#use((file) => file.stats()), () => ({ entries: undefined, bytes: undefined })),
      (held) => ({ store: this.name, ...held, evictions: this.#evictions, errors: this.#errors })
    )
  )

  readonly close = (): void => {
    this.#file?.close()
    this.#file = undefined
    this.#triedAt = Infinity
  }

  #inSteps(remove: (file: CacheFile) => number): Effect.Effect<void, CacheError.CacheError> {
    return Effect.flatMap(
      this.#use(remove),
      (removed) => removed < step ? Effect.void : Effect.andThen(Effect.yieldNow, this.#inSteps(remove))
    )
  }

  #use<A>(
    operation: (file: CacheFile, fiber: Fiber.Fiber<unknown, unknown>) => A
  ): Effect.Effect<A, CacheError.CacheError> {
    return Effect.withFiber((fiber) => {
      try {
        const file = this.#open(fiber)
        if (file !== undefined) {
          if (this.#owed === "all" || this.#owed.size > 0) this.#pay(file)
          return Effect.succeed(operation(file, fiber))
        }
      } catch (cause) {
        return this.#failed(cause, fiber)
      }
      return this.#failed(undefined, fiber)
    })
  }

  #owe(labels: ReadonlyArray<string>): void {
    if (this.#owed === "all") return
    if (this.#owed.size + labels.length > maxOwed) this.#owed = "all"
    else for (const label of labels) this.#owed.add(label)
  }

  // What could not be invalidated when it should have been is, before anything is read again.
  #pay(file: CacheFile): void {
    if (this.#owed === "all") {
      file.markAllInvalid()
      while (file.removeAny(step) >= step);
    } else {
      const labels = Array.from(this.#owed)
      file.markInvalid(labels)
      while (file.removeLabelled(labels, step) >= step);
    }
    this.#owed = new Set()
  }

  #open(fiber: Fiber.Fiber<unknown, unknown>): CacheFile | undefined {
    const now = monotonicMillis(fiber)
    if (now - this.#triedAt < reopenMillis) return this.#file
    this.#triedAt = now
    const { busyMillis, path } = this.#options
    if (this.#file?.isAt(path) === true) return this.#file
    this.#file?.close()
    this.#file = undefined
    const mayRebuild = now - this.#rebuiltAt >= rebuildMillis
    const file = CacheFile.open(path, busyMillis, fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(), mayRebuild)
    if (file.isRebuilt) this.#rebuiltAt = now
    return this.#file = file
  }

  #failed(cause: unknown, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<never, CacheError.CacheError> {
    this.#errors++
    const file = this.#file
    if (file !== undefined && isDamage(cause)) {
      this.#file = undefined
      const { busyMillis, path } = this.#options
      const now = monotonicMillis(fiber)
      try {
        // A newer version may have dropped our tables, which the next operation makes again, once. And where another
        // process has begun a new file already, the next operation opens that one.
        const areTablesGone = isUnknownTable(cause) && now - this.#tablesGoneAt >= rebuildMillis
        if (areTablesGone) this.#tablesGoneAt = now
        if (!areTablesGone && file.isAt(path) && now - this.#rebuiltAt >= rebuildMillis) {
          this.#rebuiltAt = now
          this.#file = file.rebuild(path, busyMillis, fiber.getRef(Clock.Clock).currentTimeMillisUnsafe())
        } else {
          file.close()
          this.#triedAt = -Infinity
        }
      } catch {
        // Tried again when the next operation opens the file.
      }
    }
    return Effect.fail(
      new CacheError.CacheError({
        reason: new CacheError.StoreUnavailable({ store: this.name, ...(cause === undefined ? {} : { cause }) })
      })
    )
  }
}

// An entry in the file: a CRC-32 of what follows it, when it was written, how long it is fresh and how long it is kept, in
// digits of the same number each, the key with its length in front, and the text. All in one column, since each that is
// read costs.
const crcLength = 8
const digitsLength = 16
const headLength = crcLength + 3 * digitsLength

const digits = (millis: number): string =>
  String(Math.min(Math.floor(millis), Number.MAX_SAFE_INTEGER)).padStart(digitsLength, "0")

const named = (key: string): string => `${key.length}:${key}`

// It has to find damage, not forgery: who can write to the file can put a digest of any kind into it.
const seal = (body: string): string => crc32(body).toString(16).padStart(crcLength, "0") + body

const unseal = (key: string, sealed: string) => {
  if (
    sealed.length < headLength || Number.parseInt(sealed.slice(0, crcLength), 16) !== crc32(sealed.slice(crcLength))
  ) return "damaged"
  // Whoever asks has found it by a part of the key, and others have the same part.
  const name = named(key)
  if (!sealed.startsWith(name, headLength)) return "another's"
  const number = (index: number): number => {
    const start = crcLength + index * digitsLength
    return Number(sealed.slice(start, start + digitsLength))
  }
  return {
    written: number(0),
    freshUntil: number(1),
    keepUntil: number(2),
    text: sealed.slice(headLength + name.length)
  }
}

/**
 * Provides a `CacheStore` in a file.
 *
 * **Gotchas**
 *
 * SQLite runs on the event loop: a hit takes some ten microseconds. Put `TieredCacheStore` in front of it where that is
 * too much. The file belongs on a local disk.
 *
 * **Example** (A cache that survives restarts)
 *
 * ```ts no-run
 * import { Layer } from "effect"
 * import { ToolCache } from "effect-toolops/cache"
 * import { SqliteCacheStore } from "effect-toolops/node"
 *
 * const Live = ToolCache.layer.pipe(Layer.provide(SqliteCacheStore.layer({ path: "./cache.db" })))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<CacheStore> => layerOf(resolve(options))

/**
 * `layer` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<CacheStore, Config.ConfigError> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))

const layerOf = (options: ReturnType<typeof resolve>): Layer.Layer<CacheStore> =>
  Layer.effect(
    CacheStore,
    Effect.acquireRelease(
      Effect.sync(() => new SqliteStore(options)),
      (store) => Effect.sync(store.close)
    )
  )
