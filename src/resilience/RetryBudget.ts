/**
 * How many repetitions a dependency is sent on top of its calls.
 *
 * When everything fails, retrying everything makes it worse. A budget allows repetitions as a share of the calls of the
 * last seconds, and a few more each second so that a quiet dependency can be retried at all. Give the same budget to
 * everything that repeats calls to one dependency: retries and hedges draw from it alike.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"

/**
 * What a budget is made of.
 *
 * - `share`: repetitions per call, from 0 to 1. Default 0.2.
 * - `minPerSecond`: repetitions per second that are allowed whatever the share says, from 0. Default 10.
 * - `window`: how long a call counts for the share. Default 10 seconds.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly share?: number | undefined
  readonly minPerSecond?: number | undefined
  readonly window?: Duration.Input | undefined
}

/**
 * A budget at one instant.
 *
 * - `calls`, `repetitions`: of the last window. `refused`: repetitions that were not allowed, since it was made.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly calls: number
  readonly repetitions: number
  readonly refused: number
}

/**
 * A budget that retries and hedges share.
 *
 * @category services
 * @since 0.1.0
 */
export class RetryBudget extends Context.Service<RetryBudget, {
  readonly snapshot: Effect.Effect<Snapshot>
}>()("effect-toolops/resilience/RetryBudget") {}

const optionNames: { readonly [K in keyof Required<Options>]: true } = { share: true, minPerSecond: true, window: true }

const slices = 10

// The happy path only counts. The clock is read once in so many calls, so at most these are taken for newer than they are.
const callsBetweenLooks = 64

const indexOf = (slice: number): number => ((slice % slices) + slices) % slices

/** @internal */
export class RetryBudgetImpl {
  readonly share: number
  readonly minPerSecond: number
  readonly sliceMillis: number
  readonly snapshot: Effect.Effect<Snapshot>
  readonly #callSlices: Array<number> = Array.from({ length: slices }, () => 0)
  readonly #spentSlices: Array<number> = Array.from({ length: slices }, () => 0)
  #calls = 0
  #spent = 0
  #uncounted = 0
  #refused = 0
  #slice = Number.NEGATIVE_INFINITY
  /** Repetitions that the minimum allows: at most those of one second are saved up, or one where it is less. */
  #reserve: number
  readonly #fullReserve: number
  #reserveAt = Number.NEGATIVE_INFINITY

  constructor(options: Options | undefined, where: string) {
    const given = options ?? {}
    Check.known(where, given, Object.keys(optionNames))
    this.share = Check.finite(where, "share", given.share ?? 0.2, { minimum: 0, maximum: 1 })
    this.minPerSecond = Check.finite(where, "minPerSecond", given.minPerSecond ?? 10, { minimum: 0 })
    this.sliceMillis = Check.millis(where, "window", given.window ?? "10 seconds") / slices
    this.#fullReserve = this.minPerSecond === 0 ? 0 : Math.max(1, this.minPerSecond)
    this.#reserve = this.#fullReserve
    this.snapshot = Effect.withFiber((fiber) => {
      this.#turn(monotonicMillis(fiber))
      return Effect.succeed({ calls: this.#calls, repetitions: this.#spent, refused: this.#refused })
    })
  }

  /** Counts a call. */
  deposit(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.#uncounted += 1
    if (this.#uncounted >= callsBetweenLooks) this.#turn(monotonicMillis(fiber))
  }

  /** Says whether a repetition is allowed, and counts a refusal if it is not. */
  allows(now: number): boolean {
    this.#turn(now)
    if (this.#hasShare() || this.#reserve >= 1) return true
    this.#refused += 1
    return false
  }

  /** Takes what `allows` has just allowed, out of the share or out of the minimum, and gives what puts it back. */
  spend(): () => void {
    if (!this.#hasShare()) {
      this.#reserve -= 1
      return () => {
        this.#reserve = Math.min(this.#fullReserve, this.#reserve + 1)
      }
    }
    const slice = this.#slice
    this.#spent += 1
    this.#spentSlices[indexOf(slice)]! += 1
    return () => {
      // What has left the window is no longer counted.
      if (this.#slice - slice >= slices) return
      this.#spent -= 1
      this.#spentSlices[indexOf(slice)]! -= 1
    }
  }

  #hasShare(): boolean {
    return this.#spent + 1 <= this.share * this.#calls
  }

  // Lets go of what is older than the window and counts what is new.
  #turn(now: number): void {
    const slice = Math.floor(now / this.sliceMillis)
    if (slice > this.#slice) {
      const passed = Math.min(slices, slice - this.#slice)
      for (let i = 0; i < passed; i++) {
        this.#slice = slice - passed + 1 + i
        const index = indexOf(this.#slice)
        this.#calls -= this.#callSlices[index]!
        this.#spent -= this.#spentSlices[index]!
        this.#callSlices[index] = 0
        this.#spentSlices[index] = 0
      }
    }
    this.#calls += this.#uncounted
    this.#callSlices[indexOf(this.#slice)]! += this.#uncounted
    this.#uncounted = 0
    if (now > this.#reserveAt) {
      const gained = ((now - this.#reserveAt) / 1000) * this.minPerSecond
      this.#reserve = Math.min(this.#fullReserve, this.#reserve + (gained > 0 ? gained : 0))
      this.#reserveAt = now
    }
  }
}

/**
 * Takes one repetition out of both budgets, and gives what puts it back if it does not come about. Undefined where one of
 * them does not allow it.
 *
 * @internal
 */
export const withdraw = (
  own: RetryBudgetImpl | undefined,
  outer: RetryBudgetImpl | undefined,
  now: number
): (() => void) | undefined => {
  if (own !== undefined && !own.allows(now)) return undefined
  const other = outer === own ? undefined : outer
  if (other !== undefined && !other.allows(now)) return undefined
  const back = own?.spend()
  const otherBack = other?.spend()
  return () => {
    back?.()
    otherBack?.()
  }
}

/** @internal A budget as an option: a shared one, options of a new one, or none. */
export type BudgetOption = RetryBudget["Service"] | Options | false

/** @internal */
export const fromOption = (option: BudgetOption | undefined, where: string): RetryBudgetImpl | undefined =>
  option === false
    ? undefined
    : option instanceof RetryBudgetImpl
    ? option
    // What is left of the type is `Options`: budgets are only made here.
    : new RetryBudgetImpl(option as Options | undefined, `${where}: budget`)

/** @internal */
export const makeUnsafe = (options?: Options, where = "RetryBudget.make"): RetryBudgetImpl =>
  new RetryBudgetImpl(options, where)

/**
 * Makes a budget. Options that make no sense throw here.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<RetryBudget["Service"]> => {
  makeUnsafe(options)
  return Effect.sync(() => makeUnsafe(options))
}

/**
 * Provides a budget. Two calls are two budgets.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<RetryBudget> => {
  makeUnsafe(options, "RetryBudget.layer")
  return Layer.effect(RetryBudget, make(options))
}

/**
 * Provides a budget whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<RetryBudget, Config.ConfigError> =>
  Layer.effect(
    RetryBudget,
    Effect.map(Config.unwrap(options), (options) => makeUnsafe(options, "RetryBudget.layerConfig"))
  )
