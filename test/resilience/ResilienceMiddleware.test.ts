import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ResilienceError, ResilienceMiddleware } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

const pipelineOf = (options?: ResilienceMiddleware.Options) =>
  ToolPipeline.layerOf(ResilienceMiddleware.ResilienceMiddleware).pipe(
    Layer.provideMerge(ResilienceMiddleware.layer(options))
  )

const Pipeline = ToolPipeline.of<ResilienceError.ResilienceError>()

const search = ToolMeta.make({ namespace: "github", name: "search", readOnly: true })
const create = ToolMeta.make({ namespace: "github", name: "create" })

describe("ResilienceMiddleware", () => {
  it.effect("retries a read-only tool, and never a tool that may write", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      let runs = 0
      const handler = Effect.suspend(() => {
        runs += 1
        return Effect.fail("down")
      })
      const call = yield* Effect.forkChild(Effect.flip(pipeline.run({ tool: search }, handler)))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Fiber.join(call), "down")
      assert.strictEqual(runs, 3)
      runs = 0
      yield* Effect.flip(pipeline.run({ tool: create }, handler))
      assert.strictEqual(runs, 1)
    }).pipe(Effect.provide(pipelineOf())))
})
