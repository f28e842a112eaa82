import * as OtelMetrics from "@effect/opentelemetry/OtelMetrics"
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import * as Resource from "@effect/opentelemetry/Resource"
import {
  AggregationTemporality,
  PeriodicExportingMetricReader,
  type PushMetricExporter
} from "@opentelemetry/sdk-metrics"
import { BasicTracerProvider, ParentBasedSampler, TraceIdRatioBasedSampler } from "@opentelemetry/sdk-trace-base"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { encode, metricsCodec, openTarget, traceCodec } from "./telemetryCodec.ts"
import { Delivery } from "./telemetryDelivery.ts"
import { Losses } from "./telemetryLosses.ts"
import { scrubMetrics } from "./telemetryScrub.ts"
import type { MetricsSettings, Settings, TracingSettings } from "./telemetrySettings.ts"
import { BoundedProcessor } from "./telemetrySpans.ts"

// `NodeSdk` of `@effect/opentelemetry` is not used: it loads the SDK of logs, and closes traces and metrics one after the
// other, each with a time limit of its own. And the SDK's OTLP exporters are not: they give a batch up when `Retry-After`
// is longer than their timeout and send the next one at once, count no loss, and start all batches together at the end.
// Encoding and batching are the SDK's.

// What an exporter says of a batch; the numbers are those of the SDK's `ExportResultCode`, whose package is no dependency.
const success = { code: 0 } as const
const failure = { code: 1 } as const

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
  const delivery = new Delivery(openTarget(tracing.to, settings, traceCodec), losses, Infinity)
  const processor = new BoundedProcessor(settings, tracing, delivery, losses)
  const provider = new BasicTracerProvider({
    resource,
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(tracing.sampleRatio) }),
    spanProcessors: [processor]
  })
  const outlet: Outlet = { delivery, flush: () => processor.shutdown() }
  return { provider, outlet }
}

const openMetrics = (settings: Settings, metrics: MetricsSettings, losses: Losses) => {
  // A newer reading says all that an older one does, so few need to wait.
  const delivery = new Delivery(openTarget(metrics.to, settings, metricsCodec), losses, 2)
  const exporter: PushMetricExporter = {
    export: (data, done) => {
      const scrubbed = scrubMetrics(data, settings.redaction)
      const points = scrubbed.scopeMetrics.flatMap((scope) => scope.metrics)
        .reduce((sum, metric) => sum + metric.dataPoints.length, 0)
      if (points === 0) return done(success)
      let body: Uint8Array
      try {
        body = encode(metrics.to, metricsCodec, scrubbed)
      } catch {
        losses.lost("encoding", points)
        return done(failure)
      }
      delivery.send(body, points, (isDelivered) => done(isDelivered ? success : failure))
    },
    forceFlush: () => Promise.resolve(),
    selectAggregationTemporality: () =>
      metrics.temporality === "delta" ? AggregationTemporality.DELTA : AggregationTemporality.CUMULATIVE,
    shutdown: () => Promise.resolve()
  }
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: metrics.intervalMillis })
  const outlet: Outlet = { delivery, flush: () => reader.shutdown() }
  return { reader, outlet }
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
      const { outlet, reader } = openMetrics(settings, settings.metrics, new Losses("metrics", context))
      outlets.push(outlet)
      reader.setMetricProducer(yield* OtelMetrics.makeProducer(settings.metrics.temporality))
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
