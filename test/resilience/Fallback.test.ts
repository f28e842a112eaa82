import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit } from "effect"
import { Fallback } from "effect-toolops/resilience"

describe("Fallback", () => {
  it.effect("answers a failure, and is given the error", () =>
    Effect.gen(function*() {
      const fallback = yield* Fallback.make({ fallback: (error) => Effect.succeed(`instead of ${error}`) })
      assert.strictEqual(yield* fallback.execute(Effect.fail("no")), "instead of no")
      assert.strictEqual(yield* fallback.execute(Effect.succeed("yes")), "yes")
    }))

  it.effect("answers with another effect, which is run anew each time", () =>
    Effect.gen(function*() {
      let runs = 0
      const fallback = yield* Fallback.make({ fallback: Effect.sync(() => ++runs) })
      const answer = fallback.execute(Effect.fail("down"))
      assert.strictEqual(yield* answer, 1)
      assert.strictEqual(yield* answer, 2)
      assert.strictEqual(yield* fallback.execute(Effect.succeed(0)), 0)
      const some = yield* Fallback.make({ fallback: Effect.succeed("instead"), onlyIf: (error) => error === "down" })
      assert.strictEqual(yield* some.execute(Effect.fail("down")), "instead")
      assert.strictEqual(yield* Effect.flip(some.execute(Effect.fail("wrong input"))), "wrong input")
    }))

  it.effect("answers with a service, whose key is an effect and a function", () =>
    Effect.gen(function*() {
      class Answer extends Context.Service<Answer, string>()("test/Answer") {}
      const fallback = yield* Fallback.make({ fallback: Answer })
      const run: Effect.Effect<string, string, Answer> = fallback.execute(Effect.fail("down"))
      assert.strictEqual(yield* Effect.provideService(run, Answer, "provided"), "provided")
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
    for (const nonsense of [{ _tag: "Success" }, 5, undefined, null]) {
      assert.throws(
        () => Fallback.make({ fallback: nonsense as any }),
        `Fallback.make: fallback must be an Effect or a function that gives one, got ${typeof nonsense}`
      )
    }
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
