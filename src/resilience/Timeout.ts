/**
 * Gives an effect so much time.
 *
 * When the time is up the work is interrupted, and the caller is answered once the interruption is complete. Work that
 * cannot be interrupted is left to itself: the caller is answered at the deadline, what the work comes back with is
 * dropped and counted, and it keeps its bulkhead's slot until it has really ended. The deadline is known to everything
 * that the work calls, see `Deadline`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import { type Settings, TimeoutImpl } from "./internal/timeout.ts"
import type { ResilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"

/**
 * How much time there is.
 *
 * - `name`: how errors call it. Default `timeout`.
 * - `timeout`: for one execution. Default 30 seconds; `Infinity` sets no limit.
 * - `total`: for what is run through `executeTotal`: all attempts and the waits between them. Default: no limit. Not less
 *   than a `timeout` that is given, unless that is `Infinity`.
 * - `grace`: how long interrupted work may take to clean up before its caller is answered without it. Default 1 second.
 *   Work that cannot be interrupted has none; work that waits for such work in fibers of its own does.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly timeout?: Duration.Input | undefined
  readonly total?: Duration.Input | undefined
  readonly grace?: Duration.Input | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  timeout: true,
  total: true,
  grace: true
}

/**
 * What has become of the calls of one timeout.
 *
 * - `timedOut`: calls that were not done in time. `running`: work that still runs although its caller was answered.
 * - `late`: work that ended after its caller was answered.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly timedOut: number
  readonly running: number
  readonly late: number
}

/**
 * Limits the time of whatever is run through it.
 *
 * **Example** (Giving up after a second)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Timeout } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const timeout = yield* Timeout.make({ timeout: "10 millis" })
 *   return yield* timeout.execute(Effect.never).pipe(
 *     Effect.catchReason("ResilienceError", "TimedOut", () => Effect.succeed("too slow"))
 *   )
 * })
 *
 * await Effect.runPromise(program) // => "too slow"
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Timeout extends Context.Service<Timeout, {
  readonly name: string
  /** Runs `effect` with `timeout`, or fails with `TimedOut`. */
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  /** Runs `effect` with `total`. Put it around a retry whose attempts go through `execute`. */
  readonly executeTotal: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  readonly snapshot: Effect.Effect<Snapshot>
}>()("effect-toolops/resilience/Timeout") {}

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Options | undefined, where: string): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  const timeout = Check.millis(where, "timeout", given.timeout ?? "30 seconds", { allowInfinite: true })
  const total = Check.millis(where, "total", given.total ?? Infinity, { allowInfinite: true })
  if (given.timeout !== undefined && timeout !== Infinity && timeout > total) {
    throw new Check.Conflict(`${where}: timeout must be at most total (${total} ms), got ${timeout} ms`)
  }
  return {
    name: Check.text(where, "name", given.name ?? "timeout"),
    timeout,
    total,
    grace: Check.millis(where, "grace", given.grace ?? "1 second", { allowZero: true })
  }
}

/** @internal */
export const makeUnsafe = (
  options?: Options,
  where = "Timeout.make",
  internals?: { readonly observer?: ResilienceObserver | undefined }
): TimeoutImpl => new TimeoutImpl(resolve(options, where), internals?.observer)

const fromSettings = (settings: Settings): Effect.Effect<Timeout["Service"]> =>
  Effect.withFiber((fiber) => Effect.succeed(new TimeoutImpl(settings, fiber.getRef(CurrentResilienceObserver))))

/**
 * Makes a timeout. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<Timeout["Service"]> =>
  fromSettings(resolve(options, "Timeout.make"))

/**
 * Provides a timeout.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Timeout> =>
  Layer.effect(Timeout, fromSettings(resolve(options, "Timeout.layer")))

/**
 * Provides a timeout whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Timeout, Config.ConfigError> =>
  Layer.effect(
    Timeout,
    Effect.flatMap(Config.unwrap(options), (options) => fromSettings(resolve(options, "Timeout.layerConfig")))
  )
