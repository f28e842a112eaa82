import type * as Context from "effect/Context"
import type * as Metric from "effect/Metric"
import { textOf } from "../../observe/internal/metricScrub.ts"
import type { Losses } from "./telemetryLosses.ts"

type Metadata = Metric.Metric.Metadata<any, any>

const isNumber = (value: unknown): boolean => typeof value === "number" || typeof value === "bigint"

/** Whether a state is what its type says; types do not keep metrics that are read from elsewhere from holding anything. */
const isSound = (type: Metric.Metric.Type, state: Record<string, unknown>): boolean => {
  switch (type) {
    case "Counter":
      return isNumber(state["count"])
    case "Gauge":
      return isNumber(state["value"])
    case "Frequency":
      return state["occurrences"] instanceof Map
    case "Histogram":
      return Array.isArray(state["buckets"]) && isNumber(state["count"]) && isNumber(state["sum"])
    case "Summary":
      return Array.isArray(state["quantiles"]) && isNumber(state["count"]) && isNumber(state["sum"])
  }
}

/**
 * The metrics of a registry that can be read: whoever takes a snapshot of them all would get none. Those that cannot are
 * counted as lost, each once until it could be read meanwhile: one bad gauge is not a loss that goes on and on.
 */
export class ReadableMetrics extends Map<string, Metadata> {
  readonly #registry: Metric.MetricRegistry
  readonly #context: Context.Context<never>
  readonly #losses: Losses
  readonly #unreadable = new WeakSet<Metadata>()
  #frequencies: ReadonlySet<string> = new Set()

  constructor(registry: Metric.MetricRegistry, context: Context.Context<never>, losses: Losses) {
    super()
    this.#registry = registry
    this.#context = context
    this.#losses = losses
  }

  /** Whether the metric of this name was a frequency at the last reading. */
  isFrequency(name: string): boolean {
    return this.#frequencies.has(name)
  }

  override values(): MapIterator<Metadata> {
    const out = new Map<number, Metadata>()
    const types = new Map<string, Metric.Metric.Type>()
    const frequencies = new Set<string>()
    let lost = 0
    for (const metadata of this.#registry.values()) {
      try {
        const state: Record<string, unknown> = metadata.hooks.get(this.#context)
        if (!isSound(metadata.type, state)) throw new TypeError("not a state")
        // OpenTelemetry has one type for one name, and would take the points of another for its own.
        const type = types.get(metadata.id) ?? metadata.type
        types.set(metadata.id, type)
        const id = type === metadata.type ? metadata.id : `${metadata.id}.${metadata.type.toLowerCase()}`
        if (metadata.type === "Frequency") frequencies.add(id)
        out.set(out.size, {
          ...metadata,
          id,
          attributes: Object.fromEntries(
            Object.entries(metadata.attributes ?? {}).map(([name, value]) => [name, textOf(value)])
          ),
          hooks: { ...metadata.hooks, get: () => state }
        })
        this.#unreadable.delete(metadata)
      } catch {
        if (!this.#unreadable.has(metadata)) lost += 1
        this.#unreadable.add(metadata)
      }
    }
    this.#frequencies = frequencies
    this.#losses.lost("encoding", lost)
    return out.values()
  }
}
