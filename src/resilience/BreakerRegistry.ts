/**
 * One circuit breaker for each key: a host, a tenant, whatever may be down while others are not.
 *
 * The number of keys is bounded. When it is reached, a closed circuit that has not been used for a while is forgotten; open
 * ones stay, since forgetting one would close it. Keys that find no place share one circuit.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { breakersCheck } from "../health/internal/partChecks.ts"
import * as Check from "../internal/options.ts"
import type * as CircuitBreaker from "./CircuitBreaker.ts"
import { CircuitBreakerImpl } from "./internal/circuitBreaker.ts"
import { resolve, type Settings } from "./internal/circuitOptions.ts"
import { type Entry, KeyedRegistry } from "./internal/keyedRegistry.ts"
import type { ResilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"

/**
 * What each breaker is made of, named after its key, and how many there may be.
 *
 * - `maxKeys`: circuits that are kept, a whole number from 1. Default 10,000.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Omit<CircuitBreaker.Options, "name"> {
  readonly maxKeys?: number | undefined
}

/**
 * Circuit breakers by key.
 *
 * **Example** (A circuit for each host)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { BreakerRegistry } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const breakers = yield* BreakerRegistry.make({ maxFailures: 1 })
 *   yield* Effect.ignore(breakers.execute("down.example", Effect.fail("no route")))
 *   return [
 *     yield* Effect.isSuccess(breakers.execute("down.example", Effect.void)),
 *     yield* Effect.isSuccess(breakers.execute("up.example", Effect.void))
 *   ]
 * })
 *
 * await Effect.runPromise(program) // => [false, true]
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class BreakerRegistry extends Context.Service<BreakerRegistry, {
  /** Runs `effect` through the circuit of `key`. */
  readonly execute: <A, E, R>(
    key: string,
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | ResilienceError, R>
  /**
   * The circuit of `key` as it is now, to look at or to force; made, as by a call, where there is none. Do not keep it: it
   * may be forgotten while it is closed.
   */
  readonly get: (key: string) => Effect.Effect<CircuitBreaker.CircuitBreaker["Service"]>
  readonly snapshots: Effect.Effect<ReadonlyArray<CircuitBreaker.Snapshot>>
}>()("effect-toolops/resilience/BreakerRegistry") {}

class Keyed implements Entry {
  readonly key: string
  readonly breaker: CircuitBreakerImpl
  isUsed = false
  isForgotten = false

  constructor(key: string, breaker: CircuitBreakerImpl) {
    this.key = key
    this.breaker = breaker
  }

  isIdle(): boolean {
    return this.breaker.isClosed()
  }
}

class BreakerRegistryImpl {
  readonly snapshots: Effect.Effect<ReadonlyArray<CircuitBreaker.Snapshot>>
  private readonly registry: KeyedRegistry<Keyed>
  /** The circuit of the keys that find no place. */
  private readonly others: Keyed

  constructor(settings: Settings, maxKeys: number, observer: ResilienceObserver | undefined) {
    const make = (name: string) => new Keyed(name, new CircuitBreakerImpl({ ...settings, name }, observer))
    this.registry = new KeyedRegistry(maxKeys, make)
    this.others = make("others")
    this.snapshots = Effect.suspend(() =>
      Effect.all(Array.from(this.registry.values(), ({ breaker }) => breaker.snapshot))
    )
  }

  execute<A, E, R>(key: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return Effect.suspend(() => this.find(key).execute(effect))
  }

  get(key: string): Effect.Effect<CircuitBreakerImpl> {
    return Effect.sync(() => this.find(key))
  }

  private find(key: string): CircuitBreakerImpl {
    const entry = this.registry.keep(key) ?? this.others
    entry.isUsed = true
    return entry.breaker
  }
}

const fromOptions = (
  { maxKeys = 10_000, ...options }: Options,
  where: string
): Effect.Effect<BreakerRegistry["Service"]> => {
  if ("name" in options) {
    throw new TypeError(`${where}: unknown option "name", since every circuit is named after its key`)
  }
  Check.integer(where, "maxKeys", maxKeys, 1)
  resolve(options, where)
  return Effect.withFiber((fiber) =>
    Effect.succeed(
      new BreakerRegistryImpl(resolve(options, where, fiber.context), maxKeys, fiber.getRef(CurrentResilienceObserver))
    )
  )
}

/**
 * Makes a registry. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<BreakerRegistry["Service"]> =>
  fromOptions(options ?? {}, "BreakerRegistry.make")

const checked = (made: Effect.Effect<BreakerRegistry["Service"]>) =>
  Effect.tap(made, (breakers) => breakersCheck(breakers.snapshots))

/**
 * Provides a registry. Two calls are two registries.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<BreakerRegistry> =>
  Layer.effect(BreakerRegistry, checked(fromOptions(options ?? {}, "BreakerRegistry.layer")))

/**
 * Provides a registry whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<BreakerRegistry, Config.ConfigError> =>
  Layer.effect(
    BreakerRegistry,
    Effect.flatMap(Config.unwrap(options), (options) => checked(fromOptions(options, "BreakerRegistry.layerConfig")))
  )
