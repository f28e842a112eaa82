import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { ToolMeta } from "effect-toolops"
import { ToolRefusal } from "effect-toolops/ai"
import { AuthError } from "effect-toolops/auth"
import { RateLimitError } from "effect-toolops/limit"
import { ResilienceError } from "effect-toolops/resilience"

describe("ToolRefusal", () => {
  const tool = ToolMeta.make({ name: "write" })
  const safe = ToolMeta.make({ name: "read", readOnly: true })

  it("does not invite to repeat a write that may have been done", () => {
    const timedOut = new ResilienceError.ResilienceError({
      reason: new ResilienceError.TimedOut({ name: "internal-db", timeout: Duration.seconds(1) })
    })
    assert.isFalse(ToolRefusal.fromError(timedOut, tool).retryable)
    assert.isTrue(ToolRefusal.fromError(timedOut, safe).retryable)
  })

  it("does not invite to repeat what will never pass", () => {
    const limited = new RateLimitError.RateLimitError({
      reason: new RateLimitError.RateLimited({ limit: "x", per: "identity", retryAfter: Duration.infinity })
    })
    const { message, retryable, retryAfterMillis } = ToolRefusal.fromError(limited, safe)
    assert.deepStrictEqual([message, retryable, retryAfterMillis], [
      "The rate limit is used up. Do not try again.",
      false,
      undefined
    ])
  })

  it("rounds a wait up", () => {
    const limited = new RateLimitError.RateLimitError({
      reason: new RateLimitError.RateLimited({
        limit: "x",
        per: "identity",
        retryAfter: Duration.nanos(1_000_000_001n)
      })
    })
    const { message, retryAfterMillis } = ToolRefusal.fromError(limited, safe)
    assert.deepStrictEqual([message, retryAfterMillis], ["The rate limit is used up. Try again in 2 seconds.", 1_001])
  })

  it("says which scopes to ask for, and not what stands behind a tool", () => {
    const scope = new AuthError.AuthError({
      reason: new AuthError.InsufficientScope({ tool: "x", requiredScopes: ["a:read", "b:write"] })
    })
    assert.deepStrictEqual(ToolRefusal.fromError(scope, tool).requiredScopes, ["a:read", "b:write"])
    const open = new ResilienceError.ResilienceError({
      reason: new ResilienceError.CircuitOpen({ name: "internal-db", retryAfter: Duration.seconds(1) })
    })
    const told = JSON.stringify(ToolRefusal.fromError(open, tool))
    assert.notInclude(told, "internal-db")
    assert.include(told, "Try again in 1 second.")
  })

  it.effect("comes back from JSON as what it was", () =>
    Effect.gen(function*() {
      const open = new ResilienceError.ResilienceError({
        reason: new ResilienceError.CircuitOpen({ name: "x", retryAfter: Duration.seconds(1) })
      })
      const refusal = ToolRefusal.fromError(open, tool)
      const codec = Schema.toCodecJson(ToolRefusal.ToolRefusal)
      const json = yield* Schema.encodeEffect(codec)(refusal)
      assert.deepStrictEqual({ ...yield* Schema.decodeUnknownEffect(codec)(JSON.parse(JSON.stringify(json))) }, {
        ...refusal
      })
    }))
})
