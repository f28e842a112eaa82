import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer } from "effect"
import { CacheStore } from "effect-toolops/cache"
import { TestClock } from "effect/testing"
import { fork } from "node:child_process"
import { suite } from "./CacheStoreTest.ts"

suite("CacheStore.layerMemory", CacheStore.layerMemory({ maxEntries: 20_000 }))

const entry = (text: string, over?: Partial<CacheStore.NewEntry>): CacheStore.NewEntry => ({
  text,
  freshMillis: 60_000,
  keepMillis: 60_000,
  labels: [],
  mark: undefined,
  ...over
})

describe("CacheStore.layerMemory", () => {
  it.effect("holds at most maxEntries, and lets the least recently used go first", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      for (let i = 0; i < 3; i++) yield* store.set(`k${i}`, entry(String(i)))
      yield* store.get("k0")
      yield* store.set("k3", entry("3"))
      const left = yield* Effect.forEach(["k0", "k1", "k2", "k3"], store.get)
      assert.deepStrictEqual(left.map((found) => found?.text), ["0", undefined, "2", "3"])
      assert.deepInclude(yield* store.stats, { entries: 3, evictions: 1 })
    }).pipe(Effect.provide(CacheStore.layerMemory({ maxEntries: 3 }))))

  it.effect("holds at most maxBytes, two for each character beyond Latin-1", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      for (let i = 0; i < 100; i++) yield* store.set(`k${i}`, entry("x".repeat(1000)))
      const narrow = yield* store.stats
      assert.isAtMost(narrow.bytes!, 20_000)
      assert.strictEqual(narrow.entries, 15)
      yield* store.clear
      for (let i = 0; i < 100; i++) yield* store.set(`k${i}`, entry("€".repeat(1000)))
      assert.strictEqual((yield* store.stats).entries, 8)
      yield* store.set("large", entry("x".repeat(30_000)))
      assert.isUndefined(yield* store.get("large"))
    }).pipe(Effect.provide(CacheStore.layerMemory({ maxBytes: 20_000 }))))

  it.effect("lets dead entries go that nobody asks for", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      for (let i = 0; i < 100; i++) yield* store.set(`old${i}`, entry("x", { keepMillis: 1000 }))
      yield* TestClock.adjust("2 seconds")
      for (let i = 0; i < 100; i++) yield* store.set(`new${i}`, entry("x"))
      const stats = yield* store.stats
      assert.isBelow(stats.entries!, 140)
      assert.strictEqual(stats.evictions, 0)
    }).pipe(Effect.provide(CacheStore.layerMemory())))

  it.effect("remembers a bounded number of invalidations, and forgets too much rather than too little", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      yield* store.set("a", entry("a", { labels: ["tag:a"] }))
      yield* store.invalidate(["tag:a"])
      yield* store.set("b", entry("b", { labels: ["tag:b"] }))
      for (let i = 0; i < 20_000; i++) yield* store.invalidate([`tag:${i}`])
      assert.isUndefined(yield* store.get("a"))
      assert.isUndefined(yield* store.get("b"))
      yield* store.set("c", entry("c", { labels: ["tag:c"] }))
      assert.isDefined(yield* store.get("c"))
    }).pipe(Effect.provide(CacheStore.layerMemory())))

  it("refuses nonsense where the layer is made", () => {
    assert.throws(
      () => CacheStore.layerMemory({ maxEntries: 0 }),
      /CacheStore\.layerMemory: maxEntries must be an integer from 1/
    )
    assert.throws(() => CacheStore.layerMemory({ maxBytes: 1.5 }), /maxBytes must be an integer/)
    assert.throws(() => CacheStore.layerMemory({ maxSize: 1 } as never), /unknown option "maxSize"/)
  })

  it.effect("takes its options from the configuration", () =>
    Effect.gen(function*() {
      const store = yield* CacheStore.CacheStore
      yield* store.set("a", entry("a"))
      yield* store.set("b", entry("b"))
      assert.strictEqual((yield* store.stats).entries, 1)
    }).pipe(
      Effect.provide(
        CacheStore.layerMemoryConfig({ maxEntries: Config.Int("ENTRIES") }).pipe(
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ ENTRIES: 1 })))
        )
      )
    ))

  // V8 lets garbage lie as long as it may, so the process is given no more room than the bound and 32 MiB: with a store
  // that takes more it dies. `node test/cache/memoryBound.ts 2000000` is the long version.
  it("stays within its budget over 100,000 keys of 1 KB", { timeout: 60_000 }, async () => {
    const child = fork(new URL("./memoryBound.ts", import.meta.url), ["100000"], {
      execArgv: ["-C", "@effect-toolops/source", "--expose-gc", "--max-old-space-size=120", "--max-semi-space-size=4"],
      stdio: ["ignore", "inherit", "inherit", "ipc"]
    })
    const grown = await new Promise<number>((resolve, reject) => {
      child.on("message", (message) => resolve(Number(message)))
      child.on("exit", (code) => reject(new Error(`exit ${code}`)))
    })
    assert.isAtMost(grown, 64 + 32)
  })
})
