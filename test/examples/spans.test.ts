import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { recorder } from "../../examples/tour/spans.ts"

describe("the spans of the tour", () => {
  const said: ReadonlyArray<readonly [where: string, effect: Effect.Effect<unknown, unknown>]> = [
    ["the name", Effect.withSpan(Effect.void, "canary")],
    ["an attribute", Effect.withSpan(Effect.void, "span", { attributes: { nested: { list: ["canary"], size: 1n } } })],
    ["a map", Effect.withSpan(Effect.void, "span", { attributes: { map: new Map([["key", new Set(["canary"])]]) } })],
    [
      "an event",
      Effect.withSpan(
        Effect.flatMap(Effect.currentSpan, (span) => Effect.sync(() => span.event("event", 1n, { input: ["canary"] }))),
        "span"
      )
    ],
    ["a failure", Effect.withSpan(Effect.fail(new Error("no canary")), "span")],
    ["a defect's cause", Effect.withSpan(Effect.die(new Error("no", { cause: new Error("canary") })), "span")]
  ]
  for (const [where, effect] of said) {
    it.effect(`are printed with ${where}`, () =>
      Effect.gen(function*() {
        const spans = recorder()
        yield* Effect.exit(Effect.withTracer(effect, spans.tracer))
        assert.include(spans.printed(), "canary")
      }))
  }
})
