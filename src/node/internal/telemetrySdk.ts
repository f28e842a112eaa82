import * as OtelMetrics from "@effect/opentelemetry/OtelMetrics"
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import * as Resource from "@effect/opentelemetry/Resource"
import {
  AggregationTemporality,
  type MetricProducer,
  PeriodicExportingMetricReader,
  type PushMetricExporter
} from "@opentelemetry/sdk-metrics"
import { BasicTracerProvider, ParentBasedSampler, TraceIdRatioBasedSampler } from "@opentelemetry/sdk-trace-base"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import { encode, metricsCodec, openTarget, traceCodec } from "./telemetryCodec.ts"
import { Delivery } from "./telemetryDelivery.ts"
import { Losses } from "./telemetryLosses.ts"
import { ReadableMetrics } from "./telemetryReadable.ts"
import { scrubMetrics } from "./telemetryScrub.ts"
import type { MetricsSettings, Settings, TracingSettings } from "./telemetrySettings.ts"
import { BoundedProcessor } from "./telemetrySpans.ts"

// `NodeSdk` of `@effect/opentelemetry` is not used: it loads the SDK of logs, and closes traces and metrics one after the
// other, each with a time limit of its own. And the SDK's OTLP exporters are not: they give a batch up when `Retry-After`
// is longer than their timeout and send the next one at once, count no loss, and start all batches together at the end.
// Encoding and batching are the SDK's.

// Readings that are held: one is being sent, one waits. While they are, no other is made, but for the last one.
const maxReadings = 2

/** One signal on its way out. */
interface Outlet {
  readonly delivery: Delivery
  readonly flush: () => Promise<void>
}

const openTraces = (
  settings: Settings,
  tracing: TracingSettings,
  resource: Resource.Resource["Service"],
  losses: Losses
) => {
  // The processor bounds spans, so batches need no bound of their own.
  const delivery = new Delivery(openTarget(tracing.to, settings, traceCodec), losses)
  const processor = new BoundedProcessor(settings, tracing, delivery, losses)
  const provider = new BasicTracerProvider({
    resource,
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(tracing.sampleRatio) }),
    spanProcessors: [processor]
  })
  const outlet: Outlet = { delivery, flush: () => processor.shutdown() }
  return { provider, outlet }
}

const openMetrics = (
  settings: Settings,
  metrics: MetricsSettings,
  resource: Resource.Resource["Service"],
  losses: Losses,
  producer: MetricProducer,
  isFrequency: (name: string) => boolean
): Outlet => {
  const delivery = new Delivery(openTarget(metrics.to, settings, metricsCodec), losses)
  let isClosing = false
  const exporter: PushMetricExporter = {
    export: (data, done) => {
      const points = data.scopeMetrics.flatMap((scope) => scope.metrics)
        .reduce((sum, metric) => sum + metric.dataPoints.length, 0)
      try {
        const body = encode(metrics.to, metricsCodec, scrubMetrics(data, settings.redaction, isFrequency))
        delivery.send(body, points, () => {})
      } catch {
        losses.lost("encoding", points)
      }
      // What becomes of it is the delivery's affair: the reader would not make the last reading before it knows. The
      // number is that of the SDK's `ExportResultCode`, whose package is no dependency.
      done({ code: 0 })
    },
    forceFlush: () => Promise.resolve(),
    selectAggregationTemporality: () =>
      metrics.temporality === "delta" ? AggregationTemporality.DELTA : AggregationTemporality.CUMULATIVE,
    shutdown: () => Promise.resolve()
  }
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: metrics.intervalMillis })
  reader.setMetricProducer({
    collect: async (options) => {
      if (isClosing || delivery.held < maxReadings) return producer.collect(options)
      // Nothing is lost by it: the next one tells it too, a delta as well as a sum.
      return { resourceMetrics: { resource, scopeMetrics: [] }, errors: [] }
    }
  })
  const outlet: Outlet = {
    delivery,
    flush: () => {
      isClosing = true
      return reader.shutdown()
    }
  }
  return outlet
}

/** Sends what is left, for `millis` at most, then counts the rest as lost. Never rejects. */
const close = async (outlets: ReadonlyArray<Outlet>, millis: number): Promise<void> => {
  const closeBy = performance.now() + millis
  for (const { delivery } of outlets) delivery.hurry(closeBy)
  const flushed = Promise.allSettled(outlets.map(async ({ delivery, flush }) => {
    await flush()
    await delivery.idle()
  }))
  let timer: NodeJS.Timeout | undefined
  // Not unreferenced: it is what keeps the process alive while the last batches are on their way.
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, millis))
  await Promise.race([flushed, late])
  clearTimeout(timer)
  for (const { delivery } of outlets) delivery.abort()
  await flushed
}

/** The exporters of these settings, for as long as the layer lives. */
export const layer = (settings: Settings): Layer.Layer<never> =>
  Layer.unwrap(Effect.gen(function*() {
    const resource = yield* Resource.Resource
    const context = yield* Effect.context<never>()
    const outlets: Array<Outlet> = []
    yield* Effect.addFinalizer(() => Effect.promise(() => close(outlets, settings.closeMillis)))
    if (settings.metrics !== undefined) {
      const losses = new Losses("metrics", context)
      const registry = new ReadableMetrics(Context.get(context, Metric.MetricRegistry), context, losses)
      const producer = yield* OtelMetrics.makeProducer(settings.metrics.temporality).pipe(
        Effect.provideService(Metric.MetricRegistry, registry)
      )
      outlets.push(
        openMetrics(settings, settings.metrics, resource, losses, producer, (name) => registry.isFrequency(name))
      )
    }
    if (settings.tracing === undefined) return Layer.empty
    const { outlet, provider } = openTraces(settings, settings.tracing, resource, new Losses("traces", context))
    outlets.push(outlet)
    return OtelTracer.layerWithoutOtelTracer.pipe(
      Layer.provide(OtelTracer.layerTracer),
      Layer.provide(Layer.succeed(OtelTracer.OtelTracerProvider, provider))
    )
  })).pipe(
    Layer.provide(
      Resource.layer({
        serviceName: settings.serviceName,
        ...(settings.version === undefined ? {} : { serviceVersion: settings.version }),
        attributes: settings.resource
      })
    )
  )
