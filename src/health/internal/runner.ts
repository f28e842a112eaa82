import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { boundedRun } from "../../internal/boundedRun.ts"
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

// Bounds for what a check may say, which is kept and sent.
const maxDetails = 50
const maxText = 500

/** What of the details can be told, as it is now: values of other kinds could not be written, or change later. */
const tellable = (details: unknown): CheckAnswer["details"] => {
  if (typeof details !== "object" || details === null) return undefined
  const told = Object.entries(details).slice(0, maxDetails).flatMap(([name, value]): Array<[string, Detail]> =>
    typeof value === "string"
      ? [[name.slice(0, maxText), value.slice(0, maxText)]]
      : typeof value === "boolean" || Number.isFinite(value)
      ? [[name.slice(0, maxText), value]]
      : []
  )
  return Object.fromEntries(told)
}

type Detail = string | number | boolean

const verdict = (exit: Exit.Exit<CheckAnswer | boolean | void, unknown>): Verdict => {
  if (exit._tag === "Failure") return Cause.hasFails(exit.cause) ? failed : crashed
  const answer: unknown = exit.value
  if (answer === undefined || answer === true) return passed
  if (typeof answer !== "object" || answer === null) return failed
  try {
    const { details, status } = answer as CheckAnswer
    // An answer of a shape that was not promised is no proof of health.
    return statuses.includes(status) ? { status, reason: undefined, details: tellable(details) } : failed
  } catch {
    return crashed
  }
}

/** Runs one check: at most one run at a time, its answer kept for the interval. */
export class Runner {
  readonly check: HealthCheck
  #report: CheckReport | undefined = undefined
  #reportedAt = 0
  #startedAt = 0
  // The answer that callers wait for, and whether the run is still under way; a run may outlive its answer.
  #pending: Deferred.Deferred<CheckReport | undefined> | undefined = undefined
  #isRunning = false
  #streak = 0
  #stop = (): void => {}
  #isGone = false

  constructor(check: HealthCheck) {
    this.check = check
  }

  /** The last report, if it is young enough. */
  kept(now: number): CheckReport | undefined {
    const { background, intervalMillis, timeoutMillis } = this.check
    // Of a check that runs by itself the next answer comes when the run under way is over.
    const keptMillis = background ? intervalMillis + timeoutMillis : intervalMillis
    return this.#report !== undefined && now - this.#reportedAt < keptMillis ? this.#report : undefined
  }

  /** Whether the check has gone away, so that what was known of it says nothing any more. */
  get isGone(): boolean {
    return this.#isGone
  }

  /** The last report, however old. */
  get last(): CheckReport | undefined {
    return this.#report
  }

  /**
   * The kept report if it is young enough, the report of the run under way, or of a new one. Undefined when the check goes
   * away meanwhile: what it looks at is being closed, so there is nothing to be said of it.
   */
  readonly report: Effect.Effect<CheckReport | undefined> = Effect.withFiber((fiber) => {
    if (this.#isGone) return Effect.undefined
    const kept = this.kept(monotonicMillis(fiber))
    return kept !== undefined ? Effect.succeed(kept) : this.run(fiber)
  })

  /** The report of the run under way, or of a new one. */
  readonly fresh: Effect.Effect<CheckReport | undefined> = Effect.withFiber((fiber) => this.run(fiber))

  // In one step with the look at what is kept, see `start`.
  run(asking: Fiber.Fiber<unknown, unknown>): Effect.Effect<CheckReport | undefined> {
    if (this.#isGone) return Effect.undefined
    if (this.#pending !== undefined) return Deferred.await(this.#pending)
    if (this.#isRunning && this.#report !== undefined) return Effect.succeed(this.stillStuck(asking, this.#report))
    return this.start(asking)
  }

  // A run that has been given up on and still goes on. It counts as one more timeout as often as runs could have timed out:
  // else `failAfter` would not be reached while no other run can start.
  stillStuck(asking: Fiber.Fiber<unknown, unknown>, before: CheckReport): CheckReport {
    const now = monotonicMillis(asking)
    const { critical, intervalMillis, name, timeoutMillis } = this.check
    if (now - this.#reportedAt < Math.max(intervalMillis, timeoutMillis)) return before
    const checkedAt = asking.getRef(Clock.Clock).currentTimeMillisUnsafe()
    this.#reportedAt = now
    return this.#report = this.flap({ name, critical, durationMillis: now - this.#startedAt, checkedAt, ...timedOut })
  }

  // In one step with the decision to start: a fiber may yield between two, and another decide the same.
  start(asking: Fiber.Fiber<unknown, unknown>): Effect.Effect<CheckReport | undefined> {
    const pending = Deferred.makeUnsafe<CheckReport | undefined>()
    const clock = asking.getRef(Clock.Clock)
    const checkedAt = clock.currentTimeMillisUnsafe()
    this.#startedAt = monotonicMillis(asking)
    this.#pending = pending
    this.#isRunning = true
    // In a fiber that is not the probe's: one who goes away must not take the run from the others.
    this.#stop = boundedRun(asking.context, Effect.suspend(() => this.check.check), this.check.timeoutMillis, {
      settle: (exit, isLate) => {
        this.#pending = undefined
        if (exit === undefined && !isLate) return void Deferred.doneUnsafe(pending, Effect.undefined)
        const result = exit === undefined ? timedOut : verdict(exit)
        const { critical, name } = this.check
        // Before those who wait are woken: one of them may ask again at once.
        if (exit !== undefined) this.#isRunning = false
        this.#reportedAt = Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
        const durationMillis = this.#reportedAt - this.#startedAt
        this.#report = this.flap({ name, critical, durationMillis, checkedAt, ...result })
        Deferred.doneUnsafe(pending, Effect.succeed(this.#report))
      },
      end: () => {
        this.#isRunning = false
      }
    })
    // Gone in its own first step, when there was nothing yet to stop it with.
    if (this.#isGone && this.#isRunning) this.#stop()
    return Deferred.await(pending)
  }

  /** Ends the run under way without waiting for it, which might never end. From now on there is no other. */
  stop(): void {
    this.#isGone = true
    if (this.#isRunning) this.#stop()
  }

  /**
   * The status changes only after enough runs in a row that say so; the first run says what is. Time and details are those of
   * the latest run all the same.
   */
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
    return { ...fresh, status: before.status, reason: before.reason }
  }
}
