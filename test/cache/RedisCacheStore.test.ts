import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { CacheMiddleware, CachePolicy, CacheStore, RedisCacheStore, ToolCache } from "effect-toolops/cache"
import { createClient } from "redis"
import { inject } from "vitest"
import { redisServer } from "../limit/redisServer.ts"
import { oneGood } from "../support/oneGood.ts"
import { tcpProxy } from "../support/tcpProxy.ts"
import { suite } from "./CacheStoreTest.ts"

const quiet = Logger.layer([])

const client = (url: string) =>
  Layer.orDie(NodeRedis.layer({ url, socket: { reconnectStrategy: (retries) => Math.min(50 * retries, 200) } })).pipe(
    Layer.provide(quiet)
  )

const storeAt = (url: string, options?: RedisCacheStore.Options) =>
  RedisCacheStore.layer(options).pipe(Layer.provide(Layer.fresh(client(url))))

/** A cache of its own, as another process would have it. */
const processAt = (url: string, options?: RedisCacheStore.Options) =>
  Effect.map(
    Layer.build(
      Layer.fresh(
        CacheMiddleware.layer.pipe(
          Layer.provideMerge(ToolCache.layer),
          Layer.provideMerge(storeAt(url, options)),
          Layer.provide(CachePolicy.layer({ jitter: 0 }))
        )
      )
    ),
    (context) => ({
      pipeline: Effect.provideContext(ToolPipeline.make(CacheMiddleware.CacheMiddleware), context),
      cache: Effect.provideContext(Effect.map(ToolCache.ToolCache, (cache) => cache), context),
      store: Effect.provideContext(Effect.map(CacheStore.CacheStore, (store) => store), context)
    })
  )

const roomy = { commandTimeout: "2 seconds" } as const
const tool = ToolMeta.make({ name: "t", readOnly: true, policy: { tags: () => ["x"] } })
const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

describe.skipIf(!inject("redis").canStart)("RedisCacheStore", () => {
  suite(
    "RedisCacheStore",
    Layer.unwrap(Effect.map(redisServer, (server) => storeAt(server.url, { commandTimeout: "1 second" }))),
    { realTime: true, tenants: 50 }
  )

  it.live("runs a stampede of 1,000 in two processes once", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const processes = yield* Effect.all([processAt(server.url, roomy), processAt(server.url, roomy)])
      let runs = 0
      const handler = Effect.andThen(Effect.sleep(50), Effect.sync(() => ({ run: ++runs })))
      const calls = yield* Effect.forEach(processes, (one) => Effect.map(one.pipeline, (p) => p.run({ tool }, handler)))
      const fibers = yield* Effect.forEach(Array.from({ length: 1000 }), (_, i) => start(calls[i % 2]!))
      for (const fiber of fibers) assert.deepStrictEqual(yield* Fiber.join(fiber), { run: 1 })
      assert.strictEqual(runs, 1)
    }).pipe(Effect.scoped))

  it.live("keeps the lead for as long as the call runs, and gives it back when it fails or is interrupted", () => {
    const shared = Effect.gen(function*() {
      const server = yield* redisServer
      const options = { ...roomy, lease: "300 millis" } as const
      const [one, two] = yield* Effect.all([processAt(server.url, options), processAt(server.url, options)])
      const first = yield* one.pipeline
      const second = yield* two.pipeline
      const gate = Deferred.makeUnsafe<string>()
      let others = 0
      const long = yield* start(first.run({ tool, input: "long" }, Deferred.await(gate)))
      yield* Effect.sleep(50)
      const follower = yield* start(second.run({ tool, input: "long" }, Effect.sync(() => `other ${++others}`)))
      yield* Effect.sleep(800)
      assert.strictEqual(others, 0)
      yield* Deferred.succeed(gate, "long")
      assert.strictEqual(yield* Fiber.join(long), "long")
      assert.strictEqual(yield* Fiber.join(follower), "long")

      const doomed = yield* start(first.run({ tool, input: "doomed" }, Effect.never))
      yield* Effect.sleep(50)
      const heir = yield* start(second.run({ tool, input: "doomed" }, Effect.succeed("heir")))
      yield* Effect.sleep(20)
      yield* Fiber.interrupt(doomed)
      const left = performance.now()
      assert.strictEqual(yield* Fiber.join(heir), "heir")
      const heirAfter = performance.now() - left

      yield* Effect.exit(first.run({ tool, input: "failed" }, Effect.fail("no")))
      const failed = performance.now()
      assert.strictEqual(yield* second.run({ tool, input: "failed" }, Effect.succeed(1)), 1)
      return { heirAfter, nextAfter: performance.now() - failed }
    })
    // Less than the lease, which is given back and does not run out.
    return oneGood(Effect.scoped(shared), ({ heirAfter, nextAfter }) => heirAfter <= 250 && nextAfter <= 150)
  })

  it.live("waits no longer than the lease for a process that died", () => {
    const waited = Effect.gen(function*() {
      const server = yield* redisServer
      const dead = yield* Effect.provide(
        Effect.flatMap(CacheStore.CacheStore, (store) =>
          Effect.map(
            // The lease of a store whose scope has closed is renewed by nobody.
            Effect.all([store.flight!("cache:t:dead", () => {})]),
            ([flight]) => flight
          )),
        storeAt(server.url, { ...roomy, lease: "300 millis" })
      )
      assert.strictEqual(dead._tag, "lead")
      const one = yield* processAt(server.url, { ...roomy, lease: "300 millis" })
      const store = yield* one.store
      const before = performance.now()
      const flight = yield* store.flight!("cache:t:dead", () => {})
      assert.strictEqual(flight._tag, "lead")
      return performance.now() - before
    })
    return oneGood(Effect.scoped(waited), (millis) => millis <= 450)
  })

  it.live("does not keep what another process invalidated while it was computed", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const [one, two] = yield* Effect.all([processAt(server.url, roomy), processAt(server.url, roomy)])
      const first = yield* one.pipeline
      const gate = Deferred.makeUnsafe<void>()
      let runs = 0
      const call = first.run({ tool }, Effect.suspend(() => Effect.as(Deferred.await(gate), ++runs)))
      const running = yield* start(call)
      yield* Effect.sleep(50)
      yield* (yield* two.cache).invalidate({ tag: "x" })
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(running), 1)
      assert.strictEqual(yield* call, 2)
      assert.strictEqual(yield* call, 2)
    }).pipe(Effect.scoped))

  it.live("makes up for an invalidation that Redis refused, before it gives an answer again", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const one = yield* processAt(server.url, { ...roomy, prefix: "p:", retryInterval: "50 millis" })
      const store = yield* one.store
      const raw = createClient({ url: server.url })
      yield* Effect.acquireRelease(Effect.promise(() => raw.connect()), () => Effect.promise(() => raw.close()))
      const entry = { text: "1", freshMillis: 60_000, keepMillis: 60_000, labels: ["tag:x"], mark: undefined }
      yield* store.set("k", entry)
      assert.isDefined(yield* store.get("k"))
      // A replica of nobody takes reads and refuses writes.
      yield* Effect.promise(() => raw.sendCommand(["CONFIG", "SET", "replica-read-only", "yes"]))
      yield* Effect.promise(() => raw.sendCommand(["REPLICAOF", "127.0.0.1", "1"]))
      yield* Effect.promise(() => raw.sendCommand(["CONFIG", "SET", "replica-serve-stale-data", "yes"]))
      assert.strictEqual((yield* Effect.exit(store.invalidate(["tag:x"])))._tag, "Failure")
      yield* Effect.sleep(150)
      assert.strictEqual((yield* Effect.exit(store.get("k")))._tag, "Failure")
      yield* Effect.promise(() => raw.sendCommand(["REPLICAOF", "NO", "ONE"]))
      yield* Effect.sleep(300)
      assert.isUndefined(yield* store.get("k"))
    }).pipe(Effect.scoped, Effect.provide(quiet)))

  it.live("lets labels end with their entries", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const one = yield* processAt(server.url, { ...roomy, prefix: "p:" })
      const store = yield* one.store
      const entry = { text: "1", freshMillis: 100, keepMillis: 100, labels: ["tool:t", "tag:x"], mark: undefined }
      for (let i = 0; i < 20; i++) yield* store.set(`k${i}`, entry)
      yield* Effect.sleep(150)
      yield* store.set("last", { ...entry, keepMillis: 60_000 })
      assert.strictEqual((yield* store.stats).entries, 1)
    }).pipe(Effect.scoped))

  describe("when Redis is not well", () => {
    /** Calls a tool and says how long the slowest of the calls took beyond a healthy one. */
    const measure = (call: (input: number) => Effect.Effect<unknown, unknown>, from: number, count: number) =>
      Effect.gen(function*() {
        const times: Array<number> = []
        let failures = 0
        for (let i = from; i < from + count; i++) {
          const before = performance.now()
          const answer = yield* Effect.exit(call(i))
          times.push(performance.now() - before)
          if (answer._tag === "Failure" || answer.value !== `answer ${i}`) failures++
        }
        times.sort((a, b) => a - b)
        assert.strictEqual(failures, 0)
        return { p99: times[Math.floor(times.length * 0.99)]! }
      })

    const troubles = ["killed", "paused", "hanging", "resetting", "answering garbage", "slow"] as const
    for (const trouble of troubles) {
      it.live(`goes on at once while Redis is ${trouble}, and has hits again within a second`, () => {
        const outage = Effect.gen(function*() {
          const server = yield* redisServer
          const proxy = yield* tcpProxy(Number(new URL(server.url).port))
          const one = yield* processAt(`redis://127.0.0.1:${proxy.port}`, { commandTimeout: "25 millis" })
          const p = yield* one.pipeline
          const cache = yield* one.cache
          let runs = 0
          const call = (i: number) => p.run({ tool, input: i }, Effect.sync(() => (runs++, `answer ${i}`)))
          yield* measure(call, 0, 20)
          const healthy = yield* measure(call, 10_000, 400)
          if (trouble === "killed") yield* Effect.promise(server.kill)
          if (trouble === "paused") server.pause()
          if (trouble === "hanging") proxy.mode = "hang"
          if (trouble === "resetting") proxy.mode = "reset"
          if (trouble === "answering garbage") proxy.mode = "garbage"
          if (trouble === "slow") proxy.mode = { delay: 100 }
          const during = yield* measure(call, 0, 400)
          const exit = yield* Effect.exit(cache.invalidate({ tool: "t" }))
          assert.strictEqual(exit._tag, "Failure")
          if (trouble === "killed") yield* Effect.promise(server.start)
          if (trouble === "paused") server.resume()
          proxy.mode = "pass"
          const back = performance.now()
          // What was stored before is gone, since it was invalidated while Redis did not listen.
          let isBack = false
          while (!isBack && performance.now() - back < 10_000) {
            yield* Effect.sleep(20)
            yield* call(1000)
            const before = runs
            assert.strictEqual(yield* call(1000), "answer 1000")
            isBack = runs === before
          }
          const backAfter = performance.now() - back
          assert.isTrue(isBack)
          const before = runs
          yield* call(3)
          assert.strictEqual(runs, before + 1)
          return { added: during.p99 - healthy.p99, backAfter }
        }).pipe(Effect.scoped, Effect.provide(quiet))
        return oneGood(outage, ({ added, backAfter }) => added <= 50 && backAfter <= 1000)
      })
    }
  })

  it("refuses nonsense", () => {
    assert.throws(() => RedisCacheStore.layer({ prefix: "" }), /RedisCacheStore\.layer: prefix must be a string/)
    assert.throws(() => RedisCacheStore.layer({ lease: 0 }), /lease must be a duration > 0/)
    assert.throws(() => RedisCacheStore.layer({ timeout: 1 } as never), /unknown option "timeout"/)
  })
})
