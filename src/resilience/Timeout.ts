/**
 * Gives an effect so much time.
 *
 * When the time is up the work is interrupted, and the caller is answered once the interruption is complete. Work that
 * cannot be interrupted is left to itself: the caller is answered at the deadline, what the work comes back with is
 * dropped and counted, and it keeps its bulkhead's slot until it has really ended. The deadline is known to everything
 * that the work calls, see `Deadline`.
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
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type { CallRecord } from "../CallRecord.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { refusal } from "../internal/refusal.ts"
import { DeadlineList, type Entry, hasHostClock } from "./DeadlineList.ts"
import { Frame } from "./Frame.ts"
import { type ResilienceError, resilienceError, TimedOut } from "./ResilienceError.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"
import { CurrentSlot, lingering } from "./Slot.ts"

/**
 * How much time there is.
 *
 * - `name`: how errors call it. Default `timeout`.
 * - `timeout`: for one execution. Default 30 seconds; `Infinity` sets no limit.
 * - `total`: for what is run through `executeTotal`: all attempts and the waits between them. Default: no limit.
 * - `grace`: how long interrupted work may take to clean up before its caller is answered without it. Default 1 second.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly timeout?: Duration.Input | undefined
  readonly total?: Duration.Input | undefined
  readonly grace?: Duration.Input | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  timeout: true,
  total: true,
  grace: true
}

/**
 * What has become of the calls of one timeout.
 *
 * - `timedOut`: calls that were not done in time. `running`: work that still runs although its caller was answered.
 * - `late`: work that ended after its caller was answered.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly timedOut: number
  readonly running: number
  readonly late: number
}

/**
 * Limits the time of whatever is run through it.
 *
 * **Example** (Giving up after a second)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Timeout } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const timeout = yield* Timeout.make({ timeout: "10 millis" })
 *   return yield* timeout.execute(Effect.never).pipe(
 *     Effect.catchReason("ResilienceError", "TimedOut", () => Effect.succeed("too slow"))
 *   )
 * })
 *
 * await Effect.runPromise(program) // => "too slow"
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Timeout extends Context.Service<Timeout, {
  readonly name: string
  /** Runs `effect` with `timeout`, or fails with `TimedOut`. */
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  /** Runs `effect` with `total`. Put it around a retry whose attempts go through `execute`. */
  readonly executeTotal: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  readonly snapshot: Effect.Effect<Snapshot>
}>()("effect-toolops/resilience/Timeout") {}

/** @internal */
export interface Settings {
  readonly name: string
  readonly timeout: number
  readonly total: number
  readonly grace: number
}

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Options | undefined, where: string): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  return {
    name: given.name ?? "timeout",
    timeout: Check.millis(where, "timeout", given.timeout ?? "30 seconds", { allowInfinite: true }),
    total: Check.millis(where, "total", given.total ?? Infinity, { allowInfinite: true }),
    grace: Check.millis(where, "grace", given.grace ?? "1 second", { allowZero: true })
  }
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

/** One execution. It is the frame around the work, and its own entry in the list of deadlines. */
class Execution extends Frame implements Entry {
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
    caller: Fiber.Fiber<unknown, unknown>,
    resume: Resume,
    record: CallRecord | undefined
  ) {
    super(caller.getRef(CurrentSlot))
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
    return Effect.suspend(() => this.abandon())
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
    lingering(this.caller, this.work!)
    this.answer()
  }

  answer(): void {
    const error = resilienceError(this.limit.reason)
    this.resume(Effect.fail(this.record === undefined ? error : this.record.refuse("timed_out", error)))
  }

  /** The caller was interrupted. That is no timeout; the work goes with it and is waited for like any child. */
  abandon(): Effect.Effect<void> {
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
      return new Execution(this, limit, caller, resume, record).start(effect)
    })
  }
}

/** @internal */
export const makeUnsafe = (
  options?: Options,
  where = "Timeout.make",
  internals?: { readonly observer?: ResilienceObserver | undefined }
): TimeoutImpl => new TimeoutImpl(resolve(options, where), internals?.observer)

const fromSettings = (settings: Settings): Effect.Effect<Timeout["Service"]> =>
  Effect.withFiber((fiber) => Effect.succeed(new TimeoutImpl(settings, fiber.getRef(CurrentResilienceObserver))))

/**
 * Makes a timeout. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<Timeout["Service"]> =>
  fromSettings(resolve(options, "Timeout.make"))

/**
 * Provides a timeout.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Timeout> =>
  Layer.effect(Timeout, fromSettings(resolve(options, "Timeout.layer")))

/**
 * Provides a timeout whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Timeout, Config.ConfigError> =>
  Layer.effect(
    Timeout,
    Effect.flatMap(ConfigModule.unwrap(options), (options) => fromSettings(resolve(options, "Timeout.layerConfig")))
  )
