/**
 * Stage 5 of 5. Keeps a misbehaving tool from taking the program with it: bulkhead, breaker, retry, timeout.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import type { ResilienceError } from "./ResilienceError.ts"

/**
 * The resilience stage.
 *
 * @category services
 * @since 0.1.0
 */
export class ResilienceMiddleware
  extends Context.Service<ResilienceMiddleware, ToolMiddleware.ToolMiddleware<ResilienceError>>()(
    "effect-toolops/resilience/ResilienceMiddleware"
  )
{}

/**
 * Leaves the stage out: no bulkhead, breaker, retry or timeout.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<ResilienceMiddleware> = Layer.succeed(
  ResilienceMiddleware,
  ToolMiddleware.passthrough("resilience")
)
