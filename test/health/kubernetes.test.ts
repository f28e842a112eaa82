import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { Graceful } from "effect-toolops/node"
import { PrometheusRoutes } from "effect-toolops/observe"
import { HttpRouter } from "effect/http"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseAllDocuments } from "yaml"
import { variables } from "../../examples/server/settings.ts"
import { start } from "../examples/run.ts"
import { until } from "../node/gracefulChild.ts"

const source = readFileSync(new URL("../../observability/kubernetes.yml", import.meta.url), "utf8")
const documents = parseAllDocuments(source, { strict: true })
const objects = documents.map((document): any => document.toJS())
const named = (kind: string) => objects.find((object) => object.kind === kind)
const pod = named("Deployment").spec.template
const container = pod.spec.containers[0]
const probes = { startup: container.startupProbe, ready: container.readinessProbe, live: container.livenessProbe }
const annotations = pod.metadata.annotations
const environment: Record<string, string> = Object.fromEntries(
  container.env.map(({ name, value }: { readonly name: string; readonly value: string }) => [name, value])
)

// What the layers of the example close with after `Graceful`, as written there and in the options of the audit log.
const settle = 1
const connections = 2
const audit = 5

describe("observability/kubernetes.yml", () => {
  it("is YAML without mistakes, of three objects that belong together", () => {
    assert.deepStrictEqual(documents.flatMap(({ errors, warnings }) => [...errors, ...warnings]), [])
    assert.deepStrictEqual(objects.map(({ kind }) => kind), ["Deployment", "Service", "PodDisruptionBudget"])
    const labels = pod.metadata.labels
    assert.deepInclude(labels, named("Deployment").spec.selector.matchLabels)
    assert.deepInclude(labels, named("Service").spec.selector)
    assert.deepInclude(labels, named("PodDisruptionBudget").spec.selector.matchLabels)
    const [port] = container.ports
    for (const { httpGet } of Object.values(probes)) assert.strictEqual(httpGet.port, port.name)
    assert.strictEqual(named("Service").spec.ports[0].targetPort, port.name)
    assert.strictEqual(String(port.containerPort), environment["TOOLOPS_PORT"])
    for (const { mountPath } of container.volumeMounts) assert.match(mountPath, /^\//)
    const volumes = pod.spec.volumes.map(({ name }: { readonly name: string }) => name)
    assert.sameMembers(volumes, container.volumeMounts.map(({ name }: { readonly name: string }) => name))
  })

  it.effect("asks for paths that there are", () =>
    Effect.gen(function*() {
      const Checks = HealthRegistry.layerCheck(HealthCheck.make({ name: "a", check: Effect.void }))
      const App = Layer.mergeAll(HealthRoutes.layer().pipe(Layer.provide(Checks)), PrometheusRoutes.layer()).pipe(
        Layer.provide(HealthRegistry.layer)
      )
      const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
      const paths = [...Object.values(probes).map(({ httpGet }) => httpGet.path), annotations["prometheus.io/path"]]
      assert.strictEqual(new Set(paths).size, 4)
      for (const path of paths) {
        const { status } = yield* Effect.promise(() => handler(new Request(`http://localhost${path}`)))
        assert.strictEqual(status, 200, path)
      }
      yield* Effect.promise(dispose)
      assert.strictEqual(annotations["prometheus.io/scrape"], "true")
      assert.strictEqual(annotations["prometheus.io/port"], environment["TOOLOPS_PORT"])
    }))

  it("gives the program the time that the defaults take, and tells nobody to come while it ends", () => {
    const delay = Graceful.defaults.delayMillis / 1000
    const grace = Graceful.defaults.graceMillis / 1000
    const needed = delay + grace + settle + connections + audit
    assert.isAbove(pod.spec.terminationGracePeriodSeconds, needed)
    const { failureThreshold, periodSeconds, timeoutSeconds } = probes.ready
    // Readiness is seen to have failed before the first call is refused.
    assert.isBelow(periodSeconds * failureThreshold + timeoutSeconds, delay)
    // A check that hangs is answered for by the registry before the probe gives up.
    const check = HealthCheck.make({ name: "a", check: Effect.void })
    for (const probe of Object.values(probes)) {
      assert.isAbove(probe.timeoutSeconds * 1000, check.timeoutMillis)
      assert.isAtMost(probe.timeoutSeconds, probe.periodSeconds)
    }
    // A loop that is blocked for 3 seconds is no reason to restart.
    assert.isAbove(probes.live.periodSeconds * (probes.live.failureThreshold - 1), 3)
  })

  it("is understood by the example server as it is, which ends in order", { timeout: 120_000 }, async () => {
    for (const name of Object.keys(environment)) assert.property(variables, name)
    assert.deepStrictEqual(container.command.slice(0, 4), [
      "node",
      "-C",
      "@effect-toolops/source",
      "examples/server.ts"
    ])
    const folder = mkdtempSync(join(tmpdir(), "effect-toolops-kubernetes-"))
    const keys = join(folder, "keys.json")
    const key = "a-key-that-is-long-enough-for-a-test"
    writeFileSync(keys, JSON.stringify([{ key, principal: "ada", roles: ["reader"] }]))
    // Another port and another folder, since this is no container.
    const { child, closed, printed } = start("server.ts", {
      ...environment,
      TOOLOPS_PORT: "0",
      TOOLOPS_KEYS_FILE: keys
    })
    try {
      const [, port] = /:(\d+)\/mcp/.exec(await printed("/readyz\n")) ?? []
      const statusOf = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).status
      for (const { httpGet } of Object.values(probes)) assert.strictEqual(await statusOf(httpGet.path), 200)
      assert.strictEqual(await statusOf(annotations["prometheus.io/path"]), 200)
      const begun = performance.now()
      child.kill("SIGTERM")
      await until(async () => await statusOf(probes.ready.httpGet.path) === 503)
      assert.strictEqual(await statusOf(probes.live.httpGet.path), 200)
      const { code, stderr } = await closed
      assert.deepStrictEqual([code, stderr], [0, ""])
      // It did wait for the load balancers. Timers may be a millisecond early.
      assert.isAtLeast(performance.now() - begun, Graceful.defaults.delayMillis - 10)
    } finally {
      child.kill("SIGKILL")
      rmSync(folder, { recursive: true })
    }
  })

  it("says in its comments what the code says", () => {
    const seconds = (millis: number) => Duration.toSeconds(Duration.millis(millis))
    assert.include(source, `${seconds(Graceful.defaults.delayMillis)} s for load balancers`)
    assert.include(source, `${seconds(Graceful.defaults.graceMillis)} s for calls in flight`)
    const { intervalMillis, timeoutMillis } = HealthCheck.make({ name: "a", check: Effect.void })
    assert.include(source.replaceAll(/\s+#?\s*/g, " "), `at most every ${seconds(intervalMillis)} seconds`)
    assert.include(source, `takes at most ${seconds(timeoutMillis)} second`)
  })
})
