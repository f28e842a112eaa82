/**
 * Stage 3 of 5. Refuses callers that call too often.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import type { RateLimitError } from "./RateLimitError.ts"

/**
 * The limit stage.
 *
 * @category services
 * @since 0.1.0
 */
export class RateLimitMiddleware
  extends Context.Service<RateLimitMiddleware, ToolMiddleware.ToolMiddleware<RateLimitError>>()(
    "effect-toolops/limit/RateLimitMiddleware"
  )
{}

/**
 * Leaves the stage out: no limit.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<RateLimitMiddleware> = Layer.succeed(
  RateLimitMiddleware,
  ToolMiddleware.passthrough("limit")
)
