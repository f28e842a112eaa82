/**
 * Knows the health checks of the program and answers how it is.
 *
 * A component registers its check in its own scope, so the check disappears with it. Checks run in parallel when
 * somebody asks, each within its own time and at most once per interval, so probes cost nothing however many come.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { CallRecord } from "../CallRecord.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import type { ResilienceError } from "../resilience/ResilienceError.ts"
import * as HealthCheck from "./HealthCheck.ts"
import { CheckNotFound, DuplicateCheck, HealthError, NoCheckers } from "./HealthError.ts"
import { CallGate } from "./internal/callGate.ts"
import { type CheckReport, Runner } from "./internal/runner.ts"

export type {
  /**
   * What is known of a check. Of its latest run: `durationMillis`, `details`, and `checkedAt`, the wall-clock time in
   * milliseconds at which that began. `status` and `reason` too, unless `failAfter` or `passAfter` want more such runs first.
   *
   * @category models
   * @since 0.1.0
   */
  CheckReport
}

/**
 * What a group of checks came to: `unhealthy` when a critical check is, else `degraded` when anything is not healthy.
 * While the program drains it is `unhealthy`, whatever the checks say.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly status: HealthCheck.HealthStatus
  readonly isDraining: boolean
  readonly checks: ReadonlyArray<CheckReport>
}

/**
 * What `report` takes besides the group.
 *
 * - `allowNoChecks`: whether a group without a check of the program's own is fine. Default false.
 *
 * @category options
 * @since 0.1.0
 */
export interface ReportOptions {
  readonly allowNoChecks?: boolean | undefined
}

/**
 * The health checks of the program.
 *
 * - `register`: adds a check until the scope closes. One that goes away while it is asked is left out of the answer.
 * - `report`: asks all checks of a group. Fails with `NoCheckers` when the program has registered none in it, unless that is
 *   allowed; but not of `readiness` while the program drains, which is unhealthy then in any case. The checks that parts of this
 *   library register of themselves, whose names begin with `toolops.`, are part of the report, but they are no reason to
 *   believe that a program is ready: none of them can ever make it unhealthy.
 * - `reportAll`: asks all checks.
 * - `check`: asks one check.
 * - `drain`: from now on the program is unhealthy to its readiness probe, so that no new traffic comes. For good. No check is
 *   run for the group `readiness` any more, nor in the background one that is in no other; its report tells what was known
 *   before. A check is still run for `reportAll`, for `check` and for its other groups.
 * - `isDraining`: whether that has happened.
 * - `admit`: runs a call, which counts as in flight until it has ended. Once `quiesce` has been called it is refused with
 *   `Draining`, unless it is part of a call that is in flight. `ToolPipeline.layer` and `DrainMiddleware` run every call
 *   through it.
 * - `inFlight`: how many calls are. `takesCalls`: whether new ones are still let in.
 * - `quiesce`: drains, refuses new calls, waits up to `grace` for those in flight and interrupts the rest, for whose
 *   finalizers it waits up to one more second. Answers how many it has interrupted.
 *
 * @category services
 * @since 0.1.0
 */
export class HealthRegistry extends Context.Service<HealthRegistry, {
  readonly register: <R>(
    check: HealthCheck.HealthCheck<R>
  ) => Effect.Effect<void, HealthError, R | Scope.Scope>
  readonly report: (group: string, options?: ReportOptions) => Effect.Effect<Report, HealthError>
  readonly reportAll: Effect.Effect<Report>
  readonly check: (name: string) => Effect.Effect<CheckReport, HealthError>
  readonly drain: Effect.Effect<void>
  readonly isDraining: Effect.Effect<boolean>
  readonly admit: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record?: CallRecord
  ) => Effect.Effect<A, E | ResilienceError, R>
  readonly inFlight: Effect.Effect<number>
  readonly takesCalls: Effect.Effect<boolean>
  readonly quiesce: (grace: Duration.Input) => Effect.Effect<number>
}>()("effect-toolops/health/HealthRegistry") {}

const present = (reports: ReadonlyArray<CheckReport | undefined>): ReadonlyArray<CheckReport> =>
  reports.filter((report) => report !== undefined)

const isDegrading = (report: CheckReport): boolean => report.status !== "healthy"
const isOwn = ({ name }: { readonly name: string }): boolean => !HealthCheck.isReserved(name)
const isFatal = (report: CheckReport): boolean => report.status === "unhealthy" && report.critical

/**
 * Makes a registry without checks.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<HealthRegistry["Service"]> = Effect.sync(() => {
  const runners = new Map<string, Runner>()
  const gate = new CallGate()
  let isDraining = false

  const aggregate = (checks: ReadonlyArray<CheckReport>): Report => ({
    status: isDraining || checks.some(isFatal) ? "unhealthy" : checks.some(isDegrading) ? "degraded" : "healthy",
    isDraining,
    checks
  })

  const ask = (asked: ReadonlyArray<Runner>): Effect.Effect<ReadonlyArray<CheckReport>> =>
    Effect.withFiber((fiber) => {
      const now = monotonicMillis(fiber)
      const kept = present(asked.map((runner) => runner.kept(now)))
      return kept.length === asked.length
        ? Effect.succeed(kept)
        : Effect.map(
          Effect.forEach(asked, (runner) => runner.report, { concurrency: "unbounded" }),
          // One that has answered may have gone away while the others were asked.
          (reports) => present(reports.filter((_, nth) => !asked[nth]!.isGone))
        )
    })

  const report = (group: string, options?: ReportOptions): Effect.Effect<Report, HealthError> =>
    Effect.suspend(() => {
      const asked = [...runners.values()].filter((runner) => runner.check.groups.includes(group))
      if (isDraining && group === "readiness") return Effect.succeed(aggregate(present(asked.map(({ last }) => last))))
      const isEnough = (found: ReadonlyArray<{ readonly name: string }>): boolean =>
        options?.allowNoChecks === true || found.some(isOwn)
      const none = Effect.fail(new HealthError({ reason: new NoCheckers({ group }) }))
      if (!isEnough(asked.map(({ check }) => check))) return none
      // Looked at once more, as checks may have gone away.
      return Effect.flatMap(ask(asked), (checks) => isEnough(checks) ? Effect.succeed(aggregate(checks)) : none)
    })

  const register = <R>(check: HealthCheck.HealthCheck<R>) =>
    Effect.gen(function*() {
      const context = yield* Effect.context<R | Scope.Scope>()
      if (runners.has(check.name)) {
        return yield* new HealthError({ reason: new DuplicateCheck({ name: check.name }) })
      }
      const parent = Context.get(context, Scope.Scope)
      // A scope of its own, so that the check stops before what it looks at is closed.
      const scope = yield* Scope.fork(parent)
      const runner = new Runner({ ...check, check: Effect.provideContext(check.check, context) })
      runners.set(check.name, runner)
      yield* Scope.addFinalizer(
        scope,
        Effect.sync(() => {
          runners.delete(check.name)
          runner.stop()
        })
      )
      if (check.background) {
        const isForReadiness = check.groups.length > 0 && check.groups.every((group) => group === "readiness")
        const run = Effect.suspend(() => isDraining && isForReadiness ? Effect.void : runner.fresh)
        yield* Effect.forkIn(Effect.forever(Effect.andThen(run, Effect.sleep(check.intervalMillis))), scope)
      }
    })

  return HealthRegistry.of({
    register: (check) => Effect.uninterruptible(register(check)),
    report,
    reportAll: Effect.map(Effect.suspend(() => ask([...runners.values()])), aggregate),
    check: (name) =>
      Effect.flatMap(
        Effect.suspend(() => runners.get(name)?.report ?? Effect.undefined),
        (report) =>
          report === undefined
            ? Effect.fail(new HealthError({ reason: new CheckNotFound({ name }) }))
            : Effect.succeed(report)
      ),
    drain: Effect.sync(() => {
      isDraining = true
    }),
    isDraining: Effect.sync(() => isDraining),
    admit: (effect, record) => gate.admit(effect, record),
    inFlight: Effect.sync(() => gate.inFlight),
    takesCalls: Effect.sync(() => !gate.isClosed),
    quiesce: (grace) => {
      const millis = Check.millis("HealthRegistry.quiesce", "grace", grace, { allowZero: true })
      return Effect.suspend(() => {
        isDraining = true
        return gate.quiesce(millis)
      })
    }
  })
})

/**
 * Provides a registry without checks.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<HealthRegistry> = Layer.effect(HealthRegistry, make)

/**
 * Registers one check for as long as the layer lives.
 *
 * **Example** (Registering a check)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { HealthCheck, HealthRegistry } from "effect-toolops/health"
 *
 * const Disk = HealthRegistry.layerCheck(HealthCheck.make({ name: "disk", check: Effect.succeed(true) }))
 * const Health = Layer.provideMerge(Disk, HealthRegistry.layer)
 *
 * const program = Effect.gen(function*() {
 *   const registry = yield* HealthRegistry.HealthRegistry
 *   return (yield* registry.report("readiness")).status
 * })
 * await Effect.runPromise(Effect.provide(program, Health)) // => "healthy"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerCheck = <R>(
  check: HealthCheck.HealthCheck<R>
): Layer.Layer<never, HealthError, HealthRegistry | Exclude<R, Scope.Scope>> =>
  Layer.effectDiscard(Effect.flatMap(HealthRegistry, (registry) => registry.register(check)))
