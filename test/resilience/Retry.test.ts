import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Duration,
  Effect,
  Exit,
  Fiber,
  Random,
  Schedule,
  Scheduler
} from "effect"
import {
  Bulkhead,
  Classify,
  ResilienceError,
  ResilienceObserver,
  Retry,
  RetryBudget,
  Timeout
} from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { counted, makeInstantClock, makeJumpingClock, wallSteps } from "./support.ts"

/** Fails so many times, then answers with the number of the attempt. */
const failing = (times: number) => {
  const state = { attempts: 0 }
  const effect = Effect.suspend(() => {
    state.attempts += 1
    return state.attempts <= times ? Effect.fail(`failure ${state.attempts}`) : Effect.succeed(state.attempts)
  })
  return { state, effect }
}

class Hinted {
  readonly _tag = "Hinted"
  readonly retryAfter: Duration.Duration
  constructor(retryAfter: Duration.Duration) {
    this.retryAfter = retryAfter
  }
}

const isTimedOut = (error: unknown): boolean =>
  error instanceof ResilienceError.ResilienceError && error.reason._tag === "TimedOut"

/** Runs with sleeps that take no time, and gives the sleeps. */
const instantly = <A, E>(effect: Effect.Effect<A, E>) => {
  const { clock, slept } = makeInstantClock()
  return Effect.map(Effect.exit(Effect.provideService(effect, Clock.Clock, clock)), (exit) => ({ exit, slept }))
}

describe("Retry", () => {
  it.effect("answers with the first success, after the delays of the failures", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ jitter: "none" })
      const { effect, state } = failing(2)
      const fiber = yield* Effect.forkChild(retry.execute(effect))
      yield* TestClock.adjust("99 millis")
      assert.strictEqual(state.attempts, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(state.attempts, 2)
      yield* TestClock.adjust("199 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(fiber), 3)
    }))

  it.effect("counts the first attempt, and gives back the last error unchanged", () =>
    Effect.gen(function*() {
      for (const maxAttempts of [1, 2, 3, 7]) {
        const retry = yield* Retry.make({ maxAttempts })
        const { effect, state } = failing(100)
        const { exit } = yield* instantly(retry.execute(effect))
        assert.deepStrictEqual(exit, Exit.fail(`failure ${maxAttempts}`))
        assert.strictEqual(state.attempts, maxAttempts)
      }
    }))

  it.effect("retries neither a defect nor an interruption", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make()
      for (
        const ending of [
          Effect.die("bug"),
          Effect.interrupt,
          Effect.failCause(Cause.combine(Cause.fail("no"), Cause.die("bug")))
        ]
      ) {
        let attempts = 0
        const { exit } = yield* instantly(retry.execute(Effect.suspend(() => {
          attempts += 1
          return ending
        })))
        assert.isTrue(Exit.isFailure(exit))
        assert.strictEqual(attempts, 1)
      }
    }))

  it.effect("stops when the caller is interrupted, while it waits and while it runs", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ jitter: "none", maxAttempts: 10 })
      let attempts = 0
      const waiting = yield* Effect.forkChild(retry.execute(Effect.suspend(() => {
        attempts += 1
        return Effect.fail("no")
      })))
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(attempts, 2)
      yield* Fiber.interrupt(waiting)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(attempts, 2)
      const running = yield* Effect.forkChild(retry.execute(Effect.suspend(() => {
        attempts += 1
        return attempts === 3 ? Effect.fail("no") : Effect.never
      })))
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(attempts, 4)
      yield* Fiber.interrupt(running)
      const exit = yield* Fiber.await(running)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(attempts, 4)
    }))

  it.effect("asks retryIf about every error, once", () =>
    Effect.gen(function*() {
      const asked: Array<unknown> = []
      const retry = yield* Retry.make({
        maxAttempts: 10,
        retryIf: (error) => {
          asked.push(error)
          return error !== "failure 3"
        }
      })
      const { exit } = yield* instantly(retry.execute(failing(100).effect))
      assert.deepStrictEqual(exit, Exit.fail("failure 3"))
      assert.deepStrictEqual(asked, ["failure 1", "failure 2", "failure 3"])
    }))

  it.effect("does not retry an error that says it is not retryable", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ maxAttempts: 2 })
      for (
        const error of [
          { retryable: false },
          { isRetryable: false },
          { reason: { retryable: false } },
          { reason: { isRetryable: false } },
          { retryable: true },
          { isRetryable: true, reason: { isRetryable: false } },
          { retryable: "false" },
          {},
          null
        ]
      ) {
        let attempts = 0
        yield* instantly(retry.execute(Effect.suspend(() => {
          attempts += 1
          return Effect.fail(error)
        })))
        // The same errors as a circuit does not count.
        assert.strictEqual(attempts, Classify.retryable(Exit.fail(error)) === "ignored" ? 1 : 2, JSON.stringify(error))
      }
    }))

  it.effect("wraps the last error when asked to, but not one that was not worth another attempt", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ exhausted: "wrap", retryIf: (error) => error !== "hopeless" })
      const used = yield* instantly(retry.execute(failing(100).effect))
      const error = yield* Effect.flip(used.exit)
      assert.instanceOf(error, ResilienceError.ResilienceError)
      assert.deepInclude(error.reason, { _tag: "RetriesExhausted", attempts: 3, cause: "failure 3" })
      const hopeless = yield* instantly(retry.execute(Effect.fail("hopeless")))
      assert.deepStrictEqual(hopeless.exit, Exit.fail("hopeless"))
      const single = yield* Retry.make({ exhausted: "wrap", maxAttempts: 1 })
      const once = yield* Effect.flip(single.execute(Effect.fail("no")))
      assert.isTrue(once instanceof ResilienceError.ResilienceError && once.reason._tag === "RetriesExhausted")
    }))

  it.effect("tells onRetry before each wait", () =>
    Effect.gen(function*() {
      const told: Array<Retry.RetryInfo> = []
      const retry = yield* Retry.make({
        jitter: "none",
        onRetry: (info) =>
          Effect.sync(() => {
            told.push(info)
          })
      })
      yield* instantly(retry.execute(failing(100).effect))
      assert.deepStrictEqual(told, [
        { attempt: 2, delay: Duration.millis(100), error: "failure 1" },
        { attempt: 3, delay: Duration.millis(200), error: "failure 2" }
      ])
    }))

  describe("delays", () => {
    it.effect("wait for the error's retryAfter, wherever it is, up to maxDelay", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ maxAttempts: 2, jitter: "none", maxDelay: "10 seconds" })
        const first = (error: unknown) => Effect.map(instantly(retry.execute(Effect.fail(error))), ({ slept }) => slept)
        assert.deepStrictEqual(yield* first(new Hinted(Duration.seconds(5))), [5000])
        assert.deepStrictEqual(yield* first({ reason: new Hinted(Duration.seconds(5)) }), [5000])
        assert.deepStrictEqual(yield* first(new Hinted(Duration.hours(1))), [10_000])
        assert.deepStrictEqual(yield* first(new Hinted(Duration.infinity)), [10_000])
        // A hint never makes a retry come sooner than the back-off has it.
        assert.deepStrictEqual(yield* first(new Hinted(Duration.millis(1))), [100])
        assert.deepStrictEqual(yield* first(new Hinted(Duration.zero)), [100])
        assert.deepStrictEqual(yield* first({ retryAfter: 5 }), [100])
      }))

    it.effect("stay finite, positive and below maxDelay over 3,000 attempts", () =>
      Effect.gen(function*() {
        for (const jitter of ["none", "full", "equal", "decorrelated"] as const) {
          const retry = yield* Retry.make({ maxAttempts: 3000, jitter, budget: false })
          const { slept } = yield* instantly(retry.execute(Effect.fail("no")))
          assert.strictEqual(slept.length, 2999)
          assert.isTrue(slept.every((millis) => millis > 0 && millis <= 30_000))
        }
      }))

    it.effect("are drawn from the Random service", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ maxAttempts: 6, budget: false })
        const draw = (seed: string) =>
          Effect.map(Random.withSeed(instantly(retry.execute(Effect.fail("no"))), seed), ({ slept }) => slept)
        assert.deepStrictEqual(yield* draw("a"), yield* draw("a"))
        assert.notDeepEqual(yield* draw("a"), yield* draw("b"))
      }))

    it.effect("are not moved by steps of the wall clock", () =>
      Effect.gen(function*() {
        const { clock, jump } = yield* makeJumpingClock
        for (const step of wallSteps) {
          const retry = yield* Retry.make({ jitter: "none", initialDelay: "10 seconds", maxAttempts: 2 })
          const { effect, state } = failing(100)
          const fiber = yield* retry.execute(effect).pipe(
            Effect.provideService(Clock.Clock, clock),
            Effect.exit,
            Effect.forkChild
          )
          yield* TestClock.adjust("5 seconds")
          jump(step)
          yield* TestClock.adjust("4999 millis")
          assert.strictEqual(state.attempts, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(state.attempts, 2)
          yield* Fiber.join(fiber)
        }
      }))

    it.effect("are those of an own schedule, which also says when to stop", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({
          schedule: Schedule.while(Schedule.spaced("1 minute"), ({ attempt }) => Effect.succeed(attempt <= 4))
        })
        const { state, effect } = failing(100)
        const { exit, slept } = yield* instantly(retry.execute(effect))
        assert.deepStrictEqual(slept, [60_000, 60_000, 60_000, 60_000])
        assert.strictEqual(state.attempts, 5)
        assert.deepStrictEqual(exit, Exit.fail("failure 5"))
        const capped = yield* Retry.make({
          schedule: Schedule.spaced("1 minute"),
          maxAttempts: 3,
          maxDelay: "1 second"
        })
        assert.deepStrictEqual((yield* instantly(capped.execute(failing(100).effect))).slept, [1000, 1000])
      }))

    it.effect("of an own schedule are never less than a millisecond, nor more than maxDelay", () =>
      Effect.gen(function*() {
        const slept = (options: Retry.Options) =>
          Effect.gen(function*() {
            const retry = yield* Retry.make({ maxAttempts: 4, ...options })
            return (yield* instantly(retry.execute(failing(100).effect))).slept
          })
        assert.deepStrictEqual(yield* slept({ schedule: Schedule.forever }), [1, 1, 1])
        assert.deepStrictEqual(yield* slept({ schedule: Schedule.recurs(2) }), [1, 1])
        assert.deepStrictEqual(yield* slept({ schedule: Schedule.spaced("400 micros") }), [1, 1, 1])
        assert.deepStrictEqual(yield* slept({ schedule: Schedule.forever, maxDelay: "500 micros" }), [0.5, 0.5, 0.5])
        // Whoever says `forever` lets others run in between, and is stopped by them.
        const retry = yield* Retry.make({ schedule: Schedule.forever, budget: false })
        const { effect, state } = failing(1_000_000)
        const fiber = yield* Effect.forkChild(retry.execute(effect))
        yield* TestClock.adjust("50 millis")
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(state.attempts, 51)
      }))

    it.effect("begin with an initialDelay that is more than the default of maxDelay", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ jitter: "none", initialDelay: "5 minutes", maxAttempts: 4 })
        const { slept } = yield* instantly(retry.execute(failing(100).effect))
        assert.deepStrictEqual(slept, [300_000, 300_000, 300_000])
      }))

    it.effect("of an own schedule that overflow end the retrying", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ schedule: Schedule.exponential("100 millis"), budget: false })
        const { exit, slept } = yield* instantly(retry.execute(failing(1_000_000).effect))
        assert.isTrue(Exit.isFailure(exit))
        assert.isTrue(slept.every((millis) => Number.isFinite(millis) && millis > 0))
      }))

    it.effect("are not begun when the deadline comes first", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ jitter: "none", initialDelay: "10 seconds" })
        const timeout = yield* Timeout.make({ timeout: "5 seconds" })
        const { effect, state } = failing(100)
        // Answered at once with the handler's own error, not after five seconds with a timeout.
        assert.strictEqual(yield* Effect.flip(timeout.execute(retry.execute(effect))), "failure 1")
        assert.strictEqual(state.attempts, 1)
      }))
  })

  describe("around a timeout", () => {
    const longWork = (running: { now: number; most: number }, seconds: number) =>
      Effect.uninterruptible(Effect.gen(function*() {
        running.now += 1
        running.most = Math.max(running.most, running.now)
        yield* Effect.sleep(Duration.seconds(seconds))
        running.now -= 1
      }))

    it.effect("starts no attempt beside one that still runs", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ jitter: "none", initialDelay: "1 second" })
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        const running = { now: 0, most: 0 }
        let attempts = 0
        const fiber = yield* retry.execute(timeout.execute(Effect.suspend(() => {
          attempts += 1
          return longWork(running, 10)
        }))).pipe(Effect.flip, Effect.forkChild)
        yield* TestClock.adjust("2 seconds")
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error.reason._tag, "TimedOut")
        assert.strictEqual(attempts, 1)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(running, { now: 0, most: 1 })
      }))

    it.effect("neither pays for nor tells of an attempt that is not made", () =>
      Effect.gen(function*() {
        // Out of the share, and out of the minimum.
        for (const limits of [{ share: 1, minPerSecond: 0 }, { share: 0, minPerSecond: 1 }]) {
          const outer = yield* RetryBudget.make(limits)
          const inner = yield* RetryBudget.make(limits)
          const told: Array<unknown> = []
          const retry = yield* Retry.make({
            jitter: "none",
            initialDelay: "1 second",
            maxAttempts: 2,
            budget: inner,
            onRetry: ({ attempt, delay }) => Effect.sync(() => void told.push([attempt, Duration.toMillis(delay)]))
          }).pipe(Effect.provideService(ResilienceObserver.CurrentResilienceObserver, {
            onRetry: (_, attempt) => void told.push(attempt)
          }))
          const around = yield* Retry.make({ maxAttempts: 2, budget: outer, retryIf: () => false })
          const timeout = yield* Timeout.make({ timeout: "1 second" })
          const running = { now: 0, most: 0 }
          const run = (seconds: number) =>
            Effect.forkChild(around.execute(retry.execute(timeout.execute(longWork(running, seconds)))))
          for (let i = 0; i < 5; i++) {
            const fiber = yield* run(10)
            yield* TestClock.adjust("2 seconds")
            assert.isTrue(isTimedOut(yield* Effect.flip(Fiber.join(fiber))))
            yield* TestClock.adjust("8 seconds")
          }
          assert.deepStrictEqual(told, [])
          for (const budget of [inner, outer]) {
            assert.deepInclude(yield* budget.snapshot, { repetitions: 0, refused: 0 })
          }
          // What was put back is there to be taken, and what comes about is told once it is certain.
          const fiber = yield* run(1.5)
          yield* TestClock.adjust("1999 millis")
          assert.deepStrictEqual(told, [])
          yield* TestClock.adjust("1 millis")
          assert.deepStrictEqual(told, [2, [2, 1000]])
          yield* TestClock.adjust("10 seconds")
          assert.isTrue(isTimedOut(yield* Effect.flip(Fiber.join(fiber))))
          for (const budget of [inner, outer]) assert.strictEqual((yield* budget.snapshot).refused, 0)
        }
      }))

    it.effect("pays for no attempt when onRetry dies, or the caller goes away before it is made", () =>
      Effect.gen(function*() {
        const budget = yield* RetryBudget.make({ share: 1, minPerSecond: 0 })
        const telling = (onRetry: Retry.Options["onRetry"]) =>
          Retry.make({ budget, maxAttempts: 2, jitter: "none", initialDelay: "1 second", onRetry })
        const throws = yield* telling(() => {
          throw new Error("onRetry")
        })
        const dies = yield* telling(() => Effect.die(new Error("onRetry")))
        for (const retry of [throws, dies]) {
          const exit = yield* Effect.exit(retry.execute(Effect.fail("no")))
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        }
        const notAnEffect = yield* telling((() => undefined) as unknown as Retry.Options["onRetry"])
        const exit = yield* Effect.exit(notAnEffect.execute(Effect.fail("no")))
        assert.include(
          Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "",
          "TypeError: Retry retry: onRetry must return an Effect, got undefined"
        )
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        const late = yield* Effect.forkChild(
          Effect.exit(dies.execute(timeout.execute(Effect.uninterruptible(Effect.sleep("1500 millis")))))
        )
        yield* TestClock.adjust("2 seconds")
        const lateExit = yield* Fiber.join(late)
        assert.isTrue(Exit.isFailure(lateExit) && Cause.hasDies(lateExit.cause))
        const waits = yield* telling(undefined)
        const fiber = yield* Effect.forkChild(waits.execute(Effect.fail("no")))
        yield* TestClock.adjust("999 millis")
        assert.strictEqual((yield* budget.snapshot).repetitions, 1)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual((yield* budget.snapshot).repetitions, 0)
        const made = yield* Effect.forkChild(Effect.exit(waits.execute(Effect.fail("no"))))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(made)
        assert.strictEqual((yield* budget.snapshot).repetitions, 1)
      }))

    it.effect("tries again when what could not be stopped has ended during the wait", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ jitter: "none", initialDelay: "2 seconds", maxAttempts: 2 })
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        const running = { now: 0, most: 0 }
        let attempts = 0
        const fiber = yield* retry.execute(timeout.execute(Effect.suspend(() => {
          attempts += 1
          return attempts === 1 ? longWork(running, 2) : Effect.void
        }))).pipe(Effect.forkChild)
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(fiber)
        assert.strictEqual(attempts, 2)
        assert.strictEqual(running.most, 1)
      }))

    it.effect("keeps to one at a time in a bulkhead of one", () =>
      Effect.gen(function*() {
        const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 10, maxWait: "1 hour" })
        const retry = yield* Retry.make({ jitter: "none", initialDelay: "1 second" })
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        const running = { now: 0, most: 0 }
        const call = bulkhead.execute(retry.execute(timeout.execute(longWork(running, 10))))
        const fiber = yield* Effect.forkChild(Effect.forEach([1, 2, 3], () => Effect.exit(call), { concurrency: 3 }))
        yield* TestClock.adjust("10 minutes")
        const exits = yield* Fiber.join(fiber)
        assert.isTrue(exits.every(Exit.isFailure))
        assert.deepStrictEqual(running, { now: 0, most: 1 })
        assert.deepInclude(yield* bulkhead.snapshot, { active: 0, queued: 0, rejected: 0 })
      }))
  })

  describe("inside a retry", () => {
    it.effect("does not multiply: three layers of three attempts make 7 executions and not 27", () =>
      Effect.gen(function*() {
        const layers = yield* Effect.all([1, 2, 3].map(() => Retry.make({ budget: false })))
        let executions = 0
        const work = Effect.suspend(() => {
          executions += 1
          return Effect.fail("no")
        })
        yield* instantly(layers.reduce((effect, retry) => retry.execute(effect), work))
        assert.strictEqual(executions, 7)
      }))

    it.effect("retries again in a fiber that was detached from a repetition which has ended", () =>
      Effect.gen(function*() {
        const outer = yield* Retry.make({ budget: false })
        const inner = yield* Retry.make({ budget: false })
        const { effect, state } = failing(2)
        let attempts = 0
        const detached = yield* outer.execute(Effect.suspend(() => {
          attempts += 1
          return attempts === 1
            ? Effect.fail("no")
            : Effect.forkDetach(Effect.andThen(Effect.sleep("1 hour"), inner.execute(effect)))
        })).pipe(Effect.forkChild)
        yield* TestClock.adjust("1 minute")
        const fiber = yield* Fiber.join(detached)
        yield* TestClock.adjust("2 hours")
        assert.strictEqual(yield* Fiber.join(fiber), 3)
        assert.strictEqual(state.attempts, 3)
      }))

    it.effect("leaves nothing in the caller's context, however it ends", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.make({ maxAttempts: 2, schedule: Schedule.recurs(1) })
        const { clock } = makeInstantClock()
        const endings = [Effect.void, Effect.fail("no"), Effect.die("bug"), Effect.interrupt, failing(1).effect]
        yield* Effect.forEach(endings, (ending) =>
          Effect.withFiber((fiber) => {
            const before = fiber.context
            return Effect.map(Effect.exit(retry.execute(ending)), () => assert.strictEqual(fiber.context, before))
          })).pipe(Effect.provideService(Clock.Clock, clock))
      }))

    it.effect("is forgotten by a fiber that was detached from it when it has ended", () =>
      Effect.gen(function*() {
        const none = yield* RetryBudget.make({ share: 0, minPerSecond: 0 })
        const outer = yield* Retry.make({ budget: none })
        const inner = yield* Retry.make({ budget: { share: 1, minPerSecond: 10 } })
        const counted = yield* Retry.make({ budget: none })
        const { effect, state } = failing(2)
        const fiber = yield* outer.execute(Effect.andThen(
          Effect.yieldNow,
          Effect.forkDetach(Effect.andThen(
            Effect.sleep("1 hour"),
            Effect.andThen(inner.execute(effect), counted.execute(Effect.void))
          ))
        ))
        assert.strictEqual((yield* none.snapshot).calls, 1)
        yield* TestClock.adjust("2 hours")
        yield* Fiber.join(fiber)
        // The budget of the call that has ended does not limit what happens now, and counts it as a call of its own.
        assert.strictEqual(state.attempts, 3)
        assert.strictEqual((yield* none.snapshot).calls, 1)
      }))
  })

  it.effect("makes the same attempts wherever the scheduler lets it yield, and stops at every step", () =>
    Effect.gen(function*() {
      const retry = yield* Retry.make({ schedule: Schedule.recurs(2), budget: false })
      const { clock } = makeInstantClock()
      const { count, effect } = counted(Effect.andThen(Effect.yieldNow, Effect.fail("no")))
      for (let ops = 3; ops <= 64; ops++) {
        const run = retry.execute(effect).pipe(
          Effect.provideService(Scheduler.MaxOpsBeforeYield, ops),
          Effect.provideService(Clock.Clock, clock)
        )
        const before = count.started
        assert.deepStrictEqual(yield* Effect.exit(run), Exit.fail("no"))
        assert.strictEqual(count.started - before, 3)
        for (let position = 0; position < 64; position++) {
          const fiber = yield* Effect.forkChild(run)
          for (let i = 0; i < position; i++) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          if (count.started !== count.ended) {
            assert.fail(`an attempt left behind at ${ops} operations, position ${position}`)
          }
        }
      }
    }))

  describe("options", () => {
    const message = (options: any) => {
      try {
        Retry.make(options)
      } catch (error) {
        return (error as Error).message
      }
      return "nothing was thrown"
    }

    it("refuse nonsense and say who, what and what came", () => {
      for (
        const [value, came] of [[0, "0"], [-1, "-1"], [1.5, "1.5"], [NaN, "NaN"], [Infinity, "Infinity"], [
          "3",
          "a string"
        ]]
      ) {
        assert.strictEqual(
          message({ maxAttempts: value }),
          `Retry.make: maxAttempts must be an integer >= 1, got ${came}`
        )
      }
      assert.strictEqual(
        message({ initialDelay: 0 }),
        "Retry.make: initialDelay must be a duration > 0 and finite, got 0 ms"
      )
      assert.strictEqual(
        message({ maxDelay: Infinity }),
        "Retry.make: maxDelay must be a duration > 0 and finite, got Infinity ms"
      )
      assert.strictEqual(message({ maxDelay: -5 }), "Retry.make: maxDelay must be a duration > 0 and finite, got -5")
      assert.strictEqual(
        message({ initialDelay: 10, maxDelay: 5 }),
        "Retry.make: initialDelay must be at most maxDelay (5 ms), got 10 ms"
      )
      assert.strictEqual(message({ multiplier: 0.5 }), "Retry.make: multiplier must be a number >= 1, got 0.5")
      assert.strictEqual(message({ multiplier: NaN }), "Retry.make: multiplier must be a number >= 1, got NaN")
      assert.strictEqual(
        message({ strategy: "quadratic" }),
        "Retry.make: strategy must be one of exponential, linear, constant, got a string"
      )
      assert.strictEqual(
        message({ jitter: true }),
        "Retry.make: jitter must be one of none, full, equal, decorrelated, got true"
      )
      assert.strictEqual(message({ schedule: 5 }), "Retry.make: schedule must be a Schedule, got number")
      assert.strictEqual(
        message({ schedule: Schedule.forever, multiplier: 2 }),
        "Retry.make: multiplier means nothing beside schedule"
      )
      assert.strictEqual(message({ retryIf: true }), "Retry.make: retryIf must be a function, got boolean")
      assert.strictEqual(
        message({ budget: { share: 2 } }),
        "Retry.make: budget: share must be a number >= 0 and <= 1, got 2"
      )
      assert.strictEqual(
        message({ exhausted: "throw" }),
        "Retry.make: exhausted must be one of last, wrap, got a string"
      )
      assert.include(message({ maxAttempt: 3 }), "Retry.make: unknown option \"maxAttempt\"")
      assert.throws(() => Retry.layer({ maxAttempts: 0 }), "Retry.layer: maxAttempts must be an integer >= 1, got 0")
    })

    it.effect("come from the configuration with layerConfig", () =>
      Effect.gen(function*() {
        const retry = yield* Retry.Retry
        const { effect, state } = failing(100)
        yield* instantly(retry.execute(effect))
        assert.strictEqual(state.attempts, 5)
      }).pipe(
        Effect.provide(Retry.layerConfig({ maxAttempts: Config.Int("ATTEMPTS") })),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ ATTEMPTS: "5" })))
      ))
  })

  it.effect("shares its budget with whoever is given it", () =>
    Effect.gen(function*() {
      const budget = yield* RetryBudget.make({ share: 0, minPerSecond: 3 })
      const first = yield* Retry.make({ budget, maxAttempts: 3 })
      const second = yield* Retry.make({ budget: first.budget, maxAttempts: 3 })
      const work = failing(100)
      yield* instantly(first.execute(work.effect))
      assert.strictEqual(work.state.attempts, 3)
      yield* instantly(second.execute(work.effect))
      assert.strictEqual(work.state.attempts, 5)
      yield* instantly(first.execute(work.effect))
      assert.strictEqual(work.state.attempts, 6)
    }))
})
