/** A program that logs to its standard error, and says on its standard output what became of that. */
import { Context, Effect, Metric } from "effect"
import { PrometheusRoutes, StructuredLogger } from "effect-toolops/observe"

const [mode = ""] = process.argv.slice(2)

/** Long enough that a pipe takes few of them. */
const entry = Effect.log("x".repeat(4000))

const text = await Effect.runPromise(
  Effect.gen(function*() {
    if (mode === "closed") {
      for (let i = 0; i < 20; i++) yield* Effect.andThen(entry, Effect.sleep(5))
    } else {
      for (let i = 0; i < 2000; i++) yield* entry
      console.log(`held ${process.stderr.writableLength}`)
      // From here on the parent reads.
      process.stderr.once("drain", () => console.log("drained"))
      while (process.stderr.writableLength > 0) yield* Effect.sleep(10)
      yield* Effect.log("again")
    }
    return yield* PrometheusRoutes.make()()
  }).pipe(
    Effect.provide(StructuredLogger.layer()),
    Effect.provideContext(Context.make(Metric.MetricRegistry, new Map()))
  )
)
console.log(/^log_dropped_total \d+$/m.exec(text)?.[0] ?? "no metric")
console.log("done")
