/**
 * Runs an effect again when it fails.
 *
 * Only typed failures are retried: a defect is a bug, and an interruption is the caller's wish. Retrying is right where
 * running twice is the same as running once; this part cannot know that. What is retried inside a retry is run once
 * only, and every repetition is paid for by a budget, so failures do not multiply.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Check from "../internal/options.ts"
import * as Classify from "./Classify.ts"
import { type Internals, RetryImpl, type Settings } from "./internal/retry.ts"
import type { Jitter, Strategy } from "./internal/retryDelay.ts"
import type { ResilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver } from "./ResilienceObserver.ts"
import type * as RetryBudget from "./RetryBudget.ts"

export type { Jitter, Strategy } from "./internal/retryDelay.ts"

/**
 * A retry that is about to wait for its turn.
 *
 * - `attempt`: the one that will be made, from 2. `delay`: how long it waits. `error`: what the last attempt failed with.
 *
 * @category models
 * @since 0.1.0
 */
export interface RetryInfo {
  readonly attempt: number
  readonly delay: Duration.Duration
  readonly error: unknown
}

/**
 * How to retry.
 *
 * - `name`: how metrics call it. Default `retry`.
 * - `maxAttempts`: executions in all, the first included, a whole number from 1. Default 3.
 * - `initialDelay`: before the first retry. Default 100 ms.
 * - `maxDelay`: no retry waits longer, whatever grows or asks. Default 30 seconds, or `initialDelay` where that is more.
 * - `multiplier`: growth of the exponential delay, from 1. Default 2.
 * - `strategy`: `exponential`, `linear` or `constant`. Default `exponential`.
 * - `jitter`: `none`, `full`, `equal` or `decorrelated`. Default `full`.
 * - `retryIf`: which errors are worth another attempt. Default: all but those whose `retryable` (or `isRetryable`) field, or
 *   whose reason's, is false.
 * - `schedule`: your own delays, in place of the four options above it can stand for. It also says when to stop unless
 *   `maxAttempts` is given, and how long to wait unless `maxDelay` is; a delay without end ends the retrying, and one of
 *   less than 1 ms is 1 ms. Time that it measures itself is the wall clock's, as with all schedules.
 * - `budget`: how many retries the dependency is sent in all, as options or as one that others share; false for any
 *   number. Default: 20 % of the calls plus 10 per second.
 * - `exhausted`: what comes out when the attempts are used up: the `last` error, or a `wrap` around it, a
 *   `ResilienceError` with the reason `RetriesExhausted`. Default `last`.
 * - `onRetry`: run before the wait for each retry; after it where an attempt that could not be stopped still runs, since
 *   none is made beside it.
 *
 * An error's own `retryAfter` (a `Duration`, on the error or on its `reason`) is waited for where it is longer than the
 * delay, up to `maxDelay`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly maxAttempts?: number | undefined
  readonly initialDelay?: Duration.Input | undefined
  readonly maxDelay?: Duration.Input | undefined
  readonly multiplier?: number | undefined
  readonly strategy?: Strategy | undefined
  readonly jitter?: Jitter | undefined
  readonly retryIf?: ((error: unknown) => boolean) | undefined
  readonly schedule?: Schedule.Schedule<unknown, any> | undefined
  readonly budget?: RetryBudget.RetryBudget["Service"] | RetryBudget.Options | false | undefined
  readonly exhausted?: "last" | "wrap" | undefined
  readonly onRetry?: ((retry: RetryInfo) => Effect.Effect<void>) | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  maxAttempts: true,
  initialDelay: true,
  maxDelay: true,
  multiplier: true,
  strategy: true,
  jitter: true,
  retryIf: true,
  schedule: true,
  budget: true,
  exhausted: true,
  onRetry: true
}

/**
 * What retries effects, and may fail with `X` besides what they fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retrier<out X> {
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | X, R>
  /** The budget that the retries come out of, to be shared with others. */
  readonly budget: RetryBudget.RetryBudget["Service"] | undefined
}

/**
 * Retries whatever is run through it.
 *
 * **Example** (Retrying a flaky effect)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Retry } from "effect-toolops/resilience"
 *
 * let attempts = 0
 * const flaky = Effect.suspend(() => ++attempts < 3 ? Effect.fail("not yet") : Effect.succeed(attempts))
 *
 * const program = Effect.gen(function*() {
 *   const retry = yield* Retry.make({ initialDelay: "1 millis" })
 *   return yield* retry.execute(flaky)
 * })
 *
 * await Effect.runPromise(program) // => 3
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Retry extends Context.Service<Retry, Retrier<ResilienceError>>()("effect-toolops/resilience/Retry") {}

const defaultMaxDelay = 30_000

const replacedBySchedule = ["initialDelay", "multiplier", "strategy", "jitter"] as const

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Options | undefined, where: string): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  const { schedule } = given
  if (schedule !== undefined) {
    if (!Schedule.isSchedule(schedule)) {
      throw new TypeError(`${where}: schedule must be a Schedule, got ${typeof schedule}`)
    }
    for (const name of replacedBySchedule) {
      if (given[name] !== undefined) throw new Check.Conflict(`${where}: ${name} means nothing beside schedule`)
    }
  }
  for (const name of ["retryIf", "onRetry"] as const) {
    if (given[name] !== undefined && typeof given[name] !== "function") {
      throw new TypeError(`${where}: ${name} must be a function, got ${typeof given[name]}`)
    }
  }
  const initialDelay = Check.millis(where, "initialDelay", given.initialDelay ?? "100 millis")
  const maxDelay = Check.millis(where, "maxDelay", given.maxDelay ?? Math.max(defaultMaxDelay, initialDelay))
  if (given.initialDelay !== undefined && given.maxDelay !== undefined && initialDelay > maxDelay) {
    throw new Check.Conflict(`${where}: initialDelay must be at most maxDelay (${maxDelay} ms), got ${initialDelay} ms`)
  }
  return {
    name: Check.text(where, "name", given.name ?? "retry"),
    maxAttempts: given.maxAttempts === undefined && schedule !== undefined
      ? Infinity
      : Check.integer(where, "maxAttempts", given.maxAttempts ?? 3, 1),
    initialDelay,
    maxDelay,
    maxScheduled: given.maxDelay === undefined ? Infinity : maxDelay,
    multiplier: Check.finite(where, "multiplier", given.multiplier ?? 2, { minimum: 1 }),
    strategy: Check.oneOf(where, "strategy", given.strategy ?? "exponential", ["exponential", "linear", "constant"]),
    jitter: Check.oneOf(where, "jitter", given.jitter ?? "full", ["none", "full", "equal", "decorrelated"]),
    retryIf: given.retryIf ?? Classify.isWorthAnother,
    schedule,
    wrap: Check.oneOf(where, "exhausted", given.exhausted ?? "last", ["last", "wrap"]) === "wrap",
    onRetry: given.onRetry,
    budget: given.budget
  }
}

/** @internal */
export const makeUnsafe = (options?: Options, where = "Retry.make", internals?: Internals): RetryImpl =>
  new RetryImpl(resolve(options, where), where, internals)

/**
 * Makes a retry. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  (options?: Options & { readonly exhausted?: "last" | undefined }): Effect.Effect<Retrier<never>>
  (options?: Options): Effect.Effect<Retrier<ResilienceError>>
} = (options?: Options): Effect.Effect<Retrier<never>> => fromOptions(options, "Retry.make")

const fromOptions = (options: Options | undefined, where: string): Effect.Effect<Retrier<never>> => {
  // Made here once to throw at construction, and again in every run: each run has a budget of its own.
  makeUnsafe(options, where)
  return Effect.withFiber((fiber) =>
    // Only `exhausted: "wrap"` adds an error, and the overloads of `make` say so.
    Effect.succeed(makeUnsafe(options, where, { observer: fiber.getRef(CurrentResilienceObserver) }) as Retrier<never>)
  )
}

/**
 * Provides a retry. Two calls are two budgets.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Retry> => Layer.effect(Retry, fromOptions(options, "Retry.layer"))

/**
 * Provides a retry whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Retry, Config.ConfigError> =>
  Layer.effect(
    Retry,
    Effect.flatMap(Config.unwrap(options), (options) => fromOptions(options, "Retry.layerConfig"))
  )
