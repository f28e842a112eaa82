import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Schema } from "effect"
import { Deadline, ResilienceError, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

describe("Timeout", () => {
  it.effect("fails with TimedOut when the time is up, and interrupts the work", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ name: "search", timeout: "5 seconds" })
      let interrupted = false
      const fiber = yield* Effect.forkChild(Effect.flip(timeout.execute(Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          interrupted = true
        })))))
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error.reason._tag, "TimedOut")
      assert.deepStrictEqual(Schema.encodeSync(ResilienceError.ResilienceError)(error), {
        _tag: "ResilienceError",
        reason: { _tag: "TimedOut", name: "search", timeout: 5000 }
      })
      assert.isTrue(interrupted)
      assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 0 })
    }))

  it.effect("answers with what the work answers", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make()
      assert.strictEqual(yield* timeout.execute(Effect.succeed(1)), 1)
      assert.strictEqual(yield* timeout.execute(Effect.promise(() => Promise.resolve(2))), 2)
      assert.strictEqual(yield* Effect.flip(timeout.execute(Effect.fail("no"))), "no")
      const exit = yield* Effect.exit(timeout.execute(Effect.die("bug")))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.isTrue(Duration.isFinite(yield* timeout.execute(Deadline.remaining)))
    }))
})
