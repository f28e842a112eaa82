import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Metric } from "effect"
import { PrometheusRoutes, ToolMetrics } from "effect-toolops/observe"
import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { hostileContext, parseExposition } from "./exposition.ts"

const hasPrometheus = spawnSync("prometheus", ["--version"]).error === undefined &&
  spawnSync("promtool", ["--version"]).error === undefined

const listening = (server: Server): Promise<number> =>
  new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port)))

const freePort = async (): Promise<number> => {
  const server = createServer()
  const port = await listening(server)
  await new Promise((resolve) => server.close(resolve))
  return port
}

describe.skipIf(!hasPrometheus)("PrometheusRoutes and a real Prometheus", () => {
  const context = hostileContext()
  const render = PrometheusRoutes.make({ maxSeries: 100_000 })
  const text = (format: "prometheus" | "openmetrics") => Effect.runSync(Effect.provideContext(render(format), context))

  it("passes promtool check metrics", () => {
    // It lints style too and has no way to leave that out, so only what it cannot parse counts here.
    const { stderr } = spawnSync("promtool", ["check", "metrics"], { input: text("prometheus"), encoding: "utf8" })
    assert.notMatch(stderr, /error while linting|parsing|expected|invalid/i)
  })

  const scrape = async (format: "prometheus" | "openmetrics") => {
    const body = text(format)
    const server = createServer((_request, response) => {
      response.setHeader(
        "content-type",
        format === "prometheus"
          ? "text/plain; version=0.0.4; charset=utf-8"
          : "application/openmetrics-text; version=1.0.0; charset=utf-8"
      )
      response.end(body)
    })
    const target = await listening(server)
    const port = await freePort()
    const folder = mkdtempSync(join(tmpdir(), "prometheus-"))
    const config = {
      scrape_configs: [{
        job_name: "t",
        scrape_interval: "1s",
        static_configs: [{ targets: [`127.0.0.1:${target}`] }]
      }]
    }
    writeFileSync(join(folder, "prometheus.yml"), JSON.stringify(config))
    const child = spawn("prometheus", [
      `--config.file=${join(folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`
    ], { stdio: "ignore" })
    const query = async (name: string): Promise<number | undefined> => {
      try {
        const response = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${name}`)
        const answer: any = await response.json()
        const value = answer.data.result[0]?.value[1]
        return value === undefined ? undefined : Number(value)
      } catch {
        return undefined
      }
    }
    try {
      let up: number | undefined
      for (let i = 0; i < 60 && up === undefined; i++) {
        await new Promise((resolve) => setTimeout(resolve, 150))
        up = await query("up")
      }
      assert.strictEqual(up, 1)
      const expected = parseExposition(text("prometheus")).length
      assert.strictEqual(await query("scrape_samples_scraped"), expected)
      assert.strictEqual(await query("scrape_samples_post_metric_relabeling"), expected)
    } finally {
      child.kill("SIGKILL")
      server.close()
      await new Promise((resolve) => setTimeout(resolve, 100))
      rmSync(folder, { recursive: true, force: true })
    }
  }

  it("is scraped with every sample, in both formats", async () => {
    await Promise.all([scrape("prometheus"), scrape("openmetrics")])
  })

  it("passes promtool check metrics without a complaint where the metrics are our own", () => {
    const own = Context.make(Metric.MetricRegistry, new Map())
    for (const definition of ToolMetrics.all) ToolMetrics.series(definition, { "tool.id": "a" })(1, own)
    const input = Effect.runSync(Effect.provideContext(PrometheusRoutes.make()(), own))
    const { status, stderr } = spawnSync("promtool", ["check", "metrics"], { input, encoding: "utf8" })
    assert.deepStrictEqual([status, stderr], [0, ""])
  })
})
