import type * as Context from "effect/Context"
import { type Definition, type Series, series } from "../../internal/metricSeries.ts"

/** What is exported: spans, or data points of metrics. */
export type Signal = "traces" | "metrics"

/**
 * Why something did not reach the collector: there was no room, the collector will not have it, it was not to be reached
 * for too long, it could not be read or encoded, or the program ended first.
 */
export type LossReason = typeof reasons[number]

const reasons = ["queue_full", "rejected", "unreachable", "encoding", "shutdown"] as const

export const exported: Definition<"counter"> = {
  type: "counter",
  name: "telemetry.exported",
  description: "Spans and data points that an exporter has delivered",
  unit: "{item}",
  labels: ["signal"]
}

export const dropped: Definition<"counter"> = {
  type: "counter",
  name: "telemetry.dropped",
  description: "Spans and data points that were lost on their way to the collector, by reason",
  unit: "{item}",
  labels: ["signal", "reason"]
}

/** Counts what becomes of one signal. */
export class Losses {
  readonly #signal: Signal
  readonly #context: Context.Context<never>
  readonly #exported: Series
  readonly #dropped = new Map<LossReason, Series>()

  constructor(signal: Signal, context: Context.Context<never>) {
    this.#signal = signal
    this.#context = context
    this.#exported = series(exported, { signal })
    // There from the start: a rise from nothing is no rise for whoever watches for losses.
    this.sent(0)
    for (const reason of reasons) this.lost(reason, 0)
  }

  sent(items: number): void {
    this.#exported(items, this.#context)
  }

  lost(reason: LossReason, items: number): void {
    let count = this.#dropped.get(reason)
    if (count === undefined) {
      count = series(dropped, { signal: this.#signal, reason })
      this.#dropped.set(reason, count)
    }
    count(items, this.#context)
  }
}
