/**
 * What can be wrong with the configuration of `Telemetry`: one reason per field. No reason holds what was given, which may
 * be a secret in the wrong place.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

const path = "effect-toolops/node/TelemetryConfigError"

/** @category errors @since 0.1.0 */
export class MissingServiceName extends Schema.TaggedError<MissingServiceName>(`${path}/MissingServiceName`)(
  "MissingServiceName",
  {}
) {
  override get message(): string {
    return "Telemetry needs a service name that is not blank: serviceName, or OTEL_SERVICE_NAME"
  }
}

/** @category errors @since 0.1.0 */
export class InvalidSampleRatio extends Schema.TaggedError<InvalidSampleRatio>(`${path}/InvalidSampleRatio`)(
  "InvalidSampleRatio",
  {}
) {
  override get message(): string {
    return "The sample ratio must be a number from 0 to 1"
  }
}

/** @category errors @since 0.1.0 */
export class InvalidTracingExporter extends Schema.TaggedError<InvalidTracingExporter>(
  `${path}/InvalidTracingExporter`
)("InvalidTracingExporter", { expected: Schema.Array(Schema.String) }) {
  override get message(): string {
    return `The exporter of traces must be one of ${this.expected.join(", ")}`
  }
}

/** @category errors @since 0.1.0 */
export class InvalidMetricsExporter extends Schema.TaggedError<InvalidMetricsExporter>(
  `${path}/InvalidMetricsExporter`
)("InvalidMetricsExporter", { expected: Schema.Array(Schema.String) }) {
  override get message(): string {
    return `The exporter of metrics must be one of ${this.expected.join(", ")}`
  }
}

/** @category errors @since 0.1.0 */
export class InvalidLogLevel extends Schema.TaggedError<InvalidLogLevel>(`${path}/InvalidLogLevel`)(
  "InvalidLogLevel",
  { expected: Schema.Array(Schema.String) }
) {
  override get message(): string {
    return `The log level must be one of ${this.expected.join(", ")}`
  }
}

/** @category errors @since 0.1.0 */
export class EndpointNotConfigured extends Schema.TaggedError<EndpointNotConfigured>(`${path}/EndpointNotConfigured`)(
  "EndpointNotConfigured",
  {}
) {
  override get message(): string {
    return "The otlp exporter needs the address of a collector: endpoint, or OTEL_EXPORTER_OTLP_ENDPOINT"
  }
}

/** @category errors @since 0.1.0 */
export class InvalidEndpoint extends Schema.TaggedError<InvalidEndpoint>(`${path}/InvalidEndpoint`)(
  "InvalidEndpoint",
  {}
) {
  override get message(): string {
    return "The endpoint must be an http or https URL without credentials, query and fragment"
  }
}

/** @category errors @since 0.1.0 */
export class UnsupportedProtocol extends Schema.TaggedError<UnsupportedProtocol>(`${path}/UnsupportedProtocol`)(
  "UnsupportedProtocol",
  {}
) {
  override get message(): string {
    return "OTLP is spoken as http/protobuf only; OTEL_EXPORTER_OTLP_PROTOCOL asks for another"
  }
}

/** @category errors @since 0.1.0 */
export class InvalidHeaders extends Schema.TaggedError<InvalidHeaders>(`${path}/InvalidHeaders`)(
  "InvalidHeaders",
  {}
) {
  override get message(): string {
    return "The headers must have valid names and values: headers, or OTEL_EXPORTER_OTLP_HEADERS"
  }
}

/**
 * Any other setting of a configuration that is out of its range: which one, and what it should be.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSetting extends Schema.TaggedError<InvalidSetting>(`${path}/InvalidSetting`)(
  "InvalidSetting",
  { setting: Schema.String, expected: Schema.String }
) {
  override get message(): string {
    return `${this.setting} must be ${this.expected}`
  }
}

/** @category errors @since 0.1.0 */
export class PackagesMissing extends Schema.TaggedError<PackagesMissing>(`${path}/PackagesMissing`)(
  "PackagesMissing",
  { packages: Schema.Array(Schema.String) }
) {
  override get message(): string {
    return `These exporters need packages that are not installed: ${this.packages.join(" ")}`
  }
}

/**
 * Every reason of a `TelemetryConfigError`.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([
  MissingServiceName,
  InvalidSampleRatio,
  InvalidTracingExporter,
  InvalidMetricsExporter,
  InvalidLogLevel,
  EndpointNotConfigured,
  InvalidEndpoint,
  UnsupportedProtocol,
  InvalidHeaders,
  InvalidSetting,
  PackagesMissing
])

/**
 * A mistake in the configuration. Catch one reason with
 * `Effect.catchReason("TelemetryConfigError", "EndpointNotConfigured", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class TelemetryConfigError extends Schema.TaggedError<TelemetryConfigError>(path)("TelemetryConfigError", {
  reason: Reason
}) {
  override get message(): string {
    return this.reason.message
  }
}
