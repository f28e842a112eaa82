import { BatchSpanProcessor, type ReadableSpan, type SpanProcessor } from "@opentelemetry/sdk-trace-base"
import { encode, traceCodec } from "./telemetryCodec.ts"
import type { Delivery } from "./telemetryDelivery.ts"
import type { Losses } from "./telemetryLosses.ts"
import { scrubSpan } from "./telemetryScrub.ts"
import type { Settings, TracingSettings } from "./telemetrySettings.ts"

// Writing a whole batch at once would hold up every call of the program for milliseconds.
const sliceLength = 32

const newline = new TextEncoder().encode("\n")

/**
 * The SDK's batching, with a bound on everything that is not delivered yet: what waits, and what is being sent. The SDK's
 * own bound leaves out the latter, and does not say what it has dropped.
 */
export class BoundedProcessor implements SpanProcessor {
  readonly #settings: Settings
  readonly #tracing: TracingSettings
  readonly #delivery: Delivery
  readonly #losses: Losses
  readonly #batches: BatchSpanProcessor
  #held = 0
  #isClosed = false
  #writing: Promise<void> = Promise.resolve()

  constructor(settings: Settings, tracing: TracingSettings, delivery: Delivery, losses: Losses) {
    this.#settings = settings
    this.#tracing = tracing
    this.#delivery = delivery
    this.#losses = losses
    this.#batches = new BatchSpanProcessor({
      export: (spans, done) => {
        this.#writing = this.#writing.then(() => this.#send(spans, done))
      },
      shutdown: () => Promise.resolve()
    }, {
      maxQueueSize: tracing.maxQueue,
      maxExportBatchSize: tracing.maxBatch,
      scheduledDelayMillis: tracing.intervalMillis
    })
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if ((span.spanContext().traceFlags & 1) === 0) return
    if (this.#isClosed) return this.#losses.lost("shutdown", 1)
    if (this.#held >= this.#tracing.maxQueue) return this.#losses.lost("queue_full", 1)
    this.#held++
    this.#batches.onEnd(span)
  }

  forceFlush(): Promise<void> {
    return this.#batches.forceFlush()
  }

  /** Hands everything over to the delivery. */
  async shutdown(): Promise<void> {
    this.#isClosed = true
    await this.#batches.shutdown()
    await this.#writing
  }

  // A batch that is lost is our affair, and counted: told of it, the SDK's processor would start two batches at once.
  async #send(spans: ReadonlyArray<ReadableSpan>, done: (result: { readonly code: 0 }) => void): Promise<void> {
    const settle = () => {
      this.#held -= spans.length
      done({ code: 0 })
    }
    let body: Uint8Array
    try {
      body = await this.#write(spans)
    } catch {
      this.#losses.lost("encoding", spans.length)
      return settle()
    }
    this.#delivery.send(body, spans.length, settle)
  }

  async #write(spans: ReadonlyArray<ReadableSpan>): Promise<Uint8Array> {
    const { to } = this.#tracing
    const parts: Array<Uint8Array> = []
    for (let at = 0; at < spans.length && !this.#delivery.isAborted; at += sliceLength) {
      if (at > 0) {
        await new Promise((resolve) => setImmediate(resolve))
        if (to._tag === "Stream") parts.push(newline)
      }
      const slice = spans.slice(at, at + sliceLength).map((span) => scrubSpan(span, this.#settings.redaction))
      parts.push(encode(to, traceCodec, slice))
    }
    // Messages of protobuf that stand one after the other are one message: their lists are joined.
    return Buffer.concat(parts)
  }
}
