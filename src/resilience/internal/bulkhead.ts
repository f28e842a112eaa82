/**
 * How a bulkhead works: the counts, the slots and the queue.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Fiber from "effect/Fiber"
import * as Ref from "effect/Ref"
import type { CallRecord } from "../../CallRecord.ts"
import { refusal } from "../../internal/refusal.ts"
import type { Snapshot } from "../Bulkhead.ts"
import { BulkheadFull, type ResilienceError, resilienceError } from "../ResilienceError.ts"
import type { ResilienceObserver } from "../ResilienceObserver.ts"
import { harmless } from "./observer.ts"
import { CurrentSlot, type Slot } from "./slot.ts"
import { type Waiter, WaitQueue } from "./waitQueue.ts"

/** @internal Times are in milliseconds. */
export interface Settings {
  readonly name: string
  readonly maxConcurrent: number
  readonly maxQueue: number
  readonly maxWait: number
  readonly retryAfter: Duration.Duration
}

/**
 * What `execute` gives: an effect that is an object of its own, which is lighter than a closure in another. Every part has
 * a class of its own, too: shared, it would be slower, since what it calls would differ from part to part.
 */
class Guarded extends Effectable.Class<any, any, any> {
  readonly bulkhead: BulkheadImpl
  readonly effect: Effect.Effect<any, any, any>
  readonly record: CallRecord | undefined

  constructor(bulkhead: BulkheadImpl, effect: Effect.Effect<any, any, any>, record: CallRecord | undefined) {
    super()
    this.bulkhead = bulkhead
    this.effect = effect
    this.record = record
  }

  asEffect(): Effect.Effect<any, any, any> {
    if (this.bulkhead.isFull()) return this.bulkhead.refuse(this.record)
    const execution = new Execution(this.bulkhead, Fiber.getCurrent()!, this.effect, this.record)
    // The slot is taken inside, when its way back is already in place: a fiber may be interrupted between any two steps.
    return Effect.onExitPrimitive(execution, () => execution.leave())
  }
}

/** One execution: before its slot, waiting for it, or in it. As an effect it takes the slot and goes on. */
class Execution extends Effectable.Class<any, any, any> implements Slot, Waiter {
  readonly bulkhead: BulkheadImpl
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly effect: Effect.Effect<any, any, any>
  readonly record: CallRecord | undefined
  /** How many fibers keep the slot: the one that took it, and those that outlive its answer. */
  users = 0
  /** The fiber's context outside the slot, while the work runs. */
  outside: Context.Context<never> | undefined = undefined
  place: Waiter["place"] = "none"
  deadline = 0
  previous: Waiter | undefined = undefined
  next: Waiter | undefined = undefined
  resume: ((effect: Effect.Effect<any, any, any>) => void) | undefined = undefined

  constructor(
    bulkhead: BulkheadImpl,
    fiber: Fiber.Fiber<unknown, unknown>,
    effect: Effect.Effect<any, any, any>,
    record: CallRecord | undefined
  ) {
    super()
    this.bulkhead = bulkhead
    this.fiber = fiber
    this.effect = effect
    this.record = record
  }

  get parent(): Slot | undefined {
    return this.outside === undefined ? undefined : Context.get(this.outside, CurrentSlot)
  }

  hold(fiber: Fiber.Fiber<unknown, unknown>): void {
    // A fiber that was detached from the work finds the slot long after it was given back.
    if (this.users === 0) return
    this.users += 1
    fiber.addObserver(() => this.done())
  }

  asEffect(): Effect.Effect<any, any, any> {
    if (this.bulkhead.take()) return this.start()
    return Effect.callback((resume) => {
      const { bulkhead } = this
      // The fiber may have yielded since, so look again.
      if (bulkhead.take()) return resume(this.start())
      if (bulkhead.isFull()) return resume(bulkhead.refuse(this.record))
      this.resume = resume
      bulkhead.wait(this)
    })
  }

  wake(isServed: boolean): void {
    // Served, and gone before it was told.
    if (isServed && this.place !== "served") return
    this.resume!(isServed ? this.start() : Effect.fail(this.bulkhead.error(this.record)))
  }

  start(): Effect.Effect<any, any, any> {
    const fiber = this.fiber
    this.users = 1
    this.outside = fiber.context
    fiber.setContext(Context.add(fiber.context, CurrentSlot, this))
    return this.effect
  }

  leave(): undefined {
    if (this.outside !== undefined) this.fiber.setContext(this.outside)
    if (this.users > 0) this.done()
    else this.bulkhead.giveUp(this)
  }

  done(): void {
    this.users -= 1
    if (this.users === 0) this.bulkhead.release(this.fiber)
  }
}

/** @internal */
export class BulkheadImpl {
  readonly name: string
  readonly settings: Settings
  readonly snapshot: Effect.Effect<Snapshot>
  readonly #counts: Ref.Ref<Snapshot> = Ref.makeUnsafe({ active: 0, queued: 0, rejected: 0, highWaterMark: 0 })
  readonly #waiting: WaitQueue
  /** Those that have been given a slot and are yet to be woken. */
  #served: Array<Waiter> = []
  readonly #reason: BulkheadFull
  readonly #onChange: ResilienceObserver["onBulkhead"]

  constructor(settings: Settings, observer: ResilienceObserver | undefined) {
    this.name = settings.name
    this.settings = settings
    this.snapshot = Ref.get(this.#counts)
    this.#onChange = harmless(observer, "onBulkhead")
    this.#reason = refusal(BulkheadFull, {
      _tag: "BulkheadFull",
      name: settings.name,
      retryAfter: settings.retryAfter
    })
    this.#waiting = new WaitQueue(settings.maxWait, (expired) => {
      this.#change(0, -expired.length, expired.length)
      for (const waiter of expired) waiter.wake(false)
    })
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return this.executeFor(effect, undefined)
  }

  /** `execute` for a tool call: a refusal is noted in its record. */
  executeFor<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return new Guarded(this, effect, record)
  }

  /** Says whether a caller would be refused now. */
  isFull(): boolean {
    const { active, queued } = this.#counts.ref.current
    return active >= this.settings.maxConcurrent && queued >= this.settings.maxQueue
  }

  isIdle(): boolean {
    const { active, queued } = this.#counts.ref.current
    return active === 0 && queued === 0
  }

  hasFreeSlot(): boolean {
    return this.#counts.ref.current.active < this.settings.maxConcurrent
  }

  /** Takes a free slot, if there is one. Nobody waits while there is. */
  take(): boolean {
    if (!this.hasFreeSlot()) return false
    this.#change(1, 0, 0)
    return true
  }

  wait(waiter: Waiter): void {
    this.#change(0, 1, 0)
    this.#waiting.push(waiter)
  }

  /** What a waiter does that goes away, whether or not it was given a slot meanwhile. */
  giveUp(waiter: Waiter): void {
    if (waiter.place === "queued") {
      this.#waiting.remove(waiter)
      this.#change(0, -1, 0)
    } else if (waiter.place === "served") {
      waiter.place = "gone"
      this.release(waiter.fiber)
    }
  }

  /** Gives a slot back, to the first in the queue if there is one: the slot is never free in between. */
  release(fiber: Fiber.Fiber<unknown, unknown>): void {
    const next = this.#waiting.serve()
    if (next === undefined) return this.#change(-1, 0, 0)
    this.#change(0, -1, 0)
    this.#served.push(next)
    // Woken later and in one go: from here each would run inside the release of the one before.
    if (this.#served.length === 1) fiber.currentDispatcher.scheduleTask(() => this.#wake(), 0)
  }

  refuse(record: CallRecord | undefined): Effect.Effect<never, ResilienceError> {
    this.#change(0, 0, 1)
    return Effect.fail(this.error(record))
  }

  error(record: CallRecord | undefined): ResilienceError {
    const error = resilienceError(this.#reason)
    return record === undefined ? error : record.refuse("rejected", error)
  }

  #wake(): void {
    const served = this.#served
    this.#served = []
    for (const waiter of served) waiter.wake(true)
  }

  #change(active: number, queued: number, rejected: number): void {
    const before = this.#counts.ref.current
    const now = before.active + active
    this.#counts.ref.current = {
      active: now,
      queued: before.queued + queued,
      rejected: before.rejected + rejected,
      highWaterMark: now > before.highWaterMark ? now : before.highWaterMark
    }
    if (this.#onChange !== undefined) this.#onChange(this.name, this.#counts.ref.current)
  }
}
