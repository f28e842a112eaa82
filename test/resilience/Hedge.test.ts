import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, Deferred, Duration, Effect, Exit, Fiber, Scheduler } from "effect"
import { Bulkhead, Hedge, Retry, RetryBudget, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { AsyncLocalStorage } from "node:async_hooks"
import { counted } from "./support.ts"

/** Runs the given effects one per execution and keeps book. */
const executions = <A, E>(...effects: ReadonlyArray<Effect.Effect<A, E>>) => {
  const state = { started: 0, interrupted: 0 }
  const effect = Effect.suspend(() =>
    Effect.onInterrupt(effects[Math.min(state.started++, effects.length - 1)]!, () =>
      Effect.sync(() => {
        state.interrupted += 1
      }))
  )
  return { state, effect }
}

const after = <A, E>(duration: Duration.Input, effect: Effect.Effect<A, E>) =>
  Effect.andThen(Effect.sleep(duration), effect)

describe("Hedge", () => {
  it.effect("starts nothing beside an execution that is quick", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const { effect, state } = executions(after("999 millis", Effect.succeed("first")))
      const fiber = yield* Effect.forkChild(hedge.execute(effect))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Fiber.join(fiber), "first")
      assert.deepStrictEqual(state, { started: 1, interrupted: 0 })
      assert.strictEqual(yield* hedge.execute(Effect.succeed("at once")), "at once")
    }))

  it.effect("answers with the first success and interrupts the others", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second", maxHedges: 2 })
      const { effect, state } = executions(Effect.never, after("5 seconds", Effect.succeed("second")), Effect.never)
      const fiber = yield* Effect.forkChild(hedge.execute(effect))
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(state.started, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(state.started, 2)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(state.started, 3)
      yield* TestClock.adjust("3999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "second")
      assert.deepStrictEqual(state, { started: 3, interrupted: 2 })
    }))

  it.effect("lets the first execution win while a hedge runs", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const { effect, state } = executions(after("2 seconds", Effect.succeed("first")), Effect.never)
      const fiber = yield* Effect.forkChild(hedge.execute(effect))
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), "first")
      assert.deepStrictEqual(state, { started: 2, interrupted: 1 })
    }))

  it.effect("fails with the first failure when all fail, and waits for the others before", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const both = executions(after("3 seconds", Effect.fail("first")), after("1 second", Effect.fail("second")))
      const fiber = yield* Effect.forkChild(Effect.flip(hedge.execute(both.effect)))
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "second")
      const one = executions(after("3 seconds", Effect.die("bug")), after("9 seconds", Effect.succeed("second")))
      const saved = yield* Effect.forkChild(hedge.execute(one.effect))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(saved), "second")
    }))

  it.effect("fails at once with a failure that came before any hedge", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      assert.strictEqual(yield* Effect.flip(hedge.execute(Effect.fail("at once"))), "at once")
      assert.deepStrictEqual(yield* Effect.exit(hedge.execute(Effect.die("bug"))), Exit.die("bug"))
      const { effect, state } = executions(after("500 millis", Effect.fail("soon")))
      const fiber = yield* Effect.forkChild(Effect.flip(hedge.execute(effect)))
      yield* TestClock.adjust("500 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "soon")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(state.started, 1)
    }))

  it.effect("draws from the budget, and hedges no more when it is empty", () =>
    Effect.gen(function*() {
      const budget = yield* RetryBudget.make({ share: 0, minPerSecond: 1 })
      const hedge = yield* Hedge.make({ delay: "100 millis", maxHedges: 5, budget })
      const { effect, state } = executions(after("900 millis", Effect.succeed("done")))
      const fiber = yield* Effect.forkChild(hedge.execute(effect))
      yield* TestClock.adjust("900 millis")
      yield* Fiber.join(fiber)
      assert.strictEqual(state.started, 2)
      assert.strictEqual((yield* budget.snapshot).refused, 1)
    }))

  it.effect("neither hedges nor retries inside a hedge or a retry", () =>
    Effect.gen(function*() {
      const outer = yield* Hedge.make({ delay: "1 second", budget: false })
      const inner = yield* Hedge.make({ delay: "1 second", budget: false })
      const retry = yield* Retry.make({ initialDelay: "1 millis", budget: false })
      let inHedge = 0
      let calls = 0
      const fiber = yield* outer.execute(Effect.suspend(() => {
        calls += 1
        if (calls === 1) return Effect.never
        const failing = Effect.suspend(() => {
          inHedge += 1
          return Effect.andThen(Effect.sleep("5 seconds"), Effect.fail("no"))
        })
        return inner.execute(retry.execute(failing))
      })).pipe(Effect.forkChild)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(calls, 2)
      assert.strictEqual(inHedge, 1)
      yield* Fiber.interrupt(fiber)
      let attempts = 0
      const retried = yield* retry.execute(outer.execute(Effect.suspend(() => {
        attempts += 1
        return attempts === 1 ? Effect.fail("no") : Effect.andThen(Effect.sleep("1 minute"), Effect.succeed(attempts))
      }))).pipe(Effect.forkChild)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* Fiber.join(retried), 2)
    }))

  it.effect("retries again in a fiber that was detached from an execution which has ended", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const retry = yield* Retry.make({ initialDelay: "1 millis", budget: false })
      for (const hedges of [0, 1]) {
        let attempts = 0
        const work = Effect.suspend(() => {
          attempts += 1
          return Effect.fail("no")
        })
        const detaching = Effect.forkDetach(Effect.andThen(Effect.sleep("1 hour"), Effect.exit(retry.execute(work))))
        const { effect } = hedges === 0 ? executions(detaching) : executions(Effect.never, detaching)
        const call = yield* Effect.forkChild(hedge.execute(effect))
        yield* TestClock.adjust("1 second")
        const detached = yield* Fiber.join(call)
        yield* TestClock.adjust("2 hours")
        yield* Fiber.join(detached)
        assert.strictEqual(attempts, 3)
      }
    }))

  it.effect("keeps the bulkhead's slot for a loser that cannot be interrupted, and does not wait for it", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const { effect } = executions(
        Effect.uninterruptible(after("10 seconds", Effect.succeed("slow"))),
        Effect.succeed("quick")
      )
      const fiber = yield* Effect.forkChild(bulkhead.execute(hedge.execute(effect)))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "quick")
      assert.strictEqual((yield* bulkhead.snapshot).active, 1)
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual((yield* bulkhead.snapshot).active, 0)
    }))

  it.effect("works inside a timeout that has less time than the slow execution", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const timeout = yield* Timeout.make({ timeout: "3 seconds" })
      const { effect, state } = executions<never, never>(Effect.never)
      const fiber = yield* Effect.forkChild(Effect.flip(timeout.execute(hedge.execute(effect))))
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "TimedOut")
      assert.deepStrictEqual(state, { started: 2, interrupted: 2 })
    }))

  it.effect("leaves no execution behind, wherever the caller is interrupted", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 millis", maxHedges: 2, budget: false })
      const { count, effect } = counted(Effect.andThen(Effect.yieldNow, Effect.never))
      // Interrupted between two turns of the scheduler. Each number of operations lets the turns end at other steps.
      for (let ops = 3; ops <= 64; ops++) {
        for (let position = 0; position < 64; position++) {
          const fiber = yield* hedge.execute(effect).pipe(
            Effect.provideService(Scheduler.MaxOpsBeforeYield, ops),
            Effect.forkChild
          )
          for (let i = 0; i < position >> 2; i++) yield* Effect.yieldNow
          if (position % 4 === 3) yield* TestClock.adjust("1 millis")
          yield* Fiber.interrupt(fiber)
          if (count.started !== count.ended) assert.fail(`work left behind at ${ops} operations, position ${position}`)
        }
      }
      const { started } = count
      assert.isAbove(started, 4000)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(count.started, started)
    }))

  it.live("starts hedges in the asynchronous context of the call", () =>
    Effect.gen(function*() {
      const storage = new AsyncLocalStorage<string>()
      const hedge = yield* Hedge.make({ delay: "5 millis", budget: false })
      const call = () => {
        let started = 0
        return hedge.execute(Effect.suspend(() => {
          started += 1
          return started === 1 ? Effect.never : Effect.succeed(storage.getStore())
        }))
      }
      const seen = yield* Effect.promise(() =>
        Promise.all(["a", "b"].map((name) => storage.run(name, () => Effect.runPromise(call()))))
      )
      assert.deepStrictEqual(seen, ["a", "b"])
    }))

  it.effect("starts nothing more while an interrupted caller waits for what cannot be stopped", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const { effect, state } = executions(Effect.uninterruptible(Effect.sleep("5 seconds")))
      const fiber = yield* Effect.forkChild(hedge.execute(effect))
      yield* TestClock.adjust("500 millis")
      yield* Effect.forkChild(Fiber.interrupt(fiber))
      yield* TestClock.adjust("4 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.isDefined(fiber.pollUnsafe())
      assert.strictEqual(state.started, 1)
    }))

  it.effect("is interrupted with everything it started", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "1 second" })
      const gate = yield* Deferred.make<void>()
      const { effect, state } = executions(Deferred.await(gate))
      const fiber = yield* Effect.forkChild(hedge.execute(effect))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.deepStrictEqual(state, { started: 2, interrupted: 2 })
    }))

  describe("options", () => {
    it("refuse nonsense and say who, what and what came", () => {
      const message = (options: any) => {
        try {
          Hedge.make(options)
        } catch (error) {
          return (error as Error).message
        }
        return "nothing was thrown"
      }
      assert.strictEqual(message({ delay: 0 }), "Hedge.make: delay must be a duration > 0 and finite, got 0 ms")
      assert.strictEqual(message({}), "Hedge.make: delay must be given")
      assert.strictEqual(message({ delay: 5, maxHedges: 0 }), "Hedge.make: maxHedges must be an integer >= 1, got 0")
      assert.strictEqual(
        message({ delay: 5, maxHedges: 1.5 }),
        "Hedge.make: maxHedges must be an integer >= 1, got 1.5"
      )
      assert.include(message({ delay: 5, hedges: 1 }), "Hedge.make: unknown option \"hedges\"")
    })

    it.effect("come from the configuration with layerConfig", () =>
      Effect.gen(function*() {
        const hedge = yield* Hedge.Hedge
        const { effect, state } = executions(Effect.never, Effect.succeed("hedged"))
        const fiber = yield* Effect.forkChild(hedge.execute(effect))
        yield* TestClock.adjust("20 millis")
        assert.strictEqual(yield* Fiber.join(fiber), "hedged")
        assert.strictEqual(state.started, 2)
      }).pipe(
        Effect.provide(Hedge.layerConfig({ delay: Config.Duration("DELAY") })),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ DELAY: "20 millis" })))
      ))
  })
})
