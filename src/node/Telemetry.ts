/**
 * Sends the spans and metrics of a program to where they are looked at: to a collector of OpenTelemetry (OTLP over HTTP, in
 * protobuf) or to standard output.
 *
 * No call waits for it or fails because of it. What is not delivered yet is bounded, there is at most one request per
 * signal in flight, and what is lost is counted in `telemetry.dropped`. Incoming and outgoing HTTP requests carry
 * `traceparent` without any of this (Effect's own server and client do that), calls over MCP in `_meta` through `McpOps`.
 *
 * The exporters need these packages: `@effect/opentelemetry @opentelemetry/api @opentelemetry/otlp-transformer
 * @opentelemetry/resources @opentelemetry/sdk-metrics @opentelemetry/sdk-trace-base`. They are loaded when they are asked
 * for.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import type * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import type { Writable } from "node:stream"
import * as Check from "../internal/options.ts"
import * as StructuredLogger from "../observe/StructuredLogger.ts"
import { fromEnv } from "./internal/telemetryEnv.ts"
import { withoutParameters } from "./internal/telemetryLight.ts"
import { resolve, resolveLight, type Settings } from "./internal/telemetrySettings.ts"
import { PackagesMissing, TelemetryConfigError } from "./TelemetryConfigError.ts"

export { dropped, exported } from "./internal/telemetryLosses.ts"

/**
 * What `layerConfig` takes: the options that can be written in a configuration.
 *
 * - `serviceName`, `version`: `service.name` and `service.version` of everything that is sent.
 * - `resource`: more attributes of the program, such as `deployment.environment.name`.
 * - `endpoint`: the base address of the collector; `/v1/traces` and `/v1/metrics` are put behind it. No default, but for
 *   `jaeger`: `http://localhost:4318`.
 * - `headers`: sent with every request, for collectors that want credentials.
 * - `tracing`: left out, no span is made for an exporter. `exporter`: `otlp` (default), `jaeger` (the same, to Jaeger's
 *   own port), `stdout`, `none`. `sampleRatio`: share of traces that begin here and are kept, from 0 to 1, default 1;
 *   a call that came with a trace follows that one. `interval`: how long spans are gathered at most, default 5 seconds.
 *   `maxQueue`: most spans held that are not delivered, default 2048; beyond it new ones are dropped. `maxBatch`: most
 *   spans in one request, default 512.
 * - `metrics`: left out, no metric is sent. `exporter`: `otlp` (default), `prometheus` (nothing is sent:
 *   `PrometheusRoutes` serves them), `stdout`, `none`. `interval`: default 60 seconds. `temporality`: `cumulative`
 *   (default) or `delta`.
 * - `logging`: left out, the program's loggers stay. Otherwise they are replaced by `StructuredLogger`, which writes what
 *   is at least of `level`: `trace`, `debug`, `info` (default), `warn`, `error`, `fatal`.
 * - `enabled` (of each): default true.
 * - `redact`: more sensitive keys, beside those of `Redaction`.
 * - `requestTimeout`: for one request to a collector, default 10 seconds. A stream is waited for.
 * - `shutdownTimeout`: how long the last batches may take when the layer closes, both signals together. Default 3
 *   seconds.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConfigOptions {
  readonly serviceName: string
  readonly version?: string | undefined
  readonly resource?: Readonly<Record<string, string | number | boolean>> | undefined
  readonly endpoint?: string | undefined
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  readonly tracing?: {
    readonly enabled?: boolean | undefined
    readonly exporter?: "otlp" | "jaeger" | "stdout" | "none" | undefined
    readonly sampleRatio?: number | undefined
    readonly interval?: Duration.Input | undefined
    readonly maxQueue?: number | undefined
    readonly maxBatch?: number | undefined
  } | undefined
  readonly metrics?: {
    readonly enabled?: boolean | undefined
    readonly exporter?: "otlp" | "prometheus" | "stdout" | "none" | undefined
    readonly interval?: Duration.Input | undefined
    readonly temporality?: "cumulative" | "delta" | undefined
  } | undefined
  readonly logging?: {
    readonly enabled?: boolean | undefined
    readonly level?: "trace" | "debug" | "info" | "warn" | "error" | "fatal" | undefined
  } | undefined
  readonly redact?: ReadonlyArray<string> | undefined
  readonly requestTimeout?: Duration.Input | undefined
  readonly shutdownTimeout?: Duration.Input | undefined
}

/**
 * What `layer` takes.
 *
 * - `stream`: where `stdout` writes, in lines of OTLP/JSON. Default `process.stdout`; an MCP server over stdio
 *   needs that for itself, so give `process.stderr` there.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends ConfigOptions {
  readonly stream?: Writable | undefined
}

const packages: PackagesMissing["packages"] = [
  "@effect/opentelemetry",
  "@opentelemetry/api",
  "@opentelemetry/otlp-transformer",
  "@opentelemetry/resources",
  "@opentelemetry/sdk-metrics",
  "@opentelemetry/sdk-trace-base"
]

const exporters = (settings: Settings): Layer.Layer<never, TelemetryConfigError> =>
  settings.tracing === undefined && settings.metrics === undefined
    ? Layer.empty
    : Layer.unwrap(Effect.flatMap(
      Effect.result(Effect.tryPromise(() => import("./internal/telemetrySdk.ts"))),
      (loaded) => {
        if (loaded._tag === "Success") return Effect.succeed(loaded.success.layer(settings))
        const { cause } = loaded.failure
        return cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND"
          ? Effect.fail(new TelemetryConfigError({ reason: new PackagesMissing({ packages }) }))
          : Effect.die(cause)
      }
    ))

const logger = (settings: Settings): Layer.Layer<never> =>
  settings.logLevel === undefined ? Layer.empty : Layer.merge(
    StructuredLogger.layer({ redact: settings.redact }),
    Layer.succeed(References.MinimumLogLevel, settings.logLevel)
  )

const fromSettings = (settings: Settings | TelemetryConfigError): Layer.Layer<never, TelemetryConfigError> =>
  settings instanceof TelemetryConfigError
    ? Layer.effectDiscard(Effect.fail(settings))
    : Layer.merge(exporters(settings), logger(settings))

/**
 * Installs the exporters, and the logger if it is asked for.
 *
 * **Details**
 *
 * Traces are sampled by their root. A batch is tried again for a minute where the collector cannot be reached or answers
 * 429, 502, 503 or 504, and not before the time that `Retry-After` says (5 minutes at most); any other refusal loses that
 * batch alone. While metrics cannot be delivered no more of them are read, and the next reading tells what has happened
 * since. When the layer closes, what is left is sent, for as long as `shutdownTimeout`. Spans and metrics go through
 * `Redaction`, and raw tool parameters, which `Toolkit` of `effect/ai` writes on the span around a call, are left out.
 *
 * A mistake is a `TelemetryConfigError`; one that only code can make (an unknown option, a negative time) throws.
 * `layerConfig` and `layerEnv` take a value that is out of its range for a mistake too.
 *
 * **Gotchas**
 *
 * Two calls are two sets of exporters. Put the layer below everything that makes spans, so that it closes last. A batch
 * whose answer is lost on the way is sent again, so a collector may get it twice.
 *
 * **Example** (Asking for a collector without saying where it is)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Telemetry } from "effect-toolops/node"
 *
 * const Live = Telemetry.layer({ serviceName: "docs", tracing: { exporter: "otlp" } })
 * const program = Layer.build(Live).pipe(
 *   Effect.scoped,
 *   Effect.as("up"),
 *   Effect.catchReason("TelemetryConfigError", "EndpointNotConfigured", (reason) => Effect.succeed(reason.message))
 * )
 * await Effect.runPromise(program)
 * // => "The otlp exporter needs the address of a collector: endpoint, or OTEL_EXPORTER_OTLP_ENDPOINT"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<never, TelemetryConfigError> =>
  fromSettings(resolve("Telemetry.layer", options))

/**
 * Provides `layer` with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<ConfigOptions>
): Layer.Layer<never, TelemetryConfigError | Config.ConfigError> =>
  Layer.unwrap(
    Effect.map(Config.unwrap(options), (given) => fromSettings(resolve("Telemetry.layerConfig", given, true)))
  )

/**
 * Provides `layer` with what OpenTelemetry's own variables say.
 *
 * **Details**
 *
 * Read are, from the configuration: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` (`service.name` and `service.version`
 * among them), `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_PROTOCOL` (`http/protobuf`
 * or nothing), `OTEL_TRACES_EXPORTER` (`otlp`, `jaeger`, `console`, `none`), `OTEL_METRICS_EXPORTER` (`otlp`,
 * `prometheus`, `console`, `none`), `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`, `OTEL_SDK_DISABLED`. No others.
 *
 * **Gotchas**
 *
 * Two things differ from the specification. There is no default collector: `otlp`, which is what an exporter is without
 * being named, needs an endpoint. And a trace that came with a call always decides for itself: `always_on` means
 * `parentbased_always_on`, and so on.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEnv: Layer.Layer<never, TelemetryConfigError | Config.ConfigError> = Layer.unwrap(
  Effect.map(
    fromEnv,
    (options) => options === undefined ? Layer.empty : fromSettings(resolve("Telemetry.layerEnv", options, true))
  )
)

/**
 * What `layerLight` takes; see `ConfigOptions`.
 *
 * @category options
 * @since 0.1.0
 */
export interface LightOptions {
  readonly serviceName: string
  readonly version?: string | undefined
  readonly resource?: Readonly<Record<string, string | number | boolean>> | undefined
  readonly endpoint: string
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
}

/**
 * Installs the exporters of `effect/observability`, which need no packages: OTLP over HTTP in JSON, for a collector that is
 * near and well.
 *
 * **Gotchas**
 *
 * Its queue has no bound and its requests no timeout: a collector that does not answer costs memory and connections for
 * as long as that lasts. Nothing counts what is lost. One refused batch turns it off for a minute, and the `Retry-After`
 * of a 503 is not read. Every trace is sent, sampled or not by a ratio of ours. What the rest of the program writes on
 * spans and metrics does not go through `Redaction`, but for raw tool parameters, which are left out as in `layer`. Use
 * `layer` in production.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLight = (options: LightOptions): Layer.Layer<never, TelemetryConfigError> => {
  const where = "Telemetry.layerLight"
  Check.known(where, options, ["serviceName", "version", "resource", "endpoint", "headers"])
  const checked = resolveLight(where, options)
  if (checked instanceof TelemetryConfigError) return Layer.effectDiscard(Effect.fail(checked))
  const base = options.endpoint.replace(/\/+$/, "")
  const shared = {
    headers: checked.headers,
    resource: {
      serviceName: options.serviceName,
      serviceVersion: options.version,
      attributes: { ...options.resource }
    }
  }
  return Layer.merge(
    Layer.effect(Tracer.Tracer, Effect.map(Effect.tracer, withoutParameters)).pipe(
      Layer.provide(OtlpTracer.layer({ ...shared, url: `${base}/v1/traces` }))
    ),
    OtlpMetrics.layer({ ...shared, url: `${base}/v1/metrics` })
  ).pipe(Layer.provide(OtlpSerialization.layerJson), Layer.provide(FetchHttpClient.layer))
}
