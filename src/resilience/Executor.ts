/**
 * All parts in one, in toolops's order: rate limiter, bulkhead, circuit breaker, retry, timeout.
 *
 * For effects that are no tool calls; tools are guarded by `ResilienceMiddleware`. Only the parts that are asked for are
 * there. The rate limiter and the breaker see one execution however often it is retried, and the timeout is for each
 * attempt.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import type { RateLimitError } from "../limit/RateLimitError.ts"
import * as Bulkhead from "./Bulkhead.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import { compose } from "./internal/composite.ts"
import * as RateLimiter from "./RateLimiter.ts"
import type { ResilienceError } from "./ResilienceError.ts"
import * as Retry from "./Retry.ts"
import * as Timeout from "./Timeout.ts"

/**
 * The parts, each as options or ready-made. A part that is ready-made may be shared with others; one that is made from
 * options belongs to this executor. `{}` stands for a part with its defaults.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly rateLimiter?: RateLimiter.Options | RateLimiter.RateLimiter["Service"] | undefined
  readonly bulkhead?: Bulkhead.Options | Bulkhead.Bulkhead["Service"] | undefined
  readonly circuitBreaker?: CircuitBreaker.Options | CircuitBreaker.CircuitBreaker["Service"] | undefined
  readonly retry?: Retry.Options | Retry.Retrier<ResilienceError> | undefined
  readonly timeout?: Timeout.Options | Timeout.Timeout["Service"] | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  rateLimiter: true,
  bulkhead: true,
  circuitBreaker: true,
  retry: true,
  timeout: true
}

/**
 * What an executor made from `O` may fail with besides what its effects fail with.
 *
 * @category utility types
 * @since 0.1.0
 */
export type ErrorOf<O extends Options> =
  | (O extends { readonly rateLimiter: object } ? RateLimitError : never)
  | (O extends { readonly bulkhead: object } ? ResilienceError : never)
  | (O extends { readonly circuitBreaker: object } ? ResilienceError : never)
  | (O extends { readonly timeout: object } ? ResilienceError : never)
  | (O extends { readonly retry: infer P } ? P extends object ? ErrorOfRetry<P> : never : never)

type ErrorOfRetry<P extends object> = P extends Retry.Retrier<infer X> ? X
  : P extends { readonly exhausted?: "last" | undefined } ? never
  : ResilienceError

/**
 * Runs effects through all parts, and may fail with `X` besides what they fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface Runner<out X> {
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | X, R>
}

/**
 * An executor as a service.
 *
 * @category services
 * @since 0.1.0
 */
export class Executor extends Context.Service<Executor, Runner<RateLimitError | ResilienceError>>()(
  "effect-toolops/resilience/Executor"
) {}

// A part is told from its options by what it can do.
const part = <O extends object, P extends object>(
  where: string,
  given: O | P | undefined,
  make: (options: O) => Effect.Effect<P>
): Effect.Effect<P | undefined> => {
  if (given === undefined) return Effect.undefined
  Check.object(where, given)
  return "execute" in given ? Effect.succeed(given as P) : make(given as O)
}

const fromOptions = (options: Options, where: string): Effect.Effect<Runner<RateLimitError | ResilienceError>> => {
  Check.known(where, options, Object.keys(optionNames))
  // The parts' constructors throw here, and make the parts each time the effect is run.
  const parts = Effect.all({
    rateLimiter: part(`${where}: rateLimiter`, options.rateLimiter, RateLimiter.make),
    bulkhead: part(`${where}: bulkhead`, options.bulkhead, Bulkhead.make),
    breaker: part(`${where}: circuitBreaker`, options.circuitBreaker, CircuitBreaker.make),
    retry: part<Retry.Options, Retry.Retrier<ResilienceError>>(`${where}: retry`, options.retry, Retry.make),
    timeout: part(`${where}: timeout`, options.timeout, Timeout.make)
  })
  return Effect.map(parts, ({ rateLimiter, ...parts }) => {
    const run = compose(parts)
    if (rateLimiter === undefined) return { execute: (effect) => run(effect, undefined) }
    return { execute: (effect) => rateLimiter.execute(run(effect, undefined)) }
  })
}

/**
 * Makes an executor. Options that make no sense throw here, before the effect is run.
 *
 * **Example** (Calling an API that is sometimes down)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Executor } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const executor = yield* Executor.make({
 *     circuitBreaker: { maxFailures: 5, resetTimeout: "30 seconds" },
 *     retry: { maxAttempts: 3, initialDelay: "1 millis" },
 *     timeout: { timeout: "5 seconds" }
 *   })
 *   let attempts = 0
 *   return yield* executor.execute(Effect.suspend(() => ++attempts < 3 ? Effect.fail("down") : Effect.succeed("up")))
 * })
 *
 * await Effect.runPromise(program) // => "up"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const O extends Options>(options: O): Effect.Effect<Runner<ErrorOf<O>>> =>
  // The parts that `O` does not have cannot fail.
  fromOptions(options, "Executor.make") as Effect.Effect<Runner<ErrorOf<O>>>

/**
 * Provides an executor. Two calls are two executors.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Executor> =>
  Layer.effect(Executor, fromOptions(options, "Executor.layer"))

/**
 * Provides an executor whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Executor, Config.ConfigError> =>
  Layer.effect(
    Executor,
    Effect.flatMap(Config.unwrap(options), (options) => fromOptions(options, "Executor.layerConfig"))
  )
