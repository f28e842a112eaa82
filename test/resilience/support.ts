import { Clock, Duration, Effect } from "effect"

/** A clock whose sleeps take no time. Its monotonic time stands still unless `advance` is called. */
export const makeInstantClock = () => {
  let millis = 0
  const slept: Array<number> = []
  const nanos = () => BigInt(Math.round(millis * 1_000_000))
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => millis,
    currentTimeMillis: Effect.sync(() => millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration) =>
      Effect.sync(() => {
        slept.push(Duration.toMillis(duration))
      })
  }
  return {
    clock,
    slept,
    advance: (by: number) => {
      millis += by
    }
  }
}

/** A clock on which short sleeps are over at once and long ones never are: back-offs end and timeouts do not. */
export const wakeful: Clock.Clock = {
  ...makeInstantClock().clock,
  sleep: (duration) => Duration.toMillis(duration) < 1000 ? Effect.yieldNow : Effect.never
}

/** The current clock, but for a wall that can be made to jump. */
export const makeJumpingClock = Effect.map(Clock.Clock, (base) => {
  let jump = 0
  const wallMillis = () => base.currentTimeMillisUnsafe() + jump
  const wallNanos = () => base.currentTimeNanosUnsafe() + BigInt(jump) * 1_000_000n
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: wallMillis,
    currentTimeMillis: Effect.sync(wallMillis),
    currentTimeNanosUnsafe: wallNanos,
    currentTimeNanos: Effect.sync(wallNanos),
    monotonicTimeNanosUnsafe: () => base.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: base.monotonicTimeNanos,
    sleep: (duration) => base.sleep(duration)
  }
  return {
    clock,
    jump: (millis: number) => {
      jump += millis
    }
  }
})

const hour = 3_600_000

/** Steps of the wall clock that must change nothing. */
export const wallSteps: ReadonlyArray<number> = [hour, -hour, 30 * 24 * hour, -30 * 24 * hour]

/** Work that is counted when it starts and when it ends, for finding out whether any was left behind. */
export const counted = <A, E>(work: Effect.Effect<A, E>) => {
  const count = { started: 0, ended: 0 }
  const effect = Effect.suspend(() => {
    let isStarted = false
    return Effect.onExitPrimitive(
      // Counted inside: a fiber may be interrupted between any two steps, also between this one and the next.
      Effect.suspend(() => {
        isStarted = true
        count.started += 1
        return work
      }),
      () => {
        if (isStarted) count.ended += 1
        return undefined
      }
    )
  })
  return { count, effect }
}
