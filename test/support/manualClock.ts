import { Clock, Duration, Effect } from "effect"

/** A clock that only moves when told to, synchronously: `TestClock.adjust` yields, which millions of steps cannot pay. */
export interface ManualClock extends Clock.Clock {
  /** Moves both times on. Fibers that sleep are not woken: for code that reads the time and does not wait for it. */
  readonly advance: (millis: number) => void
  /** Sets the wall clock back or forth, as an administrator or NTP may. The monotonic time goes on undisturbed. */
  readonly stepWall: (millis: number) => void
}

export const make = (): ManualClock => {
  let monotonic = 0n
  let wall = 1_700_000_000_000
  return {
    advance: (millis) => {
      monotonic += BigInt(Math.round(millis * 1_000_000))
      wall += millis
    },
    stepWall: (millis) => {
      wall += millis
    },
    currentTimeMillisUnsafe: () => wall,
    currentTimeNanosUnsafe: () => BigInt(Math.round(wall)) * 1_000_000n,
    monotonicTimeNanosUnsafe: () => monotonic,
    currentTimeMillis: Effect.sync(() => wall),
    currentTimeNanos: Effect.sync(() => BigInt(Math.round(wall)) * 1_000_000n),
    monotonicTimeNanos: Effect.sync(() => monotonic),
    sleep: (duration) => Effect.die(`nothing here sleeps, asked for ${Duration.toMillis(duration)} ms`)
  }
}
