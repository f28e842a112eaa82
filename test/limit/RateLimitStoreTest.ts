import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { RateLimitStore } from "effect-toolops/limit"
import { shape, takeOf } from "./bucketShape.ts"

/**
 * What every store promises. `wait` lets time go by on the store's clock; `slack` is how many milliseconds may pass
 * unasked between two steps of a test.
 */
export interface Backend {
  readonly name: string
  readonly layer: Layer.Layer<RateLimitStore.RateLimitStore, unknown>
  readonly wait: (millis: number) => Effect.Effect<void>
  readonly slack: number
}

const hour = 3_600_000

let counter = 0
/** A key that no other test uses, nor an earlier run of this one. */
export const uniqueKey = (): string => `${process.pid}-${performance.now()}-${counter++}`

export const suite = (backend: Backend): void => {
  const effect = <E>(
    name: string,
    body: (store: RateLimitStore.RateLimitStore["Service"]) => Effect.Effect<void, E>
  ): void =>
    it.effect(
      name,
      () => Effect.provide(Effect.flatMap(RateLimitStore.RateLimitStore, body), backend.layer) as Effect.Effect<void>
    )

  const near = (actual: number, expected: number): void => {
    assert.isAtMost(actual, expected)
    assert.isAtLeast(actual, expected - backend.slack)
  }

  describe(`RateLimitStore on ${backend.name}`, () => {
    effect("grants a full bucket, then what comes back", (store) =>
      Effect.gen(function*() {
        const bucket = shape("a", 3, 600)
        const key = uniqueKey()
        const take = () => store.consume([takeOf(bucket, key, 1)], 0)
        assert.deepStrictEqual([yield* take(), yield* take(), yield* take()], [0, 0, 0])
        assert.strictEqual(yield* take(), RateLimitStore.refused)
        yield* backend.wait(205)
        assert.strictEqual(yield* take(), 0)
        assert.strictEqual(yield* take(), RateLimitStore.refused)
      }))

    effect(
      "tells how much is left, when the bucket is full again, and when the take would be granted",
      (store) =>
        Effect.gen(function*() {
          const bucket = shape("a", 4, 4 * hour)
          const key = uniqueKey()
          const first = takeOf(bucket, key, 3)
          yield* store.consume([first], 0)
          assert.deepStrictEqual([first.allowed, first.remaining, first.retryAfterMillis], [true, 1, 0])
          near(first.resetAfterMillis, 3 * hour)
          const second = takeOf(bucket, key, 4)
          assert.strictEqual(yield* store.consume([second], 0), RateLimitStore.refused)
          assert.deepStrictEqual([second.allowed, second.remaining], [false, 1])
          near(second.retryAfterMillis, 3 * hour)
          near(second.resetAfterMillis, 3 * hour)
        })
    )

    effect("refuses for good what costs more than a full bucket", (store) =>
      Effect.gen(function*() {
        const take = takeOf(shape("a", 4, hour), uniqueKey(), 5)
        assert.strictEqual(yield* store.consume([take], 0), RateLimitStore.refused)
        assert.strictEqual(take.retryAfterMillis, Infinity)
      }))

    effect("grants a take that costs nothing even from an empty bucket", (store) =>
      Effect.gen(function*() {
        const bucket = shape("a", 1, hour)
        const key = uniqueKey()
        yield* store.consume([takeOf(bucket, key, 1)], 0)
        assert.strictEqual(yield* store.consume([takeOf(bucket, key, 0)], 0), 0)
      }))

    effect("spends nothing of any bucket when one refuses, whichever it is", (store) =>
      Effect.gen(function*() {
        for (const position of [0, 1, 2]) {
          const keys = [uniqueKey(), uniqueKey(), uniqueKey()]
          const takes = (cost: number) =>
            keys.map((key, i) => takeOf(shape(`l${i}`, 5, hour), key, i === position ? cost : 1))
          assert.strictEqual(yield* store.consume(takes(5), 0), 0)
          const refused = takes(1)
          assert.strictEqual(yield* store.consume(refused, 0), RateLimitStore.refused)
          assert.deepStrictEqual(refused.map((take) => take.allowed), [0, 1, 2].map((i) => i !== position))
          assert.deepStrictEqual(refused.map((take) => take.remaining), [0, 1, 2].map((i) => i === position ? 0 : 4))
        }
      }))

    effect("decides every one of many concurrent calls in one step", (store) =>
      Effect.gen(function*() {
        const callers = Array.from({ length: 10 }, uniqueKey)
        const all = uniqueKey()
        const results = yield* Effect.forEach(
          Array.from({ length: 1000 }, (_, i) => i),
          (i) => {
            const caller = callers[i % callers.length]!
            return store.consume([
              takeOf(shape("caller", 20, hour), caller, 1),
              takeOf(shape("all", 137, hour), all, 1)
            ], 0)
          },
          { concurrency: "unbounded" }
        )
        assert.strictEqual(results.filter((wait) => wait === 0).length, 137)
        const left = callers.map((caller) => takeOf(shape("caller", 20, hour), caller, 0))
        yield* store.peek(left, 0)
        assert.strictEqual(left.reduce((sum, take) => sum + 20 - take.remaining, 0), 137)
      }))

    effect("finds without spending", (store) =>
      Effect.gen(function*() {
        const bucket = shape("a", 2, hour)
        const key = uniqueKey()
        for (let i = 0; i < 5; i++) {
          const take = takeOf(bucket, key, 1)
          assert.strictEqual(yield* store.peek([take], 0), 0)
          assert.strictEqual(take.remaining, 2)
        }
        yield* store.consume([takeOf(bucket, key, 2)], 0)
        assert.strictEqual(yield* store.peek([takeOf(bucket, key, 1)], 0), RateLimitStore.refused)
      }))

    effect("counts a bucket in shadow mode and lets the call pass", (store) =>
      Effect.gen(function*() {
        const keys = [uniqueKey(), uniqueKey()] as const
        const call = () => {
          const takes = [
            takeOf(shape("s", 1, hour, { shadow: true }), keys[0], 1),
            takeOf(shape("e", 2, hour), keys[1], 1)
          ]
          return Effect.map(store.consume(takes, 0), (wait) => [wait, ...takes.map((take) => take.allowed)])
        }
        assert.deepStrictEqual(yield* call(), [0, true, true])
        assert.deepStrictEqual(yield* call(), [0, false, true])
        assert.deepStrictEqual(yield* call(), [RateLimitStore.refused, false, false])
      }))

    effect("hands out tokens that come back in time, one after the other", (store) =>
      Effect.gen(function*() {
        const bucket = shape("a", 4, 4 * hour, { burst: 1 })
        const key = uniqueKey()
        const take = () => store.consume([takeOf(bucket, key, 1)], 2 * hour)
        assert.strictEqual(yield* take(), 0)
        near(yield* take(), hour)
        near(yield* take(), 2 * hour)
        assert.strictEqual(yield* take(), RateLimitStore.refused)
      }))

    effect("waits for the slowest of the buckets", (store) =>
      Effect.gen(function*() {
        const keys = [uniqueKey(), uniqueKey()] as const
        const takes = () => [
          takeOf(shape("a", 1, hour), keys[0], 1),
          takeOf(shape("b", 1, 3 * hour), keys[1], 1)
        ]
        yield* store.consume(takes(), 0)
        assert.strictEqual(yield* store.consume(takes(), 2 * hour), RateLimitStore.refused)
        near(yield* store.consume(takes(), 4 * hour), 3 * hour)
      }))

    effect("gives back what was spent, once, whatever else was spent of the bucket", (store) =>
      Effect.gen(function*() {
        for (const others of [0, 2]) {
          const bucket = shape("a", 6, hour)
          const key = uniqueKey()
          yield* store.consume([takeOf(bucket, key, others)], 0)
          const take = takeOf(bucket, key, 2)
          yield* store.consume([take], 0)
          for (let i = 0; i < 3; i++) yield* store.refund([take])
          yield* store.consume([takeOf(bucket, key, 1)], 0)
          yield* store.refund([take])
          const left = takeOf(bucket, key, 1)
          yield* store.peek([left], 0)
          assert.strictEqual(left.remaining, 5 - others)
        }
      }))

    effect("does not give back what was never spent", (store) =>
      Effect.gen(function*() {
        const bucket = shape("a", 2, hour)
        const key = uniqueKey()
        yield* store.consume([takeOf(bucket, key, 2)], 0)
        const refused = takeOf(bucket, key, 2)
        yield* store.consume([refused], 0)
        yield* store.refund([refused])
        assert.strictEqual(yield* store.peek([takeOf(bucket, key, 1)], 0), RateLimitStore.refused)
      }))

    effect("does not give back what time has given back", (store) =>
      Effect.gen(function*() {
        const bucket = shape("a", 2, 400)
        const key = uniqueKey()
        const early = takeOf(bucket, key, 2)
        yield* store.consume([early], 0)
        yield* backend.wait(410)
        assert.strictEqual(yield* store.consume([takeOf(bucket, key, 2)], 0), 0)
        yield* store.refund([early])
        assert.strictEqual(yield* store.peek([takeOf(bucket, key, 1)], 0), RateLimitStore.refused)
      }))

    // What a bucket of 10 tokens, one each 400 ms, grants at most within the time that a busy machine takes.
    const slow = shape("slow", 10, 4000)

    for (
      const [what, refunds, pause] of [
        ["when the bucket has been full in between", 5, 2010],
        ["when it has nearly been full in between", 5, 1790]
      ] as const
    ) {
      effect(`never exceeds the limit by a late refund ${what}`, (store) =>
        Effect.gen(function*() {
          const key = uniqueKey()
          const first: Array<RateLimitStore.Take> = []
          for (let i = 0; i < 10; i++) {
            const take = takeOf(slow, key, 1)
            assert.strictEqual(yield* store.consume([take], 0), 0)
            first.push(take)
          }
          const start = performance.now()
          yield* store.refund(first.slice(0, refunds))
          yield* backend.wait(pause)
          let passed = 0
          const again = Effect.gen(function*() {
            while ((yield* store.consume([takeOf(slow, key, 1)], 0)) !== RateLimitStore.refused) passed += 1
          })
          yield* again
          for (const take of first.slice(refunds)) yield* store.refund([take])
          yield* again
          const unasked = Math.max(0, performance.now() - start - pause)
          assert.isAtMost(passed, 10 + Math.ceil(unasked / 400))
          assert.isAtLeast(passed, 9)
        }))
    }

    for (const [order, indexes] of [["first", [0, 1, 2, 3, 4]], ["last", [4, 3, 2, 1, 0]]] as const) {
      effect(`gives everything back when the ${order} comes first`, (store) =>
        Effect.gen(function*() {
          const bucket = shape("a", 5, hour)
          const key = uniqueKey()
          const takes = indexes.map(() => takeOf(bucket, key, 1))
          for (const take of takes) yield* store.consume([take], 0)
          for (const i of indexes) yield* store.refund([takes[i]!])
          const left = takeOf(bucket, key, 0)
          yield* store.peek([left], 0)
          assert.strictEqual(left.remaining, 5)
        }))
    }

    for (
      const [what, after] of [
        ["raised", shape("a", 100, 10 * hour, { burst: 1000 })],
        ["lowered", shape("a", 1, 20 * hour)],
        ["given another window", shape("a", 10, 1000 * hour)]
      ] as const
    ) {
      effect(
        `keeps who is throttled throttled when the limit is ${what}, and leaves others as full as they were`,
        (store) =>
          Effect.gen(function*() {
            const before = shape("a", 10, 10 * hour)
            const [throttled, half, fresh] = [uniqueKey(), uniqueKey(), uniqueKey()] as const
            yield* store.consume([takeOf(before, throttled, 10)], 0)
            yield* store.consume([takeOf(before, half, 5)], 0)
            const refused = takeOf(after, throttled, 1)
            assert.strictEqual(yield* store.consume([refused], 0), RateLimitStore.refused)
            near(refused.retryAfterMillis, after.intervalMillis)
            const halved = takeOf(after, half, 0)
            const full = takeOf(after, fresh, 0)
            yield* store.peek([halved, full], 0)
            assert.strictEqual(halved.remaining, Math.floor(after.burst / 2))
            assert.strictEqual(full.remaining, after.burst)
          })
      )
    }

    for (
      const [what, before, after] of [
        ["shorter", shape("a", 100, hour), shape("a", 10, 100 * hour)],
        ["longer", shape("a", 10, 100 * hour), shape("a", 100, hour)]
      ] as const
    ) {
      effect(
        `gives nothing back for tokens that took a ${what} time to come back than they do now`,
        (store) =>
          Effect.gen(function*() {
            const key = uniqueKey()
            const take = takeOf(before, key, before.burst / 2)
            yield* store.consume([take], 0)
            yield* store.consume([takeOf(after, key, after.burst / 2)], 0)
            yield* store.refund([take])
            const left = takeOf(after, key, after.burst / 2)
            assert.strictEqual(yield* store.peek([left], 0), RateLimitStore.refused)
            near(left.retryAfterMillis, after.spanMillis / 2)
          })
      )
    }
  })
}
