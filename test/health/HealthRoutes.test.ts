import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Scope } from "effect"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { HttpRouter } from "effect/http"
import { selfCheck } from "../../src/internal/selfCheck.ts"

interface Served {
  readonly get: (path: string, init?: RequestInit) => Promise<Response>
  readonly add: (options: HealthCheck.Options) => Promise<void>
  readonly registry: HealthRegistry.HealthRegistry["Service"]
}

/** Serves the routes and lets `f` ask them. */
const served = (f: (served: Served) => Promise<void>, options?: HealthRoutes.Options) =>
  Effect.scoped(Effect.gen(function*() {
    const scope = yield* Effect.scope
    const registry = yield* HealthRegistry.make
    const routes = HealthRoutes.layer(options).pipe(
      Layer.provide(Layer.succeed(HealthRegistry.HealthRegistry, registry))
    )
    const { dispose, handler } = HttpRouter.toWebHandler(routes, { disableLogger: true })
    yield* Effect.addFinalizer(() => Effect.promise(dispose))
    const get = (path: string, init?: RequestInit) => handler(new Request(`http://localhost${path}`, init))
    const add = (check: HealthCheck.Options) =>
      Effect.runPromise(Scope.provide(registry.register(HealthCheck.make(check)), scope))
    yield* Effect.promise(() => f({ get, add, registry }))
  }))

const down: HealthCheck.Options = { name: "db", check: Effect.fail("canary: postgres://u:p@h") }

describe("HealthRoutes", () => {
  it.effect("is alive whatever the checks say, also while draining", () =>
    served(async ({ add, get, registry }) => {
      await add({ ...down, groups: ["readiness", "liveness"] })
      await Effect.runPromise(registry.drain)
      const response = await get("/healthz")
      assert.deepStrictEqual([response.status, await response.json()], [200, { status: "healthy" }])
    }))

  it.effect("is not ready without a readiness check", () =>
    served(async ({ add, get }) => {
      await add({ name: "a", check: Effect.void, groups: ["startup"] })
      assert.strictEqual((await get("/readyz")).status, 503)
    }))

  it.effect("is ready without a readiness check where that is allowed, but not while draining", () =>
    served(async ({ get, registry }) => {
      assert.strictEqual((await get("/readyz")).status, 200)
      await Effect.runPromise(registry.drain)
      assert.strictEqual((await get("/readyz")).status, 503)
    }, { allowNoChecks: true }))

  it.effect("is not ready by the checks of the library alone, and says how they are where that is allowed", () =>
    Effect.gen(function*() {
      for (const [allowNoChecks, expected] of [[false, [503, "unhealthy"]], [true, [200, "degraded"]]] as const) {
        yield* served(async ({ get, registry }) => {
          await Effect.runPromise(
            Scope.provide(
              Effect.provideService(selfCheck("x", Effect.fail("down")), HealthRegistry.HealthRegistry, registry),
              Scope.makeUnsafe()
            )
          )
          const response = await get("/readyz")
          assert.deepStrictEqual([response.status, await response.json()], [expected[0], { status: expected[1] }])
        }, { allowNoChecks })
      }
    }))

  it.effect("answers 200 when degraded and 503 when unhealthy or draining", () =>
    served(async ({ add, get, registry }) => {
      await add({ name: "a", check: Effect.void })
      assert.strictEqual((await get("/readyz")).status, 200)
      await add({ ...down, name: "b", critical: false })
      const degraded = await get("/readyz")
      assert.deepStrictEqual([degraded.status, await degraded.json()], [200, { status: "degraded" }])
      await add(down)
      assert.strictEqual((await get("/readyz")).status, 503)
      await Effect.runPromise(registry.drain)
      assert.strictEqual((await get("/readyz")).status, 503)
    }))

  it.effect("has started once its startup checks have passed, for good", () =>
    served(async ({ add, get, registry }) => {
      let isUp = false
      await add({ name: "migrations", check: Effect.sync(() => isUp), groups: ["startup"], interval: 0 })
      assert.strictEqual((await get("/startupz")).status, 503)
      isUp = true
      assert.strictEqual((await get("/startupz")).status, 200)
      isUp = false
      await Effect.runPromise(registry.drain)
      assert.strictEqual((await get("/startupz")).status, 200)
    }))

  it.effect("has not started for good while there is no startup check", () =>
    served(async ({ add, get }) => {
      assert.strictEqual((await get("/startupz")).status, 200)
      let isUp = false
      await add({ name: "migrations", check: Effect.sync(() => isUp), groups: ["startup"], interval: 0 })
      assert.strictEqual((await get("/startupz")).status, 503)
      isUp = true
      assert.strictEqual((await get("/startupz")).status, 200)
    }))

  it.live("is not ready at once while draining, however long a check takes, and also when that began meanwhile", () =>
    served(async ({ add, get, registry }) => {
      let runs = 0
      const gate = Promise.withResolvers<void>()
      const check = Effect.promise(() => {
        runs += 1
        return gate.promise
      })
      await add({ name: "slow", check, timeout: "1 minute", interval: 0 })
      const before = get("/readyz")
      await new Promise((resolve) => setTimeout(resolve))
      await Effect.runPromise(registry.drain)
      assert.strictEqual((await get("/readyz")).status, 503)
      gate.resolve()
      assert.strictEqual((await before).status, 503)
      assert.strictEqual((await get("/readyz")).status, 503)
      assert.strictEqual(runs, 1)
    }))

  const brokenGuards: Record<string, () => Effect.Effect<boolean>> = {
    fails: () => Effect.fail("canary") as never,
    dies: () => Effect.die("canary"),
    throws: () => {
      throw new Error("canary")
    },
    hangs: () => Effect.uninterruptible(Effect.never),
    "is interrupted": () => Effect.interrupt,
    "answers no boolean": () => Effect.succeed("yes" as never)
  }
  for (const [how, details] of Object.entries(brokenGuards)) {
    it.live(`tells the status only when the question who may see details ${how}`, () =>
      served(async ({ add, get }) => {
        await add({ name: "a", check: Effect.void })
        for (const path of ["/health", "/health/a"]) {
          const response = await get(path)
          assert.deepStrictEqual([response.status, await response.text()], [200, "{\"status\":\"healthy\"}\n"], path)
        }
      }, { details }))
  }

  it.effect("tells anonymous callers the status and nothing else", () =>
    served(async ({ add, get }) => {
      await add({ name: "secret-name", check: Effect.succeed({ status: "healthy", details: { url: "canary" } }) })
      await add(down)
      for (const path of ["/readyz", "/health", "/health/secret-name", "/health/db"]) {
        const text = await (await get(path, { headers: { authorization: "Bearer nobody" } })).text()
        assert.match(text, /^\{"status":"(?:un)?healthy"\}\n$/, path)
      }
    }))

  it.effect("tells details, and never the text of an error, to those who may see them", () =>
    served(async ({ add, get }) => {
      await add({ name: "cache", check: Effect.succeed({ status: "degraded", details: { ratio: 0.5 } }) })
      await add(down)
      const init = { headers: { "x-admin": "yes" } }
      const response = await get("/health", init)
      const text = await response.text()
      assert.notInclude(text, "canary")
      assert.strictEqual(response.status, 503)
      const { checks, draining, status, timestamp } = JSON.parse(text)
      assert.deepStrictEqual([status, draining, Object.keys(checks)], ["unhealthy", false, ["cache", "db"]])
      assert.deepInclude(checks.cache, { status: "degraded", critical: true, details: { ratio: 0.5 } })
      assert.deepInclude(checks.db, { status: "unhealthy", error: "failed" })
      // The members of toolops's answer: a time in RFC 3339, durations as Go writes them.
      assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
      assert.match(checks.db.duration, /^\d+(\.\d+)?ms$/)
      assert.deepInclude(await (await get("/health/cache", init)).json(), { status: "degraded", critical: true })
      assert.notInclude(await (await get("/health")).text(), "cache")
    }, { details: (request) => Effect.succeed(request.headers["x-admin"] === "yes") }))

  it.effect("shows nothing when the question who may see details breaks", () =>
    served(async ({ add, get }) => {
      await add({ name: "a", check: Effect.void })
      assert.deepStrictEqual(await (await get("/health")).json(), { status: "healthy" })
    }, { details: () => Effect.die("broken") }))

  it.effect("speaks application/health+json when asked", () =>
    served(async ({ add, get }) => {
      await add({ name: "a", check: Effect.succeed({ status: "degraded" }) })
      const response = await get("/health", { headers: { accept: "application/health+json" } })
      assert.strictEqual(response.headers.get("content-type"), "application/health+json")
      const body: any = await response.json()
      assert.strictEqual(body.status, "warn")
      assert.deepInclude(body.checks["a:responseTime"][0], { componentId: "a", status: "warn", observedUnit: "ms" })
    }, { details: () => Effect.succeed(true) }))

  it.effect("answers anonymous callers in a size that no check has a part in", () =>
    served(async ({ add, get }) => {
      const sizes = async () =>
        await Promise.all(
          ["/readyz", "/health"].map(async (path) => (await (await get(path)).arrayBuffer()).byteLength)
        )
      await add({ name: "a", check: Effect.succeed({ status: "degraded" }) })
      const one = await sizes()
      for (let i = 0; i < 50; i++) {
        await add({
          name: `check-${i}`,
          check: Effect.succeed({ status: "degraded", details: { text: "x".repeat(1000) } })
        })
      }
      assert.deepStrictEqual(await sizes(), one)
      const missing = (await (await get(`/health/${"n".repeat(100)}`)).text()).length
      assert.strictEqual((await (await get("/health/n")).text()).length, missing)
    }))

  it.effect("is not broken by what a check says of itself", () =>
    served(async ({ add, get }) => {
      const cycle: Record<string, unknown> = {
        fine: 1,
        big: 1n,
        not: NaN,
        nothing: undefined,
        "__proto__\"": "\u2028\""
      }
      cycle["self"] = cycle
      await add({ name: "odd", check: Effect.succeed({ status: "healthy", details: cycle as never }) })
      await add({
        name: "trap",
        critical: false,
        check: Effect.succeed({
          status: "healthy",
          get details(): never {
            throw new Error("canary")
          }
        })
      })
      await add({ name: "__proto__", check: Effect.void })
      await add({ name: "long", check: Effect.succeed({ status: "healthy", details: { text: "x".repeat(100_000) } }) })
      const response = await get("/health")
      const text = await response.text()
      const { checks, status } = JSON.parse(text)
      assert.strictEqual(status, "degraded")
      assert.deepStrictEqual(checks.odd.details, { fine: 1, "__proto__\"": "\u2028\"" })
      assert.strictEqual(checks.trap.error, "crashed")
      assert.deepStrictEqual(Object.keys(checks), ["odd", "trap", "__proto__", "long"])
      assert.isBelow(text.length, 3000)
      assert.notInclude(text, "canary")
    }, { details: () => Effect.succeed(true) }))

  it.effect("answers HEAD on every path as GET, without the body", () =>
    served(async ({ add, get }) => {
      await add(down)
      for (const path of ["/healthz", "/readyz", "/startupz", "/health", "/health/db", "/health/nope"]) {
        const [head, whole] = [await get(path, { method: "HEAD" }), await get(path)]
        assert.deepStrictEqual([head.status, await head.text()], [whole.status, ""], path)
        assert.strictEqual(head.headers.get("content-type"), whole.headers.get("content-type"), path)
      }
    }))

  it.effect("answers HEAD without a body, and 404 for a check that there is not", () =>
    served(async ({ add, get }) => {
      await add(down)
      const head = await get("/readyz", { method: "HEAD" })
      assert.deepStrictEqual([head.status, await head.text()], [503, ""])
      for (const name of ["nope", "__proto__", "%00", "db%2f"]) {
        assert.strictEqual((await get(`/health/${name}`)).status, 404, name)
      }
    }))

  it.effect("runs each check once however many probes come", () =>
    served(async ({ add, get }) => {
      let runs = 0
      await add({ name: "a", check: Effect.sync(() => void runs++), interval: "1 minute" })
      await Promise.all(Array.from({ length: 1000 }, () => get("/readyz")))
      assert.strictEqual(runs, 1)
    }))
})
