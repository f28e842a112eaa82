import { assert, describe, it } from "@effect/vitest"
import { Clock, Config, ConfigProvider, Effect, Fiber } from "effect"
import { Hedge, Retry, RetryBudget } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { makeInstantClock, makeJumpingClock, wallSteps } from "./support.ts"

/** A handler that always fails, behind so many layers of retries, and how often it was run. */
const storm = (layers: ReadonlyArray<Effect.Effect<Retry.Retrier<never>>>) =>
  Effect.gen(function*() {
    const retries = yield* Effect.all(layers)
    const state = { executions: 0 }
    const work = Effect.suspend(() => {
      state.executions += 1
      return Effect.fail("down")
    })
    const call = retries.reduce((effect, retry) => retry.execute(effect), work)
    return { state, call: Effect.ignore(call) }
  })

describe("RetryBudget", () => {
  it.effect("keeps 100,000 failing calls through three nested layers below 1.2 executions each, plus 10 per second", () =>
    Effect.gen(function*() {
      const calls = 100_000
      const time = makeInstantClock()
      const { call, state } = yield* storm([Retry.make(), Retry.make(), Retry.make()])
      yield* Effect.gen(function*() {
        for (let i = 0; i < calls; i++) {
          yield* call
          time.advance(0.1)
        }
      }).pipe(Effect.provideService(Clock.Clock, time.clock))
      const seconds = (calls * 0.1) / 1000
      // A second's worth of the minimum is there from the start.
      assert.isAtMost(state.executions, 1.2 * calls + 10 * (seconds + 1))
      // The budget is there to be used: nearly all of it is.
      assert.isAtLeast(state.executions, 1.19 * calls)
    }))

  it.effect("takes back a repetition that was not made, once, and not when the window has passed it anyway", () =>
    Effect.gen(function*() {
      const budget = yield* RetryBudget.make({ share: 1, minPerSecond: 0, window: "10 seconds" })
      const retry = yield* Retry.make({ budget, jitter: "none", initialDelay: "1 minute", maxDelay: "1 minute" })
      for (const [waited, kept] of [["5 seconds", 1], ["30 seconds", 0]] as const) {
        const fiber = yield* Effect.forkChild(retry.execute(Effect.fail("no")))
        yield* TestClock.adjust(waited)
        assert.strictEqual((yield* budget.snapshot).repetitions, kept)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual((yield* budget.snapshot).repetitions, 0)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* budget.snapshot).repetitions, 0)
      }
    }))

  it.effect("does the same where the layers share a budget, and where no time passes", () =>
    Effect.gen(function*() {
      const calls = 20_000
      for (const budget of [yield* RetryBudget.make(), undefined]) {
        const { clock } = makeInstantClock()
        const { call, state } = yield* storm([Retry.make({ budget }), Retry.make({ budget }), Retry.make({ budget })])
        yield* Effect.provideService(Effect.repeat(call, { times: calls - 1 }), Clock.Clock, clock)
        assert.isAtMost(state.executions, 1.2 * calls + 10)
        assert.isAtLeast(state.executions, 1.19 * calls)
      }
    }))

  it.effect("allows the minimum whatever the share says, and saves up one second of it", () =>
    Effect.gen(function*() {
      const time = makeInstantClock()
      const budget = yield* RetryBudget.make({ share: 0, minPerSecond: 10 })
      const { call, state } = yield* storm([Retry.make({ budget, maxAttempts: 2 })])
      const run = (times: number) =>
        Effect.suspend(() => {
          const before = state.executions
          return Effect.map(
            Effect.provideService(Effect.repeat(call, { times: times - 1 }), Clock.Clock, time.clock),
            () => state.executions - before - times
          )
        })
      assert.strictEqual(yield* run(100), 10)
      time.advance(500)
      assert.strictEqual(yield* run(100), 5)
      time.advance(3_600_000)
      assert.strictEqual(yield* run(100), 10)
      assert.strictEqual((yield* budget.snapshot).refused, 275)
    }))

  it.effect("allows one in so many seconds where the minimum is a fraction", () =>
    Effect.gen(function*() {
      const time = makeInstantClock()
      const budget = yield* RetryBudget.make({ share: 0, minPerSecond: 0.125 })
      const { call, state } = yield* storm([Retry.make({ budget, maxAttempts: 2 })])
      const repetitions: Array<number> = []
      for (let second = 0; second < 31; second++) {
        const before = state.executions
        yield* Effect.provideService(call, Clock.Clock, time.clock)
        if (state.executions - before === 2) repetitions.push(second)
        time.advance(1000)
      }
      assert.deepStrictEqual(repetitions, [0, 8, 16, 24])
    }))

  it.effect("forgets calls after the window, so that an idle day does not pay for a storm", () =>
    Effect.gen(function*() {
      const time = makeInstantClock()
      const budget = yield* RetryBudget.make({ share: 0.5, minPerSecond: 0, window: "10 seconds" })
      const retry = yield* Retry.make({ budget, maxAttempts: 2 })
      const live = <A, E>(effect: Effect.Effect<A, E>) => Effect.provideService(effect, Clock.Clock, time.clock)
      yield* live(Effect.repeat(retry.execute(Effect.void), { times: 999 }))
      assert.deepStrictEqual(yield* live(budget.snapshot), { calls: 1000, repetitions: 0, refused: 0 })
      time.advance(9_000)
      assert.strictEqual((yield* live(budget.snapshot)).calls, 1000)
      time.advance(1_000)
      assert.strictEqual((yield* live(budget.snapshot)).calls, 0)
      const { call, state } = yield* storm([Effect.succeed(retry)])
      yield* live(Effect.repeat(call, { times: 99 }))
      assert.isAtMost(state.executions, 150)
      time.advance(100_000)
      const late = yield* live(budget.snapshot)
      assert.deepInclude(late, { calls: 0, repetitions: 0 })
    }))

  it.effect("takes from the outermost budget and the own one, or from neither", () =>
    Effect.gen(function*() {
      const { clock } = makeInstantClock()
      const none = { share: 0, minPerSecond: 0 }
      const some = { share: 0, minPerSecond: 100 }
      for (const [outer, inner] of [[none, some], [some, none], [none, none]] as const) {
        const inside = yield* RetryBudget.make(inner)
        const outside = yield* RetryBudget.make(outer)
        const { call, state } = yield* storm([
          Retry.make({ budget: inside, maxAttempts: 2 }),
          // Never retries itself, so all repetitions are those of the inner layer.
          Retry.make({ budget: outside, maxAttempts: 2, retryIf: () => false })
        ])
        yield* Effect.provideService(Effect.repeat(call, { times: 9 }), Clock.Clock, clock)
        assert.strictEqual(state.executions, 10)
      }
    }))

  it.effect("counts a call once for all who share it, and repetitions not at all", () =>
    Effect.gen(function*() {
      const { clock } = makeInstantClock()
      const budget = yield* RetryBudget.make()
      const outer = yield* Retry.make({ budget })
      const hedge = yield* Hedge.make({ budget, delay: "1 second" })
      const inner = yield* Retry.make({ budget })
      const call = outer.execute(hedge.execute(inner.execute(Effect.fail("down"))))
      yield* Effect.provideService(Effect.repeat(Effect.ignore(call), { times: 9 }), Clock.Clock, clock)
      assert.strictEqual((yield* Effect.provideService(budget.snapshot, Clock.Clock, clock)).calls, 10)
    }))

  it.effect("is not moved by steps of the wall clock", () =>
    Effect.gen(function*() {
      const { clock, jump } = yield* makeJumpingClock
      for (const step of wallSteps) {
        const budget = yield* RetryBudget.make({ minPerSecond: 5 })
        const retry = yield* Retry.make({ budget })
        const before = yield* Effect.provideService(
          Effect.andThen(Effect.repeat(retry.execute(Effect.void), { times: 99 }), budget.snapshot),
          Clock.Clock,
          clock
        )
        jump(step)
        assert.deepStrictEqual(yield* Effect.provideService(budget.snapshot, Clock.Clock, clock), before)
      }
    }))

  describe("options", () => {
    it("refuse nonsense and say who, what and what came", () => {
      const message = (options: any) => {
        try {
          RetryBudget.make(options)
        } catch (error) {
          return (error as Error).message
        }
        return "nothing was thrown"
      }
      assert.strictEqual(message({ share: -0.1 }), "RetryBudget.make: share must be a number >= 0 and <= 1, got -0.1")
      assert.strictEqual(message({ share: NaN }), "RetryBudget.make: share must be a number >= 0 and <= 1, got NaN")
      assert.strictEqual(
        message({ minPerSecond: Infinity }),
        "RetryBudget.make: minPerSecond must be a number >= 0, got Infinity"
      )
      assert.strictEqual(message({ window: 0 }), "RetryBudget.make: window must be a duration > 0 and finite, got 0 ms")
      assert.strictEqual(
        message({ percent: 20 }),
        "RetryBudget.make: unknown option \"percent\", expected one of share, minPerSecond, window"
      )
    })

    it.effect("come from the configuration with layerConfig", () =>
      Effect.gen(function*() {
        const { clock } = makeInstantClock()
        const budget = yield* RetryBudget.RetryBudget
        const { call, state } = yield* storm([Retry.make({ budget, maxAttempts: 100 })])
        yield* Effect.provideService(call, Clock.Clock, clock)
        assert.strictEqual(state.executions, 8)
      }).pipe(
        Effect.provide(
          RetryBudget.layerConfig({ share: Config.Number("SHARE"), minPerSecond: Config.Number("MINIMUM") })
        ),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ SHARE: "0", MINIMUM: "7" })))
      ))
  })
})
