/**
 * Admits so many executions per second, from one bucket for everybody.
 *
 * The bucket holds `burst` tokens and gains `rate` of them per second, by the monotonic clock. Callers that wait are served
 * in the order in which they came; a wait that cannot succeed is refused at once and takes nothing. Limits per caller are
 * another module's: `effect-toolops/limit`.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Config from "effect/Config"
import * as ConfigModule from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { refusal } from "../internal/refusal.ts"
import { RateLimited, type RateLimitError, rateLimitError } from "../limit/RateLimitError.ts"
import { deadlineOf } from "./Frame.ts"

/**
 * What a rate limiter is made of.
 *
 * - `name`: how errors call it. Default `rateLimiter`.
 * - `rate`: tokens per second, more than 0. Default 100.
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

/** @internal */
export interface Settings {
  readonly name: string
  readonly rate: number
  readonly burst: number
  /** Milliseconds; 0 when nobody waits. */
  readonly maxWait: number
}

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Options | undefined, where: string): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  const waits = Check.oneOf(where, "onExceeded", given.onExceeded ?? "fail", ["fail", "wait"]) === "wait"
  if (given.maxWait !== undefined && !waits) {
    throw new TypeError(`${where}: maxWait means nothing without onExceeded: "wait"`)
  }
  return {
    name: given.name ?? "rateLimiter",
    rate: Check.finite(where, "rate", given.rate ?? 100, { above: 0 }),
    burst: Check.integer(where, "burst", given.burst ?? 10, 1),
    maxWait: waits ? Check.millis(where, "maxWait", given.maxWait ?? "1 second") : 0
  }
}

// Tokens come in fractions, and fractions of milliseconds are rounded: so much less than a token is a token.
const tolerance = 1e-6

interface Waiter {
  readonly count: number
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly serve: () => void
  previous: Waiter | undefined
  next: Waiter | undefined
  isQueued: boolean
}

/** @internal */
export class RateLimiterImpl {
  readonly name: string
  readonly settings: Settings
  readonly snapshot: Effect.Effect<Snapshot>
  #tokens: number
  #at = Number.NEGATIVE_INFINITY
  #first: Waiter | undefined = undefined
  #last: Waiter | undefined = undefined
  #queued = 0
  #queuedTokens = 0
  #refused = 0
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(settings: Settings) {
    this.name = settings.name
    this.settings = settings
    this.#tokens = settings.burst
    this.snapshot = Effect.withFiber((fiber) => {
      this.#refill(monotonicMillis(fiber))
      return Effect.succeed({ tokens: this.#tokens, queued: this.#queued, refused: this.#refused })
    })
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | RateLimitError, R> {
    return Effect.withFiber((fiber) =>
      this.#take(1, monotonicMillis(fiber)) ? effect : Effect.andThen(this.#wait(1, fiber), effect)
    )
  }

  tokens(count: number): Effect.Effect<void, RateLimitError> {
    return Effect.withFiber((fiber) => {
      // Thrown inside the effect, so it is a defect of the caller.
      Check.finite("RateLimiter.tokens", "count", count, { above: 0, maximum: this.settings.burst })
      return this.#take(count, monotonicMillis(fiber)) ? Effect.void : this.#wait(count, fiber)
    })
  }

  #refill(now: number): void {
    if (now <= this.#at) return
    const gained = this.#at === Number.NEGATIVE_INFINITY ? 0 : ((now - this.#at) / 1000) * this.settings.rate
    this.#tokens = Math.min(this.settings.burst, this.#tokens + gained)
    this.#at = now
  }

  #take(count: number, now: number): boolean {
    this.#refill(now)
    if (this.#first !== undefined || this.#tokens + tolerance < count) return false
    this.#tokens -= count
    return true
  }

  #millisUntil(count: number): number {
    return Math.max(0, ((this.#queuedTokens + count - this.#tokens) / this.settings.rate) * 1000)
  }

  #wait(count: number, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void, RateLimitError> {
    const refused = this.#refusal(count, fiber)
    if (refused !== undefined) return refused
    return Effect.callback((resume) => {
      // The fiber may have yielded since, so look again.
      if (this.#take(count, monotonicMillis(fiber))) return resume(Effect.void)
      const refused = this.#refusal(count, fiber)
      if (refused !== undefined) return resume(refused)
      const waiter: Waiter = {
        count,
        fiber,
        serve: () => resume(Effect.void),
        previous: this.#last,
        next: undefined,
        isQueued: true
      }
      if (this.#last === undefined) this.#first = waiter
      else this.#last.next = waiter
      this.#last = waiter
      this.#queued += 1
      this.#queuedTokens += count
      if (this.#timer === undefined) this.#arm()
      return Effect.sync(() => this.#giveUp(waiter))
    })
  }

  // Those in front can only get out of the way sooner, so who may wait is served in time.
  #refusal(count: number, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<never, RateLimitError> | undefined {
    const millis = this.#millisUntil(count)
    const { maxWait } = this.settings
    if (millis <= maxWait && (maxWait === 0 || monotonicMillis(fiber) + millis < deadlineOf(fiber))) return undefined
    this.#refused += 1
    return Effect.fail(rateLimitError(refusal(RateLimited, {
      _tag: "RateLimited",
      limit: this.name,
      per: "global",
      retryAfter: Duration.millis(millis)
    })))
  }

  /** Gives the reservation of a caller that went away to those behind it. */
  #giveUp(waiter: Waiter): void {
    if (!waiter.isQueued) return
    const wasFirst = waiter === this.#first
    this.#remove(waiter)
    if (wasFirst) this.#serve()
  }

  #remove(waiter: Waiter): void {
    waiter.isQueued = false
    if (waiter.previous === undefined) this.#first = waiter.next
    else waiter.previous.next = waiter.next
    if (waiter.next === undefined) this.#last = waiter.previous
    else waiter.next.previous = waiter.previous
    this.#queued -= 1
    // An empty queue is exactly empty, whatever fractions were added and taken away.
    this.#queuedTokens = this.#first === undefined ? 0 : this.#queuedTokens - waiter.count
  }

  /** Serves whom the tokens suffice for, and sleeps until they do for the next. */
  #serve(): void {
    if (this.#timer !== undefined) {
      const timer = this.#timer
      this.#timer = undefined
      timer.interruptUnsafe()
    }
    const served: Array<Waiter> = []
    for (let first = this.#first; first !== undefined; first = this.#first) {
      this.#refill(monotonicMillis(first.fiber))
      if (this.#tokens + tolerance < first.count) break
      this.#tokens -= first.count
      this.#remove(first)
      served.push(first)
    }
    if (this.#first !== undefined) this.#arm()
    for (const waiter of served) waiter.serve()
  }

  #arm(): void {
    const first = this.#first!
    const millis = Math.max(0, ((first.count - this.#tokens) / this.settings.rate) * 1000)
    const clock = first.fiber.getRef(Clock.Clock)
    const timer = Effect.runForkWith(first.fiber.context)(clock.sleep(Duration.millis(millis)))
    this.#timer = timer
    timer.addObserver((exit) => {
      if (Exit.isSuccess(exit) && this.#timer === timer) {
        this.#timer = undefined
        this.#serve()
      }
    })
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
    Effect.map(ConfigModule.unwrap(options), (options) => makeUnsafe(options, "RateLimiter.layerConfig"))
  )
