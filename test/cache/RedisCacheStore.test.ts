import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger, Schedule } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { CacheMiddleware, CachePolicy, CacheStore, RedisCacheStore, ToolCache } from "effect-toolops/cache"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { createClient } from "redis"
import { inject } from "vitest"
import { type RedisServer, redisServer } from "../limit/redisServer.ts"
import { oneGood } from "../support/oneGood.ts"
import { type Proxy, tcpProxy } from "../support/tcpProxy.ts"
import { suite } from "./CacheStoreTest.ts"

const quiet = Logger.layer([])

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void
const heapUsed = () => {
  collect()
  collect()
  return process.memoryUsage().heapUsed
}

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

const troubles = ["killed", "paused", "hanging", "resetting", "answering garbage", "noisy", "slow"] as const
type Trouble = typeof troubles[number]

describe.skipIf(!inject("redis").canStart)("RedisCacheStore", () => {
  suite(
    "RedisCacheStore",
    Layer.unwrap(Effect.map(redisServer, (server) => storeAt(server.url, { commandTimeout: "1 second" }))),
    { realTime: true }
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
    // The handler takes no time, so what a call takes is what the cache adds to it.
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

    const begin = (trouble: Trouble, server: RedisServer, proxy: Proxy) =>
      Effect.promise(async () => {
        if (trouble === "killed") await server.kill()
        if (trouble === "paused") server.pause()
        if (trouble === "hanging") proxy.mode = "hang"
        if (trouble === "resetting") proxy.mode = "reset"
        if (trouble === "answering garbage") proxy.mode = "garbage"
        if (trouble === "noisy") proxy.mode = "noise"
        if (trouble === "slow") proxy.mode = { delay: 100 }
      })

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
          yield* measure(call, 0, 100)
          yield* begin(trouble, server, proxy)
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
          return { p99: during.p99, backAfter }
        }).pipe(Effect.scoped, Effect.provide(quiet))
        return oneGood(outage, ({ backAfter, p99 }) => p99 <= 50 && backAfter <= 1000)
      }, 60_000)
    }

    for (const trouble of ["killed", "paused", "noisy", "slow"] as const) {
      it.live(`keeps nothing of 30,000 calls while Redis is ${trouble}`, () =>
        Effect.gen(function*() {
          const server = yield* redisServer
          const proxy = yield* tcpProxy(Number(new URL(server.url).port))
          const one = yield* processAt(`redis://127.0.0.1:${proxy.port}`)
          const p = yield* one.pipeline
          const call = p.wrap(tool, (input) => Effect.succeed(`${String(input)} `.repeat(50)))
          const calls = (from: number, count: number) =>
            Effect.forEach(Array.from({ length: count }, (_, i) => from + i), (i) => call(i), {
              concurrency: 2000,
              discard: true
            })
          yield* calls(0, 2000)
          yield* begin(trouble, server, proxy)
          yield* calls(0, 2000)
          const before = heapUsed()
          for (let i = 1; i <= 5; i++) {
            yield* calls(i * 6000, 6000)
            // So that what is tried now and then is tried now.
            yield* Effect.sleep(50)
          }
          // One kilobyte for each call would be thirty times as much.
          assert.isBelow(heapUsed() - before, 3 * 1024 * 1024)
          if (trouble === "killed") yield* Effect.promise(server.start)
          if (trouble === "paused") server.resume()
          proxy.mode = "pass"
          // The client does not close before every command has ended, so it has to be well again.
          const store = yield* one.store
          yield* Effect.retry(store.stats, { schedule: Schedule.spaced(20), times: 500 })
        }).pipe(Effect.scoped, Effect.provide(quiet)))
    }
  })

  it.live("gives nobody another's answer when replies are out of step, and has hits again within a second", () => {
    const outOfStep = Effect.gen(function*() {
      const server = yield* redisServer
      const proxy = yield* tcpProxy(Number(new URL(server.url).port))
      const one = yield* processAt(`redis://127.0.0.1:${proxy.port}`, roomy)
      const p = yield* one.pipeline
      let runs = 0
      const call = (i: number) => p.run({ tool, input: i }, Effect.sync(() => (runs++, `answer ${i}`)))
      for (let i = 0; i < 50; i++) yield* call(i)
      proxy.mode = "extra"
      const from = performance.now()
      let isBack = false
      while (!isBack && performance.now() - from < 10_000) {
        const before = runs
        // Together, so that there is always a reply to take in place of one's own.
        const answers = yield* Effect.forEach(Array.from({ length: 50 }), (_, i) => call(i), { concurrency: 50 })
        answers.forEach((answer, i) => assert.strictEqual(answer, `answer ${i}`))
        isBack = runs === before
        yield* Effect.sleep(10)
      }
      assert.strictEqual(proxy.mode, "pass")
      assert.isTrue(isBack)
      return performance.now() - from
    }).pipe(Effect.scoped, Effect.provide(quiet))
    return oneGood(outOfStep, (millis) => millis <= 1000)
  }, 30_000)

  it("refuses nonsense", () => {
    assert.throws(() => RedisCacheStore.layer({ prefix: "" }), /RedisCacheStore\.layer: prefix must be a string/)
    assert.throws(() => RedisCacheStore.layer({ lease: 0 }), /lease must be a duration > 0/)
    assert.throws(() => RedisCacheStore.layer({ timeout: 1 } as never), /unknown option "timeout"/)
  })
})
