/**
 * Runs an effect again when it fails.
 *
 * Only typed failures are retried: a defect is a bug, and an interruption is the caller's wish. Retrying is right where
 * running twice is the same as running once; this part cannot know that. What is retried inside a retry is run once
 * only, and every repetition is paid for by a budget, so failures do not multiply.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Config from "effect/Config"
import * as ConfigModule from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { refusal } from "../internal/refusal.ts"
import { deadlineOf, Frame, isCounted, isRepetition, outermostBudget } from "./Frame.ts"
import { type ResilienceError, resilienceError, RetriesExhausted } from "./ResilienceError.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"
import * as RetryBudget from "./RetryBudget.ts"
import { delayMillis, type DelaySettings, type Jitter, retryAfterMillis, type Strategy } from "./RetryDelay.ts"
import { CurrentSlot, type Slot } from "./Slot.ts"

export type { Jitter, Strategy } from "./RetryDelay.ts"

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
 * - `maxDelay`: no retry waits longer, whatever grows or asks. Default 30 seconds.
 * - `multiplier`: growth of the exponential delay, from 1. Default 2.
 * - `strategy`: `exponential`, `linear` or `constant`. Default `exponential`.
 * - `jitter`: `none`, `full`, `equal` or `decorrelated`. Default `full`.
 * - `retryIf`: which errors are worth another attempt. Default: all but those whose `retryable` is false.
 * - `schedule`: your own delays, in place of the four options above it can stand for. It also says when to stop unless
 *   `maxAttempts` is given, and how long to wait unless `maxDelay` is; a delay without end ends the retrying.
 * - `budget`: how many retries the dependency is sent in all, as options or as one that others share; false for any
 *   number. Default: 20 % of the calls plus 10 per second.
 * - `exhausted`: what comes out when the attempts are used up: the `last` error, or a `wrap` around it, a
 *   `ResilienceError` with the reason `RetriesExhausted`. Default `last`.
 * - `onRetry`: run before the wait for each retry.
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

/** @internal */
export interface Settings extends DelaySettings {
  readonly name: string
  readonly maxAttempts: number
  readonly maxScheduled: number
  readonly retryIf: (error: unknown) => boolean
  readonly schedule: Schedule.Schedule<unknown, any> | undefined
  readonly wrap: boolean
  readonly onRetry: ((retry: RetryInfo) => Effect.Effect<void>) | undefined
  readonly budget: Options["budget"]
}

const isWorthAnother = (error: unknown): boolean =>
  !(typeof error === "object" && error !== null && "retryable" in error && error.retryable === false)

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
      if (given[name] !== undefined) throw new TypeError(`${where}: ${name} means nothing beside schedule`)
    }
  }
  for (const name of ["retryIf", "onRetry"] as const) {
    if (given[name] !== undefined && typeof given[name] !== "function") {
      throw new TypeError(`${where}: ${name} must be a function, got ${typeof given[name]}`)
    }
  }
  const maxDelay = Check.millis(where, "maxDelay", given.maxDelay ?? "30 seconds")
  const initialDelay = Check.millis(where, "initialDelay", given.initialDelay ?? "100 millis")
  if (given.initialDelay !== undefined && given.maxDelay !== undefined && initialDelay > maxDelay) {
    throw new RangeError(`${where}: initialDelay must be at most maxDelay (${maxDelay} ms), got ${initialDelay} ms`)
  }
  return {
    name: given.name ?? "retry",
    maxAttempts: given.maxAttempts === undefined && schedule !== undefined
      ? Infinity
      : Check.integer(where, "maxAttempts", given.maxAttempts ?? 3, 1),
    initialDelay,
    maxDelay,
    maxScheduled: given.maxDelay === undefined ? Infinity : maxDelay,
    multiplier: Check.finite(where, "multiplier", given.multiplier ?? 2, { minimum: 1 }),
    strategy: Check.oneOf(where, "strategy", given.strategy ?? "exponential", ["exponential", "linear", "constant"]),
    jitter: Check.oneOf(where, "jitter", given.jitter ?? "full", ["none", "full", "equal", "decorrelated"]),
    retryIf: given.retryIf ?? isWorthAnother,
    schedule,
    wrap: Check.oneOf(where, "exhausted", given.exhausted ?? "last", ["last", "wrap"]) === "wrap",
    onRetry: given.onRetry,
    budget: given.budget
  }
}

/** One execution with all its attempts. It is the frame around each of them. */
class Execution extends Frame {
  readonly retry: RetryImpl
  readonly settings: Settings
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly outside: Context.Context<never>
  attempts = 1
  previousDelay: number
  gaveUp = false
  lastError: unknown = undefined

  constructor(retry: RetryImpl, fiber: Fiber.Fiber<unknown, unknown>, parent: Slot | undefined) {
    super(parent)
    this.retry = retry
    this.settings = retry.settings
    this.budget = retry.budget
    this.fiber = fiber
    this.outside = fiber.context
    this.previousDelay = retry.settings.initialDelay
  }

  /** Makes the fiber leave the frame. A fiber that is being interrupted may skip this, and takes the frame to its end. */
  leave(): void {
    this.fiber.setContext(this.outside)
  }

  /** Called with the failure of the first attempt. */
  failed<A, E, R>(effect: Effect.Effect<A, E, R>, cause: Cause.Cause<E>): Effect.Effect<A, E | ResilienceError, R> {
    this.leave()
    const error = Cause.findFail(cause)
    if (Result.isFailure(error) || Cause.hasDies(cause) || !this.settings.retryIf(error.success.error)) {
      this.isOver = true
      return Effect.failCause(cause)
    }
    this.isRepetition = true
    const inFrame = Effect.updateContext(
      effect,
      (context: Context.Context<R>) => Context.add(context, CurrentSlot, this)
    )
    // The attempt that has failed is the first that `Effect.retry` sees, so it counts.
    let isFirst = true
    const attempt = Effect.suspend((): Effect.Effect<A, E, R> => {
      if (isFirst) {
        isFirst = false
        return Effect.failCause(cause)
      }
      // Work that could not be stopped still runs. Beside it a second attempt would be more than was asked for.
      if (this.lingering > 0) {
        this.gaveUp = true
        // The schedule has seen no errors but those of `effect`.
        return Effect.fail(this.lastError as E)
      }
      this.attempts += 1
      return inFrame
    })
    return Effect.onExitPrimitive(
      this.finish(Effect.retry(attempt, this.schedule())),
      () => {
        this.isOver = true
        return undefined
      }
    )
  }

  finish<A, E, R>(retried: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    if (!this.settings.wrap) return retried
    return Effect.catch(retried, (error) =>
      Effect.fail(
        this.gaveUp
          ? resilienceError(refusal(RetriesExhausted, {
            _tag: "RetriesExhausted",
            attempts: this.attempts,
            cause: error
          }))
          : error
      ))
  }

  schedule(): Schedule.Schedule<unknown, unknown> {
    const own = this.settings.schedule
    const steps = own === undefined
      ? Effect.succeed((_now: number, error: unknown) => this.next(error, this.ownDelay()))
      : Effect.map(
        Schedule.toStep(own),
        (step) => (now: number, error: unknown) =>
          Effect.flatMap(step(now, error), ([, delay]) => this.next(error, this.scheduledDelay(delay)))
      )
    return Schedule.fromStep(steps)
  }

  ownDelay(): number {
    const random = this.settings.jitter === "none" ? 0 : this.fiber.getRef(Random.Random).nextDoubleUnsafe()
    return this.previousDelay = delayMillis(this.settings, this.attempts, this.previousDelay, random)
  }

  scheduledDelay(delay: Duration.Duration): number {
    return Math.min(Duration.toMillis(delay), this.settings.maxScheduled)
  }

  /** Whether, and after how long, another attempt follows the one that failed with `error`. */
  next(error: unknown, ownDelay: number): Pull.Pull<[number, Duration.Duration], never, number> {
    const { maxAttempts, maxDelay, onRetry, retryIf } = this.settings
    this.lastError = error
    // The first error has been asked about before.
    if (this.gaveUp || (this.attempts > 1 && !retryIf(error))) return Cause.done(this.attempts)
    const hint = retryAfterMillis(error)
    const delay = hint === undefined ? ownDelay : Math.max(ownDelay, Math.min(hint, maxDelay))
    const now = monotonicMillis(this.fiber)
    if (
      this.attempts >= maxAttempts ||
      !Number.isFinite(delay) ||
      now + delay >= deadlineOf(this.fiber) ||
      !RetryBudget.withdraw(this.budget, outermostBudget(this.parent), now)
    ) {
      this.gaveUp = true
      return Cause.done(this.attempts)
    }
    this.retry.observer?.onRetry?.(this.settings.name, this.attempts + 1)
    const result: [number, Duration.Duration] = [this.attempts, Duration.millis(delay)]
    return onRetry === undefined
      ? Effect.succeed(result)
      : Effect.as(onRetry({ attempt: this.attempts + 1, delay: result[1], error }), result)
  }
}

/**
 * What is not for users to set. A `budget` here wins over the option.
 *
 * @internal
 */
export interface Internals {
  readonly budget?: RetryBudget.RetryBudgetImpl | undefined
  readonly observer?: ResilienceObserver | undefined
}

/** @internal */
export class RetryImpl implements Retrier<ResilienceError> {
  readonly settings: Settings
  readonly budget: RetryBudget.RetryBudgetImpl | undefined
  readonly observer: ResilienceObserver | undefined

  constructor(settings: Settings, where: string, internals: Internals | undefined) {
    this.settings = settings
    this.budget = internals?.budget ?? RetryBudget.fromOption(settings.budget, where)
    this.observer = internals?.observer
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    if (this.settings.maxAttempts === 1 && !this.settings.wrap) return effect
    return Effect.withFiber((fiber) => {
      const outer = fiber.getRef(CurrentSlot)
      if (outer !== undefined && isRepetition(outer)) return effect
      if (this.budget !== undefined && !isCounted(outer, this.budget)) this.budget.deposit(fiber)
      const execution = new Execution(this, fiber, outer)
      fiber.setContext(Context.add(fiber.context, CurrentSlot, execution))
      return Effect.matchCauseEffect(effect, {
        onSuccess: (value) => {
          execution.leave()
          execution.isOver = true
          return Effect.succeed(value)
        },
        onFailure: (cause) => execution.failed(effect, cause)
      })
    })
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
    Effect.flatMap(ConfigModule.unwrap(options), (options) => fromOptions(options, "Retry.layerConfig"))
  )
