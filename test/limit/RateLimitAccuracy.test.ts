import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { RateLimitStore } from "effect-toolops/limit"
import { TestClock } from "effect/testing"
import { oneGood } from "../support/oneGood.ts"
import * as Random from "../support/random.ts"
import { IdealBucket } from "./idealBucket.ts"
import { alice, limited } from "./limited.ts"

const echo = ToolMeta.make({ name: "echo" })

describe("RateLimit", () => {
  it.effect(
    "grants what an ideal bucket grants, at every moment of 200,000 calls of 1,000 callers",
    () =>
      Effect.gen(function*() {
        const { next } = Random.make(1)
        // Numbers that do not divide each other, so that every interval has to be rounded.
        const [limit, windowMillis, burst] = [7, 997, 13] as const
        const t = yield* limited({
          limits: [{
            name: "caller",
            per: "identity",
            limit,
            window: windowMillis,
            burst,
            cost: (call) => call.input as number
          }]
        }, RateLimitStore.layerMemory({ maxKeys: 1000 }))
        const around = t.pipeline.wrap(echo, (_cost: number) => Effect.void)
        const callers = Array.from({ length: 1000 }, (_, i) => ({
          identity: Identity.make({ principal: `caller${i}` }),
          ideal: new IdealBucket(limit, windowMillis, burst),
          granted: 0,
          due: 0
        }))
        let now = 0
        let granted = 0
        for (let i = 0; i < 200_000; i++) {
          if (i % 10 === 0) {
            const step = Math.floor(next() * 14)
            now += step
            yield* TestClock.adjust(step)
          }
          // Some callers are busier than others, so that some are always throttled and some never.
          const caller = callers[Math.floor(next() ** 3 * callers.length)]!
          const cost = 1 + Math.floor(next() * 3)
          const exit = yield* Effect.exit(
            Effect.provideService(around(cost), Identity.CurrentIdentity, caller.identity)
          )
          t.records.length = 0
          if (Exit.isSuccess(exit)) {
            caller.granted += cost
            granted += 1
          }
          if (caller.ideal.take(now, cost)) caller.due += cost
          if (Math.abs(caller.granted - caller.due) > 1) {
            assert.fail(
              `call ${i} of ${caller.identity.principal}: ${caller.granted} tokens granted, ${caller.due} due`
            )
          }
        }
        assert.isAbove(granted, 50_000)
        assert.isBelow(granted, 180_000)
      }),
    30_000
  )

  it.live("grants what an ideal bucket grants by the real clock", () =>
    Effect.gen(function*() {
      const t = yield* limited({ limits: [{ name: "all", per: "global", limit: 100, window: "1 second", burst: 50 }] })
      /** Asks for at least so long, and until one is refused: then less than one token is there. */
      const asking = (millis: number) =>
        Effect.gen(function*() {
          const start = performance.now()
          let [granted, asked, passed] = [0, start, true]
          while (passed || asked - start < millis) {
            asked = performance.now()
            passed = yield* t.passes(echo, alice)
            granted += passed ? 1 : 0
            t.records.length = 0
          }
          return { start, granted, asked, answered: performance.now() }
        })
      const drained = yield* asking(0)
      assert.isAtLeast(drained.granted, 50)
      assert.isAtMost(drained.granted, 50 + (drained.answered - drained.start) / 10)
      let since = drained
      yield* oneGood(
        Effect.gen(function*() {
          const { answered, asked, granted, start } = yield* asking(400)
          // Less than one token was there at the beginning, and at the end.
          assert.isBelow(granted, 1 + (answered - since.asked) / 10)
          const atLeast = (asked - since.answered) / 10 - 1
          since = { start, granted, asked, answered }
          return { granted, atLeast }
        }),
        // An empty bucket is full after half a second, so a machine that stops for that long loses tokens.
        ({ atLeast, granted }) => granted > atLeast
      )
    }))

  it.effect("decides two limits in one step under 10,000 concurrent calls", () =>
    Effect.gen(function*() {
      const t = yield* limited({
        limits: [
          { name: "caller", per: "identity", limit: 50, window: "1 hour" },
          { name: "all", per: "global", limit: 1777, window: "1 hour" }
        ]
      })
      const callers = Array.from({ length: 100 }, (_, i) => Identity.make({ principal: `caller${i}` }))
      const passed = new Map<Identity.Identity, number>()
      yield* Effect.forEach(
        Array.from({ length: 10_000 }, (_, i) => callers[i % callers.length]!),
        (caller) =>
          Effect.andThen(
            Effect.yieldNow,
            t.run(
              echo,
              caller,
              Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => {
                  passed.set(caller, (passed.get(caller) ?? 0) + 1)
                })
              )
            ).pipe(Effect.ignore)
          ),
        { concurrency: "unbounded", discard: true }
      )
      assert.strictEqual([...passed.values()].reduce((sum, n) => sum + n, 0), 1777)
      for (const caller of callers) {
        const plan = yield* t.limits.explain(echo)(t.call(echo, caller))
        const [own, all] = plan.detail["limits"] as ReadonlyArray<{ readonly remaining: number }>
        assert.strictEqual(own?.remaining, 50 - (passed.get(caller) ?? 0))
        assert.strictEqual(all?.remaining, 0)
      }
    }))
})
