import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Metric } from "effect"
import { PrometheusRoutes, ToolMetrics } from "effect-toolops/observe"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { hostileContext, parseExposition } from "./exposition.ts"

const empty = (): Context.Context<never> => Context.make(Metric.MetricRegistry, new Map())

const rendered = (context: Context.Context<never>, options?: Parameters<typeof PrometheusRoutes.make>[0]) =>
  Effect.runSync(Effect.provideContext(PrometheusRoutes.make(options)(), context))

/** Serves the metrics of a context and asks for them. */
const served = (
  context: Context.Context<never>,
  f: (get: (init?: RequestInit, path?: string) => Promise<Response>) => Promise<void>,
  options?: PrometheusRoutes.Options,
  others: Layer.Layer<never, never, HttpRouter.HttpRouter> = Layer.empty
) =>
  Effect.promise(async () => {
    const routes = Layer.merge(PrometheusRoutes.layer(options), others).pipe(
      Layer.provide(Layer.effectContext(Effect.succeed(context)))
    )
    const { dispose, handler } = HttpRouter.toWebHandler(routes)
    await f(
      (init, path = options?.path ?? "/metrics") => handler(new Request(`http://localhost${path}`, init), context)
    )
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
    for (const { id, state, type } of Metric.snapshotUnsafe(context)) {
      // Boundaries and quantiles that would be written alike are one, and NaN is none.
      expected += id.endsWith(".bounds")
        ? 6
        : id.endsWith(".parts")
        ? 3
        : type === "Histogram"
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
    for (let i = 0; i < 25; i++) {
      Metric.gauge("g", { attributes: { i: String(i), unit: "ms" } }).updateUnsafe(1000, context)
      Metric.summaryWithTimestamp("s", {
        attributes: { i: String(i) },
        maxAge: "1 minute",
        maxSize: 9,
        quantiles: [0.5]
      }).updateUnsafe([3, Date.now()], context)
    }
    for (let i = 0; i < 25; i++) Metric.frequency("f").updateUnsafe(`w${i}`, context)
    const samples = parseExposition(rendered(context, { maxSeries: 10 }))
    const overflow = samples.filter((sample) => sample.labels["otel_metric_overflow"] === "true")
    assert.deepStrictEqual(overflow.map(({ labels, name, value }) => [name, labels["le"], value]), [
      ["c_total", undefined, 30],
      ["h_bucket", "+Inf", 15],
      ["h_sum", undefined, 7.5],
      ["h_count", undefined, 15],
      ["g_seconds", undefined, 15],
      ["s_sum", undefined, 45],
      ["s_count", undefined, 15],
      ["f_total", undefined, 15]
    ])
    assert.strictEqual(samples.filter((sample) => sample.name === "c_total").length, 11)
    assert.strictEqual(samples.filter((sample) => sample.name === "f_total").length, 11)
  })

  it("holds the samples of a metric of words to the bound, all its series together", () => {
    const context = empty()
    const bump = (series: number, word: string) =>
      Metric.frequency("f", { attributes: { series: String(series) } }).updateUnsafe(word, context)
    for (let i = 0; i < 30; i++) for (let j = 0; j < 30; j++) bump(i, `w${j}`)
    const render = PrometheusRoutes.make({ maxSeries: 10 })
    const samples = () => parseExposition(Effect.runSync(Effect.provideContext(render(), context)))
    const first = samples()
    assert.strictEqual(first.length, 11)
    assert.deepStrictEqual(first.at(-1), { name: "f_total", labels: { otel_metric_overflow: "true" }, value: 890 })
    // What was told once is told again: a series must not jump to another place and back.
    bump(0, "new")
    assert.deepStrictEqual(samples().slice(0, 10), first.slice(0, 10))
    assert.strictEqual(samples().at(-1)?.value, 891)
  })

  it("tells the words that it has told also after metrics have come and gone", () => {
    const context = empty()
    const a = Metric.frequency("f", { attributes: { s: "a" } })
    const b = Metric.frequency("f", { attributes: { s: "b" } })
    a.updateUnsafe("a1", context)
    for (const word of ["b1", "b2", "b3", "b3"]) b.updateUnsafe(word, context)
    const render = PrometheusRoutes.make({ maxSeries: 3 })
    const lines = () =>
      Effect.runSync(Effect.provideContext(render(), context)).split("\n").filter((line) => line.startsWith("f_"))
    const told = [
      "f_total{s=\"a\",key=\"a1\"} 1",
      "f_total{s=\"b\",key=\"b1\"} 1",
      "f_total{s=\"b\",key=\"b2\"} 1"
    ]
    assert.deepStrictEqual(lines(), [...told, "f_total{otel_metric_overflow=\"true\"} 2"])
    a.updateUnsafe("a2", context)
    const other = Metric.counter("other")
    other.updateUnsafe(1, context)
    assert.deepStrictEqual(lines(), [...told, "f_total{otel_metric_overflow=\"true\"} 3"])
    // What has gone for good makes room.
    Metric.removeUnsafe(a, context)
    assert.deepStrictEqual(lines(), [...told.slice(1), "f_total{s=\"b\",key=\"b3\"} 2"])
  })

  it("tells what is no number as one that is not, and a boundary written twice once", () => {
    const context = empty()
    const notANumber: any = "12; drop"
    Metric.gauge("g").updateUnsafe(notANumber, context)
    Metric.gauge("k", { attributes: { odd: Object.create(null) } }).updateUnsafe(1, context)
    Metric.histogram("h", { boundaries: [NaN, -Infinity, 2, 2] }).updateUnsafe(1, context)
    Metric.summaryWithTimestamp("s", { maxAge: "1 minute", maxSize: 9, quantiles: [0.5, 0.5] })
      .updateUnsafe([3, Date.now()], context)
    assert.deepStrictEqual(rendered(context).split("\n").filter((line) => !line.startsWith("#")), [
      "g NaN",
      "k{odd=\"[unreadable]\"} 1",
      "h_bucket{le=\"-Inf\"} 0",
      "h_bucket{le=\"2\"} 1",
      "h_bucket{le=\"+Inf\"} 1",
      "h_sum 1",
      "h_count 1",
      "s{quantile=\"0.5\"} 3",
      "s_sum 3",
      "s_count 1",
      ""
    ])
  })

  it("follows a histogram that is read from elsewhere when its boundaries change", () => {
    const context = empty()
    const bucket: [boundary: number, count: number] = [1, 2]
    Metric.registerUnsafe(Metric.histogram("h", { boundaries: [] }), context, {
      get: () => ({ buckets: [bucket], count: 3, min: 0, max: 9, sum: 10 }),
      update: () => {},
      modify: () => {}
    })
    const render = PrometheusRoutes.make()
    const line = () => Effect.runSync(Effect.provideContext(render(), context)).split("\n")[2]
    assert.strictEqual(line(), "h_bucket{le=\"1\"} 2")
    bucket[0] = 5
    assert.strictEqual(line(), "h_bucket{le=\"5\"} 2")
  })

  it("has a name and a help where a metric has none, and no unit that is a member of every object", () => {
    const context = empty()
    Metric.counter("_total").updateUnsafe(1, context)
    Metric.gauge("blank", { description: " \t " }).updateUnsafe(1, context)
    Metric.counter("c", { attributes: { unit: "constructor" } }).updateUnsafe(1, context)
    assert.deepStrictEqual(rendered(context).split("\n"), [
      "# HELP __total _total",
      "# TYPE __total counter",
      "__total 1",
      "# HELP blank blank",
      "# TYPE blank gauge",
      "blank 1",
      "# HELP c_total c",
      "# TYPE c_total counter",
      "c_total 1",
      ""
    ])
  })

  it("keeps the label by which it tells equal series apart to itself", () => {
    const context = empty()
    for (const label of ["a.b", "a_b"]) {
      Metric.counter("c", { attributes: { [label]: "1", duplicate: "x" } }).updateUnsafe(1, context)
    }
    assert.deepStrictEqual(parseExposition(rendered(context)).map(({ labels }) => ({ ...labels })), [
      { a_b: "1", duplicate_2: "x" },
      { a_b: "1", duplicate_2: "x", duplicate: "2" }
    ])
  })

  it("tells no secret in names, helps, labels and words, and leaves the names of tools alone", () => {
    const context = empty()
    const attributes = { session_token: "canary", note: "Bearer canary", "tool.id": "secrets:list", iban: "canary" }
    Metric.counter("Bearer canary", { attributes, description: "Bearer canary" }).updateUnsafe(1, context)
    for (const word of ["password=canary", "password=canary2", "key"]) Metric.frequency("f").updateUnsafe(word, context)
    const text = rendered(context, { redact: ["iban"] })
    assert.notInclude(text, "canary")
    assert.deepStrictEqual(parseExposition(text).map(({ labels, value }) => [{ ...labels }, value]), [
      [{
        iban: "<redacted>",
        note: "Bearer <redacted>",
        session_token: "<redacted>",
        tool_id: "secrets:list"
      }, 1],
      [{ key: "password=<redacted>" }, 2],
      [{ key: "key" }, 1]
    ])
  })

  it("tells series apart whose labels are redacted alike, whichever came first", () => {
    const told = (values: ReadonlyArray<string>) => {
      const context = empty()
      for (const value of values) {
        Metric.counter("c", { attributes: { auth: value } }).updateUnsafe(value.length, context)
        Metric.counter("n", { attributes: { note: `token=${value}` } }).updateUnsafe(value.length, context)
        Metric.counter("k", { attributes: { [`token=${value}`]: "1" } }).updateUnsafe(value.length, context)
        Metric.counter("l", { attributes: { note: `${value} ${"x".repeat(40_000)}` } }).updateUnsafe(
          value.length,
          context
        )
      }
      const text = rendered(context)
      assert.notInclude(text, "duplicate")
      for (const value of values) assert.notMatch(text, new RegExp(`token=${value}|"${value}"`))
      return parseExposition(text).map((sample) => JSON.stringify(sample)).toSorted()
    }
    const [first, second] = [told(["bypass", "hit"]), told(["hit", "bypass"])]
    assert.strictEqual(first.length, 8)
    assert.deepStrictEqual(first, second)
    assert.match(first[0]!, /"auth":"<redacted:[0-9a-f]{4}>"/)
    // One alone is told as what it is.
    assert.match(told(["hit"])[0]!, /"auth":"<redacted>"/)
  })

  it("leaves alone what is no secret by its key, and looks into names that may be anybody's", () => {
    const context = empty()
    const count = (name: string, attributes: Record<string, string>) =>
      Metric.counter(name, { attributes }).updateUnsafe(1, context)
    for (const type of ["input", "output"]) count("a", { "gen_ai.token.type": type })
    for (const limit of ["tokens:minute", "tokens:day"]) count("b", { limit })
    for (const dependency of ["secrets:list", "https://u:p4ss@host/x", "db:sk-abcdefghijklmnopqrst"]) {
      count("c", { dependency })
    }
    count("d", { key: "hunter2" })
    assert.deepStrictEqual(parseExposition(rendered(context)).map(({ labels }) => ({ ...labels })), [
      { gen_ai_token_type: "input" },
      { gen_ai_token_type: "output" },
      { limit: "tokens:minute" },
      { limit: "tokens:day" },
      { dependency: "secrets:list" },
      { dependency: "https://<redacted>@host/x" },
      { dependency: "db:<redacted>" },
      { key: "<redacted>" }
    ])
  })

  it("tells every unit in its base unit", () => {
    const units: Record<string, readonly [name: string, value: string]> = {
      s: ["m_seconds", "5"],
      second: ["m_seconds", "5"],
      seconds: ["m_seconds", "5"],
      ms: ["m_seconds", "0.005"],
      millisecond: ["m_seconds", "0.005"],
      milliseconds: ["m_seconds", "0.005"],
      us: ["m_seconds", "0.000005"],
      microseconds: ["m_seconds", "0.000005"],
      ns: ["m_seconds", "5e-9"],
      nanoseconds: ["m_seconds", "5e-9"],
      By: ["m_bytes", "5"],
      byte: ["m_bytes", "5"],
      bytes: ["m_bytes", "5"],
      KiBy: ["m_bytes", "5120"],
      MiBy: ["m_bytes", "5242880"],
      "{call}": ["m", "5"]
    }
    for (const [unit, [name, value]] of Object.entries(units)) {
      const context = empty()
      Metric.gauge("m", { attributes: { unit } }).updateUnsafe(5, context)
      assert.include(rendered(context), `\n${name} ${value}\n`)
    }
  })

  it("puts the prefix before every name, and `exported_` before a label that Prometheus has for itself", () => {
    const context = empty()
    Metric.histogram("h", { boundaries: [1], attributes: { le: "x" } }).updateUnsafe(2, context)
    const samples = parseExposition(rendered(context, { prefix: "my.app_" }))
    assert.deepStrictEqual(samples.map(({ labels, name }) => [name, { ...labels }]), [
      ["my_app_h_bucket", { exported_le: "x", le: "1" }],
      ["my_app_h_bucket", { exported_le: "x", le: "+Inf" }],
      ["my_app_h_sum", { exported_le: "x" }],
      ["my_app_h_count", { exported_le: "x" }]
    ])
  })

  it.effect("is neither kept by what is on the way nor told in the log of requests", () =>
    Effect.gen(function*() {
      const lines: Array<unknown> = []
      const logger = Logger.make(({ message }) => lines.push(message))
      const other = HttpRouter.add("GET", "/other", HttpServerResponse.empty())
      const context = Context.merge(empty(), yield* Layer.build(Logger.layer([logger])))
      yield* served(
        context,
        async (get) => {
          await get({}, "/other")
          assert.strictEqual(lines.length, 1)
          const response = await get()
          assert.strictEqual(response.headers.get("cache-control"), "no-store")
          await response.text()
          assert.strictEqual(lines.length, 1)
        },
        { prefix: "p_" },
        other
      )
    }))

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
    const quoting = empty()
    Metric.gauge("g", { description: "a \"b\" \\ c" }).updateUnsafe(1, quoting)
    const help = (format: "prometheus" | "openmetrics") =>
      Effect.runSync(Effect.provideContext(PrometheusRoutes.make()(format), quoting)).split("\n")[0]
    assert.strictEqual(help("prometheus"), "# HELP g a \"b\" \\\\ c")
    assert.strictEqual(help("openmetrics"), "# HELP g a \\\"b\\\" \\\\ c")
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
