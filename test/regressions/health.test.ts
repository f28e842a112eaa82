import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Scope } from "effect"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
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
})
