/**
 * Lets so many executions run at once, and so many wait for their turn.
 *
 * Waiters are served in the order in which they came, and each costs the same however many there are. A slot is given
 * back when the work has really ended: work that a timeout could not stop keeps it.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { bulkheadCheck } from "../health/internal/partChecks.ts"
import * as Check from "../internal/options.ts"
import { BulkheadImpl, type Settings } from "./internal/bulkhead.ts"
import type { ResilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver } from "./ResilienceObserver.ts"

/**
 * What a bulkhead is made of.
 *
 * - `name`: how errors and metrics call it. Default `bulkhead`.
 * - `maxConcurrent`: executions that run at once, a whole number from 1. Default 10.
 * - `maxQueue`: callers that may wait for a slot, a whole number from 0. Default 0: nobody waits.
 * - `maxWait`: how long a caller waits before it is refused. Default: as long as it likes. Needs `maxQueue`.
 * - `retryAfter`: the hint that a refused caller is given. Default 1 second.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly maxConcurrent?: number | undefined
  readonly maxQueue?: number | undefined
  readonly maxWait?: Duration.Input | undefined
  readonly retryAfter?: Duration.Input | undefined
}

/**
 * A bulkhead at one instant.
 *
 * - `active`: slots in use. `queued`: callers that wait.
 * - `rejected`: callers refused so far. `highWaterMark`: the most slots that were ever in use at once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly active: number
  readonly queued: number
  readonly rejected: number
  readonly highWaterMark: number
}

/**
 * Guards whatever is run through it with one set of slots.
 *
 * **Example** (Running two at a time)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Bulkhead } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const bulkhead = yield* Bulkhead.make({ maxConcurrent: 2, maxQueue: 100 })
 *   yield* Effect.all([1, 2, 3, 4].map((n) => bulkhead.execute(Effect.sleep(n))), { concurrency: "unbounded" })
 *   return (yield* bulkhead.snapshot).highWaterMark
 * })
 *
 * await Effect.runPromise(program) // => 2
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Bulkhead extends Context.Service<Bulkhead, {
  readonly name: string
  /** Runs `effect` in a slot, or fails with `BulkheadFull`. */
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  readonly snapshot: Effect.Effect<Snapshot>
}>()("effect-toolops/resilience/Bulkhead") {}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  maxConcurrent: true,
  maxQueue: true,
  maxWait: true,
  retryAfter: true
}

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Options | undefined, where: string): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  const maxQueue = Check.integer(where, "maxQueue", given.maxQueue ?? 0, 0)
  const maxWait = given.maxWait === undefined
    ? Infinity
    : Check.millis(where, "maxWait", given.maxWait, { allowZero: true, allowInfinite: true })
  // Either alone would silently mean that nobody waits.
  if (given.maxWait !== undefined && (maxWait > 0) !== (maxQueue > 0)) {
    throw new Check.Conflict(
      `${where}: maxWait and maxQueue must both be 0 or both be more, got ${maxWait} ms and ${maxQueue}`
    )
  }
  return {
    name: Check.text(where, "name", given.name ?? "bulkhead"),
    maxConcurrent: Check.integer(where, "maxConcurrent", given.maxConcurrent ?? 10, 1),
    maxQueue,
    maxWait,
    retryAfter: Duration.millis(Check.millis(where, "retryAfter", given.retryAfter ?? "1 second"))
  }
}

/**
 * Makes a bulkhead. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<Bulkhead["Service"]> =>
  fromSettings(resolve(options, "Bulkhead.make"))

const fromSettings = (settings: Settings): Effect.Effect<BulkheadImpl> =>
  Effect.withFiber((fiber) => Effect.succeed(new BulkheadImpl(settings, fiber.getRef(CurrentResilienceObserver))))

/**
 * Provides a bulkhead. Two calls are two bulkheads.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Bulkhead> =>
  Layer.effect(Bulkhead, Effect.tap(fromSettings(resolve(options, "Bulkhead.layer")), bulkheadCheck))

/**
 * Provides a bulkhead whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Bulkhead, Config.ConfigError> =>
  Layer.effect(
    Bulkhead,
    Effect.flatMap(
      Config.unwrap(options),
      (options) => Effect.tap(fromSettings(resolve(options, "Bulkhead.layerConfig")), bulkheadCheck)
    )
  )
