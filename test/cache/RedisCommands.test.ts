/** What the store makes of a Redis client's replies. The client is a fake, so every one of them can be chosen. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { CacheStore, RedisCacheStore } from "effect-toolops/cache"
import { Redis, RedisError } from "effect/persistence/Redis"
import { TestClock } from "effect/testing"

type Reply = (...args: ReadonlyArray<string>) => unknown

/** Never replied to. */
const silence = Symbol("silence")

const key = `cache:t:${"a".repeat(64)}`

const timeIn = (seconds: number) => {
  const now = Date.now() + seconds * 1000
  return [String(Math.floor(now / 1000)), String((now % 1000) * 1000)]
}

const entryOf = (freshMillis: number) => `1 ${Date.now() + freshMillis} ${Date.now() + 3_600_000} ${key}\n"v"`

/** A client that replies as told, an `Error` for a failure; and what it was sent. */
const fake = (replies: Record<string, Reply>) => {
  const sent: Array<string> = []
  const told: Record<string, Reply> = {
    TIME: () => timeIn(0),
    ECHO: (text) => text,
    GET: () => entryOf(5000),
    ...replies
  }
  const send = <A>(command: string, ...args: ReadonlyArray<string>) =>
    Effect.suspend((): Effect.Effect<A, RedisError> => {
      sent.push(command)
      const reply = told[command]?.(...args)
      if (reply === silence) return Effect.never
      if (Effect.isEffect(reply)) return reply as Effect.Effect<A>
      return reply instanceof Error ? Effect.fail(new RedisError({ cause: reply })) : Effect.succeed(reply as A)
    })
  const layer = Layer.succeed(Redis, {
    send,
    eval: () => () => send("EVAL"),
    subscribe: () => Effect.never,
    reserve: Effect.never
  })
  return { told, count: (command: string) => sent.filter((one) => one === command).length, layer }
}

type Fake = ReturnType<typeof fake>

const storeIn = (redis: Fake, scope: Scope.Scope) =>
  Effect.flatMap(
    Layer.buildWithScope(RedisCacheStore.layer().pipe(Layer.provide(redis.layer)), scope),
    (context) => Effect.provideContext(Effect.map(CacheStore.CacheStore, (store) => store), context)
  )

const storeOf = (redis: Fake) => Effect.flatMap(Effect.scope, (scope) => storeIn(redis, scope))

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** Lets fibers in the background take their turns. */
const settle = TestClock.adjust(0)

const closed = new Error("Socket closed unexpectedly")
const noPermission = new Error("NOPERM this user has no permissions to run the command")

describe("RedisCacheStore", () => {
  describe("the time of Redis", () => {
    const nonsense = {
      "numbers": [1, "0"],
      "one part": ["1"],
      "three parts": [...timeIn(0), "1"],
      "a text": "toolops:zz",
      "nothing": null,
      "words": ["now", "then"],
      "another list of numbers": ["1", "2"],
      "more than a second of microseconds": [timeIn(0)[0], "1000000"],
      "the day before yesterday": timeIn(-2 * 86_400),
      "the day after tomorrow": timeIn(2 * 86_400)
    }
    for (const [name, reply] of Object.entries(nonsense)) {
      it.effect(`is not learnt from ${name}, which is looked into`, () =>
        Effect.gen(function*() {
          const redis = fake({ TIME: () => reply, GET: () => entryOf(-5000) })
          const store = yield* storeOf(redis)
          yield* settle
          assert.strictEqual(redis.count("ECHO"), 1)
          assert.isTrue(Exit.isFailure(yield* Effect.exit(store.get(key))))
          assert.isTrue(Exit.isFailure(yield* Effect.exit(store.mark!)))
          assert.strictEqual(redis.count("GET"), 0)
          redis.told.TIME = () => timeIn(0)
          const found = yield* store.get(key)
          assert.strictEqual(found?.key, key)
          const now = Number(yield* Effect.clockWith((clock) => clock.monotonicTimeNanos)) / 1e6
          assert.closeTo(found!.freshUntil - now, -5000, 1000)
        }).pipe(Effect.scoped))
    }

    it.effect("may differ from ours by hours", () =>
      Effect.gen(function*() {
        for (const seconds of [-30, 30, -20 * 3600, 20 * 3600]) {
          const redis = fake({ TIME: () => timeIn(seconds) })
          const store = yield* storeOf(redis)
          yield* store.get(key)
          assert.match(String(yield* store.mark!), /^\d{16}$/)
          yield* settle
          assert.strictEqual(redis.count("ECHO"), 0)
        }
      }).pipe(Effect.scoped))
  })

  describe("a reply that is not the entry", () => {
    it.effect("is looked into, and believed to be Redis's when the question is answered", () =>
      Effect.gen(function*() {
        const redis = fake({ GET: () => "something" })
        const store = yield* storeOf(redis)
        assert.notStrictEqual((yield* store.get(key))?.key, key)
        yield* settle
        assert.strictEqual(redis.count("ECHO"), 1)
        assert.strictEqual(redis.count("QUIT"), 0)
        redis.told.GET = () => entryOf(5000)
        assert.strictEqual((yield* store.get(key))?.key, key)
      }).pipe(Effect.scoped))

    it.effect("has Redis end the connection when the question is not answered either", () =>
      Effect.gen(function*() {
        const redis = fake({ GET: () => "something", ECHO: () => "of another" })
        const store = yield* storeOf(redis)
        yield* store.get(key)
        yield* settle
        assert.strictEqual(redis.count("QUIT"), 1)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(store.get(key))))
        redis.told.GET = () => entryOf(5000)
        redis.told.ECHO = (text) => text
        yield* TestClock.adjust(300)
        assert.strictEqual((yield* store.get(key))?.key, key)
      }).pipe(Effect.scoped))
  })

  describe("the question whether Redis is well", () => {
    const afterFailure = (replies: Record<string, Reply>) =>
      Effect.gen(function*() {
        const redis = fake({ ...replies, GET: () => closed })
        const store = yield* storeOf(redis)
        yield* Effect.exit(store.get(key))
        redis.told.GET = () => entryOf(5000)
        yield* TestClock.adjust(1000)
        return { redis, found: yield* Effect.exit(store.get(key)) }
      })

    const answers: Record<string, Record<string, Reply>> = {
      "ECHO": {},
      "bytes": { ECHO: (text) => Buffer.from(text!) },
      "PING where ECHO is refused": { ECHO: () => noPermission, PING: (text) => text },
      "a PING without its text": { ECHO: () => new Error("ERR unknown command 'echo'"), PING: () => "PONG" },
      "a refusal of both": { ECHO: () => noPermission, PING: () => noPermission }
    }
    for (const [name, replies] of Object.entries(answers)) {
      it.effect(`is answered by ${name}`, () =>
        Effect.gen(function*() {
          const { found, redis } = yield* afterFailure(replies)
          assert.isTrue(Exit.isSuccess(found))
          assert.strictEqual(redis.count("QUIT"), 0)
        }).pipe(Effect.scoped))
    }

    it.effect("is not answered while the connection is lost, or by the reply to another command", () =>
      Effect.gen(function*() {
        for (const PING of [() => closed, () => "of another"]) {
          const { found } = yield* afterFailure({ ECHO: () => noPermission, PING })
          assert.isTrue(Exit.isFailure(found))
        }
      }).pipe(Effect.scoped))
  })

  describe("QUIT", () => {
    it.effect("is sent once in a while when it does not help", () =>
      Effect.gen(function*() {
        const redis = fake({ GET: () => "something", ECHO: () => "of another", QUIT: () => "OK" })
        const store = yield* storeOf(redis)
        yield* store.get(key)
        for (let i = 0; i < 600; i++) yield* TestClock.adjust(100)
        assert.isAtLeast(redis.count("QUIT"), 10)
        assert.isAtMost(redis.count("QUIT"), 16)
      }).pipe(Effect.scoped))

    it.effect("is sent soon again when it did help", () =>
      Effect.gen(function*() {
        const redis = fake({})
        const store = yield* storeOf(redis)
        for (let i = 1; i <= 8; i++) {
          redis.told.GET = () => "something"
          redis.told.ECHO = () => "of another"
          yield* store.get(key)
          for (let waited = 0; redis.count("QUIT") < i && waited < 600; waited += 100) yield* TestClock.adjust(100)
          assert.strictEqual(redis.count("QUIT"), i)
          redis.told.GET = () => entryOf(5000)
          redis.told.ECHO = (text) => text
          yield* TestClock.adjust(300)
          assert.strictEqual((yield* store.get(key))?.key, key)
        }
      }).pipe(Effect.scoped))

    it.effect("is sent when a command that nobody waits for any more is given the text of a question", () =>
      Effect.gen(function*() {
        for (const bytesOf of [(text: string): unknown => text, (text: string): unknown => Buffer.from(text)]) {
          const late = Deferred.makeUnsafe<unknown>()
          let asked = ""
          const redis = fake({ GET: () => Deferred.await(late), ECHO: (text) => (asked = text!, silence) })
          const store = yield* storeOf(redis)
          const waiting = yield* start(Effect.exit(store.get(key)))
          yield* TestClock.adjust(300)
          assert.isTrue(Exit.isFailure(yield* Fiber.join(waiting)))
          assert.strictEqual(redis.count("QUIT"), 0)
          yield* Deferred.succeed(late, bytesOf(asked))
          yield* settle
          assert.strictEqual(redis.count("QUIT"), 1)
        }
      }).pipe(Effect.scoped))

    it.effect("is not waited for", () =>
      Effect.gen(function*() {
        const redis = fake({ GET: () => "something", ECHO: () => "of another", QUIT: () => silence })
        const store = yield* storeOf(redis)
        yield* store.get(key)
        for (let i = 0; i < 100; i++) yield* TestClock.adjust(100)
        assert.isAtLeast(redis.count("QUIT"), 2)
      }).pipe(Effect.scoped))
  })

  describe("when its scope closes", () => {
    it.effect("leaves nobody waiting", () =>
      Effect.gen(function*() {
        const redis = fake({ GET: () => silence })
        const scope = yield* Scope.make()
        const store = yield* storeIn(redis, scope)
        const waiting = yield* start(Effect.exit(store.get(key)))
        yield* Scope.close(scope, Exit.void)
        yield* settle
        const ended = waiting.pollUnsafe()
        assert.isTrue(ended !== undefined && Exit.isSuccess(ended) && Exit.isFailure(ended.value))
        const late = yield* start(Effect.exit(store.get(key)))
        yield* settle
        const exit = late.pollUnsafe()
        assert.isTrue(exit !== undefined && Exit.isSuccess(exit) && Exit.isFailure(exit.value))
        assert.strictEqual(redis.count("GET"), 1)
        yield* Fiber.interruptAll([waiting, late])
      }))
  })
})
