import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schedule } from "effect"
import { ToolMeta } from "effect-toolops"
import { ResilienceMiddleware, type ResiliencePolicy, ToolGuards } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { outcomeOf, Pipeline, pipelineOf } from "./pipeline.ts"

const tool = (name: string, policy: ResiliencePolicy.ResiliencePolicy = {}) =>
  ToolMeta.make({ namespace: "github", name, readOnly: true, policy })

/** Opens the circuit of a tool and says for how many minutes it refuses. */
const minutesOpen = (tool: ToolMeta.ToolMeta) =>
  Effect.gen(function*() {
    const pipeline = yield* Pipeline
    while ((yield* Effect.flip(pipeline.run({ tool }, Effect.fail("down")))) === "down") { /* until it opens */ }
    for (let minutes = 0; minutes < 100; minutes++) {
      const circuits = yield* (yield* ToolGuards.ToolGuards).snapshots
      const circuit = circuits.find(({ key }) => key === tool.id)!.circuitBreaker!
      if (circuit.retryAfter.valueOf() === 0 || circuit.status !== "open") return minutes
      if ((yield* outcomeNow(pipeline.run({ tool }, Effect.void))) === "ok") return minutes
      yield* TestClock.adjust("1 minute")
    }
    return Infinity
  })

const outcomeNow = (effect: Effect.Effect<unknown, unknown>) =>
  Effect.match(effect, { onFailure: () => "failed", onSuccess: () => "ok" })

describe("ResiliencePolicy", () => {
  it.effect("lets rules complete one another, whichever says what", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const call = pipeline.run({ tool: tool("search") }, Effect.void)
      assert.strictEqual(yield* outcomeOf(call), "ok")
    }).pipe(Effect.provide(pipelineOf({
      rules: [
        { tools: "github:search", policy: { hedge: { maxHedges: 2 } } },
        { tools: "*", policy: { hedge: { delay: "1 second" }, bulkhead: { maxQueue: 5 } } },
        { tools: "github:*", policy: { bulkhead: { maxWait: "1 second" }, circuitBreaker: { halfOpenSuccesses: 2 } } },
        { tools: "*", policy: { circuitBreaker: { halfOpenMaxRequests: 3 } } }
      ]
    }))))

  it.effect("refuses a tool for which the rules together make no sense, where it is wrapped", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      assert.throws(
        () => pipeline.wrap(tool("search"), () => Effect.void),
        /policy of github:search: bulkhead: maxWait and maxQueue must both be 0 or both be more/
      )
      pipeline.wrap(tool("queued", { bulkhead: { maxQueue: 1 } }), () => Effect.void)
    }).pipe(Effect.provide(pipelineOf({
      rules: [{ tools: "github:*", policy: { bulkhead: { maxWait: "1 second" } } }]
    }))))

  it("checks what each rule holds when the layer is made", () => {
    assert.throws(
      () => ResilienceMiddleware.layer({ rules: [{ tools: "a", policy: { bulkhead: { maxWait: -1 } } }] }),
      /rules\[0\]: bulkhead: maxWait must be a duration/
    )
    assert.throws(
      () => ResilienceMiddleware.layer({ rules: [{ tools: "a", policy: { hedge: { delay: "0 seconds" } } }] }),
      /rules\[0\]: hedge: delay must be a duration/
    )
  })

  it.effect("keeps the patience of a queue that a tool makes longer, and drops it with the queue", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const longer = tool("longer", { bulkhead: { maxQueue: 50 } })
      const none = tool("none", { bulkhead: { maxQueue: 0 } })
      for (const one of [longer, none]) yield* Effect.forkChild(pipeline.run({ tool: one }, Effect.never))
      yield* Effect.yieldNow
      const waiting = yield* Effect.forkChild(Effect.flip(pipeline.run({ tool: longer }, Effect.void)))
      yield* TestClock.adjust("99 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(waiting)).reason._tag, "BulkheadFull")
      const refused = yield* Effect.flip(pipeline.run({ tool: none }, Effect.void))
      assert.strictEqual(refused.reason._tag, "BulkheadFull")
    }).pipe(Effect.provide(pipelineOf({
      defaults: { timeout: false, bulkhead: { maxConcurrent: 1, maxQueue: 5, maxWait: "100 millis" } }
    }))))

  it.effect("keeps the longest opening for a schedule, and drops it for a plain time", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* minutesOpen(tool("inherits")), 3)
      const own = Schedule.spaced("30 minutes")
      assert.strictEqual(yield* minutesOpen(tool("own", { circuitBreaker: { resetTimeout: own } })), 3)
      assert.strictEqual(yield* minutesOpen(tool("plain", { circuitBreaker: { resetTimeout: "7 minutes" } })), 7)
    }).pipe(Effect.provide(pipelineOf({
      defaults: {
        retry: false,
        circuitBreaker: { maxFailures: 1, resetTimeout: Schedule.spaced("1 hour"), maxResetTimeout: "3 minutes" }
      }
    }))))

  it.effect("replaces a window by a number of failures, and the other way round", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const failuresUntilOpen = (tool: ToolMeta.ToolMeta) =>
        Effect.gen(function*() {
          let failures = 0
          while ((yield* Effect.flip(pipeline.run({ tool }, Effect.fail("down")))) === "down") failures += 1
          return failures
        })
      assert.strictEqual(yield* failuresUntilOpen(tool("window")), 4)
      assert.strictEqual(yield* failuresUntilOpen(tool("row", { circuitBreaker: { maxFailures: 2 } })), 2)
    }).pipe(Effect.provide(pipelineOf({
      defaults: { retry: false, circuitBreaker: { maxFailures: 3 } },
      rules: [{ tools: "github:*", policy: { circuitBreaker: { window: { type: "count", size: 4 } } } }]
    }))))
})

describe("the resilience stage's order", () => {
  it.effect("gives all attempts together their time, and each its own", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      let starts = 0
      const hanging = Effect.suspend(() => {
        starts += 1
        return Effect.never
      })
      const call = yield* Effect.forkChild(Effect.flip(pipeline.run({ tool: tool("search") }, hanging)))
      yield* TestClock.adjust("24 seconds")
      // Attempts of ten seconds each, with a second between them.
      assert.deepStrictEqual([starts, call.pollUnsafe()], [3, undefined])
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* Fiber.join(call)).reason._tag, "TimedOut")
      assert.strictEqual(starts, 3)
    }).pipe(Effect.provide(pipelineOf({
      defaults: {
        timeout: { timeout: "10 seconds", total: "25 seconds" },
        retry: { maxAttempts: 5, strategy: "constant", initialDelay: "1 second", jitter: "none" }
      }
    }))))

  it.effect("hedges each attempt of a retry, not the retry", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const starts: Array<number> = []
      const failsLate = Effect.gen(function*() {
        starts.push(yield* Effect.clockWith((clock) => clock.currentTimeMillis))
        yield* Effect.sleep("5 seconds")
        return yield* Effect.fail("down")
      })
      const call = yield* Effect.forkChild(Effect.exit(pipeline.run({ tool: tool("search") }, failsLate)))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(call)
      // The next attempt when both executions have failed. It is a repetition, which a hedge would multiply.
      assert.deepStrictEqual(starts, [0, 2000, 8000])
    }).pipe(Effect.provide(pipelineOf({
      defaults: {
        hedge: { delay: "2 seconds" },
        retry: { maxAttempts: 2, strategy: "constant", initialDelay: "1 second", jitter: "none" }
      }
    }))))

  it.effect("lets retries and hedges of a tool share one budget, but for who wants none", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const startsOf = (tool: ToolMeta.ToolMeta, handler: Effect.Effect<never, string>) =>
        Effect.gen(function*() {
          let starts = 0
          const counted = Effect.suspend(() => {
            starts += 1
            return handler
          })
          const call = yield* Effect.forkChild(Effect.exit(pipeline.run({ tool }, counted)))
          yield* TestClock.adjust("1 minute")
          yield* Fiber.join(call)
          return starts
        })
      const late = Effect.andThen(Effect.sleep("5 seconds"), Effect.fail("down"))
      // One repetition in all: the hedge takes it, and nothing is left for the retry.
      assert.strictEqual(yield* startsOf(tool("shared", { retry: { budget: one } }), late), 2)
      assert.strictEqual(yield* startsOf(tool("named", { hedge: { delay: "1 second", budget: one } }), late), 2)
      // A hedge without a budget of its own still runs inside the retry, whose budget goes for all that is inside.
      const inside = { hedge: { delay: "1 second", budget: false }, retry: { budget: one } } as const
      assert.strictEqual(yield* startsOf(tool("inside", inside), late), 2)
      const unlimited = { hedge: { delay: "1 second", budget: one }, retry: { budget: false } } as const
      assert.strictEqual(yield* startsOf(tool("unlimited", unlimited), late), 4)
      // A hedge that never applies says nothing about retries.
      const idempotent = ToolMeta.make({
        name: "put",
        idempotent: true,
        policy: { hedge: { delay: "1 second", budget: false }, retry: { maxAttempts: 5 } }
      })
      assert.strictEqual(yield* startsOf(idempotent, Effect.fail("down")), 5)
      const guards = yield* (yield* ToolGuards.ToolGuards).snapshots
      assert.strictEqual(guards.find(({ key }) => key === "put")!.retryBudget?.repetitions, 0)
    }).pipe(Effect.provide(
      pipelineOf({ defaults: { hedge: { delay: "1 second" }, retry: { maxAttempts: 3 } } }).pipe(Layer.orDie)
    )))
})

const one = { share: 0, minPerSecond: 0.0001 }
