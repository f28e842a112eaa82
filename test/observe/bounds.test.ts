import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Metric } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ObserveMiddleware, Redaction } from "effect-toolops/observe"
import { vi } from "vitest"
import { makeToolSeries } from "../../src/observe/ToolMetrics.ts"

/** The values that a label has in a registry, by metric. */
const valuesOf = (registry: Metric.MetricRegistry, label: string): Record<string, ReadonlyArray<string>> => {
  const out: Record<string, Array<string>> = {}
  for (const { attributes, id } of registry.values()) {
    const value = attributes?.[label]
    if (value !== undefined) (out[id] ??= []).push(value)
  }
  return out
}

const first = (n: number, prefix: string) => Array.from({ length: n }, (_, i) => `${prefix}${i}`)

describe("bounds of what observe remembers", () => {
  it.effect("gives that many tools metrics of their own, and the others one set", () =>
    Effect.gen(function*() {
      const registry: Metric.MetricRegistry = new Map()
      const pipeline = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware).pipe(
        Effect.provide(ObserveMiddleware.layer({ log: false, maxTools: 2 }))
      )
      for (const name of first(5, "t")) {
        yield* pipeline.run({ tool: ToolMeta.make({ name }) }, Effect.void).pipe(
          Effect.provideService(Metric.MetricRegistry, registry)
        )
      }
      const wanted = ["t0", "t1", "_other"]
      const executions = valuesOf(registry, "tool.id")["tool.exec.total"]
      assert.deepStrictEqual(executions, wanted)
      for (const ids of Object.values(valuesOf(registry, "tool.id"))) {
        assert.deepStrictEqual([...new Set(ids)], wanted)
      }
      const counts = [...registry.values()].filter(({ id }) => id === "tool.exec.total").map(
        ({ hooks }) => (hooks.get(Context.empty()) as { readonly count: number }).count
      )
      assert.deepStrictEqual(counts, [1, 1, 3])
    }))

  it("tells 32 kinds of errors and 32 limits of a tool apart, and the others as one", () => {
    const registry: Metric.MetricRegistry = new Map()
    const context = Context.make(Metric.MetricRegistry, registry)
    const series = makeToolSeries(10)(ToolMeta.make({ name: "t" }))
    for (const kind of first(50, "E")) {
      series.duration(kind)(1, context)
      series.mcp(kind)(1, context)
      series.execErrors(kind)(1, context)
    }
    for (const limit of first(50, "l")) {
      series.limitAllowed(limit)(1, context)
      series.limitLimited(limit)(1, context)
      series.limitShadowed(limit)(1, context)
    }
    const kinds = [...first(32, "E"), "_OTHER"]
    assert.deepStrictEqual(valuesOf(registry, "error.type"), {
      "gen_ai.execute_tool.duration": kinds,
      "mcp.server.operation.duration": kinds,
      "tool.exec.errors": kinds
    })
    const limits = valuesOf(registry, "limit")["tool.limit.total"]
    assert.strictEqual(limits?.length, 3 * 33)
    assert.deepStrictEqual([...new Set(limits)].toSorted(), [...first(32, "l"), "_other"].toSorted())
  })

  it("does not remember every key that it was asked about", () => {
    const redaction = Redaction.make({ keys: ["iban"] })
    const set = vi.spyOn(Map.prototype, "set")
    const answers: Array<boolean> = []
    for (let i = 0; i < 10_000; i++) {
      answers.push(redaction.isSensitiveKey(`iban${i}`), redaction.isSensitiveKey(`x${i}`))
    }
    const sizes = set.mock.contexts.map((map) => map instanceof Map ? map.size : 0)
    set.mockRestore()
    const largest = Math.max(...sizes)
    assert.isAbove(largest, 100)
    assert.isAtMost(largest, 5000)
    assert.isTrue(answers.every((answer, i) => answer === (i % 2 === 0)))
  })
})
