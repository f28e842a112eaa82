import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Stream } from "effect"
import { Bulkhead, CircuitBreaker, Executor, ResilienceObserver, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

// Faults of toolops 0.1.7's circuit breaker and bulkhead, each as the behaviour that replaces it.

const trip = (breaker: CircuitBreaker.CircuitBreaker["Service"]) => Effect.exit(breaker.execute(Effect.fail("down")))

const halfOpen = Effect.gen(function*() {
  const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds", probeLease: "1 hour" })
  yield* trip(breaker)
  yield* TestClock.adjust("10 seconds")
  return breaker
})

describe("faults of toolops in breaker and bulkhead", () => {
  it.effect("a probe that dies does not wedge the circuit", () =>
    Effect.gen(function*() {
      const breaker = yield* halfOpen
      for (let i = 0; i < 3; i++) {
        const exit = yield* Effect.exit(breaker.execute(Effect.die("bug")))
        assert.isTrue(Exit.hasDies(exit))
        assert.strictEqual(yield* breaker.state, "open")
        yield* TestClock.adjust("10 seconds")
      }
      yield* breaker.execute(Effect.void)
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("whoever hears of a transition may look at the circuit, and change it", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1 })
      const seen: Array<string> = []
      const listener = yield* breaker.transitions.pipe(
        Stream.take(2),
        Stream.runForEach(({ to }) =>
          Effect.gen(function*() {
            seen.push(`${to}, is ${yield* breaker.state}`)
            if (to === "open") yield* breaker.reset
          })
        ),
        Effect.forkChild({ startImmediately: true })
      )
      yield* trip(breaker)
      yield* Fiber.join(listener)
      assert.deepStrictEqual(seen, ["open, is open", "closed, is closed"])
    }))

  it.effect("nor does it matter when it hears of it in the middle of the change, and all hear of both in their order", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      let breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
      const onTransition = ({ from, to }: CircuitBreaker.Transition) => {
        seen.push(`${from} to ${to}, is ${Effect.runSync(breaker!.state)}`)
        if (to === "open") Effect.runSync(breaker!.reset)
        seen.push(`told of ${to}`)
      }
      breaker = yield* CircuitBreaker.make({ maxFailures: 1 }).pipe(
        Effect.provideService(ResilienceObserver.CurrentResilienceObserver, { onTransition })
      )
      const later: Array<string> = []
      const listener = yield* breaker.transitions.pipe(
        Stream.take(2),
        Stream.runForEach(({ from, to }) => Effect.sync(() => later.push(`${from} to ${to}`))),
        Effect.forkChild({ startImmediately: true })
      )
      yield* trip(breaker)
      yield* Fiber.join(listener)
      assert.deepStrictEqual(seen, [
        "closed to open, is open",
        "told of open",
        "open to closed, is closed",
        "told of closed"
      ])
      assert.deepStrictEqual(later, ["closed to open", "open to closed"])
      assert.deepInclude(yield* breaker.snapshot, { status: "closed", openings: 0 })
    }))

  it.effect("one slot and a timeout never run two operations at once", () =>
    Effect.gen(function*() {
      const executor = yield* Executor.make({ bulkhead: { maxConcurrent: 1 }, timeout: { timeout: "1 second" } })
      const release = yield* Deferred.make<void>()
      let running = 0
      let most = 0
      const stubborn = Effect.uninterruptible(Effect.gen(function*() {
        running += 1
        most = Math.max(most, running)
        yield* Deferred.await(release)
        running -= 1
      }))
      for (let i = 0; i < 3; i++) {
        const call = yield* Effect.forkChild(Effect.exit(executor.execute(stubborn)))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Exit.isFailure(yield* Fiber.join(call)))
      }
      assert.strictEqual(most, 1)
      yield* Deferred.succeed(release, undefined)
    }))

  it.effect("a success from before the opening does not close the circuit", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1, resetTimeout: "10 seconds" })
      const old = yield* Deferred.make<void>()
      const call = yield* Effect.forkChild(breaker.execute(Deferred.await(old)), { startImmediately: true })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      const probe = yield* Effect.forkChild(breaker.execute(Effect.never), { startImmediately: true })
      yield* Deferred.succeed(old, undefined)
      yield* Fiber.join(call)
      assert.strictEqual(yield* breaker.state, "half-open")
      yield* Fiber.interrupt(probe)
    }))

  it.effect("callers that go away do not open the circuit", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1 })
      for (let i = 0; i < 10; i++) {
        const call = yield* Effect.forkChild(breaker.execute(Effect.never), { startImmediately: true })
        yield* Fiber.interrupt(call)
      }
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("a caller that goes away while its timeout runs does not open the circuit either", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ maxFailures: 1 })
      const timeout = yield* Timeout.make({ timeout: "1 second" })
      const call = yield* Effect.forkChild(breaker.execute(timeout.execute(Effect.never)), { startImmediately: true })
      yield* Fiber.interrupt(call)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* breaker.state, "closed")
    }))

  it.effect("the first success of several that are asked for does not close the circuit", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({
        maxFailures: 1,
        resetTimeout: "10 seconds",
        halfOpenMaxRequests: 3,
        halfOpenSuccesses: 3
      })
      yield* trip(breaker)
      yield* TestClock.adjust("10 seconds")
      for (const status of ["half-open", "half-open", "closed"]) {
        yield* breaker.execute(Effect.void)
        assert.strictEqual(yield* breaker.state, status)
      }
    }))

  it.effect("looking at an open circuit does not half-open it", () =>
    Effect.gen(function*() {
      const breaker = yield* halfOpen
      const listener = yield* Effect.forkChild(Stream.runHead(breaker.transitions), { startImmediately: true })
      assert.strictEqual(yield* breaker.state, "open")
      assert.strictEqual((yield* breaker.snapshot).status, "open")
      assert.strictEqual(yield* breaker.state, "open")
      yield* Effect.yieldNow
      assert.isUndefined(listener.pollUnsafe())
      yield* Fiber.interrupt(listener)
    }))

  it.effect("waiting for a slot is first come, first served, and bounded", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ maxConcurrent: 1, maxQueue: 3 })
      const order: Array<number> = []
      const gate = yield* Deferred.make<void>()
      yield* Effect.forkChild(bulkhead.execute(Deferred.await(gate)), { startImmediately: true })
      const fibers = yield* Effect.forEach([1, 2, 3, 4], (n) =>
        Effect.forkChild(
          Effect.exit(bulkhead.execute(Effect.sync(() => order.push(n)))),
          { startImmediately: true }
        ))
      yield* Deferred.succeed(gate, undefined)
      const exits = yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
      assert.deepStrictEqual(order, [1, 2, 3])
      assert.isTrue(Exit.isFailure(exits[3]!))
    }))
})
