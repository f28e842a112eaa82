import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { RateLimitStore } from "effect-toolops/limit"
import { TestClock } from "effect/testing"
import * as Random from "../support/random.ts"
import { shape, takeOf } from "./bucketShape.ts"
import { IdealBucket } from "./idealBucket.ts"
import { suite } from "./RateLimitStoreTest.ts"
import { used } from "./used.ts"

suite({
  name: "memory",
  layer: RateLimitStore.layerMemory(),
  wait: (millis) => TestClock.adjust(millis),
  slack: 0
})

const memory = (maxKeys: number) =>
  Effect.provide(
    Effect.map(RateLimitStore.RateLimitStore, (store) => {
      let now = 0
      const take = (bucket: RateLimitStore.BucketShape, key: string, cost = 1) => {
        const one = takeOf(bucket, key, cost)
        return { wait: store.consumeUnsafe?.([one], 0, now), take: one }
      }
      return {
        store,
        take,
        grants: (bucket: RateLimitStore.BucketShape, key: string) => take(bucket, key).wait === 0,
        pass: (millis: number) => {
          now += millis
        }
      }
    }),
    RateLimitStore.layerMemory({ maxKeys })
  )

describe("RateLimitStore.layerMemory", () => {
  for (const maxKeys of [0, -1, 0.5, Number.NaN, Infinity, 2 ** 53, 10_000_001]) {
    it(`throws at construction for maxKeys ${maxKeys}`, () => {
      assert.throws(
        () => RateLimitStore.layerMemory({ maxKeys }),
        /RateLimitStore.layerMemory: maxKeys must be an integer/
      )
    })
  }

  const hourly = shape("hourly", 2, 3_600_000)

  it.effect("never forgets a caller who is throttled, whatever comes in", () =>
    Effect.gen(function*() {
      const { grants } = yield* memory(100)
      const active = Array.from({ length: 50 }, (_, i) => `active${i}`)
      for (const key of active) assert.deepStrictEqual([grants(hourly, key), grants(hourly, key)], [true, true])
      for (let i = 0; i < 10_000; i++) grants(hourly, `invented${i}`)
      for (const key of active) assert.isFalse(grants(hourly, key), key)
    }))

  it.effect("lets callers who find no room share one bucket", () =>
    Effect.gen(function*() {
      const { grants } = yield* memory(10)
      let passed = 0
      for (let i = 0; i < 10_000; i++) passed += grants(hourly, `invented${i}`) ? 1 : 0
      assert.strictEqual(passed, 12)
    }))

  it.effect("gives who shared a bucket no full one when there is room again", () =>
    Effect.gen(function*() {
      const { grants, pass } = yield* memory(1)
      const short = shape("short", 1, 1000)
      assert.isTrue(grants(short, "first"))
      assert.isTrue(grants(hourly, "second"))
      assert.isTrue(grants(hourly, "second"))
      assert.isFalse(grants(hourly, "second"))
      pass(1001)
      assert.isFalse(grants(hourly, "second"))
      assert.isFalse(grants(hourly, "third"))
      pass(3_600_000)
      assert.deepStrictEqual([grants(hourly, "third"), grants(hourly, "third"), grants(hourly, "third")], [
        true,
        true,
        false
      ])
    }))

  it.effect("gives tokens of the shared bucket back to the shared bucket", () =>
    Effect.gen(function*() {
      const { grants, store, take } = yield* memory(1)
      grants(hourly, "first")
      const shared = take(hourly, "second", 2).take
      assert.isFalse(grants(hourly, "third"))
      yield* store.refund([shared])
      assert.isTrue(grants(hourly, "third"))
    }))

  for (const isAnonymous of [false, true]) {
    it.effect(`keeps ${isAnonymous ? "anonymous" : "known"} callers who share a bucket throttled when the limit changes`, () =>
      Effect.gen(function*() {
        const { grants, store } = yield* memory(1)
        grants(shape("other", 1, 3_600_000), "first")
        const share = (bucket: RateLimitStore.BucketShape, caller: string, cost: number) =>
          store.consumeUnsafe?.(
            [new RateLimitStore.Take(bucket, new RateLimitStore.BucketKey(caller, isAnonymous), cost)],
            0,
            0
          ) === 0
        assert.isTrue(share(hourly, "second", 2))
        assert.isFalse(share(shape("hourly", 2, 20 * 3_600_000), "third", 1))
      }))
  }

  it.effect("looks further for room when there is none", () =>
    Effect.gen(function*() {
      const { grants, pass } = yield* memory(70)
      const short = shape("short", 1, 1000)
      for (let i = 0; i < 10; i++) grants(short, `short${i}`)
      for (let i = 0; i < 60; i++) grants(hourly, `active${i}`)
      pass(1001)
      let passed = 0
      for (let i = 0; i < 8; i++) {
        for (let call = 0; call < 3; call++) passed += grants(hourly, `new${i}`) ? 1 : 0
      }
      assert.strictEqual(passed, 16, "each has a bucket of their own")
    }))

  it.effect("keeps limits apart when there is no room", () =>
    Effect.gen(function*() {
      const { grants } = yield* memory(1)
      grants(hourly, "a|first")
      assert.strictEqual([1, 2, 3].filter((i) => grants(hourly, `a|${i}`)).length, 2)
      const other = shape("other", 2, 3_600_000)
      assert.strictEqual([1, 2, 3].filter((i) => grants(other, `b|${i}`)).length, 2)
    }))

  it.effect("makes room by forgetting full buckets, a few at a time", () =>
    Effect.gen(function*() {
      const { grants, pass } = yield* memory(1000)
      const short = shape("short", 1, 1000)
      for (let round = 0; round < 20; round++) {
        let passed = 0
        for (let i = 0; i < 900; i++) passed += grants(short, `${round}-${i}`) ? 1 : 0
        assert.strictEqual(passed, 900, `round ${round}`)
        pass(1001)
      }
    }))

  it.effect("finds buckets wherever they have moved, by keys that are kept and by new ones", () =>
    Effect.gen(function*() {
      const store = yield* Effect.provide(RateLimitStore.RateLimitStore, RateLimitStore.layerMemory())
      const { next } = Random.make(7)
      const bucket = shape("moving", 5, 1000)
      const callers = Array.from({ length: 300 }, (_, i) => ({
        key: new RateLimitStore.BucketKey(`moving|${i}`),
        ideal: new IdealBucket(5, 1000, 5)
      }))
      let now = 0
      for (let i = 0; i < 50_000; i++) {
        now += Math.floor(next() * 4)
        const caller = callers[Math.floor(next() ** 4 * callers.length)]!
        const cost = 1 + Math.floor(next() * 3)
        const key = next() < 0.5 ? caller.key : new RateLimitStore.BucketKey(caller.key.text)
        const passed = store.consumeUnsafe?.([new RateLimitStore.Take(bucket, key, cost)], 0, now) === 0
        assert.strictEqual(passed, caller.ideal.take(now, cost), `call ${i} of ${key.text}`)
      }
    }))

  it.effect("keeps count of what a bucket has been given back when the bucket moves", () =>
    Effect.gen(function*() {
      const store = yield* RateLimitStore.RateLimitStore
      const ten = shape("ten", 10, 10_000)
      const one = () => {
        const take = takeOf(ten, "ten|a", 1)
        return Effect.map(store.consume([take], 0), (wait) => wait === 0 ? [take] : [])
      }
      yield* store.consume([takeOf(shape("short", 1, 1000), "short|a", 1)], 0)
      const first = (yield* Effect.forEach(Array.from({ length: 10 }), one)).flat()
      yield* store.refund(first.slice(0, 5))
      yield* TestClock.adjust(4500)
      let passed = 0
      for (let i = 0; i < 20; i++) passed += (yield* one()).length
      yield* store.refund(first.slice(5))
      for (let i = 0; i < 20; i++) passed += (yield* one()).length
      assert.strictEqual(passed, 10)
    }).pipe(Effect.provide(RateLimitStore.layerMemory())))

  it.effect("never has a bucket fuller than it would be without what was refunded", () =>
    Effect.gen(function*() {
      const store = yield* RateLimitStore.RateLimitStore
      const { next } = Random.make(11)
      const bucket = shape("refunding", 8, 800)
      let now = 0
      let lost = 0
      for (let round = 0; round < 200; round++) {
        const key = `refunding|${round % 3}`
        let held: Array<{ readonly at: number; readonly take: RateLimitStore.Take }> = []
        const kept = new Set<(typeof held)[number]>()
        const debt = () =>
          Math.max(0, [...kept].reduce((full, { at, take }) => Math.max(full, at) + take.cost * 100, 0) - now)
        for (let i = 0; i < 50; i++) {
          const step = Math.floor(next() ** 3 * 400)
          now += step
          yield* TestClock.adjust(step)
          const take = takeOf(bucket, key, 1 + Math.floor(next() * 3))
          if ((yield* store.consume([take], 0)) === 0) {
            const one = { at: now, take }
            held.push(one)
            kept.add(one)
          }
          if (next() < 0.5) continue
          const gone = held.filter(() => next() < 0.4)
          held = held.filter((one) => !gone.includes(one))
          if (next() < 0.5) gone.reverse()
          for (const one of gone) {
            kept.delete(one)
            yield* store.refund([one.take])
          }
          const seen = takeOf(bucket, key, 0)
          yield* store.peek([seen], 0)
          assert.isAtLeast(seen.resetAfterMillis, debt() - 0.001, `round ${round}, step ${i}`)
          lost += seen.resetAfterMillis - debt()
        }
        // Some rounds begin with a bucket that is full and has not been forgotten, others with a new one.
        now += 1000
        yield* TestClock.adjust(1000)
      }
      assert.isBelow(lost / 200 / 50, 100, "half a token at a time is lost on the average, with refunds in any order")
    }).pipe(Effect.provide(RateLimitStore.layerMemory())))

  it.effect("is bounded under a million callers, keeps who is active, and lets the rest go", () =>
    Effect.gen(function*() {
      const maxKeys = 50_000
      const { grants, pass } = yield* memory(maxKeys)
      const active = Array.from({ length: 100 }, (_, i) => `hourly|active${i}`)
      const start = used()
      for (const key of active) assert.deepStrictEqual([grants(hourly, key), grants(hourly, key)], [true, true])
      const minute = shape("minute", 10, 60_000)
      let peak = 0
      for (let i = 0; i < 1_000_000; i++) {
        grants(minute, `minute|i4:acmeinvented${i}`)
        // 6 seconds a token: every caller is in use when the next thousands come.
        if (i % 1000 === 0) pass(10)
        if (i % 200_000 === 199_999) peak = Math.max(peak, used() - start)
      }
      assert.isBelow(peak, maxKeys * 250, `${(peak / maxKeys).toFixed(0)} bytes per key`)
      for (const key of active) assert.isFalse(grants(hourly, key), key)
      pass(60_000)
      for (let i = 0; i < 2 * maxKeys; i++) grants(minute, "minute|i4:acmeone")
      const rest = used() - start
      assert.isBelow(rest, peak / 3, `${peak} bytes at most, ${rest} when everyone is gone`)
      for (const key of active) assert.isFalse(grants(hourly, key), key)
    }))

  it.effect("takes no more than 100 bytes for a caller beside the key", () =>
    Effect.gen(function*() {
      const n = 200_000
      const keys = Array.from({ length: n }, (_, i) => `hourly|i4:acmecaller${i}`)
      // Flat strings whose hash is known, so that their own size does not count.
      const set = new Set(keys)
      const { grants } = yield* memory(n)
      const start = used()
      for (const key of set) grants(hourly, key)
      assert.isBelow((used() - start) / n, 100)
      assert.strictEqual(set.size, n)
    }))
})
