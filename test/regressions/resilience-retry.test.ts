import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber } from "effect"
import { RateLimiter, ResilienceError, Retry, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { makeInstantClock } from "../resilience/support.ts"

// Faults of toolops 0.1.7's retry, timeout and rate limiter, each as the behaviour that replaces it.

/** The delays before the retries of work that always fails. */
const delays = (options: Retry.Options) =>
  Effect.gen(function*() {
    const { clock, slept } = makeInstantClock()
    const retry = yield* Retry.make({ budget: false, ...options })
    yield* Effect.provideService(Effect.exit(retry.execute(Effect.fail("down"))), Clock.Clock, clock)
    return slept
  })

describe("faults of toolops in retry, timeout and rate limiter", () => {
  it.effect("the exponential delay does not overflow into a hot loop", () =>
    Effect.gen(function*() {
      const slept = yield* delays({ maxAttempts: 1200, jitter: "none" })
      assert.strictEqual(slept.length, 1199)
      assert.deepStrictEqual(slept.slice(0, 10), [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000])
      assert.isTrue(slept.slice(10).every((millis) => millis === 30_000))
    }))

  it.effect("jitter does not panic for delays of nanoseconds", () =>
    Effect.gen(function*() {
      for (const nanos of [1n, 2n, 3n, 4n]) {
        const slept = yield* delays({ maxAttempts: 50, initialDelay: nanos, maxDelay: nanos })
        assert.strictEqual(slept.length, 49)
        assert.isTrue(slept.every((millis) => millis > 0))
      }
    }))

  it.effect("jitter stays within maxDelay, and spreads over all of the delay", () =>
    Effect.gen(function*() {
      const slept = yield* delays({ maxAttempts: 2000, strategy: "constant", initialDelay: 1000, maxDelay: 1000 })
      assert.isTrue(slept.every((millis) => millis > 0 && millis <= 1000))
      assert.isBelow(Math.min(...slept), 50)
      assert.isAbove(Math.max(...slept), 950)
      assert.closeTo(slept.reduce((sum, millis) => sum + millis, 0) / slept.length, 500, 50)
    }))

  it.effect("jitter is on by default, also when other options are given", () =>
    Effect.gen(function*() {
      const slept = yield* delays({ maxAttempts: 20, strategy: "constant" })
      assert.isAbove(new Set(slept).size, 10)
    }))

  it.effect("a cancelled call is not retried", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make()
      let attempts = 0
      const exit = yield* Effect.exit(retry.execute(Effect.suspend(() => {
        attempts += 1
        return Effect.interrupt
      })))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.strictEqual(attempts, 1)
    }))

  it.effect("the error that says that all attempts are used up is one that is returned", () =>
    Effect.gen(function*() {
      const { clock } = makeInstantClock()
      const retry = yield* Retry.make({ exhausted: "wrap" })
      const error = yield* Effect.flip(Effect.provideService(retry.execute(Effect.fail("down")), Clock.Clock, clock))
      assert.isTrue(error instanceof ResilienceError.ResilienceError && error.reason._tag === "RetriesExhausted")
    }))

  it.effect("a timeout stops the operation", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      let ticks = 0
      const ticking = Effect.forever(Effect.andThen(
        Effect.sleep("300 millis"),
        Effect.sync(() => {
          ticks += 1
        })
      ))
      const fiber = yield* Effect.forkChild(Effect.exit(timeout.execute(ticking)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(ticks, 3)
    }))

  it.effect("a panic of timed work is the caller's to handle, before and after the deadline", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      const caught = yield* Effect.forkChild(Effect.catchDefect(
        timeout.execute(Effect.andThen(Effect.sleep("500 millis"), Effect.die("bug"))),
        (defect) => Effect.succeed(defect)
      ))
      const late = yield* Effect.forkChild(Effect.flip(timeout.execute(
        Effect.uninterruptible(Effect.andThen(Effect.sleep("5 seconds"), Effect.die("bug")))
      )))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Fiber.join(caught), "bug")
      assert.strictEqual((yield* Fiber.join(late)).reason._tag, "TimedOut")
    }))

  it.effect("a parent's deadline is not reported as this timeout's", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ timeout: "10 seconds" })
      const fiber = yield* timeout.execute(Effect.never).pipe(Effect.timeout("1 second"), Effect.flip, Effect.forkChild)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "TimeoutError")
      assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 0, running: 0, late: 0 })
    }))

  it.effect("a wait for tokens that cannot succeed is refused at once", () =>
    Effect.gen(function*() {
      const limiter = yield* RateLimiter.make({ rate: 1, burst: 10, onExceeded: "wait", maxWait: "1 second" })
      yield* limiter.tokens(10)
      const error = yield* Effect.flip(limiter.tokens(5))
      assert.isTrue(
        error.reason._tag === "RateLimited" && Duration.toMillis(error.reason.retryAfter) === 5000
      )
    }))

  it.effect("more tokens than the burst are refused without a wait", () =>
    Effect.gen(function*() {
      const limiter = yield* RateLimiter.make({ rate: 1, burst: 10, onExceeded: "wait", maxWait: "1 hour" })
      const exit = yield* Effect.exit(limiter.tokens(11))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.strictEqual((yield* limiter.snapshot).tokens, 10)
    }))

  it.effect("callers that wait for tokens are served first come first served", () =>
    Effect.gen(function*() {
      const limiter = yield* RateLimiter.make({ rate: 10, burst: 5, onExceeded: "wait", maxWait: "1 hour" })
      yield* limiter.tokens(5)
      const order: Array<number> = []
      // A small request does not overtake a large one.
      const fibers = yield* Effect.forEach([5, 1, 3, 1, 1, 5], (count, i) =>
        Effect.forkChild(Effect.andThen(
          limiter.tokens(count),
          Effect.sync(() => {
            order.push(i)
          })
        )))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.awaitAll(fibers)
      assert.deepStrictEqual(order, [0, 1, 2, 3, 4, 5])
    }))
})
