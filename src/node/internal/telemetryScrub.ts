import type { Attributes, AttributeValue } from "@opentelemetry/api"
import type { ResourceMetrics } from "@opentelemetry/sdk-metrics"
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base"
import { scrubLabels } from "../../observe/internal/metricScrub.ts"
import { type Redaction, replacement } from "../../observe/Redaction.ts"

// The last net: spans of our own are clean, but an exporter also gets what the rest of the program annotates.

const scrubValue = (value: AttributeValue, redaction: Redaction): AttributeValue => {
  if (typeof value === "string") return redaction.text(value)
  if (!Array.isArray(value)) return value
  return (value as ReadonlyArray<unknown>).map((each) =>
    typeof each === "string" ? redaction.text(each) : each
  ) as Array<string>
}

const scrub = (attributes: Attributes, redaction: Redaction): Attributes => {
  const out: Attributes = {}
  for (const name of Object.keys(attributes)) {
    const value = attributes[name]
    if (value === undefined) continue
    out[redaction.text(name)] = redaction.isSensitiveKey(name) ? replacement : scrubValue(value, redaction)
  }
  return out
}

/** A copy of a span without what looks like a secret. */
export const scrubSpan = (span: ReadableSpan, redaction: Redaction): ReadableSpan => {
  const attributes = scrub(span.attributes, redaction)
  // `Toolkit` of `effect/ai` writes the raw parameters of a call on the span around it, under these two names.
  if ("tool" in attributes && "parameters" in attributes) attributes["parameters"] = "not recorded"
  const { message } = span.status
  return {
    name: redaction.text(span.name),
    kind: span.kind,
    spanContext: () => span.spanContext(),
    ...(span.parentSpanContext === undefined ? {} : { parentSpanContext: span.parentSpanContext }),
    startTime: span.startTime,
    endTime: span.endTime,
    status: message === undefined ? span.status : { code: span.status.code, message: redaction.text(message) },
    attributes,
    links: span.links.map((link) => ({ ...link, attributes: scrub(link.attributes ?? {}, redaction) })),
    events: span.events.map((event) => ({
      ...event,
      name: redaction.text(event.name),
      attributes: scrub(event.attributes ?? {}, redaction)
    })),
    duration: span.duration,
    ended: span.ended,
    resource: span.resource,
    instrumentationScope: span.instrumentationScope,
    droppedAttributesCount: span.droppedAttributesCount,
    droppedEventsCount: span.droppedEventsCount,
    droppedLinksCount: span.droppedLinksCount
  }
}

/**
 * A copy of metrics without what looks like a secret, and without the attribute by which Effect's metrics have their unit:
 * the descriptor says it already. `isFrequency` is asked by the name of a metric.
 */
export const scrubMetrics = (
  metrics: ResourceMetrics,
  redaction: Redaction,
  isFrequency: (name: string) => boolean
): ResourceMetrics => ({
  resource: metrics.resource,
  scopeMetrics: metrics.scopeMetrics.map(({ metrics, scope }) => ({
    scope,
    metrics: metrics.map((metric) => {
      const words = isFrequency(metric.descriptor.name) ? "key" : undefined
      const labels = scrubLabels(metric.dataPoints.map((point) => point.attributes), redaction, words)
      return {
        ...metric,
        descriptor: {
          ...metric.descriptor,
          name: redaction.text(metric.descriptor.name),
          description: redaction.text(metric.descriptor.description)
        },
        dataPoints: metric.dataPoints.map((point, i) => ({
          ...point,
          attributes: Object.fromEntries(labels[i]!)
        }))
      }
      // The kinds of metrics differ in what points hold, which is left as it is.
    }) as typeof metrics
  }))
})
