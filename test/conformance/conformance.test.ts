import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { clientAuthScenarios, compare, revisions } from "./compare.ts"

// As many as pass today: fewer would mean that the server has stopped being what the suite can judge.
const passing = { "2025-11-25": 50, "2026-07-28": 130 }

describe("the conformance suite of the protocol", () => {
  for (const revision of revisions) {
    it.live(`says the same of a server with the layer as without, in ${revision}`, () =>
      Effect.gen(function*() {
        const { lost, otherwise, passWith, passWithout } = yield* compare(revision)
        assert.deepStrictEqual(lost, [])
        assert.deepStrictEqual(otherwise, [])
        assert.strictEqual(passWith, passWithout)
        assert.isAtLeast(passWith, passing[revision])
      }), 120_000)
  }

  it.live("has scenarios of authorization for clients only", () =>
    Effect.gen(function*() {
      const scenarios = yield* clientAuthScenarios
      assert.isAtLeast(scenarios.length, 30)
      assert.include(scenarios, "auth/scope-step-up")
    }))
})
