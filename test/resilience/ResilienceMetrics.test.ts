import { assert, describe, it } from "@effect/vitest"
import { type Context, Effect, Fiber, Layer, Metric } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import {
  CircuitBreaker,
  Hedge,
  type ResilienceError,
  ResilienceMetrics,
  ResilienceMiddleware,
  Retry,
  Timeout
} from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

/** What the registry holds, as `name{labels}` to number. The unit is no label. */
const numbers = Effect.contextWith((context: Context.Context<never>) =>
  Effect.sync(() =>
    Object.fromEntries(
      Metric.snapshotUnsafe(context).map((one) => {
        const { unit: _, ...labels } = one.attributes ?? {}
        const value = one.type === "Counter" ? one.state.count : one.type === "Gauge" ? one.state.value : NaN
        return [`${one.id}{${Object.values(labels).join()}}`, Number(value)]
      })
    )
  )
)

const Pipeline = ToolPipeline.of<ResilienceError.ResilienceError>()

const Live = ToolPipeline.layerOf(ResilienceMiddleware.ResilienceMiddleware).pipe(
  Layer.provide(ResilienceMiddleware.layer({
    defaults: { circuitBreaker: { maxFailures: 1 }, bulkhead: { maxConcurrent: 1, maxQueue: 1 } }
  })),
  Layer.provide(ResilienceMetrics.layer()),
  Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
)

describe("ResilienceMetrics", () => {
  it.effect("tells what circuits and bulkheads do, by tool or dependency", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const tool = ToolMeta.make({ name: "search", policy: { dependency: "github-api" } })
      const call = yield* Effect.forkChild(pipeline.run({ tool }, Effect.never), { startImmediately: true })
      const waiting = yield* Effect.forkChild(Effect.exit(pipeline.run({ tool }, Effect.void)), {
        startImmediately: true
      })
      assert.deepInclude(yield* numbers, {
        "tool.bulkhead.active{github-api}": 1,
        "tool.bulkhead.queued{github-api}": 1
      })
      yield* TestClock.adjust("30 seconds")
      yield* Fiber.await(call)
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(yield* numbers, {
        "tool.bulkhead.active{github-api}": 0,
        "tool.bulkhead.queued{github-api}": 0,
        "tool.circuit.state{github-api}": 2,
        "tool.circuit.transitions{github-api,closed,open}": 1,
        "tool.timeout.total{github-api}": 1
      })
      yield* TestClock.adjust("30 seconds")
      yield* pipeline.run({ tool }, Effect.void)
      assert.deepInclude(yield* numbers, {
        "tool.circuit.state{github-api}": 0,
        "tool.circuit.transitions{github-api,open,half-open}": 1,
        "tool.circuit.transitions{github-api,half-open,closed}": 1
      })
    }).pipe(Effect.provide(Live)))

  it.effect("tells what was tried again, started beside another, not done in time, and done too late", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ name: "a", maxAttempts: 3 })
      const retried = yield* Effect.forkChild(Effect.exit(retry.execute(Effect.fail("down"))))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(retried)
      const hedge = yield* Hedge.make({ name: "b", delay: "1 second" })
      const hedged = yield* Effect.forkChild(hedge.execute(Effect.sleep("10 seconds")))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(hedged)
      const timeout = yield* Timeout.make({ name: "c", timeout: "1 second" })
      const late = yield* Effect.forkChild(
        Effect.exit(timeout.execute(Effect.uninterruptible(Effect.sleep("10 seconds"))))
      )
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(late)
      assert.deepStrictEqual(yield* numbers, {
        "tool.retry.attempts{a}": 2,
        "tool.hedge.total{b}": 1,
        "tool.timeout.total{c}": 1,
        "tool.timeout.late{c}": 1
      })
    }).pipe(Effect.provide(
      ResilienceMetrics.layer().pipe(Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map())))
    )))

  it.effect("tells names beyond the bound together", () =>
    Effect.gen(function*() {
      for (const name of ["a", "b", "c"]) yield* (yield* CircuitBreaker.make({ name })).forceOpen
      assert.deepStrictEqual(yield* numbers, {
        "tool.circuit.state{a}": 2,
        "tool.circuit.transitions{a,closed,forced-open}": 1,
        "tool.circuit.state{_other}": 2,
        "tool.circuit.transitions{_other,closed,forced-open}": 2
      })
    }).pipe(
      Effect.provide(ResilienceMetrics.layer({ maxDependencies: 1 })),
      Effect.provideService(Metric.MetricRegistry, new Map())
    ))

  it("throws on nonsense when it is made", () => {
    assert.throws(
      () => ResilienceMetrics.layer({ maxDependencies: 0 }),
      /maxDependencies must be an integer >= 1, got 0/
    )
  })
})
