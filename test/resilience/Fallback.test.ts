import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import { Fallback } from "effect-toolops/resilience"

describe("Fallback", () => {
  it.effect("answers a failure, and is given the error", () =>
    Effect.gen(function*() {
      const fallback = yield* Fallback.make({ fallback: (error) => Effect.succeed(`instead of ${error}`) })
      assert.strictEqual(yield* fallback.execute(Effect.fail("no")), "instead of no")
      assert.strictEqual(yield* fallback.execute(Effect.succeed("yes")), "yes")
    }))

  it.effect("answers only the errors it was asked to", () =>
    Effect.gen(function*() {
      const fallback = yield* Fallback.make({
        fallback: () => Effect.succeed("instead"),
        onlyIf: (error) => error === "down"
      })
      assert.strictEqual(yield* fallback.execute(Effect.fail("down")), "instead")
      assert.strictEqual(yield* Effect.flip(fallback.execute(Effect.fail("wrong input"))), "wrong input")
    }))

  it.effect("fails with the error of the fallback when that fails too", () =>
    Effect.gen(function*() {
      const fallback = yield* Fallback.make({ fallback: () => Effect.fail("also down") })
      assert.strictEqual(yield* Effect.flip(fallback.execute(Effect.fail("down"))), "also down")
    }))

  it.effect("answers neither a defect nor an interruption", () =>
    Effect.gen(function*() {
      const fallback = yield* Fallback.make({ fallback: () => Effect.succeed("instead") })
      assert.deepStrictEqual(yield* Effect.exit(fallback.execute(Effect.die("bug"))), Exit.die("bug"))
      const exit = yield* Effect.exit(fallback.execute(Effect.interrupt))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    }))

  it("refuses nonsense and says who, what and what came", () => {
    assert.throws(
      () => Fallback.make({ fallback: Effect.succeed(1) as any }),
      "Fallback.make: fallback must be a function, got object"
    )
    assert.throws(
      () => Fallback.make({ fallback: () => Effect.void, onlyIf: true as any }),
      "Fallback.make: onlyIf must be a function, got boolean"
    )
    assert.throws(
      () => Fallback.make({ fallback: () => Effect.void, only: true } as any),
      "Fallback.make: unknown option \"only\", expected one of fallback, onlyIf"
    )
  })
})
