/**
 * One question about the health of the program: is the database there, is the disk full, is a circuit open.
 *
 * A check is described here and run by the `HealthRegistry`, which bounds it in time, keeps its answer for a while and
 * lets at most one run of it be under way. Whatever a check does wrong (fail, die, hang, ignore its interruption), it is
 * `unhealthy` and nothing else happens.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Check from "../internal/options.ts"
import { namePart } from "../internal/toolPattern.ts"

/**
 * - `healthy`: all is well.
 * - `degraded`: it works, but somebody should look. Traffic still comes.
 * - `unhealthy`: it does not work.
 *
 * @category models
 * @since 0.1.0
 */
export type HealthStatus = "healthy" | "degraded" | "unhealthy"

/**
 * What a check may answer. `details` are shown to authorized callers only: at most 50, texts cut at 500 characters.
 *
 * @category models
 * @since 0.1.0
 */
export interface CheckAnswer {
  readonly status: HealthStatus
  readonly details?: Readonly<Record<string, string | number | boolean>> | undefined
}

/**
 * Why a check is unhealthy when it did not say so itself: it failed, died, took too long, or has not run yet.
 *
 * @category models
 * @since 0.1.0
 */
export type CheckFailure = "failed" | "crashed" | "timeout"

/**
 * A check, with its defaults filled in.
 *
 * @category models
 * @since 0.1.0
 */
export interface HealthCheck<out R = never> {
  readonly name: string
  readonly check: Effect.Effect<CheckAnswer | boolean | void, unknown, R>
  readonly critical: boolean
  readonly groups: ReadonlyArray<string>
  readonly timeoutMillis: number
  readonly intervalMillis: number
  readonly background: boolean
  readonly failAfter: number
  readonly passAfter: number
}

/**
 * What `make` takes.
 *
 * - `name`: 1 to 128 of `A-Z a-z 0-9 _ - .`; it is part of a URL. Not beginning with `toolops.`, as the names of the checks
 *   do that parts of this library register of themselves.
 * - `check`: answers `true`, nothing or `{ status, details? }`; `false` and any failure mean unhealthy. The text of a
 *   failure is shown to nobody. A promise goes on when the check that waits for it is given up on, and the next run makes
 *   another one: hand it the `AbortSignal` that `Effect.tryPromise` gives, or wrap it in `Effect.uninterruptible`, which makes
 *   the run last as long as the promise.
 * - `critical`: whether the program is unhealthy without it; otherwise it is degraded. Default true.
 * - `groups`: the probes that ask it: `readiness`, `startup`, or names of your own. Default `["readiness"]`.
 * - `timeout`: how long one run may take. Default 1 second.
 * - `interval`: how long an answer is kept before the check runs again. Default 5 seconds; 0 keeps none.
 * - `background`: run it by itself, each time `interval` after the last run, so that no probe waits for it. Its answer is kept
 *   until the next, for `interval` + `timeout` at most. Default false.
 * - `failAfter`, `passAfter`: how many runs in a row must disagree before the status changes; what is told besides the status
 *   is of the latest run. Default 1 each. A run that was
 *   given up on and does not end counts as one more timeout per `interval`, or per `timeout` where that is longer.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<R = never> {
  readonly name: string
  readonly check: Effect.Effect<CheckAnswer | boolean | void, unknown, R>
  readonly critical?: boolean | undefined
  readonly groups?: ReadonlyArray<string> | undefined
  readonly timeout?: Duration.Input | undefined
  readonly interval?: Duration.Input | undefined
  readonly background?: boolean | undefined
  readonly failAfter?: number | undefined
  readonly passAfter?: number | undefined
}

const reserved = "toolops."

/** @internal Whether a name is one of the checks that parts of this library register of themselves. */
export const isReserved = (name: string): boolean => name.startsWith(reserved)

/**
 * Describes a check. Hand it to `HealthRegistry.register`, or to `HealthRegistry.layerCheck`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <R = never>(options: Options<R>): HealthCheck<R> => {
  const where = "HealthCheck.make"
  Check.known(where, options, [
    "name",
    "check",
    "critical",
    "groups",
    "timeout",
    "interval",
    "background",
    "failAfter",
    "passAfter"
  ])
  if (typeof options.name !== "string" || !namePart.test(options.name)) {
    throw new TypeError(`${where}: name must be 1 to 128 of the characters A-Z a-z 0-9 _ - .`)
  }
  if (isReserved(options.name)) throw new TypeError(`${where}: name must not begin with ${reserved}`)
  const groups = options.groups ?? ["readiness"]
  if (!groups.every((group) => typeof group === "string" && group.length > 0)) {
    throw new TypeError(`${where}: groups must be non-empty strings`)
  }
  const intervalMillis = Check.millis(where, "interval", options.interval ?? 5000, { allowZero: true })
  if (options.background === true && intervalMillis === 0) {
    throw new RangeError(`${where}: a background check needs an interval > 0`)
  }
  return {
    name: options.name,
    check: options.check,
    critical: options.critical ?? true,
    groups: [...groups],
    timeoutMillis: Check.millis(where, "timeout", options.timeout ?? 1000),
    intervalMillis,
    background: options.background ?? false,
    failAfter: Check.integer(where, "failAfter", options.failAfter ?? 1, 1),
    passAfter: Check.integer(where, "passAfter", options.passAfter ?? 1, 1)
  }
}
