/**
 * Lets so many executions run at once, and so many wait for their turn.
 *
 * Waiters are served in the order in which they came, and each costs the same however many there are. A slot is given
 * back when the work has really ended: work that a timeout could not stop keeps it.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import type { CallRecord } from "../CallRecord.ts"
import * as Check from "../internal/options.ts"
import { refusal } from "../internal/refusal.ts"
import { BulkheadFull, type ResilienceError, resilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"
import { CurrentSlot, type Slot } from "./Slot.ts"
import { type Waiter, WaitQueue } from "./WaitQueue.ts"

/**
 * What a bulkhead is made of.
 *
 * - `name`: how errors and metrics call it. Default `bulkhead`.
 * - `maxConcurrent`: executions that run at once, a whole number from 1. Default 10.
 * - `maxQueue`: callers that may wait for a slot, a whole number from 0. Default 0: nobody waits.
 * - `maxWait`: how long a caller waits before it is refused. Default: as long as it likes. Needs `maxQueue`.
 * - `retryAfter`: the hint that a refused caller is given. Default 1 second.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly maxConcurrent?: number | undefined
  readonly maxQueue?: number | undefined
  readonly maxWait?: Duration.Input | undefined
  readonly retryAfter?: Duration.Input | undefined
}

/**
 * A bulkhead at one instant.
 *
 * - `active`: slots in use. `queued`: callers that wait.
 * - `rejected`: callers refused so far. `highWaterMark`: the most slots that were ever in use at once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly active: number
  readonly queued: number
  readonly rejected: number
  readonly highWaterMark: number
}

/**
 * Guards whatever is run through it with one set of slots.
 *
 * **Example** (Running two at a time)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Bulkhead } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const bulkhead = yield* Bulkhead.make({ maxConcurrent: 2, maxQueue: 100 })
 *   yield* Effect.all([1, 2, 3, 4].map((n) => bulkhead.execute(Effect.sleep(n))), { concurrency: "unbounded" })
 *   return (yield* bulkhead.snapshot).highWaterMark
 * })
 *
 * await Effect.runPromise(program) // => 2
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Bulkhead extends Context.Service<Bulkhead, {
  readonly name: string
  /** Runs `effect` in a slot, or fails with `BulkheadFull`. */
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  readonly snapshot: Effect.Effect<Snapshot>
}>()("effect-toolops/resilience/Bulkhead") {}

/** @internal */
export interface Settings {
  readonly name: string
  readonly maxConcurrent: number
  readonly maxQueue: number
  readonly maxWait: number
  readonly retryAfter: Duration.Duration
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  maxConcurrent: true,
  maxQueue: true,
  maxWait: true,
  retryAfter: true
}

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Options | undefined, where: string): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  const maxQueue = Check.integer(where, "maxQueue", given.maxQueue ?? 0, 0)
  const maxWait = given.maxWait === undefined
    ? Infinity
    : Check.millis(where, "maxWait", given.maxWait, { allowZero: true, allowInfinite: true })
  // Either alone would silently mean that nobody waits.
  if (given.maxWait !== undefined && (maxWait > 0) !== (maxQueue > 0)) {
    throw new RangeError(
      `${where}: maxWait and maxQueue must both be 0 or both be more, got ${maxWait} ms and ${maxQueue}`
    )
  }
  return {
    name: given.name ?? "bulkhead",
    maxConcurrent: Check.integer(where, "maxConcurrent", given.maxConcurrent ?? 10, 1),
    maxQueue,
    maxWait,
    retryAfter: Duration.millis(Check.millis(where, "retryAfter", given.retryAfter ?? "1 second"))
  }
}

/** One execution: before its slot, waiting for it, or in it. */
class Execution implements Slot {
  readonly bulkhead: BulkheadImpl
  readonly fiber: Fiber.Fiber<unknown, unknown>
  /** How many fibers keep the slot: the one that took it, and those that outlive its answer. */
  users = 0
  /** The fiber's context outside the slot, while the work runs. */
  outside: Context.Context<never> | undefined = undefined
  waiter: Waiter | undefined = undefined

  constructor(bulkhead: BulkheadImpl, fiber: Fiber.Fiber<unknown, unknown>) {
    this.bulkhead = bulkhead
    this.fiber = fiber
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

  enter<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    const bulkhead = this.bulkhead
    if (bulkhead.take()) return this.start(effect)
    return Effect.callback((resume) => {
      // The fiber may have yielded since, so look again.
      if (bulkhead.take()) return resume(this.start(effect))
      if (bulkhead.isFull()) return resume(bulkhead.refuse(record))
      this.waiter = bulkhead.wait(this.fiber, (isServed) => {
        resume(isServed ? Effect.suspend(() => this.start(effect)) : Effect.fail(bulkhead.error(record)))
      })
    })
  }

  start<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    const fiber = this.fiber
    this.users = 1
    this.outside = fiber.context
    fiber.setContext(Context.add(fiber.context, CurrentSlot, this))
    return effect
  }

  leave(): undefined {
    if (this.outside !== undefined) this.fiber.setContext(this.outside)
    if (this.users > 0) this.done()
    else if (this.waiter !== undefined) this.bulkhead.giveUp(this.waiter)
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
    this.#onChange = observer?.onBulkhead
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
    return Effect.withFiber((fiber) => {
      if (this.isFull()) return this.refuse(record)
      const execution = new Execution(this, fiber)
      // The slot is taken inside, when its way back is already in place: a fiber may be interrupted between any two steps.
      return Effect.onExitPrimitive(
        Effect.suspend(() => execution.enter(effect, record)),
        () => execution.leave()
      )
    })
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

  /** Takes a free slot, if there is one. Nobody waits while there is. */
  take(): boolean {
    if (this.#counts.ref.current.active >= this.settings.maxConcurrent) return false
    this.#change(1, 0, 0)
    return true
  }

  wait(fiber: Fiber.Fiber<unknown, unknown>, wake: (isServed: boolean) => void): Waiter {
    this.#change(0, 1, 0)
    return this.#waiting.push(fiber, wake)
  }

  /** What a waiter does that goes away, whether or not it was given a slot meanwhile. */
  giveUp(waiter: Waiter): void {
    if (waiter.state === "served") this.release(waiter.fiber)
    if (waiter.state !== "queued") return
    this.#waiting.remove(waiter)
    this.#change(0, -1, 0)
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

/** @internal */
export const makeUnsafe = (
  options?: Options,
  where = "Bulkhead.make",
  observer?: ResilienceObserver
): BulkheadImpl => new BulkheadImpl(resolve(options, where), observer)

/**
 * Makes a bulkhead. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<Bulkhead["Service"]> =>
  fromSettings(resolve(options, "Bulkhead.make"))

const fromSettings = (settings: Settings): Effect.Effect<Bulkhead["Service"]> =>
  Effect.withFiber((fiber) => Effect.succeed(new BulkheadImpl(settings, fiber.getRef(CurrentResilienceObserver))))

/**
 * Provides a bulkhead. Two calls are two bulkheads.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Bulkhead> =>
  Layer.effect(Bulkhead, fromSettings(resolve(options, "Bulkhead.layer")))

/**
 * Provides a bulkhead whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Bulkhead, Config.ConfigError> =>
  Layer.effect(
    Bulkhead,
    Effect.flatMap(Config.unwrap(options), (options) => fromSettings(resolve(options, "Bulkhead.layerConfig")))
  )
