import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { BreakerRegistry } from "effect-toolops/resilience"

type Service = BreakerRegistry.BreakerRegistry["Service"]

const trip = (breakers: Service, key: string) => Effect.exit(breakers.execute(key, Effect.fail("down")))
const isRefused = (breakers: Service, key: string) =>
  Effect.map(Effect.exit(breakers.execute(key, Effect.void)), Exit.isFailure)
const keys = (breakers: Service) => Effect.map(breakers.snapshots, (all) => all.map(({ name }) => name))

describe("BreakerRegistry", () => {
  it.effect("has a circuit for each key", () =>
    Effect.gen(function*() {
      const breakers = yield* BreakerRegistry.make({ maxFailures: 1 })
      yield* trip(breakers, "a")
      assert.isTrue(yield* isRefused(breakers, "a"))
      assert.isFalse(yield* isRefused(breakers, "b"))
      yield* (yield* breakers.get("a")).reset
      assert.isFalse(yield* isRefused(breakers, "a"))
      assert.deepStrictEqual(yield* keys(breakers), ["a", "b"])
    }))

  it.effect("forgets a closed circuit that was not used lately when it is full, and no open one", () =>
    Effect.gen(function*() {
      const breakers = yield* BreakerRegistry.make({ maxFailures: 1, maxKeys: 3 })
      yield* trip(breakers, "open")
      yield* breakers.execute("busy", Effect.void)
      for (let i = 0; i < 50; i++) {
        yield* breakers.execute(`k${i}`, Effect.void)
        yield* breakers.execute("busy", Effect.void)
        assert.isAtMost((yield* keys(breakers)).length, 3)
      }
      assert.includeMembers([...yield* keys(breakers)], ["open", "busy"])
      assert.isTrue(yield* isRefused(breakers, "open"))
    }))

  it.effect("finds place for one more wherever it looked last", () =>
    Effect.gen(function*() {
      const breakers = yield* BreakerRegistry.make({ maxKeys: 1 })
      for (const key of ["a", "b", "c", "d"]) {
        yield* breakers.execute(key, Effect.void)
        assert.deepStrictEqual(yield* keys(breakers), [key])
      }
    }))

  it.effect("lets keys that find no place share a circuit, so that none is without", () =>
    Effect.gen(function*() {
      const breakers = yield* BreakerRegistry.make({ maxFailures: 2, maxKeys: 2 })
      for (const key of ["a", "a", "b", "b"]) yield* trip(breakers, key)
      yield* trip(breakers, "c")
      yield* trip(breakers, "d")
      assert.isTrue(yield* isRefused(breakers, "e"))
      assert.deepStrictEqual(yield* keys(breakers), ["a", "b"])
      yield* (yield* breakers.get("a")).reset
      assert.isFalse(yield* isRefused(breakers, "e"))
    }))

  it("throws on nonsense when it is made", () => {
    assert.throws(() => BreakerRegistry.make({ maxKeys: 0 }), /BreakerRegistry.make: maxKeys must be an integer >= 1/)
    assert.throws(() => BreakerRegistry.layer({ maxFailures: NaN }), /BreakerRegistry.layer: maxFailures must be/)
  })
})
