import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Exit, Layer, Logger, Metric, References, Schema, Tracer } from "effect"
import { Telemetry, TelemetryConfigError } from "effect-toolops/node"
import { Writable } from "node:stream"
import { startCollector, until } from "./collector.ts"
import { startTelemetry } from "./telemetry.ts"

const reasonOf = <E, R>(layer: Layer.Layer<never, E, R>) =>
  Effect.scoped(Layer.build(layer)).pipe(
    Effect.as("no error"),
    Effect.catch((error) =>
      Effect.succeed(
        error instanceof TelemetryConfigError.TelemetryConfigError ? error.reason._tag : "another error"
      )
    )
  )

const env = (variables: Record<string, string>) =>
  Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env: variables }))

const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((total, each) => total + each, 0)

const secret = "s3cr3t-in-the-wrong-place"
const good = { serviceName: "docs", endpoint: "http://localhost:1" }

/** Options that are wrong in one field; `any`, because the types would not let most of them through. */
const mistakes: ReadonlyArray<readonly [reason: string, options: any]> = [
  ["MissingServiceName", { ...good, serviceName: "" }],
  ["MissingServiceName", { ...good, serviceName: " \t" }],
  ["MissingServiceName", { endpoint: good.endpoint }],
  ["MissingServiceName", { ...good, serviceName: 5 }],
  ...[-0.1, 1.1, NaN, Infinity, "0.5"].map((sampleRatio) =>
    ["InvalidSampleRatio", { ...good, tracing: { sampleRatio } }] as const
  ),
  ["InvalidTracingExporter", { ...good, tracing: { exporter: secret } }],
  ["InvalidTracingExporter", { ...good, tracing: { exporter: "prometheus" } }],
  ["InvalidTracingExporter", { ...good, tracing: { enabled: false, exporter: "OTLP" } }],
  ["InvalidMetricsExporter", { ...good, metrics: { exporter: secret } }],
  ["InvalidMetricsExporter", { ...good, metrics: { exporter: "jaeger" } }],
  ["InvalidLogLevel", { ...good, logging: { level: secret } }],
  ["InvalidLogLevel", { ...good, logging: { enabled: false, level: "INFO" } }],
  ["EndpointNotConfigured", { serviceName: "docs", tracing: { exporter: "otlp" } }],
  ["EndpointNotConfigured", { serviceName: "docs", endpoint: "", tracing: {} }],
  ["EndpointNotConfigured", { serviceName: "docs", metrics: { exporter: "otlp" } }],
  ...["localhost:4318", "ftp://a", `http://u:${secret}@a`, `http://a/?k=${secret}`, "http://a/#b", "a b"].map((
    endpoint
  ) => ["InvalidEndpoint", { serviceName: "docs", endpoint }] as const)
]

describe("Telemetry.layer", () => {
  it.effect("tells each mistake as a reason of its own, that holds nothing of what was given", () =>
    Effect.gen(function*() {
      for (const [reason, options] of mistakes) {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(Telemetry.layer(options))))
        assert.strictEqual(error.reason._tag, reason)
        const encoded = yield* Schema.encodeEffect(TelemetryConfigError.TelemetryConfigError)(error)
        assert.notInclude(JSON.stringify(encoded) + error.message, secret)
      }
    }))

  it("throws what only code can get wrong", () => {
    const wrong: ReadonlyArray<readonly [options: any, message: RegExp]> = [
      [{ ...good, sampleRatio: 1 }, /unknown option "sampleRatio"/],
      [{ ...good, tracing: { ratio: 1 } }, /tracing: unknown option "ratio"/],
      [{ ...good, metrics: { endpoint: "" } }, /metrics: unknown option/],
      [{ ...good, logging: { to: "" } }, /logging: unknown option/],
      [{ ...good, tracing: { interval: 0 } }, /tracing\.interval must be a duration/],
      [{ ...good, tracing: { interval: "60 days" } }, /tracing\.interval must be a duration/],
      [{ ...good, tracing: { maxQueue: 0 } }, /tracing\.maxQueue must be an integer/],
      [{ ...good, tracing: { maxQueue: 10, maxBatch: 11 } }, /tracing\.maxBatch must be an integer/],
      [{ ...good, metrics: { interval: NaN } }, /metrics\.interval must be a duration/],
      [{ ...good, metrics: { temporality: "both" } }, /metrics\.temporality must be one of/],
      [{ ...good, shutdownTimeout: Infinity }, /shutdownTimeout must be a duration/],
      [{ ...good, requestTimeout: -1 }, /requestTimeout must be a duration/],
      [{ ...good, headers: { "a b": "c" } }, /headers must have valid names and values/],
      [{ ...good, headers: { a: "b\r\nc: d" } }, /headers must have valid names and values/]
    ]
    for (const [options, message] of wrong) assert.throws(() => Telemetry.layer(options), message)
  })

  it.effect("needs no collector for what goes elsewhere, and Jaeger is where Jaeger is", () =>
    Effect.gen(function*() {
      const without = [
        { tracing: { exporter: "jaeger" } },
        { tracing: { exporter: "none" }, metrics: { exporter: "prometheus" } },
        { tracing: { enabled: false }, metrics: { enabled: false } },
        {}
      ] as const
      for (const options of without) {
        assert.strictEqual(yield* reasonOf(Telemetry.layer({ serviceName: "docs", ...options })), "no error")
      }
    }))

  it("sends to Jaeger what it would send to a collector", async () => {
    const collector = await startCollector()
    const Live = Telemetry.layer({ serviceName: "docs", endpoint: collector.url, tracing: { exporter: "jaeger" } })
    await Effect.runPromise(Effect.withSpan(Effect.void, "work").pipe(Effect.provide(Live)))
    assert.deepStrictEqual(collector.spans().map(({ name }) => name), ["work"])
    await collector.close()
  })

  it("writes lines of JSON to a stream, however much there is", async () => {
    let text = ""
    const stream = new Writable({
      write: (chunk, _encoding, done) => {
        text += String(chunk)
        done()
      }
    })
    const Live = Telemetry.layer({
      serviceName: "docs",
      stream,
      tracing: { exporter: "stdout" },
      metrics: { exporter: "stdout" }
    })
    const name = "wo\nrk\u2028\u009b31m"
    const work = Effect.repeat(Effect.withSpan(Effect.void, name), { times: 99 })
    const counted = Metric.update(Metric.counter("test.lines"), 1)
    await Effect.runPromise(Effect.andThen(work, counted).pipe(Effect.provide(Live)))
    const lines = text.trimEnd().split("\n")
    const parsed = lines.map((line) => JSON.parse(line))
    const names = parsed.flatMap((line) => line.resourceSpans ?? []).flatMap(({ scopeSpans }) => scopeSpans)
      .flatMap(({ spans }) => spans).map((span) => span.name)
    assert.deepStrictEqual(names, Array.from({ length: 100 }, () => name))
    assert.isTrue(parsed.some((line) => "resourceMetrics" in line))
    // oxlint-disable-next-line no-control-regex -- control characters are what must not be there
    assert.notMatch(text.replaceAll("\n", ""), /[\u0000-\u001f\u007f-\u009f\u2028]/)
  })

  it("waits for a slow stream, and counts what it takes in the end as sent", async () => {
    let text = ""
    const stream = new Writable({
      write: (chunk, _encoding, done) => {
        setTimeout(() => {
          text += String(chunk)
          done()
        }, 200)
      }
    })
    const telemetry = startTelemetry({
      stream,
      requestTimeout: "20 millis",
      tracing: { exporter: "stdout", interval: "5 millis" }
    })
    await telemetry.spans(10)
    await telemetry.close()
    assert.strictEqual(text.split("\"traceId\"").length - 1, 10)
    assert.deepStrictEqual([telemetry.sent(), sum(telemetry.lost())], [10, 0])
  })

  it("gives a stream that takes nothing no more than one batch, and holds no more than its bound", async () => {
    const stream = new Writable({ highWaterMark: 1, write: () => {} })
    const telemetry = startTelemetry({
      stream,
      requestTimeout: "20 millis",
      shutdownTimeout: "100 millis",
      tracing: { exporter: "stdout", interval: "5 millis", maxQueue: 100, maxBatch: 10 }
    })
    for (let i = 0; i < 10; i++) {
      await telemetry.spans(50)
      await new Promise((resolve) => setTimeout(resolve, 30))
    }
    const held = stream.writableLength
    assert.isBelow(held, 10_000)
    assert.strictEqual(telemetry.lost()["queue_full"], 400)
    await telemetry.close()
    assert.strictEqual(stream.writableLength, held)
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()["shutdown"], sum(telemetry.lost())], [0, 100, 500])
  })

  it("does not wait for a stream that is destroyed while it writes", async () => {
    const stream = new Writable({ write: () => {} })
    const telemetry = startTelemetry({
      stream,
      shutdownTimeout: "1 minute",
      tracing: { exporter: "stdout", interval: "5 millis" }
    })
    await telemetry.spans(10)
    await until("a write", () => stream.writableLength > 0)
    stream.destroy()
    await telemetry.close()
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()["rejected"]], [0, 10])
  })

  it("does not wait for a stream that is destroyed without a word while it writes", async () => {
    const stream = new Writable({ emitClose: false, write: () => {} })
    const telemetry = startTelemetry({
      stream,
      shutdownTimeout: "1 minute",
      tracing: { exporter: "stdout", interval: "5 millis" }
    })
    await telemetry.spans(10)
    await until("a write", () => stream.writableLength > 0)
    stream.destroy()
    await until("the loss", () => telemetry.lost()["rejected"] === 10, 5)
    await telemetry.close()
    assert.strictEqual(telemetry.sent(), 0)
  })

  it("goes on when the stream breaks", async () => {
    const stream = new Writable({ write: (_chunk, _encoding, done) => done(new Error("EPIPE")) })
    const Live = Telemetry.layer({ serviceName: "docs", stream, tracing: { exporter: "stdout", interval: "1 millis" } })
    const work = Effect.repeat(Effect.withSpan(Effect.sleep("5 millis"), "work"), { times: 10 })
    await Effect.runPromise(work.pipe(Effect.provide(Live)))
    assert.isTrue(stream.destroyed)
  })

  it.effect("replaces the loggers only where logging is asked for, and keeps to the level", () =>
    Effect.gen(function*() {
      const own = Logger.make(() => {})
      const state = Effect.all([Logger.CurrentLoggers, References.MinimumLogLevel])
      const under = (logging: Telemetry.Options["logging"]) =>
        state.pipe(
          Effect.provide(Telemetry.layer({ serviceName: "docs", logging })),
          Effect.provide(Logger.layer([own])),
          Effect.map(([loggers, level]) => [loggers.has(own), level])
        )
      assert.deepStrictEqual(yield* under(undefined), [true, "Info"])
      assert.deepStrictEqual(yield* under({ enabled: false, level: "debug" }), [true, "Info"])
      assert.deepStrictEqual(yield* under({}), [false, "Info"])
      assert.deepStrictEqual(yield* under({ level: "warn" }), [false, "Warn"])
    }))
})

describe("Telemetry.layerLight", () => {
  it.effect("tells the same mistakes by the same reasons", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* reasonOf(Telemetry.layerLight({ ...good, serviceName: " " })), "MissingServiceName")
      assert.strictEqual(yield* reasonOf(Telemetry.layerLight({ ...good, endpoint: "" })), "EndpointNotConfigured")
      assert.strictEqual(yield* reasonOf(Telemetry.layerLight({ ...good, endpoint: "a b" })), "InvalidEndpoint")
      const wrong: any = { ...good, tracing: {} }
      assert.throws(() => Telemetry.layerLight(wrong), /unknown option "tracing"/)
    }))
})

describe("Telemetry.layerConfig", () => {
  it.effect("takes what it is told from the configuration, mistakes too", () => {
    const layer = Telemetry.layerConfig({
      serviceName: Config.String("NAME"),
      tracing: { exporter: Config.Literals(["otlp", "none"], "EXPORTER"), sampleRatio: Config.Number("RATIO") }
    })
    return Effect.gen(function*() {
      const under = (variables: Record<string, string>) => reasonOf(layer).pipe(env(variables))
      assert.strictEqual(yield* under({ NAME: "docs", EXPORTER: "none", RATIO: "1" }), "no error")
      assert.strictEqual(yield* under({ NAME: "docs", EXPORTER: "otlp", RATIO: "1" }), "EndpointNotConfigured")
      assert.strictEqual(yield* under({ NAME: "docs", EXPORTER: "none", RATIO: "2" }), "InvalidSampleRatio")
      assert.strictEqual(yield* under({ NAME: " ", EXPORTER: "none", RATIO: "1" }), "MissingServiceName")
      assert.strictEqual(yield* under({ EXPORTER: "none", RATIO: "1" }), "another error")
    })
  })

  it.effect("tells what is out of its range as a reason too, for an operator has written it", () =>
    Effect.gen(function*() {
      const wrong: ReadonlyArray<readonly [setting: string, options: any]> = [
        ["tracing.maxQueue", { tracing: { maxQueue: 0 } }],
        ["tracing.maxBatch", { tracing: { maxQueue: 5, maxBatch: 6 } }],
        ["tracing.interval", { tracing: { interval: 0 } }],
        ["metrics.interval", { metrics: { interval: "60 days" } }],
        ["metrics.temporality", { metrics: { temporality: secret } }],
        ["requestTimeout", { requestTimeout: -1 }],
        ["shutdownTimeout", { shutdownTimeout: Infinity }],
        ["redact", { redact: ["--"] }],
        ["headers", { headers: { "a b": secret } }]
      ]
      const configured = (options: any) => Telemetry.layerConfig(Config.succeed({ ...good, ...options }))
      for (const [setting, options] of wrong) {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(configured(options))))
        if (!(error instanceof TelemetryConfigError.TelemetryConfigError)) return assert.fail(setting)
        const { reason } = error
        const said = reason._tag === "InvalidSetting" ? reason.setting : reason._tag
        assert.strictEqual(said, setting === "headers" ? "InvalidHeaders" : setting)
        assert.include(error.message, setting)
        assert.notInclude(JSON.stringify(error) + error.message, secret)
      }
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(configured({ tracing: { ratio: 1 } }))))
      assert.isTrue(Exit.hasDies(exit))
    }))
})

describe("Telemetry.layerEnv", () => {
  const name = { OTEL_SERVICE_NAME: "docs" }
  const at = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://localhost:1" }

  it.effect("tells each mistake as a reason of its own", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [reason: string, variables: Record<string, string>]> = [
        ["no error", { ...name, ...at, OTEL_METRICS_EXPORTER: "none" }],
        ["no error", { OTEL_RESOURCE_ATTRIBUTES: "service.name=docs", ...at, OTEL_METRICS_EXPORTER: "none" }],
        ["no error", { ...name, OTEL_TRACES_EXPORTER: "none", OTEL_METRICS_EXPORTER: "prometheus" }],
        ["no error", { OTEL_SDK_DISABLED: "TRUE" }],
        ["MissingServiceName", at],
        ["MissingServiceName", { OTEL_SERVICE_NAME: "", ...at }],
        ["EndpointNotConfigured", name],
        ["EndpointNotConfigured", { ...name, OTEL_EXPORTER_OTLP_ENDPOINT: "" }],
        ["InvalidEndpoint", { ...name, OTEL_EXPORTER_OTLP_ENDPOINT: "localhost:4317" }],
        ["InvalidTracingExporter", { ...name, ...at, OTEL_TRACES_EXPORTER: "zipkin" }],
        ["InvalidMetricsExporter", { ...name, ...at, OTEL_METRICS_EXPORTER: "otlp,prometheus" }],
        ["InvalidSampleRatio", { ...name, ...at, OTEL_TRACES_SAMPLER: "jaeger_remote" }],
        ["InvalidSampleRatio", { ...name, ...at, OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "2" }],
        ["InvalidSampleRatio", { ...name, ...at, OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "x" }],
        ["InvalidHeaders", { ...name, ...at, OTEL_EXPORTER_OTLP_HEADERS: "a b=c" }],
        ["InvalidHeaders", { ...name, ...at, OTEL_EXPORTER_OTLP_HEADERS: "a=b%0Ac" }],
        ["UnsupportedProtocol", { ...name, ...at, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }]
      ]
      for (const [reason, variables] of cases) {
        assert.strictEqual(yield* reasonOf(Telemetry.layerEnv).pipe(env(variables)), reason, JSON.stringify(variables))
      }
    }))

  it("does what the variables say", async () => {
    const collector = await startCollector()
    const run = (variables: Record<string, string>) =>
      Effect.runPromise(
        Effect.andThen(Effect.withSpan(Effect.void, "work"), Effect.tracer).pipe(
          Effect.provide(Layer.fresh(Telemetry.layerEnv)),
          env({ ...name, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_METRICS_EXPORTER: "none", ...variables })
        )
      )
    await run({
      OTEL_RESOURCE_ATTRIBUTES: "service.name=other, service.version=3,team=a%20b,broken,empty=",
      OTEL_EXPORTER_OTLP_HEADERS: "api-key=a%3Db, x-tenant = t"
    })
    assert.deepInclude(collector.spans()[0]?.resource, {
      "service.name": "docs",
      "service.version": "3",
      team: "a b",
      empty: ""
    })
    assert.deepInclude(collector.requests[0]?.headers, { "api-key": "a=b", "x-tenant": "t" })
    for (const sampler of ["always_off", "parentbased_always_off"]) await run({ OTEL_TRACES_SAMPLER: sampler })
    await run({ OTEL_TRACES_SAMPLER: "parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG: "0" })
    assert.strictEqual(await run({ OTEL_TRACES_EXPORTER: "none" }), Tracer.nativeTracer)
    assert.strictEqual(await run({ OTEL_SDK_DISABLED: "true" }), Tracer.nativeTracer)
    assert.strictEqual(collector.requests.length, 1)
    for (const sampler of ["always_on", "parentbased_always_on", "traceidratio", "parentbased_traceidratio"]) {
      await run({ OTEL_TRACES_SAMPLER: sampler })
    }
    assert.strictEqual(collector.spans().length, 5)
    await collector.close()
  })
})
