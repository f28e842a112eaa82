import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber } from "effect"
import { Bulkhead, CircuitBreaker, Deadline, Executor, Retry, RetryBudget, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { positions, SweepScheduler } from "../support/interruptSweep.ts"
import { wakeful } from "./support.ts"

// An executor has a short way for calls that nothing is in the way of. Whatever can become of a call must be the same as
// with the four parts put around each other.

interface Options {
  readonly retryIf?: (error: unknown) => boolean
  readonly classify?: (exit: Exit.Exit<unknown, unknown>) => "success" | "failure" | "ignored"
  readonly maxQueue?: number
  readonly resetTimeout?: Duration.Input
}

const makeParts = (options: Options) =>
  Effect.all({
    bulkhead: Bulkhead.make({
      maxConcurrent: 2,
      ...(options.maxQueue === undefined ? {} : { maxQueue: options.maxQueue, maxWait: "1 hour" })
    }),
    circuitBreaker: CircuitBreaker.make({
      maxFailures: 2,
      resetTimeout: options.resetTimeout ?? "1 hour",
      ...(options.classify === undefined ? {} : { classify: options.classify })
    }),
    retry: Retry.make({
      jitter: "none",
      initialDelay: "1 second",
      maxAttempts: 3,
      budget: { share: 1, minPerSecond: 100 },
      ...(options.retryIf === undefined ? {} : { retryIf: options.retryIf })
    }),
    timeout: Timeout.make({ timeout: "10 seconds", grace: "2 seconds" })
  })

type Parts = Effect.Success<ReturnType<typeof makeParts>>

type Run = <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, unknown>

const ways: Record<string, (parts: Parts) => Effect.Effect<Run>> = {
  fused: (parts) => Effect.map(Executor.make(parts), ({ execute }) => execute),
  around: ({ bulkhead, circuitBreaker, retry, timeout }) =>
    Effect.succeed((effect) => bulkhead.execute(circuitBreaker.execute(retry.execute(timeout.execute(effect)))))
}

const describeExit = (exit: Exit.Exit<unknown, unknown> | undefined): string => {
  if (exit === undefined) return "running"
  if (Exit.isSuccess(exit)) return `success ${String(exit.value)}`
  return exit.cause.reasons.map((reason) =>
    Cause.isFailReason(reason)
      ? `fail ${String(typeof reason.error === "object" ? JSON.stringify(reason.error) : reason.error)}`
      : Cause.isDieReason(reason)
      ? `die ${String(reason.defect)}`
      : "interrupt"
  ).join(", ")
}

interface Story {
  readonly options?: Options
  /** Makes the work that is run in each execution; `n` counts from 1. */
  readonly work: (n: number) => Effect.Effect<unknown, unknown>
  /** Calls that are started at once. */
  readonly calls?: number
  /** When the first call is interrupted, in seconds. */
  readonly interruptAt?: number
}

/** Everything that can be seen from outside, second by second. */
const tell = (story: Story, way: (parts: Parts) => Effect.Effect<Run>) =>
  Effect.gen(function*() {
    const parts = yield* makeParts(story.options ?? {})
    const run = yield* way(parts)
    let executions = 0
    const log: Array<unknown> = []
    const work = Effect.suspend(() => story.work(++executions))
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (let i = 0; i < (story.calls ?? 1); i++) fibers.push(yield* Effect.forkChild(run(work)))
    for (let second = 0; second <= 60; second++) {
      if (second === story.interruptAt) fibers[0]!.interruptUnsafe()
      log.push({
        second,
        executions,
        calls: fibers.map((fiber) => describeExit(fiber.pollUnsafe())),
        bulkhead: yield* parts.bulkhead.snapshot,
        circuit: yield* parts.circuitBreaker.snapshot,
        timeout: yield* parts.timeout.snapshot,
        budget: yield* (parts.retry.budget as RetryBudget.RetryBudget["Service"]).snapshot
      })
      yield* TestClock.adjust("1 second")
    }
    yield* Fiber.interruptAll(fibers)
    return log
  })

const sleep = (seconds: number) => Effect.sleep(Duration.seconds(seconds))
const stubborn = (seconds: number) => Effect.uninterruptible(Effect.as(sleep(seconds), "late"))

const stories: Record<string, Story> = {
  "succeeds at once": { work: () => Effect.succeed("done") },
  "succeeds later": { work: () => Effect.as(sleep(3), "done") },
  "fails at once, always": { work: (n) => Effect.fail(`no ${n}`) },
  "fails later, always": { work: (n) => Effect.andThen(sleep(2), Effect.fail(`no ${n}`)) },
  "fails at once, then succeeds": { work: (n) => n === 1 ? Effect.fail("no") : Effect.succeed(n) },
  "fails later, then succeeds later": {
    work: (n) => n < 3 ? Effect.andThen(sleep(2), Effect.fail("no")) : Effect.as(sleep(1), n)
  },
  "fails with what is not retryable": { work: () => Effect.andThen(sleep(1), Effect.fail({ retryable: false })) },
  "dies at once": { work: () => Effect.die("bug") },
  "dies later": { work: () => Effect.andThen(sleep(1), Effect.die("bug")) },
  "throws": {
    work: () => {
      throw new Error("thrown")
    }
  },
  "interrupts itself": { work: () => Effect.andThen(sleep(1), Effect.interrupt) },
  "hangs": { work: () => Effect.never },
  "hangs once, then succeeds": { work: (n) => n === 1 ? Effect.never : Effect.as(sleep(1), n) },
  "hangs and takes long to clean up": { work: () => Effect.onInterrupt(Effect.never, () => sleep(5)) },
  "hangs and cleans up in the grace time": {
    work: (n) => n === 1 ? Effect.onInterrupt(Effect.never, () => sleep(1)) : Effect.succeed(n)
  },
  "cannot be stopped": { work: () => stubborn(30) },
  "cannot be stopped until the back-off is over": { work: (n) => n === 1 ? stubborn(10.5) : Effect.succeed(n) },
  "cannot be stopped, and dies late": {
    work: () => Effect.uninterruptible(Effect.andThen(sleep(30), Effect.die("late bug")))
  },
  "is interrupted while it runs": { work: () => sleep(30), interruptAt: 5 },
  "is interrupted while it cannot be": { work: () => stubborn(8), interruptAt: 5 },
  "is interrupted while it waits for a retry": {
    work: (n) => Effect.andThen(sleep(1.5), Effect.fail(`no ${n}`)),
    interruptAt: 2
  },
  "is interrupted during a later attempt": {
    work: (n) => n === 1 ? Effect.fail("no") : sleep(30),
    interruptAt: 5
  },
  "is interrupted in the grace time": {
    work: () => Effect.onInterrupt(Effect.never, () => sleep(1.5)),
    interruptAt: 11
  },
  "is interrupted after its time, while what cannot be stopped runs on": { work: () => stubborn(30), interruptAt: 11 },
  "has a retry rule that throws": {
    work: () => Effect.andThen(sleep(1), Effect.fail("no")),
    options: {
      retryIf: () => {
        throw new Error("rule")
      }
    }
  },
  "has a retry rule that throws at once": {
    work: () => Effect.fail("no"),
    options: {
      retryIf: () => {
        throw new Error("rule")
      }
    }
  },
  "has a circuit's rule that throws": {
    work: () => Effect.as(sleep(1), "done"),
    options: {
      classify: () => {
        throw new Error("rule")
      }
    }
  },
  "has a circuit's rule that throws at the end of a retry": {
    work: (n) => n === 1 ? Effect.fail("no") : Effect.as(sleep(1), "done"),
    options: {
      classify: () => {
        throw new Error("rule")
      }
    }
  },
  "finds the bulkhead full": { work: () => sleep(20), calls: 4 },
  "waits for a slot": { work: (n) => Effect.as(sleep(4), n), calls: 5, options: { maxQueue: 10 } },
  "waits for a slot that what cannot be stopped keeps": {
    work: (n) => n < 3 ? stubborn(20) : Effect.succeed(n),
    calls: 4,
    options: { maxQueue: 10 }
  },
  "opens the circuit for the others": {
    work: (n) => Effect.andThen(sleep(1), Effect.fail({ retryable: false, n })),
    calls: 5,
    options: { maxQueue: 10 }
  },
  "probes when the circuit is half open": {
    work: (n) => Effect.andThen(sleep(1), n < 4 ? Effect.fail({ retryable: false, n }) : Effect.succeed(n)),
    calls: 5,
    options: { maxQueue: 10, resetTimeout: "2 seconds" }
  }
}

describe("an executor's short way", () => {
  for (const [name, story] of Object.entries(stories)) {
    it.effect(`is no other than the long one for work that ${name}`, () =>
      Effect.gen(function*() {
        const fused = yield* tell(story, ways["fused"]!)
        const around = yield* tell(story, ways["around"]!)
        assert.deepStrictEqual(fused, around)
        assert.deepInclude((fused.at(-1) as { bulkhead: object }).bulkhead, { active: 0, queued: 0 })
      }))
  }

  const makeExecutor = (retry: Retry.Options = {}) =>
    Executor.make({ bulkhead: {}, circuitBreaker: {}, retry: { initialDelay: 1, ...retry }, timeout: {} })

  it.effect("does not multiply retries, and takes them from the outermost budget", () =>
    Effect.gen(function*() {
      let executions = 0
      const work = Effect.suspend(() => {
        executions += 1
        return Effect.fail("no")
      })
      const layers = [yield* makeExecutor(), yield* makeExecutor(), yield* makeExecutor()]
      const fiber = yield* Effect.forkChild(Effect.flip(
        layers.reduce((effect: Effect.Effect<never, unknown>, { execute }) => execute(effect), work)
      ))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      assert.strictEqual(executions, 7)
      executions = 0
      const none = yield* makeExecutor({ budget: { share: 0, minPerSecond: 0 } })
      const poor = yield* Effect.forkChild(Effect.flip(none.execute(layers[0]!.execute(work))))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(poor)
      assert.strictEqual(executions, 1)
    }))

  it.effect("does not multiply retries after an attempt that ended late", () =>
    Effect.gen(function*() {
      const executor = yield* Executor.make({
        bulkhead: {},
        circuitBreaker: {},
        retry: { initialDelay: "10 seconds", jitter: "none", maxAttempts: 2 },
        timeout: { timeout: "5 seconds" }
      })
      const inner = yield* Retry.make({ initialDelay: 1 })
      let attempts = 0
      let executions = 0
      const failing = Effect.suspend(() => {
        executions += 1
        return Effect.fail("no")
      })
      const fiber = yield* Effect.forkChild(Effect.flip(executor.execute(
        Effect.suspend(() => ++attempts === 1 ? stubborn(7) : inner.execute(failing))
      )))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Fiber.join(fiber), "no")
      assert.deepStrictEqual({ attempts, executions }, { attempts: 2, executions: 1 })
    }))

  it("loses and gains nothing when the first attempt fails at once and the caller is interrupted at any position", async () => {
    let interrupted = 0
    for (const position of positions) {
      const scheduler = new SweepScheduler(position)
      const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: 1 }))
      const circuitBreaker = Effect.runSync(CircuitBreaker.make({ maxFailures: 1 }))
      const executor = Effect.runSync(Executor.make({
        bulkhead,
        circuitBreaker,
        retry: { maxAttempts: 2, budget: false },
        timeout: {}
      }))
      let attempts = 0
      const call = executor.execute(Effect.suspend(() => ++attempts === 1 ? Effect.fail("once") : Effect.yieldNow))
      // Steps of its own around the call, so that it begins at any operation count.
      const steps = Effect.andThen(Effect.void, Effect.andThen(call, Effect.void))
      const fiber = scheduler.aim(Effect.provideService(steps, Clock.Clock, wakeful))
      for (let turn = 0; turn < 20 && fiber.pollUnsafe() === undefined; turn++) {
        scheduler.drain()
        await Promise.resolve()
      }
      const where = JSON.stringify(position)
      assert.isDefined(fiber.pollUnsafe(), where)
      assert.deepInclude(Effect.runSync(bulkhead.snapshot), { active: 0, queued: 0 }, where)
      assert.strictEqual(Effect.runSync(circuitBreaker.state), "closed", where)
      if (scheduler.didInterrupt) interrupted += 1
    }
    assert.isAbove(interrupted, 5000)
  })

  it.effect("gives each attempt its own deadline, and none to what is detached from the call", () =>
    Effect.gen(function*() {
      const executor = yield* Executor.make({
        bulkhead: {},
        circuitBreaker: {},
        retry: { initialDelay: "20 seconds", jitter: "none", maxAttempts: 2 },
        timeout: { timeout: "30 seconds" }
      })
      const seen: Array<Duration.Duration> = []
      let attempts = 0
      const fiber = yield* Effect.forkChild(executor.execute(Effect.gen(function*() {
        seen.push(yield* Deadline.remaining)
        yield* Effect.sleep("5 seconds")
        if (++attempts === 1) return yield* Effect.fail("no")
        seen.push(yield* Deadline.remaining)
        return yield* Effect.forkDetach(Effect.andThen(Effect.sleep("1 minute"), Deadline.remaining))
      })))
      yield* TestClock.adjust("2 minutes")
      const detached = yield* Fiber.join(fiber)
      assert.deepStrictEqual(seen, [Duration.seconds(30), Duration.seconds(30), Duration.seconds(25)])
      assert.deepStrictEqual(yield* Fiber.join(detached), Duration.infinity)
    }))

  it.effect("gives its slot back once, also when a detached fiber leaves work behind later", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
      const executor = yield* Executor.make({ bulkhead, circuitBreaker: {}, retry: {}, timeout: {} })
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      yield* executor.execute(Effect.forkDetach(Effect.andThen(
        Effect.sleep("10 seconds"),
        Effect.ignore(timeout.execute(stubborn(10)))
      )))
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual((yield* bulkhead.snapshot).active, 0)
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual((yield* bulkhead.snapshot).active, 0)
    }))

  it.effect("can be run again and again as one value", () =>
    Effect.gen(function*() {
      const executor = yield* makeExecutor()
      let n = 0
      const call = executor.execute(Effect.sync(() => ++n))
      assert.deepStrictEqual(yield* Effect.all([call, call, call], { concurrency: 3 }), [1, 2, 3])
    }))
})
