import { Effect, Exit, Fiber, Layer } from "effect"
import { ToolPipeline } from "effect-toolops"
import { type ResilienceError, ResilienceMiddleware } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

/** A pipeline of the resilience stage alone. */
export const Pipeline = ToolPipeline.of<ResilienceError.ResilienceError>()

export const pipelineOf = (options?: ResilienceMiddleware.Options) =>
  ToolPipeline.layerOf(ResilienceMiddleware.ResilienceMiddleware).pipe(
    Layer.provideMerge(ResilienceMiddleware.layer(options))
  )

/** The tag of the error, or of its reason, that `effect` fails with within ten minutes; `never` where it does not end. */
export const outcomeOf = (effect: Effect.Effect<unknown, unknown>): Effect.Effect<string> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    yield* TestClock.adjust("10 minutes")
    const exit = fiber.pollUnsafe()
    if (exit === undefined) {
      yield* Fiber.interrupt(fiber)
      return "never"
    }
    if (Exit.isSuccess(exit)) return "ok"
    const reason = exit.cause.reasons[0]!
    if (reason._tag !== "Fail") return reason._tag
    const error = reason.error as { readonly _tag?: string; readonly reason?: { readonly _tag: string } }
    return error.reason?._tag ?? error._tag ?? String(reason.error)
  })
