import type * as Metric from "effect/Metric"
import type { Redaction } from "../Redaction.ts"
import { textOf } from "./metricScrub.ts"

// Prometheus' customs: what metrics, their labels and numbers are called and how they are written.

/** A metric of any type. */
export type Metadata = Metric.Metric.Metadata<any, any>

/** What names depend on, beside the metric. */
export interface Naming {
  readonly prefix: string
  readonly redaction: Redaction
}

/** What Prometheus calls the types of metrics. */
export const types = {
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
export const labelName = (name: string): string =>
  mend(name, /[^A-Za-z0-9_]/g).replace(/^_+$/, "label").replace(/^__+/, "_")

/** The value of a label as it is written. */
export const escapeLabel = (value: string): string =>
  value.toWellFormed().replaceAll("\\", "\\\\").replaceAll("\"", "\\\"").replaceAll("\n", "\\n")

const escapeHelp = (text: string): string =>
  text.toWellFormed().replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\r", " ")

/** What a metric says its unit is. */
export const unitOf = (metadata: Metadata): string =>
  textOf(metadata.attributes?.["unit"] ?? metadata.attributes?.["time_unit"] ?? "")

/** A text as the help of a family. */
export const helpOf = (text: string | undefined, options: Naming): string =>
  escapeHelp(options.redaction.text(textOf(text ?? "")).trim())

/** The name of a metric's family, and what its numbers are multiplied with. */
export const familyName = (metadata: Metadata, options: Naming): readonly [name: string, scale: number] => {
  const spelt = unitOf(metadata)
  const unit = Object.hasOwn(units, spelt) ? units[spelt] : undefined
  let name = metricName(options.prefix + options.redaction.text(textOf(metadata.id)))
  const isCounter = types[metadata.type] === "counter"
  // OpenMetrics knows a counter by its name without the suffix, so something must be left.
  if (isCounter) name = name.replace(/_total$/, "") || "_"
  if (unit !== undefined) name = name.replace(unit[2], "")
  if (unit !== undefined && !name.endsWith(unit[0])) name += unit[0]
  return [isCounter ? `${name}_total` : name, unit?.[1] ?? 1]
}

// All names under which samples of a family appear, plus what OpenMetrics calls a counter's family.
export const sampleNames = (name: string, type: typeof types[keyof typeof types]): ReadonlyArray<string> => {
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

/** The `n`th family that would have this name. */
export const numbered = (name: string, isCounter: boolean, n: number): string =>
  isCounter ? `${name.slice(0, -"_total".length)}_${n}_total` : `${name}_${n}`

/** A number as Prometheus writes it; whatever else it is, which types do not keep out, is none. */
export const numberText = (value: unknown): string => {
  if (typeof value === "bigint" || Number.isFinite(value)) return String(value)
  return value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : "NaN"
}
