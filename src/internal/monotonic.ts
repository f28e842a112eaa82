import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"

/** The clock of fibers that are given no other: the host's. */
export const hostClock: Clock.Clock = Context.get(Context.empty(), Clock.Clock)

/** Milliseconds of a monotonic clock, with a fraction. Only differences mean anything. */
export const monotonicMillisOf = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000

/** Milliseconds of the fiber's monotonic clock, with a fraction. Only differences mean anything. */
export const monotonicMillis = (fiber: Fiber.Fiber<unknown, unknown>): number =>
  monotonicMillisOf(fiber.getRef(Clock.Clock))
