/**
 * What every cache store promises. `layer` makes a fresh, empty store; `realTime` says that it does
 * not go by the clock of the test.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { CacheMiddleware, type CachePolicy, CacheStore, ToolCache } from "effect-toolops/cache"
import { TestClock } from "effect/testing"
import { cached } from "./support.ts"

export const suite = (
  name: string,
  layer: Layer.Layer<CacheStore.CacheStore, unknown>,
  options?: { readonly realTime?: boolean; readonly policy?: CachePolicy.Options }
) => {
  const realTime = options?.realTime === true
  const run = realTime ? it.live : it.effect
  // Real time goes by on a busy machine too, so there everything takes four times as long.
  const scale = realTime ? 4 : 1
  const pass = (millis: number) => realTime ? Effect.sleep(millis * scale) : TestClock.adjust(millis)

  const entry = (text: string, over?: Partial<CacheStore.NewEntry>): CacheStore.NewEntry => ({
    text,
    freshMillis: 60_000,
    keepMillis: 60_000,
    labels: ["tool:t"],
    mark: undefined,
    ...over
  })
  const withStore = <A, E>(use: (store: CacheStore.Store) => Effect.Effect<A, E>) =>
    Effect.provide(Effect.flatMap(CacheStore.CacheStore, use), layer)
  const textOf = (store: CacheStore.Store, key: string) => Effect.map(store.get(key), (found) => found?.text)

  describe(`${name} as a cache store`, () => {
    run("gives back under a key what was stored under it last", () =>
      withStore((store) =>
        Effect.gen(function*() {
          assert.isUndefined(yield* store.get("cache:t:1"))
          yield* store.set("cache:t:1", entry("\"one\""))
          yield* store.set("cache:t:2", entry("\"€ \\ud800 \u0000 \ud83d\ude00\""))
          const found = yield* store.get("cache:t:1")
          assert.deepInclude(found, { key: "cache:t:1", text: "\"one\"" })
          assert.isAtMost(found!.freshUntil, found!.keepUntil)
          assert.strictEqual(yield* textOf(store, "cache:t:2"), "\"€ \\ud800 \u0000 \ud83d\ude00\"")
          yield* store.set("cache:t:1", entry(""))
          assert.strictEqual(yield* textOf(store, "cache:t:1"), "")
          yield* store.remove("cache:t:1")
          yield* store.remove("cache:t:never")
          assert.isUndefined(yield* store.get("cache:t:1"))
          assert.isDefined(yield* store.get("cache:t:2"))
        })
      ))

    run(
      "forgets an entry when its time is over, and says when it stops being fresh",
      () =>
        withStore((store) =>
          Effect.gen(function*() {
            const clock = yield* Effect.clockWith(Effect.succeed)
            const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
            yield* store.set("cache:t:1", entry("1", { freshMillis: 200 * scale, keepMillis: 200 * scale }))
            yield* store.set("cache:t:2", entry("2", { freshMillis: 100 * scale, keepMillis: 9000 }))
            yield* store.set("cache:t:0", entry("0", { freshMillis: 0, keepMillis: 0 }))
            assert.isUndefined(yield* store.get("cache:t:0"))
            yield* pass(40)
            const first = yield* store.get("cache:t:1")
            assert.isAbove(first!.freshUntil, now())
            assert.isAtMost(first!.freshUntil - now(), 160 * scale + 5)
            yield* pass(210)
            assert.isUndefined(yield* store.get("cache:t:1"))
            const second = yield* store.get("cache:t:2")
            assert.isBelow(second!.freshUntil, now())
            assert.isAbove(second!.keepUntil, now() + 4000)
          })
        )
    )

    run(
      "does not forget a new entry because an old one's time was over",
      () =>
        withStore((store) =>
          Effect.gen(function*() {
            yield* store.set("cache:t:1", entry("1", { freshMillis: 50 * scale, keepMillis: 50 * scale }))
            yield* pass(80)
            yield* Effect.all([
              store.get("cache:t:1"),
              store.set("cache:t:1", entry("2")),
              store.get("cache:t:1")
            ], { concurrency: "unbounded" })
            assert.strictEqual(yield* textOf(store, "cache:t:1"), "2")
          })
        )
    )

    run("forgets every entry with a label, and no other", () =>
      withStore((store) =>
        Effect.gen(function*() {
          yield* store.set("cache:t:1", entry("1", { labels: ["tool:a", "tag:x"] }))
          yield* store.set("cache:t:2", entry("2", { labels: ["tool:a"] }))
          yield* store.set("cache:t:3", entry("3", { labels: ["tool:b", "tag:x", "tag:y"] }))
          yield* store.set("cache:t:4", entry("4", { labels: [] }))
          yield* store.invalidate(["tag:x", "tag:none"])
          const left = yield* Effect.forEach([1, 2, 3, 4], (i) => textOf(store, `cache:t:${i}`))
          assert.deepStrictEqual(left, [undefined, "2", undefined, "4"])
          yield* store.set("cache:t:1", entry("1 again", { labels: ["tool:a", "tag:x"] }))
          assert.strictEqual(yield* textOf(store, "cache:t:1"), "1 again")
          yield* store.clear
          assert.isUndefined(yield* store.get("cache:t:1"))
          assert.isUndefined(yield* store.get("cache:t:4"))
          yield* store.set("cache:t:4", entry("4 again"))
          assert.strictEqual(yield* textOf(store, "cache:t:4"), "4 again")
        })
      ))

    run(
      "does not store what was begun before one of its labels was invalidated",
      () =>
        withStore((store) =>
          Effect.gen(function*() {
            const marked = store.mark
            if (marked === undefined) return
            const before = yield* marked
            yield* store.invalidate(["tag:x"])
            yield* store.set("cache:t:1", entry("1", { labels: ["tool:a", "tag:x"], mark: before }))
            yield* store.set("cache:t:2", entry("2", { labels: ["tool:a", "tag:y"], mark: before }))
            assert.isUndefined(yield* store.get("cache:t:1"))
            assert.strictEqual(yield* textOf(store, "cache:t:2"), "2")
            const after = yield* marked
            yield* store.set("cache:t:1", entry("1", { labels: ["tool:a", "tag:x"], mark: after }))
            assert.strictEqual(yield* textOf(store, "cache:t:1"), "1")
            yield* store.clear
            yield* store.set("cache:t:3", entry("3", { mark: after }))
            assert.isUndefined(yield* store.get("cache:t:3"))
          })
        )
    )

    run(
      "declines keys that are too long or hold control characters",
      () =>
        withStore((store) =>
          Effect.gen(function*() {
            for (const key of ["", "k".repeat(513), "a\nb", "a\u0000b"]) {
              yield* store.set(key, entry("1"))
              assert.isUndefined(yield* store.get(key))
            }
            yield* store.set("k".repeat(512), entry("1"))
            assert.strictEqual(yield* textOf(store, "k".repeat(512)), "1")
          })
        )
    )

    run("counts what it holds", () =>
      withStore((store) =>
        Effect.gen(function*() {
          for (let i = 0; i < 10; i++) yield* store.set(`cache:t:${i}`, entry("x".repeat(1000)))
          const stats = yield* store.stats
          assert.strictEqual(stats.store, store.name)
          if (stats.entries !== undefined) assert.strictEqual(stats.entries, 10)
          if (stats.bytes !== undefined) assert.isAbove(stats.bytes, 10_000)
          assert.strictEqual(stats.evictions, 0)
        })
      ))

    run("keeps the answers of 1,000 tenants apart", () =>
      Effect.gen(function*() {
        const p = yield* ToolPipeline.make(CacheMiddleware.CacheMiddleware)
        const tools = Array.from({ length: 10 }, (_, i) => {
          const tool = ToolMeta.make({
            namespace: `n${i % 3}`,
            name: `t${i}`,
            readOnly: true,
            ...(i % 2 === 0 ? { varies: "tenant" } : {})
          })
          return {
            tool,
            call: p.wrap(tool, () => Effect.map(Identity.CurrentIdentity, (who) => `${tool.id} for ${who.tenant}`))
          }
        })
        const ask = (tenant: number) => {
          const who = Identity.make({ principal: "user", tenant: `tenant${tenant}` })
          return Effect.forEach(tools, ({ call, tool }) =>
            Effect.map(
              Effect.provideService(call({ q: 1 }), Identity.CurrentIdentity, who),
              (answer) => answer === `${tool.id} for tenant${tenant}`
            ))
        }
        const tenants = Array.from({ length: 1000 }, (_, i) => i)
        for (let round = 0; round < 2; round++) {
          const own = (yield* Effect.forEach(tenants, ask, { concurrency: 50 })).flat()
          assert.strictEqual(own.filter((isOwn) => !isOwn).length, 0)
          assert.strictEqual(own.length, 10_000)
        }
        // Not because nothing was kept.
        const { hits, misses } = yield* (yield* ToolCache.ToolCache).stats
        assert.deepStrictEqual({ hits, misses }, { hits: 10_000, misses: 10_000 })
      }).pipe(
        Effect.provide(cached({ store: layer, ...(options?.policy === undefined ? {} : { policy: options.policy }) }))
      ))
  })
}
