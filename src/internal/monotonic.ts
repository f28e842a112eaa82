import * as Clock from "effect/Clock"
import type * as Fiber from "effect/Fiber"

/** Milliseconds of the fiber's monotonic clock, with a fraction. Only differences mean anything. */
export const monotonicMillis = (fiber: Fiber.Fiber<unknown, unknown>): number =>
  Number(fiber.getRef(Clock.Clock).monotonicTimeNanosUnsafe()) / 1_000_000
