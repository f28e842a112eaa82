/**
 * Stage 1 of 5. Tells what became of each call: as a span, as metrics, as a log line.
 *
 * It sits outermost, so refused and cached calls are told too, and has a second seat around each execution of the
 * handler. All it tells comes from the call's record, read once at the end, so span, metrics and log cannot disagree. It
 * changes no answer: a tracer, metric or logger that throws does not break a call.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import { callSeat } from "./internal/callSeat.ts"
import { makeTagText } from "./internal/errorText.ts"
import { executionSeat } from "./internal/executionSeat.ts"
import { makeRefusals } from "./internal/refusals.ts"
import { makeMetricContext } from "./internal/spans.ts"
import * as Redaction from "./Redaction.ts"
import { makeToolSeries } from "./ToolMetrics.ts"

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
 * What `layer` takes.
 *
 * - `capture`: what of arguments and results root spans hold, as JSON: `true` for every field that the tool's Schema
 *   names, or the names of top-level fields. Fields marked `Redaction.sensitive` are left out, what is under sensitive
 *   keys is redacted, and of a tool without a Schema nothing is captured. Default: nothing.
 * - `redact`: more sensitive keys, beside those of `Redaction`.
 * - `spans`: a span per call and one per execution. Default true; costs next to nothing without a tracer.
 * - `metrics`: the metrics of `ToolMetrics`. Default true.
 * - `log`: one line per call, to the installed loggers. Default true. With neither metrics nor log, a call that is not
 *   traced is not timed either.
 * - `repeatedRefusals`: most log lines per second for one kind of refusal of one tool. What is left out is counted in
 *   the next line. Default 10; `Infinity` logs all.
 * - `maxTools`: most tools that have metrics of their own; the others share the label `_other`. Default 1000.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly capture?: {
    readonly arguments?: boolean | ReadonlyArray<string> | undefined
    readonly result?: boolean | ReadonlyArray<string> | undefined
  } | undefined
  readonly redact?: ReadonlyArray<string> | undefined
  readonly spans?: boolean | undefined
  readonly metrics?: boolean | undefined
  readonly log?: boolean | undefined
  readonly repeatedRefusals?: number | undefined
  readonly maxTools?: number | undefined
}

/**
 * Makes the stage, for pipelines that are put together without a Layer.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): ToolMiddleware.ToolMiddleware<never> => {
  const where = "ObserveMiddleware.layer"
  Check.known(where, options, ["capture", "redact", "spans", "metrics", "log", "repeatedRefusals", "maxTools"])
  const spans = options.spans ?? true
  const metrics = options.metrics ?? true
  const log = options.log ?? true
  const repeatedRefusals = options.repeatedRefusals ?? 10
  if (repeatedRefusals !== Infinity) Check.integer(where, "repeatedRefusals", repeatedRefusals, 1)
  const maxTools = Check.integer(where, "maxTools", options.maxTools ?? 1000, 1)
  const redaction = options.redact === undefined || options.redact.length === 0
    ? Redaction.standard
    : Redaction.make({ keys: options.redact })
  if (!spans && !metrics && !log) return ToolMiddleware.passthrough("observe")
  if (options.capture !== undefined) Check.known(`${where}: capture`, options.capture, ["arguments", "result"])
  const capture = options.capture ?? {}
  const settings = {
    capture,
    spans,
    metrics,
    log,
    redaction,
    tagText: makeTagText(redaction),
    refusalsOf: makeRefusals(repeatedRefusals, maxTools),
    seriesOf: makeToolSeries(maxTools),
    metricContext: makeMetricContext()
  }
  return {
    name: "observe",
    forTool: (tool) => callSeat(settings, tool),
    ...(spans || metrics ? { forExecution: (tool) => executionSeat(settings, tool) } : {})
  }
}

/**
 * Provides the stage.
 *
 * **Details**
 *
 * The root span of a call is `execute_tool {tool}`, or `tools/call {tool}` of kind server where `CurrentMcpRequest` says
 * that the call came over MCP; each execution of the handler is a child `tool.exec.<namespace>.<name>`. The
 * caller is in none of them, arguments and results only where `capture` says so. Error text goes through redaction.
 *
 * Answers are logged at `Info`, refusals and timeouts at `Warn`, failures and defects at `Error`.
 *
 * **Gotchas**
 *
 * The program's loggers get the lines: install `StructuredLogger.layer()` for one JSON object per line.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<ObserveMiddleware> =>
  Layer.succeed(ObserveMiddleware, make(options))

/**
 * Provides the stage with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<ObserveMiddleware, Config.ConfigError> =>
  Layer.effect(ObserveMiddleware, Effect.map(Config.unwrap(options), make))

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
