import type * as Context from "effect/Context"
import { type Definition, series } from "../../internal/metricSeries.ts"

/** Records by what became of them: `written`, `lost`. */
export const auditTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.audit.total",
  description: "Records of the audit log, written and lost",
  unit: "{record}",
  labels: ["result"]
}

/** How long the oldest record of a write had waited for it to be acknowledged. */
export const auditLag: Definition<"histogram"> = {
  type: "histogram",
  name: "tool.audit.lag",
  description: "Age of the oldest record of each write of the audit log when it was acknowledged",
  unit: "s",
  labels: []
}

/** Records that wait to be written. */
export const auditQueued: Definition<"gauge"> = {
  type: "gauge",
  name: "tool.audit.queued",
  description: "Records that wait to be written to the audit log",
  unit: "{record}",
  labels: []
}

/** Counts what a log does, for its metrics and its `stats`. */
export class AuditMeter {
  written = 0
  lostCount = 0
  lagMillis = 0
  readonly #context: Context.Context<never>
  readonly #written = series(auditTotal, { result: "written" })
  readonly #lost = series(auditTotal, { result: "lost" })
  readonly #lag = series(auditLag, {})
  readonly #queued = series(auditQueued, {})

  constructor(context: Context.Context<never>) {
    this.#context = context
    // There from the start: a rise from nothing is no rise for whoever watches for losses.
    this.#written(0, context)
    this.#lost(0, context)
  }

  wrote(count: number, lagMillis: number): void {
    this.written += count
    this.lagMillis = lagMillis
    this.#written(count, this.#context)
    this.#lag(lagMillis / 1000, this.#context)
  }

  lost(count: number): void {
    this.lostCount += count
    this.#lost(count, this.#context)
  }

  queued(count: number): void {
    this.#queued(count, this.#context)
  }
}
