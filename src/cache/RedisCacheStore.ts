/**
 * A `CacheStore` in Redis, shared by the processes that use the same `prefix`.
 *
 * Concurrent misses of one key run the call once over all of these processes: the first takes a short lease, which it
 * renews while it works, and the others wait for what it stores. A leader that dies costs at most the lease.
 *
 * A Redis that hangs, fails or answers nonsense costs a call one `commandTimeout` at most. Then the store is bypassed,
 * and asked in the background until it answers again. What this process had to invalidate meanwhile it invalidates
 * before it trusts Redis again.
 *
 * Whether Redis works is asked with `ECHO`, and with `PING` where that is refused. When replies no longer belong to the
 * commands that were sent, after noise on the line for one, the store makes Redis end the connection (`QUIT`), once in 5
 * seconds at most while that does not help. The client has to connect again by itself.
 *
 * It works on the `Redis` service of `effect/persistence`. Times are those of the Redis server.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Redis } from "effect/persistence/Redis"
import * as Check from "../internal/options.ts"
import { CacheStore } from "./CacheStore.ts"
import { RedisStore } from "./internal/redisStore.ts"

/**
 * What `layer` takes.
 *
 * - `prefix`: what every key in Redis starts with. Default `{toolops:cache}:`; the braces keep the keys of a cluster in
 *   one slot, which the scripts need.
 * - `commandTimeout`: how long one command may take. Default 25 ms.
 * - `maxPending`: most commands under way at a time; beyond it the cache is bypassed. Default 1,000.
 * - `retryInterval`: how often a Redis that failed is asked whether it works again. Default 200 ms.
 * - `lease`: how long the lead of a process that dies is honoured. Default 2 seconds.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly prefix?: string | undefined
  readonly commandTimeout?: Duration.Input | undefined
  readonly maxPending?: number | undefined
  readonly retryInterval?: Duration.Input | undefined
  readonly lease?: Duration.Input | undefined
}

const where = "RedisCacheStore.layer"

const resolve = (options: Options) => {
  Check.known(where, options, ["prefix", "commandTimeout", "maxPending", "retryInterval", "lease"])
  const prefix = options.prefix ?? "{toolops:cache}:"
  if (typeof prefix !== "string" || prefix.length === 0 || prefix.length > 128) {
    throw new TypeError(`${where}: prefix must be a string of 1 to 128 characters`)
  }
  return {
    prefix,
    commandMillis: Check.millis(where, "commandTimeout", options.commandTimeout ?? 25),
    maxPending: Check.integer(where, "maxPending", options.maxPending ?? 1000, 1),
    retryMillis: Check.millis(where, "retryInterval", options.retryInterval ?? 200),
    leaseMillis: Math.ceil(Check.millis(where, "lease", options.lease ?? "2 seconds"))
  }
}

/**
 * Provides a `CacheStore` in Redis.
 *
 * **Gotchas**
 *
 * How soon a broken connection is made anew is the client's business. node-redis waits up to 2 seconds between
 * attempts; the `reconnectStrategy` below brings hits back within one. A client that does not connect again after the
 * server has ended the connection leaves the cache bypassed for good: node-redis with `reconnectStrategy: false`, or
 * ioredis, which takes a `QUIT` for the end. Whatever else uses the client meets the ends of its connection too.
 *
 * The client has to give replies as strings, not as bytes. The clocks of Redis and of this process may be up to a day
 * apart; beyond that the cache is bypassed.
 *
 * **Example** (Sharing answers between processes)
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { RedisCacheStore, ToolCache } from "effect-toolops/cache"
 *
 * const RedisLive = NodeRedis.layer({
 *   url: "redis://localhost:6379",
 *   socket: { reconnectStrategy: (retries) => Math.min(50 * retries, 500) }
 * })
 *
 * const Live = ToolCache.layer.pipe(
 *   Layer.provide(RedisCacheStore.layer({ prefix: "{my-app}:" })),
 *   Layer.provide(RedisLive)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<CacheStore, never, Redis> => {
  const resolved = resolve(options)
  return Layer.effect(
    CacheStore,
    Effect.gen(function*() {
      const store = new RedisStore(yield* Redis, resolved, yield* Effect.scope)
      yield* store.start
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
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<CacheStore, Config.ConfigError, Redis> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))
