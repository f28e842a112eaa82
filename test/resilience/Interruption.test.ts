import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit } from "effect"
import { Bulkhead, CircuitBreaker, Executor } from "effect-toolops/resilience"
import { type Position, positions, SweepScheduler } from "../support/interruptSweep.ts"
import { wakeful } from "./support.ts"

/** Work that gives the scheduler a few occasions to let somebody else run. */
const work = Effect.andThen(Effect.yieldNow, Effect.as(Effect.yieldNow, "done"))

const show = (position: Position): string => JSON.stringify(position)

/**
 * Runs `scenario` at every position and says how often the fiber was really interrupted: at most positions it has ended
 * before. Nearly as often as that is what each test asks for.
 */
const sweep = (scenario: (scheduler: SweepScheduler, where: string) => void): number => {
  let interrupted = 0
  for (const position of positions) {
    const scheduler = new SweepScheduler(position)
    scenario(scheduler, show(position))
    if (scheduler.didInterrupt) interrupted += 1
  }
  return interrupted
}

const idle = { active: 0, queued: 0 }

const countsOf = (bulkhead: Bulkhead.Bulkhead["Service"]) => {
  const { active, queued } = Effect.runSync(bulkhead.snapshot)
  return { active, queued }
}

describe("interruption at every position", () => {
  it("loses and gains no slot of a bulkhead that has one free", () => {
    const interrupted = sweep((scheduler, where) => {
      const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: 1 }))
      const fiber = scheduler.aim(bulkhead.execute(work))
      scheduler.drain()
      assert.isDefined(fiber.pollUnsafe(), where)
      assert.deepStrictEqual(countsOf(bulkhead), idle, where)
    })
    assert.isAbove(interrupted, 1400)
  })

  it("loses and gains no slot that is handed to a waiter", () => {
    const interrupted = sweep((scheduler, where) => {
      const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: 1, maxQueue: 2 }))
      const run = Effect.runForkWith(scheduler.context)
      const before = run(bulkhead.execute(work))
      const target = scheduler.aim(bulkhead.execute(work))
      const after = run(bulkhead.execute(work))
      scheduler.drain()
      assert.deepStrictEqual(before.pollUnsafe(), Exit.succeed("done"), where)
      assert.isDefined(target.pollUnsafe(), where)
      assert.deepStrictEqual(after.pollUnsafe(), Exit.succeed("done"), where)
      assert.deepStrictEqual(countsOf(bulkhead), idle, where)
    })
    assert.isAbove(interrupted, 1800)
  })

  it("loses and gains no probe of a half-open circuit", () => {
    const interrupted = sweep((scheduler, where) => {
      const breaker = Effect.runSync(
        CircuitBreaker.make({ maxFailures: 1, resetTimeout: 0.0001, probeLease: "1 hour" })
      )
      Effect.runSyncExit(breaker.execute(Effect.fail("down")))
      assert.strictEqual(Effect.runSync(breaker.state), "open", where)
      let isDone = false
      const probe = Effect.tap(work, () => Effect.sync(() => isDone = true))
      const fiber = scheduler.aim(breaker.execute(probe))
      scheduler.drain()
      const exit = fiber.pollUnsafe()
      assert.isDefined(exit, where)
      const { probes, status } = Effect.runSync(breaker.snapshot)
      assert.strictEqual(probes, 0, where)
      // The interruption may come when the probe has done its work and the fiber has not ended.
      if (Exit.isSuccess(exit!)) assert.strictEqual(status, "closed", where)
      if (status === "closed") assert.isTrue(isDone, where)
      assert.strictEqual(Effect.runSync(breaker.execute(Effect.succeed("next"))), "next", where)
      assert.strictEqual(Effect.runSync(breaker.state), "closed", where)
    })
    assert.isAbove(interrupted, 1800)
  })

  it("loses and gains nothing of an executor with all parts", () => {
    const interrupted = sweep((scheduler, where) => {
      const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: 1 }))
      const circuitBreaker = Effect.runSync(CircuitBreaker.make({ maxFailures: 1 }))
      const executor = Effect.runSync(Executor.make({ bulkhead, circuitBreaker, retry: {}, timeout: {} }))
      const fiber = scheduler.aim(executor.execute(work))
      scheduler.drain()
      assert.isDefined(fiber.pollUnsafe(), where)
      assert.deepStrictEqual(countsOf(bulkhead), idle, where)
      assert.strictEqual(Effect.runSync(circuitBreaker.state), "closed", where)
    })
    assert.isAbove(interrupted, 380)
  })

  it("loses and gains nothing of an executor whose first attempt fails", () => {
    const interrupted = sweep((scheduler, where) => {
      const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: 1 }))
      const circuitBreaker = Effect.runSync(CircuitBreaker.make({ maxFailures: 1 }))
      const retry = { initialDelay: 0.001, jitter: "none" } as const
      const executor = Effect.runSync(Executor.make({ bulkhead, circuitBreaker, retry, timeout: {} }))
      let attempts = 0
      const flaky = Effect.suspend(() => ++attempts === 1 ? Effect.andThen(work, Effect.fail("once")) : work)
      const fiber = scheduler.aim(Effect.provideService(executor.execute(flaky), Clock.Clock, wakeful))
      scheduler.drain()
      assert.isDefined(fiber.pollUnsafe(), where)
      assert.deepStrictEqual(countsOf(bulkhead), idle, where)
      assert.strictEqual(Effect.runSync(circuitBreaker.state), "closed", where)
    })
    assert.isAbove(interrupted, 4800)
  })

  it("loses and gains no slot and no probe when an executor's caller waits for both", () => {
    const interrupted = sweep((scheduler, where) => {
      const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: 1, maxQueue: 2 }))
      const circuitBreaker = Effect.runSync(CircuitBreaker.make({ maxFailures: 1, resetTimeout: 0.0001 }))
      Effect.runSyncExit(circuitBreaker.execute(Effect.fail("down")))
      const executor = Effect.runSync(Executor.make({ bulkhead, circuitBreaker, retry: {}, timeout: {} }))
      const run = Effect.runForkWith(scheduler.context)
      const before = run(bulkhead.execute(work))
      const target = scheduler.aim(executor.execute(work))
      const after = run(bulkhead.execute(work))
      scheduler.drain()
      for (const fiber of [before, after]) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed("done"), where)
      assert.isDefined(target.pollUnsafe(), where)
      assert.deepStrictEqual(countsOf(bulkhead), idle, where)
      assert.strictEqual(Effect.runSync(circuitBreaker.snapshot).probes, 0, where)
    })
    assert.isAbove(interrupted, 2200)
  })
})
