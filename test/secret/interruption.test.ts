import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Exit, Layer, Redacted } from "effect"
import { SecretConfig, SecretProvider, SecretResolver } from "effect-toolops/secret"
import { TestClock } from "effect/testing"
import { type Position, positions, SweepScheduler } from "../support/interruptSweep.ts"
import { resolverOf } from "./resolving.ts"

const tried = positions.filter(({ maxOps }) => [3, 4, 5, 7, 11, 16, 33, 64].includes(maxOps))

/** Interrupts an effect at the position, and gives whether that happened before its end. */
const interruptedAt = <A, E>(position: Position, effect: Effect.Effect<A, E>): boolean => {
  const scheduler = new SweepScheduler(position)
  const fiber = scheduler.aim(effect)
  scheduler.drain()
  const exit = fiber.pollUnsafe()
  assert.isDefined(exit, JSON.stringify(position))
  return scheduler.didInterrupt && Exit.isFailure(exit!)
}

const work = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

class Pool extends Context.Service<Pool, { readonly password: string }>()("test/Pool") {}

describe("secrets, interrupted at every position", () => {
  it.effect("do not leave others waiting for a fetch whose first caller has gone", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(resolverOf([
        SecretProvider.make({ name: "p", get: (ref) => Effect.as(work, Redacted.make(ref)) })
      ]))
      const resolver = Context.get(context, SecretResolver.SecretResolver)
      let interrupted = 0
      for (const [index, position] of tried.entries()) {
        const text = `x secretref:p:a${index}`
        if (interruptedAt(position, resolver.resolveValue(text))) interrupted++
        assert.strictEqual(Redacted.value(yield* resolver.resolveValue(text)), `x a${index}`)
      }
      assert.isAbove(interrupted, 100)
    }))

  it.effect("do not keep a build open that nobody uses any more", () =>
    Effect.gen(function*() {
      const secrets = new Map([["db", "0"]])
      const open = new Set<string>()
      const pools = Layer.effect(
        Pool,
        Effect.gen(function*() {
          const password = Redacted.value(yield* Config.Redacted("PASSWORD"))
          open.add(password)
          yield* Effect.addFinalizer(() => Effect.sync(() => open.delete(password)))
          return { password }
        })
      )
      const Secrets = SecretConfig.layer.pipe(
        Layer.provideMerge(SecretResolver.layer()),
        Layer.provide(SecretProvider.layer(SecretProvider.memory(secrets))),
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ PASSWORD: "secretref:memory:db" })))
      )
      // One build for all: what one of the calls leaves behind keeps it open when the next has come.
      let interrupted = 0
      yield* Effect.scoped(Effect.gen(function*() {
        const pool = yield* SecretConfig.refreshable(pools)
        const settle = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        yield* Effect.repeat(settle, { times: 20 })
        for (const position of tried) {
          if (interruptedAt(position, pool.provide(Effect.andThen(Pool, work)))) interrupted++
        }
        assert.deepStrictEqual([...open], ["0"])
        secrets.set("db", "1")
        yield* TestClock.adjust("1 minute")
        yield* Effect.repeat(settle, { times: 20 })
        assert.deepStrictEqual([...open], ["1"])
      })).pipe(Effect.provide(Secrets))
      assert.isAbove(interrupted, 100)
      assert.deepStrictEqual([...open], [])
    }))
})
