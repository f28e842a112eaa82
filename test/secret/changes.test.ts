import { assert, describe, it } from "@effect/vitest"
import { Deferred, type Duration, Effect, Exit, Fiber, Layer, Logger, PubSub, Queue, Redacted, Stream } from "effect"
import { SecretError, SecretProvider, SecretResolver } from "effect-toolops/secret"
import { TestClock } from "effect/testing"
import { resolverOf } from "./resolving.ts"

/** A provider whose one secret the test changes, and which counts how often it is asked. */
const source = (more: Partial<SecretProvider.Provider> = {}) => {
  const state = { value: "1", isDown: false, asked: 0 }
  const provider = SecretProvider.make({
    name: "p",
    get: (ref) =>
      Effect.suspend(() => {
        state.asked++
        return state.isDown
          ? Effect.fail(
            new SecretError.SecretError({
              reason: new SecretError.SecretUnavailable({ provider: "p", ref, problem: "denied" })
            })
          )
          : Effect.succeed(Redacted.make(state.value))
      }),
    ...more
  })
  return { state, provider }
}

// A stream and the fetches behind it are several fibers, which take turns that no clock drives.
const settle = Effect.promise(async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
})

const pass = (time: Duration.Input) => Effect.andThen(settle, Effect.andThen(TestClock.adjust(time), settle))

/** What a stream of values has given, one by one. */
const seen = (text: string) =>
  Effect.gen(function*() {
    const resolver = yield* SecretResolver.SecretResolver
    const queue = yield* Queue.unbounded<string>()
    const watching = yield* Effect.forkScoped(
      Stream.runForEach(resolver.changes(text), (value) => Queue.offer(queue, Redacted.value(value))),
      { startImmediately: true }
    )
    return { watching, all: Effect.andThen(settle, Queue.clear(queue)) }
  })

describe("SecretResolver.changes", () => {
  it.effect("gives the present value, and then every other that it finds", () => {
    const { provider, state } = source()
    return Effect.gen(function*() {
      const { all } = yield* seen("key=secretref:p:a")
      yield* settle
      assert.deepStrictEqual(yield* all, ["key=1"])
      yield* pass("10 minutes")
      assert.deepStrictEqual(yield* all, [])
      state.value = "2"
      yield* pass("59 seconds")
      assert.deepStrictEqual(yield* all, [])
      yield* pass("1 second")
      assert.deepStrictEqual(yield* all, ["key=2"])
      // Whoever asks gets what was found, although what is kept would count for longer.
      const resolver = yield* SecretResolver.SecretResolver
      assert.strictEqual(Redacted.value(yield* resolver.resolveValue("secretref:p:a")), "2")
    }).pipe(Effect.provide(resolverOf([provider], { ttl: "1 hour" })))
  })

  it.effect("keeps on after a look that fails, and says so without the value", () => {
    const { provider, state } = source()
    const lines: Array<unknown> = []
    return Effect.gen(function*() {
      const { all, watching } = yield* seen("secretref:p:a")
      yield* settle
      yield* all
      state.isDown = true
      yield* pass("2 minutes")
      assert.deepStrictEqual(yield* all, [])
      assert.isUndefined(watching.pollUnsafe())
      assert.strictEqual(lines.length, 2)
      state.isDown = false
      state.value = "2"
      yield* pass("1 minute")
      assert.deepStrictEqual(yield* all, ["2"])
      assert.include(String(lines[0]), "The provider p cannot give the secret a (denied)")
    }).pipe(
      Effect.provide(resolverOf([provider])),
      Effect.provide(Logger.layer([Logger.make(({ message }) => void lines.push(message))]))
    )
  })

  it.effect("fails when the first look does, and for a text that is malformed", () => {
    const { provider, state } = source()
    state.isDown = true
    return Effect.gen(function*() {
      for (
        const [text, tag] of [["secretref:p:a", "SecretUnavailable"], ["secretref:p", "MalformedReference"]] as const
      ) {
        const resolver = yield* SecretResolver.SecretResolver
        const error = yield* Effect.flip(Stream.runDrain(resolver.changes(text)))
        assert.strictEqual(error.reason._tag, tag)
      }
    }).pipe(Effect.provide(resolverOf([provider])))
  })

  it.effect("looks at once when the provider notices something, and takes no answer from before", () =>
    Effect.gen(function*() {
      const noticed = yield* PubSub.unbounded<void>()
      const release = yield* Deferred.make<void>()
      const { provider, state } = source({ changed: Stream.fromPubSub(noticed) })
      let isSlow = false
      // Reads what is there when it is asked, and answers later.
      const slow: SecretProvider.Provider = {
        ...provider,
        get: (ref) =>
          Effect.flatMap(
            provider.get(ref),
            (value) => isSlow ? Effect.as(Deferred.await(release), value) : Effect.succeed(value)
          )
      }
      yield* Effect.gen(function*() {
        const resolver = yield* SecretResolver.SecretResolver
        const { all } = yield* seen("secretref:p:a")
        yield* settle
        assert.deepStrictEqual(yield* all, ["1"])
        yield* resolver.invalidate()
        isSlow = true
        const old = yield* Effect.forkChild(resolver.resolveValue("secretref:p:a"), { startImmediately: true })
        isSlow = false
        state.value = "2"
        yield* PubSub.publish(noticed, undefined)
        yield* settle
        assert.deepStrictEqual(yield* all, ["2"])
        yield* Deferred.succeed(release, undefined)
        assert.strictEqual(Redacted.value(yield* Fiber.join(old)), "1")
        // The late answer has not taken the place of the newer one.
        assert.strictEqual(Redacted.value(yield* resolver.resolveValue("secretref:p:a")), "2")
      }).pipe(Effect.provide(resolverOf([slow])))
    }))

  it.effect("asks once for many who watch the same", () => {
    const { provider, state } = source()
    return Effect.gen(function*() {
      const watchers = yield* Effect.forEach(Array.from({ length: 20 }), () => seen("secretref:p:a"))
      yield* pass("10 minutes")
      for (const { all } of watchers) assert.deepStrictEqual(yield* all, ["1"])
      assert.strictEqual(state.asked, 11)
    }).pipe(Effect.provide(resolverOf([provider])))
  })

  it.effect("looks at every interval, although a fetch takes a while", () => {
    const fast = source()
    const provider = { ...fast.provider, get: (ref: string) => Effect.delay(fast.provider.get(ref), "100 millis") }
    return Effect.gen(function*() {
      yield* seen("secretref:p:a")
      for (let step = 0; step < 10; step++) {
        yield* pass("100 millis")
        yield* pass("1 minute")
      }
      yield* pass("100 millis")
      assert.strictEqual(fast.state.asked, 11)
    }).pipe(Effect.provide(resolverOf([provider])))
  })

  it.effect("stops asking when nobody watches any more", () => {
    const { provider, state } = source()
    return Effect.gen(function*() {
      const { watching } = yield* seen("secretref:p:a")
      yield* pass("1 minute")
      yield* Fiber.interrupt(watching)
      const before = state.asked
      yield* pass("10 minutes")
      assert.strictEqual(state.asked, before)
    }).pipe(Effect.provide(resolverOf([provider])))
  })
})

describe("SecretResolver", () => {
  it.effect("keeps a value no longer than its provider allows", () => {
    const { provider, state } = source({ ttl: "10 seconds" })
    const local = source({ name: "local", ttl: 0 })
    return Effect.gen(function*() {
      const resolver = yield* SecretResolver.SecretResolver
      yield* resolver.resolveValue("secretref:p:a")
      yield* pass("9 seconds")
      yield* resolver.resolveValue("secretref:p:a")
      assert.strictEqual(state.asked, 1)
      yield* pass("1 second")
      yield* resolver.resolveValue("secretref:p:a")
      assert.strictEqual(state.asked, 2)
      yield* resolver.resolveValue("secretref:local:a")
      local.state.value = "2"
      assert.strictEqual(Redacted.value(yield* resolver.resolveValue("secretref:local:a")), "2")
    }).pipe(Effect.provide(resolverOf([provider, local.provider])))
  })

  it.effect("keeps nothing of a fetch that was under way when it was told to forget", () =>
    Effect.gen(function*() {
      const release = yield* Deferred.make<void>()
      let asked = 0
      const provider = SecretProvider.make({
        name: "p",
        get: () => {
          const value = Redacted.make(String(++asked))
          return asked === 1 ? Effect.as(Deferred.await(release), value) : Effect.succeed(value)
        }
      })
      yield* Effect.gen(function*() {
        const resolver = yield* SecretResolver.SecretResolver
        const value = Effect.map(resolver.resolveValue("secretref:p:a"), Redacted.value)
        for (const forget of [resolver.invalidate(), resolver.invalidate({ provider: "p", ref: "a" })]) {
          asked = 0
          const first = yield* Effect.forkChild(value, { startImmediately: true })
          yield* forget
          assert.strictEqual(yield* value, "2")
          yield* Deferred.succeed(release, undefined)
          assert.strictEqual(yield* Fiber.join(first), "1")
          assert.strictEqual(yield* value, "2")
          yield* resolver.invalidate()
        }
      }).pipe(Effect.provide(resolverOf([provider])))
    }))

  it.effect("ends what is under way with the program, also for a provider that does not listen", () =>
    Effect.gen(function*() {
      const { provider } = source({ get: () => Effect.uninterruptible(Effect.never) })
      const ending = yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* Layer.build(resolverOf([provider]))
        const resolver = yield* Effect.provideContext(SecretResolver.SecretResolver, context)
        return yield* Effect.forkDetach(resolver.resolveValue("secretref:p:a"), { startImmediately: true })
      })).pipe(Effect.forkChild({ startImmediately: true }))
      yield* TestClock.adjust("3 seconds")
      const exit = yield* Effect.flatMap(Fiber.join(ending), Fiber.await)
      assert.isTrue(Exit.isFailure(exit))
    }))
})
