import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { CallRecord } from "../../CallRecord.ts"
import { boundedRun } from "../../internal/boundedRun.ts"
import { refusal } from "../../internal/refusal.ts"
import { Draining, type ResilienceError, resilienceError } from "../../resilience/ResilienceError.ts"

/** Whether a fiber works for a call that is in flight. What such a call calls itself must not be refused, or it is lost. */
const IsAdmitted = Context.Reference<boolean>("effect-toolops/health/callGate/IsAdmitted", {
  defaultValue: () => false
})

const draining = refusal(Draining, { _tag: "Draining", retryAfter: Duration.seconds(1) })

/** How long interrupted calls are waited for: their finalizers write records. */
const settleMillis = 1000

/** Counts the calls in flight and, once closed, refuses new ones. */
export class CallGate {
  readonly #calls = new Set<Fiber.Fiber<unknown, unknown>>()
  #isClosed = false
  #idle: Deferred.Deferred<void> | undefined = undefined

  get inFlight(): number {
    return this.#calls.size
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  admit<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return Effect.withFiber((fiber) => {
      if (fiber.getRef(IsAdmitted)) return effect
      if (this.#isClosed) {
        const error = resilienceError(draining)
        return Effect.fail(record === undefined ? error : record.refuse("rejected", error))
      }
      // Counted inside, when the way out is already in place: a fiber may be interrupted between any two steps.
      const counted = Effect.suspend(() => {
        this.#calls.add(fiber)
        return effect
      })
      return Effect.onExitPrimitive(Effect.provideService(counted, IsAdmitted, true), () => {
        this.#calls.delete(fiber)
        if (this.#calls.size === 0) this.#settle()
        return undefined
      })
    })
  }

  /** Closes the gate, waits for the calls in flight, and interrupts those that are left. Says how many those were. */
  quiesce(graceMillis: number): Effect.Effect<number> {
    return Effect.suspend(() => {
      this.#isClosed = true
      return Effect.flatMap(this.#idleWithin(graceMillis), (isIdle) => {
        if (isIdle) return Effect.succeed(0)
        const left = [...this.#calls]
        for (const fiber of left) fiber.interruptUnsafe()
        return Effect.as(this.#idleWithin(settleMillis), left.length)
      })
    })
  }

  #idleWithin(millis: number): Effect.Effect<boolean> {
    return Effect.contextWith((context: Context.Context<never>) => {
      if (this.#calls.size === 0) return Effect.succeed(true)
      const idle = this.#idle ??= Deferred.makeUnsafe<void>()
      // In a finalizer nothing can be interrupted, so what is raced here runs in fibers of its own.
      return Effect.callback<boolean>((resume) => {
        const stop = boundedRun(context, Deferred.await(idle), millis, {
          settle: () => resume(Effect.sync(() => this.#calls.size === 0)),
          end: () => {}
        })
        return Effect.sync(stop)
      })
    })
  }

  #settle(): void {
    if (this.#idle === undefined) return
    Deferred.doneUnsafe(this.#idle, Effect.void)
    this.#idle = undefined
  }
}
