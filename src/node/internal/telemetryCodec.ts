import {
  JsonMetricsSerializer,
  JsonTraceSerializer,
  ProtobufMetricsSerializer,
  ProtobufTraceSerializer
} from "@opentelemetry/otlp-transformer"
import type { ResourceMetrics } from "@opentelemetry/sdk-metrics"
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base"
import type { Target } from "./telemetryDelivery.ts"
import { httpTarget } from "./telemetryHttp.ts"
import type { Destination, Settings } from "./telemetrySettings.ts"
import { streamTarget } from "./telemetryStream.ts"

/** How one signal is written, for a collector and for a stream. */
export interface Codec<A> {
  readonly protobuf: {
    readonly serializeRequest: (data: A) => Uint8Array | undefined
    readonly deserializeResponse: (body: Uint8Array) => {
      readonly partialSuccess?: { readonly rejectedSpans?: unknown; readonly rejectedDataPoints?: unknown } | undefined
    }
  }
  readonly json: { readonly serializeRequest: (data: A) => Uint8Array | undefined }
}

/** Opens what the settings say. */
export const openTarget = <A>(to: Destination, settings: Settings, codec: Codec<A>): Target =>
  to._tag === "Stream" ? streamTarget(to.stream) : httpTarget({
    url: to.url,
    headers: to.headers,
    timeoutMillis: settings.requestMillis,
    rejectedOf: (body) => {
      const partial = codec.protobuf.deserializeResponse(body).partialSuccess
      // Protobuf's 64-bit numbers come as strings or objects.
      return Number(partial?.rejectedSpans ?? partial?.rejectedDataPoints ?? 0)
    }
  })

/** Writes `data` as its destination wants it. */
export const encode = <A>(to: Destination, codec: Codec<A>, data: A): Uint8Array => {
  const body = (to._tag === "Stream" ? codec.json : codec.protobuf).serializeRequest(data)
  if (body === undefined) throw new Error("nothing to send")
  return body
}

export const traceCodec: Codec<Array<ReadableSpan>> = { protobuf: ProtobufTraceSerializer, json: JsonTraceSerializer }
export const metricsCodec: Codec<ResourceMetrics> = { protobuf: ProtobufMetricsSerializer, json: JsonMetricsSerializer }
