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
 * The metrics of a registry that can be read. Those that cannot are counted as lost: whoever takes a snapshot of them all
 * would get none.
 */
export class ReadableMetrics extends Map<string, Metadata> {
  readonly #registry: Metric.MetricRegistry
  readonly #context: Context.Context<never>
  readonly #losses: Losses

  constructor(registry: Metric.MetricRegistry, context: Context.Context<never>, losses: Losses) {
    super()
    this.#registry = registry
    this.#context = context
    this.#losses = losses
  }

  override values(): MapIterator<Metadata> {
    const out = new Map<number, Metadata>()
    const types = new Map<string, Metric.Metric.Type>()
    let unreadable = 0
    for (const metadata of this.#registry.values()) {
      try {
        const state: Record<string, unknown> = metadata.hooks.get(this.#context)
        if (!isSound(metadata.type, state)) throw new TypeError("not a state")
        // OpenTelemetry has one type for one name, and would take the points of another for its own.
        const type = types.get(metadata.id) ?? metadata.type
        types.set(metadata.id, type)
        out.set(out.size, {
          ...metadata,
          id: type === metadata.type ? metadata.id : `${metadata.id}.${metadata.type.toLowerCase()}`,
          attributes: Object.fromEntries(
            Object.entries(metadata.attributes ?? {}).map(([name, value]) => [name, textOf(value)])
          ),
          hooks: { ...metadata.hooks, get: () => state }
        })
      } catch {
        unreadable += 1
      }
    }
    this.#losses.lost("encoding", unreadable)
    return out.values()
  }
}
