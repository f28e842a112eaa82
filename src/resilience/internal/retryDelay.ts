/**
 * How long a retry waits: finite, more than nothing and no longer than `maxDelay`, whatever the number of the attempt.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"

/**
 * How the delay grows from one retry to the next, before jitter.
 *
 * - `exponential`: `initialDelay`, times `multiplier` each time.
 * - `linear`: `initialDelay`, twice that, three times that.
 * - `constant`: `initialDelay` every time.
 *
 * @category models
 * @since 0.1.0
 */
export type Strategy = "exponential" | "linear" | "constant"

/**
 * How much of the delay is left to chance, so that callers that failed together do not come back together.
 *
 * - `none`: nothing. `full`: all of it. `equal`: half of it.
 * - `decorrelated`: between `initialDelay` and three times the delay before. It grows by itself, so `strategy` and
 *   `multiplier` do not matter.
 *
 * @category models
 * @since 0.1.0
 */
export type Jitter = "none" | "full" | "equal" | "decorrelated"

/** @internal */
export interface DelaySettings {
  readonly initialDelay: number
  readonly maxDelay: number
  readonly multiplier: number
  readonly strategy: Strategy
  readonly jitter: Jitter
}

// What `Duration` can still tell from nothing.
const nanosecond = 1e-6

// A schedule that never waits and never ends would be a loop that lets nobody else run.
const shortestScheduled = 1

/** @internal Milliseconds to wait where a schedule asks for `delay`, and `longest` is the most. */
export const scheduledMillis = (delay: Duration.Duration, longest: number): number =>
  Math.min(Math.max(shortestScheduled, Duration.toMillis(delay)), longest)

// A product that overflowed, or is not a number, comes out as the longest delay.
const clamp = (millis: number, { maxDelay }: DelaySettings): number =>
  millis < nanosecond ? Math.min(nanosecond, maxDelay) : millis < maxDelay ? millis : maxDelay

const grown = (settings: DelaySettings, retry: number): number => {
  switch (settings.strategy) {
    case "constant":
      return settings.initialDelay
    case "linear":
      return settings.initialDelay * retry
    case "exponential":
      return settings.initialDelay * Math.pow(settings.multiplier, retry - 1)
  }
}

/**
 * Milliseconds before the `retry`-th retry, counted from 1. `previous` is what came out before the last one, and `random`
 * is from 0 to 1, without the 1.
 *
 * @internal
 */
export const delayMillis = (settings: DelaySettings, retry: number, previous: number, random: number): number => {
  if (settings.jitter === "decorrelated") {
    const low = settings.initialDelay
    return clamp(low + random * Math.max(0, Math.min(previous * 3, settings.maxDelay) - low), settings)
  }
  const full = clamp(grown(settings, retry), settings)
  switch (settings.jitter) {
    case "none":
      return full
    case "equal":
      return clamp(full * (1 - random / 2), settings)
    case "full":
      // From the upper end, so that nothing at all is never drawn.
      return clamp(full * (1 - random), settings)
  }
}

/** @internal The `retryAfter` of an error or of its reason, in milliseconds. */
export const retryAfterMillis = (error: unknown): number | undefined =>
  hint(error) ?? (typeof error === "object" && error !== null && "reason" in error ? hint(error.reason) : undefined)

const hint = (value: unknown): number | undefined => {
  if (typeof value !== "object" || value === null || !("retryAfter" in value)) return undefined
  if (!Duration.isDuration(value.retryAfter)) return undefined
  const millis = Duration.toMillis(value.retryAfter)
  return millis > 0 ? millis : undefined
}
