import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { HealthCheck, HealthRegistry } from "effect-toolops/health"
import { TestClock } from "effect/testing"

describe("a flood of probes", () => {
  it.effect("runs each check once per interval at 1,000 probes a second, one that hangs included", () =>
    Effect.scoped(Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      const runs = { quick: 0, slow: 0, hanging: 0, throwing: 0 }
      let hangingNow = 0
      let mostHanging = 0
      const add = (name: keyof typeof runs, check: Effect.Effect<unknown, unknown>) =>
        registry.register(HealthCheck.make({
          name,
          interval: "1 second",
          timeout: "500 millis",
          critical: false,
          check: Effect.andThen(Effect.sync(() => void runs[name]++), Effect.asVoid(check))
        }))
      yield* add("quick", Effect.void)
      yield* add("slow", Effect.sleep("100 millis"))
      yield* add(
        "hanging",
        Effect.suspend(() => {
          mostHanging = Math.max(mostHanging, ++hangingNow)
          return Effect.ensuring(Effect.never, Effect.sync(() => void hangingNow--))
        })
      )
      yield* add("throwing", Effect.die(new Error("thrown")))
      const probe = registry.report("readiness")
      for (let milli = 0; milli < 10_000; milli++) {
        yield* Effect.forkChild(probe, { startImmediately: true })
        yield* TestClock.adjust("1 millis")
      }
      // Ten intervals of a second; a run of its own length later for those that take time.
      assert.deepStrictEqual([runs.quick, runs.throwing], [10, 10])
      assert.isAtMost(runs.slow, 10)
      assert.isAtLeast(runs.slow, 9)
      assert.isAtMost(runs.hanging, 7)
      assert.isAtLeast(runs.hanging, 6)
      assert.strictEqual(mostHanging, 1)
    })))
})
