import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer } from "effect"
import { CircuitBreaker } from "effect-toolops/resilience"
import { randomUUID } from "node:crypto"
import { inject } from "vitest"
import { type Position, positions, SweepScheduler } from "../support/interruptSweep.ts"

/** Work that gives the scheduler a few occasions to let somebody else run. */
const work = Effect.andThen(Effect.yieldNow, Effect.as(Effect.yieldNow, "done"))

/** Over a real Redis a position takes milliseconds, so not every number of operations before a yield is tried. */
const tried = positions.filter(({ maxOps }) => [3, 4, 5, 7, 11, 16, 33, 64].includes(maxOps))

/** Runs `effect` at the position until it has ended, answers of Redis and all. */
const interruptedAt = <A, E>(position: Position, effect: Effect.Effect<A, E>) =>
  Effect.promise(async () => {
    const scheduler = new SweepScheduler(position)
    const fiber = scheduler.aim(effect)
    scheduler.drain()
    while (fiber.pollUnsafe() === undefined) {
      await new Promise((resolve) => setImmediate(resolve))
      scheduler.drain()
    }
    return { didInterrupt: scheduler.didInterrupt, exit: fiber.pollUnsafe()! }
  })

const sweep = <E>(scenario: (position: Position, where: string) => Effect.Effect<boolean, E>) =>
  Effect.map(
    Effect.forEach(tried, (position) => scenario(position, JSON.stringify(position)), { concurrency: 32 }),
    (interrupted) => interrupted.filter(Boolean).length
  )

const url = inject("redis").url

describe.skipIf(url === undefined)("a call of a shared circuit, interrupted at every position", () => {
  const setUp = Effect.gen(function*() {
    const redis = yield* Layer.build(NodeRedis.layer({ url: url! }))
    const prefix = `test:${randomUUID()}:`
    /** Two processes' breakers of one circuit. */
    return (name: string) =>
      Effect.all(
        [1, 2].map(() =>
          CircuitBreaker.layerShared({
            name,
            prefix,
            maxFailures: 1,
            resetTimeout: "1 millis",
            probeLease: "1 hour",
            commandTimeout: "20 seconds"
          }).pipe(
            Layer.provide(Layer.succeedContext(redis)),
            Layer.build,
            Effect.map((context) => Context.get(context, CircuitBreaker.CircuitBreaker))
          )
        )
      )
  })

  it.live("leaves no probe's place taken", () =>
    Effect.gen(function*() {
      const breakersOf = yield* setUp
      const interrupted = yield* sweep((position, where) =>
        Effect.scoped(Effect.gen(function*() {
          const [one, two] = yield* breakersOf(where)
          yield* Effect.ignore(one!.execute(Effect.fail("down")))
          yield* Effect.sleep(3)
          const { didInterrupt, exit } = yield* interruptedAt(position, one!.execute(work))
          const { probes } = yield* two!.snapshot
          assert.strictEqual(probes, 0, where)
          if (Exit.isSuccess(exit)) assert.strictEqual(yield* two!.state, "closed", where)
          assert.deepStrictEqual(yield* Effect.exit(two!.execute(Effect.succeed("next"))), Exit.succeed("next"), where)
          assert.strictEqual(yield* two!.state, "closed", where)
          yield* two!.reset
          return didInterrupt
        }))
      )
      assert.isAbove(interrupted, 200)
    }), 120_000)

  it.live("leaves a closed circuit closed", () =>
    Effect.gen(function*() {
      const breakersOf = yield* setUp
      const interrupted = yield* sweep((position, where) =>
        Effect.scoped(Effect.gen(function*() {
          const [one, two] = yield* breakersOf(where)
          const { didInterrupt } = yield* interruptedAt(position, one!.execute(work))
          assert.strictEqual(yield* two!.state, "closed", where)
          yield* two!.execute(Effect.void)
          yield* two!.reset
          return didInterrupt
        }))
      )
      assert.isAbove(interrupted, 200)
    }), 120_000)
})
