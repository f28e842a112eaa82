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
import type { CallRecord } from "../../CallRecord.ts"
import { monotonicMillisOf } from "../../internal/monotonic.ts"
import { refusal } from "../../internal/refusal.ts"
import { type ResilienceError, resilienceError, TimedOut } from "../ResilienceError.ts"
import type { ResilienceObserver } from "../ResilienceObserver.ts"
import type { Snapshot } from "../Timeout.ts"
import { DeadlineList, type Entry, keepsDeadlines } from "./deadlineList.ts"
import { Frame, isInterruptible, unstoppable } from "./frame.ts"
import { harmless } from "./observer.ts"
import { CurrentSlot, lingering, type Slot } from "./slot.ts"

/** @internal Times are in milliseconds. */
export interface Settings {
  readonly name: string
  readonly timeout: number
  readonly total: number
  readonly grace: number
}

/** @internal A time to live, and the calls that have it. */
export class Limit {
  readonly timeout: TimeoutImpl
  readonly millis: number
  readonly reason: TimedOut
  readonly list: DeadlineList = new DeadlineList()

  constructor(timeout: TimeoutImpl, millis: number) {
    this.timeout = timeout
    this.millis = millis
    this.reason = refusal(TimedOut, { _tag: "TimedOut", name: timeout.name, timeout: Duration.millis(millis) })
  }
}

/** @internal Continues the caller's fiber, which knows the types. */
export type Resume = (effect: Effect.Effect<any, any, any>) => void

/**
 * - `running`: the work runs and has time. `stopping`: the time is up, and the work is told to stop. `unstoppable`: so it
 *   is, and cannot.
 * - `left`: the caller was answered, and the work still runs.
 * - `abandoned`: the caller was interrupted, and waits for the work to end. `ended`: the work has ended.
 *
 * @internal
 */
export type State = "running" | "stopping" | "unstoppable" | "left" | "abandoned" | "ended"

/**
 * One execution. It is the frame around the work, its own entry in the list of deadlines, and the effect that is run when
 * the caller is interrupted.
 *
 * @internal
 */
export class TimeoutExecution extends Effectable.Mixin(Frame) implements Entry {
  override deadline: number | undefined
  readonly limit: Limit
  readonly clock: Clock.Clock
  readonly caller: Fiber.Fiber<unknown, unknown>
  readonly resume: Resume
  readonly record: CallRecord | undefined
  previous: Entry | undefined = undefined
  next: Entry | undefined = undefined
  /** Undefined where the work ended without ever waiting. */
  work: Fiber.Fiber<unknown, unknown> | undefined = undefined
  state: State = "running"
  /** Sleeps until the deadline where no list keeps it, and through the grace time. */
  sleeper: Fiber.Fiber<void> | undefined = undefined

  constructor(
    limit: Limit,
    parent: Slot | undefined,
    caller: Fiber.Fiber<unknown, unknown>,
    resume: Resume,
    record: CallRecord | undefined
  ) {
    super(parent)
    this.limit = limit
    this.caller = caller
    this.resume = resume
    this.record = record
    this.clock = caller.getRef(Clock.Clock)
    this.deadline = monotonicMillisOf(this.clock) + limit.millis
  }

  /** Starts the work. To be called where the caller's fiber begins to wait, and answered with what this gives. */
  start<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<void> {
    // The requirements of `effect` are those of the caller, whose context this is.
    const context = Context.add(this.caller.context as Context.Context<R>, CurrentSlot, this)
    const work = Effect.runForkWith(context)(effect)
    const exit = work.pollUnsafe()
    if (exit !== undefined) {
      this.state = "ended"
      this.isOver = true
      this.finish(exit)
      return this
    }
    this.work = work
    if (keepsDeadlines(this.clock)) this.limit.list.push(this)
    else this.sleep(this.limit.millis, () => this.expire())
    work.addObserver((exit) => this.end(exit))
    return this
  }

  /** The work has ended, in time or not. */
  end(exit: Exit.Exit<unknown, unknown>): void {
    const { state } = this
    if (state === "running" || state === "stopping") this.disarm()
    this.state = "ended"
    this.isOver = true
    if (state === "running") this.finish(exit)
    else if (state === "stopping" || state === "unstoppable") this.finish(this.timedOut())
    else if (state === "left") {
      const { timeout } = this.limit
      timeout.running -= 1
      timeout.late += 1
      timeout.onLateResult?.(timeout.name)
      this.record?.late()
    }
  }

  /** What the caller is answered. */
  finish(exit: Exit.Exit<unknown, unknown>): void {
    this.resume(exit)
  }

  /** The time is up. */
  expire(): void {
    const { timeout } = this.limit
    const work = this.work!
    this.state = isInterruptible(work) ? "stopping" : "unstoppable"
    this.sleeper = undefined
    timeout.timedOut += 1
    timeout.onTimeout?.(timeout.name)
    work.interruptUnsafe(this.caller.id)
    // Nearly always it has ended by now, and the caller was answered.
    if (work.pollUnsafe() !== undefined) return
    const { grace } = timeout.settings
    if (this.state === "stopping" && grace > 0) this.sleep(grace, () => this.leave())
    else this.leave()
  }

  // Seen from here, work that waits for a fiber of its own can be interrupted. Only who started that fiber knows better.
  override cannotStop(): void {
    if (this.state !== "stopping") return
    this.state = "unstoppable"
    // Without a sleeper, `expire` is about to look.
    if (this.sleeper === undefined) return
    this.disarm()
    this.leave()
  }

  /** Answers although the work still runs. */
  leave(): void {
    this.state = "left"
    this.sleeper = undefined
    this.limit.timeout.running += 1
    lingering(this, this.work!)
    this.finish(this.timedOut())
  }

  timedOut(): Exit.Exit<never, ResilienceError> {
    const error = resilienceError(this.limit.reason)
    return Exit.fail(this.record === undefined ? error : this.record.refuse("timed_out", error))
  }

  /** The caller was interrupted. That is no timeout; the work goes with it and is waited for like any child. */
  asEffect(): Effect.Effect<void> {
    if (this.state === "running" || this.state === "stopping") {
      this.disarm()
      // Work that is being stopped has had its chance already, and cleans up.
      if (this.state === "running" && !isInterruptible(this.work!)) unstoppable(this.parent)
      this.state = "abandoned"
    }
    return this.state === "abandoned" ? Fiber.interrupt(this.work!) : Effect.void
  }

  disarm(): void {
    if (this.sleeper !== undefined) {
      const sleeper = this.sleeper
      this.sleeper = undefined
      sleeper.interruptUnsafe()
    } else if (this.state === "running") {
      this.limit.list.remove(this)
    }
  }

  sleep(millis: number, wake: () => void): void {
    const sleeper = Effect.runForkWith(this.caller.context)(this.clock.sleep(Duration.millis(millis)))
    this.sleeper = sleeper
    sleeper.addObserver((exit) => {
      if (Exit.isSuccess(exit)) wake()
    })
  }
}

/** @internal */
export class TimeoutImpl {
  readonly name: string
  readonly settings: Settings
  readonly snapshot: Effect.Effect<Snapshot>
  timedOut = 0
  running = 0
  late = 0
  readonly onTimeout: ResilienceObserver["onTimeout"]
  readonly onLateResult: ResilienceObserver["onLateResult"]
  readonly limit: Limit
  readonly total: Limit

  constructor(settings: Settings, observer: ResilienceObserver | undefined) {
    this.name = settings.name
    this.onTimeout = harmless(observer, "onTimeout")
    this.onLateResult = harmless(observer, "onLateResult")
    this.settings = settings
    this.snapshot = Effect.sync(() => ({ timedOut: this.timedOut, running: this.running, late: this.late }))
    this.limit = new Limit(this, settings.timeout)
    this.total = new Limit(this, settings.total)
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return limited(this.limit, effect, undefined)
  }

  /** `execute` for a tool call: a timeout and a late result are noted in its record. */
  executeFor<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return limited(this.limit, effect, record)
  }

  executeTotal<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return limited(this.total, effect, undefined)
  }

  /** `executeTotal` for a tool call. */
  executeTotalFor<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return limited(this.total, effect, record)
  }
}

/**
 * Runs `effect` with a limit, in the innermost slot that the caller's context knows or in `slot`.
 *
 * @internal
 */
export const limited = <A, E, R>(
  limit: Limit,
  effect: Effect.Effect<A, E, R>,
  record: CallRecord | undefined,
  slot?: Slot
): Effect.Effect<A, E | ResilienceError, R> => {
  if (limit.millis === Infinity) return effect
  // The work starts while the caller begins to wait, so there is no step at which it has started and an interruption of
  // the caller would not reach it.
  return Effect.callback((resume) => {
    const caller = Fiber.getCurrent()!
    return new TimeoutExecution(limit, slot ?? caller.getRef(CurrentSlot), caller, resume, record).start(effect)
  })
}
