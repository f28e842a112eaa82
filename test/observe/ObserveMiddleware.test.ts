import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Logger,
  Metric,
  Option,
  References,
  Scheduler,
  Schema,
  Tracer
} from "effect"
import { ToolMeta } from "effect-toolops"
import { CurrentCall, McpRequest, ObserveMiddleware } from "effect-toolops/observe"
import { TestClock } from "effect/testing"
import { attributes, observed, search } from "./observed.ts"

describe("ObserveMiddleware", () => {
  it.effect("tells a call that went well as a span, metrics and a log line", () => {
    const { lines, metrics, records, run, spans } = observed()
    return Effect.gen(function*() {
      yield* TestClock.adjust("1 minute")
      const fiber = yield* Effect.forkChild(
        run((pipeline) => pipeline.run({ tool: search, callId: "c1" }, Effect.as(Effect.sleep("250 millis"), "found")))
      )
      yield* TestClock.adjust("250 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "found")

      assert.deepStrictEqual(spans.map((span) => [span.name, span.kind]), [
        ["execute_tool search", "internal"],
        ["tool.exec.docs.search", "internal"]
      ])
      assert.strictEqual(Option.getOrUndefined(spans[1]!.parent), spans[0])
      assert.deepStrictEqual(attributes(spans[0]), {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.description": "Finds pages",
        "gen_ai.tool.call.id": "c1",
        "tool.id": "docs:search",
        "tool.name": "search",
        "tool.namespace": "docs",
        "tool.version": "2",
        "tool.category": "read",
        "tool.tags": ["cacheable"],
        "tool.outcome": "ok",
        "tool.attempts": 1,
        "tool.error": false
      })
      assert.deepStrictEqual(attributes(spans[1]), {
        "tool.id": "docs:search",
        "tool.name": "search",
        "tool.namespace": "docs",
        "tool.version": "2",
        "tool.attempt": 1,
        "tool.error": false
      })
      for (const { status } of spans) {
        assert.isTrue(status._tag === "Ended" && Exit.isSuccess(status.exit))
        assert.isTrue(status._tag === "Ended" && status.endTime - status.startTime === 250_000_000n)
      }
      assert.deepStrictEqual(metrics(), {
        "tool.call.total outcome=ok": 1,
        "gen_ai.execute_tool.duration": [1, 0.25],
        "tool.exec.total": 1,
        "tool.exec.duration": [1, 250]
      })
      assert.deepStrictEqual(lines.map(({ level, line }) => [level, line.toJSON()]), [["Info", {
        message: "tool call",
        tool: "docs:search",
        callId: "c1",
        outcome: "ok",
        durationMs: 250,
        attempts: 1,
        cache: undefined,
        rule: undefined,
        errorType: undefined,
        error: undefined
      }]])
      assert.deepStrictEqual(
        [records[0]?.startedAt, records[0]?.startedAtMonotonic, records[0]?.durationMillis, records[0]?.outcome],
        [60_000, 60_000, 250, "ok"]
      )
    })
  })

  it.effect("names the root span after MCP, as a server span, when the call came over MCP", () => {
    const { metrics, run, spans } = observed()
    const client = Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16) })
    const http = Tracer.externalSpan({ traceId: "c".repeat(32), spanId: "d".repeat(16) })
    const request = { protocolVersion: "2026-07-28", requestId: 7, transport: "tcp", parent: client } as const
    return run((pipeline) => Effect.exit(pipeline.run({ tool: search }, Effect.fail(new Error("no"))))).pipe(
      Effect.provideService(McpRequest.CurrentMcpRequest, request),
      Effect.withParentSpan(http),
      Effect.andThen(Effect.sync(() => {
        const root = spans[0]!
        assert.deepStrictEqual([root.name, root.kind, root.traceId], ["tools/call search", "server", "a".repeat(32)])
        assert.strictEqual(Option.getOrUndefined(root.parent), client)
        assert.deepStrictEqual(root.links.map((link) => link.span), [http])
        const told = attributes(root)
        assert.deepStrictEqual(
          [
            told["mcp.method.name"],
            told["mcp.protocol.version"],
            told["jsonrpc.request.id"],
            told["network.transport"],
            told["error.type"],
            told["tool.error.type"]
          ],
          ["tools/call", "2026-07-28", "7", "tcp", "tool_error", "error"]
        )
        assert.deepInclude(metrics(), {
          "mcp.server.operation.duration mcp.method.name=tools/call error.type=tool_error": [1, 0]
        })
      }))
    )
  })

  it.effect("cuts what callers and descriptions say, and halves no pair of surrogates", () => {
    const { lines, run, spans } = observed()
    const long = (length: number) => `${"x".repeat(length - 1)}\u{1f600}${"y".repeat(2000)}`
    const tool = ToolMeta.make({ name: "t", description: long(256) })
    const request = { protocolVersion: long(64), requestId: long(128) }
    return run((pipeline) => Effect.exit(pipeline.run({ tool, callId: long(256) }, Effect.fail(long(1024))))).pipe(
      Effect.provideService(McpRequest.CurrentMcpRequest, request),
      Effect.map(() => {
        const told = attributes(spans[0])
        assert.deepStrictEqual(
          [
            told["gen_ai.tool.description"],
            told["mcp.protocol.version"],
            told["jsonrpc.request.id"],
            told["gen_ai.tool.call.id"],
            lines[0]?.line.callId,
            lines[0]?.line.error
          ],
          [...[255, 63, 127, 255, 255].map((length) => "x".repeat(length)), `${"x".repeat(1023)}[cut]`]
        )
      })
    )
  })

  it.effect("logs what the program's minimum level lets through, and not to the logger that writes on spans", () => {
    // A logger that writes on spans leaves those alone that have ended.
    const { lines, run, spans } = observed({ observe: { spans: false } })
    return run((pipeline) =>
      Effect.gen(function*() {
        yield* pipeline.run({ tool: search }, Effect.void)
        yield* Effect.exit(pipeline.run({ tool: search }, Effect.fail("x")))
        assert.deepStrictEqual(lines.map(({ level }) => level), ["Error"])
        const loggers = new Set([...yield* Logger.CurrentLoggers, Logger.tracerLogger])
        yield* Effect.withSpan(
          Effect.exit(
            Effect.provideService(pipeline.run({ tool: search }, Effect.fail("x")), Logger.CurrentLoggers, loggers)
          ),
          "around"
        )
        assert.strictEqual(lines.length, 2)
        assert.deepStrictEqual(spans.map(({ events, name }) => [name, events]), [["around", []]])
      })
    ).pipe(Effect.provideService(References.MinimumLogLevel, "Warn"))
  })

  it.effect("tells the rule that decided and the text of a defect", () => {
    const { lines, run } = observed({
      inner: (call, next) => {
        call.record.rule = "role:reader"
        return next
      }
    })
    return run((pipeline) => Effect.exit(pipeline.run({ tool: search }, Effect.die(new Error("broken"))))).pipe(
      Effect.map(() => assert.deepStrictEqual([lines[0]?.line.rule, lines[0]?.line.error], ["role:reader", "broken"]))
    )
  })

  it.effect("redacts keys of the program's own", () => {
    const { run, spans } = observed({ observe: { redact: ["iban"], capture: { arguments: true } } })
    const tool = ToolMeta.make({ name: "t", input: Schema.Struct({ iban: Schema.String, q: Schema.String }) })
    return run((pipeline) => pipeline.run({ tool, input: { iban: "canary", q: "x" } }, Effect.void)).pipe(
      Effect.annotateSpans({ userIban: "canary", access_token_limit: "canary", max_tokens: 5 }),
      Effect.map(() => {
        assert.strictEqual(
          attributes(spans[0])["gen_ai.tool.call.arguments"],
          JSON.stringify({ iban: "<redacted>", q: "x" })
        )
        assert.deepInclude(attributes(spans[0]), {
          userIban: "<redacted>",
          access_token_limit: "<redacted>",
          max_tokens: 5
        })
      })
    )
  })

  it.effect("sees tracing as the program has set it up: hidden spans, levels, timing and links", () => {
    const { run, spans } = observed()
    const call = run((pipeline) => pipeline.run({ tool: search }, Effect.void))
    const outside = Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16) })
    const linked = Tracer.externalSpan({ traceId: "c".repeat(32), spanId: "d".repeat(16) })
    const hidden = Effect.withSpan(call, "hidden", {
      annotations: Context.make(Tracer.DisablePropagation, true),
      parent: outside
    })
    const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })
    return Effect.gen(function*() {
      yield* TestClock.adjust("1 minute")
      yield* Effect.withTracer(hidden, tracer)
      assert.strictEqual(Option.getOrUndefined(spans[0]!.parent), outside)
      assert.isTrue(spans[0]!.status.startTime > 0n)

      spans.length = 0
      yield* Effect.provideService(call, Tracer.MinimumTraceLevel, "Error")
      assert.strictEqual(spans.length, 0)
      yield* call.pipe(
        Effect.provideService(Tracer.MinimumTraceLevel, "Error"),
        Effect.provideService(Tracer.CurrentTraceLevel, "Error")
      )
      assert.strictEqual(spans.length, 2)

      spans.length = 0
      yield* Effect.withTracerTiming(call, false)
      for (const { status } of spans) {
        assert.isTrue(status._tag === "Ended" && status.startTime === 0n && status.endTime === 0n)
      }

      spans.length = 0
      yield* Effect.linkSpans(call, linked)
      for (const { links } of spans) assert.deepStrictEqual(links.map(({ span }) => span), [linked])
      assert.strictEqual(spans.length, 2)
    })
  })

  it.effect("gives metrics the attributes that the program gives them, also when they change", () => {
    const { metrics, run } = observed()
    return Effect.gen(function*() {
      yield* run((pipeline) =>
        Effect.forEach(
          ["a", "b"],
          (tenant) =>
            Effect.provideService(pipeline.run({ tool: search }, Effect.void), Metric.CurrentMetricAttributes, {
              tenant
            })
        )
      )
      assert.deepInclude(metrics(), {
        "tool.call.total outcome=ok tenant=a": 1,
        "tool.call.total outcome=ok tenant=b": 1
      })
    })
  })

  it.effect("ends its spans also where they do not take what they are told", () => {
    const { run } = observed({
      inner: (call, next) => {
        call.record.cache = "hit"
        return next
      }
    })
    const throwing = () => {
      throw new Error("broken")
    }
    return Effect.gen(function*() {
      for (const name of ["attribute", "event"] as const) {
        let ended = 0
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            span[name] = throwing
            span.end = () => {
              ended += 1
            }
            return span
          }
        })
        yield* run((pipeline) => Effect.withTracer(pipeline.run({ tool: search }, Effect.void), tracer)).pipe(
          Effect.annotateSpans({ note: "x" })
        )
        assert.strictEqual(ended, 2, name)
      }
    })
  })

  it.effect("hands the trace on in the metadata of a request to another server, sampled or not", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* McpRequest.traceMetadata, {})
      for (const [sampled, flag] of [[true, "01"], [false, "00"]] as const) {
        const parent = Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled })
        assert.deepStrictEqual(yield* Effect.withParentSpan(McpRequest.traceMetadata, parent), {
          traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-${flag}`
        })
      }
    }))

  it.effect("lets what a handler does be a child of the execution, and restores the context afterwards", () => {
    const { run, spans } = observed()
    return Effect.gen(function*() {
      const before = yield* Effect.context<never>()
      yield* run((pipeline) =>
        Effect.gen(function*() {
          const context = yield* Effect.context<never>()
          yield* pipeline.run({ tool: search }, Effect.withSpan(Effect.void, "inside"))
          assert.strictEqual(yield* Effect.context<never>(), context)
          yield* Effect.exit(pipeline.run({ tool: search }, Effect.die("x")))
          assert.strictEqual(yield* Effect.context<never>(), context)
        })
      )
      assert.strictEqual(Option.getOrUndefined(spans[2]!.parent), spans[1])
      assert.strictEqual(yield* Effect.context<never>(), before)
    })
  })

  it.effect("tells the handler's logs which call they belong to", () => {
    const { run } = observed()
    return run((pipeline) =>
      Effect.gen(function*() {
        const seen = yield* pipeline.run(
          { tool: search, callId: "mine" },
          Effect.map(CurrentCall.CurrentCall, (call) => call)
        )
        assert.strictEqual(seen?.callId, "mine")
        assert.isUndefined(yield* CurrentCall.CurrentCall)
      })
    )
  })

  it.effect("makes no span without a tracer, below an unsampled parent, or with tracing turned off", () => {
    const { run, spans } = observed()
    const call = run((pipeline) => pipeline.run({ tool: search }, Effect.option(Effect.currentParentSpan)))
    const unsampled = Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled: false })
    return Effect.gen(function*() {
      assert.deepStrictEqual(yield* Effect.withParentSpan(call, unsampled), Option.some<Tracer.AnySpan>(unsampled))
      yield* Effect.withTracerEnabled(call, false)
      yield* run((pipeline) => Effect.withTracer(pipeline.run({ tool: search }, Effect.void), Tracer.nativeTracer))
      assert.strictEqual(spans.length, 0)
      yield* call
      assert.strictEqual(spans.length, 2)
    })
  })

  it.effect("does nothing at all when everything is turned off", () => {
    const { lines, registry, run, spans } = observed({ observe: { spans: false, metrics: false, log: false } })
    return Effect.gen(function*() {
      yield* run((pipeline) => pipeline.run({ tool: search }, Effect.void))
      assert.deepStrictEqual([lines.length, registry.size, spans.length], [0, 0, 0])
    })
  })

  it.effect("tells a call once, and ends its spans, wherever it is interrupted and however often fibers yield", () =>
    Effect.gen(function*() {
      for (let ops = 3; ops <= 64; ops++) {
        const { lines, metrics, run, spans } = observed()
        const started = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(
          run((pipeline) =>
            pipeline.run({ tool: search }, Effect.andThen(Deferred.succeed(started, undefined), Effect.never))
          ).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)),
          { startImmediately: true }
        )
        if (ops % 2 === 0) yield* Deferred.await(started)
        yield* Fiber.interrupt(fiber)
        for (const span of spans) assert.strictEqual(span.status._tag, "Ended", `${ops}: ${span.name}`)
        const told = metrics()["tool.call.total outcome=interrupted"] ?? 0
        assert.strictEqual(lines.length, told)
        if (ops % 2 === 0) assert.strictEqual(told, 1)
      }
    }))

  it.effect("never breaks a call, whatever tracer, logger and metric do", () => {
    const throwing = () => {
      throw new Error("broken")
    }
    const brokenSpan = new Proxy(
      new Tracer.NativeSpan({
        name: "x",
        parent: Option.none(),
        annotations: Context.empty(),
        links: [],
        startTime: 0n,
        kind: "internal",
        sampled: true
      }),
      { get: (target, name) => name === "end" || name === "attribute" ? throwing : Reflect.get(target, name) }
    )
    const registry = new Map()
    registry.get = throwing
    const { run } = observed()
    const call = (tracer: Tracer.Tracer) =>
      run((pipeline) =>
        pipeline.run({ tool: search }, Effect.succeed(1)).pipe(
          Effect.withTracer(tracer),
          Effect.provideService(Metric.MetricRegistry, registry),
          Effect.provideService(Logger.CurrentLoggers, new Set([Logger.make(throwing)]))
        )
      )
    return Effect.gen(function*() {
      assert.strictEqual(yield* call(Tracer.make({ span: throwing })), 1)
      assert.strictEqual(yield* call(Tracer.make({ span: () => brokenSpan })), 1)
      const hostile = {
        get _tag(): string {
          throw new Error("no tag for you")
        }
      }
      const exit = yield* Effect.exit(
        observed().run((pipeline) => pipeline.run({ tool: search }, Effect.fail(hostile)))
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) === hostile)
    })
  })

  it.effect("keeps an unsampled parent that the client sent for what happens inside", () => {
    const { run, spans } = observed()
    const client = Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled: false })
    const http = Tracer.externalSpan({ traceId: "c".repeat(32), spanId: "d".repeat(16) })
    return run((pipeline) => pipeline.run({ tool: search }, Effect.currentParentSpan)).pipe(
      Effect.provideService(McpRequest.CurrentMcpRequest, { parent: client }),
      Effect.withParentSpan(http),
      Effect.map((parent) => {
        assert.strictEqual(parent, client)
        assert.strictEqual(spans.length, 0)
      })
    )
  })

  it.effect("tells a tool that calls another as two calls, one inside of the other", () => {
    const { lines, run, spans } = observed()
    return run((pipeline) =>
      pipeline.run({ tool: search, callId: "outer" }, pipeline.run({ tool: search, callId: "inner" }, Effect.void))
    ).pipe(Effect.map(() => {
      assert.deepStrictEqual(lines.map(({ line }) => line.callId), ["inner", "outer"])
      assert.deepStrictEqual(
        spans.slice(1).map((span) => Option.getOrUndefined(span.parent)?.spanId),
        spans.slice(0, -1).map((span) => span.spanId)
      )
    }))
  })

  it.effect("takes what the handler of a call over MCP calls for a call of its own", () => {
    const { metrics, run, spans } = observed()
    const client = Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled: true })
    return run((pipeline) =>
      pipeline.run({ tool: search }, pipeline.run({ tool: search }, McpRequest.CurrentMcpRequest))
    ).pipe(
      Effect.provideService(McpRequest.CurrentMcpRequest, { parent: client, requestId: 7 }),
      Effect.map((request) => {
        assert.strictEqual(request?.requestId, 7)
        assert.deepStrictEqual(spans.map((span) => [span.name, span.kind]), [
          ["tools/call search", "server"],
          ["tool.exec.docs.search", "internal"],
          ["execute_tool search", "internal"],
          ["tool.exec.docs.search", "internal"]
        ])
        assert.deepStrictEqual(
          spans.map((span) => Option.getOrUndefined(span.parent)?.spanId),
          [client.spanId, ...spans.slice(0, -1).map((span) => span.spanId)]
        )
        assert.deepInclude(metrics(), { "mcp.server.operation.duration mcp.method.name=tools/call": [1, 0] })
      })
    )
  })

  it.effect("takes its options from the configuration, and refuses nonsense", () =>
    Effect.gen(function*() {
      const layer = ObserveMiddleware.layerConfig({
        spans: Config.Boolean("SPANS"),
        metrics: Config.Boolean("METRICS"),
        log: Config.succeed(false)
      })
      const provider = ConfigProvider.fromEnvRecord({ SPANS: "false", METRICS: "false" })
      const stage = yield* ObserveMiddleware.ObserveMiddleware.pipe(
        Effect.provide(layer),
        Effect.provideService(ConfigProvider.ConfigProvider, provider)
      )
      assert.isUndefined(stage.forExecution)
      assert.throws(() => ObserveMiddleware.layer({ maxTools: 0 }), "maxTools must be an integer >= 1, got 0")
      assert.throws(() => ObserveMiddleware.layer({ repeatedRefusals: 0.5 }), "repeatedRefusals")
      assert.throws(() => ObserveMiddleware.layer({ captures: {} } as never), "unknown option \"captures\"")
      assert.throws(() => ObserveMiddleware.layer({ capture: { args: true } } as never), "unknown option \"args\"")
    }))
})
