/**
 * Whether Redis answers.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Check from "../internal/options.ts"
import * as HealthCheck from "./HealthCheck.ts"
import type { HealthError } from "./HealthError.ts"
import { type HealthRegistry, layerCheck } from "./HealthRegistry.ts"
import { checkOptionNames, type CheckOptions, checkOptionsOf } from "./internal/checkOptions.ts"

/**
 * What `make` and `layer` take: what `HealthCheck.make` takes. `name` is `redis` by default.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends CheckOptions {}

/**
 * Makes a check that sends a `PING` and wants a `PONG`.
 *
 * **Gotchas**
 *
 * It is critical by default, as every check. The parts of this library do without Redis; where nothing else needs it, say
 * `critical: false`, or give the parts a `HealthRegistry`, to which they tell it themselves.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): HealthCheck.HealthCheck<Redis.Redis> => {
  Check.known("RedisCheck.make", options, checkOptionNames)
  return HealthCheck.make({
    name: "redis",
    ...checkOptionsOf(options),
    check: Effect.flatMap(Redis.Redis, (redis) => Effect.map(redis.send("PING"), (answer) => answer === "PONG"))
  })
}

/**
 * Registers the check.
 *
 * **Example** (Being not ready without Redis)
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { HealthRegistry, RedisCheck } from "effect-toolops/health"
 *
 * const Health = RedisCheck.layer({ timeout: "250 millis" }).pipe(
 *   Layer.provide(NodeRedis.layer({ url: "redis://localhost:6379" })),
 *   Layer.provideMerge(HealthRegistry.layer)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, HealthError, HealthRegistry | Redis.Redis> =>
  layerCheck(make(options))

/**
 * Registers the check with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<never, HealthError | Config.ConfigError, HealthRegistry | Redis.Redis> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))
