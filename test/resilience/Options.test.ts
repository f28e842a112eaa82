import { assert, describe, it } from "@effect/vitest"
import { Bulkhead, CircuitBreaker, Hedge, RateLimiter, Retry, Timeout } from "effect-toolops/resilience"

describe("the options of every part", () => {
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
