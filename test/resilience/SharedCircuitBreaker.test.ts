import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Logger, References, Stream } from "effect"
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

  it.live("asks its rule what speaks against the dependency", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const options: Partial<CircuitBreaker.SharedOptions> = {
        classify: (exit) => Exit.isSuccess(exit) ? "failure" : Exit.hasDies(exit) ? "ignored" : "success",
        resetTimeout: "1 hour"
      }
      const one = yield* process(server, options)
      const two = yield* process(server, options)
      for (const breaker of [one, two, one]) yield* trip(breaker)
      yield* Effect.exit(one.execute(Effect.die("no matter")))
      yield* one.execute(Effect.succeed("an error in disguise"))
      yield* trip(two)
      yield* one.execute(Effect.succeed("an error in disguise"))
      assert.strictEqual(yield* two.state, "closed")
      yield* Effect.exit(two.execute(Effect.die("no matter")))
      yield* one.execute(Effect.succeed("another in a row"))
      assert.strictEqual(yield* two.state, "open")
    }))

  it.live("opens on the share of failures among the last calls of all processes", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const cases: ReadonlyArray<readonly [Omit<CircuitBreaker.CountWindowOptions, "slowCall">, string, string]> = [
        [{ type: "count", size: 4, failureRate: 0.75, minimumCalls: 3 }, "-+-", "-"],
        [{ type: "count", size: 10, minimumCalls: 2 }, "-", "+"],
        [{ type: "count", size: 3, failureRate: 1 }, "+--", "-"],
        [{ type: "count", size: 3 }, "--", "+"]
      ]
      for (const [index, [window, before, last]] of cases.entries()) {
        const options = { name: `window ${index}`, resetTimeout: "1 hour", maxFailures: undefined, window } as const
        const breakers = [yield* process(server, options), yield* process(server, options)] as const
        const call = (result: string, index: number) =>
          Effect.exit(breakers[index % 2]!.execute(result === "+" ? Effect.void : Effect.fail("down")))
        yield* Effect.forEach([...before], call)
        assert.strictEqual(yield* breakers[0].state, "closed", `${index}: ${before}`)
        yield* call(last, before.length)
        assert.strictEqual(yield* breakers[0].state, "open", `${index}: ${before}${last}`)
      }
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

  it.live("hands on what a call came to whose result Redis does not take, and makes no word of it", () =>
    Effect.gen(function*() {
      const server = yield* redisServer
      const breaker = yield* process(server, { commandTimeout: "100 millis" })
      const said: Array<unknown> = []
      const logger = Logger.make(({ message }) => void said.push(message))
      const inAnOutage = (result: Effect.Effect<string, string>) =>
        breaker.execute(Effect.andThen(Effect.sync(server.pause), result)).pipe(
          Effect.ensuring(Effect.sync(server.resume)),
          Effect.exit,
          Effect.provide(Logger.layer([logger])),
          Effect.provideService(References.MinimumLogLevel, "All")
        )
      const start = performance.now()
      assert.deepStrictEqual(yield* inAnOutage(Effect.succeed("done")), Exit.succeed("done"))
      assert.deepStrictEqual(yield* inAnOutage(Effect.fail("down")), Exit.fail("down"))
      assert.isBelow(performance.now() - start, 2000)
      assert.deepStrictEqual(said, [])
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

/** A Redis that says what came to it, answers some commands, and others never. */
const deafRedis = (answers: { readonly [command: string]: () => unknown }) =>
  Effect.gen(function*() {
    const sent: Array<string> = []
    const service = yield* Redis.make({
      send: <A>(command: string, ...args: ReadonlyArray<string>) =>
        Effect.suspend((): Effect.Effect<A> => {
          // Of a script it is the number of its arguments that tells which one it is.
          const name = command === "EVALSHA" ? `${command} ${args.length - 3}` : command
          sent.push(name)
          // A fake answers with what the real one would.
          if (command === "SCRIPT") return Effect.succeed(`sha ${sent.length}` as A)
          const answer = answers[name]
          return answer === undefined ? Effect.never : Effect.sync(() => answer() as A)
        }),
      subscribe: () => Effect.never,
      connect: Effect.never
    })
    return { sent, layer: Layer.succeed(Redis.Redis, service) }
  })

const admits = "EVALSHA 2"
const records = "EVALSHA 8"

describe("CircuitBreaker.layerShared on a Redis that answers some commands only", () => {
  const breakerOn = (answers: Parameters<typeof deafRedis>[0], options: Partial<CircuitBreaker.SharedOptions>) =>
    Effect.gen(function*() {
      const { layer, sent } = yield* deafRedis(answers)
      const shared = CircuitBreaker.layerShared({ name: "github", commandTimeout: "100 millis", ...options })
      const context = yield* Layer.build(Layer.provide(shared, layer))
      const count = (name: string) => sent.filter((command) => command === name).length
      return { breaker: Context.get(context, CircuitBreaker.CircuitBreaker), count }
    })

  const atOnce = (times: number, breaker: CircuitBreaker.CircuitBreaker["Service"], work = Effect.void) =>
    Effect.map(
      Effect.forEach(Array.from({ length: times }), () => Effect.exit(breaker.execute(work)), {
        concurrency: "unbounded"
      }),
      (exits) => exits.filter(Exit.isSuccess).length
    )

  it.live("has no more calls wait for it than it was told, and the others go by the local circuit", () =>
    Effect.gen(function*() {
      const { breaker, count } = yield* breakerOn({}, { maxCommands: 20 })
      assert.strictEqual(yield* atOnce(5000, breaker), 5000)
      assert.strictEqual(count(admits), 20)
    }))

  it.live("has at most 1,000 calls wait for it where it was told nothing, and refuses the others where it was told to", () =>
    Effect.gen(function*() {
      const { breaker, count } = yield* breakerOn({}, { onStoreError: "refuse" })
      assert.strictEqual(yield* atOnce(5000, breaker), 0)
      assert.strictEqual(count(admits), 1000)
    }))

  it.live("has no more results wait for it than it was told, other than that of the probe", () =>
    Effect.gen(function*() {
      let admitted = 0
      // Twenty calls, of which the last is a probe.
      const admit = () => ["ok", String(admitted += 1), admitted === 20 ? 1 : 0, 0, 0]
      const { breaker, count } = yield* breakerOn({ [admits]: admit }, { maxCommands: 5, onStoreError: "refuse" })
      const gate = yield* Deferred.make<void>()
      const calls = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => Effect.forkChild(breaker.execute(Deferred.await(gate)), { startImmediately: true })
      )
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.forEach(calls, (call) => Fiber.join(call))
      assert.strictEqual(count(records), 6)
    }))

  it.live("takes the whole lease for what is left of it where it cannot know", () =>
    Effect.gen(function*() {
      const { breaker, count } = yield* breakerOn({ [admits]: () => ["halfopen"] }, { probeLease: "7 seconds" })
      const refused = yield* Effect.flip(breaker.execute(Effect.void))
      assert.strictEqual(Duration.toMillis(refused.retryAfter!), 7000)
      assert.strictEqual(count("PTTL"), 1)
    }))
})
