/**
 * A `CacheStore` of two: this process's memory in front of a store that is shared or outlives it.
 *
 * What is in memory is at most `l1Ttl` old there, whatever happens. Over Redis an invalidation reaches the memories of
 * the other processes by pub/sub, usually within a few milliseconds; a message that is lost costs `l1Ttl`. A store that
 * announces nothing, like the SQLite file, leaves it at that.
 *
 * While the shared store is down, memory goes on by itself.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import { CacheStore, type Options as MemoryOptions } from "./CacheStore.ts"
import { checkMemoryOptions } from "./internal/memoryStore.ts"
import { TieredStore } from "./internal/tieredStore.ts"

/**
 * What `layer` takes.
 *
 * - `l1Ttl`: the longest time that an entry is kept in memory. Default 10 seconds.
 * - `maxEntries`, `maxBytes`: bounds of the memory. Default 10,000 and 64 MiB.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends MemoryOptions {
  readonly l1Ttl?: Duration.Input | undefined
}

const where = "TieredCacheStore.layer"

/**
 * Puts memory in front of the `CacheStore` that is provided to it.
 *
 * **Example** (Memory in front of Redis)
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { RedisCacheStore, TieredCacheStore, ToolCache } from "effect-toolops/cache"
 *
 * const Live = ToolCache.layer.pipe(
 *   Layer.provide(TieredCacheStore.layer({ l1Ttl: "5 seconds" })),
 *   Layer.provide(RedisCacheStore.layer()),
 *   Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<CacheStore, never, CacheStore> => {
  Check.known(where, options, ["l1Ttl", "maxEntries", "maxBytes"])
  const { l1Ttl, ...bounds } = options
  const l1Millis = Check.millis(where, "l1Ttl", l1Ttl ?? "10 seconds")
  checkMemoryOptions(where, bounds)
  return Layer.effect(
    CacheStore,
    Effect.gen(function*() {
      const store = new TieredStore(where, yield* CacheStore, bounds, l1Millis)
      yield* Effect.forkScoped(store.listen)
      return store
    })
  )
}

/**
 * `layer` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<CacheStore, Config.ConfigError, CacheStore> => Layer.unwrap(Effect.map(Config.unwrap(options), layer))
