/**
 * How a timeout works: the work runs in a child of the caller's fiber that is started at once, and only where it has to
 * wait its deadline is put down.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { CallRecord } from "../CallRecord.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import { refusal } from "../internal/refusal.ts"
import { DeadlineList, type Entry, hasHostClock } from "./DeadlineList.ts"
import { Frame } from "./Frame.ts"
import { type ResilienceError, resilienceError, TimedOut } from "./ResilienceError.ts"
import type { ResilienceObserver } from "./ResilienceObserver.ts"
import { CurrentSlot, lingering, type Slot } from "./Slot.ts"
import type { Snapshot } from "./Timeout.ts"

/** @internal Times are in milliseconds. */
export interface Settings {
  readonly name: string
  readonly timeout: number
  readonly total: number
  readonly grace: number
}

/** A time to live, and the calls that have it. */
class Limit {
  readonly millis: number
  readonly reason: TimedOut
  readonly list: DeadlineList = new DeadlineList()

  constructor(name: string, millis: number) {
    this.millis = millis
    this.reason = refusal(TimedOut, { _tag: "TimedOut", name, timeout: Duration.millis(millis) })
  }
}

type Resume = (effect: Effect.Effect<any, any>) => void

const running = 0
/** The time is up, and the work is told to stop. */
const stopping = 1
/** The caller was answered, and the work still runs. */
const left = 2
/** The caller was interrupted, and waits for the work to end. */
const abandoned = 3
const ended = 4

/**
 * One execution. It is the frame around the work, its own entry in the list of deadlines, and the effect that is run when
 * the caller is interrupted.
 */
class Execution extends Effectable.Mixin(Frame) implements Entry {
  override deadline: number
  readonly timeout: TimeoutImpl
  readonly limit: Limit
  readonly caller: Fiber.Fiber<unknown, unknown>
  readonly resume: Resume
  readonly record: CallRecord | undefined
  previous: Entry | undefined = undefined
  next: Entry | undefined = undefined
  work: Fiber.Fiber<unknown, unknown> | undefined = undefined
  state: number = running
  isListed = false
  /** Sleeps until the deadline where the clock is not the host's, and through the grace time. */
  sleeper: Fiber.Fiber<void> | undefined = undefined

  constructor(
    timeout: TimeoutImpl,
    limit: Limit,
    parent: Slot | undefined,
    caller: Fiber.Fiber<unknown, unknown>,
    resume: Resume,
    record: CallRecord | undefined
  ) {
    super(parent)
    this.timeout = timeout
    this.limit = limit
    this.caller = caller
    this.resume = resume
    this.record = record
    this.deadline = monotonicMillis(caller) + limit.millis
  }

  start<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<void> | undefined {
    // The requirements of `effect` are those of the caller, whose context this is.
    const context = Context.add(this.caller.context as Context.Context<R>, CurrentSlot, this)
    const work = Effect.runForkWith(context)(effect)
    const exit = work.pollUnsafe()
    if (exit !== undefined) {
      this.isOver = true
      this.resume(exit)
      return undefined
    }
    this.work = work
    work.addObserver((exit) => this.end(exit))
    if (hasHostClock(this.caller)) {
      this.isListed = true
      this.limit.list.push(this)
    } else {
      this.sleep(this.limit.millis, () => this.expire())
    }
    return this
  }

  /** The work has ended, in time or not. */
  end(exit: Exit.Exit<unknown, unknown>): void {
    const before = this.state
    this.state = ended
    this.isOver = true
    switch (before) {
      case running:
        this.disarm()
        return this.resume(exit)
      case stopping:
        this.disarm()
        return this.answer()
      case left:
        this.timeout.running -= 1
        this.timeout.late += 1
        this.timeout.observer?.onLateResult?.(this.timeout.name)
        if (this.record !== undefined) this.record.lateResults += 1
    }
  }

  /** The time is up. */
  expire(): void {
    const work = this.work!
    const canStop = isInterruptible(work)
    this.state = stopping
    this.isListed = false
    this.sleeper = undefined
    this.timeout.timedOut += 1
    this.timeout.observer?.onTimeout?.(this.timeout.name)
    work.interruptUnsafe(this.caller.id)
    if (this.state !== stopping) return
    const { grace } = this.timeout.settings
    if (canStop && grace > 0) this.sleep(grace, () => this.leave())
    else this.leave()
  }

  /** Answers although the work still runs. */
  leave(): void {
    this.state = left
    this.sleeper = undefined
    this.timeout.running += 1
    lingering(this.parent, this.work!)
    this.answer()
  }

  answer(): void {
    const error = resilienceError(this.limit.reason)
    this.resume(Effect.fail(this.record === undefined ? error : this.record.refuse("timed_out", error)))
  }

  /** The caller was interrupted. That is no timeout; the work goes with it and is waited for like any child. */
  asEffect(): Effect.Effect<void> {
    this.disarm()
    this.state = abandoned
    return Fiber.interrupt(this.work!)
  }

  disarm(): void {
    if (this.isListed) {
      this.isListed = false
      this.limit.list.remove(this)
    } else if (this.sleeper !== undefined) {
      const sleeper = this.sleeper
      this.sleeper = undefined
      sleeper.interruptUnsafe()
    }
  }

  sleep(millis: number, wake: () => void): void {
    const clock = this.caller.getRef(Clock.Clock)
    const sleeper = Effect.runForkWith(this.caller.context)(clock.sleep(Duration.millis(millis)))
    this.sleeper = sleeper
    sleeper.addObserver((exit) => {
      if (Exit.isSuccess(exit)) wake()
    })
  }
}

// Not part of `Fiber`'s published type. Where a later version lacks it, work that does not stop at once is not waited
// for, so nobody waits for ever.
const isInterruptible = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  (fiber as { readonly interruptible?: boolean }).interruptible === true

/** @internal */
export class TimeoutImpl {
  readonly name: string
  readonly settings: Settings
  readonly snapshot: Effect.Effect<Snapshot>
  timedOut = 0
  running = 0
  late = 0
  readonly observer: ResilienceObserver | undefined
  readonly #timeout: Limit
  readonly #total: Limit

  constructor(settings: Settings, observer: ResilienceObserver | undefined) {
    this.name = settings.name
    this.observer = observer
    this.settings = settings
    this.snapshot = Effect.sync(() => ({ timedOut: this.timedOut, running: this.running, late: this.late }))
    this.#timeout = new Limit(settings.name, settings.timeout)
    this.#total = new Limit(settings.name, settings.total)
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return this.#limit(effect, this.#timeout, undefined)
  }

  /** `execute` for a tool call: a timeout and a late result are noted in its record. */
  executeFor<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return this.#limit(effect, this.#timeout, record)
  }

  executeTotal<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return this.#limit(effect, this.#total, undefined)
  }

  /** `executeTotal` for a tool call. */
  executeTotalFor<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return this.#limit(effect, this.#total, record)
  }

  /** `executeFor` inside a slot that the caller's context does not know. There must be a limit. */
  executeWithin<A, E, R>(
    slot: Slot | undefined,
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return Effect.callback((resume) =>
      new Execution(this, this.#timeout, slot, Fiber.getCurrent()!, resume, record).start(effect)
    )
  }

  #limit<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    limit: Limit,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    if (limit.millis === Infinity) return effect
    // The work starts while the caller registers its wait, so there is no step at which it has started and an
    // interruption of the caller would not reach it.
    return Effect.callback((resume) => {
      const caller = Fiber.getCurrent()!
      return new Execution(this, limit, caller.getRef(CurrentSlot), caller, resume, record).start(effect)
    })
  }
}
