import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { alerts, dashboard, exposed, folder, queries, rules } from "./observability.ts"

const keywords = new Set(["and", "or", "unless"])

/** What a query selects: `up` is Prometheus' own. */
const selected = (query: string): ReadonlyArray<string> =>
  (query.replaceAll(/\{[^}]*\}|\[[^\]]*\]|\b(?:by|on) \([^)]*\)|offset \w+/g, " ").match(/[a-z_]+\b(?!\s*\()/g) ?? [])
    .filter((word) => !keywords.has(word) && word !== "up")

interface Scenario {
  readonly alert: string
  readonly what: string
  /** Samples of every half minute, in the notation of promtool. */
  readonly series: Readonly<Record<string, string>>
  readonly minutes: number
  /** The labels of the alert, or undefined where it must be silent. */
  readonly fires: Readonly<Record<string, string>> | undefined
}

const at = "instance=\"a\",job=\"j\""
const up = { [`up{${at}}`]: "1x120" }
const t = { tool_id: "t" }

const defects = `tool_call_total{outcome="defect",tool_id="t",${at}}`
const dropped = `telemetry_dropped_total{signal="traces",reason="queue_full",${at}}`
const lost = `tool_audit_total{result="lost",${at}}`
const called = (outcome: string) => `tool_call_total{outcome="${outcome}",tool_id="t",${at}}`
const cached = (result: string) => `tool_cache_total{result="${result}",tool_id="t",${at}}`
const refused = `gen_ai_execute_tool_duration_seconds_count{error_type="CircuitOpen",tool_id="t",${at}}`
const state = `tool_circuit_state{dependency="db",${at}}`
const queue = `tool_bulkhead_queued{dependency="db",${at}}`
const errors = `tool_exec_errors_total{error_type="X",tool_id="t",${at}}`
const executions = `tool_exec_total{tool_id="t",${at}}`

const scenario = (
  alert: string,
  what: string,
  series: Scenario["series"],
  minutes: number,
  fires?: Scenario["fires"]
): Scenario => ({ alert, what, series, minutes, fires })

const scenarios: ReadonlyArray<Scenario> = [
  scenario("ToolErrorRatioHigh", "1 of 10", { [errors]: "0+1x120", [executions]: "0+10x120" }, 20, t),
  scenario("ToolErrorRatioHigh", "1 of 25", { [errors]: "0+1x120", [executions]: "0+25x120" }, 20),
  scenario("ToolCircuitOpen", "calls refused", { [refused]: "0+1x120" }, 10, t),
  scenario("ToolCircuitStaysOpen", "open", { [state]: "2x120" }, 10, { dependency: "db" }),
  scenario("ToolCircuitStaysOpen", "probed in vain", { [state]: "0 2 2 1 2 2 1 2 2 1 2 2 1 2 2 1 2 2 1 2 2" }, 9, {
    dependency: "db"
  }),
  scenario("ToolCircuitStaysOpen", "not for 5 minutes yet", { [state]: "0 2 2 1 2 2 1 2 2 1 2 2 1 2 2 1 2 2 1" }, 5),
  scenario("ToolCircuitStaysOpen", "closed in between", { [state]: "2 2 1 2 1 0 2 2 1 2 1 0 2 2 1 2 1 0 2 2 1" }, 9),
  scenario("ToolCircuitStaysOpen", "half-open for want of calls", { [state]: "2 2 1x40" }, 15),
  scenario("ToolBulkheadFull", "always someone waits", { [queue]: "3 1 2 5x120" }, 20, { dependency: "db" }),
  scenario("ToolBulkheadFull", "sometimes no one waits", { [queue]: "3 0 9 9 0 9 9 0 9 9 0 9 9 0 9 9 0 9 9 0 9" }, 10),
  scenario("ToolTimeouts", "1 of 11", { [called("timed_out")]: "0+1x120", [called("ok")]: "0+10x120" }, 20, t),
  scenario("ToolDefects", "the first of a tool", { ...up, [defects]: "_x20 1x100" }, 11, t),
  scenario("ToolDefects", "the first of a tool that was called before", { ...up, [defects]: "0x20 1x100" }, 11, t),
  scenario(
    "ToolDefects",
    "the first, soon after the start of the program",
    { [`up{${at}}`]: "_x2 1x120", [defects]: "_x4 1x120" },
    11.5,
    t
  ),
  scenario(
    "ToolDefects",
    "the first, in the first 10 minutes of the program, before these are over",
    { [`up{${at}}`]: "_x2 1x120", [defects]: "_x4 1x120" },
    9
  ),
  scenario(
    "ToolDefects",
    "before the program was first asked",
    { [`up{${at}}`]: "_x2 1x120", [defects]: "_x2 1x120" },
    11.5
  ),
  scenario("ToolDefects", "long ago", { ...up, [defects]: "_x20 1x100" }, 31),
  scenario(
    "ToolDefects",
    "before Prometheus was started",
    { [`up{${at}}`]: "_x40 1x80", [defects]: "_x40 1x80" },
    25
  ),
  scenario("ToolRefusals", "half", { [called("denied")]: "0+1x120", [called("ok")]: "0+1x120" }, 20, t),
  scenario("ToolAuditRecordsLost", "the first", { ...up, [lost]: "0x20 7x100" }, 11, {}),
  scenario("ToolAuditRecordsLost", "none", { ...up, [lost]: "0x120" }, 11),
  scenario(
    "ToolCacheRatioFalling",
    "no hits any more",
    { [cached("hit")]: "0+1x240 240x80", [cached("miss")]: "0+1x320" },
    160,
    t
  ),
  scenario("ToolTelemetryLost", "once", { ...up, [dropped]: "0x20 500x100" }, 16, {
    signal: "traces",
    reason: "queue_full"
  }),
  scenario("ToolTelemetryLost", "nothing", { ...up, [dropped]: "0x120" }, 30)
]

describe("observability", () => {
  it("has the files that the definitions of the metrics make", () => {
    assert.strictEqual(readFileSync(join(folder, "alerts.yml"), "utf8"), alerts())
    assert.strictEqual(readFileSync(join(folder, "grafana-dashboard.json"), "utf8"), dashboard())
  })

  it("asks for metrics and labels only that there are", () => {
    const known = exposed()
    const labels = new Set([...known.values()].flat())
    for (const query of queries()) {
      assert.isAbove(selected(query).length, 0, query)
      for (const name of selected(query)) assert.isTrue(known.has(name), `${name} in ${query}`)
      for (const [, name = "", matchers = ""] of query.matchAll(/([a-z_]+)\{([^}]*)\}/g)) {
        for (const [, label = ""] of matchers.matchAll(/([a-z_]+)(?:=~?|!=)/g)) {
          assert.include(known.get(name) ?? [], label, query)
        }
      }
      for (const [, by = ""] of query.matchAll(/by \(([^)]*)\)/g)) {
        for (const label of by.split(", ")) assert.isTrue(label === "" || labels.has(label), `${label} in ${query}`)
      }
    }
  })

  it("draws or watches every metric", () => {
    const asked = new Set(queries().flatMap(selected))
    const untold = [...exposed().keys()].filter((name) => !asked.has(name) && !/_(?:sum|count|bucket)$/.test(name))
    assert.deepStrictEqual(untold, [])
  })

  const hasPromtool = spawnSync("promtool", ["--version"]).error === undefined
  it.skipIf(!hasPromtool)("has rules that promtool accepts", () => {
    const { status, stderr } = spawnSync("promtool", ["check", "rules", join(folder, "alerts.yml")], {
      encoding: "utf8"
    })
    assert.deepStrictEqual([status, stderr], [0, ""])
  })

  it.skipIf(!hasPromtool)("has rules that fire when they should, and not when they should not", () => {
    assert.deepStrictEqual(
      rules.filter(({ alert }) => !scenarios.some((each) => each.alert === alert && each.fires !== undefined)),
      []
    )
    const temporary = mkdtempSync(join(tmpdir(), "rules-"))
    const file = join(temporary, "tests.yml")
    const expected = ({ alert, fires }: Scenario) => {
      const rule = rules.find((each) => each.alert === alert)!
      return fires === undefined ? [] : [{
        exp_labels: { severity: rule.severity, ...fires },
        exp_annotations: {
          summary: rule.summary.replaceAll(/\{\{ \$labels\.(\w+) \}\}/g, (_all, label: string) => fires[label] ?? "")
        }
      }]
    }
    writeFileSync(
      file,
      JSON.stringify({
        rule_files: [join(folder, "alerts.yml")],
        evaluation_interval: "30s",
        tests: scenarios.map((each) => ({
          name: `${each.alert}: ${each.what}`,
          interval: "30s",
          input_series: Object.entries(each.series).map(([series, values]) => ({ series, values })),
          alert_rule_test: [{
            eval_time: `${each.minutes * 60}s`,
            alertname: each.alert,
            exp_alerts: expected(each)
          }]
        }))
      })
    )
    try {
      const { status, stderr, stdout } = spawnSync("promtool", ["test", "rules", file], { encoding: "utf8" })
      assert.strictEqual(status, 0, stdout + stderr)
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  })
})
