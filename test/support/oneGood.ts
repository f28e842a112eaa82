import { assert } from "@effect/vitest"
import { Effect } from "effect"

/**
 * Takes a measurement up to three times and requires one that is good. A busy machine spoils one now and then; what is
 * too slow by itself spoils every one. Only what a machine can delay belongs in `isGood`: what must always be true is
 * asserted by the measurement.
 */
export const oneGood = <A, E, R>(
  measurement: Effect.Effect<A, E, R>,
  isGood: (figures: A) => boolean
): Effect.Effect<void, E, R> =>
  Effect.gen(function*() {
    const bad: Array<A> = []
    while (bad.length < 3) {
      const figures = yield* measurement
      if (isGood(figures)) return
      bad.push(figures)
    }
    assert.fail(`none of three measurements is good: ${JSON.stringify(bad)}`)
  })
