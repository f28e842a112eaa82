import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Metric, Redacted, Schema, Stream, Tracer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { McpRequest, ObserveMiddleware, ToolMetrics } from "effect-toolops/observe"
import { Tool, Toolkit } from "effect/ai"
import { FetchHttpClient, HttpClient, HttpRouter, HttpServerResponse } from "effect/http"
import { afterEach, vi } from "vitest"
import {
  accept,
  answer,
  type Behaviour,
  type Collector,
  hang,
  rejectSome,
  reset,
  startCollector,
  until
} from "./collector.ts"
import { startTelemetry } from "./telemetry.ts"

const open: Array<Collector> = []
const collector = async (behaviour?: Behaviour): Promise<Collector> => {
  const one = await startCollector(behaviour)
  open.push(one)
  return one
}
afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()))
})

const traces = (more: object = {}) => ({
  tracing: { exporter: "otlp" as const, interval: "20 millis" as const, ...more }
})
const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((total, each) => total + each, 0)
const tool = ToolMeta.make({ namespace: "docs", name: "search", version: "2" })

const calls = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware)
  yield* pipeline.run({ tool, callId: "c1" }, Effect.withSpan(Effect.void, "inside"))
  yield* Effect.exit(pipeline.run({ tool }, Effect.fail(new Error("Bearer abcdefgh"))))
}).pipe(Effect.provide(ObserveMiddleware.layer({ log: false })))

describe("Telemetry and a collector", () => {
  it("delivers the spans of calls, with the resource and the headers, and none of its own requests", async () => {
    const at = await collector()
    const telemetry = startTelemetry({
      endpoint: `${at.url}/`,
      version: "1.2.3",
      resource: { "deployment.environment.name": "test" },
      headers: { "x-tenant": "a", "api-key": Redacted.make("k") },
      ...traces()
    })
    await telemetry.runtime.runPromise(calls)
    await telemetry.close()
    const spans = at.spans()
    assert.deepStrictEqual(spans.map(({ name }) => name).toSorted(), [
      "execute_tool search",
      "execute_tool search",
      "inside",
      "tool.exec.docs.search",
      "tool.exec.docs.search"
    ])
    const root = spans.find(({ attributes }) => attributes["gen_ai.tool.call.id"] === "c1")!
    assert.deepInclude(root.attributes, { "gen_ai.operation.name": "execute_tool", "tool.id": "docs:search" })
    const child = spans.find(({ parentSpanId }) => parentSpanId === root.spanId)!
    assert.deepStrictEqual([child.name, child.traceId], ["tool.exec.docs.search", root.traceId])
    assert.strictEqual(spans.find(({ name }) => name === "inside")?.parentSpanId, child.spanId)
    const failed = spans.find(({ name, status }) => name === "execute_tool search" && status.code === 2)
    assert.strictEqual(failed?.status.message, "Bearer <redacted>")
    assert.deepInclude(root.resource, {
      "service.name": "test",
      "service.version": "1.2.3",
      "deployment.environment.name": "test"
    })
    assert.deepInclude(at.requests[0]?.headers, {
      "content-type": "application/x-protobuf",
      "x-tenant": "a",
      "api-key": "k"
    })
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [5, {}])
  })

  it("delivers metrics with their units and buckets, cumulative or as deltas", async () => {
    for (const temporality of ["cumulative", "delta"] as const) {
      const at = await collector()
      const telemetry = startTelemetry({
        endpoint: at.url,
        metrics: { exporter: "otlp", interval: "1 hour", temporality }
      })
      await telemetry.runtime.runPromise(calls)
      await telemetry.close()
      const points = at.points()
      const of = (name: string) => points.filter((point) => point.name === name)
      const duration = of("gen_ai.execute_tool.duration")
      assert.deepStrictEqual(duration.map(({ kind, unit, value }) => [kind, unit, value]), [
        ["histogram", "s", 1],
        ["histogram", "s", 1]
      ])
      assert.deepStrictEqual(duration[0]?.bounds, ToolMetrics.secondsBoundaries)
      assert.deepStrictEqual(of("tool.exec.duration").map(({ unit, value }) => [unit, value]), [["ms", 2]])
      assert.deepStrictEqual(
        of("tool.call.total").map(({ attributes, value }) => [attributes["outcome"], value]).toSorted(),
        [["failed", 1], ["ok", 1]]
      )
      assert.isTrue(
        of("tool.call.total").every(({ attributes, isDelta }) =>
          !("unit" in attributes) && isDelta === (temporality === "delta")
        )
      )
      assert.deepStrictEqual([telemetry.sent("metrics"), telemetry.lost("metrics")], [points.length, {}])
    }
  })

  it("leaves out metrics that cannot be read, counts them, and delivers the others", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, metrics: { exporter: "otlp", interval: "1 hour" } })
    const context = Context.make(Metric.MetricRegistry, telemetry.registry)
    await telemetry.runtime.runPromise(Effect.void)
    Metric.counter("fine").updateUnsafe(1, context)
    const hooks = { update: () => {}, modify: () => {} }
    Metric.registerUnsafe(Metric.gauge("thrown"), context, {
      ...hooks,
      get: () => {
        throw new Error("gone")
      }
    })
    const nothing: any = undefined
    Metric.registerUnsafe(Metric.histogram("nothing", { boundaries: [1] }), context, { ...hooks, get: () => nothing })
    const odd: any = Object.create(null)
    Metric.gauge("odd", { attributes: { odd } }).updateUnsafe(1, context)
    // Two metrics of one name and different kinds, which OpenTelemetry cannot tell as one.
    Metric.gauge("twice").updateUnsafe(7, context)
    Metric.histogram("twice", { boundaries: [1] }).updateUnsafe(2, context)
    await telemetry.close()
    const points = at.points().map(({ name, value }) => [name, value]).filter(([name]) =>
      !String(name).startsWith("telemetry.")
    )
    assert.deepStrictEqual(points.toSorted(), [["fine", 1], ["odd", 1], ["twice", 7], ["twice.histogram", 1]])
    assert.deepStrictEqual(telemetry.lost("metrics"), { encoding: 2 })
  })

  it("tells no secret in names, descriptions and labels of metrics, and leaves the names of tools alone", async () => {
    const at = await collector()
    const telemetry = startTelemetry({
      endpoint: at.url,
      redact: ["iban"],
      metrics: { exporter: "otlp", interval: "1 hour" },
      ...traces()
    })
    const context = Context.make(Metric.MetricRegistry, telemetry.registry)
    const attributes = { session_token: "canary", note: "Bearer canary", "tool.id": "secrets:list", iban: "canary" }
    Metric.counter("Bearer canary", { attributes, description: "Bearer canary" }).updateUnsafe(1, context)
    for (const word of ["password=canary", "key"]) Metric.frequency("f").updateUnsafe(word, context)
    await telemetry.runtime.runPromise(Effect.withSpan(Effect.void, "s", { attributes: { iban: "canary" } }))
    await telemetry.close()
    assert.notInclude(at.bytes().toString("latin1"), "canary")
    const of = (name: string) => at.points().filter((point) => point.name === name).map((point) => point.attributes)
    assert.deepStrictEqual(of("Bearer <redacted>"), [{
      session_token: "<redacted>",
      note: "Bearer <redacted>",
      "tool.id": "secrets:list",
      iban: "<redacted>"
    }])
    assert.deepStrictEqual(of("f"), [{ key: "password=<redacted>" }, { key: "key" }])
  })

  it("tells points apart whose labels are redacted alike, and takes a key for a word in frequencies only", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, metrics: { exporter: "otlp", interval: "1 hour" } })
    const context = Context.make(Metric.MetricRegistry, telemetry.registry)
    await telemetry.runtime.runPromise(Effect.void)
    for (const value of ["input", "output"]) {
      const attributes = { "gen_ai.token.type": value, auth: value, dependency: `https://u:${value}@host` }
      Metric.counter("tokens", { attributes }).updateUnsafe(1, context)
      Metric.frequency("words").updateUnsafe(`password=${value}`, context)
    }
    Metric.counter("keyed", { attributes: { key: "hunter2" } }).updateUnsafe(1, context)
    await telemetry.close()
    const of = (name: string) => at.points().filter((point) => point.name === name).map((point) => point.attributes)
    const [first, second] = of("tokens")
    assert.deepStrictEqual([first?.["gen_ai.token.type"], second?.["gen_ai.token.type"]], ["input", "output"])
    assert.strictEqual(first?.["auth"], "<redacted>")
    assert.strictEqual(first?.["dependency"], "https://<redacted>@host")
    const words = of("words").map(({ key }) => String(key))
    for (const word of words) assert.match(word, /^password=<redacted:[0-9a-f]{4}>$/)
    assert.strictEqual(new Set(words).size, 2)
    assert.deepStrictEqual(of("keyed"), [{ key: "<redacted>" }])
  })

  it("counts a metric that cannot be read once, until it could be read meanwhile", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, metrics: { exporter: "otlp", interval: "20 millis" } })
    const context = Context.make(Metric.MetricRegistry, telemetry.registry)
    await telemetry.runtime.runPromise(Effect.void)
    let isBroken = true
    let readings = 0
    Metric.registerUnsafe(Metric.gauge("flaky"), context, {
      update: () => {},
      modify: () => {},
      get: () => {
        readings++
        if (isBroken) throw new Error("gone")
        return { value: 1 }
      }
    })
    const after = async (more: number) => {
      const from = readings
      await until("readings", () => readings >= from + more)
    }
    await after(4)
    assert.deepStrictEqual(telemetry.lost("metrics"), { encoding: 1 })
    isBroken = false
    await after(2)
    isBroken = true
    await after(4)
    assert.deepStrictEqual(telemetry.lost("metrics"), { encoding: 2 })
    await telemetry.close()
  })

  for (const temporality of ["cumulative", "delta"] as const) {
    it(`delivers the last reading of a time in which nothing was answered, and holds few: ${temporality}`, async () => {
      const held: Array<() => void> = []
      let isWell = false
      const at = await collector((response, request) => {
        if (isWell) return accept(response, request)
        held.push(() => void accept(response, request))
        return true
      })
      const telemetry = startTelemetry({
        endpoint: at.url,
        shutdownTimeout: "1 minute",
        metrics: { exporter: "otlp", interval: "20 millis", temporality }
      })
      const work = Metric.update(Metric.counter("work", { incremental: true }), 1).pipe(
        Effect.andThen(Effect.sleep(40))
      )
      await telemetry.runtime.runPromise(Effect.repeat(work, { times: 19 }))
      const closing = telemetry.close()
      await new Promise((resolve) => setTimeout(resolve, 100))
      isWell = true
      for (const answer of held) answer()
      await closing
      const values = at.points().filter(({ name }) => name === "work").map(({ value }) => value)
      assert.strictEqual(temporality === "delta" ? sum(Object.fromEntries(values.entries())) : values.at(-1), 20)
      assert.isAtMost(at.requests.length, 3)
      assert.deepStrictEqual(telemetry.lost("metrics"), {})
    })
  }

  it("follows the trace that a call came with, whatever the ratio, and decides for its own by the ratio", async () => {
    const at = await collector()
    const parent = (digit: string, sampled: boolean) =>
      Tracer.externalSpan({ traceId: digit.repeat(32), spanId: digit.repeat(16), sampled })
    const under = (span: Tracer.AnySpan) => Effect.withParentSpan(Effect.withSpan(Effect.void, "child"), span)
    for (const [sampleRatio, digits] of [[0, "ab"], [1, "cd"]] as const) {
      const telemetry = startTelemetry({ endpoint: at.url, ...traces({ sampleRatio }) })
      await telemetry.spans(10)
      await telemetry.runtime.runPromise(
        Effect.andThen(under(parent(digits[0]!, true)), under(parent(digits[1]!, false)))
      )
      await telemetry.close()
    }
    const inherited = at.spans().filter(({ name }) => name === "child")
    assert.deepStrictEqual(inherited.map(({ traceId }) => traceId[0]).toSorted(), ["a", "c"])
    assert.strictEqual(at.spans().length, 12)

    const half = startTelemetry({ endpoint: at.url, ...traces({ sampleRatio: 0.5, maxQueue: 10_000 }) })
    const pair = Effect.withSpan(Effect.withSpan(Effect.void, "inner"), "outer")
    await half.runtime.runPromise(Effect.repeat(pair, { times: 1999 }))
    await half.close()
    const outer = at.spans().filter(({ name }) => name === "outer")
    assert.isTrue(outer.length > 850 && outer.length < 1150, `${outer.length} of 2000`)
    const inner = at.spans().filter(({ name }) => name === "inner").map(({ traceId }) => traceId)
    assert.deepStrictEqual(inner.toSorted(), outer.map(({ traceId }) => traceId).toSorted())
  })

  it("takes the trace that an MCP client sends as the parent, with the request's own as a link", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, ...traces() })
    const sent = Tracer.externalSpan({ traceId: "e".repeat(32), spanId: "f".repeat(16), sampled: true })
    await telemetry.runtime.runPromise(calls.pipe(
      Effect.provideService(McpRequest.CurrentMcpRequest, { protocolVersion: "2026-07-28", parent: sent }),
      Effect.withSpan("POST /mcp")
    ))
    await telemetry.close()
    const http = at.spans().find(({ name }) => name === "POST /mcp")!
    const root = at.spans().find(({ name }) => name === "tools/call search")!
    assert.deepStrictEqual([root.traceId, root.parentSpanId, root.kind], ["e".repeat(32), "f".repeat(16), 2])
    assert.deepStrictEqual(root.links.map(({ traceId }) => traceId), [http.traceId])
  })

  it("continues the trace of a request that comes in, and hands it on with one that goes out", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, ...traces() })
    const handedOn: Array<string | null> = []
    const fetch: typeof globalThis.fetch = (input, init) => {
      handedOn.push(new Request(input, init).headers.get("traceparent"))
      return Promise.resolve(new Response(""))
    }
    const route = HttpRouter.add(
      "GET",
      "/*",
      Effect.flatMap(HttpClient.HttpClient, (client) => client.get("http://behind/")).pipe(
        Effect.as(HttpServerResponse.empty()),
        Effect.orDie,
        Effect.provide(FetchHttpClient.layer),
        Effect.provideService(FetchHttpClient.Fetch, fetch)
      )
    )
    const context = await telemetry.runtime.runPromise(Effect.context<never>())
    const { dispose, handler } = HttpRouter.toWebHandler(Layer.provide(route, Layer.succeedContext(context)), {
      disableLogger: true
    })
    for (const [digit, flag] of [["c", "01"], ["d", "00"]] as const) {
      const traceparent = `00-${digit.repeat(32)}-${digit.repeat(16)}-${flag}`
      await handler(new Request("http://localhost/page", { headers: { traceparent } }), context)
    }
    await dispose()
    await telemetry.close()
    const spans = at.spans()
    const served = spans.find(({ kind }) => kind === 2)!
    const made = spans.find(({ kind }) => kind === 3)!
    assert.deepStrictEqual([served.traceId, served.parentSpanId], ["c".repeat(32), "c".repeat(16)])
    assert.strictEqual(made.parentSpanId, served.spanId)
    assert.strictEqual(handedOn[0], `00-${"c".repeat(32)}-${made.spanId}-01`)
    // Of a trace that is not sampled nothing is sent, and the next one is told not to sample it either.
    assert.match(handedOn[1] ?? "", /^00-d{32}-[0-9a-f]{16}-00$/)
    assert.strictEqual(spans.length, 2)
  })

  it("loses one batch by a refusal, and sends the next one at once", async () => {
    const at = await collector((response, request) => (request.index === 0 ? answer(400) : accept)(response, request))
    const telemetry = startTelemetry({ endpoint: at.url, ...traces({ maxBatch: 10 }) })
    await telemetry.spans(10, "first")
    await until("the first batch", () => at.requests.length === 1)
    await telemetry.spans(25, "second")
    await until("the others", () => at.spans().length === 25)
    await telemetry.close()
    assert.isTrue(at.spans().every(({ name }) => name === "second"))
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [25, { rejected: 10 }])
  })

  it("counts what a collector takes only a part of", async () => {
    const at = await collector(rejectSome(3))
    const telemetry = startTelemetry({ endpoint: at.url, ...traces() })
    await telemetry.spans(10)
    await telemetry.close()
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [7, { rejected: 3 }])
  })

  for (
    const [named, first] of [
      ["429 with a number", () => answer(429, { "retry-after": "2" })],
      ["503 with a number", () => answer(503, { "retry-after": "2" })],
      ["503 with a date", () => answer(503, { "retry-after": new Date(Date.now() + 3000).toUTCString() })]
    ] as const
  ) {
    it(`sends nothing before the time of Retry-After, and loses nothing: ${named}`, async () => {
      const at = await collector((response, request) => (request.index === 0 ? first() : accept)(response, request))
      const telemetry = startTelemetry({ endpoint: at.url, ...traces({ maxBatch: 5 }) })
      await telemetry.spans(20)
      await until("all batches", () => at.spans().length === 20)
      const waited = at.requests[1]!.at - at.requests[0]!.at
      assert.isAtLeast(waited, 1990)
      await telemetry.close()
      assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [20, {}])
      assert.strictEqual(at.requests.length, 5)
    })
  }

  it("sends again after resets and other trouble of the moment", async () => {
    const trouble = [reset, answer(502), answer(504), reset]
    const at = await collector((response, request) => (trouble[request.index] ?? accept)(response, request))
    const telemetry = startTelemetry({ endpoint: at.url, ...traces() })
    await telemetry.spans(50)
    await until("a good attempt", () => at.spans().length === 50)
    await telemetry.close()
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [50, {}])
  })

  it("waits for a collector that is not there yet", async () => {
    const gone = await startCollector()
    const { port } = new URL(gone.url)
    await gone.close()
    const telemetry = startTelemetry({ endpoint: gone.url, ...traces() })
    await telemetry.spans(50)
    await new Promise((resolve) => setTimeout(resolve, 200))
    const at = await startCollector(accept, Number(port))
    open.push(at)
    await until("the batch", () => at.spans().length === 50)
    await telemetry.close()
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [50, {}])
  })

  it("holds no more than its bound where nothing is answered, and says how much it has lost", async () => {
    const at = await collector(hang)
    const telemetry = startTelemetry({
      endpoint: at.url,
      shutdownTimeout: "300 millis",
      ...traces({ maxQueue: 1000, maxBatch: 100 }),
      metrics: { exporter: "otlp", interval: "20 millis" }
    })
    const ended = telemetry.runtime.runPromise(
      calls.pipe(Effect.repeat({ times: 999 }), Effect.as("answered"))
    )
    assert.strictEqual(await ended, "answered")
    await until("a request", () => at.requests.length > 0)
    await telemetry.spans(500)
    assert.deepStrictEqual(telemetry.lost(), { queue_full: 5000 + 500 - 1000 })
    assert.strictEqual(telemetry.sent(), 0)
    await telemetry.close()
    assert.deepStrictEqual(telemetry.lost(), { queue_full: 4500, shutdown: 1000 })
    assert.deepStrictEqual([telemetry.sent(), telemetry.sent("metrics"), at.spans()], [0, 0, []])
    assert.isAtMost(at.mostInFlight(), 2)
  })

  it("has room again for what is delivered", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, ...traces({ maxQueue: 10 }) })
    for (let round = 1; round <= 5; round++) {
      await telemetry.spans(10)
      await until("a delivery", () => telemetry.sent() === round * 10)
    }
    await telemetry.close()
    assert.deepStrictEqual([at.spans().length, telemetry.lost()], [50, {}])
  })

  it("reads no more of an answer than it needs", async () => {
    const at = await collector((response) => {
      response.writeHead(200).write(Buffer.alloc(1_000_000))
      return true
    })
    const telemetry = startTelemetry({ endpoint: at.url, ...traces() })
    await telemetry.spans(5)
    await until("the end of the request", () => telemetry.sent() === 5)
    await telemetry.close()
  })

  it("takes the status for the answer, however slowly the rest of it comes", async () => {
    const at = await collector((response) => {
      response.writeHead(200)
      const timer = setInterval(() => response.write("x"), 20)
      response.on("close", () => clearInterval(timer))
      return true
    })
    const telemetry = startTelemetry({ endpoint: at.url, shutdownTimeout: "300 millis", ...traces() })
    await telemetry.spans(10)
    await until("a request", () => at.requests.length === 1)
    await telemetry.close()
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [10, {}])
  })

  it("counts what cannot be encoded", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, ...traces() })
    const name: any = Symbol("not a name")
    await telemetry.runtime.runPromise(Effect.withSpan(Effect.void, name))
    await telemetry.close()
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [0, { encoding: 1 }])
  })

  it("ends a request that is not answered in time, and sends the batch again", async () => {
    const at = await collector((response, request) => (request.index === 0 ? hang : accept)(response, request))
    const telemetry = startTelemetry({ endpoint: at.url, requestTimeout: "200 millis", ...traces() })
    await telemetry.spans(5)
    await until("a second attempt", () => telemetry.sent() === 5)
    assert.deepStrictEqual(at.requests[0]?.body, at.requests[1]?.body)
    await telemetry.close()
    assert.deepStrictEqual(telemetry.lost(), {})
  })

  it("gives a batch up after a minute, and goes on with the next one", async () => {
    let later = 0
    const now = performance.now.bind(performance)
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now() + later)
    try {
      const at = await collector((response, request) => {
        if (request.index > 0) return accept(response, request)
        later = 61_000
        return answer(502)(response, request)
      })
      const telemetry = startTelemetry({ endpoint: at.url, ...traces({ maxBatch: 10, interval: "1 hour" }) })
      await telemetry.spans(10, "first")
      await until("the first attempt", () => at.requests.length > 0)
      await telemetry.spans(10, "second")
      await until("the second batch", () => telemetry.sent() === 10)
      await telemetry.close()
      assert.isTrue(at.spans().every(({ name }) => name === "second"))
      assert.deepStrictEqual(telemetry.lost(), { unreachable: 10 })
    } finally {
      clock.mockRestore()
    }
  })

  it("waits for slow answers when it closes, and loses nothing", async () => {
    const at = await collector((response, request) => {
      setTimeout(() => accept(response, request), 50)
      return true
    })
    const telemetry = startTelemetry({
      endpoint: at.url,
      shutdownTimeout: "1 minute",
      ...traces({ maxQueue: 5000, maxBatch: 500, interval: "1 hour" }),
      metrics: { exporter: "otlp", interval: "20 millis" }
    })
    await telemetry.spans(4321)
    await telemetry.close()
    assert.strictEqual(at.spans().length, 4321)
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [4321, {}])
    assert.isAtMost(at.mostInFlight(), 2)
  })

  it("sends the batch that was being written when it closed", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, ...traces({ maxBatch: 2000, interval: "1 hour" }) })
    await telemetry.spans(2000)
    await telemetry.close()
    assert.deepStrictEqual([at.spans().length, telemetry.sent(), telemetry.lost()], [2000, 2000, {}])
  })

  it("does not wait at its end for a collector that asks for more time than there is", async () => {
    const at = await collector(answer(503, { "retry-after": "120" }))
    const telemetry = startTelemetry({ endpoint: at.url, shutdownTimeout: "1 minute", ...traces() })
    await telemetry.spans(7)
    await until("a request", () => at.requests.length === 1)
    await telemetry.close()
    assert.deepStrictEqual([telemetry.sent(), telemetry.lost()], [0, { shutdown: 7 }])
    assert.strictEqual(at.requests.length, 1)
  })

  it("accounts for every span whatever the collector does", async () => {
    const partial = rejectSome(1)
    const moods = [accept, answer(400), reset, answer(500), accept, partial, answer(503, { "retry-after": "0" })]
    const at = await collector((response, request) => moods[request.index % moods.length]!(response, request))
    const telemetry = startTelemetry({
      endpoint: at.url,
      shutdownTimeout: "1 second",
      ...traces({ maxQueue: 300, maxBatch: 30 })
    })
    let ended = 0
    for (let i = 0; i < 20; i++) {
      await telemetry.spans(50)
      ended += 50
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await telemetry.close()
    assert.strictEqual(telemetry.sent() + sum(telemetry.lost()), ended)
    const partly = at.requests.filter((_, index) => moods[index % moods.length] === partial).length
    assert.strictEqual(telemetry.sent(), at.spans().length - partly)
    assert.isAbove(telemetry.lost()["rejected"] ?? 0, partly)
    assert.isAtMost(at.mostInFlight(), 1)
  })

  it("has every reason for a loss at zero from the start, so that the first loss is seen to be one", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, ...traces(), metrics: { exporter: "otlp" } })
    await telemetry.runtime.runPromise(Effect.void)
    const zeros = [...telemetry.registry.values()].filter(({ id }) => id === "telemetry.dropped").map(
      ({ attributes, hooks }) => [
        attributes?.["signal"],
        attributes?.["reason"],
        (hooks.get(Context.empty()) as { readonly count: number }).count
      ]
    )
    const reasons = ["encoding", "queue_full", "rejected", "shutdown", "unreachable"]
    assert.deepStrictEqual(
      zeros.toSorted(),
      ["metrics", "traces"].flatMap((signal) => reasons.map((reason) => [signal, reason, 0]))
    )
    await telemetry.close()
  })

  it("counts what ends after it was closed", async () => {
    const at = await collector()
    const telemetry = startTelemetry({ endpoint: at.url, ...traces() })
    const tracer = await telemetry.runtime.runPromise(Effect.tracer)
    await telemetry.close()
    await Effect.runPromise(Effect.withSpan(Effect.void, "late").pipe(Effect.withTracer(tracer)))
    assert.deepStrictEqual([at.requests.length, telemetry.lost()], [0, { shutdown: 1 }])
  })

  it("sends nothing for exporters that are none, off, or served elsewhere", async () => {
    const at = await collector()
    for (
      const options of [
        { tracing: { exporter: "none" }, metrics: { exporter: "prometheus" } },
        { tracing: { enabled: false }, metrics: { enabled: false } },
        { metrics: { exporter: "none" } }
      ] as const
    ) {
      const telemetry = startTelemetry({ endpoint: at.url, ...options })
      assert.strictEqual(await telemetry.runtime.runPromise(Effect.tracer), Tracer.nativeTracer)
      await telemetry.runtime.runPromise(calls)
      await telemetry.close()
    }
    assert.strictEqual(at.requests.length, 0)
  })
})

describe("Telemetry.layerLight", () => {
  it("delivers spans and metrics as JSON, without packages", async () => {
    const { Telemetry } = await import("effect-toolops/node")
    const at = await collector(accept)
    await Effect.runPromise(calls.pipe(Effect.provide(Layer.fresh(
      Telemetry.layerLight({ serviceName: "light", endpoint: at.url, headers: { "x-tenant": "a" } })
    ))))
    const bodies = Object.fromEntries(at.requests.map(({ body, path }) => [path, JSON.parse(body.toString())]))
    assert.deepStrictEqual(Object.keys(bodies).toSorted(), ["/v1/metrics", "/v1/traces"])
    assert.include(JSON.stringify(bodies["/v1/traces"]), "execute_tool search")
    assert.include(JSON.stringify(bodies["/v1/traces"]), "\"light\"")
    assert.strictEqual(at.requests[0]?.headers["x-tenant"], "a")
  })

  it("leaves out the raw parameters that a toolkit writes on the span around a call", async () => {
    const { Telemetry } = await import("effect-toolops/node")
    const at = await collector(accept)
    const Echo = Tool.make("echo", { parameters: Schema.Struct({ text: Schema.String }), success: Schema.String })
    const kit = Toolkit.make(Echo)
    await Effect.runPromise(
      Effect.gen(function*() {
        const tools = yield* kit
        yield* Stream.runDrain(yield* tools.handle("echo", { text: "canary" }))
      }).pipe(
        Effect.withSpan("model", { attributes: { parameters: "shown" } }),
        Effect.provide(kit.toLayer({ echo: ({ text }) => Effect.succeed(text) })),
        Effect.provide(Layer.fresh(Telemetry.layerLight({ serviceName: "light", endpoint: at.url })))
      )
    )
    const bytes = at.bytes().toString("latin1")
    assert.include(bytes, "\"tool\"")
    assert.include(bytes, "not recorded")
    assert.notInclude(bytes, "canary")
  })
})
