import type * as Context from "effect/Context"
import type { LateObserver, Outcome } from "../../CallRecord.ts"
import { cut } from "../../internal/cut.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Redaction } from "../Redaction.ts"
import * as Names from "../ToolAttributes.ts"
import type { ToolSeries } from "../ToolMetrics.ts"
import { type Fields, makeCapture } from "./capture.ts"
import type { Refusals } from "./refusals.ts"
import { attempt } from "./spans.ts"

/** The options of the stage, with their defaults filled in. */
export interface Settings {
  readonly capture: { readonly arguments?: Fields; readonly result?: Fields }
  readonly spans: boolean
  readonly metrics: boolean
  readonly log: boolean
  readonly redaction: Redaction
  /** An error's tag as it is told. */
  readonly tagText: (tag: string) => string
  readonly refusalsOf: (tool: ToolMeta) => Refusals
  readonly seriesOf: (tool: ToolMeta) => ToolSeries
  readonly metricContext: (context: Context.Context<never>) => Context.Context<never>
}

interface Attribute {
  readonly name: string
  readonly value: unknown
}

const maxDescription = 256

const staticAttributes = (tool: ToolMeta): ReadonlyArray<Attribute> => {
  const { description } = tool
  const all: ReadonlyArray<Attribute> = [
    { name: Names.genAiOperationName, value: "execute_tool" },
    { name: Names.genAiToolName, value: tool.name },
    { name: Names.genAiToolType, value: "function" },
    {
      name: Names.genAiToolDescription,
      value: description === undefined ? undefined : cut(description, maxDescription)
    },
    { name: Names.toolId, value: tool.id },
    { name: Names.toolName, value: tool.name },
    { name: Names.toolNamespace, value: tool.namespace },
    { name: Names.toolVersion, value: tool.version },
    { name: Names.toolCategory, value: tool.category },
    { name: Names.toolTags, value: tool.tags.length === 0 ? undefined : tool.tags }
  ]
  return all.filter((attribute) => attribute.value !== undefined)
}

/** Counts answers that come after their calls have ended. */
class LateAnswers implements LateObserver {
  readonly context: Context.Context<never>
  readonly #series: ToolSeries

  constructor(series: ToolSeries, context: Context.Context<never>) {
    this.#series = series
    this.context = context
  }

  late(): void {
    attempt(() => this.#series.late(1, this.context))
  }
}

/** What the outer seat knows of a tool before its first call. */
export class ObservedTool {
  readonly settings: Settings
  readonly meta: ToolMeta
  readonly series: ToolSeries | undefined
  readonly refusals: Refusals
  readonly attributes: ReadonlyArray<Attribute>
  readonly spanName: string
  readonly mcpSpanName: string
  readonly captureArguments: ((value: unknown) => string | undefined) | undefined
  readonly captureResult: ((value: unknown) => string | undefined) | undefined
  #lateAnswers: LateAnswers | undefined = undefined

  constructor(settings: Settings, meta: ToolMeta) {
    this.settings = settings
    this.meta = meta
    this.series = settings.metrics ? settings.seriesOf(meta) : undefined
    this.refusals = settings.refusalsOf(meta)
    this.attributes = staticAttributes(meta)
    const { capture, redaction } = settings
    this.captureArguments = makeCapture(meta.input, capture.arguments, redaction)
    this.captureResult = makeCapture(meta.success, capture.result, redaction)
    this.spanName = `execute_tool ${meta.name}`
    this.mcpSpanName = `tools/call ${meta.name}`
  }

  /** Who is told of late answers. Most calls of a program share their context, and then this. */
  lateObserver(series: ToolSeries, context: Context.Context<never>): LateObserver {
    const last = this.#lateAnswers
    return last?.context === context ? last : this.#lateAnswers = new LateAnswers(series, context)
  }
}

export const isRefusal = (outcome: Outcome): boolean =>
  outcome === "denied" || outcome === "unauthenticated" || outcome === "limited" || outcome === "rejected"
