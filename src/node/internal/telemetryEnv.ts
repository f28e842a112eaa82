import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Options } from "../Telemetry.ts"
import * as Errors from "../TelemetryConfigError.ts"
import { metricsExporters, tracingExporters } from "./telemetrySettings.ts"

const fail = (reason: typeof Errors.Reason.Type) => Effect.fail(new Errors.TelemetryConfigError({ reason }))

// The specification of OpenTelemetry has an empty variable mean the same as none.
const variable = (name: string) =>
  Effect.map(Config.option(Config.String(name)), (found) => {
    const text = Option.getOrUndefined(found)?.trim()
    return text === "" ? undefined : text
  })

const decode = (text: string): string => {
  try {
    return decodeURIComponent(text.trim())
  } catch {
    return text.trim()
  }
}

/** `key=value` pairs with commas between them, percent-encoded. What is no pair is left out. */
const pairs = (text: string | undefined): Record<string, string> => {
  const out: Record<string, string> = {}
  for (const part of text?.split(",") ?? []) {
    const at = part.indexOf("=")
    const name = decode(part.slice(0, Math.max(at, 0)))
    if (name !== "") out[name] = decode(part.slice(at + 1))
  }
  return out
}

const samplers = /^(?:parentbased_)?(always_on|always_off|traceidratio)$/

const ratioOf = (sampler: string | undefined, argument: string | undefined) => {
  const kind = samplers.exec(sampler ?? "always_on")?.[1]
  if (kind === undefined) return fail(new Errors.InvalidSampleRatio({}))
  if (kind !== "traceidratio") return Effect.succeed(kind === "always_on" ? 1 : 0)
  const ratio = Number(argument ?? "1")
  return ratio >= 0 && ratio <= 1 ? Effect.succeed(ratio) : fail(new Errors.InvalidSampleRatio({}))
}

const word = <const A extends string>(
  text: string | undefined,
  words: ReadonlyArray<A>,
  wrong: () => typeof Errors.Reason.Type
): Effect.Effect<A | "otlp", Errors.TelemetryConfigError> => {
  if (text === undefined) return Effect.succeed("otlp")
  // OpenTelemetry's word for standard output.
  const asked = text === "console" ? "stdout" : text
  const found = words.find((each) => each === asked)
  return found === undefined ? fail(wrong()) : Effect.succeed(found)
}

/** Options from `OTEL_*`, or undefined where telemetry is turned off. */
export const fromEnv: Effect.Effect<Options | undefined, Errors.TelemetryConfigError | Config.ConfigError> = Effect.gen(
  function*() {
    if ((yield* variable("OTEL_SDK_DISABLED"))?.toLowerCase() === "true") return undefined
    const protocol = yield* variable("OTEL_EXPORTER_OTLP_PROTOCOL")
    if (protocol !== undefined && protocol !== "http/protobuf") {
      return yield* fail(new Errors.UnsupportedProtocol({}))
    }
    const { "service.name": ownName, "service.version": version, ...resource } = pairs(
      yield* variable("OTEL_RESOURCE_ATTRIBUTES")
    )
    const tracing = yield* word(
      yield* variable("OTEL_TRACES_EXPORTER"),
      tracingExporters,
      () => new Errors.InvalidTracingExporter({ expected: tracingExporters })
    )
    const metrics = yield* word(
      yield* variable("OTEL_METRICS_EXPORTER"),
      metricsExporters,
      () => new Errors.InvalidMetricsExporter({ expected: metricsExporters })
    )
    const sampler = yield* variable("OTEL_TRACES_SAMPLER")
    const sampleRatio = yield* ratioOf(sampler, yield* variable("OTEL_TRACES_SAMPLER_ARG"))
    const headers = pairs(yield* variable("OTEL_EXPORTER_OTLP_HEADERS"))
    return {
      serviceName: (yield* variable("OTEL_SERVICE_NAME")) ?? ownName ?? "",
      version,
      resource,
      endpoint: yield* variable("OTEL_EXPORTER_OTLP_ENDPOINT"),
      headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Redacted.make(value)])),
      tracing: { exporter: tracing, sampleRatio },
      metrics: { exporter: metrics }
    }
  }
)
