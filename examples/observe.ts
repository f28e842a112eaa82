/**
 * What became of each call: a span, metrics and one log line, all from the same record. Arguments are in none of them.
 *
 * Run it: node -C @effect-toolops/source examples/observe.ts
 */
import { Data, Effect, Layer, Tracer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ObserveMiddleware, PrometheusRoutes, StructuredLogger } from "effect-toolops/observe"

class NotFound extends Data.TaggedError("NotFound")<{}> {}

const read = ToolMeta.make({ namespace: "docs", name: "read", version: "2", readOnly: true })

const spans: Array<Tracer.NativeSpan> = []
const tracer = Tracer.make({
  span: (options) => {
    const span = new Tracer.NativeSpan(options)
    spans.push(span)
    return span
  }
})

const Observed = Layer.provideMerge(
  ObserveMiddleware.layer(),
  StructuredLogger.layer({ write: (line) => console.log(`log     ${line.trim()}`) })
)

const program = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware)
  const readPage = pipeline.wrap(
    read,
    ({ page }: { readonly page: string }) => page === "home" ? Effect.succeed("welcome") : Effect.fail(new NotFound())
  )
  yield* readPage({ page: "home" })
  yield* Effect.ignore(readPage({ page: "a-private-page" }))

  for (const span of spans) {
    const outcome = span.attributes.get("tool.outcome") ?? span.attributes.get("error.type") ?? "ok"
    console.log(`span    ${span.name}: ${outcome}`)
  }
  const metrics = yield* PrometheusRoutes.make()()
  for (const line of metrics.split("\n")) if (line.startsWith("tool_call_total")) console.log(`metric  ${line}`)
})

await Effect.runPromise(program.pipe(Effect.provide(Observed), Effect.withTracer(tracer)))
