import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { CallRecord } from "../../CallRecord.ts"
import { boundedRun } from "../../internal/boundedRun.ts"
import { refusal } from "../../internal/refusal.ts"
import { Draining, type ResilienceError, resilienceError } from "../../resilience/ResilienceError.ts"

/** A call that was let in by a gate, inside of those that were let in around it, by this gate or another. */
interface Admission {
  readonly gate: CallGate
  readonly outer: Admission | undefined
  isOver: boolean
}

/** What a fiber works for. What a call in flight calls itself must not be refused, or it is lost. */
const CurrentAdmission = Context.Reference<Admission | undefined>("effect-toolops/health/callGate/CurrentAdmission", {
  defaultValue: () => undefined
})

// Fibers that a call leaves behind inherit its admission, which must not count for longer than the call.
const isPartOfCall = (gate: CallGate, admission: Admission | undefined): boolean => {
  for (let each = admission; each !== undefined; each = each.outer) {
    if (each.gate === gate && !each.isOver) return true
  }
  return false
}

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
      const outer = fiber.getRef(CurrentAdmission)
      if (isPartOfCall(this, outer)) return effect
      const admission: Admission = { gate: this, outer, isOver: false }
      // Counted inside, when the way out is already in place: a fiber may be interrupted between any two steps. And in one
      // step with the look at the gate, which may close between any two.
      const counted = Effect.suspend((): Effect.Effect<A, E | ResilienceError, R> => {
        if (this.#isClosed) {
          const error = resilienceError(draining)
          return Effect.fail(record === undefined ? error : record.refuse("rejected", error))
        }
        this.#calls.add(fiber)
        return effect
      })
      return Effect.onExitPrimitive(Effect.provideService(counted, CurrentAdmission, admission), () => {
        admission.isOver = true
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
