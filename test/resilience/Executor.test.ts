import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Fiber } from "effect"
import { type RateLimitError } from "effect-toolops/limit"
import {
  Bulkhead,
  CircuitBreaker,
  Executor,
  RateLimiter,
  type ResilienceError,
  Retry,
  Timeout
} from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

const reasonOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "reason" in error
    ? (error.reason as { _tag: string })._tag
    : String(error)

describe("Executor", () => {
  it.effect("retries inside the breaker, which sees one outcome per execution", () =>
    Effect.gen(function*() {
      const executor = yield* Executor.make({
        circuitBreaker: { maxFailures: 2, resetTimeout: "30 seconds" },
        retry: { maxAttempts: 3 },
        timeout: { timeout: "5 seconds" }
      })
      let runs = 0
      const call = Effect.forkChild(Effect.flip(executor.execute(Effect.suspend(() => {
        runs += 1
        return Effect.fail("down")
      }))))
      for (const expected of [3, 6]) {
        const fiber = yield* call
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* Fiber.join(fiber), "down")
        assert.strictEqual(runs, expected)
      }
      const refused = yield* Fiber.join(yield* call)
      assert.strictEqual(reasonOf(refused), "CircuitOpen")
      assert.strictEqual(runs, 6)
    }))

  it.effect("gives each attempt its own time", () =>
    Effect.gen(function*() {
      const executor = yield* Executor.make({ retry: { maxAttempts: 2 }, timeout: { timeout: "5 seconds" } })
      let runs = 0
      const fiber = yield* Effect.forkChild(executor.execute(Effect.suspend(() => {
        runs += 1
        return runs === 1 ? Effect.never : Effect.as(Effect.sleep("4 seconds"), "second")
      })))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), "second")
    }))

  it.effect("limits the rate before it takes a slot, and takes a slot before it asks the circuit", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
      const circuitBreaker = yield* CircuitBreaker.make({ maxFailures: 1 })
      const rateLimiter = yield* RateLimiter.make({ rate: 1, burst: 4 })
      const executor = yield* Executor.make({ rateLimiter, bulkhead, circuitBreaker })
      const attempt = Effect.map(Effect.flip(executor.execute(Effect.fail("down"))), reasonOf)
      assert.strictEqual(yield* attempt, "down")
      assert.strictEqual(yield* attempt, "CircuitOpen")
      const busy = yield* Effect.forkChild(bulkhead.execute(Effect.never), { startImmediately: true })
      assert.strictEqual(yield* attempt, "BulkheadFull")
      assert.strictEqual(yield* attempt, "BulkheadFull")
      assert.strictEqual(yield* attempt, "RateLimited")
      assert.strictEqual((yield* bulkhead.snapshot).rejected, 2)
      yield* Fiber.interrupt(busy)
    }))

  it.effect("takes parts that were made elsewhere, and shares them", () =>
    Effect.gen(function*() {
      const circuitBreaker = yield* CircuitBreaker.make({ maxFailures: 1 })
      const retry = yield* Retry.make({ maxAttempts: 1 })
      const timeout = yield* Timeout.make()
      const one = yield* Executor.make({ circuitBreaker, retry, timeout })
      const two = yield* Executor.make({ circuitBreaker, retry, timeout })
      yield* Effect.exit(one.execute(Effect.fail("down")))
      assert.strictEqual(reasonOf(yield* Effect.flip(two.execute(Effect.fail("down")))), "CircuitOpen")
    }))

  it.effect("takes a part that somebody else has written", () =>
    Effect.gen(function*() {
      let calls = 0
      const bulkhead: Bulkhead.Bulkhead["Service"] = {
        ...(yield* Bulkhead.make()),
        execute: (effect) => {
          calls += 1
          return effect
        }
      }
      const executor = yield* Executor.make({ bulkhead, timeout: {} })
      assert.strictEqual(yield* executor.execute(Effect.succeed(1)), 1)
      assert.strictEqual(calls, 1)
    }))

  it.effect("does nothing where no part is asked for", () =>
    Effect.gen(function*() {
      const executor = yield* Executor.make({})
      const nothing: Effect.Effect<number, "no"> = executor.execute(Effect.fail("no" as const))
      assert.strictEqual(yield* Effect.flip(nothing), "no")
    }))

  it("says in its type which errors it adds", () => {
    const full = Effect.flatMap(Executor.make({ rateLimiter: {}, bulkhead: {} }), (e) => e.execute(Effect.void))
    const fullTyped: Effect.Effect<void, RateLimitError.RateLimitError | ResilienceError.ResilienceError> = full
    const retryOnly: Effect.Effect<void> = Effect.flatMap(Executor.make({ retry: {} }), (e) => e.execute(Effect.void))
    assert.isDefined(fullTyped)
    assert.isDefined(retryOnly)
    // @ts-expect-error a rate limiter may refuse
    const wrong: Effect.Effect<void, ResilienceError.ResilienceError> = full
    assert.isDefined(wrong)
  })

  it("throws on nonsense when it is made", () => {
    assert.throws(() => Executor.make({ circuitBreaker: { maxFailures: 0 } }), /maxFailures must be an integer/)
    assert.throws(() => Executor.make({ timeout: { timeout: NaN } }), /timeout must be a duration/)
    assert.throws(() => Executor.make({ breaker: {} } as {}), /Executor.make: unknown option "breaker"/)
    for (const part of ["rateLimiter", "bulkhead", "circuitBreaker", "retry", "timeout"]) {
      for (const nonsense of [null, true, false, 5]) {
        assert.throws(
          () => Executor.make({ [part]: nonsense }),
          `Executor.make: ${part}: expected an object of options, got ${nonsense}`
        )
      }
    }
  })

  it.effect("is provided by its layer, with options from the configuration where wanted", () =>
    Effect.gen(function*() {
      const executor = yield* Executor.Executor
      yield* Effect.exit(executor.execute(Effect.fail("down")))
      assert.strictEqual(reasonOf(yield* Effect.flip(executor.execute(Effect.fail("down")))), "CircuitOpen")
    }).pipe(
      Effect.provide(Executor.layerConfig({ circuitBreaker: { maxFailures: Config.Int("FAILURES") } })),
      Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ FAILURES: 1 })))
    ))
})
