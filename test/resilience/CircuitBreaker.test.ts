import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { CircuitBreaker } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

describe("CircuitBreaker", () => {
  it.effect("opens after maxFailures in a row, lets a probe through after resetTimeout, and closes on its success", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 2, resetTimeout: "10 seconds" })
      const fail = Effect.flip(breaker.execute(Effect.fail("down")))
      assert.strictEqual(yield* fail, "down")
      assert.strictEqual(yield* breaker.state, "closed")
      assert.strictEqual(yield* fail, "down")
      assert.strictEqual(yield* breaker.state, "open")
      yield* TestClock.adjust("9 seconds")
      const refused = yield* Effect.flip(breaker.execute(Effect.void))
      assert.strictEqual(refused.reason._tag, "CircuitOpen")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* breaker.state, "open")
      assert.strictEqual(yield* breaker.execute(Effect.succeed("up")), "up")
      assert.strictEqual(yield* breaker.state, "closed")
    }))
})
