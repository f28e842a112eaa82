/**
 * What a circuit breaker can be told, and what it makes of that.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Check from "../../internal/options.ts"
import * as Classify from "../Classify.ts"
import type { Rules } from "./circuitState.ts"
import { ConsecutiveWindow, CountWindow, type Rates, TimeWindow, type Window } from "./circuitWindow.ts"

/**
 * When slow calls open the circuit: a share of `rate` (above 0, at most 1) of the calls took `duration` or longer.
 *
 * @category options
 * @since 0.1.0
 */
export interface SlowCall {
  readonly duration: Duration.Input
  readonly rate: number
}

/**
 * Opens when too many of the last calls failed.
 *
 * - `size`: how many calls count, a whole number from 1 to 1,000,000.
 * - `failureRate`: the share of failures that opens the circuit, above 0 and at most 1. Default 0.5.
 * - `minimumCalls`: calls needed before the share means anything, from 1 to `size`. Default `size`.
 * - `slowCall`: counts slow calls as well. Default: nobody looks at the time.
 *
 * @category options
 * @since 0.1.0
 */
export interface CountWindowOptions {
  readonly type: "count"
  readonly size: number
  readonly failureRate?: number | undefined
  readonly minimumCalls?: number | undefined
  readonly slowCall?: SlowCall | undefined
}

/**
 * Opens when too many calls of the last so much time failed.
 *
 * - `duration`: how far the window reaches back.
 * - `buckets`: the pieces in which the past is forgotten, a whole number from 1 to 1,000. Default 10.
 * - `failureRate`, `slowCall`: as in `CountWindowOptions`.
 * - `minimumCalls`: calls needed before the share means anything, a whole number from 1. Default 10.
 *
 * @category options
 * @since 0.1.0
 */
export interface TimeWindowOptions {
  readonly type: "time"
  readonly duration: Duration.Input
  readonly buckets?: number | undefined
  readonly failureRate?: number | undefined
  readonly minimumCalls?: number | undefined
  readonly slowCall?: SlowCall | undefined
}

/**
 * What a circuit breaker is made of.
 *
 * - `name`: how errors, transitions and metrics call it. Default `circuitBreaker`.
 * - `maxFailures`: failures in a row that open the circuit, a whole number from 1. Default 5.
 * - `window`: opens on a share of the calls instead. Not together with `maxFailures`.
 * - `resetTimeout`: how long the circuit stays open before a call may try. Default 30 seconds. A `Schedule` gives the
 *   lengths of the first, second, ... opening in a row; its last length, or its 64th, goes for all that follow. It is
 *   stepped through twice, to be checked at once and for the random numbers of whoever makes the breaker.
 * - `maxResetTimeout`: the longest opening that a `Schedule` may ask for. Default 1 hour.
 * - `halfOpenMaxRequests`: the probes that a half-open circuit lets through, a whole number from 1. Default 1.
 * - `halfOpenSuccesses`: successful probes that close it, from 1 to `halfOpenMaxRequests`. Default 1.
 * - `probeLease`: how long a probe keeps its place without an answer. Default 30 seconds.
 * - `classify`: which results are failures. Default `Classify.all`. Not asked about interruption, which is ignored. The
 *   call dies where it answers anything but an `Outcome`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly maxFailures?: number | undefined
  readonly window?: CountWindowOptions | TimeWindowOptions | undefined
  readonly resetTimeout?: Duration.Input | Schedule.Schedule<unknown, number> | undefined
  readonly maxResetTimeout?: Duration.Input | undefined
  readonly halfOpenMaxRequests?: number | undefined
  readonly halfOpenSuccesses?: number | undefined
  readonly probeLease?: Duration.Input | undefined
  readonly classify?: Classify.Classify | undefined
}

/** @internal `slowMillis` is Infinity where nobody looks at the time. */
export interface Settings extends Rules {
  readonly name: string
  readonly classify: Classify.Classify
  readonly slowMillis: number
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  maxFailures: true,
  window: true,
  resetTimeout: true,
  maxResetTimeout: true,
  halfOpenMaxRequests: true,
  halfOpenSuccesses: true,
  probeLease: true,
  classify: true
}

/**
 * @internal Fills in the defaults and throws on nonsense. A `Schedule` is read here, with the clock and the random numbers
 * of `context`.
 */
export const resolve = (
  options: Options | undefined,
  where: string,
  context: Context.Context<never> = Context.empty()
): Settings => {
  const given = options ?? {}
  Check.known(where, given, Object.keys(optionNames))
  const halfOpenMaxRequests = Check.integer(where, "halfOpenMaxRequests", given.halfOpenMaxRequests ?? 1, 1)
  const halfOpenSuccesses = Check.integer(where, "halfOpenSuccesses", given.halfOpenSuccesses ?? 1, 1)
  if (halfOpenSuccesses > halfOpenMaxRequests) {
    throw new Check.Conflict(
      `${where}: halfOpenSuccesses must be at most halfOpenMaxRequests (${halfOpenMaxRequests}), got ${halfOpenSuccesses}`
    )
  }
  if (given.classify !== undefined && typeof given.classify !== "function") {
    throw new TypeError(`${where}: classify must be a function, got ${typeof given.classify}`)
  }
  return {
    name: Check.text(where, "name", given.name ?? "circuitBreaker"),
    emptyWindow: resolveWindow(given, where),
    openMillis: resolveOpenings(given, where, context),
    halfOpenMaxRequests,
    halfOpenSuccesses,
    probeLeaseMillis: Check.millis(where, "probeLease", given.probeLease ?? "30 seconds"),
    classify: given.classify ?? Classify.all,
    slowMillis: given.window?.slowCall === undefined
      ? Infinity
      : Check.millis(where, "window.slowCall.duration", given.window.slowCall.duration)
  }
}

const resolveWindow = (options: Options, where: string): Window => {
  const { maxFailures, window } = options
  if (window === undefined) return new ConsecutiveWindow(Check.integer(where, "maxFailures", maxFailures ?? 5, 1))
  if (maxFailures !== undefined) throw new Check.Conflict(`${where}: maxFailures and window cannot be used together`)
  Check.object(`${where}: window`, window)
  const shared = ["type", "failureRate", "minimumCalls", "slowCall"]
  if (window.type === "count") {
    Check.known(`${where}: window`, window, [...shared, "size"])
    const size = Check.integer(where, "window.size", window.size, 1, 1_000_000)
    const minimumCalls = Check.integer(where, "window.minimumCalls", window.minimumCalls ?? size, 1, size)
    return CountWindow.empty(resolveRates(window, minimumCalls, where), size)
  }
  Check.oneOf(where, "window.type", window.type, ["count", "time"])
  Check.known(`${where}: window`, window, [...shared, "duration", "buckets"])
  const buckets = Check.integer(where, "window.buckets", window.buckets ?? 10, 1, 1000)
  const bucketMillis = Check.millis(where, "window.duration", window.duration) / buckets
  const minimumCalls = Check.integer(where, "window.minimumCalls", window.minimumCalls ?? 10, 1)
  return TimeWindow.empty(resolveRates(window, minimumCalls, where), { bucketMillis, buckets })
}

const resolveRates = (
  { failureRate, slowCall }: CountWindowOptions | TimeWindowOptions,
  minimumCalls: number,
  where: string
): Rates => {
  const share = { above: 0, maximum: 1 }
  if (slowCall !== undefined) Check.known(`${where}: window.slowCall`, slowCall, ["duration", "rate"])
  return {
    failureRate: Check.finite(where, "window.failureRate", failureRate ?? 0.5, share),
    slowRate: slowCall === undefined ? Infinity : Check.finite(where, "window.slowCall.rate", slowCall.rate, share),
    minimumCalls
  }
}

const maxOpenings = 64

const resolveOpenings = (
  options: Options,
  where: string,
  context: Context.Context<never>
): ReadonlyArray<number> => {
  const resetTimeout = options.resetTimeout ?? "30 seconds"
  const isSchedule = Schedule.isSchedule(resetTimeout)
  if (!isSchedule && options.maxResetTimeout !== undefined) {
    throw new Check.Conflict(`${where}: maxResetTimeout needs a resetTimeout that is a Schedule`)
  }
  if (!isSchedule) return [Check.millis(where, "resetTimeout", resetTimeout)]
  const longest = Check.millis(where, "maxResetTimeout", options.maxResetTimeout ?? "1 hour")
  const exit = Effect.runSyncExitWith(context)(readSchedule(resetTimeout, longest))
  if (exit._tag === "Failure") {
    throw new TypeError(`${where}: resetTimeout must be a Schedule that does not wait or fail`)
  }
  if (exit.value.length === 0 || exit.value.some((millis) => !(millis > 0))) {
    throw new RangeError(`${where}: resetTimeout must be a Schedule of durations > 0`)
  }
  return exit.value
}

// Steps through the schedule as if each opening began when the one before it was over.
const readSchedule = (
  schedule: Schedule.Schedule<unknown, number>,
  longest: number
): Effect.Effect<ReadonlyArray<number>> =>
  Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    const millis: Array<number> = []
    let now = 0
    while (millis.length < maxOpenings && millis.at(-1) !== longest) {
      const result = yield* Effect.exit(step(now, millis.length + 1))
      if (result._tag === "Failure") break
      const delay = Math.min(longest, Duration.toMillis(result.value[1]))
      millis.push(delay)
      now += delay
    }
    return millis
  })
