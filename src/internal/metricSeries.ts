import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"

// How a metric is defined and updated. Here, and not in the observe stage, so that every stage can have metrics of its
// own: stages do not import each other. `ToolMetrics` of `effect-toolops/observe` offers it to the outside.

/**
 * What a metric is: for those who update it, export it or draw it.
 *
 * - `name`: dotted, as OpenTelemetry has it. Prometheus gets it with underscores and its unit behind it.
 * - `unit`: `s`, `ms`, `By`, or `{thing}` for a count of things.
 * - `labels`: the attributes that its series may have.
 * - `boundaries`: of a histogram's buckets, in `unit`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Definition<Type extends "counter" | "gauge" | "histogram" = "counter" | "gauge" | "histogram"> {
  readonly type: Type
  readonly name: string
  readonly description: string
  readonly unit: string
  readonly labels: ReadonlyArray<string>
  readonly boundaries?: ReadonlyArray<number> | undefined
}

/**
 * Attributes of one series. An absent value leaves the attribute out.
 *
 * @category models
 * @since 0.1.0
 */
export type Attributes = Readonly<Record<string, string | undefined>>

/**
 * One series: takes a number and the context of the fiber it happened in.
 *
 * @category models
 * @since 0.1.0
 */
export type Series = (value: number, context: Context.Context<never>) => void

/**
 * Boundaries of the duration buckets in seconds, as OpenTelemetry's MCP conventions have them.
 *
 * @category constants
 * @since 0.1.0
 */
export const secondsBoundaries: ReadonlyArray<number> = [
  0.01,
  0.02,
  0.05,
  0.1,
  0.2,
  0.5,
  1,
  2,
  5,
  10,
  30,
  60,
  120,
  300
]

/**
 * Makes the Effect `Metric` of one series.
 *
 * **Gotchas**
 *
 * An attribute that the definition does not list is refused with a `TypeError`: exporters and dashboards rely on the
 * list.
 *
 * @category constructors
 * @since 0.1.0
 */
export const metric = (definition: Definition, attributes: Attributes): Metric.Metric<number, unknown> => {
  const given: Record<string, string> = { unit: definition.unit }
  for (const [name, value] of Object.entries(attributes)) {
    if (!definition.labels.includes(name)) {
      throw new TypeError(`ToolMetrics.metric: ${definition.name} has no label ${JSON.stringify(name)}`)
    }
    if (value !== undefined) given[name] = value
  }
  const options = { description: definition.description, attributes: given }
  switch (definition.type) {
    case "counter":
      return Metric.counter(definition.name, { ...options, incremental: true })
    case "gauge":
      return Metric.gauge(definition.name, options)
    case "histogram":
      return Metric.histogram(definition.name, { ...options, boundaries: definition.boundaries ?? secondsBoundaries })
  }
}

/**
 * Binds one series. Do it once per tool and keep the function: an update then costs a counter's addition.
 *
 * **Example** (Counting something of your own per tool)
 *
 * ```ts
 * import { Context, Metric } from "effect"
 * import { ToolMeta } from "effect-toolops"
 * import { ToolMetrics } from "effect-toolops/observe"
 *
 * const redirects: ToolMetrics.Definition<"counter"> = {
 *   type: "counter",
 *   name: "my.redirects",
 *   description: "Redirects followed",
 *   unit: "{redirect}",
 *   labels: ["tool.id"]
 * }
 * const fetch = ToolMeta.make({ name: "fetch" })
 * const count = ToolMetrics.series(redirects, { "tool.id": fetch.id })
 *
 * const context = Context.make(Metric.MetricRegistry, new Map())
 * count(2, context)
 * Metric.snapshotUnsafe(context).map((one) => one.state) // => [{ count: 2, incremental: true }]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const series = (definition: Definition, attributes: Attributes): Series => {
  const one = metric(definition, attributes)
  return (value, context) => one.updateUnsafe(value, context)
}
