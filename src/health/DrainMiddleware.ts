/**
 * An optional stage. Refuses new calls while the program shuts down, and knows which ones are in flight.
 *
 * `ToolPipeline.layer` has it between observe and auth wherever a `HealthRegistry` is in its context; a pipeline of your own
 * names it: `ToolPipeline.layerOf(ObserveMiddleware, DrainMiddleware, AuthMiddleware, ...)`. A call that was let in before is
 * not refused later, and neither are the calls that it makes itself. `Graceful` says when.
 *
 * The calls that it makes itself are known by the context of their fiber. A handler that leaves Effect and comes back by a
 * run of its own takes its context along: `Effect.runPromiseWith(yield* Effect.context())` in the place of
 * `Effect.runPromise`. Otherwise what it runs is a new call, which is refused.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { ResilienceError } from "../resilience/ResilienceError.ts"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import { HealthRegistry } from "./HealthRegistry.ts"

/**
 * The stage.
 *
 * @category services
 * @since 0.1.0
 */
export class DrainMiddleware extends Context.Service<DrainMiddleware, ToolMiddleware.ToolMiddleware<ResilienceError>>()(
  "effect-toolops/health/DrainMiddleware"
) {}

/**
 * Makes the stage of a registry.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (registry: HealthRegistry["Service"]): ToolMiddleware.ToolMiddleware<ResilienceError> => ({
  name: "drain",
  forTool: () => (call, next) => registry.admit(next, call.record),
  explain: () => () =>
    Effect.map(registry.takesCalls, (takesCalls): ToolMiddleware.Explanation => ({
      verdict: takesCalls ? "pass" : "refuse",
      detail: { draining: !takesCalls }
    }))
})

/** @internal The stage where there is a registry. */
export const present: Effect.Effect<DrainMiddleware["Service"] | undefined> = Effect.map(
  Effect.serviceOption(HealthRegistry),
  (registry) => registry._tag === "None" ? undefined : make(registry.value)
)

/**
 * Provides the stage.
 *
 * **Example** (Refusing calls while shutting down)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { ToolMeta, ToolPipeline } from "effect-toolops"
 * import { DrainMiddleware, HealthRegistry } from "effect-toolops/health"
 *
 * const echo = ToolMeta.make({ name: "echo" })
 *
 * const program = Effect.gen(function*() {
 *   const pipeline = yield* ToolPipeline.make(DrainMiddleware.DrainMiddleware)
 *   const registry = yield* HealthRegistry.HealthRegistry
 *   const call = pipeline.run({ tool: echo }, Effect.succeed("done"))
 *   const before = yield* call
 *   yield* registry.quiesce("1 second")
 *   const after = yield* Effect.catchReason(call, "ResilienceError", "Draining", () => Effect.succeed("refused"))
 *   return [before, after]
 * })
 *
 * const Live = DrainMiddleware.layer.pipe(Layer.provideMerge(HealthRegistry.layer))
 * await Effect.runPromise(Effect.provide(program, Live)) // => ["done", "refused"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<DrainMiddleware, never, HealthRegistry> = Layer.effect(
  DrainMiddleware,
  Effect.map(HealthRegistry, make)
)

/**
 * Leaves the stage out.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<DrainMiddleware> = Layer.succeed(
  DrainMiddleware,
  ToolMiddleware.passthrough("drain")
)
