import type * as Metric from "effect/Metric"
import type { Redaction } from "../Redaction.ts"
import { type Label, scrubLabels } from "./metricScrub.ts"
import * as Names from "./prometheusNames.ts"

// Names and labels of the exposition, worked out once per set of metrics. Whatever metrics are called, what comes out is
// valid: names are mended, families kept apart, and no two series of a family have the same labels.

/** The metrics of one name. */
export interface Family {
  readonly name: string
  readonly type: "counter" | "gauge" | "histogram" | "summary"
  readonly help: string
  readonly scale: number
  readonly overflowLabels: string
  readonly series: Array<Series>
  /** How many more words may be told, all series together. Of frequencies alone. */
  wordsLeft: number
}

export interface Options extends Names.Naming {
  readonly maxSeries: number
}

/** What is exposed, in order. */
export interface Plan {
  readonly families: ReadonlyArray<Family>
  /** Whether `registry` still holds just the metrics that this plan was made for. */
  readonly fits: (registry: Metric.MetricRegistry) => boolean
}

/** Labels of one series, written out. `reserved` is the label that the type of metric has for itself. */
const written = (labels: ReadonlyArray<Label>, reserved: string | undefined): Array<string> => {
  const taken = new Set<string>(["otel_metric_overflow", "duplicate"])
  if (reserved !== undefined) taken.add(reserved)
  const out: Array<string> = []
  for (const [scrubbed, value] of labels) {
    // An empty label is the same as none.
    if (value === "") continue
    const wanted = Names.labelName(scrubbed)
    let name = wanted
    for (let n = 2; taken.has(name); n++) {
      name = n === 2 && wanted === reserved
        ? `exported_${wanted}`
        : `${wanted}_${n}`
    }
    taken.add(name)
    out.push(`${name}="${Names.escapeLabel(value)}"`)
  }
  return out
}

const braces = (labels: ReadonlyArray<string>): string => labels.length === 0 ? "" : `{${labels.join(",")}}`

/** One series, with its labels written out. */
export class Series {
  readonly metadata: Names.Metadata
  readonly isOverflow: boolean
  readonly labels: string
  readonly #list: ReadonlyArray<string>
  readonly #scale: number
  readonly #redaction: Redaction
  readonly #words = new Map<string, string>()
  #whole: string | undefined
  #bounds: ReadonlyArray<number> = []
  #boundLabels: ReadonlyArray<string | undefined> = []

  constructor(
    metadata: Names.Metadata,
    list: ReadonlyArray<string>,
    scale: number,
    isOverflow: boolean,
    redaction: Redaction
  ) {
    this.metadata = metadata
    this.#list = list
    this.labels = braces(list)
    this.#scale = scale
    this.isOverflow = isOverflow
    this.#redaction = redaction
  }

  /** The labels of the bucket that holds everything. */
  get whole(): string {
    return this.#whole ??= braces([...this.#list, "le=\"+Inf\""])
  }

  /** The labels of each bucket; none for one to leave out. */
  buckets(of: ReadonlyArray<readonly [boundary: number, count: unknown]>): ReadonlyArray<string | undefined> {
    return this.#bounded(of, (boundary) => {
      if (boundary === Infinity || Number.isNaN(boundary)) return undefined
      const scaled = this.#scale === 1 ? boundary : Number((boundary * this.#scale).toPrecision(15))
      return `le="${Names.numberText(scaled)}"`
    })
  }

  /** The labels of each quantile; none for one to leave out. */
  quantiles(of: ReadonlyArray<readonly [quantile: number, value: unknown]>): ReadonlyArray<string | undefined> {
    return this.#bounded(
      of,
      (quantile) => Number.isNaN(quantile) ? undefined : `quantile="${Names.numberText(quantile)}"`
    )
  }

  #bounded(
    of: ReadonlyArray<readonly [number, unknown]>,
    label: (bound: number) => string | undefined
  ): ReadonlyArray<string | undefined> {
    const bounds = this.#bounds
    let isKnown = bounds.length === of.length
    for (let i = 0; isKnown && i < of.length; i++) isKnown = Object.is(of[i]![0], bounds[i])
    if (isKnown) return this.#boundLabels
    this.#bounds = of.map(([bound]) => bound)
    const labels = this.#bounds.map(label)
    // Of those that are written alike the last one counts what the others do.
    return this.#boundLabels = labels.map((each, i) =>
      each === undefined || labels.includes(each, i + 1) ? undefined : braces([...this.#list, each])
    )
  }

  /** The words of a frequency by their labels. What there is no room for in the family is left to `rest`. */
  words(state: Metric.FrequencyState, family: Family, rest: (count: number) => void): Map<string, number> {
    const out = new Map<string, number>()
    for (const [word, count] of state.occurrences) {
      let labels = this.#words.get(word)
      if (labels === undefined) {
        labels = this.#wordLabels(word)
        if (!out.has(labels)) {
          if (family.wordsLeft <= 0) {
            rest(count)
            continue
          }
          family.wordsLeft--
        }
        this.#words.set(word, labels)
      }
      out.set(labels, (out.get(labels) ?? 0) + count)
    }
    return out
  }

  /**
   * Takes the words over that the series of an earlier plan has told. Once told, always told: a word that loses its place
   * to another would look like one that has started again.
   */
  takeOver(earlier: Series, family: Family): void {
    for (const word of earlier.#words.keys()) this.#words.set(word, this.#wordLabels(word))
    family.wordsLeft -= new Set(this.#words.values()).size
  }

  #wordLabels(word: string): string {
    const text = this.#redaction.text(word)
    return braces(text === "" ? this.#list : [...this.#list, `key="${Names.escapeLabel(text)}"`])
  }
}

const reservedLabel = { Counter: undefined, Gauge: undefined, Histogram: "le", Summary: "quantile", Frequency: "key" }

/** Works out names and labels for all metrics of `registry`. `earlier` is the plan that does not fit any more. */
export const plan = (
  registry: Metric.MetricRegistry,
  options: Options,
  earlier?: Plan
): Plan => {
  const all = [...registry.values()]
  const families = new Map<string, { readonly family: Family; readonly members: Array<Names.Metadata> }>()
  const taken = new Set<string>()
  for (const metadata of all) {
    // Metrics of one name and type are one family, whatever they say of themselves otherwise.
    const id = JSON.stringify([metadata.id, metadata.type, Names.unitOf(metadata)])
    const found = families.get(id)
    if (found === undefined) families.set(id, { family: makeFamily(metadata, options, taken), members: [metadata] })
    else found.members.push(metadata)
  }
  const told = new Map<Names.Metadata, Series>()
  for (const family of earlier?.families ?? []) {
    for (const series of family.series) {
      if (series.metadata.type === "Frequency") told.set(series.metadata, series)
    }
  }
  for (const { family, members } of families.values()) addSeries(family, members, told, options)
  return {
    families: [...families.values()].map(({ family }) => family),
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

const addSeries = (
  family: Family,
  members: ReadonlyArray<Names.Metadata>,
  told: ReadonlyMap<Names.Metadata, Series>,
  options: Options
): void => {
  const known = new Set<string>()
  const labels = scrubLabels(members.map((metadata) => metadata.attributes ?? {}), options.redaction)
  for (const [i, metadata] of members.entries()) {
    const list = written(labels[i]!, reservedLabel[metadata.type])
    const base = list.length
    for (let n = 2; known.has(braces(list)); n++) list[base] = `duplicate="${n}"`
    known.add(braces(list))
    // Of frequencies the words are counted, and not what they are words of.
    const isOverflow = i >= options.maxSeries && metadata.type !== "Frequency"
    const series = new Series(metadata, list, family.scale, isOverflow, options.redaction)
    const before = told.get(metadata)
    if (before !== undefined) series.takeOver(before, family)
    family.series.push(series)
  }
}

const makeFamily = (metadata: Names.Metadata, options: Options, taken: Set<string>): Family => {
  const type = Names.types[metadata.type]
  const [wanted, scale] = Names.familyName(metadata, options)
  let name = wanted
  for (let n = 2; Names.sampleNames(name, type).some((each) => taken.has(each)); n++) {
    name = Names.numbered(wanted, type === "counter", n)
  }
  for (const each of Names.sampleNames(name, type)) taken.add(each)
  return {
    name,
    type,
    help: Names.helpOf(metadata.description, options) || Names.helpOf(metadata.id, options) || name,
    scale,
    overflowLabels: "{otel_metric_overflow=\"true\"}",
    series: [],
    wordsLeft: options.maxSeries
  }
}
