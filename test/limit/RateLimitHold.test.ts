import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scheduler } from "effect"
import { ToolMeta, type ToolMiddleware } from "effect-toolops"
import { RateLimit, RateLimitError, RateLimitStore } from "effect-toolops/limit"
import { TestClock } from "effect/testing"
import { alice, limited } from "./limited.ts"

const echo = ToolMeta.make({ name: "echo" })

const perSecond: RateLimit.Limit = { name: "caller", per: "identity", limit: 1, window: "1 second" }

/** How long alice's bucket takes to be full again. */
const debtOf = (t: Effect.Success<ReturnType<typeof limited>>) =>
  Effect.map(t.limits.explain(echo)(t.call(echo, alice)), (plan) => {
    const [status] = plan.detail["limits"] as ReadonlyArray<{ readonly resetAfterMillis: number }>
    return status?.resetAfterMillis
  })

/** Interrupts the fiber that it runs at one step. */
class InterruptAt extends Scheduler.MixedScheduler {
  private steps = 0
  private readonly step: number

  constructor(step: number) {
    super()
    this.step = step
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    this.steps += 1
    if (this.steps !== this.step) return false
    queueMicrotask(() => fiber.interruptUnsafe())
    return true
  }
}

const unavailable = Effect.fail(
  new RateLimitError.RateLimitError({ reason: new RateLimitError.LimitStoreUnavailable() })
)
const brokenStore = Layer.succeed(RateLimitStore.RateLimitStore, {
  consume: () => unavailable,
  peek: () => unavailable,
  refund: () => Effect.void
})

describe("RateLimit", () => {
  describe("onExceeded: wait", () => {
    it.effect("lets calls wait their turn, first come first served, up to maxWait", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [perSecond], onExceeded: "wait", maxWait: "2 seconds" })
        const started: Array<readonly [number, number]> = []
        let second = 0
        const fibers = yield* Effect.forEach([0, 1, 2, 3], (i) =>
          Effect.forkChild(Effect.exit(t.run(echo, alice, Effect.sync(() => started.push([i, second]))))))
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(started, [[0, 0]])
        assert.isTrue(Exit.isFailure(yield* Fiber.join(fibers[3]!)), "the fourth would wait too long")
        for (second = 1; second <= 3; second++) {
          yield* TestClock.adjust("999 millis")
          yield* TestClock.adjust("1 millis")
        }
        assert.deepStrictEqual(started, [[0, 0], [1, 1], [2, 2]])
      }))

    it.effect("does not start a call before its time", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [perSecond], onExceeded: "wait" })
        let ran = false
        yield* t.run(echo, alice)
        yield* Effect.forkChild(t.run(echo, alice, Effect.sync(() => ran = true)))
        yield* TestClock.adjust("999 millis")
        assert.isFalse(ran)
        yield* TestClock.adjust("1 millis")
        assert.isTrue(ran)
      }))

    it.effect("refuses at once what would wait longer, with the exact time", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [perSecond], onExceeded: "wait", maxWait: "999 millis" })
        yield* t.run(echo, alice)
        assert.strictEqual((yield* t.refusal(echo, alice)).retryAfter, 1000)
        assert.strictEqual((yield* t.refusal(echo, alice)).retryAfter, 1000, "a refusal takes no place in the queue")
      }))

    it.effect("refuses for good, without waiting, what costs more than a full bucket", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [{ ...perSecond, cost: () => 2 }],
          onExceeded: "wait",
          maxWait: "1 day"
        })
        assert.strictEqual((yield* t.refusal(echo, alice)).retryAfter, Infinity)
      }))

    it.effect("gives the place of a call back that is interrupted while it waits", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [perSecond], onExceeded: "wait", maxWait: "5 seconds" })
        yield* t.run(echo, alice)
        for (let i = 0; i < 20; i++) {
          const waiting = yield* Effect.forkChild(t.run(echo, alice))
          yield* TestClock.adjust(10)
          yield* Fiber.interrupt(waiting)
        }
        const last = yield* Effect.forkChild(t.run(echo, alice))
        yield* TestClock.adjust(800)
        assert.isTrue(Exit.isSuccess(yield* Fiber.await(last)))
      }))

    it.effect("keeps the tokens of a call that is interrupted after it has started", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [perSecond], onExceeded: "wait", maxWait: 0 })
        const running = yield* Effect.forkChild(t.run(echo, alice, Effect.never))
        yield* TestClock.adjust(0)
        yield* Fiber.interrupt(running)
        assert.isFalse(yield* t.passes(echo, alice))
      }))

    it.live("waits by the real clock, never too short", () =>
      Effect.gen(function*() {
        const t = yield* limited({
          limits: [{ ...perSecond, limit: 50, burst: 1 }],
          onExceeded: "wait",
          maxWait: "1 second"
        })
        const starts: Array<number> = []
        yield* Effect.forEach(
          Array.from({ length: 11 }),
          () => t.run(echo, alice, Effect.sync(() => starts.push(performance.now()))),
          { concurrency: "unbounded" }
        )
        for (let i = 1; i < starts.length; i++) {
          // Each start may be late but not early by the plan that the first one began.
          assert.isAtLeast(starts[i]! - starts[0]!, i * 20 - 1)
        }
      }))
  })

  const holding: ReadonlyArray<readonly [string, Partial<RateLimit.Options>]> = [
    ["wait", { onExceeded: "wait", maxWait: "10 seconds" }],
    ["refundHits", { refundHits: true }]
  ]
  for (const [mode, options] of holding) {
    it.effect(`leaks no token at whichever step a call is interrupted, with ${mode}`, () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        for (let step = 1; step <= 80; step++) {
          const t = yield* limited({ limits: [perSecond], ...options })
          const fiber = yield* Effect.forkChild(
            Effect.provideService(t.run(echo, alice, Effect.yieldNow), Scheduler.Scheduler, new InterruptAt(step))
          )
          const exit = yield* Fiber.await(fiber)
          const debt = yield* debtOf(t)
          const started = (t.records[0]?.attempts ?? 0) > 0
          seen.push(Exit.isSuccess(exit) ? "whole" : `${started ? "started" : "not started"}, ${debt}`)
        }
        const inOrder = seen.filter((what, i) => what !== seen[i - 1])
        // One step hands the call over and the next one starts the handler, so between them it has been spent.
        assert.deepStrictEqual(inOrder, ["not started, 0", "not started, 1000", "started, 1000", "whole"])
        assert.strictEqual(seen.filter((what) => what === "not started, 1000").length, 1)
        assert.isAbove(seen.filter((what) => what === "not started, 0").length, 5)
      }))
  }

  it.effect("gives the place of a waiting call back wherever it is interrupted", () =>
    Effect.gen(function*() {
      for (let ops = 3; ops <= 64; ops++) {
        for (let position = 0; position <= 12; position++) {
          const t = yield* limited({ limits: [perSecond], onExceeded: "wait", maxWait: "10 seconds" })
          yield* t.run(echo, alice)
          const fiber = yield* Effect.forkChild(
            Effect.provideService(t.run(echo, alice, Effect.die("too early")), Scheduler.MaxOpsBeforeYield, ops)
          )
          for (let i = 0; i < position; i++) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(yield* debtOf(t), 1000, JSON.stringify({ ops, position }))
        }
      }
    }))

  describe("refund", () => {
    it.effect("gives the tokens of a call back when a later stage says so, once", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ ...perSecond, limit: 3 }] })
        const answers: Array<boolean> = []
        const refunding = t.limits.forTool(echo)
        const call = t.call(echo, alice)
        yield* refunding(
          call,
          Effect.gen(function*() {
            answers.push(yield* RateLimit.refund(call), yield* RateLimit.refund(call))
          })
        ).pipe(Effect.provideService(RateLimitStore.RateLimitStore, t.store))
        assert.deepStrictEqual(answers, [true, false])
        assert.strictEqual(yield* t.count(5, echo, alice), 3)
      }))

    it.effect("finds nothing to give back in a call that no limit has seen", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [perSecond] })
        assert.isFalse(
          yield* RateLimit.refund(t.call(echo, alice)).pipe(
            Effect.provideService(RateLimitStore.RateLimitStore, t.store)
          )
        )
      }))

    for (const cache of ["hit", "stale", "coalesced", "miss", "bypass"] as const) {
      for (const refundHits of [true, false]) {
        const free = refundHits && cache !== "miss" && cache !== "bypass"
        it.effect(`${free ? "gives back" : "keeps"} the tokens of a ${cache} with refundHits ${refundHits}`, () =>
          Effect.gen(function*() {
            const t = yield* limited({ limits: [perSecond], refundHits })
            const around: ToolMiddleware.Around<unknown> = t.limits.forTool(echo)
            let passed = 0
            for (let i = 0; i < 5; i++) {
              const call = t.call(echo, alice)
              const exit = yield* Effect.exit(around(call, Effect.sync(() => call.record.cache = cache)))
              passed += Exit.isSuccess(exit) ? 1 : 0
            }
            assert.strictEqual(passed, free ? 5 : 1)
          }))
      }
    }
  })

  describe("update", () => {
    it.effect("applies to tools that have been called before", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ ...perSecond, window: "1 hour" }] })
        assert.strictEqual(yield* t.count(2, echo, alice), 1)
        yield* t.limits.update([{ name: "other", per: "identity", limit: 2, window: "1 hour" }])
        assert.strictEqual(yield* t.count(5, echo, alice), 2)
        assert.deepStrictEqual((yield* t.limits.limits).map((limit) => limit.name), ["other"])
      }))

    it.effect("keeps who is throttled throttled", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ ...perSecond, limit: 10, window: "10 seconds" }] })
        yield* t.count(20, echo, alice)
        yield* t.limits.update([{ ...perSecond, limit: 1000, window: "1000 seconds", burst: 500 }])
        assert.strictEqual((yield* t.refusal(echo, alice)).retryAfter, 1000)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* t.count(20, echo, alice), 2)
      }))

    it.effect("dies of limits that make no sense, and keeps those in force", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [{ ...perSecond, limit: 2, window: "1 hour" }] })
        for (const limit of [0, -1, Number.NaN, Infinity, 2 ** 53, 1.5]) {
          assert.isTrue(Exit.hasDies(yield* Effect.exit(t.limits.update([{ ...perSecond, limit }]))))
        }
        assert.isTrue(Exit.hasDies(yield* Effect.exit(t.limits.update([]))))
        assert.strictEqual(yield* t.count(5, echo, alice), 2)
      }))

    it.effect("leaves all limits in shadow mode when they were put there together", () =>
      Effect.gen(function*() {
        const t = yield* limited({ limits: [perSecond], mode: "shadow" })
        yield* t.limits.update([{ ...perSecond, window: "1 hour" }])
        assert.strictEqual(yield* t.count(5, echo, alice), 5)
      }))
  })

  it.effect("refuses with the store's own error, as limited, when the store cannot say", () =>
    Effect.gen(function*() {
      const t = yield* limited({ limits: [perSecond] }, brokenStore)
      const error = yield* Effect.flip(t.run(echo, alice))
      assert.strictEqual((error as { reason: { _tag: string } }).reason._tag, "LimitStoreUnavailable")
      assert.strictEqual(t.records[0]?.outcome, "limited")
      assert.strictEqual(t.records[0]?.attempts, 0)
      const plan = (yield* t.pipeline.explain({ tool: echo }))[1]
      assert.deepStrictEqual([plan?.verdict, plan?.detail], ["refuse", { error: "LimitStoreUnavailable" }])
    }))
})
