import { assert, describe, it } from "@effect/vitest"
import { Clock, Config, ConfigProvider, Deferred, Duration, Effect, Exit, Fiber, Latch } from "effect"
import { Bulkhead, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import * as ManualClock from "../support/manualClock.ts"

type Service = Bulkhead.Bulkhead["Service"]

/** Takes a slot and keeps it until the fiber is interrupted. */
const occupy = (bulkhead: Service) => Effect.forkChild(bulkhead.execute(Effect.never), { startImmediately: true })

const counts = (bulkhead: Service) =>
  Effect.map(bulkhead.snapshot, ({ active, queued, rejected }) => [active, queued, rejected])

describe("Bulkhead", () => {
  it.effect("runs no more than maxConcurrent at once and refuses the rest", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 2 })
      const running = yield* Effect.forEach([1, 2, 3], () =>
        Effect.forkChild(Effect.exit(bulkhead.execute(Effect.as(Effect.sleep("1 second"), "done")))))
      yield* TestClock.adjust("1 second")
      const exits = yield* Effect.forEach(running, Fiber.join)
      assert.deepStrictEqual(
        exits.map((exit) =>
          exit._tag
        ),
        ["Success", "Success", "Failure"]
      )
      assert.deepStrictEqual(yield* bulkhead.snapshot, { active: 0, queued: 0, rejected: 1, highWaterMark: 2 })
    }))

  it.effect("has toolops's defaults: 10 at once, nobody waits", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make()
      for (let i = 0; i < 10; i++) yield* occupy(bulkhead)
      const refused = yield* Effect.flip(bulkhead.execute(Effect.void))
      assert.strictEqual(refused.reason._tag, "BulkheadFull")
      assert.deepStrictEqual(refused.retryAfter, Duration.seconds(1))
    }))

  it.effect("serves waiters in the order in which they came", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 5 })
      const served: Array<number> = []
      const fibers = yield* Effect.forEach([1, 2, 3, 4], (n) =>
        Effect.forkChild(bulkhead.execute(Effect.andThen(
          Effect.sync(() => served.push(n)),
          Effect.sleep("1 second")
        ))))
      yield* TestClock.adjust("4 seconds")
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(served, [1, 2, 3, 4])
      assert.strictEqual((yield* bulkhead.snapshot).highWaterMark, 1)
    }))

  it.effect("lets nobody overtake a waiter", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 5 })
      const order: Array<string> = []
      const note = (name: string) => bulkhead.execute(Effect.sync(() => order.push(name)))
      const gate = yield* Latch.make()
      // The newcomer asks in the very step in which the slot is given back.
      const first = yield* Effect.forkChild(Effect.andThen(bulkhead.execute(gate.await), note("newcomer")), {
        startImmediately: true
      })
      const waiter = yield* Effect.forkChild(note("waiter"), { startImmediately: true })
      yield* gate.open
      yield* Fiber.join(first)
      yield* Fiber.join(waiter)
      assert.deepStrictEqual(order, ["waiter", "newcomer"])
    }))

  it.effect("refuses whoever finds the queue full", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 2 })
      yield* Effect.forEach([1, 2, 3], () => occupy(bulkhead))
      assert.deepStrictEqual(yield* counts(bulkhead), [1, 2, 0])
      assert.isTrue(Exit.isFailure(yield* Effect.exit(bulkhead.execute(Effect.void))))
      assert.deepStrictEqual(yield* counts(bulkhead), [1, 2, 1])
    }))

  it.effect("refuses a waiter when maxWait is over, each at its own time", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 5, maxWait: "1 second" })
      const busy = yield* occupy(bulkhead)
      const first = yield* Effect.forkChild(Effect.flip(bulkhead.execute(Effect.void)))
      yield* TestClock.adjust("600 millis")
      const second = yield* Effect.forkChild(Effect.flip(bulkhead.execute(Effect.void)))
      yield* TestClock.adjust("400 millis")
      assert.strictEqual((yield* Fiber.join(first)).reason._tag, "BulkheadFull")
      assert.deepStrictEqual(yield* counts(bulkhead), [1, 1, 1])
      yield* TestClock.adjust("599 millis")
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(second)).reason._tag, "BulkheadFull")
      yield* Fiber.interrupt(busy)
      assert.deepStrictEqual(yield* counts(bulkhead), [0, 0, 2])
    }))

  it.effect("waits as long for the second in the queue when the first has gone", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 5, maxWait: "1 second" })
      const busy = yield* occupy(bulkhead)
      const first = yield* occupy(bulkhead)
      yield* TestClock.adjust("600 millis")
      const second = yield* occupy(bulkhead)
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(yield* counts(bulkhead), [1, 1, 0])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* counts(bulkhead), [1, 0, 1])
      yield* Fiber.await(second)
      yield* Fiber.interrupt(busy)
    }))

  it.effect("does not refuse a waiter that was served in time", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 5, maxWait: "1 second" })
      const busy = yield* occupy(bulkhead)
      const slow = yield* Effect.forkChild(bulkhead.execute(Effect.sleep("1 hour")), { startImmediately: true })
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(busy)
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(slow)
      assert.deepStrictEqual(yield* counts(bulkhead), [0, 0, 0])
    }))

  it.effect("forgets a waiter that is interrupted, wherever it stands", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 10, maxWait: "1 hour" })
      const fibers = yield* Effect.forEach([0, 1, 2, 3, 4], () => occupy(bulkhead))
      for (const [index, left] of [[2, 3], [4, 2], [1, 1], [3, 0]] as const) {
        yield* Fiber.interrupt(fibers[index]!)
        assert.deepStrictEqual(yield* counts(bulkhead), [1, left, 0])
      }
      yield* Fiber.interrupt(fibers[0]!)
      assert.deepStrictEqual(yield* counts(bulkhead), [0, 0, 0])
    }))

  it.effect("gives the slot back after success, failure, defect and interruption", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
      for (const work of [Effect.void, Effect.fail("no"), Effect.die("bug"), Effect.interrupt]) {
        yield* Effect.exit(bulkhead.execute(work))
        assert.deepStrictEqual(yield* counts(bulkhead), [0, 0, 0])
      }
    }))

  it.effect("keeps the slot of work that outlives its timeout until the work has ended", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      const finish = yield* Deferred.make<void>()
      const stubborn = Effect.uninterruptible(Deferred.await(finish))
      const call = yield* Effect.forkChild(Effect.flip(bulkhead.execute(timeout.execute(stubborn))))
      yield* TestClock.adjust("1 second")
      const error = yield* Fiber.join(call)
      assert.strictEqual(error.reason._tag, "TimedOut")
      assert.deepStrictEqual(yield* counts(bulkhead), [1, 0, 0])
      assert.isTrue(Exit.isFailure(yield* Effect.exit(bulkhead.execute(Effect.void))))
      yield* Deferred.succeed(finish, undefined)
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* counts(bulkhead), [0, 0, 1])
      yield* bulkhead.execute(Effect.void)
    }))

  it.effect("keeps the slots of all bulkheads around such work, even where it runs in a child fiber", () =>
    Effect.gen(function*() {
      const outer = yield* Bulkhead.make({ maxConcurrent: 1 })
      const inner = yield* Bulkhead.make({ maxConcurrent: 2 })
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      const finish = yield* Deferred.make<void>()
      const stubborn = Effect.exit(timeout.execute(Effect.uninterruptible(Deferred.await(finish))))
      const both = Effect.all([inner.execute(stubborn), inner.execute(stubborn)], { concurrency: 2 })
      const call = yield* Effect.forkChild(outer.execute(both))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(call)
      assert.deepStrictEqual(yield* counts(outer), [1, 0, 0])
      assert.deepStrictEqual(yield* counts(inner), [2, 0, 0])
      yield* Deferred.succeed(finish, undefined)
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* counts(outer), [0, 0, 0])
      assert.deepStrictEqual(yield* counts(inner), [0, 0, 0])
    }))

  it.effect("gives a slot back once, even to work that was detached from it long ago", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1 })
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      const finish = yield* Deferred.make<void>()
      const background = timeout.execute(Effect.uninterruptible(Deferred.await(finish)))
      yield* bulkhead.execute(Effect.forkDetach(Effect.andThen(Effect.sleep("1 minute"), Effect.exit(background))))
      yield* TestClock.adjust("2 minutes")
      const busy = yield* occupy(bulkhead)
      yield* Deferred.succeed(finish, undefined)
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* counts(bulkhead), [1, 0, 0])
      yield* Fiber.interrupt(busy)
    }))

  it.effect("serves 20,000 waiters whose work is done at once, without deep recursion", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 10, maxQueue: 20_000 })
      let done = 0
      const gate = yield* Latch.make()
      const holders = yield* Effect.forEach(Array.from({ length: 10 }), () =>
        Effect.forkChild(bulkhead.execute(gate.await), { startImmediately: true }))
      const work = bulkhead.execute(Effect.sync(() =>
        done += 1
      ))
      const waiting = yield* Effect.forEach(Array.from({ length: 20_000 }), () =>
        Effect.forkChild(work, { startImmediately: true }))
      assert.deepStrictEqual(yield* counts(bulkhead), [10, 20_000, 0])
      yield* gate.open
      yield* Effect.forEach(holders, Fiber.join)
      yield* Effect.forEach(waiting, Fiber.join)
      assert.strictEqual(done, 20_000)
      assert.deepStrictEqual(yield* bulkhead.snapshot, { active: 0, queued: 0, rejected: 0, highWaterMark: 10 })
    }))

  it.effect("has one timer for all waiters, and none when the queue is empty", () =>
    Effect.gen(function*() {
      let timers = 0
      const clock: Clock.Clock = {
        ...ManualClock.make(),
        sleep: () =>
          Effect.callback<void>(() => {
            timers += 1
            return Effect.sync(() => {
              timers -= 1
            })
          })
      }
      yield* Effect.gen(function*() {
        const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 10_000, maxWait: "1 hour" })
        const busy = yield* occupy(bulkhead)
        const waiting = yield* Effect.forEach(Array.from({ length: 10_000 }), () => occupy(bulkhead))
        assert.strictEqual(timers, 1)
        yield* Effect.forEach(waiting, (fiber) => Fiber.interrupt(fiber))
        assert.strictEqual(timers, 0)
        yield* Fiber.interrupt(busy)
      }).pipe(Effect.provideService(Clock.Clock, clock))
    }))

  it.effect("measures maxWait by the monotonic clock", () =>
    Effect.gen(function*() {
      const clock = ManualClock.make()
      // Nothing but the timer of the queue sleeps here; it is let go when the test says so.
      let fire = () => {}
      const sleeping: Clock.Clock = {
        ...clock,
        sleep: () =>
          Effect.callback<void>((resume) => {
            fire = () => resume(Effect.void)
          })
      }
      yield* Effect.gen(function*() {
        const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 1, maxWait: "10 seconds" })
        const busy = yield* occupy(bulkhead)
        const waiter = yield* occupy(bulkhead)
        for (const step of [3_600_000, -3_600_000, 30 * 86_400_000, -30 * 86_400_000]) {
          clock.stepWall(step)
          fire()
          assert.deepStrictEqual(yield* counts(bulkhead), [1, 1, 0])
        }
        clock.advance(10_000)
        fire()
        assert.deepStrictEqual(yield* counts(bulkhead), [1, 0, 1])
        assert.isTrue(Exit.isFailure(yield* Fiber.await(waiter)))
        yield* Fiber.interrupt(busy)
      }).pipe(Effect.provideService(Clock.Clock, sleeping))
    }))

  it("throws on nonsense when it is made", () => {
    const nonsense: ReadonlyArray<readonly [Bulkhead.Options, RegExp]> = [
      ...[0, -1, NaN, Infinity, 1.5].map((n) =>
        [{ maxConcurrent: n }, /Bulkhead.make: maxConcurrent must be an integer >= 1, got/] as const
      ),
      ...[-1, NaN, Infinity, 1.5].map((n) => [{ maxQueue: n }, /maxQueue must be an integer >= 0, got/] as const),
      ...[-1, NaN].map((n) => [{ maxQueue: 1, maxWait: n }, /maxWait must be a duration >= 0, got/] as const),
      [{ maxWait: "1 second" }, /maxWait and maxQueue must both be 0 or both be more/],
      [{ maxQueue: 1, maxWait: 0 }, /maxWait and maxQueue must both be 0 or both be more/],
      [{ retryAfter: 0 }, /retryAfter must be a duration > 0/],
      [{ concurrent: 1 } as {}, /unknown option "concurrent"/]
    ]
    for (const [options, message] of nonsense) assert.throws(() => Bulkhead.make(options), message)
  })

  it.effect("is provided by its layer, with options from the configuration where wanted", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.Bulkhead
      yield* Effect.forEach([1, 2, 3], () => occupy(bulkhead))
      assert.deepStrictEqual(yield* counts(bulkhead), [3, 0, 0])
      assert.isTrue(Exit.isFailure(yield* Effect.exit(bulkhead.execute(Effect.void))))
    }).pipe(
      Effect.provide(Bulkhead.layerConfig({ maxConcurrent: Config.Int("CONCURRENT") })),
      Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ CONCURRENT: 3 })))
    ))
})
