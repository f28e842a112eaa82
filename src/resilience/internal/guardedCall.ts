/**
 * Bulkhead, breaker, retry and timeout around a call that nothing is in the way of, in one object.
 *
 * Put around each other the parts cost a finalizer, a frame and a context each. A call that finds a free slot and a closed
 * circuit can do with what its timeout needs anyway, and nearly all calls do. Every decision is still made by the parts;
 * any other call takes the long way through them.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { CallRecord } from "../../CallRecord.ts"
import type { ResilienceError } from "../ResilienceError.ts"
import type { BulkheadImpl } from "./bulkhead.ts"
import type { CircuitBreakerImpl } from "./circuitBreaker.ts"
import type { Composite } from "./composite.ts"
import type { RetryImpl } from "./retry.ts"
import { CurrentSlot } from "./slot.ts"
import { limited, type Resume, TimeoutExecution, type TimeoutImpl } from "./timeout.ts"

/** @internal */
export interface Parts {
  readonly bulkhead: BulkheadImpl
  readonly breaker: CircuitBreakerImpl
  readonly retry: RetryImpl | undefined
  /** Must have a limit for one attempt, and none for all. */
  readonly timeout: TimeoutImpl
  /** The same parts around each other. */
  readonly around: Composite
}

/** One call that was admitted. It is its first attempt, and the frame around the others. */
class GuardedCall extends TimeoutExecution {
  readonly parts: Parts
  readonly effect: Effect.Effect<any, any, any>
  readonly repeats: boolean
  readonly generation: number
  readonly startedAt: number
  /** How many keep the slot: the call until it is concluded, and fibers that outlive its answer. */
  users = 1
  isConcluded = false

  constructor(
    parts: Parts,
    caller: Fiber.Fiber<unknown, unknown>,
    resume: Resume,
    effect: Effect.Effect<any, any, any>,
    record: CallRecord | undefined
  ) {
    super(parts.timeout.limit, caller.getRef(CurrentSlot), caller, resume, record)
    const { breaker, retry } = parts
    this.parts = parts
    this.effect = effect
    this.generation = breaker.ref.ref.current.generation
    this.startedAt = breaker.startedAt(caller)
    this.repeats = retry !== undefined && retry.repeats(this.parent)
    if (this.repeats) retry!.count(caller, this)
  }

  override end(exit: Exit.Exit<unknown, unknown>): void {
    const wasAbandoned = this.state === "abandoned"
    super.end(exit)
    // Whatever the work came to: its caller was interrupted, and that is no failure.
    if (wasAbandoned) this.conclude(Exit.interrupt())
    this.isOver = this.isConcluded
  }

  /** The first attempt is over, one way or the other. */
  override finish(exit: Exit.Exit<unknown, unknown>): void {
    let last = exit
    try {
      if (exit._tag === "Failure" && this.repeats && this.parts.retry!.isWorthAnother(exit.cause)) {
        return this.repeat(exit.cause)
      }
    } catch (defect) {
      last = Exit.die(defect)
    }
    this.resume(this.concluded(last))
  }

  repeat(cause: Cause.Cause<unknown>): void {
    const { retry, timeout } = this.parts
    this.isOver = false
    this.deadline = undefined
    const attempt = limited(timeout.limit, this.effect, this.record, this)
    const others = Effect.onExitPrimitive(
      retry!.again(this.caller, this, attempt, cause),
      (exit) => this.conclude(exit)
    )
    // An attempt that failed without waiting has left the caller without a finalizer, until the caller waits.
    if (this.work === undefined) queueMicrotask(() => this.resume(others))
    else this.resume(others)
  }

  /** Tells the circuit how the call ended, once, and gives the slot back. */
  conclude(exit: Exit.Exit<unknown, unknown>): undefined {
    if (this.isConcluded) return
    this.isConcluded = true
    this.isOver = true
    try {
      this.parts.breaker.settle(this.caller, this.generation, undefined, this.startedAt, exit, this.record)
    } finally {
      this.done()
    }
  }

  /** `conclude` where nobody would catch what the circuit's rule throws. */
  concluded(exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> {
    try {
      this.conclude(exit)
      return exit
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  /** The caller was interrupted, maybe between two attempts. */
  override asEffect(): Effect.Effect<void> {
    if (this.state === "ended" || this.state === "left") return Effect.sync(() => this.conclude(Exit.interrupt()))
    return super.asEffect()
  }

  override hold(fiber: Fiber.Fiber<unknown, unknown>): void {
    // A fiber that was detached from the work finds the slot long after it was given back.
    if (this.users === 0) return
    super.hold(fiber)
    this.users += 1
    fiber.addObserver(() => this.done())
  }

  done(): void {
    this.users -= 1
    if (this.users === 0) this.parts.bulkhead.release(this.caller)
  }
}

/** @internal */
export const guarded = (parts: Parts): Composite => {
  const { around, breaker, bulkhead } = parts
  return <A, E, R>(effect: Effect.Effect<A, E, R>, record: CallRecord | undefined) =>
    // The slot is taken where the caller's fiber begins to wait, and whoever interrupts that wait gives it back.
    Effect.callback<A, E | ResilienceError, R>((resume) => {
      const { status } = breaker.ref.ref.current
      if ((status !== "closed" && status !== "metrics-only") || !bulkhead.hasFreeSlot()) {
        return resume(around(effect, record))
      }
      const call = new GuardedCall(parts, Fiber.getCurrent()!, resume, effect, record)
      bulkhead.take()
      return call.start(effect)
    })
}
