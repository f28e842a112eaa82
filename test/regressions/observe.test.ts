import { assert, describe, it } from "@effect/vitest"
import * as api from "@opentelemetry/api"
import { Clock, Context, Effect, Layer, Metric, Option, Tracer } from "effect"
import { ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { ApiKey, AuditLog, AuthMiddleware, Rbac } from "effect-toolops/auth"
import { Telemetry } from "effect-toolops/node"
import { McpRequest, ObserveMiddleware, PrometheusRoutes, StructuredLogger } from "effect-toolops/observe"
import { HttpRouter } from "effect/http"
import { Writable } from "node:stream"

// What the Go library got wrong about observing, one test each.

const tool = ToolMeta.make({ namespace: "docs", name: "search", version: "3" })

const watched = (options?: ObserveMiddleware.Options) => {
  const spans: Array<Tracer.NativeSpan> = []
  const lines: Array<any> = []
  const raw: Array<string> = []
  const registry: Metric.MetricRegistry = new Map()
  const tracer = Tracer.make({
    span: (given) => {
      const span = new Tracer.NativeSpan(given)
      spans.push(span)
      return span
    }
  })
  const write = (line: string) => {
    raw.push(line)
    lines.push(JSON.parse(line))
  }
  const Told = Layer.mergeAll(
    ObserveMiddleware.layer(options),
    StructuredLogger.layer({ write }),
    Layer.succeed(Tracer.Tracer, tracer),
    Layer.succeed(Metric.MetricRegistry, registry)
  )
  const run = <A, E>(f: (pipeline: ToolPipeline.Pipeline<never>) => Effect.Effect<A, E>) =>
    Effect.provide(Effect.flatMap(ToolPipeline.make(ObserveMiddleware.ObserveMiddleware), f), Told)
  const series = (id: string) =>
    [...registry.values()].filter((metric) => metric.id === id).map((metric) => ({
      attributes: metric.attributes ?? {},
      state: metric.hooks.get(Context.empty()) as { readonly count: number; readonly sum: number }
    }))
  return { lines, raw, run, series, spans }
}

const nowhere = () => new Writable({ write: (_chunk, _encoding, done) => done() })

describe("observe regressions", () => {
  it.effect("a tool that panics has its span ended and its metrics counted", () => {
    const { run, series, spans } = watched()
    return Effect.gen(function*() {
      yield* Effect.exit(run((pipeline) =>
        pipeline.run(
          { tool },
          Effect.sync(() => {
            throw new Error("panic")
          })
        )
      ))
      assert.deepStrictEqual(spans.map((span) => span.status._tag), ["Ended", "Ended"])
      assert.deepStrictEqual(
        ["tool.call.total", "tool.exec.total", "tool.exec.errors"].map((id) => series(id)[0]?.state.count),
        [1, 1, 1]
      )
    })
  })

  it.effect("a call continues the trace it came in, and is not sampled where the trace is not", () => {
    const { run, spans } = watched()
    const call = run((pipeline) => pipeline.run({ tool }, Effect.currentParentSpan))
    const incoming = (sampled: boolean) =>
      Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled })
    return Effect.gen(function*() {
      yield* Effect.withParentSpan(call, incoming(true))
      assert.deepStrictEqual(spans.map((span) => span.traceId), ["a".repeat(32), "a".repeat(32)])
      const inherited = yield* Effect.withParentSpan(call, incoming(false))
      assert.isFalse(inherited.sampled)
      assert.strictEqual(spans.length, 2)
    })
  })

  it.effect("each entry is one write, whoever logs meanwhile", () => {
    const { raw, run } = watched()
    return Effect.gen(function*() {
      yield* run((pipeline) =>
        Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i),
          (i) => pipeline.run({ tool }, Effect.andThen(Effect.yieldNow, Effect.log(`line ${i}`))),
          { concurrency: "unbounded" }
        )
      )
      assert.strictEqual(raw.length, 400)
    })
  })

  it.effect("entries carry the trace, and one that cannot be encoded is not dropped", () => {
    const { lines, run, spans } = watched()
    const cyclic: Record<string, unknown> = {}
    cyclic["self"] = cyclic
    return Effect.gen(function*() {
      yield* run((pipeline) => pipeline.run({ tool }, Effect.log("odd", 1n, cyclic)))
      assert.deepStrictEqual(lines.map((line) => line.traceId), [spans[0]?.traceId, spans[0]?.traceId])
      assert.deepStrictEqual(lines[0].data, ["1", { self: "[circular]" }])
    })
  })

  it.effect("secrets are redacted under any spelling of a key, nested, and in error texts", () => {
    const { raw, run, spans } = watched()
    const secrets = { Authorization: "canary", nested: [{ access_token: "canary", Password: "canary" }] }
    return Effect.gen(function*() {
      yield* Effect.exit(
        run((pipeline) =>
          pipeline.run({ tool }, Effect.andThen(Effect.log(secrets), Effect.fail(new Error("Bearer canary"))))
        )
      )
      const told = raw.join() +
        JSON.stringify(
          spans.map((span) => [[...span.attributes], span.events, span.status]),
          (_key, value) => typeof value === "bigint" ? String(value) : value
        )
      assert.notInclude(told, "canary")
    })
  })

  it.effect("a call shorter than a millisecond does not take 0", () => {
    const { lines, run, series } = watched()
    let now = 0n
    const clock: Clock.Clock = {
      ...Effect.runSync(Clock.Clock),
      monotonicTimeNanosUnsafe: () => now,
      currentTimeMillisUnsafe: () => 0,
      currentTimeNanosUnsafe: () => 0n
    }
    return Effect.gen(function*() {
      yield* run((pipeline) => pipeline.run({ tool }, Effect.sync(() => void (now += 250_000n)))).pipe(
        Effect.provideService(Clock.Clock, clock)
      )
      assert.strictEqual(series("tool.exec.duration")[0]?.state.sum, 0.25)
      assert.strictEqual(series("gen_ai.execute_tool.duration")[0]?.state.sum, 0.00025)
      assert.strictEqual(lines[0].durationMs, 0.25)
    })
  })

  it.effect("metrics tell versions and kinds of error apart, and the number of tools and kinds is bounded", () => {
    const { run, series } = watched({ maxTools: 10, repeatedRefusals: 1 })
    return Effect.gen(function*() {
      yield* run((pipeline) =>
        Effect.gen(function*() {
          yield* Effect.exit(pipeline.run({ tool }, Effect.fail({ _tag: "NotThere" })))
          for (let i = 0; i < 100; i++) {
            yield* Effect.exit(pipeline.run({ tool }, Effect.fail({ _tag: `Kind${i}` })))
            yield* pipeline.run({ tool: ToolMeta.make({ name: `made-up-${i}` }) }, Effect.void)
          }
        })
      )
      const errors = series("tool.exec.errors").map(({ attributes }) => attributes["error.type"])
      assert.deepStrictEqual([errors[0], errors.length, errors.at(-1)], ["NotThere", 33, "_OTHER"])
      const totals = series("tool.exec.total")
      assert.deepInclude(totals[0]?.attributes, { "tool.id": "docs:search", "tool.version": "3" })
      assert.deepStrictEqual([totals.length, totals.at(-1)?.attributes["tool.id"], totals.at(-1)?.state.count], [
        11,
        "_other",
        91
      ])
    })
  })

  it.effect("refusals and cached answers are observed, and who called is in no label", () => {
    const { lines, run, series, spans } = watched()
    class Cache extends Context.Service<Cache, ToolMiddleware.ToolMiddleware<never>>()("test/Cache") {}
    const hit = ToolMiddleware.of<never>({
      name: "cache",
      forTool: () => (call, next) =>
        Effect.suspend(() => {
          call.record.cache = "hit"
          return Effect.as(Effect.void, "kept") as unknown as typeof next
        })
    })
    return Effect.gen(function*() {
      yield* run(() =>
        Effect.flatMap(
          ToolPipeline.make(ObserveMiddleware.ObserveMiddleware, Cache),
          (pipeline) => pipeline.run({ tool, headers: { "x-api-key": "ada" } }, Effect.succeed("fresh"))
        ).pipe(
          Effect.provide(Layer.merge(Layer.succeed(Cache, hit), ObserveMiddleware.layer()))
        )
      )
      assert.deepStrictEqual([lines[0].outcome, lines[0].attempts, spans.length], ["cached", 0, 1])
      assert.strictEqual(series("tool.cache.total")[0]?.attributes["result"], "hit")
      assert.notInclude(JSON.stringify([lines, series("tool.call.total"), [...spans[0]!.attributes]]), "ada")
      assert.strictEqual(Option.isNone(spans[0]!.parent), true)
    })
  })

  it.effect("a call is told in the words of OpenTelemetry, and as a server's where it came over MCP", () => {
    const { run, spans } = watched()
    return Effect.gen(function*() {
      yield* run((pipeline) => pipeline.run({ tool, callId: "1" }, Effect.void)).pipe(
        Effect.provideService(McpRequest.CurrentMcpRequest, { protocolVersion: "2026-07-28" })
      )
      yield* run((pipeline) => pipeline.run({ tool }, Effect.void))
      const [served, , plain] = spans
      assert.deepStrictEqual([served?.name, served?.kind], ["tools/call search", "server"])
      assert.deepInclude(Object.fromEntries(served!.attributes), {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.id": "1",
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2026-07-28"
      })
      assert.deepStrictEqual([plain?.name, plain?.kind], ["execute_tool search", "internal"])
    })
  })

  it("what a tool is called is checked before anything is told of it", () => {
    for (const name of ["", "a b", "a:b", "a\nb", "a\"b", "x".repeat(129)]) {
      assert.throws(() => ToolMeta.make({ name }))
    }
  })

  it.effect("there is an audit log, and a call that is turned away is in it", () => {
    const Audited = AuthMiddleware.layerAudited.pipe(
      Layer.provide([
        ApiKey.layer().pipe(Layer.provide(ApiKey.layerMemory({ keys: [] }))),
        Rbac.layer({ roles: {} })
      ]),
      Layer.provideMerge(AuditLog.layerMemory())
    )
    return Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
      yield* Effect.exit(pipeline.run({ tool }, Effect.void))
      const { records } = yield* AuditLog.AuditMemory
      assert.deepStrictEqual((yield* records).map(({ outcome }) => outcome), ["unauthenticated"])
    }).pipe(Effect.provide(Audited))
  })

  it.effect("exporters leave the providers of the process alone", () => {
    const globals = () => [
      api.trace.getTracerProvider(),
      (api.trace.getTracerProvider() as api.ProxyTracerProvider).getDelegate(),
      api.metrics.getMeterProvider()
    ]
    const before = globals()
    return Effect.gen(function*() {
      const during = yield* Effect.sync(globals).pipe(
        Effect.provide(Telemetry.layer({ serviceName: "docs", tracing: { exporter: "jaeger" } }))
      )
      for (const [i, provider] of before.entries()) assert.strictEqual(during[i], provider)
    })
  })

  it.effect("a trace is kept where no ratio is given", () => {
    const sampled = Effect.map(Effect.currentSpan, (span) => span.sampled).pipe(
      Effect.withSpan("root"),
      Effect.provide(Telemetry.layer({ serviceName: "docs", stream: nowhere(), tracing: { exporter: "stdout" } }))
    )
    return Effect.map(sampled, (isSampled) => assert.isTrue(isSampled))
  })

  it.effect("an exporter that is none makes no span, and its metrics are not read", () => {
    const given = Telemetry.layer({
      serviceName: "docs",
      tracing: { exporter: "none" },
      metrics: { exporter: "none", interval: "1 millis" }
    })
    let reads = 0
    const registry = new Map()
    Object.defineProperty(registry, "values", { value: () => (reads++, [].values()) })
    return Effect.gen(function*() {
      assert.strictEqual(yield* Effect.tracer, Tracer.nativeTracer)
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))
      assert.strictEqual(reads, 0)
    }).pipe(Effect.provide(given), Effect.provideService(Metric.MetricRegistry, registry))
  })

  it.effect("the Prometheus exporter has a route", () =>
    Effect.gen(function*() {
      const given = Telemetry.layer({ serviceName: "docs", metrics: { exporter: "prometheus" } })
      const { dispose, handler } = HttpRouter.toWebHandler(Layer.provide(PrometheusRoutes.layer(), given), {
        disableLogger: true
      })
      const response = yield* Effect.promise(() => handler(new Request("http://localhost/metrics")))
      assert.strictEqual(response.status, 200)
      yield* Effect.promise(dispose)
    }))
})
