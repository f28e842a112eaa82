import { Context, Effect, Layer, Logger, Metric, Tracer } from "effect"
import { type CallRecord, ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { CallLine, ObserveMiddleware } from "effect-toolops/observe"

export const search = ToolMeta.make({
  namespace: "docs",
  name: "search",
  version: "2",
  category: "read",
  tags: ["cacheable"],
  description: "Finds pages",
  readOnly: true
})

export class Span extends Tracer.NativeSpan {
  ends = 0

  override end(...args: Parameters<Tracer.NativeSpan["end"]>): void {
    this.ends += 1
    super.end(...args)
  }
}

/** A tracer that keeps its spans in the order in which they start. */
const keepingTracer = (spans: Array<Span>): Tracer.Tracer =>
  Tracer.make({
    span: (options) => {
      const span = new Span(options)
      spans.push(span)
      return span
    }
  })

const keepingLogger = (lines: Array<{ level: string; line: CallLine.CallLine }>) =>
  Logger.make(({ logLevel, message }) => {
    const only = Array.isArray(message) ? message[0] : message
    if (only instanceof CallLine.CallLine) lines.push({ level: logLevel, line: only })
  })

/** A stage inside of observe that a test can give any behaviour. */
export class Inner extends Context.Service<Inner, ToolMiddleware.ToolMiddleware<unknown>>()("test/Inner") {}

/** A pipeline of observe and one stage of the test, and all that is told of its calls. */
export const observed = (options?: {
  readonly observe?: ObserveMiddleware.Options
  readonly inner?: ToolMiddleware.Around<unknown>
}) => {
  const spans: Array<Span> = []
  const lines: Array<{ level: string; line: CallLine.CallLine }> = []
  const registry: Metric.MetricRegistry = new Map()
  const records: Array<CallRecord.CallRecord> = []
  const inner = options?.inner ?? ((_call, next) => next)
  const stage = ToolMiddleware.of<unknown>({
    name: "inner",
    forTool: () => (call, next) => {
      records.push(call.record)
      return inner(call, next)
    }
  })
  const Told = Layer.mergeAll(
    ObserveMiddleware.layer(options?.observe),
    Layer.succeed(Inner, stage),
    Layer.succeed(Tracer.Tracer, keepingTracer(spans)),
    Layer.succeed(Metric.MetricRegistry, registry),
    Logger.layer([keepingLogger(lines)])
  )
  const run = <A, E>(
    f: (pipeline: ToolPipeline.Pipeline<unknown>) => Effect.Effect<A, E>
  ): Effect.Effect<A, E> =>
    Effect.flatMap(ToolPipeline.make(ObserveMiddleware.ObserveMiddleware, Inner), f).pipe(Effect.provide(Told))
  const metrics = () => {
    const out: Record<string, unknown> = {}
    for (const { attributes, hooks, id } of registry.values()) {
      const { unit: _, ...labels } = attributes ?? {}
      const named = Object.entries(labels).filter(([name]) => !name.startsWith("tool.") && !name.startsWith("gen_ai."))
      const state = hooks.get(Context.empty()) as { count: number; sum?: number }
      out[[id, ...named.map(([name, value]) => `${name}=${value}`)].join(" ")] = state.sum === undefined
        ? state.count
        : [state.count, state.sum]
    }
    return out
  }
  return { lines, metrics, records, registry, run, spans }
}

export const attributes = (span: Span | undefined) => Object.fromEntries(span?.attributes ?? [])
