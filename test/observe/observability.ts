/**
 * Writes the dashboard and the alert rules from the definitions of the metrics, so that neither names a metric that there
 * is not. Run it after a change of metrics: `node -C @effect-toolops/source test/observe/observability.ts`.
 */
import { Context, Effect, Metric } from "effect"
import { AuditLog } from "effect-toolops/auth"
import { Telemetry } from "effect-toolops/node"
import { PrometheusRoutes, StructuredLogger, ToolMetrics } from "effect-toolops/observe"
import { ResilienceMetrics } from "effect-toolops/resilience"
import { writeFileSync } from "node:fs"
import { join } from "node:path"

const definitions: ReadonlyArray<ToolMetrics.Definition> = [
  ...ToolMetrics.all,
  ...AuditLog.metrics,
  ...ResilienceMetrics.metrics,
  StructuredLogger.dropped,
  Telemetry.exported,
  Telemetry.dropped
]

/** The names under which Prometheus finds the samples of a metric. */
const names = (definition: ToolMetrics.Definition): ReadonlyArray<string> => {
  const context = Context.make(Metric.MetricRegistry, new Map())
  ToolMetrics.series(definition, {})(1, context)
  const text = Effect.runSync(Effect.provideContext(PrometheusRoutes.make()(), context))
  return [...new Set([...text.matchAll(/^([a-z_]+)(?:\{[^\n]*\})? [0-9.]+$/gm)].map(([, name = ""]) => name))]
}

/** Every name under which Prometheus finds a sample of ours, with the labels that it may have. */
export const exposed = (): ReadonlyMap<string, ReadonlyArray<string>> => {
  const all = new Map<string, ReadonlyArray<string>>()
  for (const definition of definitions) {
    const labels = definition.labels.map((label) => label.replaceAll(".", "_"))
    for (const name of names(definition)) all.set(name, name.endsWith("_bucket") ? [...labels, "le"] : labels)
  }
  return all
}

/** The name of a definition's samples in Prometheus. */
const sample = (definition: ToolMetrics.Definition | undefined, suffix = ""): string => {
  const found = definition === undefined ? undefined : names(definition).find((name) => name.endsWith(suffix))
  if (found === undefined) throw new Error(`${definition?.name} is not exposed`)
  return found
}

const resilience = (name: string): string => sample(ResilienceMetrics.metrics.find((metric) => metric.name === name))

const calls = sample(ToolMetrics.callTotal)
const executions = sample(ToolMetrics.execTotal)
const errors = sample(ToolMetrics.execErrors)
const cache = sample(ToolMetrics.cacheTotal)
const auth = sample(ToolMetrics.authTotal)
const limit = sample(ToolMetrics.limitTotal)
const retries = sample(ToolMetrics.retryTotal)
const late = sample(ToolMetrics.lateTotal)
const callCount = sample(ToolMetrics.callDuration, "_count")
const callBucket = sample(ToolMetrics.callDuration, "_bucket")
const execBucket = sample(ToolMetrics.execDuration, "_bucket")
const suppressed = sample(ToolMetrics.logSuppressed)
const unread = sample(StructuredLogger.dropped)
const [audit = "", auditLag = "", auditQueued = ""] = AuditLog.metrics.map((definition) =>
  sample(definition, definition.type === "histogram" ? "_bucket" : "")
)

const circuit = resilience("tool.circuit.state")
const transitions = resilience("tool.circuit.transitions")
const active = resilience("tool.bulkhead.active")
const queued = resilience("tool.bulkhead.queued")
const timeouts = resilience("tool.timeout.total")
const lateAttempts = resilience("tool.timeout.late")
const attempts = resilience("tool.retry.attempts")
const hedges = resilience("tool.hedge.total")

const exported = sample(Telemetry.exported)
const dropped = sample(Telemetry.dropped)

const rate = (series: string, by: string, window = "5m"): string => `sum by (${by}) (rate(${series}[${window}]))`

const hitRatio = (window: string): string =>
  `${rate(`${cache}{result=~"hit|stale|coalesced"}`, "tool_id", window)} / ` +
  `${rate(`${cache}{result!="bypass"}`, "tool_id", window)}`

/**
 * Whether a counter has risen. `increase` does not see a series that begins with a value, as that of a tool's first defect
 * does; it counts here if it was not there a while ago although its target was. So a first one that comes before the
 * target has been there for that while is told at the end of it, and one before the target was first asked is never told:
 * it cannot be told from an old one.
 */
const rose = (series: string, by: string, window: string): string =>
  `sum by (${by}) (increase(${series}[${window}])) > 0 or sum by (${by}) (${series} unless ` +
  `${series} offset ${window} and on (job, instance) up offset ${window} == 1) > 0`

export interface Rule {
  readonly alert: string
  readonly expr: string
  readonly for: string
  readonly severity: "warning" | "critical"
  readonly summary: string
}

export const rules: ReadonlyArray<Rule> = [
  {
    alert: "ToolErrorRatioHigh",
    expr: `${rate(errors, "tool_id")} / ${rate(executions, "tool_id")} > 0.05`,
    for: "10m",
    severity: "critical",
    summary: "More than 5 % of the executions of {{ $labels.tool_id }} fail"
  },
  {
    alert: "ToolCircuitOpen",
    expr: `${rate(`${callCount}{error_type="CircuitOpen"}`, "tool_id")} > 0`,
    for: "1m",
    severity: "critical",
    summary: "Calls of {{ $labels.tool_id }} are refused by an open circuit"
  },
  {
    alert: "ToolCircuitStaysOpen",
    // Half-open for a probe now and then, it has still not closed: one that hangs is half-open for as long as it hangs.
    expr: `max by (dependency) (${circuit} >= 1 and max_over_time(${circuit}[5m]) == 2)`,
    for: "5m",
    severity: "warning",
    summary: "The circuit of {{ $labels.dependency }} has not closed for 5 minutes"
  },
  {
    alert: "ToolBulkheadFull",
    expr: `max by (dependency) (min_over_time(${queued}[5m])) > 0`,
    for: "5m",
    severity: "warning",
    summary: "Calls of {{ $labels.dependency }} have to wait for a slot all the time"
  },
  {
    alert: "ToolTimeouts",
    expr: `${rate(`${calls}{outcome="timed_out"}`, "tool_id")} / ${rate(calls, "tool_id")} > 0.01`,
    for: "10m",
    severity: "warning",
    summary: "More than 1 % of the calls of {{ $labels.tool_id }} are not done in time"
  },
  {
    alert: "ToolDefects",
    expr: rose(`${calls}{outcome="defect"}`, "tool_id", "10m"),
    for: "0m",
    severity: "critical",
    summary: "The handler of {{ $labels.tool_id }} dies: a bug"
  },
  {
    alert: "ToolRefusals",
    expr: `${rate(`${calls}{outcome=~"denied|unauthenticated|limited"}`, "tool_id")} / ${rate(calls, "tool_id")} > 0.2`,
    for: "10m",
    severity: "warning",
    summary: "More than 20 % of the calls of {{ $labels.tool_id }} are refused"
  },
  {
    alert: "ToolAuditRecordsLost",
    expr: rose(`${audit}{result="lost"}`, "", "5m"),
    for: "0m",
    severity: "critical",
    summary: "Records of the audit log are lost"
  },
  {
    alert: "ToolCacheRatioFalling",
    expr: `(${hitRatio("15m")}) < 0.5 * (${hitRatio("1d")})`,
    for: "15m",
    severity: "warning",
    summary: "The cache answers half as many calls of {{ $labels.tool_id }} as it did"
  },
  {
    alert: "ToolTelemetryLost",
    expr: rose(dropped, "signal, reason", "10m"),
    for: "5m",
    severity: "warning",
    summary: "The collector does not get all {{ $labels.signal }}: {{ $labels.reason }}"
  }
]

const introduction = [
  "# Written by test/observe/observability.ts.",
  "#",
  "# ToolDefects fires at a tool's first defect once Prometheus has asked the program for 10 minutes; one that came earlier",
  "# is told when these are over, and one before the program was first asked is not told. The counters of",
  "# ToolAuditRecordsLost and ToolTelemetryLost begin at zero, so only what was lost before that is not told."
]

/** `alerts.yml`. Strings are written as JSON, which YAML takes. */
export const alerts = (): string => {
  const lines = [...introduction, "groups:", "  - name: effect-toolops", "    rules:"]
  for (const rule of rules) {
    lines.push(
      `      - alert: ${rule.alert}`,
      `        expr: ${JSON.stringify(rule.expr)}`,
      `        for: ${rule.for}`,
      "        labels:",
      `          severity: ${rule.severity}`,
      "        annotations:",
      `          summary: ${JSON.stringify(rule.summary)}`
    )
  }
  return `${lines.join("\n")}\n`
}

interface Panel {
  readonly title: string
  readonly unit: string
  readonly queries: ReadonlyArray<readonly [expr: string, legend: string]>
}

const quantile = (q: number, bucket: string): string => `histogram_quantile(${q}, ${rate(bucket, "le, tool_id")})`

const panels: ReadonlyArray<Panel> = [
  { title: "Calls by outcome", unit: "reqps", queries: [[rate(calls, "outcome"), "{{outcome}}"]] },
  { title: "Calls by tool", unit: "reqps", queries: [[rate(calls, "tool_id"), "{{tool_id}}"]] },
  {
    title: "Duration of calls",
    unit: "s",
    queries: [[quantile(0.5, callBucket), "p50 {{tool_id}}"], [quantile(0.99, callBucket), "p99 {{tool_id}}"]]
  },
  { title: "Duration of executions, p99", unit: "s", queries: [[quantile(0.99, execBucket), "{{tool_id}}"]] },
  {
    title: "Share of executions that fail",
    unit: "percentunit",
    queries: [[`${rate(errors, "tool_id")} / ${rate(executions, "tool_id")}`, "{{tool_id}}"]]
  },
  {
    title: "Errors by kind",
    unit: "ops",
    queries: [[rate(errors, "tool_id, error_type"), "{{tool_id}} {{error_type}}"]]
  },
  { title: "Share answered by the cache", unit: "percentunit", queries: [[hitRatio("5m"), "{{tool_id}}"]] },
  {
    title: "Retries and late answers",
    unit: "ops",
    queries: [[rate(retries, "tool_id"), "retry {{tool_id}}"], [rate(late, "tool_id"), "late {{tool_id}}"]]
  },
  { title: "State of circuits", unit: "none", queries: [[`max by (dependency) (${circuit})`, "{{dependency}}"]] },
  {
    title: "Changes of circuits",
    unit: "ops",
    queries: [[rate(transitions, "dependency, from, to"), "{{dependency}} {{from}} to {{to}}"]]
  },
  {
    title: "Bulkheads",
    unit: "none",
    queries: [[`sum by (dependency) (${active})`, "{{dependency}} in use"], [
      `sum by (dependency) (${queued})`,
      "{{dependency}} waiting"
    ]]
  },
  {
    title: "Retries, hedges, timeouts and late answers by dependency",
    unit: "ops",
    queries: [
      [rate(attempts, "dependency"), "retry {{dependency}}"],
      [rate(hedges, "dependency"), "hedge {{dependency}}"],
      [rate(timeouts, "dependency"), "timeout {{dependency}}"],
      [rate(lateAttempts, "dependency"), "late {{dependency}}"]
    ]
  },
  { title: "Decisions of auth", unit: "ops", queries: [[rate(auth, "decision"), "{{decision}}"]] },
  {
    title: "Decisions of limits",
    unit: "ops",
    queries: [[rate(limit, "limit, decision"), "{{limit}} {{decision}}"]]
  },
  { title: "Records of the audit log", unit: "ops", queries: [[rate(audit, "result"), "{{result}}"]] },
  { title: "Records that wait for the audit log", unit: "none", queries: [[`sum(${auditQueued})`, "waiting"]] },
  {
    title: "Log lines left out, for repeated refusals and for want of a reader",
    unit: "ops",
    queries: [[rate(suppressed, "tool_id"), "{{tool_id}}"], [`sum(rate(${unread}[5m]))`, "not read"]]
  },
  {
    title: "Lag of the audit log, p99",
    unit: "s",
    queries: [[`histogram_quantile(0.99, ${rate(auditLag, "le")})`, "lag"]]
  },
  {
    title: "Spans and data points sent and lost",
    unit: "ops",
    queries: [[rate(exported, "signal"), "{{signal}} sent"], [
      rate(dropped, "signal, reason"),
      "{{signal}} lost: {{reason}}"
    ]]
  }
]

/** `grafana-dashboard.json`. */
export const dashboard = (): string => {
  const source = { type: "prometheus", uid: "${source}" }
  const body = {
    title: "effect-toolops",
    uid: "effect-toolops",
    schemaVersion: 39,
    time: { from: "now-1h", to: "now" },
    refresh: "30s",
    templating: { list: [{ name: "source", type: "datasource", query: "prometheus" }] },
    panels: panels.map((panel, i) => ({
      id: i + 1,
      type: "timeseries",
      title: panel.title,
      datasource: source,
      gridPos: { x: (i % 2) * 12, y: Math.floor(i / 2) * 8, w: 12, h: 8 },
      fieldConfig: { defaults: { unit: panel.unit, min: 0 }, overrides: [] },
      targets: panel.queries.map(([expr, legendFormat], n) => ({
        refId: String.fromCharCode(65 + n),
        datasource: source,
        expr,
        legendFormat
      }))
    }))
  }
  return `${JSON.stringify(body, undefined, 2)}\n`
}

/** Every query of the dashboard and of the rules. */
export const queries = (): ReadonlyArray<string> => [
  ...rules.map((rule) => rule.expr),
  ...panels.flatMap((panel) => panel.queries.map(([expr]) => expr))
]

export const folder = join(import.meta.dirname, "../../observability")

if (process.argv[1] === import.meta.filename) {
  writeFileSync(join(folder, "alerts.yml"), alerts())
  writeFileSync(join(folder, "grafana-dashboard.json"), dashboard())
}
