/**
 * Starts a second execution beside one that takes long, and answers with whichever succeeds first.
 *
 * It trades work for latency, so it is for effects that change nothing. Hedges come out of the retry budget: when
 * everything is slow, hedging everything makes it slower. What is hedged inside a hedge or a retry runs once only.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { Frame, isCounted, isInterruptible, isRepetition, outermostBudget, unstoppable } from "./internal/frame.ts"
import { harmless } from "./internal/observer.ts"
import type { Internals } from "./internal/retry.ts"
import { CurrentSlot, lingering } from "./internal/slot.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"
import * as RetryBudget from "./RetryBudget.ts"

/**
 * When to hedge.
 *
 * - `name`: how metrics call it. Default `hedge`.
 * - `delay`: how long an execution takes before the next is started beside it. Something like the 95th percentile.
 * - `maxHedges`: executions started beside the first at most, a whole number from 1. Default 1.
 * - `budget`: as for `Retry`; give both the same. Default: 20 % of the calls plus 10 per second.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly delay: Duration.Input
  readonly maxHedges?: number | undefined
  readonly budget?: RetryBudget.RetryBudget["Service"] | RetryBudget.Options | false | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  delay: true,
  maxHedges: true,
  budget: true
}

/**
 * Hedges whatever is run through it.
 *
 * **Details**
 *
 * The first success wins and the others are interrupted. A failure waits for the executions beside it; when all fail,
 * the first failure comes out. A failure before any hedge was started comes out at once: that is for a retry.
 *
 * **Example** (Overtaking a slow execution)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Hedge } from "effect-toolops/resilience"
 *
 * let executions = 0
 * const slowAtFirst = Effect.suspend(() => ++executions === 1 ? Effect.never : Effect.succeed(executions))
 *
 * const program = Effect.gen(function*() {
 *   const hedge = yield* Hedge.make({ delay: "10 millis" })
 *   return yield* hedge.execute(slowAtFirst)
 * })
 *
 * await Effect.runPromise(program) // => 2
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Hedge extends Context.Service<Hedge, {
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}>()("effect-toolops/resilience/Hedge") {}

/** @internal */
export interface Settings {
  readonly name: string
  readonly delay: Duration.Duration
  readonly maxHedges: number
  readonly budget: Options["budget"]
}

/** @internal Fills in the defaults and throws on nonsense. */
export const resolve = (options: Partial<Options>, where: string): Settings => {
  Check.known(where, options, Object.keys(optionNames))
  if (options.delay === undefined) throw new Check.Conflict(`${where}: delay must be given`)
  return {
    name: Check.text(where, "name", options.name ?? "hedge"),
    delay: Duration.millis(Check.millis(where, "delay", options.delay)),
    maxHedges: Check.integer(where, "maxHedges", options.maxHedges ?? 1, 1),
    budget: options.budget
  }
}

/** One call with all its executions. It is the frame around the first. */
class Execution<A, E, R> extends Frame {
  readonly hedge: HedgeImpl
  readonly effect: Effect.Effect<A, E, R>
  readonly caller: Fiber.Fiber<unknown, unknown>
  readonly resume: (effect: Effect.Effect<A, E, R>) => void
  readonly running: Set<Fiber.Fiber<A, E>> = new Set()
  firstFailure: Exit.Exit<A, E> | undefined = undefined
  hedges = 0
  timer: Fiber.Fiber<void> | undefined = undefined

  constructor(
    hedge: HedgeImpl,
    effect: Effect.Effect<A, E, R>,
    caller: Fiber.Fiber<unknown, unknown>,
    resume: (effect: Effect.Effect<A, E, R>) => void
  ) {
    super(caller.getRef(CurrentSlot))
    this.budget = hedge.budget
    this.hedge = hedge
    this.effect = effect
    this.caller = caller
    this.resume = resume
  }

  begin(): Effect.Effect<void> | undefined {
    this.start(this)
    if (this.isOver) return undefined
    // One fiber starts all hedges, so that they begin in the asynchronous context of the caller and not in a timer's.
    this.timer = this.fork(this.startHedges())
    return Effect.suspend(() => this.abandon())
  }

  startHedges(): Effect.Effect<void> {
    const { delay, maxHedges } = this.hedge.settings
    return Effect.flatMap(Effect.flatMap(Clock.Clock, (clock) => clock.sleep(delay)), () => {
      if (!this.mayHedge()) return Effect.void
      this.hedges += 1
      this.hedge.onHedge?.(this.hedge.settings.name)
      const frame = new Frame(this)
      frame.isRepetition = true
      this.start(frame)
      return this.isOver || this.hedges >= maxHedges ? Effect.void : this.startHedges()
    })
  }

  mayHedge(): boolean {
    return RetryBudget.withdraw(this.budget, outermostBudget(this.parent), monotonicMillis(this.caller)) !== undefined
  }

  start(frame: Frame): void {
    const fiber = this.fork(this.effect, frame)
    if (fiber.pollUnsafe() === undefined) this.running.add(fiber)
    fiber.addObserver((exit) => {
      this.running.delete(fiber)
      // The first execution's frame is that of the call, and over with the call.
      if (frame !== this) frame.isOver = true
      this.ended(exit)
    })
  }

  fork<B, X>(effect: Effect.Effect<B, X, R>, frame?: Frame): Fiber.Fiber<B, X> {
    // The requirements of `effect` are those of the caller, whose context this is.
    const context = this.caller.context as Context.Context<R>
    return Effect.runForkWith(frame === undefined ? context : Context.add(context, CurrentSlot, frame))(effect)
  }

  ended(exit: Exit.Exit<A, E>): void {
    if (this.isOver) return
    if (exit._tag === "Failure") {
      this.firstFailure ??= exit
      if (this.running.size > 0) return
    }
    this.isOver = true
    this.timer?.interruptUnsafe()
    for (const loser of this.running) {
      loser.interruptUnsafe(this.caller.id)
      // The answer does not wait for what cannot be stopped at once, but the bulkhead's slot does.
      if (loser.pollUnsafe() === undefined) lingering(this.parent, loser)
    }
    this.resume(exit._tag === "Success" ? exit : this.firstFailure!)
  }

  /** The caller was interrupted: everything it started goes with it. */
  abandon(): Effect.Effect<void> {
    this.isOver = true
    this.timer?.interruptUnsafe()
    const running = Array.from(this.running)
    if (!running.every(isInterruptible)) unstoppable(this.parent)
    return Fiber.interruptAll(running)
  }
}

/** @internal */
export class HedgeImpl {
  readonly settings: Settings
  readonly budget: RetryBudget.RetryBudgetImpl | undefined
  readonly onHedge: ResilienceObserver["onHedge"]

  constructor(settings: Settings, where: string, internals: Internals | undefined) {
    this.settings = settings
    this.budget = internals?.budget ?? RetryBudget.fromOption(settings.budget, where)
    this.onHedge = harmless(internals?.observer, "onHedge")
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.callback<A, E, R>((resume) => {
      const caller = Fiber.getCurrent()!
      const outer = caller.getRef(CurrentSlot)
      if (isRepetition(outer)) return resume(effect)
      if (this.budget !== undefined && !isCounted(outer, this.budget)) this.budget.deposit(caller)
      return new Execution(this, effect, caller, resume).begin()
    })
  }
}

/** @internal */
export const makeUnsafe = (options: Partial<Options>, where = "Hedge.make", internals?: Internals): HedgeImpl =>
  new HedgeImpl(resolve(options, where), where, internals)

const fromOptions = (options: Options, where: string): Effect.Effect<Hedge["Service"]> => {
  // Made here once to throw at construction, and again in every run: each run has a budget of its own.
  makeUnsafe(options, where)
  return Effect.withFiber((fiber) =>
    Effect.succeed(makeUnsafe(options, where, { observer: fiber.getRef(CurrentResilienceObserver) }))
  )
}

/**
 * Makes a hedge. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Effect.Effect<Hedge["Service"]> => fromOptions(options, "Hedge.make")

/**
 * Provides a hedge. Two calls are two budgets.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Hedge> => Layer.effect(Hedge, fromOptions(options, "Hedge.layer"))

/**
 * Provides a hedge whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<Hedge, Config.ConfigError> =>
  Layer.effect(
    Hedge,
    Effect.flatMap(Config.unwrap(options), (options) => fromOptions(options, "Hedge.layerConfig"))
  )
