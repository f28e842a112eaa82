import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Random,
  Schedule,
  Stream
} from "effect"
import { CircuitBreaker, Classify, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import * as ManualClock from "../support/manualClock.ts"

const down = Effect.fail("down")

/** Opens a circuit that opens at its first failure. */
const trip = (breaker: CircuitBreaker.CircuitBreaker["Service"]) => Effect.exit(breaker.execute(down))

const unnamedInterrupt = (fiber: Fiber.Fiber<unknown, unknown>) => Effect.sync(() => fiber.interruptUnsafe())

const openFor = (breaker: CircuitBreaker.CircuitBreaker["Service"]) =>
  Effect.map(breaker.snapshot, ({ retryAfter }) => Duration.toMillis(retryAfter))

describe("CircuitBreaker", () => {
  it.effect("opens after maxFailures in a row, admits a probe after resetTimeout, and closes on its success", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 2, resetTimeout: "10 seconds" })
      const fail = Effect.flip(breaker.execute(down))
      assert.strictEqual(yield* fail, "down")
      assert.strictEqual(yield* breaker.state, "closed")
      assert.strictEqual(yield* fail, "down")
      assert.strictEqual(yield* breaker.state, "open")
      yield* TestClock.adjust("9 seconds")
      const refused = yield* Effect.flip(breaker.execute(Effect.void))
      assert.strictEqual(refused.reason._tag, "CircuitOpen")
      assert.deepStrictEqual(refused.retryAfter, Duration.seconds(1))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* breaker.execute(Effect.succeed("up")), "up")
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("has toolops's defaults: 5 failures, 30 seconds, 1 probe, 1 success", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make()
      for (let i = 0; i < 4; i++) yield* trip(breaker)
      yield* breaker.execute(Effect.void)
      for (let i = 0; i < 4; i++) yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "closed")
      yield* trip(breaker)
      assert.strictEqual(yield* openFor(breaker), 30_000)
      yield* TestClock.adjust("30 seconds")
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("counts defects as failures", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1 })
      yield* Effect.exit(breaker.execute(Effect.die("bug")))
      assert.strictEqual(yield* breaker.state, "open")
    }))

  it.effect("opens again when a probe fails", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds" })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "open")
      assert.strictEqual(yield* openFor(breaker), 10_000)
    }))

  it.effect("closes only after halfOpenSuccesses successful probes", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        maxFailures: 1,
        resetTimeout: "10 seconds",
        halfOpenMaxRequests: 3,
        halfOpenSuccesses: 2
      })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "half-open")
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  for (const [probes, callers] of [[1, 10_000], [3, 10_000]] as const) {
    it.effect(`lets exactly ${probes} of ${callers} callers of one instant through when half-open`, () =>
      Effect.gen(function*() {
        const breaker = yield* CircuitBreaker.make({
          maxFailures: 1,
          resetTimeout: "10 seconds",
          halfOpenMaxRequests: probes,
          halfOpenSuccesses: probes
        })
        yield* trip(breaker)
        yield* TestClock.adjust("10 seconds")
        const gate = yield* Deferred.make<void>()
        let started = 0
        const call = breaker.execute(Effect.suspend(() => {
          started += 1
          return Deferred.await(gate)
        }))
        const fibers = yield* Effect.forEach(Array.from({ length: callers }), () => Effect.forkChild(Effect.exit(call)))
        yield* Effect.yieldNow
        assert.strictEqual(started, probes)
        assert.strictEqual((yield* breaker.snapshot).probes, probes)
        yield* Deferred.succeed(gate, undefined)
        const exits = yield* Effect.forEach(fibers, Fiber.join)
        assert.strictEqual(exits.filter(Exit.isSuccess).length, probes)
        assert.strictEqual(yield* breaker.state, "closed")
      }))
  }

  it.effect("gives the place of a probe that never settles to the next call when its lease is over", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        maxFailures: 1,
        resetTimeout: "10 seconds",
        probeLease: "5 seconds"
      })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      const stuck = yield* Effect.forkChild(breaker.execute(Effect.never))
      yield* Effect.yieldNow
      yield* TestClock.adjust("4 seconds")
      const refused = yield* Effect.flip(breaker.execute(Effect.void))
      assert.deepStrictEqual(refused.retryAfter, Duration.seconds(1))
      yield* TestClock.adjust("1 second")
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
      yield* Fiber.interrupt(stuck)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("ignores the result of a call that was admitted before the circuit opened", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds" })
      const late = yield* Deferred.make<void, string>()
      const success = yield* Effect.forkChild(breaker.execute(Deferred.await(late)))
      yield* Effect.yieldNow
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      const probe = yield* Effect.forkChild(breaker.execute(Effect.never))
      yield* Effect.yieldNow
      yield* Deferred.succeed(late, undefined)
      yield* Fiber.join(success)
      assert.strictEqual(yield* breaker.state, "half-open")
      yield* Fiber.interrupt(probe)
    }))

  it.effect("ignores a probe that fails after the circuit has closed again", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        maxFailures: 1,
        resetTimeout: "10 seconds",
        halfOpenMaxRequests: 2
      })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      const late = yield* Deferred.make<void, string>()
      const slow = yield* Effect.forkChild(Effect.exit(breaker.execute(Deferred.await(late))))
      yield* Effect.yieldNow
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
      yield* Deferred.fail(late, "down")
      yield* Fiber.join(slow)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("ignores interruption, and gives the interrupted probe's place to the next call", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds", probeLease: "1 hour" })
      for (let i = 0; i < 3; i++) {
        const fiber = yield* Effect.forkChild(breaker.execute(Effect.never))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(yield* breaker.state, "closed")
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      const probe = yield* Effect.forkChild(breaker.execute(Effect.never))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(probe)
      assert.strictEqual(yield* breaker.state, "half-open")
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  describe("the caller's own interruption", () => {
    const failingCleanups: Record<string, Effect.Effect<unknown, unknown>> = {
      "a finalizer that dies": Effect.onInterrupt(Effect.never, () => Effect.die("cleanup")),
      "a finalizer that fails": Effect.onExit(Effect.never, () => Effect.fail("cleanup")),
      "a release that dies": Effect.acquireUseRelease(Effect.void, () => Effect.never, () => Effect.die("cleanup")),
      "a scope that dies": Effect.scoped(
        Effect.andThen(Effect.acquireRelease(Effect.void, () => Effect.die("cleanup")), Effect.never)
      ),
      "a branch whose finalizer dies": Effect.all(
        [Effect.onInterrupt(Effect.never, () => Effect.die("cleanup")), Effect.never],
        { concurrency: 2 }
      )
    }

    for (const [name, work] of Object.entries(failingCleanups)) {
      it.effect(`is no failure when cleaning up goes wrong: ${name}`, () =>
        Effect.gen(function*() {
          const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds" })
          // By another fiber, and by somebody who is none.
          for (const interrupt of [Fiber.interrupt<unknown, unknown>, unnamedInterrupt]) {
            const fiber = yield* Effect.forkChild(breaker.execute(work), { startImmediately: true })
            yield* interrupt(fiber)
            const exit = yield* Fiber.await(fiber)
            assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause))
            assert.strictEqual(yield* breaker.state, "closed")
          }
          yield* trip(breaker)
          yield* TestClock.adjust("10 seconds")
          const probe = yield* Effect.forkChild(breaker.execute(work), { startImmediately: true })
          yield* Fiber.interrupt(probe)
          assert.deepInclude(yield* breaker.snapshot, { status: "half-open", probes: 0, successes: 0 })
        }))
    }

    it.effect("is not seen where work interrupts itself or a fiber of its own, and fails besides", () =>
      Effect.gen(function*() {
        const interruptsChild = Effect.gen(function*() {
          const child = yield* Effect.forkChild(Effect.onInterrupt(Effect.never, () => Effect.die("bug")))
          yield* Effect.yieldNow
          child.interruptUnsafe()
          return yield* Fiber.join(child)
        })
        for (
          const work of [
            Effect.onInterrupt(Effect.interrupt, () => Effect.die("bug")),
            Effect.all([Effect.onInterrupt(Effect.never, () => Effect.die("bug")), Effect.fail("no")], {
              concurrency: 2
            }),
            Effect.failCause(Cause.combine(Cause.interrupt(1), Cause.fail("no"))),
            interruptsChild
          ]
        ) {
          const breaker = yield* CircuitBreaker.make({ maxFailures: 1 })
          const exit = yield* Effect.exit(breaker.execute(work))
          assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause))
          assert.strictEqual(yield* breaker.state, "open")
        }
      }))

    it.effect("does not hide what becomes of a call that it cannot reach", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        const fails: Effect.Effect<unknown, unknown> = Effect.andThen(Effect.sleep("1 second"), Effect.fail("no"))
        for (const work of [fails, timeout.execute(Effect.never)]) {
          const breaker = yield* CircuitBreaker.make({ maxFailures: 1 })
          const fiber = yield* Effect.forkChild(Effect.uninterruptible(Effect.exit(breaker.execute(work))), {
            startImmediately: true
          })
          fiber.interruptUnsafe()
          yield* TestClock.adjust("1 second")
          yield* Fiber.await(fiber)
          assert.strictEqual(yield* breaker.state, "open")
        }
      }))
  })

  it.effect("tells refused callers whole milliseconds, and never too few", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "1500 micros" })
      const retryAfter = Effect.map(Effect.flip(breaker.execute(Effect.void)), (error) => error.retryAfter)
      yield* trip(breaker)
      assert.deepStrictEqual(yield* retryAfter, Duration.millis(2))
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* retryAfter, Duration.millis(1))
    }))

  it.effect("dies of a classify whose answer is none, says what came, and gives a probe's place back", () =>
    Effect.gen(function*() {
      for (
        const [answer, came] of [
          ["Failure", "a string"],
          [undefined, "undefined"],
          [true, "true"],
          [Promise.resolve("failure"), "an object"]
        ]
      ) {
        let isSound = true
        const breaker = yield* CircuitBreaker.make({
          name: "github",
          maxFailures: 1,
          resetTimeout: "10 seconds",
          classify: (exit) => isSound ? Classify.all(exit) : answer as Classify.Outcome
        })
        const message =
          `CircuitBreaker github: the result of classify must be one of success, failure, ignored, got ${came}`
        const dies = Effect.gen(function*() {
          for (const work of [Effect.void, down]) {
            const exit = yield* Effect.exit(breaker.execute(work))
            const defects = Exit.isFailure(exit) ? exit.cause.reasons.filter(Cause.isDieReason) : []
            const defect = defects.at(-1)?.defect
            assert.isTrue(defect instanceof TypeError && defect.message === message)
          }
        })
        isSound = false
        yield* dies
        assert.strictEqual(yield* breaker.state, "closed")
        isSound = true
        yield* trip(breaker)
        yield* TestClock.adjust("10 seconds")
        isSound = false
        yield* dies
        assert.deepInclude(yield* breaker.snapshot, { status: "half-open", probes: 0, successes: 0 })
        isSound = true
        yield* breaker.execute(Effect.void)
        assert.strictEqual(yield* breaker.state, "closed")
      }
    }))

  it.effect("gives a probe's place back when classify throws, and the call dies", () =>
    Effect.gen(function*() {
      let throws = false
      const breaker = yield* CircuitBreaker.make({
        maxFailures: 1,
        resetTimeout: "10 seconds",
        probeLease: "1 hour",
        classify: (exit) => {
          if (throws) throw new Error("broken rule")
          return Classify.all(exit)
        }
      })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      throws = true
      const exit = yield* Effect.exit(breaker.execute(Effect.void))
      assert.isTrue(Exit.isFailure(exit) && exit.cause.reasons.some(({ _tag }) => _tag === "Die"))
      throws = false
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("opens when the share of failures in a count window is reached, not before minimumCalls", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        window: { type: "count", size: 10, failureRate: 0.5, minimumCalls: 4 }
      })
      yield* trip(breaker)
      yield* trip(breaker)
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "open")
    }))

  it.effect("forgets what is older than a time window", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        window: { type: "time", duration: "10 seconds", failureRate: 0.5, minimumCalls: 2 }
      })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "closed")
      yield* TestClock.adjust("9 seconds")
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "open")
    }))

  it.effect("opens when too many calls are slow, although they succeed", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        window: { type: "count", size: 2, slowCall: { duration: "1 second", rate: 1 } }
      })
      const slow = Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(breaker.execute(Effect.sleep("1 second")))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
      })
      yield* slow
      assert.strictEqual((yield* breaker.snapshot).slow, 1)
      yield* slow
      assert.strictEqual(yield* breaker.state, "open")
      yield* TestClock.adjust("30 seconds")
      yield* slow
      assert.strictEqual(yield* breaker.state, "open")
    }))

  it.effect("stays open as long as its schedule says for the first, second, third opening in a row", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        maxFailures: 1,
        resetTimeout: Schedule.exponential("10 seconds"),
        maxResetTimeout: "35 seconds"
      })
      for (const millis of [10_000, 20_000, 35_000, 35_000]) {
        yield* trip(breaker)
        assert.strictEqual(yield* openFor(breaker), millis)
        yield* TestClock.adjust(millis)
      }
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
      // Closed for less than it was open: the dependency flaps.
      yield* TestClock.adjust("34 seconds")
      yield* trip(breaker)
      assert.strictEqual(yield* openFor(breaker), 35_000)
      yield* TestClock.adjust("35 seconds")
      yield* breaker.execute(Effect.void)
      yield* TestClock.adjust("35 seconds")
      yield* trip(breaker)
      assert.strictEqual(yield* openFor(breaker), 10_000)
    }))

  it.effect("reads a jittered schedule with the random numbers of whoever makes the breaker", () =>
    Effect.gen(function*() {
      const make = CircuitBreaker.make({
        maxFailures: 1,
        resetTimeout: Schedule.jittered(Schedule.spaced("10 seconds"))
      })
      const openings = Effect.gen(function*() {
        const breaker = yield* make
        yield* trip(breaker)
        return yield* openFor(breaker)
      })
      const first = yield* Random.withSeed(openings, "a")
      assert.strictEqual(yield* Random.withSeed(openings, "a"), first)
      assert.notStrictEqual(yield* Random.withSeed(openings, "b"), first)
      assert.isTrue(first >= 8000 && first <= 12_000)
    }))

  it.effect("does as the operator says until it is reset", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds" })
      yield* breaker.forceOpen
      yield* TestClock.adjust("1 hour")
      const refused = yield* Effect.flip(breaker.execute(Effect.void))
      assert.deepStrictEqual(refused.retryAfter, Duration.seconds(10))
      assert.strictEqual(yield* breaker.state, "forced-open")
      yield* breaker.disable
      yield* trip(breaker)
      assert.deepInclude(yield* breaker.snapshot, { status: "disabled", failures: 0 })
      yield* breaker.metricsOnly
      yield* trip(breaker)
      yield* trip(breaker)
      assert.deepInclude(yield* breaker.snapshot, { status: "metrics-only", failures: 2 })
      yield* breaker.reset
      assert.deepInclude(yield* breaker.snapshot, { status: "closed", failures: 0, openings: 0 })
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "open")
      yield* breaker.reset
      yield* breaker.execute(Effect.void)
    }))

  it.effect("tells its transitions to everyone who listens, and stops when they do", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ name: "github", maxFailures: 1, resetTimeout: "10 seconds" })
      const listen = (count: number) =>
        Effect.forkChild(Stream.runCollect(Stream.take(breaker.transitions, count)), { startImmediately: true })
      const all = yield* listen(3)
      const one = yield* listen(1)
      yield* Effect.yieldNow
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      yield* breaker.execute(Effect.void)
      const seen = yield* Fiber.join(all)
      assert.deepStrictEqual(seen.map(({ from, to }) => `${from} -> ${to}`), [
        "closed -> open",
        "open -> half-open",
        "half-open -> closed"
      ])
      assert.deepStrictEqual(seen.map(({ generation }) => generation), [1, 2, 3])
      assert.strictEqual((yield* Fiber.join(one))[0]!.name, "github")
    }))

  it.effect("does not change when it is read", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds" })
      yield* trip(breaker)
      yield* TestClock.adjust("1 hour")
      for (let i = 0; i < 3; i++) {
        assert.strictEqual(yield* breaker.state, "open")
        assert.deepInclude(yield* breaker.snapshot, { status: "open", generation: 1, probes: 0 })
      }
    }))

  it.effect("does not care about the wall clock", () =>
    Effect.gen(function*() {
      const clock = ManualClock.make()
      yield* Effect.gen(function*() {
        const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds" })
        yield* trip(breaker)
        for (const step of [3_600_000, -3_600_000, 30 * 86_400_000, -30 * 86_400_000]) {
          clock.stepWall(step)
          assert.strictEqual(yield* openFor(breaker), 10_000)
          assert.isTrue(Exit.isFailure(yield* Effect.exit(breaker.execute(Effect.void))))
        }
        clock.advance(10_000)
        clock.stepWall(-30 * 86_400_000)
        yield* breaker.execute(Effect.void)
        assert.strictEqual(yield* breaker.state, "closed")
      }).pipe(Effect.provideService(Clock.Clock, clock))
    }))

  it("throws on nonsense when it is made", () => {
    const window = { type: "count", size: 10 } as const
    const nonsense: ReadonlyArray<readonly [CircuitBreaker.Options, RegExp]> = [
      ...[0, -1, NaN, Infinity, 1.5].map((n) =>
        [{ maxFailures: n }, /CircuitBreaker.make: maxFailures must be an integer >= 1, got/] as const
      ),
      ...[0, -1, NaN, Infinity].map((n) => [{ resetTimeout: n }, /resetTimeout must be a duration > 0/] as const),
      ...[0, -1, NaN, Infinity].map((n) => [{ probeLease: n }, /probeLease must be a duration > 0/] as const),
      ...[0, 1.5, NaN].map((n) => [{ halfOpenMaxRequests: n }, /halfOpenMaxRequests must be an integer/] as const),
      ...[0, 0.5].map((n) => [{ halfOpenSuccesses: n }, /halfOpenSuccesses must be an integer >= 1/] as const),
      [{ halfOpenMaxRequests: 2, halfOpenSuccesses: 3 }, /halfOpenSuccesses must be at most halfOpenMaxRequests \(2\)/],
      [{ maxFailures: 1, window }, /maxFailures and window cannot be used together/],
      ...[0, 1.5, NaN, Infinity].map((n) => [{ window: { ...window, size: n } }, /window.size must be/] as const),
      ...[0, 11].map((n) => [{ window: { ...window, minimumCalls: n } }, /window.minimumCalls must be/] as const),
      ...[0, -0.5, 1.1, NaN].map((n) =>
        [{ window: { ...window, failureRate: n } }, /window.failureRate must/] as const
      ),
      [{ window: { ...window, slowCall: { duration: 0, rate: 1 } } }, /window.slowCall.duration must be/],
      [{ window: { ...window, slowCall: { duration: 1, rate: 2 } } }, /window.slowCall.rate must be/],
      [{ window: { type: "time", duration: 0 } }, /window.duration must be a duration > 0/],
      [{ window: { type: "time", duration: 1, buckets: 0 } }, /window.buckets must be/],
      [{ maxResetTimeout: 1 }, /maxResetTimeout needs a resetTimeout that is a Schedule/],
      [{ resetTimeout: Schedule.recurs(3) }, /resetTimeout must be a Schedule of durations > 0/],
      [{ resetTimeout: Schedule.recurs(0) }, /resetTimeout must be a Schedule of durations > 0/],
      [{ resetTimeout: Schedule.spaced(1), maxResetTimeout: Infinity }, /maxResetTimeout must be/],
      [{ maxFailure: 1 } as {}, /unknown option "maxFailure"/]
    ]
    for (const [options, message] of nonsense) assert.throws(() => CircuitBreaker.make(options), message)
  })

  it.effect("is provided by its layer, with options from the configuration where wanted", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.CircuitBreaker
      assert.strictEqual(breaker.name, "from config")
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "open")
    }).pipe(
      Effect.provide(CircuitBreaker.layerConfig({ name: Config.String("NAME"), maxFailures: Config.Int("FAILURES") })),
      Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ NAME: "from config", FAILURES: 1 })))
    ))
})
