import { SpanKind, SpanStatusCode } from "@opentelemetry/api"
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Cause, Context, Effect, Layer, Metric, Tracer } from "effect"
import { ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { CallLine, ObserveMiddleware, PrometheusRoutes, StructuredLogger, ToolMetrics } from "effect-toolops/observe"
import { pino } from "pino"
import * as Prom from "prom-client"
import type { Group } from "./harness.ts"

const tool = ToolMeta.make({ namespace: "docs", name: "search", version: "1", readOnly: true })

/** Spans that are counted where they would be exported. */
let exported = 0
class CountedSpan extends Tracer.NativeSpan {
  override end(...args: Parameters<Tracer.NativeSpan["end"]>): void {
    super.end(...args)
    exported += 1
  }
}
const counting = Tracer.make({ span: (options) => new CountedSpan(options) })

/** Lines that are counted where they would be written. */
let bytes = 0
const write = (line: string): void => {
  bytes += line.length
}

const repeated = <A>(effect: Effect.Effect<A>, n: number) =>
  Effect.withFiber(() => {
    let left = n
    const loop: Effect.Effect<number> = Effect.flatMap(effect, () => --left > 0 ? loop : Effect.succeed(n))
    return loop
  })

const check = (result: unknown, n: number): void => {
  if (result !== n) throw new Error("not all calls were made")
}

const guarded = async (
  options: ObserveMiddleware.Options | undefined,
  around: Layer.Layer<never> = Layer.empty
) => {
  const observe = options === undefined ? ObserveMiddleware.layerPassthrough : ObserveMiddleware.layer(options)
  const pipeline = await Effect.runPromise(
    Effect.provide(ToolPipeline.make(ObserveMiddleware.ObserveMiddleware), observe)
  )
  const call = pipeline.wrap(tool, () => Effect.void)(undefined)
  const context = await Effect.runPromise(Effect.provide(
    Effect.context<never>(),
    Layer.merge(Layer.succeed(Metric.MetricRegistry, new Map()), around)
  ))
  return (n: number) => Effect.runPromise(Effect.provideContext(repeated(call, n), context))
}

/** A stage that answers every call itself, as a cache does: what is left is one span, one counter and one histogram. */
class Answering extends Context.Service<Answering, ToolMiddleware.ToolMiddleware<never>>()("bench/Answering") {}
const answering = ToolMiddleware.of<never>({
  name: "answering",
  // Nothing in this file looks at the answer, so any type will do.
  forTool: () => () => Effect.void as Effect.Effect<never>
})

const answered = async (options: ObserveMiddleware.Options, around: Layer.Layer<never>) => {
  const pipeline = await Effect.runPromise(
    Effect.provide(
      ToolPipeline.make(ObserveMiddleware.ObserveMiddleware, Answering),
      Layer.merge(ObserveMiddleware.layer(options), Layer.succeed(Answering, answering))
    )
  )
  const call = pipeline.wrap(tool, () => Effect.void)(undefined)
  const context = await Effect.runPromise(Effect.provide(
    Effect.context<never>(),
    Layer.merge(Layer.succeed(Metric.MetricRegistry, new Map()), around)
  ))
  return (n: number) => Effect.runPromise(Effect.provideContext(repeated(call, n), context))
}

const provider = new BasicTracerProvider({
  spanProcessors: [
    new BatchSpanProcessor({
      export: (spans, done) => {
        exported += spans.length
        done({ code: 0 })
      },
      shutdown: () => Promise.resolve()
    }, { maxQueueSize: 4096 })
  ]
})
const tracer = provider.getTracer("bench")
const otelSpan = (): void => {
  const span = tracer.startSpan("execute_tool search", {
    kind: SpanKind.INTERNAL,
    attributes: {
      "gen_ai.operation.name": "execute_tool",
      "gen_ai.tool.name": "search",
      "gen_ai.tool.type": "function",
      "gen_ai.tool.call.id": "c1",
      "tool.id": "docs:search",
      "tool.name": "search",
      "tool.namespace": "docs",
      "tool.version": "1"
    }
  })
  span.setAttribute("tool.outcome", "ok")
  span.setStatus({ code: SpanStatusCode.OK })
  span.end()
}

const registry = new Prom.Registry()
const labelNames = ["tool_id", "tool_name", "outcome"]
const calls = new Prom.Counter({ name: "calls_total", help: "x", labelNames, registers: [registry] })
const durations = new Prom.Histogram({ name: "duration_seconds", help: "x", labelNames, registers: [registry] })
const labels = { tool_id: "docs:search", tool_name: "search", outcome: "ok" }
const promUpdate = (): void => {
  calls.inc(labels)
  durations.observe(labels, 0.001)
}

const log = pino({ base: null }, { write })
const pinoLine = (): void => {
  log.info({
    tool: "docs:search",
    callId: "c1",
    outcome: "ok",
    durationMs: 0.123,
    attempts: 1,
    traceId: "0123456789abcdef0123456789abcdef",
    spanId: "0123456789abcdef"
  }, "tool call")
}

const logger = StructuredLogger.make({ write })
const span = Tracer.externalSpan({ traceId: "0123456789abcdef0123456789abcdef", spanId: "0123456789abcdef" })
const logLine = Effect.withParentSpan(
  Effect.withFiber((fiber) => {
    const line = new CallLine.CallLine({
      tool: "docs:search",
      callId: "c1",
      outcome: "ok",
      durationMs: 0.123,
      attempts: 1,
      cache: undefined,
      rule: undefined,
      errorType: undefined,
      error: undefined,
      suppressed: 0
    })
    logger.log({ message: [line], logLevel: "Info", cause: Cause.empty, fiber, date: new Date() })
    return Effect.void
  }),
  span
)

const looped = (operation: () => void) => (n: number) => {
  for (let i = 0; i < n; i++) operation()
  return n
}

const effectSpan = Effect.withSpan(Effect.void, "execute_tool search", {
  attributes: { "tool.id": "docs:search", "tool.name": "search" },
  captureStackTrace: false
})
const effectCounter = Metric.counter("bench.counter")
const rotating = Array.from({ length: 16 }, (_, i) => ({ "tool.id": `t${i}` }))

/** `series` counters, ours and those of prom-client. */
const scrapes = (series: number) => {
  const context = Context.make(Metric.MetricRegistry, new Map())
  const theirs = new Prom.Registry()
  const counter = new Prom.Counter({
    name: "calls_total",
    help: "x",
    labelNames: ["tool_id", "outcome"],
    registers: [theirs]
  })
  for (let i = 0; i < series; i++) {
    ToolMetrics.series(ToolMetrics.callTotal, { "tool.id": `docs:t${i}`, outcome: "ok" })(i, context)
    counter.inc({ tool_id: `docs:t${i}`, outcome: "ok" }, i)
  }
  const render = Effect.provideContext(PrometheusRoutes.make({ maxSeries: 100_000 })(), context)
  return {
    ours: (n: number) => {
      for (let i = 0; i < n; i++) bytes += Effect.runSync(render).length
      return n
    },
    theirs: async (n: number) => {
      for (let i = 0; i < n; i++) bytes += (await theirs.metrics()).length
      return n
    }
  }
}

export default async (): Promise<ReadonlyArray<Group>> => {
  const traced = Layer.succeed(Tracer.Tracer, counting)
  const lines = StructuredLogger.layer({ write })
  const unsampled = Layer.succeed(
    Tracer.ParentSpan,
    Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled: false })
  )
  const off = await guarded({ spans: false, metrics: false, log: false })
  const through = await guarded(undefined)
  const thousand = scrapes(1000)
  const inFiber = (effect: Effect.Effect<unknown>, context: Context.Context<never> = Context.empty()) => (n: number) =>
    Effect.runPromise(Effect.provideContext(repeated(effect, n), context))
  const updates = Effect.suspend(() =>
    Metric.update(Metric.withAttributes(effectCounter, rotating[exported++ & 15]!), 1)
  )
  const elapsed = async (run: (n: number) => Promise<unknown>, n: number) => {
    const start = process.hrtime.bigint()
    await run(n)
    return Number(process.hrtime.bigint() - start) / n
  }
  // What a setting adds to the same call without the stage, in ns.
  const added = (run: (n: number) => Promise<unknown>) => async () => {
    const differences: Array<number> = []
    for (let i = 0; i < 15; i++) {
      const without = await elapsed(through, 20_000)
      differences.push(await elapsed(run, 20_000) - without)
    }
    return differences.toSorted((a, b) => a - b)[7]!
  }
  const sampledOut = await guarded({ metrics: false, log: false }, Layer.merge(traced, unsampled as Layer.Layer<never>))
  const noSpans = await guarded({ metrics: false, log: false })
  return [
    {
      name: "observe",
      cases: [
        { name: "OpenTelemetry SDK: one span", run: looped(otelSpan), check },
        { name: "prom-client: counter + histogram", run: looped(promUpdate), check },
        { name: "pino: one line", run: looped(pinoLine), check },
        {
          name: "by hand: 2 SDK spans + 5 prom-client updates + pino",
          run: looped(() => {
            otelSpan()
            otelSpan()
            promUpdate()
            promUpdate()
            calls.inc(labels)
            pinoLine()
          }),
          check
        },
        { name: "Effect.withSpan", run: inFiber(effectSpan, Context.make(Tracer.Tracer, counting)), check },
        { name: "Metric.withAttributes per call", run: inFiber(updates), check },
        { name: "call without the stage", run: through, check },
        { name: "call, metrics only", run: await guarded({ spans: false, log: false }), check },
        { name: "call, metrics + log", run: await guarded({ spans: false }, lines), check },
        { name: "call, 2 spans + 5 metrics", run: await guarded({ log: false }, traced), check },
        {
          name: "answered call, span + counter + histogram",
          run: await answered({ log: false }, traced),
          check,
          baseline: "OpenTelemetry SDK: one span",
          goal: 1
        },
        { name: "call, log line only", run: await guarded({ spans: false, metrics: false }, lines), check },
        {
          name: "StructuredLogger: one line",
          run: inFiber(logLine),
          check,
          baseline: "pino: one line",
          goal: 1.2
        },
        {
          name: "call, everything: 2 spans, 5 metrics, line",
          run: await guarded({}, Layer.merge(traced, lines)),
          check,
          baseline: "by hand: 2 SDK spans + 5 prom-client updates + pino",
          goal: 0.8
        }
      ],
      close: () => provider.shutdown()
    },
    {
      name: "observe added ns",
      cases: [
        { name: "all off (ns)", run: added(off), figure: true, goal: 50 },
        { name: "spans on, no tracer (ns)", run: added(noSpans), figure: true },
        { name: "span sampled out (ns)", run: added(sampledOut), figure: true, goal: 300 }
      ]
    },
    {
      name: "scrape",
      cases: [
        { name: "prom-client, 1,000 series", run: thousand.theirs, check },
        { name: "/metrics, 1,000 series", run: thousand.ours, check, baseline: "prom-client, 1,000 series", goal: 0.2 }
      ]
    }
  ]
}
