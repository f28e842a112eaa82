import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { monotonicMillis } from "../../internal/monotonic.ts"
import type { CheckAnswer, CheckFailure, HealthCheck, HealthStatus } from "../HealthCheck.ts"

/** What one run of a check came to. */
export interface CheckReport {
  readonly name: string
  readonly status: HealthStatus
  readonly critical: boolean
  readonly reason: CheckFailure | undefined
  readonly details: CheckAnswer["details"]
  readonly durationMillis: number
  readonly checkedAt: number
}

interface Verdict {
  readonly status: HealthStatus
  readonly reason: CheckFailure | undefined
  readonly details: CheckAnswer["details"]
}

const statuses: ReadonlyArray<unknown> = ["healthy", "degraded", "unhealthy"] satisfies Array<HealthStatus>
const failed: Verdict = { status: "unhealthy", reason: "failed", details: undefined }
const crashed: Verdict = { status: "unhealthy", reason: "crashed", details: undefined }
const timedOut: Verdict = { status: "unhealthy", reason: "timeout", details: undefined }
const passed: Verdict = { status: "healthy", reason: undefined, details: undefined }

const verdict = (exit: Exit.Exit<CheckAnswer | boolean | void, unknown>): Verdict => {
  if (exit._tag === "Failure") return Cause.hasFails(exit.cause) ? failed : crashed
  const answer: unknown = exit.value
  if (answer === undefined || answer === true) return passed
  if (typeof answer !== "object" || answer === null) return failed
  const { details, status } = answer as CheckAnswer
  // An answer of a shape that was not promised is no proof of health.
  return statuses.includes(status) ? { status, reason: undefined, details } : failed
}

/** Runs one check: at most one run at a time, its answer kept for the interval. Lives as long as `scope`. */
export class Runner {
  readonly check: HealthCheck
  readonly scope: Scope.Scope
  #report: CheckReport | undefined = undefined
  #reportedAt = 0
  // The answer that callers wait for, and whether the run is still under way; a run may outlive its answer.
  #pending: Deferred.Deferred<CheckReport> | undefined = undefined
  #isRunning = false
  #streak = 0

  constructor(check: HealthCheck, scope: Scope.Scope) {
    this.check = check
    this.scope = scope
  }

  /** The last report, if it is young enough. */
  kept(now: number): CheckReport | undefined {
    return this.#report !== undefined && now - this.#reportedAt < this.check.intervalMillis ? this.#report : undefined
  }

  /** The kept report if it is young enough, the report of the run under way, or of a new one. */
  readonly report: Effect.Effect<CheckReport> = Effect.withFiber((fiber) => {
    const kept = this.kept(monotonicMillis(fiber))
    if (kept !== undefined) return Effect.succeed(kept)
    if (this.#pending !== undefined) return Deferred.await(this.#pending)
    // A run that has been given up on and still goes on: what it was given up for still holds.
    if (this.#isRunning && this.#report !== undefined) return Effect.succeed(this.#report)
    return this.start()
  })

  start(): Effect.Effect<CheckReport> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((asking) => {
        const pending = Deferred.makeUnsafe<CheckReport>()
        const clock = asking.getRef(Clock.Clock)
        const checkedAt = clock.currentTimeMillisUnsafe()
        const started = monotonicMillis(asking)
        this.#pending = pending
        this.#isRunning = true
        const settle = (result: Verdict) => {
          if (this.#pending !== pending) return
          this.#pending = undefined
          this.#reportedAt = Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
          const durationMillis = this.#reportedAt - started
          const { critical, name } = this.check
          this.#report = this.flap({ name, critical, durationMillis, checkedAt, ...result })
          Deferred.doneUnsafe(pending, Effect.succeed(this.#report))
        }
        // In the scope of the check and not of the probe: a probe that goes away must not take the run from the others.
        return Effect.forkIn(Effect.suspend(() => this.check.check), this.scope).pipe(
          Effect.flatMap((run) => {
            let watching: Fiber.Fiber<void> | undefined
            // Also called when the scope closes before the run has begun.
            run.addObserver((exit) => {
              this.#isRunning = false
              settle(verdict(exit))
              watching?.interruptUnsafe()
            })
            const deadline = Effect.sync(() => {
              if (this.#pending !== pending) return
              settle(timedOut)
              // Not waited for: it may ignore its interruption.
              run.interruptUnsafe()
            })
            const watch = Effect.andThen(Effect.sleep(this.check.timeoutMillis), deadline)
            return Effect.map(Effect.forkIn(watch, this.scope), (fiber) => {
              watching = fiber
              fiber.addObserver(() => settle(crashed))
              if (this.#pending !== pending) fiber.interruptUnsafe()
            })
          }),
          Effect.andThen(restore(Deferred.await(pending)))
        )
      })
    )
  }

  /** The status changes only after enough runs in a row that say so; the first run says what is. */
  flap(fresh: CheckReport): CheckReport {
    const before = this.#report
    const isDown = fresh.status === "unhealthy"
    if (before === undefined || isDown === (before.status === "unhealthy")) {
      this.#streak = 0
      return fresh
    }
    this.#streak += 1
    if (this.#streak >= (isDown ? this.check.failAfter : this.check.passAfter)) {
      this.#streak = 0
      return fresh
    }
    return { ...fresh, status: before.status, reason: before.reason, details: before.details }
  }
}
