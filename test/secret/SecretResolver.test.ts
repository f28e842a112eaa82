import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Redacted,
  Scope
} from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { AuthMiddleware } from "effect-toolops/auth"
import { CacheMiddleware } from "effect-toolops/cache"
import { RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { SecretConfig, SecretError, SecretProvider, SecretResolver } from "effect-toolops/secret"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import { resolverOf } from "./resolving.ts"

type Resolver = SecretResolver.SecretResolver["Service"]

const resolving = <A, E>(
  providers: ReadonlyArray<SecretProvider.Provider>,
  f: (resolver: Resolver) => Effect.Effect<A, E>,
  options?: SecretResolver.Options
): Effect.Effect<A, E> =>
  Effect.flatMap(SecretResolver.SecretResolver, f).pipe(
    Effect.provide(SecretResolver.layer(options).pipe(Layer.provide(SecretProvider.layer(...providers))))
  )

/** A provider that counts its questions and answers what it is told. */
const counting = (answer: (ref: string) => Effect.Effect<Redacted.Redacted, SecretError.SecretError>) => {
  const asked: Array<string> = []
  const provider = SecretProvider.make({
    name: "p",
    get: (ref) =>
      Effect.suspend(() => {
        asked.push(ref)
        return answer(ref)
      })
  })
  return { asked, provider }
}

const reasonOf = (error: SecretError.SecretError) => error.reason._tag

describe("SecretResolver", () => {
  it.effect("joins literals, variables and secrets", () =>
    resolving([SecretProvider.memory({ user: "ada", pass: "p@ss" })], (resolver) =>
      Effect.gen(function*() {
        const text = "db://${secretref:memory:user}:${secretref:memory:pass}@${HOST}/$$"
        assert.strictEqual(Redacted.value(yield* resolver.resolveValue(text)), "db://ada:p@ss@h/$")
        // A name without braces takes what may be part of a name.
        assert.strictEqual(
          reasonOf(yield* Effect.flip(resolver.resolveValue("x secretref:memory:user:pw"))),
          "SecretNotFound"
        )
      }), { variables: { HOST: "h" } }))

  it.effect("resolves all texts of a record", () =>
    resolving([SecretProvider.memory({ a: "1", b: "2" })], (resolver) =>
      Effect.gen(function*() {
        const all = yield* resolver.resolveAll({ x: "secretref:memory:a", y: "secretref:memory:b", z: "plain" })
        assert.deepStrictEqual([all.x, all.y, all.z].map(Redacted.value), ["1", "2", "plain"])
        const error = yield* Effect.flip(resolver.resolveAll({ x: "secretref:memory:a", y: "secretref:memory:nope" }))
        assert.strictEqual(reasonOf(error), "SecretNotFound")
      })))

  it.effect("fetches a secret once while it is kept, however many ask, and again afterwards", () => {
    const { asked, provider } = counting((ref) => Effect.as(Effect.sleep("1 second"), Redacted.make(ref)))
    return resolving([provider], (resolver) =>
      Effect.gen(function*() {
        const asking = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 100 }), () => resolver.resolveValue("secretref:p:a"), {
            concurrency: "unbounded"
          })
        )
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(asking)
        yield* TestClock.adjust("299 seconds")
        yield* resolver.resolveValue("secretref:p:a")
        assert.deepStrictEqual(asked, ["a"])
        yield* TestClock.adjust("1 second")
        const again = yield* Effect.forkChild(resolver.resolveValue("secretref:p:a"))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(again)
        assert.deepStrictEqual(asked, ["a", "a"])
      }))
  })

  it.effect("keeps nothing with a ttl of 0, no failure ever, and no more than it may", () => {
    let isDown = true
    const { asked, provider } = counting((ref) =>
      isDown
        ? Effect.fail(new SecretError.SecretError({ reason: new SecretError.SecretNotFound({ provider: "p", ref }) }))
        : Effect.succeed(Redacted.make(ref))
    )
    return Effect.gen(function*() {
      yield* resolving([provider], (resolver) =>
        Effect.gen(function*() {
          yield* Effect.flip(resolver.resolveValue("secretref:p:a"))
          isDown = false
          yield* resolver.resolveValue("secretref:p:a")
          for (const ref of ["b", "c", "b", "a"]) yield* resolver.resolveValue(`secretref:p:${ref}`)
        }), { maxEntries: 2 })
      assert.deepStrictEqual(asked.splice(0), ["a", "a", "b", "c", "a"])
      yield* resolving(
        [provider],
        (resolver) => Effect.repeat(resolver.resolveValue("secretref:p:a"), { times: 2 }),
        { ttl: 0 }
      )
      assert.strictEqual(asked.length, 3)
    })
  })

  it.effect("forgets one secret, or all, when told", () => {
    const { asked, provider } = counting((ref) => Effect.succeed(Redacted.make(ref)))
    return resolving([provider], (resolver) =>
      Effect.gen(function*() {
        const both = Effect.andThen(resolver.resolveValue("secretref:p:a"), resolver.resolveValue("secretref:p:b"))
        yield* both
        yield* resolver.invalidate({ provider: "p", ref: "a" })
        yield* both
        yield* resolver.invalidate()
        yield* both
        assert.deepStrictEqual(asked, ["a", "b", "a", "a", "b"])
      }))
  })

  it.effect("gives up on a provider that ignores interruption, and waits for it up to 3 seconds at the end", () =>
    Effect.gen(function*() {
      const { asked, provider } = counting(() => Effect.uninterruptible(Effect.never))
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(resolverOf([provider]), scope)
      const resolver = Context.get(context, SecretResolver.SecretResolver)
      const asking = yield* Effect.forkChild(Effect.flip(resolver.resolveValue("secretref:p:a")))
      yield* TestClock.adjust("10 seconds")
      const error = yield* Fiber.join(asking)
      assert.deepInclude(error.reason, { _tag: "SecretUnavailable", problem: "timeout", ref: "a" })
      assert.strictEqual(asked.length, 1)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(closing.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(closing)
    }))

  it.effect("waits no longer than those 3 seconds when this process was too busy to notice", () =>
    Effect.gen(function*() {
      const { provider } = counting(() => Effect.uninterruptible(Effect.never))
      const clock = yield* Clock.Clock
      // One that wakes who sleeps 3 seconds 2 seconds late.
      const late: Clock.Clock = Object.create(clock, {
        monotonicTimeNanosUnsafe: { value: () => clock.monotonicTimeNanosUnsafe() * 5n / 3n }
      })
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(resolverOf([provider]), scope).pipe(
        Effect.provideService(Clock.Clock, late)
      )
      const resolver = Context.get(context, SecretResolver.SecretResolver)
      yield* Effect.forkDetach(resolver.resolveValue("secretref:p:a"), { startImmediately: true })
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("3 seconds")
      assert.isDefined(closing.pollUnsafe())
    }))

  it.effect("waits at its end for providers that end something first, and asks them nothing any more", () =>
    Effect.gen(function*() {
      const events: Array<string> = []
      const { asked, provider } = counting(() =>
        Effect.onInterrupt(
          Effect.never,
          () => Effect.andThen(Effect.sleep("2 seconds"), Effect.sync(() => events.push("ended")))
        )
      )
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(resolverOf([provider]), scope)
      const resolver = Context.get(context, SecretResolver.SecretResolver)
      // One who tries again and again.
      const asking = yield* Effect.forkChild(
        Effect.exit(Effect.retry(resolver.resolveValue("secretref:p:a"), { times: 5 })),
        { startImmediately: true }
      )
      const closing = yield* Effect.forkChild(
        Effect.andThen(Scope.close(scope, Exit.void), Effect.sync(() => events.push("closed"))),
        { startImmediately: true }
      )
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(events, ["ended", "closed"])
      assert.isTrue(Exit.isFailure(yield* Fiber.join(asking)))
      assert.deepStrictEqual(asked, ["a"])
    }))

  it.effect("lets the fetch go on for the others when one who asked goes away", () =>
    Effect.gen(function*() {
      const release = yield* Deferred.make<void>()
      const { asked, provider } = counting((ref) => Effect.as(Deferred.await(release), Redacted.make(ref)))
      yield* resolving([provider], (resolver) =>
        Effect.gen(function*() {
          const options = { startImmediately: true }
          const first = yield* Effect.forkChild(resolver.resolveValue("secretref:p:a"), options)
          const second = yield* Effect.forkChild(resolver.resolveValue("secretref:p:a"), options)
          yield* Fiber.interrupt(first)
          yield* Deferred.succeed(release, undefined)
          assert.strictEqual(Redacted.value(yield* Fiber.join(second)), "a")
          assert.strictEqual(asked.length, 1)
        }))
    }))

  it.effect("lets nothing through that a provider says when it fails, and shows no value", () => {
    const canary = "canary-7f3a"
    const failures: ReadonlyArray<Effect.Effect<never, SecretError.SecretError>> = [
      Effect.die(new Error(canary)),
      Effect.fail(new Error(canary) as never),
      Effect.fail(
        new SecretError.SecretError({
          reason: new SecretError.SecretUnavailable({ provider: canary, ref: canary, problem: "denied" })
        })
      ),
      Effect.fail(
        new SecretError.SecretError({ reason: new SecretError.SecretNotFound({ provider: canary, ref: canary }) })
      ),
      Effect.sync(() => {
        throw new Error(canary)
      })
    ]
    return Effect.gen(function*() {
      const tags: Array<string> = []
      for (const failure of failures) {
        const exit = yield* Effect.exit(
          resolving([counting(() => failure).provider], (resolver) => resolver.resolveValue("secretref:p:a"))
        )
        if (!Exit.isFailure(exit)) throw new Error("resolved")
        const error = Cause.squash(exit.cause)
        for (const text of [Cause.pretty(exit.cause), inspect(exit, { depth: 9 }), JSON.stringify(error), `${error}`]) {
          assert.notInclude(text, canary)
        }
        if (error instanceof SecretError.SecretError) tags.push(reasonOf(error))
      }
      assert.deepStrictEqual(tags, [
        "SecretUnavailable",
        "SecretUnavailable",
        "SecretUnavailable",
        "SecretNotFound",
        "SecretUnavailable"
      ])
      const value = yield* resolving(
        [SecretProvider.memory({ a: canary })],
        (resolver) => resolver.resolveAll({ a: "secretref:memory:a", b: "x secretref:memory:a" })
      )
      for (const text of [inspect(value, { depth: 9 }), JSON.stringify(value), `${value.a} ${value.b}`]) {
        assert.notInclude(text, canary)
      }
    })
  })

  it.effect("names a provider that is not there and a variable that is not set", () =>
    resolving([SecretProvider.memory({})], (resolver) =>
      Effect.gen(function*() {
        assert.deepInclude((yield* Effect.flip(resolver.resolveValue("secretref:vault:a"))).reason, {
          _tag: "ProviderNotFound",
          provider: "vault"
        })
        assert.deepInclude((yield* Effect.flip(resolver.resolveValue("${NOPE}"))).reason, {
          _tag: "VariableNotSet",
          name: "NOPE"
        })
        assert.strictEqual(Redacted.value(yield* resolver.resolveValue("a${EMPTY}b")), "ab")
      }), { variables: { EMPTY: "" } }))

  it("refuses options that make no sense", () => {
    assert.throws(() => SecretResolver.layer({ maxEntries: 0 }), "maxEntries must be an integer >= 1, got 0")
    assert.throws(() => SecretResolver.layer({ timeout: 0 }), "timeout")
    assert.throws(() => SecretProvider.memory({}, { name: "A" }), "name")
    assert.throws(() => SecretProvider.env({ prefixes: [] }), "prefixes")
    assert.throws(
      () => SecretProvider.layer(SecretProvider.memory({}), SecretProvider.memory({})),
      "two providers are named memory"
    )
  })
})

describe("SecretProvider.env", () => {
  const provider = SecretProvider.env({
    prefixes: ["APP_", "DB_PASS"],
    variables: { APP_KEY: "k", APP_EMPTY: "", HOME: "/root", DB_PASSWORD: "p", APP_KEY_OLD: "o" }
  })

  it.effect("gives variables with an allowed prefix and no others", () =>
    resolving([provider], (resolver) =>
      Effect.gen(function*() {
        for (const [ref, value] of [["APP_KEY", "k"], ["DB_PASSWORD", "p"], ["APP_KEY_OLD", "o"]]) {
          assert.strictEqual(Redacted.value(yield* resolver.resolveValue(`secretref:env:${ref}`)), value)
        }
        for (const ref of ["HOME", "APP_EMPTY", "APP_NOPE", "__proto__", "XAPP_KEY", "APP"]) {
          assert.strictEqual(
            reasonOf(yield* Effect.flip(resolver.resolveValue(`secretref:env:${ref}`))),
            "SecretNotFound"
          )
        }
      })))
})

describe("the layers with options from the configuration", () => {
  it.effect("give the environment's secrets, kept as long as it says", () =>
    Effect.gen(function*() {
      process.env.TOOLOPS_SECRET_TEST = "s"
      yield* Effect.addFinalizer(() => Effect.sync(() => delete process.env.TOOLOPS_SECRET_TEST))
      const options = { PREFIX: "TOOLOPS_SECRET_", STRICT: "false" }
      const value = yield* Effect.flatMap(
        SecretResolver.SecretResolver,
        (resolver) => resolver.resolveValue("a$b secretref:vars:TOOLOPS_SECRET_TEST")
      ).pipe(
        Effect.provide(
          SecretResolver.layerConfig({ strict: Config.Boolean("STRICT"), ttl: Config.succeed("1 minute" as const) })
            .pipe(
              Layer.provide(
                SecretProvider.layerEnvConfig({
                  name: Config.succeed("vars"),
                  prefixes: Config.map(Config.String("PREFIX"), (prefix) => [prefix])
                })
              ),
              Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(options)))
            )
        )
      )
      assert.strictEqual(Redacted.value(value), "a$b s")
    }))
})

describe("SecretConfig", () => {
  const reading = <A>(env: Record<string, string>, config: Config.Config<A>) =>
    Effect.provide(
      config,
      SecretConfig.layer.pipe(
        Layer.provide(SecretResolver.layer({ variables: { HOST: "h" } })),
        Layer.provide(SecretProvider.layer(SecretProvider.memory({ key: "k-1", port: "5432" }))),
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(env)))
      )
    )

  it.effect("resolves what the program's configuration holds", () =>
    Effect.gen(function*() {
      const env = { API_KEY: "secretref:memory:key", DB_PORT: "secretref:memory:port", URL: "http://${HOST}/" }
      assert.strictEqual(Redacted.value(yield* reading(env, Config.Redacted("API_KEY"))), "k-1")
      assert.strictEqual(yield* reading(env, Config.nested(Config.Int("PORT"), "DB")), 5432)
      assert.strictEqual(yield* reading(env, Config.String("URL")), "http://h/")
      assert.strictEqual(yield* reading(env, Config.withDefault(Config.String("NOPE"), "d")), "d")
    }))

  it.effect("resolves the configuration, and nothing that the caller of a tool sends", () => {
    const echo = ToolMeta.make({ name: "echo", readOnly: true })
    const input = { text: "secretref:memory:key ${secretref:memory:key} ${HOST} $$" }
    const Pipeline = ToolPipeline.layer.pipe(Layer.provide([
      ObserveMiddleware.layerPassthrough,
      AuthMiddleware.layerPassthrough,
      RateLimitMiddleware.layerPassthrough,
      CacheMiddleware.layerPassthrough,
      ResilienceMiddleware.layerPassthrough
    ]))
    return Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      const handler = pipeline.wrap(echo, (given: typeof input) => Effect.succeed(given.text))
      const key = yield* reading({ KEY: "secretref:memory:key" }, Config.Redacted("KEY"))
      assert.strictEqual(Redacted.value(key), "k-1")
      const answer = yield* Effect.provide(
        handler(input),
        SecretConfig.layer.pipe(
          Layer.provide(SecretResolver.layer()),
          Layer.provide(SecretProvider.layer(SecretProvider.memory({ key: "k-1" })))
        )
      )
      assert.strictEqual(answer, input.text)
    }).pipe(Effect.provide(Pipeline))
  })

  it.effect("fails where a reference cannot be resolved, also where there is a default", () =>
    Effect.gen(function*() {
      for (const text of ["secretref:memory:nope", "secretref:memory", "x secretref:nope:k", "a$b"]) {
        const config = Config.withDefault(Config.Redacted("API_KEY"), Redacted.make("default"))
        const exit = yield* Effect.exit(reading({ API_KEY: text }, config))
        assert.isTrue(Exit.isFailure(exit), text)
      }
    }))
})
