import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { Bulkhead, CircuitBreaker, Executor, Fallback, Hedge, RateLimiter } from "effect-toolops/resilience"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")

/** Megabytes that are still in use after a collection. */
const heap = (): number => {
  gc()
  gc()
  return process.memoryUsage().heapUsed / 1_000_000
}

// At 40 bytes a call, one forgotten object, it would have grown by 40 MB.
const calls = 1_000_000
const batch = 1000

describe("the heap", () => {
  it.live("is where it was after 1,000,000 calls of all kinds", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 10, maxQueue: batch, maxWait: "1 hour" })
      const circuitBreaker = yield* CircuitBreaker.make({
        window: { type: "time", duration: "1 second", failureRate: 1, minimumCalls: 100_000, buckets: 100 }
      })
      const open = yield* CircuitBreaker.make()
      yield* open.forceOpen
      const hedge = yield* Hedge.make({ delay: "1 hour" })
      const fallback = yield* Fallback.make({ fallback: () => Effect.void })
      const plenty = yield* RateLimiter.make({ rate: 1e6, burst: 10, onExceeded: "wait", maxWait: "1 hour" })
      const used = yield* RateLimiter.make({ rate: 1e-9, burst: 1 })
      yield* used.tokens(1)
      const executor = yield* Executor.make({
        bulkhead,
        circuitBreaker,
        retry: { schedule: Schedule.recurs(1), budget: { minPerSecond: 1e6, share: 1 } },
        timeout: { timeout: "1 hour" }
      })
      const kinds: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        executor.execute(Effect.void),
        executor.execute(Effect.yieldNow),
        executor.execute(Effect.promise(() => Promise.resolve())),
        executor.execute(Effect.fail("down")),
        executor.execute(Effect.die("bug")),
        open.execute(Effect.void),
        hedge.execute(Effect.yieldNow),
        fallback.execute(Effect.fail("down")),
        plenty.execute(Effect.void),
        used.execute(Effect.void),
        Effect.flatMap(Effect.forkChild(executor.execute(Effect.never)), (fiber) =>
          Effect.andThen(Effect.yieldNow, Fiber.interrupt(fiber)))
      ]
      const round = Effect.forEach(
        Array.from({ length: batch }, (_, i) =>
          kinds[i % kinds.length]!),
        (call) => Effect.exit(call),
        { concurrency: "unbounded", discard: true }
      )
      for (let i = 0; i < 10; i++) yield* round
      const before = heap()
      for (let i = 0; i < calls / batch; i++) yield* round
      const grown = heap() - before
      assert.isBelow(grown, 2, `${grown.toFixed(1)} MB`)
      assert.deepInclude(yield* bulkhead.snapshot, { active: 0, queued: 0 })
    }), 240_000)
})
