/**
 * Admits so many executions per second, from one bucket for everybody.
 *
 * The bucket holds `burst` tokens and gains `rate` of them per second, by the monotonic clock. Callers that wait are served
 * in the order in which they came; a wait that cannot succeed is refused at once and takes nothing. Limits per caller are
 * another module's: `effect-toolops/limit`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import type { RateLimitError } from "../limit/RateLimitError.ts"
import { RateLimiterImpl, type Settings } from "./internal/rateLimiter.ts"

/**
 * What a rate limiter is made of.
 *
 * - `name`: how errors call it. Default `rateLimiter`.
 * - `rate`: tokens per second, from 1e-9, which is one in 32 years. Default 100.
 * - `burst`: tokens that are saved up while nobody calls, a whole number from 1. Default 10.
 * - `onExceeded`: `fail`, or `wait` for the tokens. Default `fail`.
 * - `maxWait`: how long a caller waits at most. Default 1 second. Needs `onExceeded: "wait"`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly rate?: number | undefined
  readonly burst?: number | undefined
  readonly onExceeded?: "fail" | "wait" | undefined
  readonly maxWait?: Duration.Input | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  rate: true,
  burst: true,
  onExceeded: true,
  maxWait: true
}

/**
 * A rate limiter at one instant.
 *
 * - `tokens`: what the next caller would find. `queued`: callers that wait. `refused`: callers refused so far.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly tokens: number
  readonly queued: number
  readonly refused: number
}

/**
 * Limits the rate of whatever is run through it.
 *
 * **Example** (Refusing the third of two)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { RateLimiter } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const limiter = yield* RateLimiter.make({ rate: 1, burst: 2 })
 *   yield* limiter.tokens(2)
 *   return yield* limiter.execute(Effect.succeed("through")).pipe(
 *     Effect.catchReason("RateLimitError", "RateLimited", () => Effect.succeed("not now"))
 *   )
 * })
 *
 * await Effect.runPromise(program) // => "not now"
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class RateLimiter extends Context.Service<RateLimiter, {
  readonly name: string
  /** Runs `effect` for one token, or fails with `RateLimited`. */
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | RateLimitError, R>
  /**
   * Takes `count` tokens, or fails with `RateLimited`. A count that is not a number above 0, or more than the bucket ever
   * holds, is a mistake of the program: it dies with a `RangeError` and takes nothing.
   */
  readonly tokens: (count: number) => Effect.Effect<void, RateLimitError>
  readonly snapshot: Effect.Effect<Snapshot>
}>()("effect-toolops/resilience/RateLimiter") {}

// With less, the time until a large burst is full again would overflow, and no refusal could say when to come back.
const minRate = 1e-9

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Options | undefined, where: string): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  const waits = Check.oneOf(where, "onExceeded", given.onExceeded ?? "fail", ["fail", "wait"]) === "wait"
  if (given.maxWait !== undefined && !waits) {
    throw new TypeError(`${where}: maxWait means nothing without onExceeded: "wait"`)
  }
  return {
    name: Check.text(where, "name", given.name ?? "rateLimiter"),
    rate: Check.finite(where, "rate", given.rate ?? 100, { minimum: minRate }),
    burst: Check.integer(where, "burst", given.burst ?? 10, 1),
    maxWait: waits ? Check.millis(where, "maxWait", given.maxWait ?? "1 second") : 0
  }
}

/** @internal */
export const makeUnsafe = (options?: Options, where = "RateLimiter.make"): RateLimiterImpl =>
  new RateLimiterImpl(resolve(options, where))

/**
 * Makes a rate limiter. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<RateLimiter["Service"]> => {
  const settings = resolve(options, "RateLimiter.make")
  return Effect.sync(() => new RateLimiterImpl(settings))
}

/**
 * Provides a rate limiter. Two calls are two buckets.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<RateLimiter> => {
  const settings = resolve(options, "RateLimiter.layer")
  return Layer.sync(RateLimiter, () => new RateLimiterImpl(settings))
}

/**
 * Provides a rate limiter whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<RateLimiter, Config.ConfigError> =>
  Layer.effect(
    RateLimiter,
    Effect.map(Config.unwrap(options), (options) => makeUnsafe(options, "RateLimiter.layerConfig"))
  )
