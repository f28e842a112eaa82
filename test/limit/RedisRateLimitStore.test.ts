import { NodeRedis } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Clock, Config, ConfigProvider, Context, Effect, Fiber, Layer, Logger } from "effect"
import { ToolMeta } from "effect-toolops"
import { RateLimitStore, RedisRateLimitStore } from "effect-toolops/limit"
import { Redis } from "effect/persistence"
import { join } from "node:path"
import { inject } from "vitest"
import { oneGood } from "../support/oneGood.ts"
import { startWorkers } from "../support/workers.ts"
import { shape, takeOf } from "./bucketShape.ts"
import { alice, limited } from "./limited.ts"
import { suite, uniqueKey } from "./RateLimitStoreTest.ts"
import { realSleep, type RedisServer, redisServer } from "./redisServer.ts"

// Without a Redis nothing below runs, and the address is never used.
const { canStart, url = "" } = inject("redis")
const prefix = `test:limit:${process.pid}:${performance.timeOrigin}:`

const at = (where: string, options?: RedisRateLimitStore.Options) =>
  RedisRateLimitStore.layer({ prefix, commandTimeout: "5 seconds", onStoreError: "refuse", ...options }).pipe(
    Layer.provideMerge(NodeRedis.layer({ url: where })),
    // The client tells of a lost connection, which is the point of some tests.
    Layer.provide(Logger.layer([]))
  )

/** A store of a process of its own. */
const store = (where: string, options?: RedisRateLimitStore.Options) =>
  Effect.map(
    Layer.build(Layer.fresh(at(where, options))),
    (context) => Context.get(context, RateLimitStore.RateLimitStore)
  )

const redis = Effect.map(Layer.build(NodeRedis.layer({ url })), (context) => Context.get(context, Redis.Redis))

const keysOf = (client: Redis.Redis["Service"], pattern: string) => client.send<ReadonlyArray<string>>("KEYS", pattern)

const take = (bucket: RateLimitStore.BucketShape, key: string, cost = 1) => takeOf(bucket, key, cost)

/** What a worker was granted, between its first question and its last grant. */
interface Worked {
  readonly first: number
  readonly last: number
  readonly asked: number
  readonly passed: number
}

/** Runs `redisWorker.ts` in two processes, which begin when both are ready. */
const twoWorkers = async (key: string, millis: number): Promise<ReadonlyArray<Worked>> => {
  const args = [url, prefix, key, String(millis)]
  const workers = await startWorkers(join(import.meta.dirname, "redisWorker.ts"), [args, args])
  try {
    workers.begin()
    return (await workers.printed<Worked>()).map((worked) => worked!)
  } finally {
    workers.stop()
  }
}

// A client waits for its commands when it is closed, so the server goes on before that.
const pause = (server: RedisServer) =>
  Effect.andThen(Effect.addFinalizer(() => Effect.sync(server.resume)), Effect.sync(server.pause))

describe.skipIf(url === "")("RedisRateLimitStore", () => {
  afterAll(() =>
    Effect.runPromise(Effect.scoped(Effect.gen(function*() {
      const client = yield* redis
      const left = yield* keysOf(client, `${prefix}*`)
      if (left.length > 0) yield* client.send("DEL", ...left)
    })))
  )

  suite({ name: "Redis", layer: at(url), wait: realSleep, slack: 5000 })

  const hourly = shape("hourly", 5, 3_600_000)

  it.effect("leaves nothing behind when buckets are full again", () =>
    Effect.gen(function*() {
      const one = yield* store(url)
      const client = yield* redis
      const key = uniqueKey()
      yield* one.consume([take(shape("short", 10, 2000), key)], 0)
      assert.strictEqual((yield* keysOf(client, `${prefix}${key}`)).length, 1)
      yield* realSleep(230)
      assert.strictEqual((yield* keysOf(client, `${prefix}${key}`)).length, 0)
      const spent = take(shape("short", 1, 3_600_000), key)
      yield* one.consume([spent], 0)
      yield* one.refund([spent])
      assert.strictEqual((yield* keysOf(client, `${prefix}${key}`)).length, 0)
    }))

  it.effect("writes nothing for a call that is refused", () =>
    Effect.gen(function*() {
      const one = yield* store(url)
      const client = yield* redis
      const [empty, other] = [uniqueKey(), uniqueKey()]
      yield* one.consume([take(hourly, empty, 5)], 0)
      yield* one.consume([take(hourly, empty), take(shape("other", 5, 3_600_000), other)], 0)
      assert.strictEqual((yield* keysOf(client, `${prefix}${other}`)).length, 0)
    }))

  it.effect("locks nobody out when the server's clock is set back", () =>
    Effect.gen(function*() {
      const one = yield* store(url)
      const client = yield* redis
      const key = uniqueKey()
      const minute = shape("minute", 60, 60_000)
      yield* one.consume([take(minute, key, 60)], 0)
      // What a bucket looks like that was written when the clock was an hour ahead.
      const [full = "", span = "", written = "", since = "", refunded = ""] =
        (yield* client.send<string>("GET", `${prefix}${key}`)).split(" ")
      const later = (moment: string) => String(Number(moment) + 3_600_000_000)
      yield* client.send(
        "SET",
        `${prefix}${key}`,
        [later(full), span, later(written), later(since), refunded].join(" ")
      )
      const next = take(minute, key)
      assert.strictEqual(yield* one.consume([next], 0), RateLimitStore.refused)
      assert.isAtMost(next.retryAfterMillis, 1000)
      yield* realSleep(1010)
      assert.strictEqual(yield* one.consume([take(minute, key)], 0), 0)
    }))

  it.effect("gives nothing back once the server's clock has been set back, because nobody knows how much that is", () =>
    Effect.gen(function*() {
      const one = yield* store(url)
      const client = yield* redis
      const hour = 3_600_000_000
      const key = uniqueKey()
      const early = take(hourly, key, 3)
      yield* one.consume([early], 0)
      // The bucket was written once more, when the clock was an hour ahead.
      const [full = "", span = "", written = "", ...rest] = (yield* client.send<string>("GET", `${prefix}${key}`))
        .split(" ")
      yield* client.send(
        "SET",
        `${prefix}${key}`,
        [Number(full) + hour, span, Number(written) + hour, ...rest].join(" ")
      )
      yield* one.refund([early])
      const left = take(hourly, key, 0)
      yield* one.peek([left], 0)
      assert.strictEqual(left.remaining, 2)
      // A take that was granted when the clock was an hour ahead, and a bucket that has been written since.
      const other = uniqueKey()
      const ahead = take(hourly, other, 3)
      yield* one.consume([ahead], 0)
      ahead.spentUntil += hour
      ahead.spentFrom = String(Number(ahead.spentFrom) + hour)
      yield* one.refund([ahead])
      const still = take(hourly, other, 0)
      yield* one.peek([still], 0)
      assert.strictEqual(still.remaining, 2)
    }))

  it.effect("does not trust what else is found under a key", () =>
    Effect.gen(function*() {
      const one = yield* store(url)
      const client = yield* redis
      for (const garbage of ["", "nonsense", "1", "nan nan nan", "1e999 1 1e999 1", "1 2 3 4", "a b c d e"]) {
        const key = uniqueKey()
        yield* client.send("SET", `${prefix}${key}`, garbage)
        assert.strictEqual(yield* one.consume([take(hourly, key, 5)], 0), 0, garbage)
        assert.strictEqual(yield* one.consume([take(hourly, key)], 0), RateLimitStore.refused, garbage)
      }
      const list = uniqueKey()
      yield* client.send("LPUSH", `${prefix}${list}`, "x")
      yield* client.send("PEXPIRE", `${prefix}${list}`, "10000")
      yield* one.consume([take(hourly, list)], 0)
    }))

  it.live("lets two processes share a limit within one percent", () => {
    const shared = Effect.gen(function*() {
      const results = yield* Effect.promise(() => twoWorkers(uniqueKey(), 3000))
      const first = Math.min(...results.map((result) => result.first))
      const last = Math.max(...results.map((result) => result.last))
      const passed = results.map((result) => result.passed)
      const ideal = 100 + (last - first) / 5
      const sum = passed.reduce((a, b) => a + b, 0)
      const figures = `${passed.join(" + ")} of ${ideal}`
      assert.isAtMost(sum, ideal * 1.01, figures)
      return {
        figures,
        ideal,
        share: sum / ideal,
        least: Math.min(...passed),
        asked: Math.min(...results.map((r) => r.asked))
      }
    })
    // What nobody asks for is not granted, so either process has to ask for more than there is.
    return oneGood(shared, ({ asked, ideal, least, share }) => asked > 2 * ideal && share >= 0.99 && least > 20)
  })

  it.live("goes by the server's clock, not by that of the process", () =>
    Effect.gen(function*() {
      const real = yield* Clock.Clock
      const ahead: Clock.Clock = {
        ...real,
        sleep: (duration) => real.sleep(duration),
        currentTimeMillisUnsafe: () => real.currentTimeMillisUnsafe() + 5000,
        currentTimeNanosUnsafe: () => real.currentTimeNanosUnsafe() + 5_000_000_000n,
        monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe() + 5_000_000_000n
      }
      const one = yield* store(url)
      const other = yield* Effect.provideService(store(url), Clock.Clock, ahead)
      const key = uniqueKey()
      const slow = shape("slow", 1, 4000)
      assert.strictEqual(yield* one.consume([take(slow, key)], 0), 0)
      const early = take(slow, key)
      assert.strictEqual(
        yield* Effect.provideService(other.consume([early], 0), Clock.Clock, ahead),
        RateLimitStore.refused
      )
      assert.isAbove(early.retryAfterMillis, 2000)
    }))

  const daily = shape("daily", 10, 86_400_000)

  /** A store in front of a Redis whose answers take long, or never come, as long as `state` says so. */
  const flapping = (state: { answers: "soon" | "slow" | "late" | "never" }, options?: RedisRateLimitStore.Options) =>
    Effect.map(
      Layer.build(Layer.fresh(
        RedisRateLimitStore.layer({ prefix, commandTimeout: "30 millis", retryAfter: "1 millis", ...options }).pipe(
          Layer.provide(Layer.effect(
            Redis.Redis,
            Effect.map(Redis.Redis, (client) => ({
              ...client,
              send: <A>(command: string, ...given: ReadonlyArray<string>) =>
                state.answers === "never"
                  ? Effect.fail(new Redis.RedisError({ cause: "away" }))
                  : state.answers === "late" || state.answers === "slow"
                  ? Effect.tap(client.send<A>(command, ...given), realSleep(state.answers === "late" ? 60 : 20))
                  : client.send<A>(command, ...given)
            }))
          )),
          Layer.provide(NodeRedis.layer({ url }))
        )
      )),
      (context) => Context.get(context, RateLimitStore.RateLimitStore)
    )

  for (const away of ["late", "never"] as const) {
    it.live(`keeps to the limit when Redis comes and goes, answering ${away} in between`, () =>
      Effect.gen(function*() {
        const state: { answers: "soon" | "late" | "never" } = { answers: "soon" }
        const one = yield* flapping(state)
        const key = uniqueKey()
        let passed = 0
        for (let i = 0; i < 90; i++) {
          state.answers = i % 3 === 1 ? "soon" : away
          if ((yield* one.consume([take(daily, key)], 0)) !== RateLimitStore.refused) passed += 1
          yield* realSleep(2)
        }
        // Until what came late has been given back.
        state.answers = "soon"
        yield* realSleep(150)
        for (let i = 0; i < 20; i++) {
          if ((yield* one.consume([take(daily, key)], 0)) !== RateLimitStore.refused) passed += 1
        }
        assert.isAtMost(passed, 10)
        // On a busy machine an answer may be late and what it spent not be given back, because Redis is away again.
        assert.isAtLeast(passed, 6)
      }))
  }

  for (const [where, maxPending] of [["here", 1], ["by Redis", 2]] as const) {
    it.live(`forgets nothing that was granted ${where} while an answer was on its way that does not know of it`, () =>
      Effect.gen(function*() {
        const state: { answers: "soon" | "slow" | "late" | "never" } = { answers: "soon" }
        const one = yield* flapping(state, { maxPending, commandTimeout: "1 second" })
        const key = uniqueKey()
        yield* one.consume([take(daily, uniqueKey())], 0)
        state.answers = "slow"
        const waiting = yield* Effect.forkChild(one.consume([take(daily, key, 2)], 0))
        yield* realSleep(5)
        state.answers = "soon"
        assert.strictEqual(yield* one.consume([take(daily, key, 7)], 0), 0)
        assert.strictEqual(yield* Fiber.join(waiting), 0)
        state.answers = "never"
        assert.strictEqual(yield* one.consume([take(daily, key, 2)], 0), RateLimitStore.refused)
        assert.strictEqual(yield* one.consume([take(daily, key, 1)], 0), 0)
      }))
  }

  it.live("charges Redis for what was granted while it was away, less what was given back and what time has", () =>
    Effect.gen(function*() {
      const state: { answers: "soon" | "late" | "never" } = { answers: "never" }
      const one = yield* flapping(state)
      const other = yield* store(url)
      const [key, forgotten] = [uniqueKey(), uniqueKey()]
      const quick = shape("quick", 10, 400)
      assert.strictEqual(yield* one.consume([take(daily, key, 6), take(quick, forgotten, 10)], 0), 0)
      const back = take(daily, key, 2)
      assert.strictEqual(yield* one.consume([back], 0), 0)
      yield* one.refund([back])
      yield* realSleep(420)
      state.answers = "soon"
      const left = [take(daily, key, 0), take(quick, forgotten, 0)]
      for (let attempt = 0; attempt < 100 && left[0]?.remaining !== 4; attempt++) {
        yield* one.consume([take(daily, key, 0), take(quick, forgotten, 0)], 0)
        yield* other.peek(left, 0)
      }
      assert.deepStrictEqual(left.map((one) => one.remaining), [4, 10])
      // It is charged once.
      yield* one.consume([take(daily, key, 1)], 0)
      yield* other.peek(left, 0)
      assert.strictEqual(left[0]?.remaining, 3)
    }))

  it.live("makes nobody wait for more than one limit beyond an empty bucket, however many processes granted it", () =>
    Effect.gen(function*() {
      const states = Array.from({ length: 4 }, (): { answers: "soon" | "late" | "never" } => ({ answers: "never" }))
      const stores = yield* Effect.forEach(states, (state) => flapping(state))
      const key = uniqueKey()
      for (const one of stores) assert.strictEqual(yield* one.consume([take(daily, key, 10)], 0), 0)
      for (const state of states) state.answers = "soon"
      yield* realSleep(5)
      for (const one of stores) yield* one.consume([take(daily, key)], 0)
      const last = yield* store(url)
      const seen = take(daily, key)
      for (let attempt = 0; attempt < 20; attempt++) {
        yield* realSleep(10)
        yield* last.peek([seen], 0)
        assert.isAtMost(seen.resetAfterMillis, 2 * 86_400_000)
      }
      assert.isFalse(seen.allowed)
      assert.isAbove(seen.resetAfterMillis, 86_400_000 * 1.99)
    }))

  describe.skipIf(!canStart)("when Redis does not answer", () => {
    const quick: RedisRateLimitStore.Options = { commandTimeout: "50 millis", retryAfter: "100 millis" }

    it.live("refuses, passes or limits in this process, as told, and none waits long", () => {
      const took = Effect.gen(function*() {
        const server = yield* redisServer
        // Time enough for a healthy Redis on a busy machine.
        const quick: RedisRateLimitStore.Options = { commandTimeout: "250 millis", retryAfter: "1 second" }
        const refuse = yield* store(server.url, { ...quick, onStoreError: "refuse" })
        const allow = yield* store(server.url, { ...quick, onStoreError: "allow" })
        const local = yield* store(server.url, { ...quick, onStoreError: "local" })
        const key = uniqueKey()
        yield* local.consume([take(hourly, key, 4)], 0)
        yield* pause(server)
        const start = performance.now()
        const error = yield* Effect.flip(refuse.consume([take(hourly, key)], 0))
        assert.strictEqual(error.reason._tag, "LimitStoreUnavailable")
        assert.strictEqual(yield* allow.consume([take(hourly, key, 100)], 0), 0)
        assert.strictEqual(yield* local.consume([take(hourly, key)], 0), 0, "one token was left when Redis last spoke")
        assert.strictEqual(yield* local.consume([take(hourly, key)], 0), RateLimitStore.refused)
        return performance.now() - start
      })
      // Each of the three waits once for an answer, and the last call for none.
      return oneGood(Effect.scoped(took), (millis) => millis < 1200)
    })

    it.live("stops asking after a few failures, and holds no more commands than it may", () => {
      const took = Effect.gen(function*() {
        const server = yield* redisServer
        const local = yield* store(server.url, {
          ...quick,
          onStoreError: "local",
          maxPending: 50,
          retryAfter: "1 minute"
        })
        yield* pause(server)
        const start = performance.now()
        yield* Effect.forEach(
          Array.from({ length: 20_000 }, (_, i) => `${i}`),
          (key) => local.consume([take(hourly, key)], 0),
          {
            concurrency: "unbounded",
            discard: true
          }
        )
        const all = performance.now() - start
        const again = performance.now()
        for (let i = 0; i < 1000; i++) {
          yield* local.consume([take(hourly, `${i}`)], 0)
        }
        return { all, again: performance.now() - again }
      })
      // No call waits for a Redis that is known to be away.
      return oneGood(Effect.scoped(took), ({ again, all }) => all < 3000 && again < 200)
    })

    it.live("returns to Redis when it is back, paused or killed", () =>
      Effect.gen(function*() {
        const server = yield* redisServer
        const one = yield* store(server.url, { ...quick, onStoreError: "local" })
        const other = yield* store(server.url, { ...quick, commandTimeout: "1 second" })
        for (const outage of ["pause", "kill"] as const) {
          const key = uniqueKey()
          yield* Effect.promise(async () => server[outage]())
          assert.strictEqual(yield* one.consume([take(hourly, key, 5)], 0), 0)
          assert.strictEqual(yield* one.consume([take(hourly, key)], 0), RateLimitStore.refused)
          for (let i = 0; i < 5; i++) yield* one.consume([take(hourly, uniqueKey())], 0)
          yield* outage === "pause" ? Effect.sync(server.resume) : Effect.promise(server.start)
          // Shared again: what one process spends, the other one misses.
          let found = 5
          for (let attempt = 0; attempt < 100 && found === 5; attempt++) {
            yield* realSleep(50)
            const fresh = uniqueKey()
            yield* one.consume([take(hourly, fresh, 3)], 0)
            const seen = take(hourly, fresh, 0)
            yield* Effect.ignore(other.peek([seen], 0))
            if (seen.resetAfterMillis > 0) found = seen.remaining
          }
          assert.strictEqual(found, 2, outage)
        }
      }))

    it.live("gives back what an answer spent that came too late", () =>
      Effect.gen(function*() {
        const server = yield* redisServer
        const one = yield* store(server.url, { ...quick, commandTimeout: "500 millis", onStoreError: "allow" })
        const other = yield* store(server.url, { commandTimeout: "5 seconds" })
        const key = uniqueKey()
        yield* one.consume([take(hourly, key)], 0)
        yield* pause(server)
        assert.strictEqual(yield* one.consume([take(hourly, key, 3)], 0), 0)
        server.resume()
        const left = take(hourly, key, 0)
        for (let attempt = 0; attempt < 100 && left.remaining !== 4; attempt++) {
          yield* realSleep(20)
          yield* other.peek([left], 0)
        }
        assert.strictEqual(left.remaining, 4)
      }))

    it.live("finishes a step that has begun when the call is interrupted, and gives its tokens back", () =>
      Effect.gen(function*() {
        const server = yield* redisServer
        const t = yield* limited(
          { limits: [{ name: "hourly", per: "identity", limit: 5, window: "1 hour" }] },
          at(server.url, { commandTimeout: "2 seconds" })
        )
        const echo = ToolMeta.make({ name: "echo" })
        yield* t.run(echo, alice)
        yield* pause(server)
        const waiting = yield* Effect.forkChild(t.run(echo, alice))
        yield* realSleep(20)
        yield* Effect.forkChild(Effect.andThen(realSleep(50), Effect.sync(server.resume)))
        yield* Fiber.interrupt(waiting)
        assert.strictEqual(t.records.at(-1)?.outcome, "interrupted")
        const plan = yield* t.limits.explain(echo)(t.call(echo, alice))
        const [status] = plan.detail["limits"] as ReadonlyArray<{ readonly remaining: number }>
        assert.strictEqual(status?.remaining, 4)
      }))
  })

  describe("options", () => {
    const nonsense: ReadonlyArray<readonly [object, RegExp]> = [
      [{ prefix: "" }, /RedisRateLimitStore.layer: prefix must be/],
      [{ prefix: 1 }, /prefix must be/],
      [{ commandTimeout: 0 }, /commandTimeout must be a duration > 0/],
      [{ commandTimeout: "Infinity" }, /commandTimeout must be/],
      [{ onStoreError: "open" }, /onStoreError must be one of refuse, allow, local/],
      [{ retryAfter: -1 }, /retryAfter must be/],
      [{ maxPending: 0 }, /maxPending must be an integer/],
      [{ maxKeys: 2 ** 53 }, /maxKeys must be an integer/],
      [{ timeout: 1 }, /unknown option "timeout"/]
    ]
    for (const [options, message] of nonsense) {
      it(`throws at construction for ${JSON.stringify(options)}`, () => {
        assert.throws(() => RedisRateLimitStore.layer(options), message)
      })
    }

    it.effect("reads everything from the configuration", () =>
      Effect.gen(function*() {
        const context = yield* Layer.build(
          RedisRateLimitStore.layerConfig({ prefix: Config.String("PREFIX"), onStoreError: Config.succeed("refuse") })
            .pipe(
              Layer.provide(NodeRedis.layer({ url }))
            )
        ).pipe(Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ PREFIX: `${prefix}configured:` }))))
        const key = uniqueKey()
        yield* Context.get(context, RateLimitStore.RateLimitStore).consume([take(hourly, key)], 0)
        assert.strictEqual((yield* keysOf(yield* redis, `${prefix}configured:${key}`)).length, 1)
        yield* (yield* redis).send("DEL", `${prefix}configured:${key}`)
      }))
  })
})
