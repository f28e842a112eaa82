import type * as Duration from "effect/Duration"
import type * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import { validateHeaderName, validateHeaderValue } from "node:http"
import type { Writable } from "node:stream"
import * as Check from "../../internal/options.ts"
import * as Redaction from "../../observe/Redaction.ts"
import type { Options } from "../Telemetry.ts"
import * as Errors from "../TelemetryConfigError.ts"

/** Where the data of one signal goes. */
export type Destination =
  | { readonly _tag: "Collector"; readonly url: string; readonly headers: Readonly<Record<string, string>> }
  | { readonly _tag: "Stream"; readonly stream: Writable }

export interface TracingSettings {
  readonly to: Destination
  readonly sampleRatio: number
  readonly intervalMillis: number
  readonly maxQueue: number
  readonly maxBatch: number
}

export interface MetricsSettings {
  readonly to: Destination
  readonly intervalMillis: number
  readonly temporality: "cumulative" | "delta"
}

export interface Settings {
  readonly serviceName: string
  readonly version: string | undefined
  readonly resource: Readonly<Record<string, string | number | boolean>>
  readonly tracing: TracingSettings | undefined
  readonly metrics: MetricsSettings | undefined
  readonly logLevel: LogLevel.LogLevel | undefined
  readonly redact: ReadonlyArray<string>
  readonly redaction: Redaction.Redaction
  readonly requestMillis: number
  readonly closeMillis: number
}

export const tracingExporters = ["otlp", "jaeger", "stdout", "none"] as const
export const metricsExporters = ["otlp", "prometheus", "stdout", "none"] as const

const levels = { trace: "Trace", debug: "Debug", info: "Info", warn: "Warn", error: "Error", fatal: "Fatal" } as const
export const logLevels = Object.keys(levels) as ReadonlyArray<keyof typeof levels>

/** The default port of OTLP over HTTP, which Jaeger listens on. */
export const jaegerEndpoint = "http://localhost:4318"

const fail = (reason: typeof Errors.Reason.Type) => new Errors.TelemetryConfigError({ reason })

// What makes no sense throws where code has written it. A configuration is told the reason.
class Nonsense extends Error {
  readonly reason: typeof Errors.Reason.Type
  readonly thrown: unknown

  constructor(reason: typeof Errors.Reason.Type, thrown: unknown) {
    super()
    this.reason = reason
    this.thrown = thrown
  }
}

const checked = <A>(reason: () => typeof Errors.Reason.Type, check: () => A): A => {
  try {
    return check()
  } catch (error) {
    throw new Nonsense(reason(), error)
  }
}

const setting = <A>(name: string, expected: string, check: () => A): A =>
  checked(() => new Errors.InvalidSetting({ setting: name, expected }), check)

const isOneOf = <A extends string>(value: unknown, words: ReadonlyArray<A>): value is A =>
  words.some((word) => word === value)

const checkEndpoint = (endpoint: string): void => {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (
    url === undefined || !["http:", "https:"].includes(url.protocol) || url.username !== "" || url.password !== "" ||
    url.search !== "" || url.hash !== ""
  ) {
    throw fail(new Errors.InvalidEndpoint({}))
  }
}

const urlOf = (endpoint: string, path: string): string => `${endpoint.replace(/\/+$/, "")}/${path}`

const checkServiceName = (name: unknown): string => {
  if (typeof name !== "string" || name.trim() === "") throw fail(new Errors.MissingServiceName({}))
  return name
}

const checkHeaders = (where: string, headers: NonNullable<Options["headers"]>): Record<string, string> => {
  const out: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    const text = typeof value === "string" ? value : Redacted.value(value)
    try {
      validateHeaderName(name)
      validateHeaderValue(name, text)
    } catch {
      throw new TypeError(`${where}: headers must have valid names and values`)
    }
    out[name] = text
  }
  return out
}

const seconds = (where: string, name: string, value: Duration.Input): number =>
  setting(name, "a duration from 1 ms to 24 days", () => {
    const millis = Check.millis(where, name, value)
    // A timer of Node fires at once beyond this.
    if (millis < 1 || millis > 2 ** 31 - 1) {
      throw new RangeError(`${where}: ${name} must be a duration from 1 ms to 24 days, got ${millis} ms`)
    }
    return millis
  })

const count = (where: string, name: string, value: number, most: number): number =>
  setting(name, `an integer from 1 to ${most}`, () => Check.integer(where, name, value, 1, most))

const tracingOf = (where: string, options: Options, headers: Record<string, string>): TracingSettings | undefined => {
  const tracing = options.tracing
  if (tracing === undefined) return undefined
  Check.known(`${where}: tracing`, tracing, [
    "enabled",
    "exporter",
    "sampleRatio",
    "interval",
    "maxQueue",
    "maxBatch"
  ])
  const ratio = tracing.sampleRatio ?? 1
  if (typeof ratio !== "number" || !(ratio >= 0 && ratio <= 1)) throw fail(new Errors.InvalidSampleRatio({}))
  const exporter = tracing.exporter ?? "otlp"
  if (!isOneOf(exporter, tracingExporters)) {
    throw fail(new Errors.InvalidTracingExporter({ expected: tracingExporters }))
  }
  const maxQueue = count(where, "tracing.maxQueue", tracing.maxQueue ?? 2048, 1_000_000)
  const settings = {
    sampleRatio: ratio,
    intervalMillis: seconds(where, "tracing.interval", tracing.interval ?? 5000),
    maxQueue,
    maxBatch: count(where, "tracing.maxBatch", tracing.maxBatch ?? Math.min(512, maxQueue), maxQueue)
  }
  if (tracing.enabled === false || exporter === "none") return undefined
  const to = exporter === "stdout"
    ? streamOf(options)
    : collectorOf(exporter === "jaeger" ? options.endpoint ?? jaegerEndpoint : options.endpoint, "v1/traces", headers)
  return { ...settings, to }
}

const metricsOf = (where: string, options: Options, headers: Record<string, string>): MetricsSettings | undefined => {
  const metrics = options.metrics
  if (metrics === undefined) return undefined
  Check.known(`${where}: metrics`, metrics, ["enabled", "exporter", "interval", "temporality"])
  const exporter = metrics.exporter ?? "otlp"
  if (!isOneOf(exporter, metricsExporters)) {
    throw fail(new Errors.InvalidMetricsExporter({ expected: metricsExporters }))
  }
  const settings = {
    intervalMillis: seconds(where, "metrics.interval", metrics.interval ?? 60_000),
    temporality: setting(
      "metrics.temporality",
      "cumulative or delta",
      () => Check.oneOf(where, "metrics.temporality", metrics.temporality ?? "cumulative", ["cumulative", "delta"])
    )
  }
  if (metrics.enabled === false || exporter === "none" || exporter === "prometheus") return undefined
  const to = exporter === "stdout" ? streamOf(options) : collectorOf(options.endpoint, "v1/metrics", headers)
  return { ...settings, to }
}

const streamOf = (options: Options): Destination => ({ _tag: "Stream", stream: options.stream ?? process.stdout })

const collectorOf = (
  endpoint: string | undefined,
  path: string,
  headers: Readonly<Record<string, string>>
): Destination => {
  if (endpoint === undefined || endpoint === "") throw fail(new Errors.EndpointNotConfigured({}))
  return { _tag: "Collector", url: urlOf(endpoint, path), headers }
}

const logLevelOf = (where: string, logging: Options["logging"]): LogLevel.LogLevel | undefined => {
  if (logging === undefined) return undefined
  Check.known(`${where}: logging`, logging, ["enabled", "level"])
  const level = logging.level ?? "info"
  if (!isOneOf(level, logLevels)) throw fail(new Errors.InvalidLogLevel({ expected: logLevels }))
  return logging.enabled === false ? undefined : levels[level]
}

const withoutSecrets = (
  resource: NonNullable<Options["resource"]>,
  redaction: Redaction.Redaction
): Settings["resource"] =>
  Object.fromEntries(
    Object.entries(resource).map(([name, value]) => [
      name,
      redaction.isSensitiveKey(name)
        ? Redaction.replacement
        : typeof value === "string"
        ? redaction.text(value)
        : value
    ])
  )

/**
 * Checks options and fills in what is not given. What a configuration can get wrong is returned as an error; what only
 * code can get wrong throws. `isConfigured` says that the values come from a configuration, all of them.
 */
export const resolve = (
  where: string,
  options: Options,
  isConfigured = false
): Settings | Errors.TelemetryConfigError => {
  Check.known(where, options, [
    "serviceName",
    "version",
    "resource",
    "endpoint",
    "headers",
    "tracing",
    "metrics",
    "logging",
    "redact",
    "requestTimeout",
    "shutdownTimeout",
    "stream"
  ])
  try {
    const serviceName = checkServiceName(options.serviceName)
    const redact = options.redact ?? []
    const redaction = redact.length === 0
      ? Redaction.standard
      : setting("redact", "names that hold a letter or digit each", () => Redaction.make({ keys: redact }))
    const headers = checked(() => new Errors.InvalidHeaders({}), () => checkHeaders(where, options.headers ?? {}))
    if (options.endpoint !== undefined && options.endpoint !== "") checkEndpoint(options.endpoint)
    return {
      serviceName,
      version: options.version,
      resource: withoutSecrets(options.resource ?? {}, redaction),
      tracing: tracingOf(where, options, headers),
      metrics: metricsOf(where, options, headers),
      logLevel: logLevelOf(where, options.logging),
      redact,
      redaction,
      requestMillis: seconds(where, "requestTimeout", options.requestTimeout ?? 10_000),
      closeMillis: seconds(where, "shutdownTimeout", options.shutdownTimeout ?? 3000)
    }
  } catch (error) {
    if (error instanceof Errors.TelemetryConfigError) return error
    if (!(error instanceof Nonsense)) throw error
    if (isConfigured) return fail(error.reason)
    throw error.thrown
  }
}

/** What the light layer needs of the options, checked in the same way. */
export const resolveLight = (
  where: string,
  options: { readonly serviceName: string; readonly endpoint: string; readonly headers?: Options["headers"] }
): { readonly headers: Record<string, string> } | Errors.TelemetryConfigError => {
  try {
    checkServiceName(options.serviceName)
    if (typeof options.endpoint !== "string" || options.endpoint === "") {
      throw fail(new Errors.EndpointNotConfigured({}))
    }
    checkEndpoint(options.endpoint)
    return { headers: checkHeaders(where, options.headers ?? {}) }
  } catch (error) {
    if (error instanceof Errors.TelemetryConfigError) return error
    throw error
  }
}
