import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import {
  Bulkhead,
  CircuitBreaker,
  Executor,
  Hedge,
  ResilienceObserver,
  Retry,
  Timeout
} from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

/** An observer that throws whatever it is told, and notes it. */
const makeHostile = () => {
  const told: Array<string> = []
  const hears = (event: string) => (): never => {
    told.push(event)
    throw new Error("observer")
  }
  const observer: ResilienceObserver.ResilienceObserver = {
    onBulkhead: hears("bulkhead"),
    onHedge: hears("hedge"),
    onLateResult: hears("late result"),
    onRetry: hears("retry"),
    onTimeout: hears("timeout"),
    onTransition: hears("transition")
  }
  const provide = Effect.provideService(ResilienceObserver.CurrentResilienceObserver, observer)
  return { told, provide }
}

describe("an observer that throws", () => {
  it.effect("costs a bulkhead no slot, whether it is free, waited for or refused", () =>
    Effect.gen(function*() {
      const { provide, told } = makeHostile()
      const bulkhead = yield* provide(Bulkhead.make({ maxConcurrent: 1, maxQueue: 1, maxWait: "1 hour" }))
      const call = bulkhead.execute(Effect.as(Effect.sleep("1 second"), "done"))
      const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(Effect.exit(call)))
      yield* TestClock.adjust("2 seconds")
      const exits = yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, true, false])
      assert.deepInclude(yield* bulkhead.snapshot, { active: 0, queued: 0, rejected: 1 })
      assert.strictEqual(yield* bulkhead.execute(Effect.succeed("next")), "next")
      assert.isAtLeast(told.length, 6)
    }))

  it.effect("costs a circuit no probe, and the caller nothing", () =>
    Effect.gen(function*() {
      const { provide, told } = makeHostile()
      const breaker = yield* provide(CircuitBreaker.make({ maxFailures: 1, resetTimeout: "1 second" }))
      assert.strictEqual(yield* Effect.flip(breaker.execute(Effect.fail("down"))), "down")
      assert.strictEqual(yield* breaker.state, "open")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Effect.flip(breaker.execute(Effect.fail("still down"))), "still down")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* breaker.execute(Effect.succeed("up")), "up")
      assert.deepInclude(yield* breaker.snapshot, { status: "closed", probes: 0 })
      yield* breaker.forceOpen
      yield* breaker.reset
      assert.deepStrictEqual(told, Array.from({ length: 7 }, () => "transition"))
    }))

  it.effect("stops neither a retry, nor a hedge, nor a timeout and its late result", () =>
    Effect.gen(function*() {
      const { provide, told } = makeHostile()
      let attempts = 0
      const retry = yield* provide(Retry.make({ initialDelay: "1 millis" }))
      const retried = yield* Effect.forkChild(
        retry.execute(Effect.suspend(() => ++attempts < 3 ? Effect.fail("no") : Effect.succeed("retried")))
      )
      let executions = 0
      const hedge = yield* provide(Hedge.make({ delay: "1 second" }))
      const hedged = yield* Effect.forkChild(
        hedge.execute(Effect.suspend(() => ++executions === 1 ? Effect.never : Effect.succeed("hedged")))
      )
      const timeout = yield* provide(Timeout.make({ timeout: "1 second" }))
      const late = yield* Effect.forkChild(
        Effect.flip(timeout.execute(Effect.uninterruptible(Effect.sleep("2 seconds"))))
      )
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Fiber.join(retried), "retried")
      assert.strictEqual(yield* Fiber.join(hedged), "hedged")
      assert.strictEqual((yield* Fiber.join(late)).reason._tag, "TimedOut")
      assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 1 })
      assert.deepStrictEqual(told.toSorted(), ["hedge", "late result", "retry", "retry", "timeout"])
    }))

  it.live("does not reach the host's timer that serves all deadlines", () =>
    Effect.gen(function*() {
      const { provide } = makeHostile()
      const timeout = yield* provide(Timeout.make({ timeout: "5 millis" }))
      const exits = yield* Effect.all(
        [1, 2, 3].map(() => Effect.flip(timeout.execute(Effect.never))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(exits.map(({ reason }) => reason._tag), ["TimedOut", "TimedOut", "TimedOut"])
    }))

  it.effect("costs an executor nothing, at once and after a wait", () =>
    Effect.gen(function*() {
      const { provide, told } = makeHostile()
      const parts = yield* provide(Effect.all({
        bulkhead: Bulkhead.make({ maxConcurrent: 1 }),
        circuitBreaker: CircuitBreaker.make({ maxFailures: 1, resetTimeout: "1 second" }),
        retry: Retry.make({ maxAttempts: 2, initialDelay: "1 millis" }),
        timeout: Timeout.make({ timeout: "1 second" })
      }))
      const executor = yield* Executor.make(parts)
      for (const work of [Effect.succeed("done"), Effect.as(Effect.sleep("500 millis"), "done")]) {
        const fiber = yield* Effect.forkChild(executor.execute(work))
        yield* TestClock.adjust("500 millis")
        assert.strictEqual(yield* Fiber.join(fiber), "done")
        assert.strictEqual((yield* parts.bulkhead.snapshot).active, 0)
      }
      const fails = yield* Effect.forkChild(Effect.flip(executor.execute(Effect.never)))
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.join(fails)
      assert.strictEqual((yield* parts.bulkhead.snapshot).active, 0)
      assert.strictEqual(yield* parts.circuitBreaker.state, "open")
      assert.strictEqual(yield* executor.execute(Effect.succeed("probe")), "probe")
      assert.strictEqual(yield* parts.circuitBreaker.state, "closed")
      assert.includeMembers(told, ["bulkhead", "transition", "retry", "timeout"])
    }))
})
