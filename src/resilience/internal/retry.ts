/**
 * How a retry works: nothing but a frame around the first attempt, and `Effect.retry` once that has failed.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import { monotonicMillis } from "../../internal/monotonic.ts"
import { refusal } from "../../internal/refusal.ts"
import { type ResilienceError, resilienceError, RetriesExhausted } from "../ResilienceError.ts"
import type { ResilienceObserver } from "../ResilienceObserver.ts"
import type { Options, Retrier, RetryInfo } from "../Retry.ts"
import * as RetryBudget from "../RetryBudget.ts"
import { deadlineOf, Frame, isCounted, isRepetition, outermostBudget } from "./frame.ts"
import { harmless } from "./observer.ts"
import { delayMillis, type DelaySettings, retryAfterMillis, scheduledMillis } from "./retryDelay.ts"
import { CurrentSlot, type Slot } from "./slot.ts"

/** @internal Times are in milliseconds. */
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

/**
 * What is not for users to set. A `budget` here wins over the option.
 *
 * @internal
 */
export interface Internals {
  readonly budget?: RetryBudget.RetryBudgetImpl | undefined
  readonly observer?: ResilienceObserver | undefined
}

/** What there is to know about one call once its first attempt has failed. */
class Attempts {
  readonly retry: RetryImpl
  readonly settings: Settings
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly frame: Frame
  made = 1
  gaveUp = false
  previousDelay: number
  lastError: unknown = undefined
  /** Puts the repetition that is waited for back into the budgets. */
  back: (() => void) | undefined = undefined
  /** What is yet to be told of the repetition that is waited for. */
  tell: (() => Effect.Effect<void>) | undefined = undefined

  constructor(retry: RetryImpl, fiber: Fiber.Fiber<unknown, unknown>, frame: Frame) {
    this.retry = retry
    this.settings = retry.settings
    this.fiber = fiber
    this.frame = frame
    this.previousDelay = retry.settings.initialDelay
  }

  run<A, E, R>(again: Effect.Effect<A, E, R>, cause: Cause.Cause<E>): Effect.Effect<A, E | ResilienceError, R> {
    // The attempt that has failed is the first that `Effect.retry` sees, so it counts.
    let isFirst = true
    const attempt = Effect.suspend((): Effect.Effect<A, E, R> => {
      if (isFirst) {
        isFirst = false
        return Effect.failCause(cause)
      }
      // Work that could not be stopped still runs. Beside it a second attempt would be more than was asked for.
      if (this.frame.lingering > 0) {
        this.gaveUp = true
        this.putBack()
        // The schedule has seen no errors but those of `again`.
        return Effect.fail(this.lastError as E)
      }
      const { tell } = this
      return tell === undefined ? this.begin(again) : Effect.flatMap(Effect.suspend(tell), () => this.begin(again))
    })
    // The attempt that was waited for does not come about: it is the caller's interruption, or `onRetry` that died.
    const retried = Effect.onExitPrimitive(Effect.retry(attempt, this.schedule()), () => this.putBack())
    return this.settings.wrap ? Effect.catch(retried, (error) => Effect.fail(this.wrapped(error))) : retried
  }

  begin<A, E, R>(again: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    this.back = undefined
    this.tell = undefined
    this.made += 1
    return again
  }

  putBack(): undefined {
    this.back?.()
    this.back = undefined
  }

  wrapped<E>(error: E): E | ResilienceError {
    if (!this.gaveUp) return error
    return resilienceError(refusal(RetriesExhausted, { _tag: "RetriesExhausted", attempts: this.made, cause: error }))
  }

  schedule(): Schedule.Schedule<unknown, unknown> {
    const own = this.settings.schedule
    const steps = own === undefined
      ? Effect.succeed((_now: number, error: unknown) => this.next(error, this.ownDelay()))
      : Effect.map(
        Schedule.toStep(own),
        (step) => (now: number, error: unknown) =>
          Effect.flatMap(
            step(now, error),
            ([, delay]) => this.next(error, scheduledMillis(delay, this.settings.maxScheduled))
          )
      )
    return Schedule.fromStep(steps)
  }

  ownDelay(): number {
    const random = this.settings.jitter === "none" ? 0 : this.fiber.getRef(Random.Random).nextDoubleUnsafe()
    return this.previousDelay = delayMillis(this.settings, this.made, this.previousDelay, random)
  }

  /** Whether, and after how long, another attempt follows the one that failed with `error`. */
  next(error: unknown, ownDelay: number): Pull.Pull<[number, Duration.Duration], never, number> {
    const { maxAttempts, maxDelay, retryIf } = this.settings
    this.lastError = error
    // The first error has been asked about before.
    if (this.gaveUp || (this.made > 1 && !retryIf(error))) return Cause.done(this.made)
    const hint = retryAfterMillis(error)
    const delay = hint === undefined ? ownDelay : Math.max(ownDelay, Math.min(hint, maxDelay))
    const now = monotonicMillis(this.fiber)
    if (
      this.made >= maxAttempts ||
      !Number.isFinite(delay) ||
      now + delay >= deadlineOf(this.frame)
    ) {
      this.gaveUp = true
      return Cause.done(this.made)
    }
    this.back = RetryBudget.withdraw(this.retry.budget, outermostBudget(this.frame.parent), now)
    if (this.back === undefined) {
      this.gaveUp = true
      return Cause.done(this.made)
    }
    const info: RetryInfo = { attempt: this.made + 1, delay: Duration.millis(delay), error }
    const result: [number, Duration.Duration] = [this.made, info.delay]
    if (this.frame.lingering === 0) return Effect.as(this.told(info), result)
    // Should that still run when the wait is over, there is nothing to tell of.
    this.tell = () => this.told(info)
    return Effect.succeed(result)
  }

  told(info: RetryInfo): Effect.Effect<void> {
    const { name, onRetry } = this.settings
    this.retry.onRetry?.(name, info.attempt)
    if (onRetry === undefined) return Effect.void
    const result: unknown = onRetry(info)
    // Effect ends a fiber that is given anything else at once, without its finalizers.
    if (!Effect.isEffect(result)) {
      throw new TypeError(`Retry ${name}: onRetry must return an Effect, got ${typeof result}`)
    }
    return result as Effect.Effect<void>
  }
}

/** @internal */
export class RetryImpl implements Retrier<ResilienceError> {
  readonly settings: Settings
  readonly budget: RetryBudget.RetryBudgetImpl | undefined
  readonly onRetry: ResilienceObserver["onRetry"]

  constructor(settings: Settings, where: string, internals: Internals | undefined) {
    this.settings = settings
    this.budget = internals?.budget ?? RetryBudget.fromOption(settings.budget, where)
    this.onRetry = harmless(internals?.observer, "onRetry")
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return Effect.withFiber((fiber) => {
      const outside = fiber.context
      const parent = fiber.getRef(CurrentSlot)
      if (!this.repeats(parent)) return effect
      const frame = new Frame(parent)
      this.count(fiber, frame)
      fiber.setContext(Context.add(outside, CurrentSlot, frame))
      // A fiber that is being interrupted skips both handlers, and so carries the frame to its end: finalizers around this
      // call that retry do so out of its budget. To take the frame off there, too, would cost every call a finalizer.
      return Effect.matchCauseEffect(effect, {
        onSuccess: (value) => {
          fiber.setContext(outside)
          frame.isOver = true
          return Effect.succeed(value)
        },
        onFailure: (cause) => {
          fiber.setContext(outside)
          if (!this.isWorthAnother(cause)) {
            frame.isOver = true
            return Effect.failCause(cause)
          }
          const again = Effect.updateContext(
            effect,
            (context: Context.Context<R>) => Context.add(context, CurrentSlot, frame)
          )
          return Effect.onExitPrimitive(this.again(fiber, frame, again, cause), () => {
            frame.isOver = true
            return undefined
          })
        }
      })
    })
  }

  /** Whether a call in that slot may be made more than once. */
  repeats(slot: Slot | undefined): boolean {
    return (this.settings.maxAttempts > 1 || this.settings.wrap) && (slot === undefined || !isRepetition(slot))
  }

  /** Counts a call for the budget, which pays for the repetitions in its frame. */
  count(fiber: Fiber.Fiber<unknown, unknown>, frame: Frame): void {
    if (this.budget === undefined) return
    if (!isCounted(frame.parent, this.budget)) this.budget.deposit(fiber)
    frame.budget = this.budget
  }

  /** Whether a failure is a typed one, and one to try again after. */
  isWorthAnother(cause: Cause.Cause<unknown>): boolean {
    const fail = Cause.findFail(cause)
    return Result.isSuccess(fail) && !Cause.hasDies(cause) && this.settings.retryIf(fail.success.error)
  }

  /** Makes the other attempts of a call in `frame` whose first one failed with `cause`. */
  again<A, E, R>(
    fiber: Fiber.Fiber<unknown, unknown>,
    frame: Frame,
    attempt: Effect.Effect<A, E, R>,
    cause: Cause.Cause<E>
  ): Effect.Effect<A, E | ResilienceError, R> {
    frame.isRepetition = true
    return new Attempts(this, fiber, frame).run(attempt, cause)
  }
}
