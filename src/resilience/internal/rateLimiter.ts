/**
 * How a rate limiter works: the bucket, and the queue of those that wait for it.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { monotonicMillis } from "../../internal/monotonic.ts"
import * as Check from "../../internal/options.ts"
import { type RateLimited, rateLimited, type RateLimitError, rateLimitError } from "../../limit/RateLimitError.ts"
import type { Snapshot } from "../RateLimiter.ts"
import { deadlineOf } from "./frame.ts"
import { CurrentSlot } from "./slot.ts"

/** @internal */
export interface Settings {
  readonly name: string
  readonly rate: number
  readonly burst: number
  /** Milliseconds; 0 when nobody waits. */
  readonly maxWait: number
}

// Tokens and milliseconds come in fractions, and fractions are rounded: so much is nothing.
const tolerance = 1e-6

interface Waiter {
  readonly count: number
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly serve: () => void
  previous: Waiter | undefined
  next: Waiter | undefined
  isQueued: boolean
}

/**
 * What `execute` gives: an effect that is an object of its own, which is lighter than a closure in another. Every part has
 * a class of its own, too: shared, it would be slower, since what it calls would differ from part to part.
 */
class Guarded extends Effectable.Class<any, any, any> {
  readonly limiter: RateLimiterImpl
  readonly effect: Effect.Effect<any, any, any>

  constructor(limiter: RateLimiterImpl, effect: Effect.Effect<any, any, any>) {
    super()
    this.limiter = limiter
    this.effect = effect
  }

  asEffect(): Effect.Effect<any, any, any> {
    return this.limiter.run(this.effect)
  }
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
  /** Why callers were refused last, and for how long. */
  #reason: RateLimited
  #refusedMillis = 0
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(settings: Settings) {
    this.name = settings.name
    this.settings = settings
    this.#tokens = settings.burst
    this.#reason = rateLimited(settings.name, "global", Duration.zero)
    this.snapshot = Effect.withFiber((fiber) => {
      this.#refill(monotonicMillis(fiber))
      return Effect.succeed({ tokens: this.#tokens, queued: this.#queued, refused: this.#refused })
    })
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | RateLimitError, R> {
    return new Guarded(this, effect)
  }

  /** What a guarded effect does when it is run. */
  run<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | RateLimitError, R> {
    const fiber = Fiber.getCurrent()!
    const now = monotonicMillis(fiber)
    if (this.#take(1, now)) return effect
    return this.#refusal(1, fiber, now) ?? Effect.andThen(this.#wait(1, fiber), effect)
  }

  tokens(count: number): Effect.Effect<void, RateLimitError> {
    return Effect.withFiber((fiber) => {
      // Thrown inside the effect, so it is a defect of the caller.
      Check.finite("RateLimiter.tokens", "count", count, { above: 0, maximum: this.settings.burst })
      const now = monotonicMillis(fiber)
      if (this.#take(count, now)) return Effect.void
      return this.#refusal(count, fiber, now) ?? this.#wait(count, fiber)
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
    return Effect.callback((resume) => {
      // The fiber may have yielded since, so look again.
      const now = monotonicMillis(fiber)
      if (this.#take(count, now)) return resume(Effect.void)
      const refused = this.#refusal(count, fiber, now)
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
  #refusal(
    count: number,
    fiber: Fiber.Fiber<unknown, unknown>,
    now: number
  ): Effect.Effect<never, RateLimitError> | undefined {
    const millis = this.#millisUntil(count)
    if (millis <= this.settings.maxWait && now + millis < deadlineOf(fiber.getRef(CurrentSlot))) return undefined
    this.#refused += 1
    // Whole milliseconds, and never too few of them: callers that are refused within one share their reason.
    const whole = Math.ceil(millis - tolerance)
    if (whole !== this.#refusedMillis) {
      this.#refusedMillis = whole
      this.#reason = rateLimited(this.name, "global", Duration.millis(whole))
    }
    return Effect.fail(rateLimitError(this.#reason))
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
      // One that was put down was interrupted.
      if (Exit.isFailure(exit)) return
      this.#timer = undefined
      this.#serve()
    })
  }
}
