import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scheduler, Scope } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { HealthCheck, HealthRegistry } from "effect-toolops/health"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { readFile } from "node:fs/promises"

const withRegistry = <A, E>(
  f: (registry: HealthRegistry.HealthRegistry["Service"]) => Effect.Effect<A, E, Scope.Scope>
): Effect.Effect<A, E> => Effect.scoped(Effect.flatMap(HealthRegistry.make, f))

const healthy = (name: string, options?: Partial<HealthCheck.Options>) =>
  HealthCheck.make({ name, check: Effect.void, ...options })

/** A check that counts how often it runs and answers what it is told. */
const counting = (options?: Partial<HealthCheck.Options>) => {
  const state = { runs: 0, answer: Effect.succeed<HealthCheck.CheckAnswer | boolean | void>(true) }
  const check = HealthCheck.make({
    name: "counting",
    check: Effect.suspend(() => {
      state.runs += 1
      return state.answer
    }),
    ...options
  })
  return { check, state }
}

describe("HealthRegistry", () => {
  it.effect("is healthy when all are, degraded when a minor one is not, unhealthy when a critical one is not", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        yield* registry.register(healthy("a"))
        assert.strictEqual((yield* registry.report("readiness")).status, "healthy")
        yield* registry.register(healthy("b", { check: Effect.succeed(false), critical: false }))
        assert.strictEqual((yield* registry.report("readiness")).status, "degraded")
        yield* registry.register(healthy("c", { check: Effect.succeed({ status: "degraded" }) }))
        assert.strictEqual((yield* registry.report("readiness")).status, "degraded")
        yield* registry.register(healthy("d", { check: Effect.fail("no") }))
        const report = yield* registry.report("readiness")
        assert.strictEqual(report.status, "unhealthy")
        assert.deepStrictEqual(report.checks.map((check) => [check.name, check.status, check.reason]), [
          ["a", "healthy", undefined],
          ["b", "unhealthy", "failed"],
          ["c", "degraded", undefined],
          ["d", "unhealthy", "failed"]
        ])
      })
    ))

  it.effect("says crashed of a check that dies or throws, and keeps the message to itself", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        yield* registry.register(healthy("dies", { check: Effect.die(new Error("canary")) }))
        yield* registry.register(healthy("throws", {
          check: Effect.sync(() => {
            throw new Error("canary")
          })
        }))
        yield* registry.register(healthy("interrupts", { check: Effect.interrupt }))
        yield* registry.register(healthy("lies", { check: Effect.succeed({ status: "fine" } as never) }))
        const { checks } = yield* registry.reportAll
        assert.deepStrictEqual(checks.map((check) => check.reason), ["crashed", "crashed", "crashed", "failed"])
        assert.notInclude(JSON.stringify(checks), "canary")
      })
    ))

  it.effect("gives up on a check after its timeout, one that ignores interruption too, and runs it once at a time", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        let running = 0
        let most = 0
        const release = yield* Deferred.make<void>()
        yield* registry.register(healthy("stuck", {
          timeout: "200 millis",
          interval: 0,
          check: Effect.uninterruptible(Effect.suspend(() => {
            most = Math.max(most, ++running)
            return Effect.ensuring(Deferred.await(release), Effect.sync(() => void running--))
          }))
        }))
        const asking = yield* Effect.forkChild(registry.check("stuck"))
        yield* TestClock.adjust("200 millis")
        const report = yield* Fiber.join(asking)
        assert.deepStrictEqual([report.status, report.reason, report.durationMillis], ["unhealthy", "timeout", 200])
        // Still stuck: the answer is there at once and no second run is started.
        assert.strictEqual((yield* registry.check("stuck")).reason, "timeout")
        assert.strictEqual(most, 1)
        yield* Deferred.succeed(release, undefined)
        yield* Effect.yieldNow
        yield* Effect.yieldNow
        assert.strictEqual((yield* registry.check("stuck")).status, "healthy")
        assert.strictEqual(most, 1)
      })
    ))

  it.effect("counts a run that is still stuck as one more timeout per interval, however high failAfter", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ failAfter: 3, interval: "1 second", timeout: "200 millis" })
        yield* registry.register(check)
        assert.strictEqual((yield* registry.check("counting")).status, "healthy")
        const release = yield* Deferred.make<boolean>()
        state.answer = Effect.uninterruptible(Deferred.await(release))
        yield* TestClock.adjust("1 second")
        const asking = yield* Effect.forkChild(registry.check("counting"))
        yield* TestClock.adjust("200 millis")
        assert.strictEqual((yield* Fiber.join(asking)).status, "healthy")
        // Asking more often counts no more.
        yield* TestClock.adjust("999 millis")
        for (let i = 0; i < 5; i++) assert.strictEqual((yield* registry.check("counting")).status, "healthy")
        yield* TestClock.adjust("1 millis")
        for (let i = 0; i < 5; i++) assert.strictEqual((yield* registry.check("counting")).status, "healthy")
        yield* TestClock.adjust("1 second")
        const down = yield* registry.check("counting")
        assert.deepStrictEqual([down.status, down.reason, down.durationMillis], ["unhealthy", "timeout", 2200])
        assert.strictEqual(state.runs, 2)
        state.answer = Effect.succeed(true)
        yield* Deferred.succeed(release, true)
        yield* Effect.yieldNow
        yield* Effect.yieldNow
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* registry.check("counting")).status, "healthy")
      })
    ))

  it.effect("counts a run that is stuck no faster than runs could time out, where no answer is kept", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ failAfter: 2, interval: 0, timeout: "200 millis" })
        yield* registry.register(check)
        yield* registry.check("counting")
        state.answer = Effect.uninterruptible(Effect.never)
        const asking = yield* Effect.forkChild(registry.check("counting"))
        yield* TestClock.adjust("200 millis")
        yield* Fiber.join(asking)
        for (let i = 0; i < 5; i++) assert.strictEqual((yield* registry.check("counting")).status, "healthy")
        yield* TestClock.adjust("200 millis")
        assert.strictEqual((yield* registry.check("counting")).status, "unhealthy")
      })
    ))

  it.live("does not take a blocked event loop for a slow check, and still gives up on a slow one", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const settings = { timeout: "200 millis", interval: 0 } as const
        yield* registry.register(healthy("io", {
          ...settings,
          check: Effect.asVoid(Effect.promise(() => readFile(import.meta.filename)))
        }))
        yield* registry.register(healthy("hangs", { ...settings, check: Effect.never }))
        const asking = yield* Effect.forkChild(registry.reportAll, { startImmediately: true })
        const end = performance.now() + 400
        while (performance.now() < end);
        const { checks } = yield* Fiber.join(asking)
        assert.deepStrictEqual(checks.map(({ name, reason, status }) => [name, status, reason]), [
          ["io", "healthy", undefined],
          ["hangs", "unhealthy", "timeout"]
        ])
      })
    ))

  it.effect("does not let one slow check spoil the others", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        yield* registry.register(healthy("hangs", { check: Effect.never }))
        yield* registry.register(healthy("slow", { check: Effect.sleep("900 millis") }))
        const asking = yield* Effect.forkChild(registry.reportAll)
        yield* TestClock.adjust("1 second")
        const { checks } = yield* Fiber.join(asking)
        assert.deepStrictEqual(checks.map((check) => [check.name, check.reason, check.durationMillis]), [
          ["hangs", "timeout", 1000],
          ["slow", undefined, 900]
        ])
      })
    ))

  it.effect("runs a check anew for one who asks again the moment that the answer is there", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ interval: 0 })
        state.answer = Effect.as(Effect.sleep("1 second"), true)
        yield* registry.register(check)
        const twice = yield* Effect.forkChild(
          Effect.andThen(registry.check("counting"), () => {
            state.answer = Effect.succeed(false)
            return registry.check("counting")
          })
        )
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([(yield* Fiber.join(twice)).status, state.runs], ["unhealthy", 2])
      })
    ))

  it.effect("runs a check once per interval however many ask", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ interval: "10 seconds" })
        yield* registry.register(check)
        for (let i = 0; i < 100; i++) {
          yield* Effect.forEach(Array.from({ length: 10 }), () => registry.report("readiness"), {
            concurrency: "unbounded"
          })
        }
        assert.strictEqual(state.runs, 1)
        yield* TestClock.adjust("9999 millis")
        yield* registry.reportAll
        assert.strictEqual(state.runs, 1)
        yield* TestClock.adjust("1 millis")
        yield* registry.reportAll
        assert.strictEqual(state.runs, 2)
      })
    ))

  it.effect("starts one run for all who ask together, however often fibers yield", () =>
    Effect.gen(function*() {
      for (let ops = 3; ops <= 16; ops++) {
        // All come after so many operations, so that all yield at the same place.
        for (let before = 0; before <= 16; before++) {
          yield* withRegistry((registry) =>
            Effect.gen(function*() {
              const { check, state } = counting()
              state.answer = Effect.as(Effect.yieldNow, true)
              yield* registry.register(check)
              let asking: Effect.Effect<unknown, unknown> = registry.check("counting")
              for (let i = 0; i < before; i++) asking = Effect.andThen(Effect.void, asking)
              yield* Effect.forEach(Array.from({ length: 10 }), () => asking, { concurrency: "unbounded" })
              assert.strictEqual(state.runs, 1)
            })
          ).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, ops))
        }
      }
    }))

  it.effect("lets the run go on for the others when one who asked goes away", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting()
        state.answer = Effect.as(Effect.sleep("500 millis"), true)
        yield* registry.register(check)
        const first = yield* Effect.forkChild(registry.check("counting"), { startImmediately: true })
        const second = yield* Effect.forkChild(registry.check("counting"), { startImmediately: true })
        yield* Effect.yieldNow
        yield* Fiber.interrupt(first)
        yield* TestClock.adjust("500 millis")
        assert.strictEqual((yield* Fiber.join(second)).status, "healthy")
        assert.strictEqual(state.runs, 1)
      })
    ))

  it.effect("changes its mind only after enough runs in a row", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ failAfter: 3, passAfter: 2, interval: 0 })
        yield* registry.register(check)
        const seen: Array<string> = []
        for (const answer of [true, false, true, false, false, false, true, false, true, true]) {
          state.answer = Effect.succeed(answer)
          seen.push((yield* registry.check("counting")).status)
        }
        assert.deepStrictEqual(seen, [
          "healthy",
          "healthy",
          "healthy",
          "healthy",
          "healthy",
          "unhealthy",
          "unhealthy",
          "unhealthy",
          "unhealthy",
          "healthy"
        ])
      })
    ))

  it.effect("tells what the latest run found, also while it does not count yet", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ failAfter: 2, passAfter: 2, interval: 0 })
        yield* registry.register(check)
        const seen: Array<unknown> = []
        const found: Array<HealthCheck.CheckAnswer | false> = [
          { status: "healthy", details: { load: 1 } },
          { status: "unhealthy", details: { load: 9 } },
          false,
          { status: "degraded", details: { load: 5 } },
          { status: "healthy", details: { load: 2 } }
        ]
        for (const answer of found) {
          state.answer = Effect.succeed(answer)
          yield* TestClock.adjust("1 second")
          const { checkedAt, details, reason, status } = yield* registry.check("counting")
          seen.push([checkedAt, status, reason, details])
        }
        assert.deepStrictEqual(seen, [
          [1000, "healthy", undefined, { load: 1 }],
          [2000, "healthy", undefined, { load: 9 }],
          [3000, "unhealthy", "failed", undefined],
          [4000, "unhealthy", "failed", { load: 5 }],
          [5000, "healthy", undefined, { load: 2 }]
        ])
      })
    ))

  it.effect("says what is at the first run, however high the thresholds", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        yield* registry.register(healthy("a", { check: Effect.fail(1), failAfter: 10 }))
        assert.strictEqual((yield* registry.check("a")).status, "unhealthy")
      })
    ))

  it.effect("runs a background check by itself, so that probes find an answer", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ background: true, interval: "10 seconds" })
        yield* registry.register(check)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(state.runs, 7)
        yield* registry.reportAll
        assert.strictEqual(state.runs, 7)
      })
    ))

  it.effect("lets no probe wait for a background run when there is an answer of the one before", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ background: true, interval: "500 millis", timeout: "400 millis" })
        state.answer = Effect.as(Effect.sleep("300 millis"), true)
        yield* registry.register(check)
        yield* TestClock.adjust("300 millis")
        state.answer = Effect.never
        for (let i = 0; i < 89; i++) {
          yield* TestClock.adjust("10 millis")
          const asking = yield* Effect.forkChild(registry.check("counting"), { startImmediately: true })
          const exit = asking.pollUnsafe()
          assert.isTrue(exit !== undefined && Exit.isSuccess(exit) && exit.value.status === "healthy", `at ${i}`)
        }
        yield* TestClock.adjust("10 millis")
        assert.strictEqual((yield* registry.check("counting")).reason, "timeout")
        assert.strictEqual(state.runs, 2)
      })
    ))

  it.effect("forgets a check with its scope, and answers those who still wait for it", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        yield* Scope.provide(registry.register(healthy("gone", { check: Effect.never })), scope)
        const asking = yield* Effect.forkChild(registry.check("gone"), { startImmediately: true })
        yield* Effect.yieldNow
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Effect.flip(Fiber.join(asking))).reason._tag, "CheckNotFound")
        const error = yield* Effect.flip(registry.check("gone"))
        assert.strictEqual(error.reason._tag, "CheckNotFound")
        yield* registry.register(healthy("gone"))
      })
    ))

  it.effect("leaves a check out of a report that went away while it was asked", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        yield* Scope.provide(registry.register(healthy("gone", { check: Effect.never })), scope)
        const alone = yield* Effect.forkChild(registry.report("readiness"), { startImmediately: true })
        yield* registry.register(healthy("stays"))
        const reports = yield* Effect.forkChild(
          Effect.all([registry.report("readiness"), registry.reportAll], { concurrency: "unbounded" }),
          { startImmediately: true }
        )
        yield* Effect.yieldNow
        yield* Scope.close(scope, Exit.void)
        for (const report of yield* Fiber.join(reports)) {
          assert.deepStrictEqual([report.status, report.checks.map(({ name }) => name)], ["healthy", ["stays"]])
        }
        // As if it had been asked a moment later.
        assert.strictEqual((yield* Effect.flip(Fiber.join(alone))).reason._tag, "NoCheckers")
      })
    ))

  it.effect("leaves a check out of a report that went away while others were asked, though its answer was kept", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        // Before the others have answered, and before its own turn to be asked.
        for (const isLater of [true, false]) {
          const scope = yield* Scope.make()
          const others = yield* Scope.make()
          const close = Scope.close(scope, Exit.void)
          const slow = Effect.sleep("500 millis")
          const other = {
            name: "toolops.slow",
            check: isLater ? Effect.andThen(slow, close) : Effect.andThen(close, slow)
          }
          yield* Scope.provide(registry.register({ ...healthy("slow", { interval: 0 }), ...other }), others)
          yield* Scope.provide(registry.register(healthy("gone", { interval: "1 hour", check: Effect.fail(1) })), scope)
          yield* registry.check("gone")
          const asking = yield* Effect.forkChild(
            Effect.all([Effect.exit(registry.report("readiness")), registry.reportAll], { concurrency: "unbounded" }),
            { startImmediately: true }
          )
          yield* TestClock.adjust("500 millis")
          const [readiness, all] = yield* Fiber.join(asking)
          assert.deepStrictEqual([all.status, all.checks.map(({ name }) => name)], ["healthy", ["toolops.slow"]])
          // What is left is none of the program's own.
          assert.isTrue(Exit.isFailure(readiness))
          yield* Scope.close(others, Exit.void)
        }
      })
    ))

  it.effect("stops a check that closes its own scope", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        let isStopped = false
        const waiting = Effect.onInterrupt(Effect.never, () => Effect.sync(() => void (isStopped = true)))
        const check = Effect.andThen(Scope.close(scope, Exit.void), waiting)
        yield* Scope.provide(registry.register(healthy("self", { check })), scope)
        const asking = yield* Effect.forkChild(registry.check("self"), { startImmediately: true })
        yield* Effect.repeat(Effect.yieldNow, { times: 10 })
        assert.isTrue(isStopped)
        assert.strictEqual((yield* Effect.flip(Fiber.join(asking))).reason._tag, "CheckNotFound")
      })
    ))

  it.effect("starts no run of a check that has gone, also when that was asked already", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { check, state } = counting()
        yield* registry.register(healthy("first", { check: Scope.close(scope, Exit.void) }))
        yield* Scope.provide(registry.register(check), scope)
        const { checks } = yield* registry.reportAll
        assert.deepStrictEqual([checks.map(({ name }) => name), state.runs], [["first"], 0])
      })
    ))

  it.effect("does not wait for a check that never ends when its scope closes", () =>
    Effect.gen(function*() {
      const asking = yield* withRegistry((registry) =>
        Effect.gen(function*() {
          yield* registry.register(healthy("stuck", { check: Effect.uninterruptible(Effect.never) }))
          return yield* Effect.forkDetach(registry.check("stuck"), { startImmediately: true })
        })
      )
      assert.strictEqual((yield* Effect.flip(Fiber.join(asking))).reason._tag, "CheckNotFound")
    }))

  it.effect("refuses a second check of the same name, and an empty group", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        yield* registry.register(healthy("a", { groups: ["startup"] }))
        assert.strictEqual((yield* Effect.flip(registry.register(healthy("a")))).reason._tag, "DuplicateCheck")
        assert.strictEqual((yield* Effect.flip(registry.report("readiness"))).reason._tag, "NoCheckers")
      })
    ))

  it.effect("is unhealthy from the moment it drains", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        yield* registry.register(healthy("a"))
        yield* registry.report("readiness")
        yield* registry.drain
        const report = yield* registry.report("readiness")
        assert.deepStrictEqual([report.status, report.isDraining], ["unhealthy", true])
      })
    ))

  it.effect("runs nothing for readiness while it drains, and tells what it knew before", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const { check, state } = counting({ interval: 0, groups: ["readiness", "own"] })
        yield* registry.register(check)
        yield* registry.register(healthy("never-asked"))
        yield* registry.check("counting")
        yield* registry.drain
        const { checks, status } = yield* registry.report("readiness")
        assert.deepStrictEqual([status, checks.map(({ name, status }) => [name, status])], [
          "unhealthy",
          [["counting", "healthy"]]
        ])
        assert.strictEqual(state.runs, 1)
        // Other groups are nobody's readiness.
        assert.strictEqual((yield* registry.report("own")).isDraining, true)
        assert.strictEqual(state.runs, 2)
      })
    ))

  it.effect("runs nothing for readiness in the background either while it drains", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const options = { background: true, interval: "1 second" } as const
        const groups = [["readiness"], ["readiness", "own"], ["own"], []]
        const all = groups.map((groups, nth) => {
          const { check, state } = counting({ ...options, groups })
          return { check: { ...check, name: `c${nth}` }, state }
        })
        for (const { check } of all) yield* registry.register(check)
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(all.map(({ state }) => state.runs), [3, 3, 3, 3])
        yield* registry.drain
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(all.map(({ state }) => state.runs), [3, 13, 13, 13])
      })
    ))

  it.effect("takes no check of the library for one of the program's, unless that is allowed", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.HealthRegistry
      const ask = registry.report("readiness")
      assert.strictEqual((yield* Effect.flip(ask)).reason._tag, "NoCheckers")
      const pipeline = yield* ToolPipeline.make(ResilienceMiddleware.ResilienceMiddleware)
      yield* Effect.ignore(pipeline.run({ tool: ToolMeta.make({ name: "down" }) }, Effect.fail("no")))
      const allowed = yield* registry.report("readiness", { allowNoChecks: true })
      assert.strictEqual(allowed.status, "degraded")
      assert.deepStrictEqual((yield* registry.reportAll).checks.map(({ name }) => name), [
        "toolops.circuits",
        "toolops.bulkheads"
      ])
      yield* registry.register(healthy("own"))
      assert.strictEqual((yield* ask).status, "degraded")
    }).pipe(
      Effect.provide(
        ResilienceMiddleware.layer({ defaults: { circuitBreaker: { maxFailures: 1 } } }).pipe(
          Layer.provideMerge(HealthRegistry.layer)
        )
      )
    ))

  it.effect("is healthy without a check where that is allowed", () =>
    withRegistry((registry) =>
      Effect.map(
        registry.report("readiness", { allowNoChecks: true }),
        (report) => assert.deepStrictEqual(report, { status: "healthy", isDraining: false, checks: [] })
      )
    ))

  it.effect("registers a check that needs services as a layer", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.HealthRegistry
      assert.strictEqual((yield* registry.report("readiness")).status, "healthy")
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          HealthRegistry.layerCheck(HealthCheck.make({ name: "needs", check: Effect.asVoid(Effect.scope) })),
          HealthRegistry.layer
        )
      )
    ))

  it("refuses options that make no sense", () => {
    const bad = (options: Partial<HealthCheck.Options>) => () => healthy("a", options)
    assert.throws(bad({ timeout: 0 }), "HealthCheck.make: timeout must be a duration > 0 and finite, got 0 ms")
    assert.throws(bad({ failAfter: 0 }), "HealthCheck.make: failAfter must be an integer >= 1, got 0")
    assert.throws(bad({ background: true, interval: 0 }), "needs an interval")
    assert.throws(bad({ name: "a b" }), "name")
    assert.throws(bad({ name: "toolops.cache" }), "name must not begin with toolops.")
    assert.throws(bad({ tiemout: 1 } as never), "unknown option \"tiemout\"")
  })
})
