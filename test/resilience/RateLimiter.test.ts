import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Config, ConfigProvider, Duration, Effect, Exit, Fiber, Scheduler, Schema } from "effect"
import { RateLimitError } from "effect-toolops/limit"
import { RateLimiter, Timeout } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { makeJumpingClock, wallSteps } from "./support.ts"

/** How long a refused caller is told to wait, in milliseconds. */
const retryAfter = (error: RateLimitError.RateLimitError): number =>
  error.reason._tag === "RateLimited" ? Duration.toMillis(error.reason.retryAfter) : -1

describe("RateLimiter", () => {
  it.effect("admits the burst, then the rate, and says when to come back", () =>
    Effect.gen(function*() {
      const limiter = yield* RateLimiter.make({ name: "search", rate: 2, burst: 3 })
      for (let i = 0; i < 3; i++) assert.strictEqual(yield* limiter.execute(Effect.succeed(i)), i)
      const refused = yield* Effect.flip(limiter.execute(Effect.die("must not run")))
      assert.deepStrictEqual(Schema.encodeSync(RateLimitError.RateLimitError)(refused), {
        _tag: "RateLimitError",
        reason: { _tag: "RateLimited", limit: "search", per: "global", retryAfter: 500 }
      })
      yield* TestClock.adjust("499 millis")
      assert.strictEqual(retryAfter(yield* Effect.flip(limiter.tokens(1))), 1)
      yield* TestClock.adjust("1 millis")
      yield* limiter.tokens(1)
      assert.strictEqual(retryAfter(yield* Effect.flip(limiter.tokens(2))), 1000)
      // A refusal takes nothing.
      assert.deepStrictEqual(yield* limiter.snapshot, { tokens: 0, queued: 0, refused: 3 })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* limiter.snapshot).tokens, 3)
    }))

  it.effect("dies of a count that is not a number above 0, or more than the burst, and takes nothing", () =>
    Effect.gen(function*() {
      for (const onExceeded of ["fail", "wait"] as const) {
        const limiter = yield* RateLimiter.make({ burst: 10, onExceeded })
        for (const count of [-1000, 0, NaN, Infinity, -Infinity, 10.5, 11, "1" as unknown as number]) {
          const exit = yield* Effect.exit(limiter.tokens(count))
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause), String(count))
        }
        const message = yield* Effect.catchDefect(limiter.tokens(-1000), (defect) => Effect.succeed(String(defect)))
        assert.strictEqual(message, "RangeError: RateLimiter.tokens: count must be a number > 0 and <= 10, got -1000")
        assert.strictEqual((yield* limiter.snapshot).tokens, 10)
        yield* limiter.tokens(0.5)
        yield* limiter.tokens(9.5)
      }
    }))

  describe("when callers wait", () => {
    it.effect("serves them in the order in which they came, at the rate", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.make({ rate: 10, burst: 1, onExceeded: "wait", maxWait: "10 seconds" })
        const served: Array<string> = []
        const call = (name: string, count: number) =>
          Effect.forkChild(Effect.andThen(
            limiter.tokens(count),
            Effect.flatMap(Clock.currentTimeMillis, (now) =>
              Effect.sync(() => {
                served.push(`${name} at ${now}`)
              }))
          ))
        const fibers = yield* Effect.all([call("a", 1), call("b", 1), call("c", 0.5), call("d", 1), call("e", 0.1)])
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.awaitAll(fibers)
        assert.deepStrictEqual(served, ["a at 0", "b at 100", "c at 150", "d at 250", "e at 260"])
      }))

    it.effect("lets nobody overtake, though there are tokens for the small", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.make({ rate: 1, burst: 10, onExceeded: "wait", maxWait: "1 hour" })
        yield* limiter.tokens(7)
        const large = yield* Effect.forkChild(limiter.tokens(10))
        yield* Effect.yieldNow
        const small = yield* Effect.forkChild(limiter.tokens(1))
        yield* TestClock.adjust("6 seconds")
        assert.isUndefined(small.pollUnsafe())
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(large)
        assert.isUndefined(small.pollUnsafe())
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(small)
      }))

    it.effect("forgets those it has served", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.make({ rate: 1, burst: 1, onExceeded: "wait", maxWait: "5 seconds" })
        for (let i = 0; i < 20; i++) {
          const fibers = yield* Effect.forEach([1, 1, 1], (count) => Effect.forkChild(limiter.tokens(count)))
          yield* TestClock.adjust("3 seconds")
          yield* Fiber.joinAll(fibers)
        }
        assert.deepInclude(yield* limiter.snapshot, { queued: 0, refused: 0 })
      }))

    it.effect("refuses at once, and takes nothing, when the wait cannot succeed", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.make({ rate: 1, burst: 5, onExceeded: "wait", maxWait: "3 seconds" })
        yield* limiter.tokens(5)
        // Toolops sleeps through the whole wait first.
        assert.strictEqual(retryAfter(yield* Effect.flip(limiter.tokens(4))), 4000)
        const waiting = yield* Effect.forkChild(limiter.tokens(3))
        yield* Effect.yieldNow
        assert.strictEqual(retryAfter(yield* Effect.flip(limiter.tokens(1))), 4000)
        assert.deepStrictEqual(yield* limiter.snapshot, { tokens: 0, queued: 1, refused: 2 })
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(waiting)
      }))

    it.effect("refuses at once when the caller's deadline comes first", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.make({ rate: 1, burst: 1, onExceeded: "wait", maxWait: "1 minute" })
        const timeout = yield* Timeout.make({ timeout: "2 seconds" })
        yield* limiter.tokens(1)
        const inTime = yield* Effect.forkChild(timeout.execute(limiter.tokens(1)))
        yield* Effect.yieldNow
        const error = yield* Effect.flip(timeout.execute(limiter.tokens(1)))
        assert.strictEqual(error._tag, "RateLimitError")
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(inTime)
      }))

    it.effect("gives the reservation of a caller that went away to those behind it", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.make({ rate: 1, burst: 10, onExceeded: "wait", maxWait: "1 hour" })
        yield* limiter.tokens(10)
        const first = yield* Effect.forkChild(limiter.tokens(10))
        const second = yield* Effect.forkChild(limiter.tokens(5))
        const third = yield* Effect.forkChild(limiter.tokens(1))
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.interrupt(second)
        yield* TestClock.adjust("8 seconds")
        yield* Fiber.join(first)
        assert.isUndefined(third.pollUnsafe())
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(third)
        const fourth = yield* Effect.forkChild(limiter.tokens(10))
        const fifth = yield* Effect.forkChild(limiter.tokens(2))
        yield* TestClock.adjust("3 seconds")
        assert.isUndefined(fifth.pollUnsafe())
        // Its tokens are there already.
        yield* Fiber.interrupt(fourth)
        yield* Fiber.join(fifth)
        assert.deepInclude(yield* limiter.snapshot, { tokens: 1, queued: 0 })
      }))

    it.effect("loses and gains nothing, wherever callers are interrupted", () =>
      Effect.gen(function*() {
        // Interrupted between two turns of the scheduler. Each number of operations lets the turns end at other steps.
        for (let ops = 3; ops <= 64; ops++) {
          const limiter = yield* RateLimiter.make({ rate: 1, burst: 2, onExceeded: "wait", maxWait: "1 hour" })
          for (let position = 0; position < 64; position++) {
            const free = position % 2 === 0
            const before = (yield* limiter.snapshot).tokens
            if (before === 2 && !free) yield* limiter.tokens(2)
            const had = (yield* limiter.snapshot).tokens
            let ran = 0
            const work = Effect.sync(() => {
              ran += 1
            })
            const fiber = yield* limiter.execute(work).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, ops),
              Effect.forkChild
            )
            for (let i = 0; i < position >> 1; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(fiber)
            const { queued, tokens } = yield* limiter.snapshot
            assert.strictEqual(queued, 0)
            if (tokens !== had - ran && !(ran === 0 && tokens === had - 1)) {
              assert.fail(`${had} tokens became ${tokens} at ${ops} operations, position ${position}, run ${ran} times`)
            }
            if (had < 1 && ran > 0) assert.fail("run without a token")
          }
          yield* TestClock.adjust("10 seconds")
          assert.deepInclude(yield* limiter.snapshot, { tokens: 2, queued: 0 })
        }
      }))

    it.live("serves a thousand waiting callers at the rate of the host's clock", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.make({ rate: 5000, burst: 1, onExceeded: "wait", maxWait: "10 seconds" })
        const before = performance.now()
        yield* Effect.forEach(Array.from({ length: 1000 }), () => limiter.tokens(1), {
          concurrency: "unbounded",
          discard: true
        })
        const elapsed = performance.now() - before
        // 200 ms by the rate. How much later is the machine's business.
        assert.isAtLeast(elapsed, 199)
      }))
  })

  it.effect("can say when to come back at the lowest rate, for as many tokens as there may be", () =>
    Effect.gen(function*() {
      const burst = Number.MAX_SAFE_INTEGER
      const limiter = yield* RateLimiter.make({ rate: 1e-9, burst })
      yield* limiter.tokens(burst)
      const error = yield* Effect.flip(limiter.tokens(burst))
      assert.isTrue(Number.isFinite(retryAfter(error)))
      const encoded = Schema.encodeSync(RateLimitError.RateLimitError)(error)
      assert.deepStrictEqual(JSON.parse(JSON.stringify(encoded)).reason.retryAfter, retryAfter(error))
    }))

  it.effect("is not moved by steps of the wall clock", () =>
    Effect.gen(function*() {
      const { clock, jump } = yield* makeJumpingClock
      for (const step of wallSteps) {
        const limiter = yield* RateLimiter.make({ rate: 1, burst: 1, onExceeded: "wait", maxWait: "10 seconds" })
        yield* Effect.gen(function*() {
          yield* limiter.tokens(1)
          const waiting = yield* Effect.forkChild(limiter.tokens(1))
          yield* TestClock.adjust("500 millis")
          jump(step)
          assert.closeTo((yield* limiter.snapshot).tokens, 0.5, 1e-9)
          yield* TestClock.adjust("499 millis")
          assert.isUndefined(waiting.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          yield* Fiber.join(waiting)
        }).pipe((effect) =>
          Effect.flatMap(Clock.Clock, (test) =>
            // `TestClock.adjust` needs the clock it knows, the limiter the one that jumps.
            Effect.provideService(
              effect,
              Clock.Clock,
              Object.assign(Object.create(test), clock, { adjust: (test as TestClock.TestClock).adjust }) as Clock.Clock
            ))
        )
      }
    }))

  describe("options", () => {
    it("refuse nonsense and say who, what and what came", () => {
      const message = (options: any) => {
        try {
          RateLimiter.make(options)
        } catch (error) {
          return (error as Error).message
        }
        return "nothing was thrown"
      }
      const rates = [[0, "0"], [-1, "-1"], [NaN, "NaN"], [Infinity, "Infinity"], ["5", "a string"]]
      for (const [value, came] of [...rates, [Number.MIN_VALUE, "5e-324"], [9e-10, "9e-10"]]) {
        assert.strictEqual(message({ rate: value }), `RateLimiter.make: rate must be a number >= 1e-9, got ${came}`)
      }
      for (const [value, came] of [[0, "0"], [-1, "-1"], [1.5, "1.5"], [NaN, "NaN"], [Infinity, "Infinity"]]) {
        assert.strictEqual(message({ burst: value }), `RateLimiter.make: burst must be an integer >= 1, got ${came}`)
      }
      assert.strictEqual(
        message({ onExceeded: "wait", maxWait: Infinity }),
        "RateLimiter.make: maxWait must be a duration > 0 and finite, got Infinity ms"
      )
      assert.strictEqual(
        message({ maxWait: "1 second" }),
        "RateLimiter.make: maxWait means nothing without onExceeded: \"wait\""
      )
      assert.strictEqual(
        message({ onExceeded: "delay" }),
        "RateLimiter.make: onExceeded must be one of fail, wait, got a string"
      )
      assert.include(message({ limit: 5 }), "RateLimiter.make: unknown option \"limit\"")
    })

    it.effect("come from the configuration with layerConfig", () =>
      Effect.gen(function*() {
        const limiter = yield* RateLimiter.RateLimiter
        assert.strictEqual((yield* limiter.snapshot).tokens, 4)
      }).pipe(
        Effect.provide(RateLimiter.layerConfig({ burst: Config.Int("BURST") })),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ BURST: "4" })))
      ))
  })
})
