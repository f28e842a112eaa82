import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { RateLimit } from "effect-toolops/limit"
import { TestClock } from "effect/testing"
import { limited } from "../limit/limited.ts"

// Faults of toolops 0.1.7 and of the server built on it, each as the behaviour that replaces it.

const echo = ToolMeta.make({ name: "echo" })
const other = ToolMeta.make({ name: "other" })
const alice = Identity.make({ principal: "alice", tenant: "a" })
const namesake = Identity.make({ principal: "alice", tenant: "b" })

describe("faults of toolops in limits", () => {
  it.effect("one caller does not use up another one's tokens", () =>
    Effect.gen(function*() {
      const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 2, window: "1 hour" }] })
      assert.strictEqual(yield* t.count(5, echo, alice), 2)
      assert.strictEqual(yield* t.count(5, echo, Identity.make({ principal: "bob", tenant: "a" })), 2)
    }))

  it.effect("a wait that cannot succeed is not begun", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [{ name: "all", per: "global", limit: 1, window: "1 minute" }],
        onExceeded: "wait",
        maxWait: "1 second"
      })
      yield* t.run(echo)
      // The clock of the test stands still, so anything that waited would never return.
      assert.strictEqual((yield* t.refusal(echo)).retryAfter, 60_000)
    }))

  it.effect("a call that costs more than the burst is refused at once and says so", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [{ name: "all", per: "global", limit: 100, window: "1 second", burst: 10, cost: () => 11 }],
        onExceeded: "wait"
      })
      assert.strictEqual((yield* t.refusal(echo)).retryAfter, Infinity)
    }))

  it.effect("a global limit is one limit, not one for each tool", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [
          { name: "all", per: "global", limit: 3, window: "1 hour" },
          { name: "caller", per: "identity", limit: 3, window: "1 hour" }
        ]
      })
      assert.strictEqual((yield* t.count(2, echo, alice)) + (yield* t.count(2, other, alice)), 3)
    }))

  it("a number that is no number is refused and does not become another limit", () => {
    const limit = { name: "all", per: "global", window: "1 second" } as const
    assert.throws(() => RateLimit.layer({ limits: [{ ...limit, limit: "5" as never }] }), /limit must be an integer/)
    assert.throws(() => RateLimit.layer({ limits: [{ ...limit, rate: 5 } as never] }), /unknown option "rate"/)
    assert.throws(() => RateLimit.layer({ limits: [limit as never] }), /limit must be an integer/)
  })

  it.effect("the tool's token is not spent when the caller's limit refuses", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [
          { name: "tool", per: "tool", limit: 3, window: "1 hour" },
          { name: "caller", per: "identity", limit: 1, window: "1 hour" }
        ]
      })
      yield* t.count(100, echo, alice)
      assert.isTrue(yield* t.passes(echo, namesake))
    }))

  it.effect("the same principal of two tenants is two callers", () =>
    Effect.gen(function*() {
      const t = yield* limited({ limits: [{ name: "caller", per: "identity", limit: 1, window: "1 hour" }] })
      assert.isTrue(yield* t.passes(echo, alice))
      assert.isTrue(yield* t.passes(echo, namesake))
    }))

  it.effect("anonymous callers of different peers do not share a bucket, and a global limit applies to them", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [
          { name: "caller", per: "identity", limit: 1, window: "1 hour" },
          { name: "all", per: "global", limit: 2, window: "1 hour" }
        ]
      })
      const from = (peer: string) => Effect.provideService(t.passes(echo), RateLimit.CurrentPeer, peer)
      assert.deepStrictEqual([yield* from("192.0.2.1"), yield* from("192.0.2.1")], [true, false])
      assert.deepStrictEqual([yield* from("192.0.2.2"), yield* from("192.0.2.3")], [true, false])
    }))

  it.effect("negative and absurd costs grant nothing", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [{ name: "all", per: "global", limit: 10, window: "1 hour", cost: (call) => call.input as number }]
      })
      for (const cost of [-1000, Number.NaN, -Infinity, 2 ** 53]) {
        assert.isFalse(
          yield* Effect.exit(t.pipeline.run({ tool: echo, input: cost }, Effect.void)).pipe(
            Effect.map((exit) => exit._tag === "Success")
          )
        )
      }
      const passes = (n: number) =>
        Effect.map(Effect.forEach(Array.from({ length: n }), () => t.passes(echo, alice, 1)), (all) =>
          all.filter((passed) => passed).length)
      assert.strictEqual(yield* passes(20), 10)
    }))

  it.effect("a clock that is set back by an hour locks nobody out", () =>
    Effect.gen(function*() {
      const t = yield* limited({ limits: [{ name: "all", per: "global", limit: 1, window: "1 second" }] })
      yield* TestClock.adjust("2 hours")
      yield* t.run(echo)
      yield* TestClock.setTime(3_600_000)
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* t.passes(echo))
    }))
})
