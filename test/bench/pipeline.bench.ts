import { Effect, Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { AuthMiddleware } from "effect-toolops/auth"
import { CacheMiddleware } from "effect-toolops/cache"
import { RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import type { Case, Group } from "./harness.ts"

const handler = Effect.promise(() => Promise.resolve("answer"))

const repeat = (effect: Effect.Effect<unknown, unknown>) => (n: number) =>
  Effect.runPromise(
    Effect.gen(function*() {
      let last: unknown = undefined
      for (let i = 0; i < n; i++) last = yield* effect
      return last
    })
  )

const answered: NonNullable<Case["check"]> = (result) => {
  if (result !== "answer") throw new Error("the call was not answered")
}

const passedThrough = ToolPipeline.layer.pipe(Layer.provide([
  ObserveMiddleware.layerPassthrough,
  AuthMiddleware.layerPassthrough,
  RateLimitMiddleware.layerPassthrough,
  CacheMiddleware.layerPassthrough,
  ResilienceMiddleware.layerPassthrough
]))

export default async (): Promise<ReadonlyArray<Group>> => {
  const tool = ToolMeta.make({ name: "echo", openWorld: false })
  const bare = await Effect.runPromise(Effect.provide(ToolPipeline.ToolPipeline, passedThrough))
  const guarded = bare.wrap(tool, () => handler)
  return [{
    name: "pipeline",
    cases: [
      { name: "bare handler", run: repeat(handler), check: answered },
      {
        name: "all stages passed through, run",
        run: repeat(bare.run({ tool, input: "hi" }, handler)),
        check: answered,
        baseline: "bare handler"
      },
      {
        name: "all stages passed through, wrap",
        run: repeat(Effect.suspend(() => guarded("hi"))),
        check: answered,
        baseline: "bare handler"
      }
    ]
  }]
}
