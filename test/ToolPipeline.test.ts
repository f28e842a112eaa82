import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { AuthMiddleware } from "effect-toolops/auth"
import { CacheMiddleware } from "effect-toolops/cache"
import { RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"

const echo = ToolMeta.make({ name: "echo", readOnly: true })

const Live = ToolPipeline.layer.pipe(Layer.provide([
  ObserveMiddleware.layerPassthrough,
  AuthMiddleware.layerPassthrough,
  RateLimitMiddleware.layerPassthrough,
  CacheMiddleware.layerPassthrough,
  ResilienceMiddleware.layerPassthrough
]))

describe("ToolPipeline", () => {
  it.effect("answers with what the handler answers", () =>
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      assert.strictEqual(yield* pipeline.run({ tool: echo, input: "hi" }, Effect.succeed("hi")), "hi")
    }).pipe(Effect.provide(Live)))
})
