import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Logger, Stream } from "effect"
import { CircuitBreaker } from "effect-toolops/resilience"
import { Redis } from "effect/persistence"
import { inject } from "vitest"
import { type RedisServer, redisServer } from "../limit/redisServer.ts"

/** The breaker of a process of its own. */
const process = (server: RedisServer, options?: Partial<CircuitBreaker.SharedOptions>) =>
  CircuitBreaker.layerShared({
    name: "github",
    maxFailures: 2,
    resetTimeout: "200 millis",
    commandTimeout: "5 seconds",
    ...options
  }).pipe(
    Layer.provide(NodeRedis.layer({ url: server.url })),
    // The client tells of a lost connection, which is the point of some tests.
    Layer.provide(Logger.layer([])),
    Layer.fresh,
    Layer.build,
    Effect.map((context) => Context.get(context, CircuitBreaker.CircuitBreaker))
  )

const trip = (breaker: CircuitBreaker.CircuitBreaker["Service"]) => Effect.exit(breaker.execute(Effect.fail("down")))

// A client waits for its commands when it is closed, so the server goes on before that.
const pause = (server: RedisServer) =>
  Effect.andThen(Effect.addFinalizer(() => Effect.sync(server.resume)), Effect.sync(server.pause))

describe.skipIf(!inject("redis").canStart)("CircuitBreaker.layerShared", () => {
  it.live("opens for every process, and closes for every process when the probe of one succeeds", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const one = yield* process(server)
      const two = yield* process(server)
      assert.deepStrictEqual(yield* trip(one), Exit.fail("down"))
      yield* trip(two)
      assert.deepStrictEqual([yield* one.state, yield* two.state], ["open", "open"])
      const refused = yield* Effect.flip(one.execute(Effect.void))
      assert.strictEqual(refused.reason._tag, "CircuitOpen")
      const millis = Duration.toMillis(refused.retryAfter!)
      assert.isTrue(millis > 0 && millis <= 200, `retry after ${millis} ms`)
      yield* Effect.sleep(220)
      const gate = yield* Deferred.make<string>()
      const probe = yield* Effect.forkChild(one.execute(Deferred.await(gate)))
      yield* Effect.sleep(50)
      assert.strictEqual(yield* two.state, "half-open")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(two.execute(Effect.void))))
      yield* Deferred.succeed(gate, "up")
      assert.strictEqual(yield* Fiber.join(probe), "up")
      assert.strictEqual(yield* two.execute(Effect.succeed("through")), "through")
      assert.strictEqual(yield* two.state, "closed")
    }))

  it.live("gives the place of an interrupted probe to another process", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const one = yield* process(server, { maxFailures: 1, resetTimeout: "50 millis", probeLease: "1 hour" })
      const two = yield* process(server, { maxFailures: 1, resetTimeout: "50 millis", probeLease: "1 hour" })
      yield* trip(one)
      yield* Effect.sleep(60)
      const probe = yield* Effect.forkChild(one.execute(Effect.never))
      yield* Effect.sleep(50)
      assert.strictEqual(yield* two.state, "half-open")
      yield* Fiber.interrupt(probe)
      yield* two.execute(Effect.void)
      assert.strictEqual(yield* one.state, "closed")
    }))

  it.live("gives the place of a probe that never ends to another process when the lease is over, for good", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const options = { maxFailures: 1, resetTimeout: "20 millis", probeLease: "300 millis" } as const
      const one = yield* process(server, options)
      const two = yield* process(server, options)
      yield* trip(one)
      yield* Effect.sleep(30)
      const gate = yield* Deferred.make<string, string>()
      const stuck = yield* Effect.forkChild(Effect.exit(one.execute(Deferred.await(gate))))
      yield* Effect.sleep(100)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(two.execute(Effect.void))), "the lease is not over")
      yield* Effect.sleep(250)
      assert.strictEqual(yield* two.execute(Effect.succeed("through")), "through")
      assert.strictEqual(yield* one.state, "closed")
      yield* Deferred.fail(gate, "late")
      assert.deepStrictEqual(yield* Fiber.join(stuck), Exit.fail("late"))
      assert.deepStrictEqual([yield* one.state, yield* two.state], ["closed", "closed"])
    }))

  it.live("is not moved by the result of a probe whose lease is over, though nobody took its place", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const breaker = yield* process(server, { maxFailures: 1, resetTimeout: "20 millis", probeLease: "100 millis" })
      for (const late of [Effect.void, Effect.fail("late")]) {
        yield* breaker.reset
        yield* trip(breaker)
        yield* Effect.sleep(30)
        yield* Effect.exit(breaker.execute(Effect.andThen(Effect.sleep(150), late)))
        const { probes, status } = yield* breaker.snapshot
        assert.deepStrictEqual({ probes, status }, { probes: 0, status: "half-open" })
      }
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.live("hands on what the work came to, cause and all", () =>
    Effect.gen(function*() {
      const breaker = yield* process(yield* redisServer)
      const both = Effect.ensuring(Effect.fail("no"), Effect.die("bug"))
      const exit = yield* Effect.exit(breaker.execute(both))
      assert.deepStrictEqual(exit, yield* Effect.exit(both))
      assert.deepStrictEqual(yield* Effect.exit(breaker.execute(Effect.succeed(1))), Exit.succeed(1))
    }))

  it.live("stays open as its schedule says, and tells its transitions", () =>
    Effect.gen(function*() {
      const breaker = yield* process(yield* redisServer, { maxFailures: 1, resetTimeout: "30 millis" })
      const transitions = yield* Effect.forkChild(Stream.runCollect(Stream.take(breaker.transitions, 3)), {
        startImmediately: true
      })
      yield* Effect.sleep(20)
      yield* trip(breaker)
      yield* Effect.sleep(40)
      yield* breaker.execute(Effect.void)
      const seen = yield* Fiber.join(transitions)
      assert.deepStrictEqual(seen.map(({ from, name, to }) => `${name}: ${from} -> ${to}`), [
        "github: closed -> open",
        "github: open -> half-open",
        "github: half-open -> closed"
      ])
    }))

  it.live("goes by a circuit of its own while Redis does not answer, and waits for it in vain only a few times", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const breaker = yield* process(server, { commandTimeout: "50 millis" })
      yield* breaker.execute(Effect.void)
      yield* pause(server)
      const start = performance.now()
      assert.strictEqual(yield* breaker.execute(Effect.succeed("alone")), "alone")
      for (let i = 0; i < 200; i++) yield* breaker.execute(Effect.void)
      const took = performance.now() - start
      assert.isBelow(took, 2000)
      yield* trip(breaker)
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "open")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.execute(Effect.void))))
    }))

  it.live("answers an interrupted caller in bounded time while Redis does not answer", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const breaker = yield* process(server, { commandTimeout: "100 millis" })
      yield* pause(server)
      const start = performance.now()
      const call = yield* Effect.forkChild(breaker.execute(Effect.never))
      yield* Effect.sleep(10)
      yield* Fiber.interrupt(call)
      assert.isBelow(performance.now() - start, 2000)
    }))

  it.live("refuses while Redis does not answer where it was told to", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const breaker = yield* process(server, { onStoreError: "refuse", commandTimeout: "500 millis" })
      yield* breaker.execute(Effect.void)
      yield* pause(server)
      let ran = false
      const refused = yield* Effect.flip(breaker.execute(Effect.sync(() => ran = true)))
      assert.strictEqual(refused.reason._tag, "CircuitOpen")
      assert.isFalse(ran)
    }))

  it.live("finds Redis again", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const breaker = yield* process(server, { onStoreError: "refuse", commandTimeout: "100 millis" })
      yield* pause(server)
      for (let i = 0; i < 5; i++) assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.execute(Effect.void))))
      server.resume()
      yield* Effect.sleep(1100)
      yield* breaker.execute(Effect.void)
    }))

  it.live("is forced by an operator for this process, and reset for all", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const one = yield* process(server, { maxFailures: 1, resetTimeout: "1 hour" })
      const two = yield* process(server, { maxFailures: 1, resetTimeout: "1 hour" })
      yield* one.forceOpen
      assert.isTrue(Exit.isFailure(yield* Effect.exit(one.execute(Effect.void))))
      assert.strictEqual(yield* one.state, "forced-open")
      yield* two.execute(Effect.void)
      yield* trip(two)
      yield* one.reset
      assert.strictEqual(yield* two.state, "closed")
      yield* one.execute(Effect.void)
    }))

  it.live("resets in bounded time while Redis does not answer", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const breaker = yield* process(server, { commandTimeout: "50 millis" })
      yield* breaker.execute(Effect.void)
      yield* pause(server)
      const start = performance.now()
      for (let i = 0; i < 20; i++) yield* breaker.reset
      // One after the other they would take a second: Redis is left alone after a few.
      assert.isBelow(performance.now() - start, 800)
    }))

  it.live("tells how long the lease of another's probe still runs", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const options = { maxFailures: 1, resetTimeout: "20 millis", probeLease: "1 minute" } as const
      const one = yield* process(server, options)
      const two = yield* process(server, options)
      yield* trip(one)
      yield* Effect.sleep(30)
      const probe = yield* Effect.forkChild(one.execute(Effect.never))
      yield* Effect.sleep(500)
      const retryAfter = (yield* Effect.flip(two.execute(Effect.void))).retryAfter!
      for (const millis of [retryAfter, (yield* two.snapshot).retryAfter].map(Duration.toMillis)) {
        assert.isTrue(millis > 50_000 && millis <= 59_600, `retry after ${millis} ms`)
      }
      yield* Fiber.interrupt(probe)
      const { retryAfter: free, status } = yield* two.snapshot
      assert.deepStrictEqual([status, Duration.toMillis(free)], ["half-open", 0])
    }))

  it("throws on nonsense, and on what cannot be shared", () => {
    const nonsense: ReadonlyArray<readonly [object, RegExp]> = [
      [{ name: "" }, /layerShared: name must be a string that is not empty/],
      [{ maxFailures: 0 }, /layerShared: maxFailures must be an integer/],
      [{ commandTimeout: 0 }, /layerShared: commandTimeout must be a duration > 0/],
      [{ halfOpenMaxRequests: 2 }, /unknown option "halfOpenMaxRequests"/],
      [{ window: { type: "time", duration: 1000 } }, /window must be a count window without slowCall/],
      [{ window: { type: "count", size: 1, slowCall: { duration: 1, rate: 1 } } }, /without slowCall/],
      [{ name: undefined }, /layerShared: name is missing: it names the circuit in Redis/],
      [{ maxCommands: 0 }, /layerShared: maxCommands must be an integer >= 1/],
      [{ onStoreError: "open" }, /onStoreError must be one of local, refuse/]
    ]
    for (const [options, message] of nonsense) {
      assert.throws(() => CircuitBreaker.layerShared({ name: "n", ...options }), message)
    }
  })
})

/** A Redis that takes commands and says what came to it, and answers none but the loading of scripts. */
const silentRedis = Effect.gen(function*() {
  const sent: Array<string> = []
  const service = yield* Redis.make({
    send: <A>(command: string) =>
      Effect.suspend((): Effect.Effect<A> => {
        sent.push(command)
        // The answer to this one command is a string.
        return command === "SCRIPT" ? Effect.succeed("sha" as A) : Effect.never
      }),
    subscribe: () => Effect.never,
    connect: Effect.never
  })
  return { sent, layer: Layer.succeed(Redis.Redis, service) }
})

describe("CircuitBreaker.layerShared on a Redis that never answers", () => {
  const manyCalls = (options: Partial<CircuitBreaker.SharedOptions>) =>
    Effect.gen(function*() {
      const redis = yield* silentRedis
      const context = yield* Layer.build(Layer.provide(
        CircuitBreaker.layerShared({ name: "github", commandTimeout: "100 millis", ...options }),
        redis.layer
      ))
      const breaker = Context.get(context, CircuitBreaker.CircuitBreaker)
      const exits = yield* Effect.forEach(
        Array.from({ length: 5000 }),
        () => Effect.exit(breaker.execute(Effect.void)),
        { concurrency: "unbounded" }
      )
      return { sent: redis.sent.filter((command) => command === "EVALSHA").length, ran: exits.filter(Exit.isSuccess) }
    })

  it.live("has no more calls wait for it than it was told, and the others go by the local circuit", () =>
    Effect.gen(function*() {
      const { ran, sent } = yield* manyCalls({ maxCommands: 20 })
      assert.strictEqual(sent, 20)
      assert.lengthOf(ran, 5000)
    }))

  it.live("has at most 1,000 calls wait for it where it was told nothing, and refuses the others where it was told to", () =>
    Effect.gen(function*() {
      const { ran, sent } = yield* manyCalls({ onStoreError: "refuse" })
      assert.strictEqual(sent, 1000)
      assert.lengthOf(ran, 0)
    }))
})
