import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Layer, Scheduler } from "effect"
import { ToolCall, ToolMeta, ToolPipeline } from "effect-toolops"
import { ToolRefusal } from "effect-toolops/ai"
import { AuthMiddleware } from "effect-toolops/auth"
import { CacheMiddleware } from "effect-toolops/cache"
import { DrainMiddleware, HealthRegistry } from "effect-toolops/health"
import { RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceError, ResilienceMiddleware } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { positions, SweepScheduler } from "../support/interruptSweep.ts"

const Stages = Layer.mergeAll(
  ObserveMiddleware.layer({ log: false, spans: false }),
  AuthMiddleware.layerPassthrough,
  RateLimitMiddleware.layerPassthrough,
  CacheMiddleware.layerPassthrough,
  ResilienceMiddleware.layerPassthrough
)
const Guarded = ToolPipeline.layer.pipe(Layer.provide(Stages))
const Live = Layer.provideMerge(Guarded, HealthRegistry.layer)

const tool = ToolMeta.make({ name: "echo" })

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

describe("draining", () => {
  it.effect("is a stage behind observe where the pipeline is given a registry, and none where it is not", () =>
    Effect.gen(function*() {
      const stages = Effect.map(ToolPipeline.ToolPipeline, ({ stages }) => stages)
      const five = ["observe", "auth", "limit", "cache", "resilience"]
      assert.deepStrictEqual(yield* Effect.provide(stages, Guarded), five)
      assert.deepStrictEqual(yield* Effect.provide(stages, Live), ["observe", "drain", ...five.slice(1)])
    }))

  it.effect("takes calls while only readiness has failed", () =>
    Effect.gen(function*() {
      const [pipeline, registry] = [yield* ToolPipeline.ToolPipeline, yield* HealthRegistry.HealthRegistry]
      yield* registry.drain
      assert.isTrue(yield* registry.isDraining)
      assert.strictEqual(yield* pipeline.run({ tool }, Effect.succeed(1)), 1)
    }).pipe(Effect.provide(Live)))

  it.effect("refuses new calls with a typed error that says when to come again, and records them as rejected", () =>
    Effect.gen(function*() {
      const [pipeline, registry] = [yield* ToolPipeline.ToolPipeline, yield* HealthRegistry.HealthRegistry]
      yield* registry.quiesce("1 second")
      const call = ToolCall.make({ tool })
      let ran = false
      const error = yield* Effect.flip(pipeline.run(call, Effect.sync(() => void (ran = true))))
      assert.instanceOf(error, ResilienceError.ResilienceError)
      assert.strictEqual(error.reason._tag, "Draining")
      assert.deepStrictEqual((error as ResilienceError.ResilienceError).retryAfter, Duration.seconds(1))
      assert.isFalse(ran)
      assert.deepStrictEqual(
        (yield* pipeline.explain({ tool })).filter(({ verdict }) => verdict === "refuse").map(({ stage }) => stage),
        ["drain"]
      )
      const told = ToolRefusal.fromError(error, tool)
      assert.deepInclude(told, { reason: "Draining", retryable: true, retryAfterMillis: 1000 })
    }).pipe(Effect.provide(Live)))

  it.effect("lets calls in flight finish, with the calls that they make themselves", () =>
    Effect.gen(function*() {
      const [pipeline, registry] = [yield* ToolPipeline.ToolPipeline, yield* HealthRegistry.HealthRegistry]
      const inner = pipeline.wrap(ToolMeta.make({ name: "inner" }), (n: number) => Effect.succeed(n))
      const outer = Effect.sleep("10 seconds").pipe(
        Effect.andThen(Effect.forEach([1, 2, 3], (n) => inner(n), { concurrency: "unbounded" }))
      )
      const call = yield* start(pipeline.run({ tool }, outer))
      assert.strictEqual(yield* registry.inFlight, 1)
      const quiescing = yield* start(registry.quiesce("20 seconds"))
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(quiescing.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(call), [1, 2, 3])
      assert.strictEqual(yield* Fiber.join(quiescing), 0)
      assert.strictEqual(yield* registry.inFlight, 0)
    }).pipe(Effect.provide(Live)))

  it.effect("knows a call that a handler makes by a run of its own by the context that it takes along", () =>
    Effect.gen(function*() {
      const [pipeline, registry] = [yield* ToolPipeline.ToolPipeline, yield* HealthRegistry.HealthRegistry]
      const inner = pipeline.wrap(
        ToolMeta.make({ name: "inner" }),
        (how: string) => Effect.succeed(how)
      )
      const release = yield* Deferred.make<void>()
      const outer = Effect.gen(function*() {
        yield* Deferred.await(release)
        const context = yield* Effect.context()
        return [
          yield* Effect.promise(() => Effect.runPromiseWith(context)(inner("with"))),
          yield* Effect.promise(() =>
            Effect.runPromise(
              Effect.catchReason(inner("without"), "ResilienceError", "Draining", () => Effect.succeed("refused"))
            )
          )
        ]
      })
      const call = yield* start(pipeline.run({ tool }, outer))
      const quiescing = yield* start(registry.quiesce("20 seconds"))
      yield* Deferred.succeed(release, undefined)
      assert.deepStrictEqual(yield* Fiber.join(call), ["with", "refused"])
      yield* Fiber.join(quiescing)
    }).pipe(Effect.provide(Live)))

  it.effect("interrupts what is still in flight after the grace time, and waits for its finalizers, but not for ever", () =>
    Effect.gen(function*() {
      const [pipeline, registry] = [yield* ToolPipeline.ToolPipeline, yield* HealthRegistry.HealthRegistry]
      const closed: Array<string> = []
      const slow = yield* start(pipeline.run(
        { tool },
        Effect.onInterrupt(
          Effect.never,
          () => Effect.andThen(Effect.sleep("500 millis"), Effect.sync(() => closed.push("slow")))
        )
      ))
      const release = yield* Deferred.make<void>()
      const stuck = yield* start(pipeline.run({ tool }, Effect.uninterruptible(Deferred.await(release))))
      const quiescing = yield* start(registry.quiesce("20 seconds"))
      yield* TestClock.adjust("19999 millis")
      assert.isUndefined(slow.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(closed, ["slow"])
      const exit = yield* Fiber.await(slow)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.isUndefined(quiescing.pollUnsafe())
      yield* TestClock.adjust("500 millis")
      assert.strictEqual(yield* Fiber.join(quiescing), 2)
      assert.isUndefined(stuck.pollUnsafe())
      yield* Deferred.succeed(release, undefined)
    }).pipe(Effect.provide(Live)))

  it.effect("waits in a finalizer of an interrupted fiber just the same", () =>
    Effect.gen(function*() {
      const [pipeline, registry] = [yield* ToolPipeline.ToolPipeline, yield* HealthRegistry.HealthRegistry]
      const call = yield* start(pipeline.run({ tool }, Effect.sleep("3 seconds")))
      const program = yield* start(Effect.ensuring(Effect.never, registry.quiesce("1 minute")))
      const stopped = yield* start(Fiber.interrupt(program))
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(stopped.pollUnsafe())
      // Long before the grace time is over.
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopped)
      yield* Fiber.join(call)
    }).pipe(Effect.provide(Live)))

  it("counts no call twice and forgets none, wherever it is interrupted", () => {
    const work = Effect.andThen(Effect.yieldNow, Effect.yieldNow)
    let interrupted = 0
    for (const position of positions) {
      const registry = Effect.runSync(HealthRegistry.make)
      const scheduler = new SweepScheduler(position)
      const fiber = scheduler.aim(registry.admit(work))
      scheduler.drain()
      assert.isDefined(fiber.pollUnsafe(), JSON.stringify(position))
      assert.strictEqual(Effect.runSync(registry.inFlight), 0, JSON.stringify(position))
      if (scheduler.didInterrupt) interrupted += 1
    }
    assert.isAbove(interrupted, 500)
  })

  it.effect("counts what a call leaves running behind it as calls of its own", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      const nested = registry.admit(Effect.sleep("2 seconds"))
      const worker = yield* registry.admit(Effect.forkDetach(Effect.andThen(Effect.sleep("1 second"), nested)))
      const late = yield* registry.admit(Effect.forkDetach(Effect.andThen(Effect.sleep("10 seconds"), nested)))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* registry.inFlight, 1)
      const quiescing = yield* start(registry.quiesce("1 minute"))
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(quiescing.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(quiescing), 0)
      yield* Fiber.join(worker)
      yield* TestClock.adjust("10 seconds")
      const exit = yield* Fiber.await(late)
      const error: unknown = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(error, ResilienceError.ResilienceError)
      assert.strictEqual(error.reason._tag, "Draining")
    }))

  it.effect("knows the calls of one registry from those of another", () =>
    Effect.gen(function*() {
      const [inner, outer] = [yield* HealthRegistry.make, yield* HealthRegistry.make]
      const counts = Effect.all([inner.inFlight, outer.inFlight])
      // What is part of a call in flight stays part of it through the other registry.
      assert.deepStrictEqual(yield* outer.admit(inner.admit(outer.admit(counts))), [1, 1])
      yield* inner.quiesce(0)
      const error = yield* Effect.flip(outer.admit(inner.admit(Effect.void)))
      assert.strictEqual(error.reason._tag, "Draining")
      const late = Effect.andThen(outer.quiesce(0), Effect.flip(outer.admit(inner.admit(outer.admit(Effect.void)))))
      assert.strictEqual((yield* late).reason._tag, "Draining")
    }))

  it.effect("lets no call in after it has been quiet, wherever a fiber yields on its way in", () =>
    Effect.gen(function*() {
      let tried = 0
      for (let ops = 3; ops < 30; ops++) {
        for (let before = 0; before < ops; before++) {
          const registry = yield* HealthRegistry.make
          let ran = false
          let call: Effect.Effect<unknown, unknown> = registry.admit(Effect.andThen(
            Effect.sync(() => {
              ran = true
            }),
            Effect.never
          ))
          for (let i = 0; i < before; i++) call = Effect.andThen(Effect.void, call)
          const fiber = Effect.runFork(Effect.provideService(call, Scheduler.MaxOpsBeforeYield, ops))
          if (!ran) {
            tried += 1
            const left = Effect.runSyncExit(registry.quiesce("1 second"))
            yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve)))
            assert.isFalse(ran && Exit.isSuccess(left), `${ops}/${before}`)
          }
          fiber.interruptUnsafe()
        }
      }
      assert.isAbove(tried, 20)
    }))

  it.effect("waits for 10,000 calls that end in any order", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      const calls = yield* start(Effect.forEach(
        Array.from({ length: 10_000 }, (_, i) => (i * 7919) % 1000),
        (millis) => registry.admit(Effect.sleep(millis + 1)),
        { concurrency: "unbounded" }
      ))
      yield* Effect.yieldNow
      assert.strictEqual(yield* registry.inFlight, 10_000)
      const quiescing = yield* start(registry.quiesce("10 seconds"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(quiescing), 0)
      yield* Fiber.join(calls)
    }))

  it.effect("refuses a grace time that is none", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      assert.throws(() => registry.quiesce(-1), "HealthRegistry.quiesce: grace must be a duration >= 0")
      const stage = yield* Effect.provide(
        ToolPipeline.make(DrainMiddleware.DrainMiddleware),
        DrainMiddleware.layerPassthrough
      )
      assert.strictEqual(yield* stage.run({ tool }, Effect.succeed("left out")), "left out")
    }))
})
