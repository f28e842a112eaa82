import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Retry } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

const failing = (times: number) => {
  let attempts = 0
  return Effect.suspend(() => {
    attempts += 1
    return attempts <= times ? Effect.fail(`failure ${attempts}`) : Effect.succeed(attempts)
  })
}

describe("Retry", () => {
  it.effect("counts the first attempt, and gives back the last error", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ maxAttempts: 3, jitter: "none" })
      const fiber = yield* Effect.forkChild(Effect.flip(retry.execute(failing(10))))
      yield* TestClock.adjust("300 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "failure 3")
    }))

  it.effect("answers with the first success", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ jitter: "none" })
      const fiber = yield* Effect.forkChild(retry.execute(failing(2)))
      yield* TestClock.adjust("299 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(fiber), 3)
    }))
})
