import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Logger, Metric, Tracer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { CallLine, ObserveMiddleware } from "effect-toolops/observe"
import { positions, SweepScheduler } from "../support/interruptSweep.ts"

describe("interruption", () => {
  it("ends every span, tells every call once and restores the context, wherever it comes", () => {
    const pipeline = Effect.runSync(
      Effect.provide(ToolPipeline.make(ObserveMiddleware.ObserveMiddleware), ObserveMiddleware.layer())
    )
    const tool = ToolMeta.make({ name: "t" })
    const work = Effect.andThen(Effect.yieldNow, Effect.andThen(Effect.void, Effect.yieldNow))
    const call = pipeline.wrap(tool, () => work)(undefined)
    const seen = { ok: 0, interrupted: 0, untold: 0 }
    for (const position of positions) {
      const spans: Array<Tracer.NativeSpan> = []
      const lines: Array<CallLine.CallLine> = []
      const registry: Metric.MetricRegistry = new Map()
      const told = Context.make(Metric.MetricRegistry, registry).pipe(
        Context.add(
          Tracer.Tracer,
          Tracer.make({
            span: (options) => {
              const span = new Tracer.NativeSpan(options)
              spans.push(span)
              return span
            }
          })
        ),
        Context.add(
          Logger.CurrentLoggers,
          new Set([Logger.make(({ message }) => {
            if (Array.isArray(message) && message[0] instanceof CallLine.CallLine) lines.push(message[0])
          })])
        )
      )
      const scheduler = new SweepScheduler(position)
      let before: unknown
      let after: unknown
      const fiber = scheduler.aim(Effect.provideContext(
        Effect.withFiber((self) => {
          before = self.context
          return Effect.onExitPrimitive(call, () => {
            after = self.context
            return undefined
          })
        }),
        told
      ))
      scheduler.drain()
      const where = JSON.stringify(position)
      const exit = fiber.pollUnsafe()
      assert.isDefined(exit, where)
      if (exit?._tag === "Failure") assert.isTrue(Cause.hasInterruptsOnly(exit.cause), where)
      if (after !== undefined) assert.strictEqual(after, before, where)
      for (const span of spans) assert.strictEqual(span.status._tag, "Ended", `${where} ${span.name}`)
      const counted = [...registry.values()].filter((metric) => metric.id === "tool.call.total").map((metric) => [
        metric.attributes?.["outcome"],
        (metric.hooks.get(Context.empty()) as { count: number }).count
      ])
      assert.deepStrictEqual(counted, lines.map((line) => [line.outcome, 1]), where)
      assert.isAtMost(lines.length, 1, where)
      assert.strictEqual(spans.filter((span) => span.name === "execute_tool t").length, lines.length, where)
      if (lines.length === 0) seen.untold++
      else if (lines[0]?.outcome === "ok") seen.ok++
      else if (lines[0]?.outcome === "interrupted") seen.interrupted++
    }
    // Some come before the call, some during it and some after it.
    for (const [what, times] of Object.entries(seen)) assert.isAbove(times, 100, what)
  })
})
