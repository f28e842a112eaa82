/** The defects of the Go library's cache, one by one: each of these was true there and must not become true here. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { type CallRecord, ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { CacheKey, CacheStore, ToolCache } from "effect-toolops/cache"
import { TestClock } from "effect/testing"
import { cached, pipelineOf } from "../cache/support.ts"

const read = ToolMeta.make({ namespace: "github", name: "get_issue", readOnly: true })
const as = (principal: string) =>
  Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal, tenant: "acme" }))
const counting = () => {
  const state = { runs: 0 }
  return { state, handler: Effect.sync(() => ++state.runs) }
}

describe("defects of the Go library's cache", () => {
  it.effect("does not serve Alice's answer to Mallory", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const call = p.run(
        { tool: read, input: 1 },
        Effect.map(Identity.CurrentIdentity, (who) => `for ${who.principal}`)
      )
      assert.strictEqual(yield* as("alice")(call), "for alice")
      assert.strictEqual(yield* as("mallory")(call), "for mallory")
    }).pipe(Effect.provide(cached())))

  it.effect("does not answer a write from the cache because nobody tagged it", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const { handler, state } = counting()
      const create = ToolMeta.make({ namespace: "github", name: "create_issue", tags: ["issues"] })
      for (let i = 0; i < 3; i++) yield* p.run({ tool: create, input: { title: "x" } }, handler)
      assert.strictEqual(state.runs, 3)
    }).pipe(Effect.provide(cached())))

  it("keeps all 256 bits of the hash", () => {
    const key = CacheKey.make({ tool: read, input: 1, identity: Identity.anonymous })!
    assert.match(key, /:[0-9a-f]{64}$/)
  })

  it.effect("holds a bounded number of entries and bytes", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      for (let i = 0; i < 1000; i++) yield* p.run({ tool: read, input: i }, Effect.succeed("x".repeat(100)))
      const stats = yield* (yield* ToolCache.ToolCache).stats
      assert.strictEqual(stats.stores[0]!.entries, 50)
      assert.strictEqual(stats.stores[0]!.evictions, 950)
    }).pipe(Effect.provide(cached({ store: CacheStore.layerMemory({ maxEntries: 50 }) }))))

  it.effect("does not let a caller change what the next one is given", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const makers: ReadonlyArray<() => Uint8Array | Array<number>> = [() => new Uint8Array([1, 2, 3]), () => [1, 2, 3]]
      for (const make of makers) {
        const call = p.run({ tool: read, input: make.toString() }, Effect.sync(make))
        for (let i = 0; i < 3; i++) {
          const answer = yield* call
          assert.deepStrictEqual(answer, make())
          answer.fill(9)
        }
      }
    }).pipe(Effect.provide(cached())))

  it.effect("runs ten concurrent misses once", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const { handler, state } = counting()
      const gate = Deferred.makeUnsafe<void>()
      const call = p.run({ tool: read }, Effect.andThen(Deferred.await(gate), handler))
      const fibers = yield* Effect.forEach(Array.from({ length: 10 }), () =>
        Effect.forkChild(call, { startImmediately: true }))
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(
        yield* Effect.forEach(fibers, Fiber.join),
        Array.from({ length: 10 }, () =>
          1)
      )
      assert.strictEqual(state.runs, 1)
    }).pipe(Effect.provide(cached())))

  it.effect("does not delete a fresh entry because an expired one was read", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      const entry = { text: "1", freshMillis: 1000, keepMillis: 1000, labels: [], mark: undefined }
      yield* store.set("k", entry)
      yield* TestClock.adjust("2 seconds")
      const reader = yield* Effect.forkChild(store.get("k"))
      yield* store.set("k", { ...entry, text: "2" })
      yield* Fiber.join(reader)
      assert.strictEqual((yield* store.get("k"))?.text, "2")
    }).pipe(Effect.provide(CacheStore.layerMemory())))

  it.effect("lets a tool and a result say how long they are true, up to maxTtl", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const { handler } = counting()
      const short = ToolMeta.make({ name: "short", readOnly: true, policy: { ttl: "10 seconds" } })
      const byResult = ToolMeta.make({ name: "by-result", readOnly: true, policy: { ttlOf: () => "20 seconds" } })
      const long = ToolMeta.make({ name: "long", readOnly: true, policy: { ttl: "48 hours" } })
      const all = Effect.all([short, byResult, long].map((tool) => p.run({ tool }, handler)))
      assert.deepStrictEqual(yield* all, [1, 2, 3])
      yield* TestClock.adjust("11 seconds")
      assert.deepStrictEqual(yield* all, [4, 2, 3])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* all, [5, 6, 3])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* all, [7, 8, 9])
    }).pipe(Effect.provide(cached())))

  it.effect("does not cache what the tool itself excludes because unsafe tags are allowed", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const { handler, state } = counting()
      const excluded = ToolMeta.make({ name: "x", readOnly: true, tags: ["danger"], policy: { ttl: 0 } })
      yield* p.run({ tool: excluded }, handler)
      yield* p.run({ tool: excluded }, handler)
      assert.strictEqual(state.runs, 2)
    }).pipe(Effect.provide(cached({ policy: { allowUnsafe: true } }))))

  it.effect("refuses a key of 623 characters", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      const key = "k".repeat(623)
      yield* store.set(key, { text: "1", freshMillis: 1000, keepMillis: 1000, labels: [], mark: undefined })
      assert.isUndefined(yield* store.get(key))
    }).pipe(Effect.provide(CacheStore.layerMemory())))

  it.effect("leaves old answers behind when a tool gets a new version", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const { handler } = counting()
      const version = (v: string) => p.run({ tool: ToolMeta.make({ name: "v", version: v, readOnly: true }) }, handler)
      assert.deepStrictEqual([yield* version("1"), yield* version("2"), yield* version("1")], [1, 2, 1])
    }).pipe(Effect.provide(cached())))

  it.effect("tells observers of hits and misses", () => {
    const records: Array<CallRecord.CallRecord> = []
    return Effect.gen(function*() {
      const p = yield* pipelineOf
      const call = p.run({ tool: read }, Effect.succeed(1))
      yield* call
      yield* call
      assert.deepStrictEqual(records.map((record) => record.cache), ["miss", "hit"])
    }).pipe(Effect.provide(cached({ records })))
  })

  it.effect("returns the stored bytes the second time without calling the executor, as the Go library's example does", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      let called = 0
      const tool = ToolMeta.make({ namespace: "github", name: "get_user", tags: ["cacheable"] })
      const execute = p.wrap(
        tool,
        () => Effect.sync(() => (called++, new TextEncoder().encode("{\"login\":\"octocat\"}")))
      )
      const first = yield* execute({ username: "octocat" })
      const second = yield* execute({ username: "octocat" })
      assert.deepStrictEqual(second, first)
      assert.strictEqual(called, 1)
    }).pipe(Effect.provide(cached())))
})
