import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { monotonicMillis } from "./monotonic.ts"

/** Lateness of a timer that is nothing unusual. */
const usualLatenessMillis = 5

/**
 * Runs `effect` in a fiber of its own and says once what came of it: its exit, or undefined when it took longer than
 * `millis` or was stopped. The fiber is then interrupted and not waited for, as it may ignore that; `onEnd` is called when
 * it is really over. Returns what stops it.
 *
 * Time in which the event loop stood still is not held against the run: answers may have come meanwhile that nobody could
 * read. So a watch that wakes up late waits once more, for as long as it was late and at most `millis`.
 */
export const boundedRun = <A, E>(
  context: Context.Context<never>,
  effect: Effect.Effect<A, E>,
  millis: number,
  on: { readonly settle: (exit: Exit.Exit<A, E> | undefined, isLate: boolean) => void; readonly end: () => void }
): () => void => {
  let isSettled = false
  const settle = (exit: Exit.Exit<A, E> | undefined, isLate: boolean): void => {
    if (isSettled) return
    isSettled = true
    on.settle(exit, isLate)
  }
  const fork = Effect.runForkWith(context)
  const run = fork(effect)
  let stopWatch = (): void => {}
  run.addObserver((exit) => {
    stopWatch()
    settle(exit, false)
    on.end()
  })
  const giveUp = (isLate: boolean): void => {
    settle(undefined, isLate)
    run.interruptUnsafe()
  }
  if (!isSettled) {
    const watch = fork(Effect.withFiber((fiber) => {
      const due = monotonicMillis(fiber) + millis
      const more = Effect.suspend(() => {
        const late = monotonicMillis(fiber) - due
        return late > usualLatenessMillis ? Effect.sleep(Math.min(late, millis)) : Effect.void
      })
      return Effect.andThen(Effect.andThen(Effect.sleep(millis), more), Effect.sync(() => giveUp(true)))
    }))
    stopWatch = () => watch.interruptUnsafe()
  }
  return () => {
    stopWatch()
    giveUp(false)
  }
}
