import { assert, describe, it } from "@effect/vitest"
import { type Entry, KeyedRegistry } from "../../src/resilience/internal/keyedRegistry.ts"

describe("KeyedRegistry", () => {
  it("does not search a full registry from end to end, and finds what is idle in the end", () => {
    let looks = 0
    const busy = new Set<string>()
    const registry = new KeyedRegistry<Entry>(5000, (key) => ({
      key,
      isUsed: false,
      isForgotten: false,
      isIdle: () => {
        looks += 1
        return !busy.has(key)
      }
    }))
    for (let i = 0; i < 5000; i++) {
      busy.add(`k${i}`)
      assert.isDefined(registry.keep(`k${i}`))
    }
    for (let i = 0; i < 100; i++) {
      looks = 0
      assert.isUndefined(registry.keep("new"))
      assert.isAtMost(looks, 64)
    }
    busy.delete("k4000")
    let tries = 1
    while (registry.keep("new") === undefined) tries += 1
    assert.isAtMost(tries, 1 + 5000 / 64)
    assert.isUndefined(registry.peek("k4000"))
  })
})
