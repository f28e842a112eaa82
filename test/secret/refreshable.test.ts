import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Context,
  Deferred,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Redacted,
  Scope
} from "effect"
import { SecretConfig, SecretProvider, SecretResolver } from "effect-toolops/secret"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"

const settle = Effect.promise(async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
})

const pass = (time: Duration.Input) => Effect.andThen(settle, Effect.andThen(TestClock.adjust(time), settle))

class Database extends Context.Service<Database, {
  readonly password: string
  readonly isOpen: () => boolean
}>()("test/Database") {}

class Mail extends Context.Service<Mail, { readonly key: string }>()("test/Mail") {}

/** A pool of connections that are open until the layer that made them ends. */
const pools = (log: Array<string>) =>
  Layer.effect(
    Database,
    Effect.gen(function*() {
      const password = Redacted.value(yield* Config.nested(Config.Redacted("PASSWORD"), "DB"))
      let isOpen = true
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          isOpen = false
          log.push(`close ${password}`)
        })
      )
      log.push(`open ${password}`)
      return { password, isOpen: () => isOpen }
    })
  )

const mail = (log: Array<string>) =>
  Layer.effect(
    Mail,
    Effect.map(Config.Redacted("MAIL_KEY"), (key) => {
      log.push(`mail ${Redacted.value(key)}`)
      return { key: Redacted.value(key) }
    })
  )

/** A program whose configuration refers to what `secrets` holds. */
const configured = (secrets: Map<string, string>) =>
  SecretConfig.layer.pipe(
    Layer.provideMerge(SecretResolver.layer({ variables: {} })),
    Layer.provide(SecretProvider.layer(SecretProvider.memory(secrets, { name: "p" }))),
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({
      DB_PASSWORD: "secretref:p:db",
      MAIL_KEY: "key-${secretref:p:mail}",
      PLAIN: "plain"
    })))
  )

const secretsOf = () => new Map([["db", "1"], ["mail", "m1"]])

describe("SecretConfig.refreshable", () => {
  it.effect("builds anew what uses a secret that has changed, and nothing else", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    return Effect.gen(function*() {
      const database = yield* SecretConfig.refreshable(pools(log))
      const mailer = yield* SecretConfig.refreshable(mail(log))
      yield* pass("10 minutes")
      assert.deepStrictEqual(log.splice(0), ["open 1", "mail key-m1"])
      secrets.set("db", "2")
      yield* pass("1 minute")
      assert.deepStrictEqual(log.splice(0), ["open 2", "close 1"])
      secrets.set("mail", "m2")
      yield* pass("1 minute")
      assert.deepStrictEqual(log.splice(0), ["mail key-m2"])
      assert.strictEqual((yield* database.provide(Database)).password, "2")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m2")
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("lets calls in flight keep what they began with, until the last of them has ended", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    return Effect.gen(function*() {
      const database = yield* SecretConfig.refreshable(pools(log))
      const release = yield* Deferred.make<void>()
      const call = database.provide(Effect.gen(function*() {
        const { isOpen, password } = yield* Database
        yield* Deferred.await(release)
        return [password, isOpen()]
      }))
      const calls = yield* Effect.forEach([1, 2], () => Effect.forkChild(call, { startImmediately: true }))
      // In another way, by a scope and by a layer.
      const scope = yield* Scope.make()
      const held = Context.get(yield* Scope.provide(database.context, scope), Database)
      const layered = yield* Effect.forkChild(Effect.provide(call, database.layer), { startImmediately: true })
      secrets.set("db", "2")
      yield* pass("1 minute")
      assert.deepStrictEqual(log.splice(0), ["open 1", "open 2"])
      assert.strictEqual((yield* database.provide(Database)).password, "2")
      yield* Fiber.interrupt(calls[0]!)
      yield* Deferred.succeed(release, undefined)
      assert.deepStrictEqual(yield* Fiber.join(calls[1]!), ["1", true])
      assert.deepStrictEqual(yield* Fiber.join(layered), ["1", true])
      assert.deepStrictEqual([held.isOpen(), log.splice(0)], [true, []])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual([held.isOpen(), log.splice(0)], [false, ["close 1"]])
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("leaves what a call acquires to the scope of its caller", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    return Effect.gen(function*() {
      const database = yield* SecretConfig.refreshable(pools(log))
      const scope = yield* Scope.make()
      const acquired = database.provide(Effect.acquireRelease(
        Effect.map(Database, ({ password }) => log.push(`acquire ${password}`)),
        () => Effect.sync(() => log.push("release"))
      ))
      yield* Scope.provide(acquired, scope)
      assert.deepStrictEqual(log.splice(0), ["open 1", "acquire 1"])
      // The build is nobody's by now, though the scope is still open.
      secrets.set("db", "2")
      yield* pass("1 minute")
      assert.deepStrictEqual(log.splice(0), ["open 2", "close 1"])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(log.splice(0), ["release"])
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("keeps the old build while a new one cannot be had, and tries again", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    const lines: Array<unknown> = []
    const picky = Layer.effectDiscard(
      Effect.flatMap(
        Config.Redacted("DB_PASSWORD"),
        (password) =>
          isDown.current && Redacted.value(password) !== "1"
            ? Effect.fail(new Error(`refused ${Redacted.value(password)}`))
            : Effect.void
      )
    ).pipe(Layer.provideMerge(pools(log)))
    const isDown = { current: true }
    return Effect.gen(function*() {
      const database = yield* SecretConfig.refreshable(picky)
      const told: Array<Cause.Cause<unknown>> = []
      const other = yield* SecretConfig.refreshable(picky, {
        onFailure: (cause) => Effect.sync(() => void told.push(cause)),
        retryDelay: "1 hour"
      })
      yield* settle
      log.length = 0
      secrets.set("db", "canary-2")
      yield* pass("1 minute")
      assert.strictEqual((yield* database.provide(Database)).password, "1")
      assert.isTrue((yield* database.provide(Database)).isOpen())
      // What was built of the new one is gone.
      assert.deepStrictEqual(log.filter((line) => line.startsWith("close")), ["close canary-2", "close canary-2"])
      yield* pass("10 seconds")
      assert.isAtLeast(lines.length, 2)
      for (const line of lines) assert.notInclude(inspect(line, { depth: 9 }), "canary")
      assert.include(String(told.map(Cause.pretty)), "refused canary-2")
      isDown.current = false
      yield* pass("10 seconds")
      assert.strictEqual((yield* database.provide(Database)).password, "canary-2")
      assert.strictEqual((yield* other.provide(Database)).password, "1")
    }).pipe(
      Effect.provide(configured(secrets)),
      Effect.provide(Logger.layer([Logger.make((entry) => void lines.push(entry))]))
    )
  })

  it.effect("goes on after a build that was interrupted from inside", () => {
    const secrets = secretsOf()
    const told: Array<Cause.Cause<unknown>> = []
    let builds = 0
    const joining = Layer.effect(
      Mail,
      Effect.gen(function*() {
        const key = Redacted.value(yield* Config.Redacted("MAIL_KEY"))
        if (++builds === 2) {
          const part = yield* Effect.forkChild(Effect.never, { startImmediately: true })
          yield* Fiber.interrupt(part)
          yield* Fiber.join(part)
        }
        return { key }
      })
    )
    return Effect.gen(function*() {
      const mailer = yield* SecretConfig.refreshable(joining, {
        onFailure: (cause) => Effect.sync(() => void told.push(cause))
      })
      yield* settle
      secrets.set("mail", "m2")
      yield* pass("1 minute")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m1")
      assert.deepStrictEqual(told.map(Cause.hasInterruptsOnly), [true])
      yield* pass("10 seconds")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m2")
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("goes on when the handler of failures does not end well", () => {
    const secrets = secretsOf()
    const lines: Array<unknown> = []
    const handlers = [
      () => Effect.die(new Error("canary boom")),
      () => Effect.interrupt,
      (): Effect.Effect<void> => {
        throw new Error("canary boom")
      }
    ]
    let failures = 0
    const broken = Layer.effect(
      Mail,
      Effect.gen(function*() {
        const key = Redacted.value(yield* Config.Redacted("MAIL_KEY"))
        if (key !== "key-m1" && failures < handlers.length) return yield* Effect.fail(failures++)
        return { key }
      })
    )
    return Effect.gen(function*() {
      const mailer = yield* SecretConfig.refreshable(broken, { onFailure: () => handlers[failures - 1]!() })
      yield* settle
      secrets.set("mail", "m2")
      yield* pass("1 minute")
      for (const count of [1, 2, 3]) {
        assert.deepStrictEqual([failures, lines.length], [count, count])
        assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m1")
        yield* pass("10 seconds")
      }
      assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m2")
      for (const line of lines) assert.notInclude(inspect(line, { depth: 9 }), "canary")
    }).pipe(
      Effect.provide(configured(secrets)),
      Effect.provide(Logger.layer([Logger.make((entry) => void lines.push(entry))]))
    )
  })

  it.effect("tells the handler of builds that failed, and not of a secret that cannot be looked at", () => {
    const secrets = secretsOf()
    const told: Array<unknown> = []
    const lines: Array<unknown> = []
    const once = Layer.effect(
      Mail,
      Effect.gen(function*() {
        const key = Redacted.value(yield* Config.Redacted("MAIL_KEY"))
        if (key === "key-m1") secrets.delete("mail")
        yield* (yield* SecretResolver.SecretResolver).invalidate()
        return { key }
      })
    )
    return Effect.gen(function*() {
      const mailer = yield* SecretConfig.refreshable(once, {
        retryDelay: "5 seconds",
        onFailure: (cause) => Effect.sync(() => void told.push(cause))
      })
      yield* settle
      assert.deepStrictEqual([told.length, lines.length], [0, 1])
      secrets.set("mail", "m2")
      yield* pass("5 seconds")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m2")
      assert.deepStrictEqual(told, [])
    }).pipe(
      Effect.provide(configured(secrets)),
      Effect.provide(Logger.layer([Logger.make((entry) => void lines.push(entry))]))
    )
  })

  it.effect("notices a change of one secret while another cannot be looked at", () => {
    let isDown = false
    const sources = { a: "a1" }
    // Slower than the failure of the other.
    const a = SecretProvider.make({
      name: "a",
      get: () => Effect.as(Effect.sleep("1 second"), Redacted.make(sources.a))
    })
    const b = SecretProvider.make({
      name: "b",
      get: () => Effect.suspend(() => isDown ? Effect.die("down") : Effect.succeed(Redacted.make("b1")))
    })
    const Two = SecretConfig.layer.pipe(
      Layer.provideMerge(SecretResolver.layer({ variables: {} })),
      Layer.provide(SecretProvider.layer(a, b)),
      Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ A: "secretref:a:x", B: "secretref:b:x" })))
    )
    const both = Layer.effect(
      Mail,
      Effect.gen(function*() {
        const key = Redacted.value(yield* Config.Redacted("A"))
        if (key === "a1") yield* Config.Redacted("B")
        // Nobody has looked at it a second time when its source goes away for good.
        isDown = true
        yield* (yield* SecretResolver.SecretResolver).invalidate()
        return { key }
      })
    )
    return Effect.gen(function*() {
      const making = yield* Effect.forkScoped(SecretConfig.refreshable(both, { retryDelay: "100 millis" }))
      yield* pass("1 second")
      const mailer = yield* Fiber.join(making)
      yield* pass("5 seconds")
      sources.a = "a2"
      yield* pass("1 minute")
      for (let second = 0; second < 5; second++) yield* pass("1 second")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "a2")
    }).pipe(Effect.provide(Two), Effect.provide(Logger.layer([])))
  })

  it.effect("builds anew at most once in a while, though every look at the source brings another value", () => {
    let minted = 0
    let builds = 0
    const minting = SecretProvider.make({ name: "p", get: () => Effect.sync(() => Redacted.make(`m${++minted}`)) })
    const Minting = SecretConfig.layer.pipe(
      Layer.provideMerge(SecretResolver.layer({ ttl: 0, variables: {} })),
      Layer.provide(SecretProvider.layer(minting)),
      Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ MAIL_KEY: "secretref:p:mail" })))
    )
    const counting = Layer.effectDiscard(Effect.map(Config.Redacted("MAIL_KEY"), () => void builds++))
    return Effect.gen(function*() {
      yield* SecretConfig.refreshable(counting, { retryDelay: "10 seconds" })
      yield* settle
      // The change that came while it was built is followed at once.
      assert.strictEqual(builds, 2)
      yield* pass("9999 millis")
      assert.strictEqual(builds, 2)
      yield* pass("1 millis")
      assert.strictEqual(builds, 3)
      for (let i = 0; i < 6; i++) yield* pass("10 seconds")
      assert.strictEqual(builds, 9)
    }).pipe(Effect.provide(Minting))
  })

  it.effect("is of no use once its scope has closed, and says so", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const database = yield* Scope.provide(SecretConfig.refreshable(pools(log)), scope)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(log, ["open 1", "close 1"])
      for (
        const use of [
          database.provide(Database),
          Effect.scoped(database.context),
          Effect.provide(Database, database.layer)
        ] as ReadonlyArray<Effect.Effect<unknown>>
      ) {
        const exit = yield* Effect.exit(use)
        assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "its scope has closed")
      }
    }).pipe(Effect.provide(configured(secretsOf()))))

  it.effect("leaves the old build when a secret changes back, or cannot be read for a while", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    return Effect.gen(function*() {
      yield* SecretConfig.refreshable(pools(log))
      secrets.delete("db")
      yield* pass("5 minutes")
      secrets.set("db", "1")
      yield* pass("5 minutes")
      assert.deepStrictEqual(log, ["open 1"])
      secrets.set("db", "2")
      yield* pass("2 minutes")
      assert.deepStrictEqual(log, ["open 1", "open 2", "close 1"])
    }).pipe(Effect.provide(configured(secrets)), Effect.provide(Logger.layer([])))
  })

  it.effect("notices a change that came while it was building", () => {
    const secrets = secretsOf()
    const seen: Array<string> = []
    return Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const slow = Layer.effect(
        Database,
        Effect.gen(function*() {
          const password = Redacted.value(yield* Config.Redacted("DB_PASSWORD"))
          seen.push(password)
          yield* Deferred.await(gate)
          return { password, isOpen: () => true }
        })
      )
      const building = yield* Effect.forkChild(SecretConfig.refreshable(slow), { startImmediately: true })
      yield* settle
      secrets.set("db", "2")
      yield* Deferred.succeed(gate, undefined)
      const database = yield* Fiber.join(building)
      yield* settle
      assert.deepStrictEqual(seen, ["1", "2"])
      assert.strictEqual((yield* database.provide(Database)).password, "2")
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("builds anew what has read a secret before and after its change", () => {
    const secrets = secretsOf()
    const seen: Array<string> = []
    const twice = Layer.effectDiscard(Effect.gen(function*() {
      const before = yield* Config.Redacted("DB_PASSWORD")
      if (seen.length === 0) secrets.set("db", "2")
      const after = yield* Config.Redacted("DB_PASSWORD")
      seen.push(`${Redacted.value(before)} ${Redacted.value(after)}`)
    }))
    return Effect.gen(function*() {
      yield* SecretConfig.refreshable(twice)
      yield* settle
      assert.deepStrictEqual(seen, ["1 2", "2 2"])
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("builds everything inside anew, though the same layer is built elsewhere too", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    const inner = pools(log)
    const outer = Layer.effect(Mail, Effect.map(Database, ({ password }) => ({ key: password }))).pipe(
      Layer.provide(inner)
    )
    return Effect.gen(function*() {
      assert.strictEqual((yield* Database).password, "1")
      const mailer = yield* SecretConfig.refreshable(outer)
      secrets.set("db", "2")
      yield* pass("1 minute")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "2")
      assert.strictEqual((yield* Database).password, "1")
    }).pipe(Effect.provide(Layer.provideMerge(inner, configured(secrets))))
  })

  it.effect("fails when the first build does, and closes what that had opened", () => {
    const log: Array<string> = []
    return Effect.gen(function*() {
      const broken = Layer.effectDiscard(Effect.fail("broken")).pipe(Layer.provideMerge(pools(log)))
      assert.strictEqual(yield* Effect.flip(SecretConfig.refreshable(broken)), "broken")
      assert.deepStrictEqual(log, ["open 1", "close 1"])
    }).pipe(Effect.provide(configured(secretsOf())))
  })

  it.effect("closes every build with its scope, and asks no more", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    return Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const database = yield* SecretConfig.refreshable(pools(log))
        yield* Effect.forkScoped(database.provide(Effect.never), { startImmediately: true })
        secrets.set("db", "2")
        yield* pass("1 minute")
        assert.deepStrictEqual(log, ["open 1", "open 2"])
      }))
      assert.sameMembers(log, ["open 1", "open 2", "close 1", "close 2"])
      secrets.set("db", "3")
      yield* pass("10 minutes")
      assert.strictEqual(log.length, 4)
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("does not fail a call because the build that it used last does not end well", () => {
    const secrets = secretsOf()
    const lines: Array<unknown> = []
    const sore = Layer.effect(
      Mail,
      Effect.gen(function*() {
        const key = Redacted.value(yield* Config.Redacted("MAIL_KEY"))
        yield* Effect.addFinalizer(() => key === "key-m1" ? Effect.die(new Error("sore")) : Effect.void)
        return { key }
      })
    )
    return Effect.gen(function*() {
      const mailer = yield* SecretConfig.refreshable(sore)
      const release = yield* Deferred.make<void>()
      const call = yield* Effect.forkChild(
        mailer.provide(Effect.flatMap(Mail, ({ key }) => Effect.as(Deferred.await(release), key))),
        { startImmediately: true }
      )
      secrets.set("mail", "m2")
      yield* pass("1 minute")
      yield* Deferred.succeed(release, undefined)
      assert.strictEqual(yield* Fiber.join(call), "key-m1")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m2")
      assert.strictEqual(lines.length, 1)
      // What a driver says may hold what it was given.
      assert.notInclude(inspect(lines, { depth: 9 }), "Error: sore")
    }).pipe(
      Effect.provide(configured(secrets)),
      Effect.provide(Logger.layer([Logger.make((entry) => void lines.push(entry))]))
    )
  })

  it.effect("lets no call wait for the end of a build, which ends once however the call does", () => {
    const secrets = secretsOf()
    const log: Array<string> = []
    const slow = Layer.effect(
      Mail,
      Effect.gen(function*() {
        const key = Redacted.value(yield* Config.Redacted("MAIL_KEY"))
        yield* Effect.addFinalizer(() =>
          Effect.andThen(
            Effect.sync(() => log.push(`closing ${key}`)),
            Effect.andThen(Effect.sleep("1 hour"), Effect.sync(() => log.push(`closed ${key}`)))
          )
        )
        return { key }
      })
    )
    const ends: Record<string, Effect.Effect<unknown, string>> = {
      success: Effect.void,
      failure: Effect.fail("f"),
      defect: Effect.die("d"),
      interruption: Effect.interrupt
    }
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const mailer = yield* Scope.provide(SecretConfig.refreshable(slow), scope)
      const names = Object.keys(ends)
      for (const [nth, name] of names.entries()) {
        const release = yield* Deferred.make<void>()
        const call = yield* Effect.forkChild(
          mailer.provide(Effect.andThen(Mail, Effect.andThen(Deferred.await(release), ends[name]!))),
          { startImmediately: true }
        )
        secrets.set("mail", `m${nth + 2}`)
        yield* pass("1 minute")
        assert.deepStrictEqual(log, [])
        yield* Deferred.succeed(release, undefined)
        yield* settle
        // Over, though no time has passed.
        assert.isDefined(call.pollUnsafe(), name)
        assert.deepStrictEqual(log.splice(0), [`closing key-m${nth + 1}`], name)
      }
      // Neither is a new build held up by the end of an old one that nobody used.
      secrets.set("mail", "unused")
      yield* pass("1 minute")
      secrets.set("mail", "last")
      yield* pass("1 minute")
      assert.strictEqual((yield* mailer.provide(Mail)).key, "key-last")
      assert.deepStrictEqual(log.splice(0), ["closing key-m5", "closing key-unused"])
      // The owner waits for all of them.
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* pass("1 hour")
      yield* Fiber.join(closing)
      const all = ["m1", "m2", "m3", "m4", "m5", "unused", "last"]
      assert.sameMembers(log, ["closing key-last", ...all.map((each) => `closed key-${each}`)])
      yield* pass("2 hours")
      assert.strictEqual(log.length, all.length + 1)
    }).pipe(Effect.provide(configured(secrets)))
  })

  it.effect("has ended every build when its scope has closed, in whatever order that closes what it holds", () => {
    const hours: Record<string, number> = { m1: 3, m2: 1 }
    return Effect.forEach(["sequential", "parallel"] as const, (strategy) => {
      const secrets = secretsOf()
      const log: Array<string> = []
      const slow = Layer.effect(
        Mail,
        Effect.gen(function*() {
          const key = Redacted.value(yield* Config.Redacted("MAIL_KEY"))
          yield* Effect.addFinalizer(() =>
            Effect.andThen(Effect.sleep(`${hours[key.slice(4)]!} hours`), Effect.sync(() => log.push(key)))
          )
          return { key }
        })
      )
      return Effect.gen(function*() {
        const scope = yield* Scope.make(strategy)
        const mailer = yield* Scope.provide(SecretConfig.refreshable(slow), scope)
        const release = yield* Deferred.make<void>()
        const call = yield* Effect.forkChild(mailer.provide(Deferred.await(release)), { startImmediately: true })
        secrets.set("mail", "m2")
        yield* pass("1 minute")
        assert.strictEqual((yield* mailer.provide(Mail)).key, "key-m2")
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        // The last call with the old build ends while the new one is closing.
        yield* pass("30 minutes")
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(call)
        yield* pass("1 hour")
        assert.deepStrictEqual([log, closing.pollUnsafe()], [["key-m2"], undefined], strategy)
        yield* pass("2 hours")
        assert.deepStrictEqual(log, ["key-m2", "key-m1"])
        assert.isDefined(closing.pollUnsafe(), strategy)
      }).pipe(Effect.provide(configured(secrets)))
    })
  })

  it.effect("is of no use from the moment that its scope begins to close", () => {
    const secrets = secretsOf()
    const slow = Layer.effect(
      Mail,
      Effect.gen(function*() {
        yield* Effect.addFinalizer(() => Effect.sleep("1 hour"))
        return { key: Redacted.value(yield* Config.Redacted("MAIL_KEY")) }
      })
    )
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const mailer = yield* Scope.provide(SecretConfig.refreshable(slow), scope)
      secrets.set("mail", "m2")
      yield* pass("1 minute")
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      const exit = yield* Effect.exit(mailer.provide(Mail))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      yield* pass("2 hours")
      yield* Fiber.join(closing)
    }).pipe(Effect.provide(configured(secrets)))
  })

  it("refuses options that make no sense", () => {
    assert.throws(() => SecretConfig.refreshable(Layer.empty, { retryDelay: 0 }), "retryDelay")
    assert.throws(() => SecretConfig.refreshable(Layer.empty, { retry: 0 } as object), "retry")
  })
})
