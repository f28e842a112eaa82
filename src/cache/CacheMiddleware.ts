/**
 * Stage 4 of 5. Answers a call from the cache when its policy allows, and stores what the rest of the path returns.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as ToolMiddleware from "../ToolMiddleware.ts"

/**
 * The cache stage.
 *
 * @category services
 * @since 0.1.0
 */
export class CacheMiddleware extends Context.Service<CacheMiddleware, ToolMiddleware.ToolMiddleware<never>>()(
  "effect-toolops/cache/CacheMiddleware"
) {}

/**
 * Leaves the stage out: every call runs.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<CacheMiddleware> = Layer.succeed(
  CacheMiddleware,
  ToolMiddleware.passthrough("cache")
)
