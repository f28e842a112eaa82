import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Bulkhead } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

describe("Bulkhead", () => {
  it.effect("runs no more than maxConcurrent at once and refuses the rest", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 2 })
      const running = yield* Effect.forEach([1, 2, 3], () =>
        Effect.forkChild(Effect.exit(bulkhead.execute(Effect.as(Effect.sleep("1 second"), "done")))))
      yield* TestClock.adjust("1 second")
      const exits = yield* Effect.forEach(running, Fiber.join)
      assert.deepStrictEqual(
        exits.map((exit) =>
          exit._tag
        ),
        ["Success", "Success", "Failure"]
      )
      assert.deepStrictEqual(yield* bulkhead.snapshot, { active: 0, queued: 0, rejected: 1, highWaterMark: 2 })
    }))

  it.effect("serves waiters in the order in which they came", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 5 })
      const served: Array<number> = []
      const fibers = yield* Effect.forEach([1, 2, 3, 4], (n) =>
        Effect.forkChild(bulkhead.execute(Effect.andThen(
          Effect.sync(() => served.push(n)),
          Effect.sleep("1 second")
        ))))
      yield* TestClock.adjust("4 seconds")
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(served, [1, 2, 3, 4])
    }))

  it.effect("refuses a waiter when maxWait is over", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 5, maxWait: "1 second" })
      const busy = yield* Effect.forkChild(bulkhead.execute(Effect.never))
      yield* Effect.yieldNow
      const first = yield* Effect.forkChild(Effect.flip(bulkhead.execute(Effect.void)))
      yield* TestClock.adjust("600 millis")
      const second = yield* Effect.forkChild(Effect.flip(bulkhead.execute(Effect.void)))
      yield* TestClock.adjust("400 millis")
      assert.strictEqual((yield* Fiber.join(first)).reason._tag, "BulkheadFull")
      assert.deepStrictEqual(yield* bulkhead.snapshot, { active: 1, queued: 1, rejected: 1, highWaterMark: 1 })
      yield* TestClock.adjust("600 millis")
      assert.strictEqual((yield* Fiber.join(second)).reason._tag, "BulkheadFull")
      yield* Fiber.interrupt(busy)
      assert.deepStrictEqual(yield* bulkhead.snapshot, { active: 0, queued: 0, rejected: 2, highWaterMark: 1 })
    }))
})
