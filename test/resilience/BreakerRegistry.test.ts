import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { BreakerRegistry } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

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

  it.effect("forgets none that is probing or forced: what it was told would be lost", () =>
    Effect.gen(function*() {
      for (const force of ["forceOpen", "disable", "metricsOnly"] as const) {
        const breakers = yield* BreakerRegistry.make({ maxFailures: 1, maxKeys: 1 })
        yield* (yield* breakers.get("kept"))[force]
        yield* breakers.execute("other", Effect.void)
        assert.deepStrictEqual(yield* keys(breakers), ["kept"])
      }
      const breakers = yield* BreakerRegistry.make({ maxFailures: 1, maxKeys: 1, resetTimeout: "1 second" })
      yield* trip(breakers, "kept")
      yield* TestClock.adjust("1 second")
      const probe = yield* Effect.forkChild(breakers.execute("kept", Effect.never), { startImmediately: true })
      assert.strictEqual((yield* breakers.snapshots)[0]!.status, "half-open")
      yield* breakers.execute("other", Effect.void)
      assert.deepStrictEqual(yield* keys(breakers), ["kept"])
      yield* Fiber.interrupt(probe)
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
    assert.throws(() => BreakerRegistry.make({ name: "n" } as {}), /unknown option "name"/)
  })
})
