import { assert, describe, it } from "@effect/vitest"
import {
  delayMillis,
  type DelaySettings,
  type Jitter,
  type Strategy
} from "../../src/resilience/internal/retryDelay.ts"

const strategies: ReadonlyArray<Strategy> = ["exponential", "linear", "constant"]
const jitters: ReadonlyArray<Jitter> = ["none", "full", "equal", "decorrelated"]

const settings = (given: Partial<DelaySettings>): DelaySettings => ({
  initialDelay: 100,
  maxDelay: 30_000,
  multiplier: 2,
  strategy: "exponential",
  jitter: "none",
  ...given
})

const almostOne = 1 - Number.EPSILON / 2

describe("RetryDelay", () => {
  it("grows as its strategy says, up to maxDelay", () => {
    const of = (given: Partial<DelaySettings>) =>
      [1, 2, 3, 4, 20].map((retry) => delayMillis(settings(given), retry, 0, 0))
    assert.deepStrictEqual(of({}), [100, 200, 400, 800, 30_000])
    assert.deepStrictEqual(of({ multiplier: 3 }), [100, 300, 900, 2700, 30_000])
    assert.deepStrictEqual(of({ strategy: "linear" }), [100, 200, 300, 400, 2000])
    assert.deepStrictEqual(of({ strategy: "constant" }), [100, 100, 100, 100, 100])
    assert.deepStrictEqual(of({ maxDelay: 150 }), [100, 150, 150, 150, 150])
  })

  it("is spread as its jitter says", () => {
    const range = (jitter: Jitter) => [0, almostOne].map((random) => delayMillis(settings({ jitter }), 3, 1000, random))
    assert.deepStrictEqual(range("none"), [400, 400])
    const [fullHigh, fullLow] = range("full")
    assert.strictEqual(fullHigh, 400)
    assert.isBelow(fullLow!, 0.001)
    const [equalHigh, equalLow] = range("equal")
    assert.strictEqual(equalHigh, 400)
    assert.closeTo(equalLow!, 200, 0.001)
    const [low, high] = range("decorrelated")
    assert.strictEqual(low, 100)
    assert.closeTo(high!, 3000, 0.001)
  })

  it("is finite, more than 0 and at most maxDelay for any attempt, strategy, jitter, size and chance", () => {
    const retries = [
      1,
      2,
      3,
      30,
      37,
      38,
      39,
      63,
      64,
      65,
      1022,
      1023,
      1024,
      1025,
      1e6,
      2 ** 31,
      2 ** 53,
      Number.MAX_VALUE
    ]
    const sizes = [1e-6, 0.5, 3, 100, 30_000, 2 ** 31, 1e15, Number.MAX_VALUE]
    const chances = [0, Number.MIN_VALUE, 0.25, 0.5, 0.999, almostOne]
    let checked = 0
    for (const strategy of strategies) {
      for (const jitter of jitters) {
        for (const multiplier of [1, 1.5, 2, 1e10, Number.MAX_VALUE]) {
          for (const initialDelay of sizes) {
            for (const maxDelay of sizes) {
              const given = settings({ strategy, jitter, multiplier, initialDelay, maxDelay })
              for (const retry of retries) {
                for (const random of chances) {
                  for (const previous of jitter === "decorrelated" ? [initialDelay, maxDelay] : [0]) {
                    const delay = delayMillis(given, retry, previous, random)
                    checked += 1
                    if (!(Number.isFinite(delay) && delay > 0 && delay <= maxDelay)) {
                      assert.fail(
                        `${delay} for retry ${retry}, previous ${previous}, chance ${random} of ${
                          JSON.stringify(given)
                        }`
                      )
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
    assert.isAbove(checked, 400_000)
  })
})
