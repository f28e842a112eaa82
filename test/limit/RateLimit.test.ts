import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Duration, Effect, Exit, Fiber, Layer, Schema } from "effect"
import { ToolCall, ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { RateLimit, RateLimitError, RateLimitStore } from "effect-toolops/limit"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import { alice, bob, carol, limited } from "./limited.ts"
import { used } from "./used.ts"

const echo = ToolMeta.make({ name: "echo" })
const write = ToolMeta.make({ namespace: "files", name: "write" })
const read = ToolMeta.make({ namespace: "files", name: "read" })

describe("RateLimit", () => {
  describe("one limit", () => {
    it.effect("says in one line what toolops's per-second token bucket of rate 100 and burst 10 says", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [{ name: "all", per: "global", limit: 100, window: "1 second", burst: 10 }]
        })
        assert.strictEqual(yield* t.count(15, echo), 10)
        yield* TestClock.adjust("10 millis")
        assert.strictEqual(yield* t.count(5, echo), 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* t.count(15, echo), 10)
      }))

    it.effect("holds as many tokens as the limit when no burst is given, and gives them back evenly", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "all", per: "global", limit: 4, window: "1 second" }] })
        assert.strictEqual(yield* t.count(10, echo), 4)
        for (let i = 0; i < 4; i++) {
          yield* TestClock.adjust("249 millis")
          assert.strictEqual(yield* t.count(1, echo), 0)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* t.count(2, echo), 1)
        }
      }))

    for (const [limit, window] of [[3, "1 second"], [7, "1 minute"], [1000, "1 hour"], [1, "3 seconds"]] as const) {
      it.effect(`tells exactly when a call passes again at ${limit} in ${window}`, () =>
        Effect.gen(function*() {
          const t = yield* limited({ limits: [{ name: "all", per: "global", limit, window }] })
          yield* TestClock.adjust("123 millis")
          assert.strictEqual(yield* t.count(limit + 1, echo), limit)
          const { retryAfter } = yield* t.refusal(echo)
          assert.strictEqual(retryAfter, Math.ceil(Duration.toMillis(window) / limit))
          yield* TestClock.adjust(retryAfter - 1)
          assert.isFalse(yield* t.passes(echo))
          yield* TestClock.adjust(1)
          assert.isTrue(yield* t.passes(echo))
        }))
    }

    it.effect("is not moved by a step of the wall clock", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "all", per: "global", limit: 2, window: "1 second" }] })
        assert.strictEqual(yield* t.count(3, echo), 2)
        yield* TestClock.setTime(-3_600_000)
        assert.strictEqual((yield* t.refusal(echo)).retryAfter, 500)
        yield* TestClock.adjust("500 millis")
        assert.isTrue(yield* t.passes(echo))
      }))

    it.effect("refuses with an error that names the limit, has no stack and encodes", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "all", per: "global", limit: 1, window: "2 seconds" }] })
        yield* t.run(echo, alice)
        const error = yield* Effect.flip(t.run(echo, alice))
        assert.instanceOf(error, RateLimitError.RateLimitError)
        assert.strictEqual(Duration.toMillis(error.retryAfter ?? 0), 2000)
        const codec = Schema.toCodecJson(RateLimitError.RateLimitError)
        assert.deepStrictEqual(JSON.parse(JSON.stringify(yield* Schema.encodeEffect(codec)(error))), {
          _tag: "RateLimitError",
          reason: { _tag: "RateLimited", limit: "all", per: "global", retryAfter: 2000 }
        })
        assert.notInclude(inspect(error, { depth: 9 }), "alice")
      }))
  })

  describe("several limits", () => {
    it.effect("spends nothing of any limit when one of them refuses", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [
            { name: "tool", per: "tool", limit: 5, window: "1 hour" },
            { name: "caller", per: "identity", limit: 1, window: "1 hour" },
            { name: "tenant", per: "tenant", limit: 5, window: "1 hour" }
          ]
        })
        assert.strictEqual(yield* t.count(50, echo, alice), 1)
        assert.deepStrictEqual(
          t.records.at(-1)?.limits?.map((status) => [status.name, status.allowed, status.remaining]),
          [
            ["tool", true, 4],
            ["caller", false, 0],
            ["tenant", true, 4]
          ]
        )
        assert.strictEqual(yield* t.count(50, echo, bob), 1)
        assert.deepStrictEqual(t.records.at(-1)?.limits?.map((status) => status.remaining), [3, 0, 3])
      }))

    it.effect("tells the longest retryAfter of the refusing limits, and which limit that is", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [
            { name: "fast", per: "global", limit: 1, window: "1 second" },
            { name: "slow", per: "identity", limit: 1, window: "1 minute" },
            { name: "middle", per: "tool", limit: 1, window: "10 seconds" }
          ]
        })
        yield* t.run(echo, alice)
        assert.deepStrictEqual(yield* t.refusal(echo, alice), { limit: "slow", per: "identity", retryAfter: 60_000 })
        assert.deepStrictEqual(yield* t.refusal(echo, bob), { limit: "middle", per: "tool", retryAfter: 10_000 })
        assert.deepStrictEqual(yield* t.refusal(read, bob), { limit: "fast", per: "global", retryAfter: 1000 })
      }))

    it.effect("writes what each limit said into the record, and tells a refused call as limited", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 2, window: "2 seconds" }] })
        yield* Effect.exit(t.run(echo, alice))
        yield* Effect.exit(t.run(echo, alice))
        yield* Effect.exit(t.run(echo, alice))
        assert.deepStrictEqual(t.records.map((record) => record.outcome), ["ok", "ok", "limited"])
        assert.deepStrictEqual(t.records.map((record) => record.errorType), [undefined, undefined, "RateLimited"])
        assert.deepStrictEqual(
          t.records.map((record) => record.limits?.map((s) => [s.name, s.allowed, s.remaining, s.resetAfterMillis])),
          [[["caller", true, 1, 1000]], [["caller", true, 0, 2000]], [["caller", false, 0, 2000]]]
        )
        assert.deepStrictEqual(t.records.map((record) => record.attempts), [1, 1, 0])
        assert.notInclude(inspect(t.records[0]?.limits, { depth: 9, showHidden: true }), "alice")
        assert.notInclude(JSON.stringify(t.records[0]?.limits), "alice")
      }))
  })

  describe("whom a limit concerns", () => {
    it.effect("counts each principal of each tenant apart", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 2, window: "1 hour" }] })
        for (const caller of [alice, bob, carol]) {
          assert.strictEqual(yield* t.count(2, echo, caller), 2)
          assert.strictEqual(yield* t.count(2, read, caller), 0)
        }
      }))

    it.effect("counts a tenant together, and callers without a tenant as one", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "tenant", per: "tenant", limit: 3, window: "1 hour" }] })
        assert.strictEqual((yield* t.count(2, echo, alice)) + (yield* t.count(2, read, bob)), 3)
        assert.strictEqual(yield* t.count(4, echo, carol), 3)
        const loose = Identity.make({ principal: "dave" })
        assert.strictEqual((yield* t.count(2, echo, loose)) + (yield* t.count(2, echo)), 3)
        assert.strictEqual(yield* t.count(4, echo, Identity.make({ principal: "x", tenant: "" })), 3)
      }))

    it.effect("counts each tool apart, for all callers or for one", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [
            { name: "tool", per: "tool", limit: 3, window: "1 hour" },
            { name: "pair", per: "identity+tool", limit: 2, window: "1 hour" }
          ]
        })
        assert.strictEqual(yield* t.count(5, read, alice), 2)
        assert.strictEqual(yield* t.count(5, read, bob), 1)
        assert.strictEqual(yield* t.count(5, write, alice), 2)
      }))

    it.effect("counts a tool once, however often it is described", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "tool", per: "tool", limit: 2, window: "1 hour" }] })
        let passed = 0
        for (let i = 0; i < 10; i++) passed += yield* t.count(1, ToolMeta.make({ name: "same" }))
        assert.strictEqual(passed, 2)
      }))

    it.effect("concerns the tools that its patterns name and no others", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [{ name: "files", per: "global", limit: 1, window: "1 hour", tools: ["files:*", "exact"] }]
        })
        assert.strictEqual(yield* t.count(3, echo), 3)
        assert.strictEqual((yield* t.count(3, write)) + (yield* t.count(3, ToolMeta.make({ name: "exact" }))), 1)
        assert.strictEqual(yield* t.count(3, ToolMeta.make({ namespace: "other", name: "exact" })), 3)
      }))

    it.effect("concerns the callers who hold one of its roles and no others", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [{ name: "writers", per: "identity", limit: 1, window: "1 hour", roles: ["admin", "auditor"] }]
        })
        assert.strictEqual(yield* t.count(3, echo, alice), 3)
        assert.strictEqual(yield* t.count(3, echo, bob), 1)
        assert.strictEqual(yield* t.count(3, echo), 3)
      }))

    it.effect("counts anonymous callers by their peer, and together when there is none", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 2, window: "1 hour" }] })
        const from = (peer: string) => Effect.provideService(t.count(3, echo), RateLimit.CurrentPeer, peer)
        assert.strictEqual(yield* from("192.0.2.1"), 2)
        assert.strictEqual(yield* from("192.0.2.2"), 2)
        assert.strictEqual(yield* from("192.0.2.1"), 0)
        assert.strictEqual(yield* t.count(3, echo), 2)
        assert.strictEqual(yield* from(""), 0)
        assert.strictEqual(yield* t.count(3, echo, Identity.anonymous), 0)
      }))

    const network: ReadonlyArray<readonly [string, string, boolean]> = [
      ["2001:db8:1:2::1", "2001:0DB8:0001:0002:ffff:ffff:ffff:ffff", true],
      ["2001:db8:1:2::1", "2001:db8:1:3::1", false],
      ["2001:db8::1", "2001:db8::1:2:3:4", true],
      ["fe80::1%eth0", "fe80::2%eth1", true],
      ["::ffff:192.0.2.1", "192.0.2.1", true],
      ["::ffff:c000:201", "192.0.2.1", true],
      ["::ffff:192.0.2.1", "::ffff:192.0.2.2", false],
      ["192.0.2.1", "192.0.2.2", false],
      ["2001:db8::1::1", "2001:db8::1::2", false],
      ["2001:db8:1:2:3:4:5", "2001:db8:1:2:3:4:6", false],
      ["2001:db8:1:2:3:4:5:6:7", "2001:db8:1:2:3:4:5:6:8", false],
      ["2001:db8:1:2::12345", "2001:db8:1:2::12346", false],
      ["2001:db8:1:2::300.0.0.1", "2001:db8:1:2::300.0.0.2", false],
      ["unix:/run/a", "unix:/run/b", false]
    ]
    for (const [one, other, together] of network) {
      it.effect(`counts the peers ${one} and ${other} ${together ? "together" : "apart"}`, () =>
        Effect.gen(function*() {
          const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 1, window: "1 hour" }] })
          const from = (peer: string) => Effect.provideService(t.count(2, echo), RateLimit.CurrentPeer, peer)
          assert.strictEqual(yield* from(one), 1)
          assert.strictEqual(yield* from(other), together ? 0 : 1)
        }))
    }

    it.effect("lets no flood of anonymous callers lock out one who is known and comes late", () =>
      Effect.gen(function*() {
        const t = yield* limited(
          { limits: [{ name: "caller", per: "identity", limit: 2, window: "1 hour" }] },
          RateLimitStore.layerMemory({ maxKeys: 100 })
        )
        let passed = 0
        for (let i = 0; i < 200; i++) {
          passed += yield* Effect.provideService(t.count(1, echo), RateLimit.CurrentPeer, `10.0.0.${i}`)
        }
        assert.strictEqual(passed, 102)
        assert.strictEqual(yield* t.count(3, echo, alice), 2)
        assert.strictEqual(yield* t.count(3, echo, bob), 0, "callers who are known share a bucket, too")
        const refusedAnonymous = yield* Effect.provideService(t.count(1, echo), RateLimit.CurrentPeer, "10.0.1.1")
        assert.strictEqual(refusedAnonymous, 0)
      }))

    for (const per of ["identity", "tenant"] as const) {
      it.effect(`remembers a caller once for all tools of a limit per ${per}`, () =>
        Effect.gen(function*() {
          const t = yield* limited({ limits: [{ name: "caller", per, limit: 1000, window: "1 hour" }] })
          const tools = Array.from({ length: 50 }, (_, i) => t.limits.forTool(ToolMeta.make({ name: `t${i}` })))
          const callers = Array.from({ length: 1000 }, (_, i) =>
            Identity.make({ principal: `user-${i}`, tenant: `tenant-${i}` }))
          const calls = (around: (typeof tools)[number]) =>
            Effect.forEach(callers, (caller) =>
              around(t.call(echo, caller), Effect.void), { discard: true })
          yield* calls(tools[0]!)
          const start = used()
          for (const tool of tools) yield* calls(tool)
          const grown = (used() - start) / callers.length
          assert.isBelow(grown, 300, "bytes per caller for 49 more tools")
        }))
    }

    it.effect("does not count an authenticated caller by their peer", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 2, window: "1 hour" }] })
        const from = (peer: string) => Effect.provideService(t.count(2, echo, alice), RateLimit.CurrentPeer, peer)
        assert.strictEqual((yield* from("192.0.2.1")) + (yield* from("192.0.2.2")), 2)
      }))

    it.effect("takes the caller from the record before the context", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 1, window: "1 hour" }] })
        const around = t.limits.forTool(echo)
        const passes = (inRecord: Identity.Identity) => {
          const call = ToolCall.make({ tool: echo })
          call.record.identity = inRecord
          return Effect.map(
            Effect.provideService(Effect.exit(around(call, Effect.void)), Identity.CurrentIdentity, carol),
            Exit.isSuccess
          )
        }
        assert.deepStrictEqual([yield* passes(alice), yield* passes(bob), yield* passes(alice)], [true, true, false])
      }))
  })

  describe("keys of callers", () => {
    const pairs: ReadonlyArray<readonly [string, Identity.Options, Identity.Options]> = [
      ["a colon moved between tenant and principal", { tenant: "a", principal: "b:c" }, {
        tenant: "a:b",
        principal: "c"
      }],
      ["a letter moved between tenant and principal", { tenant: "ab", principal: "c" }, {
        tenant: "a",
        principal: "bc"
      }],
      ["a tenant that looks like a length", { tenant: "1:a", principal: "b" }, { tenant: "1", principal: ":ab" }],
      ["no tenant and an empty one", { principal: "a" }, { tenant: "", principal: "a" }],
      ["no tenant and a principal that looks like one with", { principal: "4:acmealice" }, {
        tenant: "acme",
        principal: "alice"
      }],
      ["the issuer", { issuer: "https://a.example", principal: "ada" }, {
        issuer: "https://b.example",
        principal: "ada"
      }],
      ["an issuer and none", { issuer: "https://a.example", principal: "ada" }, { principal: "ada" }],
      ["a letter moved between issuer and tenant", { issuer: "ab", tenant: "c", principal: "d" }, {
        issuer: "a",
        tenant: "bc",
        principal: "d"
      }],
      ["an issuer and a principal that looks like one with", { issuer: "a", principal: "b" }, {
        principal: "1:a-b"
      }],
      ["case", { principal: "alice" }, { principal: "Alice" }],
      ["spaces", { principal: "alice" }, { principal: "alice " }],
      ["unicode form", { principal: "\u00e9" }, { principal: "e\u0301" }],
      ["width", { principal: "a" }, { principal: "\uff41" }],
      ["half surrogates", { principal: "\ud800" }, { principal: "\ud801" }],
      ["a half surrogate and the replacement character", { principal: "\ud800" }, { principal: "\ufffd" }],
      ["the end of a long name", { principal: `${"x".repeat(5000)}a` }, { principal: `${"x".repeat(5000)}b` }],
      ["long names whose border moved", { tenant: "x".repeat(300), principal: "xy" }, {
        tenant: "x".repeat(301),
        principal: "y"
      }],
      ["a principal called anonymous and nobody", { principal: "anonymous" }, {
        principal: "anonymous",
        method: "anonymous"
      }]
    ]
    for (const [what, left, right] of pairs) {
      it.effect(`tells callers apart by ${what}`, () =>
        Effect.gen(function*() {
          const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 1, window: "1 hour" }] })
          assert.strictEqual(yield* t.count(2, echo, Identity.make(left)), 1)
          assert.strictEqual(yield* t.count(2, echo, Identity.make(right)), 1)
          assert.strictEqual(yield* t.count(2, echo, Identity.make({ ...left })), 0)
        }))
    }

    it.effect("does not take an identity that has changed for whom it was", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 1, window: "1 hour" }] })
        const changing: { -readonly [K in keyof Identity.Identity]: Identity.Identity[K] } = { ...alice }
        assert.strictEqual(yield* t.count(2, echo, changing), 1)
        changing.principal = "somebody else"
        assert.strictEqual(yield* t.count(2, echo, changing), 1)
        changing.principal = alice.principal
        assert.strictEqual(yield* t.count(2, echo, changing), 0)
      }))

    it.effect("tells a peer from a principal of the same name", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 1, window: "1 hour" }] })
        assert.strictEqual(yield* Effect.provideService(t.count(2, echo), RateLimit.CurrentPeer, "x"), 1)
        assert.strictEqual(yield* t.count(2, echo, Identity.make({ principal: "x" })), 1)
      }))

    it.effect("keeps keys short and well formed whatever the names are", () =>
      Effect.gen(function*() {
        const keys: Array<string> = []
        const t = yield* Effect.provide(
          RateLimit.RateLimit,
          Layer.provide(
            RateLimit.layer({
              limits: [
                { name: "caller", per: "identity+tool", limit: 1, window: "1 hour" },
                { name: "tenant", per: "tenant", limit: 1, window: "1 hour" }
              ]
            }),
            Layer.succeed(RateLimitStore.RateLimitStore, {
              consume: () => Effect.succeed(0),
              peek: () => Effect.succeed(0),
              refund: () => Effect.void,
              consumeUnsafe: (takes) => {
                keys.push(...takes.map((take) => take.key.text))
                return 0
              }
            })
          )
        )
        const call = ToolCall.make({ tool: echo })
        call.record.identity = Identity.make({ principal: "p".repeat(100_000), tenant: "t".repeat(100_000) })
        yield* t.forTool(echo)(call, Effect.void)
        call.record.identity = Identity.make({ principal: "\ud800", tenant: "\udfff" })
        yield* t.forTool(echo)(call, Effect.void)
        assert.strictEqual(keys.length, 4)
        assert.isTrue(keys.every((key) => key.isWellFormed()), "half a surrogate pair is no text for Redis")
        assert.isTrue(keys.every((key) => key.length < 300), keys.map((key) => key.length).join())
      }))
  })

  describe("cost", () => {
    const costly = (cost: RateLimit.Limit["cost"]) =>
      limited({ limits: [{ name: "all", per: "global", limit: 10, window: "10 seconds", cost }] })

    it.effect("takes as many tokens as a call costs", () =>
      Effect.gen(function*() {
        const t = yield* costly((call) => call.input as number)
        assert.isTrue(yield* t.passes(echo, alice, 7))
        assert.isFalse(yield* t.passes(echo, alice, 4))
        assert.isTrue(yield* t.passes(echo, alice, 0))
        assert.isTrue(yield* t.passes(echo, alice, 3))
        assert.isFalse(yield* t.passes(echo, alice, 1))
        yield* TestClock.adjust("3999 millis")
        assert.isFalse(yield* t.passes(echo, alice, 4))
        yield* TestClock.adjust("1 millis")
        assert.isTrue(yield* t.passes(echo, alice, 4))
      }))

    it.effect("tells a call that costs more than a full bucket that it never will pass, and spends nothing", () =>
      Effect.gen(function*() {
        const t = yield* costly((call) => call.input as number)
        const error = yield* Effect.flip(t.pipeline.run({ tool: echo, input: 11 }, Effect.void))
        assert.strictEqual(error.reason._tag, "RateLimited")
        assert.strictEqual(error.retryAfter, undefined)
        assert.isTrue(yield* t.passes(echo, alice, 10))
      }))

    for (
      const cost of [-1, -1000, Number.NaN, Infinity, -Infinity, 2 ** 53, 0.5, 1.5, "1" as never, undefined as never]
    ) {
      it.effect(`does not run a call that costs ${String(cost)}`, () =>
        Effect.gen(function*() {
          const t = yield* costly((call) => call.input as number)
          let ran = false
          const exit = yield* Effect.exit(
            t.pipeline.run({ tool: echo, input: cost }, Effect.sync(() => ran = true))
          )
          assert.isTrue(Exit.hasDies(exit))
          assert.isFalse(ran)
          assert.isTrue(yield* t.passes(echo, alice, 10))
        }))
    }
  })

  describe("shadow mode", () => {
    it.effect("records what a limit in shadow mode would refuse, and refuses nothing", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [
            { name: "strict", per: "identity", limit: 2, window: "1 hour", mode: "shadow" },
            { name: "loose", per: "identity", limit: 4, window: "1 hour" }
          ]
        })
        assert.strictEqual(yield* t.count(6, echo, alice), 4)
        assert.deepStrictEqual(t.records.map((record) => record.limits?.map((status) => status.allowed)), [
          [true, true],
          [true, true],
          [false, true],
          [false, true],
          [false, false],
          [false, false]
        ])
        assert.deepStrictEqual(t.records.map((record) => record.outcome).slice(3), ["ok", "limited", "limited"])
        assert.deepStrictEqual(t.records[0]?.limits?.map((status) => status.shadow), [true, false])
      }))

    it.effect("puts every limit into shadow mode at once", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          mode: "shadow",
          limits: [{ name: "strict", per: "identity", limit: 2, window: "1 hour", mode: "enforce" }]
        })
        assert.strictEqual(yield* t.count(6, echo, alice), 6)
        assert.strictEqual(t.records.filter((record) => record.limits?.[0]?.allowed === false).length, 4)
      }))

    it.effect("does not count in shadow mode what another limit refuses", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [
            { name: "strict", per: "identity", limit: 5, window: "1 hour", mode: "shadow" },
            { name: "loose", per: "identity", limit: 1, window: "1 hour" }
          ]
        })
        yield* t.count(20, echo, alice)
        assert.strictEqual(t.records.at(-1)?.limits?.[0]?.remaining, 4)
      }))
  })

  describe("explain", () => {
    it.effect("tells what a call would meet and spends nothing", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [
            { name: "caller", per: "identity", limit: 1, window: "1 minute" },
            { name: "writers", per: "global", limit: 1, window: "1 hour", roles: ["writer"] }
          ]
        })
        const explain = Effect.provideService(t.pipeline.explain({ tool: echo }), Identity.CurrentIdentity, alice)
        for (let i = 0; i < 3; i++) {
          assert.deepStrictEqual((yield* explain)[1], {
            stage: "limit",
            verdict: "pass",
            detail: {
              waitMillis: 0,
              limits: [{
                name: "caller",
                per: "identity",
                mode: "enforce",
                allowed: true,
                remaining: 1,
                resetAfterMillis: 0,
                retryAfterMillis: 0
              }]
            }
          })
        }
        yield* t.run(echo, alice)
        const refused = (yield* explain)[1]
        assert.strictEqual(refused?.verdict, "refuse")
        assert.deepInclude(refused?.detail["limits"], {
          name: "caller",
          per: "identity",
          mode: "enforce",
          allowed: false,
          remaining: 0,
          resetAfterMillis: 60_000,
          retryAfterMillis: 60_000
        })
      }))
  })

  describe("options", () => {
    const one = { name: "a", per: "global", limit: 1, window: "1 second" } as const
    const nonsense: ReadonlyArray<readonly [string, object, RegExp]> = [
      ["no limits", { limits: [] }, /limits must hold at least one limit/],
      ["two limits of one name", { limits: [one, one] }, /two limits are called "a"/],
      ["an unknown option", { limits: [one], burst: 1 }, /unknown option "burst"/],
      ["an unknown member of a limit", { limits: [{ ...one, rate: 5 }] }, /limits\[0\]: unknown option "rate"/],
      ["a bad name", { limits: [{ ...one, name: "a|b" }] }, /limits\[0\]: name must be/],
      ["an unknown per", { limits: [{ ...one, per: "principal" }] }, /per must be one of/],
      ["an empty list of roles", { limits: [{ ...one, roles: [] }] }, /roles must be a list/],
      ["an empty list of tools", { limits: [{ ...one, tools: [] }] }, /tools must be a list/],
      ["tools as a string", { limits: [{ ...one, tools: "echo" }] }, /tools must be a list/],
      ["a bad pattern", { limits: [{ ...one, tools: ["files:w*"] }] }, /tools must hold exact tool ids/],
      ["a cost above the burst", { limits: [{ ...one, cost: 2 }] }, /cost must be an integer from 0 to 1, got 2/],
      ["more tokens than a clock can tell apart", { limits: [{ ...one, limit: 1_000_000_000 }] }, /per millisecond/],
      ["an unknown mode", { limits: [one], mode: "off" }, /mode must be one of/],
      ["an unknown onExceeded", { limits: [one], onExceeded: "delay" }, /onExceeded must be one of/],
      ["an endless wait", { limits: [one], maxWait: "Infinity" }, /maxWait must be/],
      ["a wait of more than a day", { limits: [one], maxWait: "25 hours" }, /maxWait must be at most 1 day/],
      ["refundHits that is no boolean", { limits: [one], refundHits: "yes" }, /refundHits must be true or false/]
    ]
    for (const [what, options, message] of nonsense) {
      it(`throws at construction for ${what}`, () => {
        assert.throws(() => RateLimit.layer(options as RateLimit.Options), message)
      })
    }
    for (const value of [0, -1, Number.NaN, Infinity, -Infinity, 2 ** 53, 0.5, 1.5, "5", null]) {
      for (const name of ["limit", "burst"]) {
        it(`throws at construction for a ${name} of ${JSON.stringify(value)} (${String(value)})`, () => {
          assert.throws(() => RateLimit.layer({ limits: [{ ...one, [name]: value }] }), new RegExp(`${name} must be`))
        })
      }
    }
    for (const value of [0, -1, Number.NaN, Infinity, "0 seconds", "soon"]) {
      it(`throws at construction for a window of ${String(value)}`, () => {
        assert.throws(() => RateLimit.layer({ limits: [{ ...one, window: value as never }] }), /window must be/)
      })
    }

    it.effect("reads everything from the configuration", () =>
      Effect.gen(function*() {
        const context = yield* Layer.build(
          RateLimit.layerConfig({
            limits: Config.map(
              Config.Int("RATE"),
              (limit): ReadonlyArray<RateLimit.Limit> => [{ name: "all", per: "global", limit, window: "1 hour" }]
            ),
            refundHits: Config.succeed(true)
          }).pipe(Layer.provide(RateLimitStore.layerMemoryConfig({ maxKeys: Config.Int("KEYS") })))
        ).pipe(
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ RATE: 3, KEYS: 5 })))
        )
        const limits = yield* Context.get(context, RateLimit.RateLimit).limits
        assert.strictEqual(limits[0]?.limit, 3)
      }))
  })

  it.effect("leaves calls alone that no limit concerns", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [{ name: "files", per: "tool", limit: 1, window: "1 hour", tools: ["files:*"] }]
      })
      assert.strictEqual(yield* t.count(5, echo), 5)
      assert.strictEqual(t.records[0]?.limits, undefined)
    }))

  it.effect("lets the handler run only for calls that pass", () =>
    Effect.gen(function*() {
      const t = yield* limited({ limits: [{ name: "all", per: "global", limit: 2, window: "1 hour" }] })
      let ran = 0
      const fibers = yield* Effect.forEach(Array.from({ length: 10 }), () =>
        Effect.forkChild(Effect.exit(t.run(echo, alice, Effect.sync(() => ran += 1)))))
      yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual(ran, 2)
    }))
})
