/**
 * Stage 3 of 5. Refuses callers that call too often.
 *
 * It comes after auth, so that callers are known, and before the cache, so that an answer that is already there counts
 * unless `refundHits` says otherwise. Which limits there are is in `RateLimit`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import { RateLimit } from "./RateLimit.ts"
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
 * Applies the limits of `RateLimit.layer`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<RateLimitMiddleware, never, RateLimit> = Layer.effect(
  RateLimitMiddleware,
  Effect.map(
    RateLimit,
    (limits) => ToolMiddleware.of({ name: "limit", forTool: limits.forTool, explain: limits.explain })
  )
)

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
