/** A program with telemetry, in a process of its own: what it is called with is how it ends. */
import { NodeRuntime } from "@effect/platform-node"
import { Context, Effect, ManagedRuntime, Metric } from "effect"
import { Telemetry } from "effect-toolops/node"

const [mode, endpoint] = process.argv.slice(2)

const work = (count: number) => Effect.repeat(Effect.withSpan(Effect.void, "work"), { times: count - 1 })

const Collected = Telemetry.layer({
  serviceName: "child",
  endpoint,
  requestTimeout: "1 minute",
  tracing: { exporter: "otlp", interval: "1 hour", maxQueue: 5000 },
  metrics: { exporter: "otlp", interval: "1 hour" }
})

switch (mode) {
  // Ends at a signal, with everything still to be sent.
  case "signal":
    NodeRuntime.runMain(
      work(3000).pipe(
        Effect.andThen(Metric.update(Metric.counter("child.work"), 3000)),
        Effect.andThen(Effect.sync(() => process.send?.("ready"))),
        Effect.andThen(Effect.never),
        Effect.provide(Collected)
      )
    )
    break
  // Comes to its end, and nothing but telemetry could keep it alive.
  case "end":
    await Effect.runPromise(work(3000).pipe(Effect.provide(Collected)))
    break
  // Comes to its end without closing anything, in the middle of a request.
  case "abandoned": {
    const runtime = ManagedRuntime.make(
      Telemetry.layer({
        serviceName: "child",
        endpoint,
        requestTimeout: "1 minute",
        metrics: { exporter: "otlp", interval: "10 millis" }
      })
    )
    await runtime.runPromise(Effect.sleep("500 millis"))
    break
  }
  // Writes to a standard output that nobody reads any more.
  case "stdout": {
    const registry: Metric.MetricRegistry = new Map()
    await Effect.runPromise(
      Effect.repeat(Effect.andThen(work(1), Effect.sleep("5 millis")), { times: 100 }).pipe(
        Effect.provide(
          Telemetry.layer({ serviceName: "child", tracing: { exporter: "stdout", interval: "5 millis", maxBatch: 1 } })
        ),
        Effect.provideService(Metric.MetricRegistry, registry)
      )
    )
    const lost = [...registry.values()].filter(({ id }) => id === Telemetry.dropped.name)
      .reduce((sum, { hooks }) => sum + (hooks.get(Context.empty()) as { readonly count: number }).count, 0)
    process.stderr.write(JSON.stringify({ lost }))
  }
}
