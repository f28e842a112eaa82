/**
 * Stage 1 of 5. Tells what became of each call: as a span, as metrics, as a log line.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as ToolMiddleware from "../ToolMiddleware.ts"

/**
 * The observe stage.
 *
 * @category services
 * @since 0.1.0
 */
export class ObserveMiddleware extends Context.Service<ObserveMiddleware, ToolMiddleware.ToolMiddleware<never>>()(
  "effect-toolops/observe/ObserveMiddleware"
) {}

/**
 * Leaves the stage out: no span, no metric, no log line.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<ObserveMiddleware> = Layer.succeed(
  ObserveMiddleware,
  ToolMiddleware.passthrough("observe")
)
