import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Scope } from "effect"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { MemoryCheck } from "effect-toolops/node"
import { CircuitBreaker } from "effect-toolops/resilience"
import { HttpRouter } from "effect/http"
import { TestClock } from "effect/testing"

// What the Go library got wrong about health, one test each.

const withRegistry = <A, E>(
  f: (registry: HealthRegistry.HealthRegistry["Service"]) => Effect.Effect<A, E, Scope.Scope>
): Effect.Effect<A, E> => Effect.scoped(Effect.flatMap(HealthRegistry.make, f))

describe("health regressions", () => {
  it.effect("a check that panics does not take the process with it", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        yield* registry.register(HealthCheck.make({ name: "panics", check: Effect.die(new Error("panic")) }))
        yield* registry.register(HealthCheck.make({ name: "fine", check: Effect.void }))
        const { checks } = yield* registry.reportAll
        assert.deepStrictEqual(checks.map((check) => check.status), ["unhealthy", "healthy"])
      })
    ))

  it.effect("checks run in parallel, each with its own deadline, and are told in the order of registration", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        for (const name of ["c", "a", "b"]) {
          yield* registry.register(HealthCheck.make({ name, check: Effect.sleep("30 millis"), timeout: "50 millis" }))
        }
        const asking = yield* Effect.forkChild(registry.reportAll)
        yield* TestClock.adjust("30 millis")
        const { checks, status } = yield* Fiber.join(asking)
        assert.deepStrictEqual([status, ...checks.map((check) => check.name)], ["healthy", "c", "a", "b"])
      })
    ))

  it.effect("readiness without any check is not 200, and details are not served to everybody", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        const routes = HealthRoutes.layer().pipe(
          Layer.provide(Layer.succeed(HealthRegistry.HealthRegistry, registry))
        )
        const { dispose, handler } = HttpRouter.toWebHandler(routes, { disableLogger: true })
        yield* Effect.addFinalizer(() => Effect.promise(dispose))
        const get = (path: string) => Effect.promise(() => handler(new Request(`http://localhost${path}`)))
        assert.strictEqual((yield* get("/readyz")).status, 503)
        yield* registry.register(HealthCheck.make({ name: "db", check: Effect.fail("dial tcp 10.0.0.1:5432") }))
        const response = yield* get("/health")
        assert.strictEqual(yield* Effect.promise(() => response.text()), "{\"status\":\"unhealthy\"}\n")
      })
    ))

  it.effect("probes do not run checks more often than once per interval", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        let runs = 0
        yield* registry.register(HealthCheck.make({ name: "dear", check: Effect.sync(() => void runs++) }))
        yield* Effect.forEach(Array.from({ length: 1000 }), () => registry.report("readiness"), {
          concurrency: "unbounded"
        })
        assert.strictEqual(runs, 1)
      })
    ))

  it.effect("readiness does not flap with one bad look at memory, or whatever has a threshold", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        assert.isAbove(MemoryCheck.make().failAfter, 1)
        let isFull = false
        yield* registry.register(HealthCheck.make({
          name: "memory",
          interval: 0,
          failAfter: MemoryCheck.make().failAfter,
          check: Effect.sync(() => !isFull)
        }))
        const seen: Array<string> = []
        for (const full of [false, true, false, true, true, true]) {
          isFull = full
          seen.push((yield* registry.report("readiness")).status)
        }
        assert.deepStrictEqual(seen, ["healthy", "healthy", "healthy", "healthy", "healthy", "unhealthy"])
      })
    ))

  it.effect("there are startup probes, groups, criticality, periodic checks, health+json and draining", () =>
    withRegistry((registry) =>
      Effect.gen(function*() {
        let runs = 0
        yield* registry.register(HealthCheck.make({
          name: "warm-up",
          groups: ["startup"],
          background: true,
          interval: "10 seconds",
          check: Effect.sync(() => runs++ > 0)
        }))
        yield* registry.register(HealthCheck.make({ name: "minor", check: Effect.succeed(false), critical: false }))
        const routes = HealthRoutes.layer({ details: () => Effect.succeed(true) }).pipe(
          Layer.provide(Layer.succeed(HealthRegistry.HealthRegistry, registry))
        )
        const { dispose, handler } = HttpRouter.toWebHandler(routes, { disableLogger: true })
        yield* Effect.addFinalizer(() => Effect.promise(dispose))
        const get = (path: string, headers = {}) =>
          Effect.promise(() => handler(new Request(`http://localhost${path}`, { headers })))
        const statuses = Effect.map(
          Effect.all([get("/startupz"), get("/readyz")]),
          (answers) => answers.map(({ status }) => status)
        )
        yield* TestClock.adjust(0)
        assert.strictEqual((yield* registry.report("startup")).status, "unhealthy")
        assert.strictEqual((yield* registry.report("readiness")).status, "degraded")
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual([runs, ...yield* statuses], [2, 200, 200])
        const json = yield* get("/health", { accept: "application/health+json" })
        assert.strictEqual(json.headers.get("content-type"), "application/health+json")
        yield* registry.drain
        assert.deepStrictEqual(yield* statuses, [200, 503])
      })
    ))

  it.effect("an open circuit tells the health checks by itself", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.HealthRegistry
      yield* (yield* CircuitBreaker.CircuitBreaker).forceOpen
      assert.strictEqual((yield* registry.report("readiness", { allowNoChecks: true })).status, "degraded")
    }).pipe(Effect.provide(Layer.provideMerge(CircuitBreaker.layer(), HealthRegistry.layer))))
})
