import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Schedule } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { AuditLog, AuthMiddleware, Jwks } from "effect-toolops/auth"
import { CacheError, CacheStore, RedisCacheStore, ToolCache } from "effect-toolops/cache"
import { HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { RateLimitStore, RedisRateLimitStore } from "effect-toolops/limit"
import { BreakerRegistry, Bulkhead, CircuitBreaker, ResilienceMiddleware } from "effect-toolops/resilience"
import { HttpClient, HttpClientResponse, HttpRouter } from "effect/http"
import { TestClock } from "effect/testing"
import { generateKeyPairSync } from "node:crypto"
import { inject } from "vitest"
import { LocalRedis } from "../support/redis.ts"

/** Runs `f` beside a part that was given the registry. */
const beside = <A, E, Out, E2>(
  part: Layer.Layer<Out, E2, HealthRegistry.HealthRegistry>,
  f: (registry: HealthRegistry.HealthRegistry["Service"]) => Effect.Effect<A, E, Out | HealthRegistry.HealthRegistry>
) =>
  Effect.flatMap(HealthRegistry.HealthRegistry, f).pipe(
    Effect.provide(Layer.provideMerge(part, HealthRegistry.layer))
  )

const statusOf = (registry: HealthRegistry.HealthRegistry["Service"], name: string) =>
  Effect.map(registry.check(name), ({ status }) => status)

const interval = "5 seconds"

describe("parts of the library", () => {
  it.effect("tell nobody where there is no registry", () =>
    Effect.gen(function*() {
      const guarded = yield* ToolPipeline.make(ResilienceMiddleware.ResilienceMiddleware)
      assert.strictEqual(yield* guarded.run({ tool: ToolMeta.make({ name: "t" }) }, Effect.succeed(1)), 1)
    }).pipe(Effect.provide(ResilienceMiddleware.layer())))

  it.effect("degrade readiness while the circuit of a tool is open, and name it", () =>
    beside(
      ResilienceMiddleware.layer({ defaults: { circuitBreaker: { maxFailures: 1 } } }),
      (registry) =>
        Effect.gen(function*() {
          const pipeline = yield* ToolPipeline.make(ResilienceMiddleware.ResilienceMiddleware)
          yield* pipeline.run({ tool: ToolMeta.make({ name: "fine" }) }, Effect.void)
          assert.strictEqual((yield* registry.report("readiness", { allowNoChecks: true })).status, "healthy")
          yield* Effect.ignore(pipeline.run({ tool: ToolMeta.make({ name: "down" }) }, Effect.fail("no")))
          // Kept until the interval is over.
          assert.strictEqual(yield* statusOf(registry, "toolops.circuits"), "healthy")
          yield* TestClock.adjust(interval)
          const report = yield* registry.report("readiness", { allowNoChecks: true })
          assert.strictEqual(report.status, "degraded")
          assert.deepStrictEqual(
            report.checks.map(({ details, name, status }) => [name, status, details?.["openNames"]]),
            [["toolops.circuits", "degraded", "down"], ["toolops.bulkheads", "healthy", undefined]]
          )
          // The circuit is tried again, and closed.
          yield* TestClock.adjust("1 minute")
          yield* pipeline.run({ tool: ToolMeta.make({ name: "down" }) }, Effect.void)
          assert.strictEqual((yield* registry.report("readiness", { allowNoChecks: true })).status, "healthy")
        })
    ))

  it.effect("degrade readiness while a bulkhead is saturated, and once more when it refused somebody meanwhile", () =>
    beside(
      ResilienceMiddleware.layer({ defaults: { bulkhead: { maxConcurrent: 1 } } }),
      (registry) =>
        Effect.gen(function*() {
          const pipeline = yield* ToolPipeline.make(ResilienceMiddleware.ResilienceMiddleware)
          const tool = ToolMeta.make({ name: "narrow" })
          const release = yield* Deferred.make<void>()
          const running = yield* Effect.forkChild(pipeline.run({ tool }, Deferred.await(release)), {
            startImmediately: true
          })
          assert.strictEqual(yield* statusOf(registry, "toolops.bulkheads"), "degraded")
          yield* Effect.flip(pipeline.run({ tool }, Effect.void))
          yield* Deferred.succeed(release, undefined)
          yield* Fiber.join(running)
          yield* TestClock.adjust(interval)
          assert.strictEqual(yield* statusOf(registry, "toolops.bulkheads"), "degraded")
          yield* TestClock.adjust(interval)
          assert.strictEqual(yield* statusOf(registry, "toolops.bulkheads"), "healthy")
        })
    ))

  it.effect("are told apart when there are several of a kind, and leave with their scope", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      const Registry = Layer.succeed(HealthRegistry.HealthRegistry, registry)
      const names = Effect.map(registry.reportAll, ({ checks }) => checks.map(({ name }) => name).toSorted())
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Layer.fresh(CircuitBreaker.layer()).pipe(Layer.provide(Registry)))
        yield* Layer.build(Layer.fresh(CircuitBreaker.layer()).pipe(Layer.provide(Registry)))
        yield* Layer.build(Bulkhead.layer().pipe(Layer.provide(Registry)))
        yield* Layer.build(BreakerRegistry.layer().pipe(Layer.provide(Registry)))
        assert.deepStrictEqual(yield* names, [
          "toolops.breaker",
          "toolops.breaker-2",
          "toolops.breakers",
          "toolops.bulkhead"
        ])
      }))
      assert.deepStrictEqual(yield* names, [])
    }))

  it.effect("register once however often their layer is used", () => {
    const Shared = CircuitBreaker.layer()
    return beside(Layer.merge(Shared, Layer.effectDiscard(CircuitBreaker.CircuitBreaker).pipe(Layer.provide(Shared))), (
      registry
    ) =>
      Effect.map(
        registry.reportAll,
        ({ checks }) => assert.deepStrictEqual(checks.map(({ name }) => name), ["toolops.breaker"])
      ))
  })

  it.effect("degrade readiness while one circuit, or one of many, is open", () =>
    beside(
      Layer.merge(CircuitBreaker.layer(), BreakerRegistry.layer({ maxFailures: 1 })),
      (registry) =>
        Effect.gen(function*() {
          yield* (yield* CircuitBreaker.CircuitBreaker).forceOpen
          const breakers = yield* BreakerRegistry.BreakerRegistry
          yield* Effect.ignore(breakers.execute("host", Effect.fail("no")))
          assert.strictEqual(yield* statusOf(registry, "toolops.breaker"), "degraded")
          assert.strictEqual(yield* statusOf(registry, "toolops.breakers"), "degraded")
        })
    ))

  it.effect("degrade readiness while the store of the cache cannot be read, also a store of the user's", () => {
    const broken = Effect.fail(
      new CacheError.CacheError({ reason: new CacheError.StoreUnavailable({ store: "mine" }) })
    )
    let isBroken = false
    const Store = Layer.effect(
      CacheStore.CacheStore,
      Effect.map(CacheStore.CacheStore, (store) => ({
        ...store,
        name: "mine",
        get: (key: string) => isBroken ? broken : store.get(key)
      }))
    ).pipe(Layer.provide(CacheStore.layerMemory()))
    return beside(ToolCache.layer.pipe(Layer.provide(Store)), (registry) =>
      Effect.gen(function*() {
        assert.strictEqual((yield* registry.report("readiness", { allowNoChecks: true })).status, "healthy")
        isBroken = true
        yield* TestClock.adjust(interval)
        const report = yield* registry.report("readiness", { allowNoChecks: true })
        assert.deepStrictEqual([report.status, report.checks[0]?.name], ["degraded", "toolops.cache"])
      }))
  })

  it.effect("degrade readiness while the key set cannot be fetched", () => {
    let status = 200
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
    const keys = [{ ...publicKey.export({ format: "jwk" }), kid: "k1", alg: "ES256", use: "sig" }]
    const Client = Layer.succeed(
      HttpClient.HttpClient,
      HttpClient.make((request) =>
        Effect.succeed(HttpClientResponse.fromWeb(request, new Response(JSON.stringify({ keys }), { status })))
      )
    )
    return beside(
      Jwks.layer({ url: "https://issuer.example/jwks" }).pipe(Layer.provide(Client)),
      (registry) =>
        Effect.gen(function*() {
          const jwks = yield* Jwks.Jwks
          // Nobody has asked for a key yet.
          assert.strictEqual(yield* statusOf(registry, "toolops.jwks"), "healthy")
          yield* jwks.refresh
          yield* TestClock.adjust(interval)
          const { details } = yield* registry.check("toolops.jwks")
          assert.strictEqual(details?.["ageMillis"], 5000)
          assert.strictEqual(details?.["keys"], 1)
          status = 500
          yield* jwks.refresh
          yield* TestClock.adjust(interval)
          assert.strictEqual(yield* statusOf(registry, "toolops.jwks"), "degraded")
          status = 200
          yield* jwks.refresh
          yield* TestClock.adjust(interval)
          assert.strictEqual(yield* statusOf(registry, "toolops.jwks"), "healthy")
        })
    )
  })

  it.effect("degrade readiness while the audit log loses records or has stopped", () => {
    let sink: Effect.Effect<void, unknown> = Effect.void
    const Log = AuditLog.layer({ write: () => Effect.suspend(() => sink), closeTimeout: 0 })
    const Auth = AuthMiddleware.layerPassthrough
    return beside(Layer.mergeAll(Log, Auth), (registry) =>
      Effect.gen(function*() {
        const log = yield* AuditLog.AuditLog
        const stats = Effect.map(registry.check("toolops.audit"), ({ details, status }) => [status, details?.["lost"]])
        assert.deepStrictEqual(yield* stats, ["healthy", 0])
        sink = Effect.fail("full disk")
        log.recordUnsafe({ kind: "test" } as never)
        yield* log.flush
        yield* TestClock.adjust(interval)
        assert.deepStrictEqual(yield* stats, ["degraded", 1])
        sink = Effect.void
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(yield* stats, ["healthy", 1])
        // A sink that hangs loses nothing yet, but what waits for it waits for long.
        sink = Effect.never
        log.recordUnsafe({ kind: "test" } as never)
        yield* TestClock.adjust("1 second")
        log.recordUnsafe({ kind: "test" } as never)
        yield* TestClock.adjust("4500 millis")
        yield* stats
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual((yield* stats)[0], "degraded")
      }))
  })

  const { canStart, url } = inject("redis")

  it.live.skipIf(url === undefined)("say well of a Redis that answers", () =>
    beside(
      Layer.merge(RedisRateLimitStore.layer(), ToolCache.layer.pipe(Layer.provide(RedisCacheStore.layer()))).pipe(
        Layer.provide(NodeRedis.layer({ url: url! }))
      ),
      (registry) =>
        Effect.gen(function*() {
          yield* RateLimitStore.RateLimitStore
          const { checks } = yield* registry.report("readiness", { allowNoChecks: true })
          assert.deepStrictEqual(checks.map(({ name, status }) => [name, status]).toSorted(), [
            ["toolops.cache", "healthy"],
            ["toolops.limits", "healthy"]
          ])
        })
    ))

  it.live.skipIf(!canStart)(
    "degrade readiness when Redis goes down, and recover with it",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const server = yield* Effect.acquireRelease(
          Effect.promise(() => LocalRedis.started()),
          (server) => Effect.promise(() => server.kill())
        )
        const Parts = Layer.merge(
          RedisRateLimitStore.layer(),
          ToolCache.layer.pipe(Layer.provide(RedisCacheStore.layer({ commandTimeout: "200 millis" })))
        ).pipe(Layer.provide(NodeRedis.layer({ url: server.url })))
        yield* beside(Parts, (registry) => {
          const until = (wanted: string) =>
            registry.report("readiness", { allowNoChecks: true }).pipe(
              Effect.repeat({ until: ({ status }) => status === wanted, schedule: Schedule.spaced("250 millis") })
            )
          return Effect.gen(function*() {
            yield* until("healthy")
            yield* Effect.promise(() => server.kill())
            const { checks } = yield* until("degraded")
            assert.isTrue(checks.every(({ critical }) => !critical))
            const { dispose, handler } = HttpRouter.toWebHandler(
              HealthRoutes.layer({ allowNoChecks: true }).pipe(
                Layer.provide(Layer.succeed(HealthRegistry.HealthRegistry, registry))
              ),
              { disableLogger: true }
            )
            yield* Effect.promise(async () => {
              const told = async (path: string) => {
                const response = await handler(new Request(`http://localhost${path}`))
                return [response.status, await response.text()]
              }
              assert.deepStrictEqual(await told("/readyz"), [200, "{\"status\":\"degraded\"}\n"])
              assert.deepStrictEqual(await told("/healthz"), [200, "{\"status\":\"healthy\"}\n"])
              await dispose()
            })
            yield* Effect.promise(() => server.start())
            yield* until("healthy")
          })
        })
      })),
    60_000
  )
})
