/**
 * What became of one call.
 *
 * The stages fill the record in while the call runs. Span, metrics, log line and audit record are all told from it at
 * the end, so they cannot disagree.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import type { Identity } from "./auth/Identity.ts"

/**
 * How a call ended.
 *
 * - `ok`: the handler answered. `cached`, `stale`, `coalesced`: an answer that was already there, one kept past its
 *   time, one that another call was waiting for.
 * - `unauthenticated`, `denied`, `limited`: refused before anything ran.
 * - `rejected`: refused by an open circuit or a full bulkhead. `timed_out`: not done in time.
 * - `failed`: the handler's own error. `defect`: it died. `interrupted`: the caller went away.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome =
  | "ok"
  | "cached"
  | "stale"
  | "coalesced"
  | "denied"
  | "unauthenticated"
  | "limited"
  | "rejected"
  | "timed_out"
  | "failed"
  | "defect"
  | "interrupted"

/**
 * Every outcome, in the order in which they are documented.
 *
 * @category models
 * @since 0.1.0
 */
export const outcomes: ReadonlyArray<Outcome> = [
  "ok",
  "cached",
  "stale",
  "coalesced",
  "denied",
  "unauthenticated",
  "limited",
  "rejected",
  "timed_out",
  "failed",
  "defect",
  "interrupted"
]

/**
 * Where an answer came from. `bypass` is a call that must not be cached, `miss` one that was not there yet.
 *
 * @category models
 * @since 0.1.0
 */
export type CacheStatus = "bypass" | "miss" | "hit" | "stale" | "coalesced"

/**
 * What one limit said of a call. One in `shadow` mode lets pass whatever it says.
 *
 * @category models
 * @since 0.1.0
 */
export interface LimitStatus {
  readonly name: string
  readonly allowed: boolean
  readonly shadow?: boolean | undefined
  readonly remaining: number
  readonly resetAfterMillis: number
}

/** @internal What is told of answers that come when the call has ended. */
export interface LateObserver {
  readonly late: () => void
}

/**
 * The record of one call. Stages write, readers wait for the end.
 *
 * - `outcome`, `errorType`: set by `settle`. `errorType` is the tag of the error or of its reason.
 * - `startedAt` (wall clock, ms), `startedAtMonotonic` (ms), `durationMillis`: set by the observe stage.
 * - `identity`, `rule`: who called and which rule decided.
 * - `limits`: what each limit said.
 * - `cache`, `cacheKey`: where the answer came from.
 * - `attempts`: how many times the handler was started; the pipeline counts. `lateResults`: how many answers came after
 *   their timeout and before the end of the call.
 * - `dependency`: what the breaker, bulkhead and retry budget were keyed by.
 *
 * @category models
 * @since 0.1.0
 */
export class CallRecord {
  outcome: Outcome | undefined = undefined
  errorType: string | undefined = undefined
  startedAt = 0
  startedAtMonotonic = 0
  durationMillis = 0
  identity: Identity | undefined = undefined
  rule: string | undefined = undefined
  limits: ReadonlyArray<LimitStatus> | undefined = undefined
  cache: CacheStatus | undefined = undefined
  cacheKey: string | undefined = undefined
  attempts = 0
  lateResults = 0
  dependency: string | undefined = undefined
  refusedBy: object | undefined = undefined
  refusedAs: Outcome | undefined = undefined
  /** @internal What the observe stage knows of a call under way: its span and its clocks. */
  observation: object | undefined = undefined
  // Out of sight of those who copy or print a record.
  #lateObserver: LateObserver | undefined = undefined

  /** Notes that a stage refuses the call with `error`, and returns that error. */
  refuse<E extends object>(outcome: Outcome, error: E): E {
    this.refusedBy = error
    this.refusedAs = outcome
    return error
  }

  /** @internal Says at the end of a call who is told of later answers. A record may be kept, so this must be little. */
  observeLate(observer: LateObserver): void {
    this.#lateObserver = observer
  }

  /** @internal Notes an answer that came after its timeout. What was told of a call that has ended stays as it is. */
  late(): void {
    if (this.#lateObserver === undefined) this.lateResults += 1
    else this.#lateObserver.late()
  }

  /**
   * Sets `outcome` and `errorType` from how the call ended.
   *
   * A refusal counts as one only when it is this call's own: a handler that fails with the refusal of a tool it
   * called itself has `failed`.
   */
  settle(exit: Exit.Exit<unknown, unknown>): Outcome {
    if (exit._tag === "Success") {
      this.errorType = undefined
      return this.outcome = this.cache === undefined || this.cache === "miss" || this.cache === "bypass"
        ? "ok"
        : this.cache === "hit"
        ? "cached"
        : this.cache
    }
    for (const reason of exit.cause.reasons) {
      if (Cause.isFailReason(reason)) {
        this.errorType = errorType(reason.error)
        return this.outcome = this.refusedAs !== undefined && reason.error === this.refusedBy
          ? this.refusedAs
          : "failed"
      }
    }
    if (exit.cause.reasons.some(Cause.isDieReason)) {
      this.errorType = "defect"
      return this.outcome = "defect"
    }
    this.errorType = "interrupted"
    return this.outcome = "interrupted"
  }

  /**
   * Says whether the call ended because of its caller (not authenticated, not allowed), which says nothing about the
   * tool and nothing about the call of anybody else.
   */
  isCallersFault(cause: Cause.Cause<unknown>): boolean {
    if (this.refusedAs !== "unauthenticated" && this.refusedAs !== "denied") return false
    return cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error === this.refusedBy)
  }

  /** Without the caller and without what the caller sent. */
  toJSON(): unknown {
    return {
      _id: "effect-toolops/CallRecord",
      outcome: this.outcome,
      errorType: this.errorType,
      startedAt: this.startedAt,
      durationMillis: this.durationMillis,
      cache: this.cache,
      attempts: this.attempts,
      dependency: this.dependency
    }
  }

  toString(): string {
    return JSON.stringify(this.toJSON())
  }

  [Symbol.for("nodejs.util.inspect.custom")](): unknown {
    return this.toJSON()
  }
}

// Tags are written by programmers; other names may hold anything, so they are not passed on.
const errorType = (error: unknown): string => {
  if (typeof error !== "object" || error === null) return "error"
  const reason = "reason" in error ? tagOf(error.reason) : undefined
  return reason ?? tagOf(error) ?? "error"
}

const tagOf = (value: unknown): string | undefined =>
  typeof value === "object" && value !== null && "_tag" in value && typeof value._tag === "string"
    ? value._tag.slice(0, 128)
    : undefined
