import * as OtelMetrics from "@effect/opentelemetry/OtelMetrics"
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import * as Resource from "@effect/opentelemetry/Resource"
import {
  JsonMetricsSerializer,
  JsonTraceSerializer,
  ProtobufMetricsSerializer,
  ProtobufTraceSerializer
} from "@opentelemetry/otlp-transformer"
import {
  AggregationTemporality,
  PeriodicExportingMetricReader,
  type PushMetricExporter,
  type ResourceMetrics
} from "@opentelemetry/sdk-metrics"
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type SpanExporter,
  type SpanProcessor,
  TraceIdRatioBasedSampler
} from "@opentelemetry/sdk-trace-base"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Delivery, type Target } from "./telemetryDelivery.ts"
import { httpTarget } from "./telemetryHttp.ts"
import { Losses } from "./telemetryLosses.ts"
import { scrubMetrics, scrubSpan } from "./telemetryScrub.ts"
import type { Destination, MetricsSettings, Settings, TracingSettings } from "./telemetrySettings.ts"
import { streamTarget } from "./telemetryStream.ts"

// `NodeSdk` of `@effect/opentelemetry` is not used: it loads the SDK of logs, and closes traces and metrics one after the
// other, each with a time limit of its own. And the SDK's OTLP exporters are not: they give a batch up when `Retry-After`
// is longer than their timeout and send the next one at once, count no loss, and start all batches together at the end.
// Encoding and batching are the SDK's.

// The numbers of the SDK's `ExportResultCode`, whose package is not a dependency.
const success = { code: 0 } as const
const failure = (error: unknown) => ({
  code: 1 as const,
  error: error instanceof Error ? error : new Error("not delivered")
})

interface Codec<A> {
  readonly protobuf: {
    readonly serializeRequest: (data: A) => Uint8Array | undefined
    readonly deserializeResponse: (body: Uint8Array) => {
      readonly partialSuccess?: { readonly rejectedSpans?: unknown; readonly rejectedDataPoints?: unknown } | undefined
    }
  }
  readonly json: { readonly serializeRequest: (data: A) => Uint8Array | undefined }
}

const openTarget = <A>(to: Destination, settings: Settings, codec: Codec<A>): Target =>
  to._tag === "Stream" ? streamTarget(to.stream, settings.requestMillis) : httpTarget({
    url: to.url,
    headers: to.headers,
    timeoutMillis: settings.requestMillis,
    rejectedOf: (body) => {
      const partial = codec.protobuf.deserializeResponse(body).partialSuccess
      // Protobuf's 64-bit numbers come as strings or objects.
      return Number(partial?.rejectedSpans ?? partial?.rejectedDataPoints ?? 0)
    }
  })

const encode = <A>(to: Destination, codec: Codec<A>, data: A): Uint8Array => {
  const body = (to._tag === "Stream" ? codec.json : codec.protobuf).serializeRequest(data)
  if (body === undefined) throw new Error("nothing to send")
  return body
}

const traceCodec: Codec<Array<ReadableSpan>> = { protobuf: ProtobufTraceSerializer, json: JsonTraceSerializer }
const metricsCodec: Codec<ResourceMetrics> = { protobuf: ProtobufMetricsSerializer, json: JsonMetricsSerializer }

/** One signal on its way out. */
interface Outlet {
  readonly delivery: Delivery
  readonly flush: () => Promise<void>
}

/**
 * The SDK's batching, with a bound on everything that is not delivered yet: what waits, and what is being sent. The SDK's
 * own bound leaves out the latter, and does not say what it has dropped.
 */
class BoundedProcessor implements SpanProcessor {
  readonly #batches: BatchSpanProcessor
  readonly #losses: Losses
  readonly #maxHeld: number
  #held = 0
  #isClosed = false

  constructor(settings: Settings, tracing: TracingSettings, delivery: Delivery, losses: Losses) {
    this.#losses = losses
    this.#maxHeld = tracing.maxQueue
    const exporter: SpanExporter = {
      export: (spans, done) => {
        let body: Uint8Array
        try {
          body = encode(tracing.to, traceCodec, spans.map((span) => scrubSpan(span, settings.redaction)))
        } catch (error) {
          losses.lost("encoding", spans.length)
          this.#held -= spans.length
          done(failure(error))
          return
        }
        delivery.send(body, spans.length, (isDelivered) => {
          this.#held -= spans.length
          done(isDelivered ? success : failure(undefined))
        })
      },
      shutdown: () => Promise.resolve()
    }
    this.#batches = new BatchSpanProcessor(exporter, {
      maxQueueSize: tracing.maxQueue,
      maxExportBatchSize: tracing.maxBatch,
      scheduledDelayMillis: tracing.intervalMillis
    })
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if ((span.spanContext().traceFlags & 1) === 0) return
    if (this.#isClosed) return this.#losses.lost("shutdown", 1)
    if (this.#held >= this.#maxHeld) return this.#losses.lost("queue_full", 1)
    this.#held++
    this.#batches.onEnd(span)
  }

  forceFlush(): Promise<void> {
    return this.#batches.forceFlush()
  }

  shutdown(): Promise<void> {
    this.#isClosed = true
    return this.#batches.shutdown()
  }
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
      } catch (error) {
        losses.lost("encoding", points)
        return done(failure(error))
      }
      delivery.send(body, points, (isDelivered) => done(isDelivered ? success : failure(undefined)))
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
    // A batch that is lost rejects, and says nothing about those that follow.
    await flush().catch(() => {})
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
