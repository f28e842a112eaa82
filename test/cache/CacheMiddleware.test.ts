import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Layer, Metric, Schema, Tracer } from "effect"
import { type CallRecord, ToolCall, ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { CacheKey, CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceError } from "effect-toolops/resilience"
import { HttpClientError, HttpClientRequest } from "effect/http"
import { TestClock } from "effect/testing"
import { type KeptEntry, RecentAnswers } from "../../src/cache/internal/recentAnswers.ts"
import { cached, pipelineOf, Recorder } from "./support.ts"

const search = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })

const counting = <A>(answer: (n: number) => A) => {
  const state = { runs: 0 }
  return { state, handler: Effect.sync(() => answer(++state.runs)) }
}

const as = (identity: Identity.Identity) => Effect.provideService(Identity.CurrentIdentity, identity)
const alice = Identity.make({ principal: "alice", tenant: "acme", roles: ["reader"] })

/** Changes a value in all its parts. */
const spoil = (value: unknown): void => {
  if (typeof value !== "object" || value === null) return
  for (const [name, member] of Object.entries(value)) {
    spoil(member)
    Object.defineProperty(value, name, { value: 99 })
  }
  if (Array.isArray(value)) value.push("spoilt")
}

describe("CacheMiddleware", () => {
  describe("what is cached", () => {
    it.effect("answers the second call of a read-only tool without running it", () => {
      const records: Array<CallRecord.CallRecord> = []
      return Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler, state } = counting((n) => ({ n }))
        assert.deepStrictEqual(yield* p.run({ tool: search, input: { q: 1 } }, handler), { n: 1 })
        assert.deepStrictEqual(yield* p.run({ tool: search, input: { q: 1 } }, handler), { n: 1 })
        assert.deepStrictEqual(yield* p.run({ tool: search, input: { q: 2 } }, handler), { n: 2 })
        assert.strictEqual(state.runs, 2)
        assert.deepStrictEqual(records.map((r) => [r.cache, r.outcome, r.attempts]), [
          ["miss", "ok", 1],
          ["hit", "cached", 0],
          ["miss", "ok", 1]
        ])
        assert.match(records[1]!.cacheKey!, /^cache:docs:search:[0-9a-f]{64}$/)
        assert.strictEqual(records[0]!.cacheKey, records[1]!.cacheKey)
      }).pipe(Effect.provide(cached({ records })))
    })

    const cases: ReadonlyArray<[string, Parameters<typeof ToolMeta.make>[0], boolean]> = [
      ["a tool that says nothing", { name: "t" }, false],
      ["an idempotent write", { name: "t", idempotent: true, destructive: false }, false],
      ["a tool tagged cacheable", { name: "t", tags: ["cacheable"] }, true],
      ["a tool tagged Cacheable", { name: "t", tags: ["Cacheable"] }, true],
      ["a read-only tool", { name: "t", readOnly: true }, true],
      ...["write", "danger", "unsafe", "mutation", "delete", "WRITE", "Delete"].map((tag) =>
        [`a read-only tool tagged ${tag}`, { name: "t", readOnly: true, tags: [tag, "cacheable"] }, false] as [
          string,
          Parameters<typeof ToolMeta.make>[0],
          boolean
        ]
      ),
      ["a tool with ttl 0", { name: "t", readOnly: true, policy: { ttl: 0 } }, false]
    ]
    for (const [name, options, isCached] of cases) {
      it.effect(`${isCached ? "caches" : "does not cache"} ${name}`, () => {
        const records: Array<CallRecord.CallRecord> = []
        return Effect.gen(function*() {
          const p = yield* pipelineOf
          const { handler, state } = counting((n) => n)
          const call = p.run({ tool: ToolMeta.make(options) }, handler)
          yield* call
          yield* call
          assert.strictEqual(state.runs, isCached ? 1 : 2)
          assert.strictEqual(records[1]!.cache, isCached ? "hit" : "bypass")
        }).pipe(Effect.provide(cached({ records })))
      })
    }

    it.effect("caches a tool with an unsafe tag where the policy allows it, and still not one that is no read", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler, state } = counting((n) => n)
        const read = p.run({ tool: ToolMeta.make({ name: "r", readOnly: true, tags: ["danger"] }) }, handler)
        yield* read
        yield* read
        assert.strictEqual(state.runs, 1)
        const write = p.run({ tool: ToolMeta.make({ name: "w", tags: ["write"] }) }, handler)
        yield* write
        yield* write
        assert.strictEqual(state.runs, 3)
      }).pipe(Effect.provide(cached({ policy: { allowUnsafe: true } }))))

    it.effect("gives back what the handler gave, whatever its type, or runs it again", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const kept: ReadonlyArray<unknown> = [
          undefined,
          null,
          "text",
          "b",
          "",
          0,
          true,
          [],
          {},
          [1, [2, { a: null }]],
          JSON.parse("{\"__proto__\":{\"x\":1}}"),
          "\ud800",
          new Uint8Array([0, 1, 255])
        ]
        const notKept: ReadonlyArray<unknown> = [
          -0,
          Number.NaN,
          Infinity,
          1n,
          new Date(0),
          new Map([[1, 2]]),
          new Set([1]),
          { a: undefined },
          [undefined],
          // oxlint-disable-next-line no-sparse-arrays
          [1, , 2],
          { f: () => 1 },
          { [Symbol.for("s")]: 1 },
          Object.create(null),
          Object.assign([1], { extra: 1 }),
          Buffer.from("x"),
          new Uint16Array([1]),
          Object.create({ inherited: 1 }),
          { deep: { date: new Date(0) } },
          /x/,
          Symbol.for("x")
        ]
        for (const [i, value] of [...kept, ...notKept].entries()) {
          const { handler, state } = counting(() => value)
          const call = p.run({ tool: search, input: { i } }, handler)
          assert.deepStrictEqual(yield* call, value)
          const again = yield* call
          assert.deepStrictEqual(again, value)
          assert.strictEqual(Object.is(again, -0), Object.is(value, -0))
          assert.strictEqual(state.runs, i < kept.length ? 1 : 2, `${i}`)
        }
      }).pipe(Effect.provide(cached())))

    it.effect("gives every caller a value of its own", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler } = counting(() => ({ list: [1] }))
        const call = p.run({ tool: search }, handler)
        const first = yield* call
        first.list.push(2)
        const second = yield* call
        assert.deepStrictEqual(second, { list: [1] })
        second.list.push(3)
        assert.deepStrictEqual(yield* call, { list: [1] })
      }).pipe(Effect.provide(cached())))

    it.effect("gives every caller a value of its own, however often and of whatever it is asked", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const answers: ReadonlyArray<unknown> = [
          JSON.parse("{\"__proto__\":{\"x\":[1]},\"constructor\":null,\"2\":1,\"1\":[]}"),
          [[], [[]], {}, { a: [{ b: [null, true, "x", -1.5] }] }],
          { total: 2, items: [{ id: 1, title: "first" }, { id: 2, title: "second" }] },
          new Uint8Array([1, 2]),
          null,
          "text",
          ...Array.from({ length: 100 }, (_, i) => ({ i, list: [i, { i }] })),
          { long: "x".repeat(5000), list: [1] }
        ]
        let runs = 0
        const ask = p.wrap(search, (i: number) => Effect.sync(() => (runs++, structuredClone(answers[i]))))
        for (let round = 0; round < 6; round++) {
          for (const [i, expected] of answers.entries()) {
            const answer = yield* ask(i)
            assert.deepStrictEqual(answer, expected)
            assert.strictEqual(JSON.stringify(answer), JSON.stringify(expected))
            spoil(answer)
          }
        }
        assert.strictEqual(runs, answers.length)
        assert.isUndefined((Object.prototype as { readonly x?: unknown }).x)
      }).pipe(Effect.provide(cached())))

    it("keeps the values of 64 answers of at most 2,048 characters, until they are forgotten", () => {
      const recent = new RecentAnswers()
      const keep = (text: string) => {
        const entry: KeptEntry = { key: "k", text, freshUntil: 1, keepUntil: 1 }
        for (let i = 0; i < 3; i++) assert.deepStrictEqual(recent.valueOf(entry, JSON.parse), JSON.parse(text))
        return entry
      }
      const isKept = (entry: KeptEntry) => typeof entry["~asked"] === "function"
      const text = (length: number) => JSON.stringify(["x".repeat(length - 4)])
      assert.isTrue(isKept(keep(text(2048))))
      assert.isFalse(isKept(keep(text(2049))))
      const entries = Array.from({ length: 100 }, (_, i) => keep(JSON.stringify({ i })))
      assert.deepStrictEqual(entries.map(isKept), Array.from({ length: 100 }, (_, i) => i >= 36))
      // One that had to make room may come back.
      assert.isTrue(isKept(keep(entries[0]!.text)))
      recent.clear()
      assert.isFalse(entries.some(isKept))
    })

    it.effect("keeps no value of an answer that was invalidated", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const cache = yield* ToolCache.ToolCache
        const call = p.run({ tool: search, input: 1 }, Effect.succeed({ n: 1 }))
        const targets = [
          cache.clear,
          cache.invalidate({ tool: "docs:search" }),
          Effect.suspend(() =>
            cache.invalidate({ key: CacheKey.make({ tool: search, input: 1, identity: Identity.anonymous })! })
          )
        ]
        for (const forget of targets) {
          for (let i = 0; i < 4; i++) yield* call
          assert.isAbove(cache["~engine"].recent.size, 0)
          yield* forget
          assert.strictEqual(cache["~engine"].recent.size, 0)
        }
      }).pipe(Effect.provide(cached())))

    it.effect("gives answers back through the tool's Schema", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const tool = ToolMeta.make({
          name: "when",
          readOnly: true,
          input: Schema.Struct({ day: Schema.Date }),
          success: Schema.Struct({ at: Schema.Date, big: Schema.BigInt })
        })
        const { handler, state } = counting(() => ({ at: new Date(5), big: 12n }))
        const call = p.run({ tool, input: { day: new Date(7) } }, handler)
        yield* call
        assert.deepStrictEqual(yield* call, { at: new Date(5), big: 12n })
        yield* p.run({ tool, input: { day: new Date(8) } }, handler)
        assert.strictEqual(state.runs, 2)
        const more = counting(() => ({ at: new Date(5), big: 12n, extra: 1 }))
        const other = p.run({ tool, input: { day: new Date(9) } }, more.handler)
        yield* other
        assert.deepStrictEqual(yield* other, { at: new Date(5), big: 12n, extra: 1 })
        assert.strictEqual(more.state.runs, 2)
      }).pipe(Effect.provide(cached())))

    it.effect("never stores failures, defects, interruptions, MCP errors and questions back to the client", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        let runs = 0
        for (
          const outcome of [
            Effect.fail("no"),
            Effect.die("no"),
            Effect.interrupt,
            Effect.succeed({ isError: true, content: [] }),
            Effect.succeed({ resultType: "input_required", requestState: "s" })
          ]
        ) {
          const call = Effect.exit(p.run(
            { tool: search },
            Effect.suspend((): Effect.Effect<unknown, string> => {
              runs++
              return outcome
            })
          ))
          const before = runs
          const first = yield* call
          const second = yield* call
          assert.deepStrictEqual(first, second)
          assert.strictEqual(runs, before + 2)
        }
      }).pipe(Effect.provide(cached())))

    it.effect("runs a call whose input has no key, and counts it", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler, state } = counting((n) => n)
        const cyclic: Record<string, unknown> = {}
        cyclic["self"] = cyclic
        for (const input of [new Date(0), cyclic, { n: Number.NaN }]) {
          yield* p.run({ tool: search, input }, handler)
          yield* p.run({ tool: search, input }, handler)
        }
        assert.strictEqual(state.runs, 6)
        const stats = yield* (yield* ToolCache.ToolCache).stats
        assert.strictEqual(stats.uncacheable, 6)
        assert.strictEqual(stats.stores[0]!.entries, 0)
      }).pipe(Effect.provide(cached())))
  })

  describe("who is given an answer", () => {
    const tools = {
      identity: ToolMeta.make({ name: "mine", readOnly: true }),
      tenant: ToolMeta.make({ name: "ours", readOnly: true, varies: "tenant" }),
      everyone: ToolMeta.make({ name: "all", readOnly: true, varies: "everyone" })
    }
    const others = {
      roles: Identity.make({ principal: "alice", tenant: "acme", roles: ["admin"] }),
      scopes: Identity.make({ principal: "alice", tenant: "acme", roles: ["reader"], scopes: ["x"] }),
      bob: Identity.make({ principal: "bob", tenant: "acme", roles: ["reader"] }),
      tenant: Identity.make({ principal: "alice", tenant: "other", roles: ["reader"] }),
      tenantless: Identity.make({ principal: "alice", roles: ["reader"] })
    }
    const shares: Record<keyof typeof tools, ReadonlyArray<keyof typeof others>> = {
      identity: [],
      tenant: ["roles", "scopes", "bob"],
      everyone: ["roles", "scopes", "bob", "tenant", "tenantless"]
    }
    for (const varies of ["identity", "tenant", "everyone"] as const) {
      for (const other of ["roles", "scopes", "bob", "tenant", "tenantless"] as const) {
        const isShared = shares[varies].includes(other)
        it.effect(`${isShared ? "shares" : "does not share"} ${varies} answers with another ${other}`, () =>
          Effect.gen(function*() {
            const p = yield* pipelineOf
            const { handler } = counting((n) => n)
            const call = p.run({ tool: tools[varies] }, handler)
            assert.strictEqual(yield* as(alice)(call), 1)
            assert.strictEqual(yield* as(others[other])(call), isShared ? 1 : 2)
            assert.strictEqual(yield* as(alice)(call), 1)
          }).pipe(Effect.provide(cached())))
      }
    }

    it.effect("takes the caller from the record before the one in the context", () =>
      Effect.gen(function*() {
        const setter = ToolMiddleware.of<never>({
          name: "auth",
          forTool: () => (call, next) =>
            Effect.suspend(() => {
              call.record.identity = Identity.make({ principal: call.callId })
              return next
            })
        })
        const p = yield* Effect.provide(
          ToolPipeline.make(Recorder, CacheMiddleware.CacheMiddleware),
          Layer.succeed(Recorder, setter)
        )
        const { handler } = counting((n) => n)
        const run = (callId: string) => as(alice)(p.run(ToolCall.make({ tool: search, callId }), handler))
        assert.deepStrictEqual([yield* run("a"), yield* run("b"), yield* run("a")], [1, 2, 1])
      }).pipe(Effect.provide(cached())))
  })

  describe("how long", () => {
    it.effect("keeps an answer for the default ttl, the tool's, or the result's, and never longer than maxTtl", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const lives = (policy: ToolMeta.ToolPolicy) =>
          Effect.gen(function*() {
            const { handler, state } = counting((n) => n)
            const call = p.run({
              tool: ToolMeta.make({ name: `t${JSON.stringify(Object.keys(policy)).length}`, readOnly: true, policy }),
              input: String(Math.random())
            }, handler)
            let seconds = 0
            yield* call
            while (state.runs === 1 && seconds < 5000) {
              yield* TestClock.adjust("1 second")
              seconds++
              yield* call
            }
            return seconds
          })
        assert.strictEqual(yield* lives({}), 300)
        assert.strictEqual(yield* lives({ ttl: "10 seconds" }), 10)
        assert.strictEqual(yield* lives({ ttl: "48 hours" }), 3600)
        assert.strictEqual(yield* lives({ ttl: "10 seconds", ttlOf: () => "20 seconds" }), 20)
        assert.strictEqual(yield* lives({ ttl: "10 seconds", ttlOf: () => undefined }), 10)
        assert.strictEqual(yield* lives({ ttlOf: () => "48 hours" }), 3600)
        assert.strictEqual(yield* lives({ ttlOf: () => 0 }), 1)
      }).pipe(Effect.provide(cached())))

    it.effect("caches only tools with a ttl of their own when the default is 0", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler, state } = counting((n) => n)
        const plain = p.run({ tool: search }, handler)
        yield* plain
        yield* plain
        assert.strictEqual(state.runs, 2)
        const own = p.run(
          { tool: ToolMeta.make({ name: "own", readOnly: true, policy: { ttl: "1 minute" } }) },
          handler
        )
        yield* own
        yield* own
        assert.strictEqual(state.runs, 3)
      }).pipe(Effect.provide(cached({ policy: { defaultTtl: 0 } }))))

    it.effect("shortens times by up to the jitter", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler, state } = counting((n) => n)
        const inputs = Array.from({ length: 200 }, (_, i) => p.run({ tool: search, input: i }, handler))
        const all = Effect.all(inputs)
        yield* all
        yield* TestClock.adjust("149 seconds")
        yield* all
        assert.strictEqual(state.runs, 200)
        yield* TestClock.adjust("76 seconds")
        yield* all
        assert.isAbove(state.runs, 240)
        assert.isBelow(state.runs, 360)
        yield* TestClock.adjust("300 seconds")
        const before = state.runs
        yield* all
        assert.strictEqual(state.runs - before, 200)
      }).pipe(Effect.provide(cached({ policy: { jitter: 0.5 } }))))

    it.effect("does not keep an answer that is larger than maxEntryBytes of UTF-8", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const tool = ToolMeta.make({ name: "big", readOnly: true, policy: { maxEntryBytes: 12 } })
        for (
          const [text, runs] of [["x".repeat(10), 1], ["x".repeat(11), 2], ["€".repeat(3), 1], [
            "€".repeat(4),
            2
          ]] as const
        ) {
          const { handler, state } = counting(() => text)
          const call = p.run({ tool, input: text }, handler)
          yield* call
          assert.strictEqual(yield* call, text)
          assert.strictEqual(state.runs, runs)
        }
      }).pipe(Effect.provide(cached())))
  })

  describe("what the caller asks for", () => {
    it.effect("bypasses and refreshes", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler } = counting((n) => n)
        const call = p.run({ tool: search }, handler)
        const mode = (m: "use" | "bypass" | "refresh") => Effect.provideService(call, CacheMiddleware.CacheMode, m)
        assert.strictEqual(yield* call, 1)
        assert.strictEqual(yield* mode("bypass"), 2)
        assert.strictEqual(yield* call, 1)
        assert.strictEqual(yield* mode("refresh"), 3)
        assert.strictEqual(yield* call, 3)
      }).pipe(Effect.provide(cached())))

    it.effect("says where an answer came from", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const inner = p.run({ tool: ToolMeta.make({ name: "inner" }) }, Effect.succeed(1))
        const call = CacheMiddleware.withStatus(p.run({ tool: search }, inner))
        assert.deepStrictEqual(yield* call, { value: 1, cache: "miss" })
        assert.deepStrictEqual(yield* call, { value: 1, cache: "hit" })
        assert.deepStrictEqual(yield* CacheMiddleware.withStatus(Effect.succeed(2)), { value: 2, cache: undefined })
      }).pipe(Effect.provide(cached())))
  })

  describe("stale answers", () => {
    const swr = ToolMeta.make({
      name: "swr",
      readOnly: true,
      policy: { ttl: "10 seconds", staleWhileRevalidate: "20 seconds" }
    })

    it.effect("gives an old answer at once while one call in the background fetches a new one", () => {
      const records: Array<CallRecord.CallRecord> = []
      return Effect.gen(function*() {
        const p = yield* pipelineOf
        const gate = yield* Deferred.make<void>()
        let runs = 0
        const callers: Array<string> = []
        const call = as(alice)(p.run(
          { tool: swr },
          Effect.gen(function*() {
            runs++
            callers.push((yield* Identity.CurrentIdentity).principal)
            if (runs > 1) yield* Deferred.await(gate)
            return runs
          })
        ))
        assert.strictEqual(yield* call, 1)
        yield* TestClock.adjust("15 seconds")
        assert.deepStrictEqual(yield* Effect.all([call, call, call], { concurrency: 3 }), [1, 1, 1])
        yield* Effect.yieldNow
        assert.strictEqual(yield* call, 1)
        assert.strictEqual(runs, 2)
        yield* Deferred.succeed(gate, undefined)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* call, 2)
        assert.deepStrictEqual(callers, ["alice", "alice"])
        assert.deepStrictEqual(records.map((r) => r.outcome), ["ok", "stale", "stale", "stale", "stale", "cached"])
        const stats = yield* (yield* ToolCache.ToolCache).stats
        assert.strictEqual(stats.refreshes, 1)
        yield* TestClock.adjust("31 seconds")
        assert.strictEqual(yield* call, 3)
      }).pipe(Effect.provide(cached({ records })))
    })

    it.effect("keeps the old answer when the refresh fails, and tries again at the next call", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        let runs = 0
        const call = p.run(
          { tool: swr },
          Effect.suspend(() => ++runs === 2 ? Effect.fail("down") : Effect.succeed(runs))
        )
        assert.strictEqual(yield* call, 1)
        yield* TestClock.adjust("11 seconds")
        assert.strictEqual(yield* call, 1)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(runs, 2)
        assert.strictEqual(yield* call, 1)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* call, 3)
      }).pipe(Effect.provide(cached())))

    it.effect("counts refreshes that fail, and tells of their executions as of any other", () => {
      const spans: Array<Tracer.NativeSpan> = []
      const events: Array<string> = []
      class Span extends Tracer.NativeSpan {
        override event(name: string): void {
          events.push(name)
        }
      }
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Span(options)
          spans.push(span)
          return span
        }
      })
      const retried = ToolMiddleware.of<never>({
        name: "recorder",
        forTool: () => (_call, next) => Effect.retry(next, { times: 1 })
      })
      return Effect.gen(function*() {
        const p = yield* ToolPipeline.make(
          ObserveMiddleware.ObserveMiddleware,
          CacheMiddleware.CacheMiddleware,
          Recorder
        )
        let runs = 0
        const call = p.run(
          { tool: swr },
          Effect.suspend(() => ++runs === 1 ? Effect.succeed(1) : Effect.fail({ _tag: "Down" }))
        )
        assert.strictEqual(yield* call, 1)
        yield* TestClock.adjust("11 seconds")
        assert.strictEqual(yield* call, 1)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(runs, 3)
        const counts = (yield* Metric.snapshot).flatMap(({ attributes, id, state }) =>
          id.startsWith("tool.exec.") && "count" in state && attributes?.["tool.id"] === "swr"
            ? [[id, state.count]]
            : []
        )
        assert.deepStrictEqual(Object.fromEntries(counts), {
          "tool.exec.total": 3,
          "tool.exec.errors": 2,
          "tool.exec.duration": 3
        })
        const [first, ...more] = spans.filter((span) => span.name === "tool.exec.swr")
        assert.strictEqual(first!.status._tag, "Ended")
        assert.deepStrictEqual(more.map((span) => span.attributes.get("error.type")), ["Down", "Down"])
        // The span of the call whose answer was stale is told nothing of the refresh.
        assert.strictEqual(spans.filter((span) => span.name === "execute_tool swr").length, 2)
        assert.deepStrictEqual(events, ["tool.cache.hit"])
        const stats = yield* (yield* ToolCache.ToolCache).stats
        assert.deepInclude(stats, { refreshes: 1, failedRefreshes: 1 })
      }).pipe(
        Effect.provide(
          Layer.mergeAll(cached(), ObserveMiddleware.layer({ log: false }), Layer.succeed(Recorder, retried))
        ),
        Effect.provideService(Tracer.Tracer, tracer),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    })

    it.effect("writes nothing of a refresh into the record of the call whose answer was stale", () => {
      const records: Array<CallRecord.CallRecord> = []
      return Effect.gen(function*() {
        const p = yield* pipelineOf
        const calls: Array<ToolCall.ToolCall> = []
        const down = new ResilienceError.ResilienceError({
          reason: new ResilienceError.BulkheadFull({ name: "x", retryAfter: Duration.seconds(1) })
        })
        const guarded = p.wrap(swr, (_, call) =>
          Effect.suspend(() => {
            calls.push(call)
            call.record.dependency = `run ${calls.length}`
            return calls.length === 1
              ? Effect.succeed({ isError: false })
              : Effect.fail(call.record.refuse("rejected", down))
          }))
        const call = as(alice)(guarded(1))
        yield* call
        yield* TestClock.adjust("11 seconds")
        yield* call
        const told = structuredClone({ ...records[1]! })
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(calls.length, 2)
        assert.deepStrictEqual(structuredClone({ ...records[1]! }), told)
        assert.deepInclude(told, { outcome: "stale", attempts: 0, dependency: undefined, refusedBy: undefined })
        // The handler sees the call that it was, made by whom it was.
        const [first, second] = calls
        assert.notStrictEqual(second!.record, records[1])
        assert.strictEqual(second!.input, first!.input)
        assert.deepInclude(second!.record, { attempts: 1, cacheKey: told.cacheKey, refusedAs: "rejected" })
        assert.strictEqual(records.length, 2)
      }).pipe(Effect.provide(cached({ records })))
    })

    it.effect("refreshes as the caller that the record names", () => {
      const authenticated = ToolMiddleware.of<never>({
        name: "recorder",
        forTool: () => (call, next) => {
          Object.assign(call.record, { identity: alice, rule: "rule" })
          return next
        }
      })
      return Effect.gen(function*() {
        const p = yield* pipelineOf
        const calls: Array<unknown> = []
        const call = p.wrap(
          swr,
          (_: number, { record: { cacheKey, identity, rule } }) =>
            Effect.sync(() => calls.push({ cacheKey, identity, rule }))
        )(1)
        yield* call
        yield* TestClock.adjust("11 seconds")
        yield* call
        yield* TestClock.adjust("1 millis")
        const cacheKey = CacheKey.make({ tool: swr, input: 1, identity: alice })
        assert.deepStrictEqual(calls, [0, 1].map(() => ({ cacheKey, identity: alice, rule: "rule" })))
      }).pipe(Effect.provide(Layer.mergeAll(cached(), Layer.succeed(Recorder, authenticated))))
    })

    it.effect("ends a refresh with the layer's scope", () =>
      Effect.gen(function*() {
        let interrupted = 0
        yield* Effect.gen(function*() {
          const p = yield* pipelineOf
          let runs = 0
          const call = p.run(
            { tool: swr },
            Effect.suspend(() =>
              ++runs === 1
                ? Effect.succeed(1)
                : Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
            )
          )
          yield* call
          yield* TestClock.adjust("11 seconds")
          yield* call
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(runs, 2)
          assert.strictEqual(interrupted, 0)
        }).pipe(Effect.provide(cached()))
        assert.strictEqual(interrupted, 1)
      }))

    const resilience = (reason: ResilienceError.ResilienceError["reason"]) =>
      new ResilienceError.ResilienceError({ reason })
    const request = HttpClientRequest.get("http://localhost/")
    const second = Duration.seconds(1)

    it.effect("gives an old answer when the tool cannot be reached, and says so", () => {
      const records: Array<CallRecord.CallRecord> = []
      return Effect.gen(function*() {
        const p = yield* pipelineOf
        const tool = ToolMeta.make({
          name: "sie",
          readOnly: true,
          policy: { ttl: "10 seconds", staleIfError: "20 seconds", staleIf: (error) => error === "also" }
        })
        let error: unknown = undefined
        const call = p.run({ tool }, Effect.suspend(() => error === undefined ? Effect.succeed(1) : Effect.fail(error)))
        yield* call
        yield* TestClock.adjust("11 seconds")
        for (
          const unavailable of [
            resilience(new ResilienceError.CircuitOpen({ name: "x", retryAfter: second })),
            resilience(new ResilienceError.TimedOut({ name: "x", timeout: second })),
            resilience(new ResilienceError.RetriesExhausted({ attempts: 3, cause: { code: "ECONNREFUSED" } })),
            new HttpClientError.HttpClientError({ reason: new HttpClientError.TransportError({ request }) }),
            { _tag: "Mine", cause: { _tag: "Other", cause: { code: "ECONNRESET" } } },
            "also"
          ]
        ) {
          error = unavailable
          assert.deepStrictEqual(yield* CacheMiddleware.withStatus(call), { value: 1, cache: "stale" })
          assert.strictEqual(records.at(-1)!.outcome, "stale")
        }
        for (
          const own of [
            "no",
            { _tag: "NotFound" },
            resilience(new ResilienceError.BulkheadFull({ name: "x", retryAfter: second })),
            new HttpClientError.HttpClientError({ reason: new HttpClientError.InvalidUrlError({ request }) })
          ]
        ) {
          error = own
          assert.deepStrictEqual(yield* Effect.exit(call), Exit.fail(own))
        }
        yield* TestClock.adjust("20 seconds")
        error = "also"
        assert.deepStrictEqual(yield* Effect.exit(call), Exit.fail("also"))
      }).pipe(Effect.provide(cached({ records })))
    })
  })

  it.effect("gives no old answer that was invalidated while the call failed", () =>
    Effect.gen(function*() {
      const p = yield* pipelineOf
      const cache = yield* ToolCache.ToolCache
      const tool = ToolMeta.make({ name: "sie", readOnly: true, policy: { ttl: "1 second", staleIfError: "1 hour" } })
      const down = { code: "ECONNRESET" }
      let isDown = false
      const call = p.run(
        { tool },
        Effect.suspend(() =>
          isDown
            ? Effect.andThen(Effect.orDie(cache.invalidate({ tool: "sie" })), Effect.fail(down))
            : Effect.succeed(1)
        )
      )
      yield* call
      yield* TestClock.adjust("2 seconds")
      isDown = true
      assert.deepStrictEqual(yield* Effect.exit(call), Exit.fail(down))
    }).pipe(Effect.provide(cached())))

  describe("writes", () => {
    const read = ToolMeta.make({
      namespace: "crm",
      name: "get",
      readOnly: true,
      policy: { tags: (call) => [`customer:${String(call.input)}`] }
    })
    const write = ToolMeta.make({
      namespace: "crm",
      name: "put",
      policy: { invalidates: (call) => [`customer:${String(call.input)}`] }
    })

    const outcomes: ReadonlyArray<[string, Effect.Effect<unknown, unknown>]> = [
      ["succeeded", Effect.succeed(1)],
      ["failed", Effect.fail("no")],
      ["died", Effect.die("no")],
      ["was interrupted", Effect.interrupt]
    ]
    for (const [name, outcome] of outcomes) {
      it.effect(`forgets what a write invalidates when it ${name}`, () =>
        Effect.gen(function*() {
          const p = yield* pipelineOf
          const { handler } = counting((n) => n)
          const get = (id: number) => p.run({ tool: read, input: id }, handler)
          assert.deepStrictEqual([yield* get(1), yield* get(2)], [1, 2])
          const exit = yield* Effect.exit(p.run({ tool: write, input: 1 }, outcome))
          assert.strictEqual(exit._tag, name === "succeeded" ? "Success" : "Failure")
          assert.deepStrictEqual([yield* get(1), yield* get(2)], [3, 2])
        }).pipe(Effect.provide(cached())))
    }

    it.effect("forgets the namespace when the policy cannot say what a write has changed", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const { handler } = counting((n) => n)
        const get = p.run({ tool: read, input: 1 }, handler)
        const bad = ToolMeta.make({
          namespace: "crm",
          name: "bad",
          policy: { invalidates: (_, result) => [(result as { readonly id: string }).id] }
        })
        yield* get
        yield* Effect.exit(p.run({ tool: bad }, Effect.fail("no")))
        assert.strictEqual(yield* get, 2)
      }).pipe(Effect.provide(cached())))

    it.effect("neither stores nor shares an answer that was begun before the write", () =>
      Effect.gen(function*() {
        const p = yield* pipelineOf
        const gate = yield* Deferred.make<void>()
        let runs = 0
        const get = p.run(
          { tool: read, input: 1 },
          Effect.suspend(() => {
            const n = ++runs
            return n === 1 ? Effect.as(Deferred.await(gate), n) : Effect.succeed(n)
          })
        )
        const early = yield* Effect.forkChild(get, { startImmediately: true })
        yield* p.run({ tool: write, input: 1 }, Effect.succeed(1))
        // A read after the write is not given what was read before it, not even by waiting.
        assert.strictEqual(yield* get, 2)
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual(yield* Fiber.join(early), 1)
        assert.strictEqual(yield* get, 2)
      }).pipe(Effect.provide(cached())))
  })
})
