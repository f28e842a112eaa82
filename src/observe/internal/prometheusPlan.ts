import type * as Metric from "effect/Metric"

// Names and labels of the exposition, worked out once per set of metrics. Whatever metrics are called, what comes out is
// valid: names are mended, families kept apart, and no two series of a family have the same labels.

type Metadata = Metric.Metric.Metadata<any, any>

/** The metrics of one name. */
export interface Family {
  readonly name: string
  readonly type: "counter" | "gauge" | "histogram" | "summary"
  readonly help: string
  readonly scale: number
  readonly overflowLabels: string
  readonly series: Array<Series>
}

/** What is exposed, in order. */
export interface Plan {
  readonly families: ReadonlyArray<Family>
  /** Whether `registry` still holds just the metrics that this plan was made for. */
  readonly fits: (registry: Metric.MetricRegistry) => boolean
}

const types = {
  Counter: "counter",
  Frequency: "counter",
  Gauge: "gauge",
  Histogram: "histogram",
  Summary: "summary"
} as const

// The base units of Prometheus, by what metrics say their unit is.
const units: Readonly<Record<string, readonly [suffix: string, scale: number, spelt: RegExp]>> = {
  s: ["_seconds", 1, /_s$/],
  second: ["_seconds", 1, /_s$/],
  seconds: ["_seconds", 1, /_s$/],
  ms: ["_seconds", 1e-3, /_(?:ms|millis|milliseconds)$/],
  millisecond: ["_seconds", 1e-3, /_(?:ms|millis|milliseconds)$/],
  milliseconds: ["_seconds", 1e-3, /_(?:ms|millis|milliseconds)$/],
  us: ["_seconds", 1e-6, /_(?:us|micros|microseconds)$/],
  microseconds: ["_seconds", 1e-6, /_(?:us|micros|microseconds)$/],
  ns: ["_seconds", 1e-9, /_(?:ns|nanos|nanoseconds)$/],
  nanoseconds: ["_seconds", 1e-9, /_(?:ns|nanos|nanoseconds)$/],
  By: ["_bytes", 1, /_by$/],
  byte: ["_bytes", 1, /_by$/],
  bytes: ["_bytes", 1, /_by$/],
  KiBy: ["_bytes", 1024, /_kib(?:y|ytes)$/],
  MiBy: ["_bytes", 1048576, /_mib(?:y|ytes)$/]
}

const mend = (name: string, allowed: RegExp): string => {
  const mended = name.replace(allowed, "_")
  return mended === "" ? "_" : /^[0-9]/.test(mended) ? `_${mended}` : mended
}

const metricName = (name: string): string => mend(name, /[^A-Za-z0-9_:]/g)

// Names that start with two underscores are Prometheus' own, and one of nothing else would grow a second with its number.
const labelName = (name: string): string => mend(name, /[^A-Za-z0-9_]/g).replace(/^_+$/, "label").replace(/^__+/, "_")

const escapeLabel = (value: string): string =>
  value.toWellFormed().replaceAll("\\", "\\\\").replaceAll("\"", "\\\"").replaceAll("\n", "\\n")

const escapeHelp = (text: string): string =>
  text.toWellFormed().replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\r", " ")

const familyName = (metadata: Metadata, prefix: string): readonly [name: string, scale: number] => {
  const unit = units[metadata.attributes?.["unit"] ?? metadata.attributes?.["time_unit"] ?? ""]
  let name = metricName(prefix + metadata.id)
  const isCounter = types[metadata.type] === "counter"
  if (isCounter) name = name.replace(/_total$/, "")
  if (unit !== undefined) name = name.replace(unit[2], "")
  if (unit !== undefined && !name.endsWith(unit[0])) name += unit[0]
  return [isCounter ? `${name}_total` : name, unit?.[1] ?? 1]
}

// All names under which samples of a family appear, plus what OpenMetrics calls a counter's family.
const sampleNames = (name: string, type: Family["type"]): ReadonlyArray<string> => {
  switch (type) {
    case "counter":
      return [name, name.slice(0, -"_total".length), `${name.slice(0, -"_total".length)}_created`]
    case "gauge":
      return [name]
    case "histogram":
    case "summary":
      return [name, `${name}_bucket`, `${name}_sum`, `${name}_count`, `${name}_created`]
  }
}

const numbered = (name: string, isCounter: boolean, n: number): string =>
  isCounter ? `${name.slice(0, -"_total".length)}_${n}_total` : `${name}_${n}`

/** Labels of one series. `reserved` is the label that the type of metric has for itself. */
const labelsOf = (metadata: Metadata, reserved: string | undefined): Array<string> => {
  const taken = new Set<string>(["otel_metric_overflow"])
  if (reserved !== undefined) taken.add(reserved)
  const out: Array<string> = []
  const attributes = metadata.attributes ?? {}
  for (const key of Object.keys(attributes).toSorted()) {
    if (key === "unit" || key === "time_unit") continue
    const value = String(attributes[key])
    // An empty label is the same as none.
    if (value === "") continue
    const wanted = labelName(key)
    let name = wanted
    for (let n = 2; taken.has(name); n++) {
      name = n === 2 && wanted === reserved
        ? `exported_${wanted}`
        : `${wanted}_${n}`
    }
    taken.add(name)
    out.push(`${name}="${escapeLabel(value)}"`)
  }
  return out
}

const braces = (labels: ReadonlyArray<string>): string => labels.length === 0 ? "" : `{${labels.join(",")}}`

/** One series, with its labels written out. */
export class Series {
  readonly metadata: Metadata
  readonly isOverflow: boolean
  readonly labels: string
  readonly #list: ReadonlyArray<string>
  readonly #scale: number
  readonly #maxWords: number
  readonly #buckets = new Map<number, string>()

  constructor(
    metadata: Metadata,
    list: ReadonlyArray<string>,
    scale: number,
    isOverflow: boolean,
    maxWords: number
  ) {
    this.metadata = metadata
    this.#list = list
    this.labels = braces(list)
    this.#scale = scale
    this.isOverflow = isOverflow
    this.#maxWords = maxWords
  }

  /** The labels of the bucket up to `boundary`. */
  bucket(boundary: number): string {
    let labels = this.#buckets.get(boundary)
    if (labels === undefined) {
      const scaled = this.#scale === 1 ? boundary : Number((boundary * this.#scale).toPrecision(15))
      labels = braces([...this.#list, `le="${scaled === Infinity ? "+Inf" : scaled}"`])
      this.#buckets.set(boundary, labels)
    }
    return labels
  }

  quantile(quantile: number): string {
    return braces([...this.#list, `quantile="${quantile}"`])
  }

  /** The words of a frequency with their labels; those beyond the bound as one. */
  words(state: Metric.FrequencyState): Map<string, number> {
    const out = new Map<string, number>()
    let rest = 0
    for (const [word, count] of state.occurrences) {
      const labels = braces(word === "" ? this.#list : [...this.#list, `key="${escapeLabel(word)}"`])
      const known = out.get(labels)
      if (known !== undefined || out.size < this.#maxWords) out.set(labels, (known ?? 0) + count)
      else rest += count
    }
    if (rest > 0) out.set(braces([...this.#list, "otel_metric_overflow=\"true\""]), rest)
    return out
  }
}

const reservedLabel = { Counter: undefined, Gauge: undefined, Histogram: "le", Summary: "quantile", Frequency: "key" }

/** Works out names and labels for all metrics of `registry`. */
export const plan = (
  registry: Metric.MetricRegistry,
  options: { readonly prefix: string; readonly maxSeries: number }
): Plan => {
  const all = [...registry.values()]
  const families = new Map<string, Family>()
  const taken = new Set<string>()
  const labelsTaken = new Map<Family, Set<string>>()
  for (const metadata of all) {
    // Metrics of one name and type are one family, whatever they say of themselves otherwise.
    const unit = metadata.attributes?.["unit"] ?? metadata.attributes?.["time_unit"] ?? ""
    const id = JSON.stringify([metadata.id, metadata.type, unit])
    let family = families.get(id)
    if (family === undefined) {
      family = makeFamily(metadata, options.prefix, taken)
      families.set(id, family)
      labelsTaken.set(family, new Set())
    }
    const list = labelsOf(metadata, reservedLabel[metadata.type])
    const known = labelsTaken.get(family)!
    const base = list.length
    for (let n = 2; known.has(braces(list)); n++) list[base] = `duplicate="${n}"`
    known.add(braces(list))
    const isOverflow = family.series.length >= options.maxSeries
    family.series.push(new Series(metadata, list, family.scale, isOverflow, options.maxSeries))
  }
  return {
    families: [...families.values()],
    fits: (now) => {
      if (now.size !== all.length) return false
      let i = 0
      for (const metadata of now.values()) {
        if (metadata !== all[i++]) return false
      }
      return true
    }
  }
}

const makeFamily = (metadata: Metadata, prefix: string, taken: Set<string>): Family => {
  const type = types[metadata.type]
  const [wanted, scale] = familyName(metadata, prefix)
  let name = wanted
  for (let n = 2; sampleNames(name, type).some((each) => taken.has(each)); n++) {
    name = numbered(wanted, type === "counter", n)
  }
  for (const each of sampleNames(name, type)) taken.add(each)
  return {
    name,
    type,
    help: escapeHelp(metadata.description ?? "") || metadata.id.toWellFormed().replace(/[\\\r\n]/g, " ") || name,
    scale,
    overflowLabels: "{otel_metric_overflow=\"true\"}",
    series: []
  }
}
