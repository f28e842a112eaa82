import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Scheduler,
  Schema
} from "effect"
import { type CallRecord, ToolMeta, type ToolMiddleware, ToolPipeline } from "effect-toolops"
import {
  Bulkhead,
  Deadline,
  Executor,
  Hedge,
  ResilienceError,
  ResilienceMiddleware,
  Timeout
} from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { AsyncLocalStorage } from "node:async_hooks"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { counted, makeJumpingClock, wallSteps } from "./support.ts"

const isTimedOut = (error: unknown): boolean =>
  error instanceof ResilienceError.ResilienceError && error.reason._tag === "TimedOut"

const timedOutBy = (name: string) => (error: unknown): boolean =>
  error instanceof ResilienceError.ResilienceError && error.reason._tag === "TimedOut" && error.reason.name === name

/** Uninterruptible work of the given length that says when it has ended. */
const stubborn = (duration: Duration.Input) => {
  const state = { ended: false }
  const work = Effect.uninterruptible(Effect.andThen(
    Effect.sleep(duration),
    Effect.sync(() => {
      state.ended = true
      return "late"
    })
  ))
  return { state, work }
}

describe("Timeout", () => {
  it.effect("fails with TimedOut when the time is up, not before, and interrupts the work", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ name: "search", timeout: "5 seconds" })
      let interrupted = false
      const fiber = yield* Effect.forkChild(
        Effect.flip(timeout.execute(Effect.onInterrupt(Effect.never, () =>
          Effect.sync(() => {
            interrupted = true
          }))))
      )
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error.reason._tag, "TimedOut")
      assert.deepStrictEqual(Schema.encodeSync(ResilienceError.ResilienceError)(error), {
        _tag: "ResilienceError",
        reason: { _tag: "TimedOut", name: "search", timeout: 5000 }
      })
      assert.isTrue(interrupted)
      assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 0 })
    }))

  it.effect("passes on what comes in time: a success, a failure, a defect, an interruption", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make()
      const later = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.andThen(Effect.promise(() => Promise.resolve()), effect)
      for (const wrap of [<A, E>(effect: Effect.Effect<A, E>) => effect, later]) {
        assert.strictEqual(yield* timeout.execute(wrap(Effect.succeed(1))), 1)
        assert.strictEqual(yield* Effect.flip(timeout.execute(wrap(Effect.fail("no")))), "no")
        const died = yield* Effect.exit(timeout.execute(wrap(Effect.die("bug"))))
        assert.deepStrictEqual(died, Exit.die("bug"))
        const threw = yield* Effect.exit(timeout.execute(wrap(Effect.sync(() => {
          throw new Error("thrown")
        }))))
        assert.isTrue(Exit.isFailure(threw) && Cause.hasDies(threw.cause))
        const interrupted = yield* Effect.exit(timeout.execute(wrap(Effect.interrupt)))
        assert.isTrue(Exit.isFailure(interrupted) && Cause.hasInterruptsOnly(interrupted.cause))
      }
      assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 0, running: 0, late: 0 })
    }))

  it.effect("keeps the caller's services, references and span for the work", () =>
    Effect.gen(function*() {
      const Locale = Context.Reference<string>("test/Locale", { defaultValue: () => "none" })
      const timeout = yield* Timeout.make()
      const seen = yield* timeout.execute(Effect.gen(function*() {
        yield* Effect.promise(() => Promise.resolve())
        return [yield* Locale, (yield* Effect.currentSpan).name]
      })).pipe(Effect.provideService(Locale, "cs"), Effect.withSpan("caller"))
      assert.deepStrictEqual(seen, ["cs", "caller"])
    }))

  it.effect("leaves the caller's context as it was", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      yield* timeout.execute(Effect.void)
      assert.deepStrictEqual(yield* Deadline.remaining, Duration.infinity)
    }))

  it.effect("sets no limit with Infinity", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ timeout: Infinity })
      const fiber = yield* Effect.forkChild(timeout.execute(Effect.sleep("10000 days")))
      yield* TestClock.adjust("9999 days")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 days")
      yield* Fiber.join(fiber)
    }))

  it.live("does not fire at once for 2^31 ms and beyond", () =>
    Effect.gen(function*() {
      for (const millis of [2 ** 31 - 1, 2 ** 31, 2 ** 31 + 1, 2 ** 32 + 1, 1e15]) {
        const timeout = yield* Timeout.make({ timeout: millis })
        assert.strictEqual(yield* timeout.execute(Effect.as(Effect.sleep(5), "done")), "done")
        assert.strictEqual((yield* timeout.snapshot).timedOut, 0)
      }
    }))

  it.live("is not early and hardly late by the clock of the host", () =>
    Effect.gen(function*() {
      const timeout = yield* Timeout.make({ timeout: "30 millis" })
      const before = performance.now()
      assert.isTrue(isTimedOut(yield* Effect.flip(timeout.execute(Effect.never))))
      const elapsed = performance.now() - before
      assert.isAtLeast(elapsed, 29.9)
      assert.isBelow(elapsed, 500)
    }))

  it.live("serves the shorter of two timeouts first, whichever began first", () =>
    Effect.gen(function*() {
      const long = yield* Timeout.make({ name: "long", timeout: "80 millis" })
      const short = yield* Timeout.make({ name: "short", timeout: "20 millis" })
      const order: Array<string> = []
      yield* Effect.all(
        [long, short].map((timeout) =>
          Effect.andThen(
            Effect.flip(timeout.execute(Effect.never)),
            Effect.sync(() => {
              order.push(timeout.name)
            })
          )
        ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(order, ["short", "long"])
    }))

  describe("deadlines", () => {
    it.effect("gives a nested call what is left, and reports the deadline of the one whose time was up", () =>
      Effect.gen(function*() {
        const outer = yield* Timeout.make({ name: "outer", timeout: "5 seconds" })
        const inner = yield* Timeout.make({ name: "inner", timeout: "30 seconds" })
        let left: Duration.Duration | undefined = undefined
        let caught: unknown = undefined
        const nested = Effect.gen(function*() {
          yield* Effect.sleep("2 seconds")
          return yield* inner.execute(Effect.gen(function*() {
            left = yield* Deadline.remaining
            return yield* Effect.never
          })).pipe(Effect.tapError((error) =>
            Effect.sync(() => {
              caught = error
            })
          ))
        })
        const fiber = yield* Effect.forkChild(Effect.flip(outer.execute(nested)))
        yield* TestClock.adjust("5 seconds")
        assert.isTrue(timedOutBy("outer")(yield* Fiber.join(fiber)))
        assert.deepStrictEqual(left, Duration.seconds(3))
        // Toolops reports a parent's deadline as its own timeout.
        assert.isUndefined(caught)
        assert.strictEqual((yield* inner.snapshot).timedOut, 0)
        assert.strictEqual((yield* outer.snapshot).timedOut, 1)
      }))

    it.effect("reports the inner timeout when it is the shorter one", () =>
      Effect.gen(function*() {
        const outer = yield* Timeout.make({ name: "outer", timeout: "5 seconds" })
        const inner = yield* Timeout.make({ name: "inner", timeout: "1 second" })
        const fiber = yield* Effect.forkChild(Effect.flip(outer.execute(inner.execute(Effect.never))))
        yield* TestClock.adjust("1 second")
        assert.isTrue(timedOutBy("inner")(yield* Fiber.join(fiber)))
        assert.strictEqual((yield* outer.snapshot).timedOut, 0)
      }))

    it.effect("limits all attempts together with executeTotal", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "2 seconds", total: "5 seconds" })
        let attempts = 0
        const attempt = timeout.execute(Effect.suspend(() => {
          attempts += 1
          return Effect.never
        }))
        const forever = Effect.forever(Effect.ignore(attempt))
        const fiber = yield* Effect.forkChild(Effect.flip(timeout.executeTotal(forever)))
        yield* TestClock.adjust("5 seconds")
        const error = yield* Fiber.join(fiber)
        assert.isTrue(error.reason._tag === "TimedOut" && Duration.toMillis(error.reason.timeout) === 5000)
        assert.strictEqual(attempts, 3)
      }))

    it.effect("ends with the call: a fiber detached from it has no deadline", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        for (const wait of [Effect.void, Effect.yieldNow]) {
          const detached = yield* timeout.execute(Effect.andThen(
            wait,
            Effect.forkDetach(Effect.andThen(Effect.sleep("10 seconds"), Deadline.remaining))
          ))
          yield* TestClock.adjust("10 seconds")
          assert.deepStrictEqual(yield* Fiber.join(detached), Duration.infinity)
        }
      }))
  })

  describe("the caller's own interruption", () => {
    it.effect("interrupts the work, waits for it, and is no timeout", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make()
        let cleanedUp = false
        const work = Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(
            Effect.sleep("1 second"),
            Effect.sync(() => {
              cleanedUp = true
            })
          ))
        const fiber = yield* Effect.forkChild(timeout.execute(work))
        yield* Effect.yieldNow
        const interruption = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* Effect.yieldNow
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(interruption)
        assert.isTrue(cleanedUp)
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 0, running: 0, late: 0 })
      }))

    it.effect("is what comes out when it falls into the grace time", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 second", grace: "10 seconds" })
        const work = Effect.onInterrupt(Effect.never, () => Effect.sleep("5 seconds"))
        const fiber = yield* Effect.forkChild(timeout.execute(work))
        yield* TestClock.adjust("2 seconds")
        const interruption = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* TestClock.adjust("3999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(interruption)
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 0 })
      }))

    it.effect("reaches the work at every step", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 hour" })
        const { count, effect } = counted(Effect.andThen(Effect.yieldNow, Effect.never))
        for (let ops = 3; ops <= 64; ops++) {
          for (let position = 0; position < 64; position++) {
            const fiber = yield* timeout.execute(effect).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, ops),
              Effect.forkChild
            )
            for (let i = 0; i < position; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(fiber)
            if (count.started !== count.ended) {
              assert.fail(`work left behind at ${ops} operations, position ${position}`)
            }
          }
        }
        assert.isAbove(count.started, 3000)
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 0, running: 0, late: 0 })
      }))
  })

  describe("work that does not stop", () => {
    it.effect("is answered at the deadline when it is uninterruptible, and its late result is counted and dropped", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        const { state, work } = stubborn("10 seconds")
        const fiber = yield* Effect.forkChild(Effect.flip(timeout.execute(work)))
        yield* TestClock.adjust("1 second")
        assert.isTrue(isTimedOut(yield* Fiber.join(fiber)))
        assert.isFalse(state.ended)
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 1, late: 0 })
        yield* TestClock.adjust("9 seconds")
        assert.isTrue(state.ended)
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 1 })
      }))

    it.effect("is answered at the deadline and counted however many timeouts and tools are around it", () =>
      Effect.gen(function*() {
        const long = { timeout: "1 hour", grace: "10 seconds" } as const
        const inner = yield* Timeout.make(long)
        const executor = yield* Executor.make({ bulkhead: {}, circuitBreaker: {}, retry: {}, timeout: long })
        const hedge = yield* Hedge.make({ delay: "300 millis" })
        type Work = Effect.Effect<unknown, unknown>
        const ways: Record<string, (work: Work) => Work> = {
          "an attempt": (effect) => inner.execute(effect),
          "an attempt in an attempt": (effect) => inner.execute(inner.execute(effect)),
          "a tool": (effect) => executor.execute(effect),
          "a tool in a tool": (effect) => executor.execute(executor.execute(effect)),
          "a hedge": (effect) => hedge.execute(effect),
          "a tool's later attempt": (effect) => {
            let attempts = 0
            return executor.execute(Effect.suspend((): Work => ++attempts === 1 ? Effect.fail("no") : effect))
          },
          "tools in parallel": (effect) =>
            Effect.all([executor.execute(effect), inner.execute(Effect.never)], { concurrency: 2 }),
          "an attempt that cleans up besides": (effect) =>
            Effect.ensuring(inner.execute(effect), Effect.sleep("10 minutes"))
        }
        for (const isTotal of [false, true]) {
          for (const [name, within] of Object.entries(ways)) {
            for (const ops of [2048, 16]) {
              const where = `${name}, ${isTotal ? "total" : "attempt"}, ${ops} operations`
              const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
              const timeout = yield* Timeout.make({ timeout: "1 second", total: "1 second", grace: "10 seconds" })
              const limited = <A, E>(effect: Effect.Effect<A, E>) =>
                isTotal ? timeout.executeTotal(effect) : timeout.execute(effect)
              const { work } = stubborn("1 minute")
              const fiber = yield* bulkhead.execute(limited(within(work))).pipe(
                Effect.flip,
                Effect.provideService(Scheduler.MaxOpsBeforeYield, ops),
                Effect.forkChild
              )
              for (let half = 0; half < 2; half++) {
                yield* TestClock.adjust("500 millis")
                // A fiber that yields after every few steps needs its turns.
                for (let i = 0; i < 50; i++) yield* Effect.yieldNow
              }
              assert.isTrue(isTimedOut(Option.getOrUndefined(Exit.getSuccess(fiber.pollUnsafe() ?? Exit.void))), name)
              assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 1, late: 0 }, where)
              assert.strictEqual((yield* bulkhead.snapshot).active, 1, where)
              yield* TestClock.adjust("1 hour")
              assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 1 }, where)
              assert.strictEqual((yield* bulkhead.snapshot).active, 0, where)
            }
          }
        }
        assert.deepStrictEqual(yield* inner.snapshot, { timedOut: 0, running: 0, late: 0 })
      }))

    it.effect("has its grace time when it is another timeout's work that cleans up", () =>
      Effect.gen(function*() {
        // Interrupted by the one, and within the grace time of the other.
        for (const timeout of ["1 hour", "900 millis"] as const) {
          const inner = yield* Timeout.make({ timeout, grace: "1 minute" })
          const outer = yield* Timeout.make({ timeout: "1 second", grace: "500 millis" })
          const cleaningUpFor = (duration: Duration.Input) =>
            Effect.forkChild(Effect.flip(outer.execute(inner.execute(
              Effect.onInterrupt(Effect.never, () => Effect.sleep(duration))
            ))))
          const quick = yield* cleaningUpFor("400 millis")
          yield* TestClock.adjust("1299 millis")
          assert.isUndefined(quick.pollUnsafe())
          yield* TestClock.adjust("101 millis")
          assert.isTrue(isTimedOut(yield* Fiber.join(quick)))
          assert.deepStrictEqual(yield* outer.snapshot, { timedOut: 1, running: 0, late: 0 })
          const slow = yield* cleaningUpFor("1 minute")
          yield* TestClock.adjust("1499 millis")
          assert.isUndefined(slow.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          assert.isTrue(isTimedOut(yield* Fiber.join(slow)))
          yield* TestClock.adjust("1 hour")
          assert.deepStrictEqual(yield* outer.snapshot, { timedOut: 2, running: 0, late: 1 })
        }
      }))

    it.effect("is waited for while it cleans up, up to the grace time", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 second", grace: "500 millis" })
        const cleaningUpFor = (duration: Duration.Input) =>
          Effect.forkChild(Effect.flip(timeout.execute(
            Effect.onInterrupt(Effect.never, () => Effect.sleep(duration))
          )))
        const quick = yield* cleaningUpFor("300 millis")
        yield* TestClock.adjust("1299 millis")
        assert.isUndefined(quick.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(isTimedOut(yield* Fiber.join(quick)))
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 0 })
        const slow = yield* cleaningUpFor("1 hour")
        yield* TestClock.adjust("1499 millis")
        assert.isUndefined(slow.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(isTimedOut(yield* Fiber.join(slow)))
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 2, running: 1, late: 0 })
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 2, running: 0, late: 1 })
      }))

    it.effect("keeps its bulkhead's slot until it has really ended", () =>
      Effect.gen(function*() {
        const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        let running = 0
        let most = 0
        const work = Effect.uninterruptible(Effect.gen(function*() {
          running += 1
          most = Math.max(most, running)
          yield* Effect.sleep("10 seconds")
          running -= 1
        }))
        const call = Effect.flip(bulkhead.execute(timeout.execute(work)))
        const first = yield* Effect.forkChild(call)
        yield* TestClock.adjust("1 second")
        assert.isTrue(isTimedOut(yield* Fiber.join(first)))
        // Toolops frees the slot here, and three operations ran at once in a bulkhead of one.
        assert.strictEqual((yield* bulkhead.snapshot).active, 1)
        assert.strictEqual((yield* call).reason._tag, "BulkheadFull")
        yield* TestClock.adjust("9 seconds")
        assert.strictEqual((yield* bulkhead.snapshot).active, 0)
        const second = yield* Effect.forkChild(call)
        yield* TestClock.adjust("1 second")
        assert.isTrue(isTimedOut(yield* Fiber.join(second)))
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(most, 1)
        assert.deepInclude(yield* bulkhead.snapshot, { active: 0, queued: 0 })
      }))

    it.effect("keeps the slots around an outer timeout too", () =>
      Effect.gen(function*() {
        const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
        const outer = yield* Timeout.make({ timeout: "2 seconds" })
        const inner = yield* Timeout.make({ timeout: "1 second" })
        const { work } = stubborn("10 seconds")
        const fiber = yield* Effect.forkChild(bulkhead.execute(outer.execute(
          Effect.catchTag(inner.execute(work), "ResilienceError", () => Effect.succeed("recovered"))
        )))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), "recovered")
        assert.strictEqual((yield* bulkhead.snapshot).active, 1)
        yield* TestClock.adjust("9 seconds")
        assert.strictEqual((yield* bulkhead.snapshot).active, 0)
      }))

    it.effect("is no hole through which a defect ends the process or the caller", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 second" })
        const work = Effect.uninterruptible(Effect.andThen(Effect.sleep("10 seconds"), Effect.die("late bug")))
        const fiber = yield* Effect.forkChild(Effect.flip(timeout.execute(work)))
        yield* TestClock.adjust("1 second")
        assert.isTrue(isTimedOut(yield* Fiber.join(fiber)))
        yield* TestClock.adjust("9 seconds")
        assert.deepStrictEqual(yield* timeout.snapshot, { timedOut: 1, running: 0, late: 1 })
      }))
  })

  it.effect("notes in the record of a tool call that its time was up, and its late result", () =>
    Effect.gen(function*() {
      const records: Array<CallRecord.CallRecord> = []
      const Watch = Context.Service<"Watch", ToolMiddleware.ToolMiddleware<never>>("test/Watch")
      const watching = Layer.succeed(Watch, {
        name: "watch",
        forTool: () => (call, next) => {
          records.push(call.record)
          return next
        }
      })
      // With and without the other parts around it.
      for (const policy of [{}, { bulkhead: false, circuitBreaker: false, retry: false }] as const) {
        const tool = ToolMeta.make({ name: "slow", policy: { ...policy, timeout: { timeout: "1 second" } } })
        const pipeline = yield* ToolPipeline.make(Watch, ResilienceMiddleware.ResilienceMiddleware).pipe(
          Effect.provide([watching, ResilienceMiddleware.layer()])
        )
        const fiber = yield* Effect.forkChild(Effect.flip(pipeline.run({ tool, input: 1 }, stubborn("5 seconds").work)))
        yield* TestClock.adjust("1 second")
        const error = yield* Fiber.join(fiber)
        const record = records.at(-1)!
        assert.strictEqual(record.settle(Exit.fail(error)), "timed_out")
        assert.strictEqual(record.lateResults, 0)
        yield* TestClock.adjust("4 seconds")
        assert.strictEqual(record.lateResults, 1)
      }
    }))

  it.effect("is not moved by steps of the wall clock", () =>
    Effect.gen(function*() {
      const { clock, jump } = yield* makeJumpingClock
      const timeout = yield* Timeout.make({ timeout: "10 seconds" })
      for (const step of wallSteps) {
        let left: Duration.Duration | undefined = undefined
        const timed = yield* timeout.execute(Effect.gen(function*() {
          yield* Effect.sleep("5 seconds")
          left = yield* Deadline.remaining
          return yield* Effect.never
        })).pipe(Effect.flip, Effect.provideService(Clock.Clock, clock), Effect.forkChild)
        yield* TestClock.adjust("1 second")
        jump(step)
        yield* TestClock.adjust("8999 millis")
        assert.deepStrictEqual(left, Duration.seconds(5))
        assert.isUndefined(timed.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(isTimedOut(yield* Fiber.join(timed)))
      }
    }))

  describe("host timers", () => {
    const hostTimers = () => process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length

    it.live("leaves none behind after 10,000 timeouts of an hour that finish at once", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 hour" })
        const before = hostTimers()
        let during = 0
        yield* Effect.forEach(
          Array.from({ length: 10_000 }),
          (_, i) =>
            timeout.execute(Effect.andThen(
              Effect.promise(() => Promise.resolve()),
              Effect.sync(() => {
                if (i === 5000) during = hostTimers()
              })
            )),
          { concurrency: "unbounded", discard: true }
        )
        assert.strictEqual(during, before + 1)
        assert.strictEqual(hostTimers(), before)
      }))

    it.live("are never set for longer than a second, so an idle program soon has none", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.make({ timeout: "1 hour" })
        const setTimeout = globalThis.setTimeout
        const delays: Array<number> = []
        globalThis.setTimeout = Object.assign((run: () => void, delay: number) => {
          delays.push(delay)
          return setTimeout(run, delay)
        }, setTimeout) as typeof setTimeout
        yield* Effect.ensuring(
          timeout.execute(Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 2200)))),
          Effect.sync(() => {
            globalThis.setTimeout = setTimeout
          })
        )
        assert.isAtLeast(delays.length, 2)
        assert.isAtMost(Math.max(...delays), 1000)
      }))

    it.live("are cleared at once on hosts whose timers are plain numbers", () =>
      Effect.gen(function*() {
        // Whatever earlier tests left behind is over by then.
        yield* Effect.sleep(1100)
        const timeout = yield* Timeout.make({ timeout: "1 hour" })
        const { clearTimeout, setTimeout } = globalThis
        const pending = new Set<number>()
        let armed = 0
        globalThis.setTimeout = (() => {
          pending.add(++armed)
          return armed
        }) as unknown as typeof setTimeout
        globalThis.clearTimeout = ((timer: number) => {
          pending.delete(timer)
        }) as typeof clearTimeout
        yield* Effect.ensuring(
          Effect.all([1, 2, 3].map(() => timeout.execute(Effect.promise(() => Promise.resolve())))),
          Effect.sync(() => Object.assign(globalThis, { setTimeout, clearTimeout }))
        )
        assert.strictEqual(armed, 3)
        assert.strictEqual(pending.size, 0)
      }))

    it.live("do not keep the process alive", () =>
      Effect.gen(function*() {
        const script = `
          import { Effect } from "effect"
          import { Timeout } from "effect-toolops/resilience"
          const timeout = await Effect.runPromise(Timeout.make({ timeout: "1 hour" }))
          await Effect.runPromise(timeout.execute(Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))))
          process.on("exit", () => console.log("left after", Math.round(performance.now())))
        `
        const { stdout } = yield* Effect.promise(() =>
          promisify(execFile)(process.execPath, ["-C", "@effect-toolops/source", "--input-type=module", "-e", script], {
            timeout: 15_000
          })
        )
        assert.match(stdout, /^left after \d+/)
      }))

    it.live("keep the process alive until a call that hangs is answered", () =>
      Effect.gen(function*() {
        const script = `
          import { Effect } from "effect"
          import { Timeout } from "effect-toolops/resilience"
          const timeout = await Effect.runPromise(Timeout.make({ timeout: "50 millis" }))
          const answer = Effect.catchReason(timeout.execute(Effect.never), "ResilienceError", "TimedOut", () => Effect.succeed("timed out"))
          for (let i = 0; i < 3; i++) {
            await Effect.runPromise(timeout.execute(Effect.promise(() => Promise.resolve())))
            console.log(await Effect.runPromise(answer))
          }
        `
        const { stdout } = yield* Effect.promise(() =>
          promisify(execFile)(process.execPath, ["-C", "@effect-toolops/source", "--input-type=module", "-e", script], {
            timeout: 15_000
          })
        )
        assert.strictEqual(stdout, "timed out\n".repeat(3))
      }))

    it.live("run cleanup in the asynchronous context of the call, not of the timer", () =>
      Effect.gen(function*() {
        const storage = new AsyncLocalStorage<string>()
        const timeout = yield* Timeout.make({ timeout: "10 millis" })
        const seen: Array<string | undefined> = []
        const work = Effect.onInterrupt(Effect.never, () =>
          Effect.sync(() => {
            seen.push(storage.getStore())
          }))
        const call = Effect.flip(timeout.execute(work))
        yield* Effect.promise(() =>
          Promise.all(["a", "b"].map((name) => storage.run(name, () => Effect.runPromise(call))))
        )
        assert.deepStrictEqual(seen, ["a", "b"])
      }))
  })

  describe("options", () => {
    it("refuses nonsense and says who, what and what came", () => {
      const message = (options: any) => {
        try {
          Timeout.make(options)
        } catch (error) {
          return (error as Error).message
        }
        return "nothing was thrown"
      }
      assert.strictEqual(message({ timeout: 0 }), "Timeout.make: timeout must be a duration > 0, got 0 ms")
      assert.strictEqual(message({ timeout: -1 }), "Timeout.make: timeout must be a duration > 0, got -1")
      assert.strictEqual(message({ timeout: NaN }), "Timeout.make: timeout must be a duration > 0, got NaN")
      assert.strictEqual(message({ timeout: "soon" }), "Timeout.make: timeout must be a duration > 0, got a string")
      assert.strictEqual(message({ total: 0 }), "Timeout.make: total must be a duration > 0, got 0 ms")
      assert.strictEqual(
        message({ grace: Infinity }),
        "Timeout.make: grace must be a duration >= 0 and finite, got Infinity ms"
      )
      assert.strictEqual(
        message({ timout: 5 }),
        "Timeout.make: unknown option \"timout\", expected one of name, timeout, total, grace"
      )
      assert.strictEqual(
        message({ timeout: "5 minutes", total: "1 second" }),
        "Timeout.make: timeout must be at most total (1000 ms), got 300000 ms"
      )
      // Each is taken for what it says where the other is left out, equal, or no limit.
      for (
        const options of [{ total: "1 second" }, { timeout: 5, total: 5 }, { timeout: Infinity, total: 5 }, {
          timeout: "5 minutes"
        }] as const
      ) {
        assert.strictEqual(message(options), "nothing was thrown")
      }
      assert.throws(() => Timeout.layer({ timeout: 0 }), "Timeout.layer: timeout must be a duration > 0, got 0 ms")
    })

    it.effect("come from the configuration with layerConfig", () =>
      Effect.gen(function*() {
        const timeout = yield* Timeout.Timeout
        const fiber = yield* Effect.forkChild(Effect.flip(timeout.execute(Effect.never)))
        yield* TestClock.adjust("2 seconds")
        assert.isTrue(isTimedOut(yield* Fiber.join(fiber)))
      }).pipe(
        Effect.provide(Timeout.layerConfig({ timeout: Config.Duration("TIMEOUT") })),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ TIMEOUT: "2 seconds" })))
      ))
  })
})
