/**
 * The time that is left for what runs now.
 *
 * Set by every `Timeout` for its work and inherited by all that the work calls: a tool that is called from inside another
 * tool sees the nearer of the two deadlines. Nobody has to look at it to be stopped in time; look at it to not begin what
 * cannot be finished, or to tell a remote party how long an answer is of use.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { monotonicMillis } from "../internal/monotonic.ts"
import { deadlineOf } from "./internal/frame.ts"
import { CurrentSlot } from "./internal/slot.ts"

/**
 * How much time is left, by the monotonic clock. `Duration.infinity` when there is no deadline, zero when it has passed.
 *
 * **Example** (Passing the deadline on)
 *
 * ```ts
 * import { Duration, Effect } from "effect"
 * import { Deadline, Timeout } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const timeout = yield* Timeout.make({ timeout: "1 minute" })
 *   return yield* timeout.execute(Effect.map(Deadline.remaining, Duration.isLessThanOrEqualTo(Duration.minutes(1))))
 * })
 *
 * await Effect.runPromise(program) // => true
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const remaining: Effect.Effect<Duration.Duration> = Effect.withFiber((fiber) => {
  const deadline = deadlineOf(fiber.getRef(CurrentSlot))
  return Effect.succeed(
    deadline === Infinity ? Duration.infinity : Duration.millis(Math.max(0, deadline - monotonicMillis(fiber)))
  )
})
