import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Schedule } from "effect"
import { CacheError, CacheStore, RedisCacheStore, TieredCacheStore } from "effect-toolops/cache"
import { TestClock } from "effect/testing"
import { inject } from "vitest"
import { redisServer } from "../limit/redisServer.ts"
import { oneGood } from "../support/oneGood.ts"
import { tcpProxy } from "../support/tcpProxy.ts"
import { suite } from "./CacheStoreTest.ts"

const quiet = Logger.layer([])

suite(
  "TieredCacheStore over memory",
  TieredCacheStore.layer({ maxEntries: 20_000 }).pipe(Layer.provide(CacheStore.layerMemory({ maxEntries: 20_000 })))
)

const tieredAt = (url: string, options?: TieredCacheStore.Options) =>
  TieredCacheStore.layer(options).pipe(
    Layer.provide(RedisCacheStore.layer({ commandTimeout: "1 second" })),
    Layer.provide(Layer.orDie(NodeRedis.layer({ url, socket: { reconnectStrategy: () => 50 } }))),
    Layer.provide(quiet)
  )

const canStart = inject("redis").canStart

describe.skipIf(!canStart)("with a Redis", () => {
  suite("TieredCacheStore over Redis", Layer.unwrap(Effect.map(redisServer, (server) => tieredAt(server.url))), {
    realTime: true
  })
})

const entry = (text: string, over?: Partial<CacheStore.NewEntry>): CacheStore.NewEntry => ({
  text,
  freshMillis: 60_000,
  keepMillis: 60_000,
  labels: ["tag:x"],
  mark: undefined,
  ...over
})

const built = (layer: Layer.Layer<CacheStore.CacheStore>) =>
  Effect.flatMap(
    Layer.build(Layer.fresh(layer)),
    (context) => Effect.provideContext(Effect.map(CacheStore.CacheStore, (store) => store), context)
  )

/** A back store whose reads are counted and which can be switched off. */
const counted = Effect.map(built(CacheStore.layerMemory()), (memory) => {
  const state = { reads: 0, isDown: false }
  const down = new CacheError.CacheError({ reason: new CacheError.StoreUnavailable({ store: "back" }) })
  const unless = <A>(effect: Effect.Effect<A, CacheError.CacheError>) =>
    Effect.suspend(() => state.isDown ? Effect.fail(down) : effect)
  const back: CacheStore.Store = {
    ...memory,
    name: "back",
    get: (key) => unless(Effect.suspend(() => (state.reads++, memory.get(key)))),
    set: (key, value) => unless(memory.set(key, value)),
    invalidate: (labels) => unless(memory.invalidate(labels)),
    mark: unless(memory.mark!)
  }
  return { state, back, memory }
})

describe("TieredCacheStore", () => {
  it.effect("asks the back store once per l1Ttl", () =>
    Effect.gen(function*() {
      const { back, memory, state } = yield* counted
      const store = yield* built(
        TieredCacheStore.layer({ l1Ttl: "5 seconds" }).pipe(Layer.provide(Layer.succeed(CacheStore.CacheStore, back)))
      )
      yield* memory.set("k", entry("1"))
      for (let i = 0; i < 10; i++) assert.strictEqual((yield* store.get("k"))?.text, "1")
      assert.strictEqual(state.reads, 1)
      yield* memory.set("k", entry("2"))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual((yield* store.get("k"))?.text, "1")
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* store.get("k"))?.text, "2")
      assert.strictEqual(state.reads, 2)
    }).pipe(Effect.scoped))

  it.effect("goes on in memory while the back store is down, for l1Ttl at most", () =>
    Effect.gen(function*() {
      const { back, state } = yield* counted
      const store = yield* built(
        TieredCacheStore.layer({ l1Ttl: "5 seconds" }).pipe(Layer.provide(Layer.succeed(CacheStore.CacheStore, back)))
      )
      state.isDown = true
      yield* store.set("k", entry("1", { mark: yield* store.mark! }))
      assert.strictEqual((yield* store.get("k"))?.text, "1")
      assert.strictEqual((yield* Effect.exit(store.invalidate(["tag:x"])))._tag, "Failure")
      assert.strictEqual((yield* Effect.exit(store.get("k")))._tag, "Failure")
      yield* store.set("k", entry("2", { mark: yield* store.mark! }))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Effect.exit(store.get("k")))._tag, "Failure")
    }).pipe(Effect.scoped))

  it.live.skipIf(!canStart)("tells other processes within 100 ms what to forget", () => {
    const told = Effect.gen(function*() {
      let slowest = 0
      const server = yield* redisServer
      const [one, two] = yield* Effect.all([
        built(tieredAt(server.url, { l1Ttl: "1 minute" })),
        built(tieredAt(server.url, { l1Ttl: "1 minute" }))
      ])
      // Subscribed.
      yield* Effect.sleep(100)
      const forgets: ReadonlyArray<Effect.Effect<void, CacheError.CacheError>> = [
        one.invalidate(["tag:x"]),
        one.remove("k"),
        one.clear
      ]
      for (const forget of forgets) {
        yield* one.set("k", entry("1"))
        yield* one.set("other", entry("2", { labels: ["tag:y"] }))
        assert.strictEqual((yield* two.get("k"))?.text, "1")
        assert.strictEqual((yield* two.get("other"))?.text, "2")
        const before = performance.now()
        yield* forget
        while ((yield* two.get("k")) !== undefined) {
          assert.isBelow(performance.now() - before, 5000)
          yield* Effect.sleep(5)
        }
        slowest = Math.max(slowest, performance.now() - before)
        assert.isUndefined(yield* one.get("k"))
        if (forget !== forgets[2]) assert.strictEqual((yield* two.get("other"))?.text, "2")
      }
      return slowest
    })
    return oneGood(Effect.scoped(told), (slowest) => slowest <= 100)
  })

  it.live.skipIf(!canStart)(
    "serves nothing stale for longer than l1Ttl when a message is lost",
    () =>
      Effect.gen(function*() {
        const server = yield* redisServer
        const proxy = yield* tcpProxy(Number(new URL(server.url).port))
        const one = yield* built(tieredAt(server.url))
        const two = yield* built(tieredAt(`redis://127.0.0.1:${proxy.port}`, { l1Ttl: "400 millis" }))
        yield* Effect.sleep(100)
        yield* one.set("k", entry("1"))
        assert.strictEqual((yield* two.get("k"))?.text, "1")
        proxy.mode = "reset"
        yield* Effect.ignoreCause(two.get("elsewhere"))
        yield* one.invalidate(["tag:x"])
        yield* Effect.sleep(400)
        proxy.mode = "pass"
        const found = yield* Effect.exit(two.get("k"))
        assert.isFalse(found._tag === "Success" && found.value !== undefined)
        // A client that is closed while it connects again waits for ever for the replies to what it holds.
        yield* Effect.retry(two.get("elsewhere"), { schedule: Schedule.spaced(20), times: 500 })
      }).pipe(Effect.scoped)
  )

  it("refuses nonsense", () => {
    assert.throws(() => TieredCacheStore.layer({ l1Ttl: 0 }), /TieredCacheStore\.layer: l1Ttl must be a duration > 0/)
    assert.throws(() => TieredCacheStore.layer({ maxEntries: 0 }), /TieredCacheStore\.layer: maxEntries/)
  })
})
