import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Schema } from "effect"
import { type CallRecord, ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { CacheError, CacheStore, ToolCache } from "effect-toolops/cache"
import { TestClock } from "effect/testing"
import { cached, pipelineOf } from "./support.ts"

const read = (name: string, options?: Partial<ToolMeta.Options>) =>
  ToolMeta.make({ namespace: "ns", name, readOnly: true, ...options })

const counting = () => {
  let runs = 0
  return Effect.sync(() => ++runs)
}

const acme = Identity.make({ principal: "alice", tenant: "acme" })
const globex = Identity.make({ principal: "alice", tenant: "globex" })
const bob = Identity.make({ principal: "bob", tenant: "acme" })
const as = (identity: Identity.Identity) => Effect.provideService(Identity.CurrentIdentity, identity)

/** A store over a plain map that knows no marks and does what it is told to. */
const scripted = (over?: Partial<CacheStore.Store>) => {
  const entries = new Map<string, CacheStore.Entry>()
  const store: CacheStore.Store = {
    name: "scripted",
    get: (key) => Effect.sync(() => entries.get(key)),
    set: (key, entry) =>
      Effect.sync(() => {
        entries.set(key, { key, text: entry.text, freshUntil: 1e15, keepUntil: 1e15 })
      }),
    remove: (key) => Effect.sync(() => void entries.delete(key)),
    invalidate: () => Effect.sync(() => entries.clear()),
    clear: Effect.sync(() => entries.clear()),
    stats: Effect.succeed({ store: "scripted", entries: 0, bytes: 0, evictions: 0, errors: 0 }),
    ...over
  }
  return { entries, layer: Layer.succeed(CacheStore.CacheStore, store) }
}

const unavailable = new CacheError.CacheError({ reason: new CacheError.StoreUnavailable({ store: "scripted" }) })

describe("ToolCache", () => {
  describe("invalidate", () => {
    const targets: ReadonlyArray<
      [
        string,
        (key: string) => ToolCache.Target,
        { a: boolean; b: boolean; other: boolean; globex: boolean; bob: boolean }
      ]
    > = [
      ["key", (key) => ({ key }), { a: false, b: true, other: true, globex: true, bob: true }],
      ["tool", () => ({ tool: "ns:a" }), { a: false, b: true, other: true, globex: false, bob: false }],
      ["namespace", () => ({ namespace: "ns" }), { a: false, b: false, other: true, globex: false, bob: false }],
      ["tag", () => ({ tag: "t:acme" }), { a: false, b: true, other: true, globex: true, bob: false }],
      ["tags", () => ({ tag: ["x", "t:globex"] }), { a: true, b: true, other: true, globex: false, bob: true }],
      ["tenant", () => ({ tenant: "acme" }), { a: false, b: false, other: false, globex: true, bob: false }],
      ["identity", () => ({ identity: acme }), { a: false, b: false, other: false, globex: true, bob: true }]
    ]
    for (const [name, target, kept] of targets) {
      it.effect(`forgets by ${name}, and nothing else`, () => {
        const records: Array<CallRecord.CallRecord> = []
        return Effect.gen(function*() {
          const p = yield* pipelineOf
          const cache = yield* ToolCache.ToolCache
          const tagged = read("a", { policy: { tags: (call) => [`t:${call.input}`] } })
          const calls = {
            a: as(acme)(p.run({ tool: tagged, input: "acme" }, counting())),
            b: as(acme)(p.run({ tool: read("b") }, counting())),
            other: as(acme)(p.run({ tool: ToolMeta.make({ name: "a", readOnly: true }) }, counting())),
            globex: as(globex)(p.run({ tool: tagged, input: "globex" }, counting())),
            bob: as(bob)(p.run({ tool: tagged, input: "acme" }, counting()))
          }
          yield* Effect.all(calls)
          yield* cache.invalidate(target(records[0]!.cacheKey!))
          const after = yield* Effect.all(calls)
          for (const call of ["a", "b", "other", "globex", "bob"] as const) {
            assert.strictEqual(after[call], kept[call] ? 1 : 2, call)
          }
        }).pipe(Effect.provide(cached({ records })))
      })
    }

    it.effect("leaves answers for everyone when a tenant or identity is forgotten", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const cache = yield* ToolCache.ToolCache
        const call = as(acme)(p.run({ tool: read("a", { varies: "everyone" }) }, counting()))
        yield* call
        yield* cache.invalidate({ tenant: "acme" })
        yield* cache.invalidate({ identity: acme })
        assert.strictEqual(yield* call, 1)
        yield* cache.clear
        assert.strictEqual(yield* call, 2)
      }).pipe(Effect.provide(cached())))

    it.effect("keeps back what was begun before, whatever the store knows of it", () =>
      Effect.gen(function*() {
        const targets: ReadonlyArray<ToolCache.Target | "clear"> = [
          { tool: "ns:a" },
          { namespace: "ns" },
          { tenant: "acme" },
          { identity: acme },
          { tag: "x" },
          "clear"
        ]
        for (const target of targets) {
          const { layer } = scripted()
          yield* Effect.gen(function*() {
            const p = yield* pipelineOf
            const cache = yield* ToolCache.ToolCache
            const gate = Deferred.makeUnsafe<void>()
            let runs = 0
            const call = as(acme)(p.run(
              { tool: read("a", { policy: { tags: () => ["x"] } }) },
              Effect.suspend(() => ++runs === 1 ? Effect.as(Deferred.await(gate), 1) : Effect.succeed(runs))
            ))
            const early = yield* Effect.forkChild(call, { startImmediately: true })
            yield* target === "clear" ? cache.clear : cache.invalidate(target)
            yield* Deferred.succeed(gate, undefined)
            yield* Fiber.join(early)
            assert.strictEqual(yield* call, 2, JSON.stringify(target))
          }).pipe(Effect.provide(cached({ store: layer })))
        }
      }))

    it.effect("refuses names that no entry can have", () =>
      Effect.gen(function*() {
        const cache = yield* ToolCache.ToolCache
        for (const target of [{ key: "k".repeat(513) }, { key: "a\nb" }, { tag: "" }, { tag: ["a", "\u0000"] }]) {
          const error = yield* Effect.flip(cache.invalidate(target))
          assert.strictEqual(error.reason._tag, "InvalidName")
        }
      }).pipe(Effect.provide(cached())))
  })

  it.effect("looks an answer up without running anything", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const cache = yield* ToolCache.ToolCache
      const tool = read("when", { success: Schema.Date, policy: { ttl: "1 minute", staleWhileRevalidate: "1 hour" } })
      const found = cache.lookup({ tool, input: 1, identity: acme })
      assert.deepStrictEqual(yield* found, Option.none())
      yield* as(acme)(p.run({ tool, input: 1 }, Effect.succeed(new Date(1))))
      assert.deepStrictEqual(yield* found, Option.some(new Date(1)))
      assert.deepStrictEqual(yield* as(acme)(cache.lookup({ tool, input: 1 })), Option.some(new Date(1)))
      assert.deepStrictEqual(yield* cache.lookup({ tool, input: 1 }), Option.none())
      assert.deepStrictEqual(yield* cache.lookup({ tool, input: 1 }, globex), Option.none())
      assert.deepStrictEqual(yield* cache.lookup({ tool, input: Number.NaN }, acme), Option.none())
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* found, Option.none())
    }).pipe(Effect.provide(cached())))

  it.effect("counts", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const cache = yield* ToolCache.ToolCache
      const call = p.run({ tool: read("a") }, counting())
      yield* Effect.all([call, call, call])
      yield* p.run({ tool: read("a"), input: 1n }, counting())
      yield* p.run({ tool: read("a"), input: "big" }, Effect.succeed(new Map()))
      const stats = yield* cache.stats
      assert.deepInclude(stats, {
        hits: 2,
        misses: 2,
        stale: 0,
        coalesced: 0,
        uncacheable: 1,
        unstored: 1,
        corrupt: 0,
        errors: 0
      })
      assert.deepInclude(stats.stores[0], { store: "memory", entries: 1, evictions: 0, errors: 0 })
    }).pipe(Effect.provide(cached())))

  describe("with a store that cannot be trusted", () => {
    const texts: ReadonlyArray<[string, Partial<CacheStore.Entry>]> = [
      ["another key", { key: "cache:ns:other:00" }],
      ["no JSON", { text: "{" }],
      ["JSON of another shape", { text: "{\"n\":\"1\"}" }],
      ["a member too many", { text: "{\"n\":1,\"admin\":true}" }],
      ["no text", { text: 7 as never }],
      ["no time", { freshUntil: Number.NaN }],
      ["an impossible time", { freshUntil: 2e15 }],
      ["a time that is over", { freshUntil: -1, keepUntil: -1 }]
    ]
    for (const [name, over] of texts) {
      it.effect(`takes an entry with ${name} for a miss`, () => {
        const { entries, layer } = scripted()
        return Effect.gen(function*() {
          const p = yield* pipelineOf
          const cache = yield* ToolCache.ToolCache
          let runs = 0
          const tool = read("a", { success: Schema.Struct({ n: Schema.Number }) })
          const call = p.run({ tool }, Effect.sync(() => ({ n: ++runs })))
          yield* call
          assert.deepStrictEqual(yield* call, { n: 1 })
          for (const [key, entry] of entries) entries.set(key, { ...entry, ...over })
          assert.deepStrictEqual(yield* call, { n: 2 })
          const stats = yield* cache.stats
          assert.strictEqual(stats.corrupt, name === "a time that is over" ? 0 : 1)
          assert.deepStrictEqual(yield* call, { n: 2 })
        }).pipe(Effect.provide(cached({ store: layer })))
      })
    }

    const failures: ReadonlyArray<[string, Effect.Effect<never, CacheError.CacheError>]> = [
      ["fails", Effect.fail(unavailable)],
      ["dies", Effect.die("no")],
      ["interrupts itself", Effect.interrupt]
    ]
    for (const [name, failure] of failures) {
      it.effect(`runs every call when it ${name}, and says so in its figures`, () => {
        const { layer } = scripted({
          get: () => failure,
          set: () => failure,
          invalidate: () => failure,
          stats: failure,
          mark: failure
        })
        return Effect.gen(function*() {
          const p = yield* pipelineOf
          const cache = yield* ToolCache.ToolCache
          const handler = counting()
          const call = p.run({ tool: read("a") }, handler)
          assert.deepStrictEqual([yield* call, yield* call], [1, 2])
          const write = ToolMeta.make({ name: "w", policy: { invalidates: () => ["x"] } })
          assert.strictEqual(yield* p.run({ tool: write }, Effect.succeed("done")), "done")
          assert.isTrue(Exit.isFailure(yield* Effect.exit(cache.invalidate({ tool: "a" }))))
          const stats = yield* cache.stats
          assert.isAtLeast(stats.errors, 3)
          assert.strictEqual(stats.stores[0]!.store, "scripted")
        }).pipe(Effect.provide(cached({ store: layer })))
      })
    }

    it.effect("does not pollute prototypes from what it holds", () => {
      const { entries, layer } = scripted()
      return Effect.gen(function*() {
        const p = yield* pipelineOf
        const call = p.run({ tool: read("a") }, Effect.succeed<unknown>({}))
        yield* call
        for (const [key, entry] of entries) {
          entries.set(key, {
            ...entry,
            text: "{\"__proto__\":{\"admin\":true},\"constructor\":{\"prototype\":{\"admin\":true}}}"
          })
        }
        const answer = yield* call
        assert.isUndefined(({} as { readonly admin?: boolean }).admin)
        assert.strictEqual(Object.getPrototypeOf(answer), Object.prototype)
      }).pipe(Effect.provide(cached({ store: layer })))
    })
  })

  it("refuses nonsense in the name of the constructor that was called", () => {
    assert.throws(
      () => ToolCache.layerMemory({ maxEntries: 0 }),
      /^ToolCache\.layerMemory: maxEntries must be an integer from 1 to \d+, got 0$/
    )
  })
})
