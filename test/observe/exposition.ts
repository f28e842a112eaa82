import { Context, Metric } from "effect"

/** One sample of an exposition. */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

const unescape = (text: string): string => text.replace(/\\(.)/g, (_all, c: string) => c === "n" ? "\n" : c)

/**
 * Reads the text format 0.0.4 as strictly as Prometheus does, and stricter where it is lenient: every family has HELP and
 * TYPE before its samples and appears once, names and labels are valid, no series appears twice.
 */
export const parseExposition = (text: string): ReadonlyArray<Sample> => {
  if (text !== "" && !text.endsWith("\n")) throw new Error("no line feed at the end")
  const types = new Map<string, string>()
  const series = new Set<string>()
  const samples: Array<Sample> = []
  let family = ""
  for (const line of text.split("\n").slice(0, -1)) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line)
    if (help !== null) {
      family = help[1]!
      if (types.has(family)) throw new Error(`family ${family} appears twice`)
      continue
    }
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line)
    if (type !== null) {
      if (type[1] !== family) throw new Error(`TYPE without HELP: ${line}`)
      types.set(family, type[2]!)
      continue
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (NaN|[+-]Inf|[0-9.eE+-]+)$/.exec(line)
    if (sample === null) throw new Error(`not a sample: ${JSON.stringify(line)}`)
    const [, name = "", body = "", value = ""] = sample
    const suffixes = types.get(family) === "histogram"
      ? "_bucket|_sum|_count"
      : types.get(family) === "summary"
      ? "|_sum|_count"
      : ""
    if (!new RegExp(`^${family}(?:${suffixes})$`).test(name)) throw new Error(`${name} is not of family ${family}`)
    const labels: Record<string, string> = Object.create(null)
    let rest = body
    while (rest !== "") {
      const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest)
      if (label === null) throw new Error(`not labels: ${JSON.stringify(body)}`)
      const [taken, key = "", value = ""] = label
      if (key in labels || key.startsWith("__")) throw new Error(`bad label ${key} in ${line}`)
      labels[key] = unescape(value)
      rest = rest.slice(taken.length)
    }
    // An empty label is the same as none.
    const key = JSON.stringify([name, Object.entries(labels).filter(([, each]) => each !== "").toSorted()])
    if (series.has(key)) throw new Error(`series appears twice: ${line}`)
    series.add(key)
    samples.push({
      name,
      labels,
      value: value === "NaN" ? NaN : value.endsWith("Inf") ? Number(`${value}inity`) : Number(value)
    })
  }
  return samples
}

/** A registry with metrics whose names, labels and values are as nasty as they get. */
export const hostileContext = (): Context.Context<never> => {
  const context = Context.make(Metric.MetricRegistry, new Map())
  const nasty = [
    "a.b",
    "a_b",
    "a-b",
    "",
    "9lives",
    "__name__",
    "le",
    "quantile",
    "key",
    "é",
    "\u{1f600}",
    "x\ny",
    "x\"y",
    "x\\y",
    "{}",
    "a_b_total",
    "up",
    "__proto__",
    "otel_metric_overflow",
    "duplicate",
    "exported_le",
    "_total",
    "constructor",
    "password",
    "   "
  ]
  const attributes = Object.fromEntries(nasty.map((name, i) => [name, i % 3 === 0 ? `v"\\\n${name}\ud800` : ""]))
  for (const name of nasty) {
    for (const labels of [{}, attributes, { le: "1", quantile: "0.5", key: "k" }, { "a.b": "1" }, { a_b: "1" }]) {
      const options = { attributes: labels, description: `d "\\\n${name}` }
      Metric.counter(name, options).updateUnsafe(1, context)
      Metric.counter(`${name}_count`, options).updateUnsafe(2, context)
      Metric.counter(`${name}_total`, { attributes: { ...labels, unit: "ms" } }).updateUnsafe(1500, context)
      Metric.gauge(name, options).updateUnsafe(NaN, context)
      Metric.gauge(`${name}_sum`, options).updateUnsafe(Infinity, context)
      Metric.gauge(`${name}_bucket`, { ...options, bigint: true }).updateUnsafe(10n ** 30n, context)
      Metric.histogram(name, { ...options, boundaries: [0.1, 1, Infinity] }).updateUnsafe(0.5, context)
      Metric.histogram(`${name}.h`, { attributes: { ...labels, unit: "ms" }, boundaries: [1, 250] }).updateUnsafe(
        3,
        context
      )
      const summary = { maxAge: 60_000, maxSize: 10, quantiles: [0, 0.5, 1] }
      Metric.summaryWithTimestamp(name, { ...options, ...summary }).updateUnsafe([-1e-300, 0], context)
      for (const word of nasty) Metric.frequency(name, options).updateUnsafe(word, context)
    }
    const odd: any = { unit: name, description: name }
    Metric.counter(`${name}.unit`, { attributes: odd }).updateUnsafe(1, context)
    Metric.gauge(`${name}.help`, { description: name }).updateUnsafe(1, context)
    Metric.gauge(`${name}.value`).updateUnsafe(odd, context)
    Metric.gauge(`${name}.label`, { attributes: { odd: Object.create(null) } }).updateUnsafe(1, context)
    Metric.histogram(`${name}.bounds`, {
      boundaries: [NaN, -Infinity, 1, 1, 1 + 2 ** -52, 0.5],
      attributes: { unit: "ms" }
    })
      .updateUnsafe(0.7, context)
    Metric.summaryWithTimestamp(`${name}.parts`, { maxAge: 60_000, maxSize: 10, quantiles: [0.5, 0.5] })
      .updateUnsafe([1, 0], context)
  }
  for (const label of ["a.b", "a_b"]) {
    Metric.counter("numbered", { attributes: { [label]: "1", duplicate: "x" } }).updateUnsafe(1, context)
  }
  return context
}
