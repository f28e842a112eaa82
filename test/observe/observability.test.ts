import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { alerts, dashboard, exposed, folder, queries } from "./observability.ts"

describe("observability", () => {
  it("has the files that the definitions of the metrics make", () => {
    assert.strictEqual(readFileSync(join(folder, "alerts.yml"), "utf8"), alerts())
    assert.strictEqual(readFileSync(join(folder, "grafana-dashboard.json"), "utf8"), dashboard())
  })

  it("asks for metrics and labels only that there are", () => {
    const known = exposed()
    const labels = new Set([...known.values()].flat())
    for (const query of queries()) {
      const series = [...query.matchAll(/([a-z_]+)(?:\{([^}]*)\})?\[/g)]
      assert.isAbove(series.length, 0, query)
      for (const [, name = "", matchers = ""] of series) {
        assert.isTrue(known.has(name), `${name} in ${query}`)
        for (const [, label = ""] of matchers.matchAll(/([a-z_]+)(?:=~?|!=)/g)) {
          assert.include(known.get(name) ?? [], label, query)
        }
      }
      for (const [, by = ""] of query.matchAll(/by \(([^)]*)\)/g)) {
        for (const label of by.split(", ")) assert.isTrue(labels.has(label), `${label} in ${query}`)
      }
    }
  })

  const hasPromtool = spawnSync("promtool", ["--version"]).error === undefined
  it.skipIf(!hasPromtool)("has rules that promtool accepts", () => {
    const { status, stderr } = spawnSync("promtool", ["check", "rules", join(folder, "alerts.yml")], {
      encoding: "utf8"
    })
    assert.deepStrictEqual([status, stderr], [0, ""])
  })
})
