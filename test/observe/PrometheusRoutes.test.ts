import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Metric } from "effect"
import { PrometheusRoutes, ToolMetrics } from "effect-toolops/observe"
import { HttpRouter } from "effect/http"
import { hostileContext, parseExposition } from "./exposition.ts"

const empty = (): Context.Context<never> => Context.make(Metric.MetricRegistry, new Map())

const rendered = (context: Context.Context<never>, options?: Parameters<typeof PrometheusRoutes.make>[0]) =>
  Effect.runSync(Effect.provideContext(PrometheusRoutes.make(options)(), context))

/** Serves the metrics of a context and asks for them. */
const served = (
  context: Context.Context<never>,
  f: (get: (init?: RequestInit) => Promise<Response>) => Promise<void>,
  options?: PrometheusRoutes.Options
) =>
  Effect.promise(async () => {
    const routes = PrometheusRoutes.layer(options).pipe(Layer.provide(Layer.effectContext(Effect.succeed(context))))
    const { dispose, handler } = HttpRouter.toWebHandler(routes, { disableLogger: true })
    await f((init) => handler(new Request(`http://localhost${options?.path ?? "/metrics"}`, init)))
    await dispose()
  })

describe("PrometheusRoutes", () => {
  it("names metrics after Prometheus' customs, in base units, with HELP and TYPE", () => {
    const context = empty()
    ToolMetrics.series(ToolMetrics.callTotal, { "tool.id": "docs:search", outcome: "ok" })(2, context)
    ToolMetrics.series(ToolMetrics.execDuration, { "tool.id": "docs:search" })(0.4, context)
    ToolMetrics.series(ToolMetrics.callDuration, { "tool.id": "docs:search" })(0.25, context)
    Metric.gauge("heap.used", { attributes: { unit: "By" } }).updateUnsafe(5, context)
    Metric.counter("plain").updateUnsafe(1, context)
    assert.strictEqual(
      rendered(context).split("\n").filter((line) =>
        !/le="/.test(line) || /le="(?:\+Inf|0\.0001|0\.0005|0\.2|0\.5)"/.test(line)
      )
        .join("\n"),
      `# HELP tool_call_total Calls of tools by outcome, refused and cached ones included
# TYPE tool_call_total counter
tool_call_total{outcome="ok",tool_id="docs:search"} 2
# HELP tool_exec_duration_seconds Duration of executions of tool handlers
# TYPE tool_exec_duration_seconds histogram
tool_exec_duration_seconds_bucket{tool_id="docs:search",le="0.0001"} 0
tool_exec_duration_seconds_bucket{tool_id="docs:search",le="0.0005"} 1
tool_exec_duration_seconds_bucket{tool_id="docs:search",le="0.5"} 1
tool_exec_duration_seconds_bucket{tool_id="docs:search",le="+Inf"} 1
tool_exec_duration_seconds_sum{tool_id="docs:search"} 0.0004
tool_exec_duration_seconds_count{tool_id="docs:search"} 1
# HELP gen_ai_execute_tool_duration_seconds Duration of tool calls, from the first stage to the answer
# TYPE gen_ai_execute_tool_duration_seconds histogram
gen_ai_execute_tool_duration_seconds_bucket{tool_id="docs:search",le="0.2"} 0
gen_ai_execute_tool_duration_seconds_bucket{tool_id="docs:search",le="0.5"} 1
gen_ai_execute_tool_duration_seconds_bucket{tool_id="docs:search",le="+Inf"} 1
gen_ai_execute_tool_duration_seconds_sum{tool_id="docs:search"} 0.25
gen_ai_execute_tool_duration_seconds_count{tool_id="docs:search"} 1
# HELP heap_used_bytes heap.used
# TYPE heap_used_bytes gauge
heap_used_bytes 5
# HELP plain_total plain
# TYPE plain_total counter
plain_total 1
`
    )
  })

  it("is valid whatever metrics and labels are called and hold, and loses no series", () => {
    const context = hostileContext()
    const samples = parseExposition(rendered(context))
    let expected = 0
    for (const { state, type } of Metric.snapshotUnsafe(context)) {
      expected += type === "Histogram"
        ? state.buckets.filter(([boundary]) => boundary !== Infinity).length + 3
        : type === "Summary"
        ? state.quantiles.length + 2
        : type === "Frequency"
        ? state.occurrences.size
        : 1
    }
    assert.strictEqual(samples.length, expected)
    assert.isTrue(samples.some((sample) => Number.isNaN(sample.value)))
    assert.isTrue(samples.some((sample) => sample.value === Infinity))
  })

  it("keeps names and labels from one rendering to the next, and follows metrics that come and go", () => {
    const context = hostileContext()
    const render = PrometheusRoutes.make()
    const text = () => Effect.runSync(Effect.provideContext(render(), context))
    const first = text()
    assert.strictEqual(text(), first)
    const extra = Metric.counter("extra")
    extra.updateUnsafe(1, context)
    assert.strictEqual(text(), `${first}# HELP extra_total extra\n# TYPE extra_total counter\nextra_total 1\n`)
    extra.updateUnsafe(1, context)
    assert.include(text(), "extra_total 2\n")
    Metric.removeUnsafe(extra, context)
    assert.strictEqual(text(), first)
  })

  it("adds up the series of a metric beyond the bound", () => {
    const context = empty()
    for (let i = 0; i < 25; i++) {
      const attributes = { i: String(i) }
      Metric.counter("c", { attributes }).updateUnsafe(2, context)
      Metric.histogram("h", { attributes, boundaries: [1] }).updateUnsafe(0.5, context)
    }
    for (let i = 0; i < 25; i++) Metric.frequency("f").updateUnsafe(`w${i}`, context)
    const samples = parseExposition(rendered(context, { maxSeries: 10 }))
    const overflow = samples.filter((sample) => sample.labels["otel_metric_overflow"] === "true")
    assert.deepStrictEqual(overflow.map(({ labels, name, value }) => [name, labels["le"], value]), [
      ["c_total", undefined, 30],
      ["h_bucket", "+Inf", 15],
      ["h_sum", undefined, 7.5],
      ["h_count", undefined, 15],
      ["f_total", undefined, 15]
    ])
    assert.strictEqual(samples.filter((sample) => sample.name === "c_total").length, 11)
    assert.strictEqual(samples.filter((sample) => sample.name === "f_total").length, 11)
  })

  it("leaves out a gauge that cannot be read, and nothing else", () => {
    const context = empty()
    Metric.registerUnsafe(Metric.gauge("broken"), context, {
      get: () => {
        throw new Error("gone")
      },
      update: () => {},
      modify: () => {}
    })
    Metric.gauge("fine").updateUnsafe(1, context)
    assert.deepStrictEqual(parseExposition(rendered(context)).map((sample) => sample.name), ["fine"])
  })

  it.effect("answers in the text format, and in OpenMetrics when asked", () => {
    const context = empty()
    ToolMetrics.series(ToolMetrics.callTotal, { "tool.id": "a", outcome: "ok" })(1, context)
    return served(context, async (get) => {
      const plain = await get()
      assert.strictEqual(plain.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
      parseExposition(await plain.text())
      const accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5"
      const open = await get({ headers: { accept } })
      assert.strictEqual(open.headers.get("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8")
      assert.match(
        await open.text(),
        /^# HELP tool_call [^\n]+\n# TYPE tool_call counter\ntool_call_total\{[^\n]+\} 1\n# EOF\n$/
      )
      const refused = await get({ headers: { accept: "application/openmetrics-text;q=0, */*" } })
      assert.match(refused.headers.get("content-type") ?? "", /^text\/plain/)
    })
  })

  it.effect("renders once for all who ask together, and nothing older than the question", () => {
    const context = empty()
    let reads = 0
    Metric.registerUnsafe(Metric.gauge("reads"), context, {
      get: () => ({ value: ++reads }),
      update: () => {},
      modify: () => {}
    })
    return served(context, async (get) => {
      const together = await Promise.all(Array.from({ length: 50 }, async () => (await get()).text()))
      assert.strictEqual(new Set(together).size, 1)
      assert.strictEqual(reads, 1)
      assert.include(await (await get()).text(), "reads 2\n")
    })
  })

  it.effect("lets in only whom the guard lets in, nobody when it breaks", () =>
    Effect.gen(function*() {
      const guard: PrometheusRoutes.Options["guard"] = (request) =>
        request.headers["x-scraper"] === "broken"
          ? Effect.die("broken")
          : Effect.succeed(request.headers["x-scraper"] === "yes")
      yield* served(empty(), async (get) => {
        assert.strictEqual((await get()).status, 403)
        assert.strictEqual((await get({ headers: { "x-scraper": "broken" } })).status, 403)
        assert.strictEqual((await get({ headers: { "x-scraper": "yes" } })).status, 200)
      }, { guard, path: "/internal/metrics" })
    }))

  it("refuses a metric's label that its definition does not list, and nonsense options", () => {
    assert.throws(() => ToolMetrics.series(ToolMetrics.callTotal, { principal: "ada" }), "no label \"principal\"")
    assert.throws(() => PrometheusRoutes.layer({ maxSeries: 0 }), "maxSeries must be an integer >= 1, got 0")
  })
})
