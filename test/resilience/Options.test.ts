import { assert, describe, it } from "@effect/vitest"
import {
  Bulkhead,
  CircuitBreaker,
  Executor,
  Fallback,
  Hedge,
  RateLimiter,
  Retry,
  RetryBudget,
  Timeout
} from "effect-toolops/resilience"

describe("the options of every part", () => {
  const makes: Record<string, (options: any) => unknown> = {
    Bulkhead: Bulkhead.make,
    CircuitBreaker: CircuitBreaker.make,
    Executor: Executor.make,
    Fallback: Fallback.make,
    Hedge: Hedge.make,
    RateLimiter: RateLimiter.make,
    Retry: Retry.make,
    RetryBudget: RetryBudget.make,
    Timeout: Timeout.make
  }

  it.each(Object.entries(makes))("are an object, and nothing else is taken for one: %s", (part, make) => {
    for (
      const [options, came] of [[5, "5"], [true, "true"], ["5 seconds", "a string"], [[], "an array"], [
        () => ({}),
        "a function"
      ]]
    ) {
      assert.throws(() => make(options), `${part}.make: expected an object of options, got ${came}`)
    }
  })

  it("are not left out where there is no default for them", () => {
    for (const part of ["Executor", "Fallback", "Hedge"]) {
      assert.throws(() => makes[part]!(undefined), `${part}.make: expected an object of options, got undefined`)
    }
  })

  it("say of what is in the place of an object what came", () => {
    for (const budget of [true, 0.2, "20 %"]) {
      const came = typeof budget === "string" ? "a string" : String(budget)
      const message = `budget: expected an object of options, got ${came}`
      assert.throws(() => makes["Retry"]!({ budget }), `Retry.make: ${message}`)
      assert.throws(() => makes["Hedge"]!({ delay: 1, budget }), `Hedge.make: ${message}`)
    }
    for (const window of [null, 5]) {
      assert.throws(
        () => makes["CircuitBreaker"]!({ window }),
        `CircuitBreaker.make: window: expected an object of options, got ${window}`
      )
    }
    for (const slowCall of [null, true]) {
      assert.throws(
        () => makes["CircuitBreaker"]!({ window: { type: "count", size: 5, slowCall } }),
        `CircuitBreaker.make: window.slowCall: expected an object of options, got ${slowCall}`
      )
    }
    assert.throws(
      () => makes["Timeout"]!({ name: {} }),
      "Timeout.make: name must be a string that is not empty, got an object"
    )
  })

  it.each([
    ["Bulkhead", (name: string) => Bulkhead.make({ name })],
    ["CircuitBreaker", (name: string) => CircuitBreaker.make({ name })],
    ["Hedge", (name: string) => Hedge.make({ delay: "1 second", name })],
    ["RateLimiter", (name: string) => RateLimiter.make({ name })],
    ["Retry", (name: string) => Retry.make({ name })],
    ["Timeout", (name: string) => Timeout.make({ name })]
  ])("hold a name that errors and metrics can tell: %s", (part, make) => {
    make("payments")
    for (const nameless of ["", 7, {}]) {
      assert.throws(
        () => make(nameless as string),
        new RegExp(`^${part}.make: name must be a string that is not empty`)
      )
    }
  })
})
