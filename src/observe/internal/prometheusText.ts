import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import { numberText } from "./prometheusNames.ts"
import type * as Plan from "./prometheusPlan.ts"
import { plan } from "./prometheusPlan.ts"

/** Prometheus' own text, or the standardised one that newer scrapers ask for. */
export type Format = "prometheus" | "openmetrics"

type Merged = { value: number; count: number; sum: number }

const scaled = (value: unknown, scale: number): string =>
  scale === 1 || typeof value !== "number" ? numberText(value) : numberText(scaleNumber(value, scale))

const scaleNumber = (value: number, scale: number): number =>
  scale === 1 ? value : Number((value * scale).toPrecision(15))

/** Makes a renderer. What does not change between two scrapes (names, labels) is kept from one to the next. */
export const makeRenderer = (
  options: Plan.Options
): (context: Context.Context<never>, format: Format) => string => {
  let current: Plan.Plan | undefined
  return (context, format) => {
    const registry = Context.get(context, Metric.MetricRegistry)
    if (current === undefined || !current.fits(registry)) current = plan(registry, options, current)
    let out = ""
    for (const family of current.families) out += renderFamily(family, context, format)
    return format === "openmetrics" ? `${out}# EOF\n` : out
  }
}

const renderFamily = (family: Plan.Family, context: Context.Context<never>, format: Format): string => {
  // OpenMetrics names a counter's family without the suffix of its samples.
  const name = format === "openmetrics" && family.type === "counter"
    ? family.name.slice(0, -"_total".length)
    : family.name
  let out = `# HELP ${name} ${format === "openmetrics" ? family.help.replaceAll("\"", "\\\"") : family.help}\n`
  out += `# TYPE ${name} ${family.type}\n`
  let overflow: Merged | undefined
  const rest = (value: number) => {
    overflow ??= { value: 0, count: 0, sum: 0 }
    overflow.value += value
  }
  for (const series of family.series) {
    try {
      const state: unknown = series.metadata.hooks.get(context)
      if (series.isOverflow) overflow = merge(overflow, series.metadata.type, state)
      else out += renderSeries(family, series, state, rest)
    } catch {
      // A gauge that is read from somewhere else and cannot be read now.
    }
  }
  return overflow === undefined ? out : out + renderOverflow(family, overflow)
}

const renderSeries = (
  family: Plan.Family,
  series: Plan.Series,
  state: unknown,
  rest: (value: number) => void
): string => {
  const { name, scale } = family
  // The state has the shape that belongs to the metric's type; what it holds may have come from anywhere.
  switch (series.metadata.type) {
    case "Counter":
      return `${name}${series.labels} ${scaled((state as Metric.CounterState<number>).count, scale)}\n`
    case "Gauge":
      return `${name}${series.labels} ${scaled((state as Metric.GaugeState<number>).value, scale)}\n`
    case "Frequency": {
      let out = ""
      for (const [labels, count] of series.words(state as Metric.FrequencyState, family, rest)) {
        out += `${name}${labels} ${numberText(count)}\n`
      }
      return out
    }
    case "Histogram": {
      const { buckets, count, sum } = state as Metric.HistogramState
      const labels = series.buckets(buckets)
      let out = ""
      for (let i = 0; i < buckets.length; i++) {
        if (labels[i] !== undefined) out += `${name}_bucket${labels[i]} ${numberText(buckets[i]![1])}\n`
      }
      return out + `${name}_bucket${series.whole} ${numberText(count)}\n` +
        `${name}_sum${series.labels} ${scaled(sum, scale)}\n${name}_count${series.labels} ${numberText(count)}\n`
    }
    case "Summary": {
      const { count, quantiles, sum } = state as Metric.SummaryState
      const labels = series.quantiles(quantiles)
      let out = ""
      for (let i = 0; i < quantiles.length; i++) {
        if (labels[i] !== undefined) out += `${name}${labels[i]} ${scaled(quantiles[i]![1], scale)}\n`
      }
      return `${out}${name}_sum${series.labels} ${scaled(sum, scale)}\n` +
        `${name}_count${series.labels} ${numberText(count)}\n`
    }
  }
}

// Series beyond the bound are told as one: their sum.
const merge = (merged: Merged | undefined, type: Metric.Metric.Type, state: unknown): Merged => {
  const into = merged ?? { value: 0, count: 0, sum: 0 }
  switch (type) {
    case "Counter":
      into.value += Number((state as Metric.CounterState<number>).count)
      break
    case "Gauge":
      into.value += Number((state as Metric.GaugeState<number>).value)
      break
    case "Frequency":
      for (const count of (state as Metric.FrequencyState).occurrences.values()) into.value += count
      break
    case "Histogram":
    case "Summary": {
      const { count, sum } = state as Metric.HistogramState
      into.count += count
      into.sum += sum
    }
  }
  return into
}

const renderOverflow = (family: Plan.Family, merged: Merged): string => {
  const { name, overflowLabels, scale } = family
  if (family.type !== "histogram" && family.type !== "summary") {
    return `${name}${overflowLabels} ${scaled(merged.value, scale)}\n`
  }
  const bucket = family.type === "histogram"
    ? `${name}_bucket${overflowLabels.slice(0, -1)},le="+Inf"} ${merged.count}\n`
    : ""
  return `${bucket}${name}_sum${overflowLabels} ${scaled(merged.sum, scale)}\n` +
    `${name}_count${overflowLabels} ${merged.count}\n`
}
