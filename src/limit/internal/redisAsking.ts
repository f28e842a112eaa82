import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Redis from "effect/persistence/Redis"
import { monotonicMillis } from "../../internal/monotonic.ts"

// How a Redis is asked that may be away: nobody waits for it longer than `commandTimeout`, no more than `maxPending`
// commands are on their way, and after a few failures it is left alone for `retryAfterMillis` and then asked once.

export interface Settings {
  readonly commandTimeout: number
  readonly retryAfterMillis: number
  readonly maxPending: number
}

const maxFailures = 3

/** What Redis answered, or that it did not. */
export type Reply = ReadonlyArray<number> | undefined

/** A command for whose answer a call waits. */
interface Waiting {
  readonly deadline: number
  isSettled: boolean
  readonly settle: (reply: Reply, at: Fiber.Fiber<unknown, unknown>) => void
}

/** How one command is sent. The answer is `undefined` when there is none in time, or the command was not even sent. */
export type Ask = (
  command: () => Effect.Effect<unknown, Redis.RedisError>,
  read: (reply: unknown) => Reply,
  late: (reply: ReadonlyArray<number>) => Effect.Effect<void>,
  lost: () => void
) => Effect.Effect<Reply>

export const make = ({ commandTimeout, maxPending, retryAfterMillis }: Settings): Ask => {
  let pending = 0
  let failures = 0
  let askAgainAt = 0
  let asking = false

  // Commands on their way, oldest first. All have the same time, so one watcher for the oldest does for all.
  const waiting: Array<Waiting> = []
  let isWatched = false

  const watch: Effect.Effect<void> = Effect.withFiber((fiber) => {
    const now = monotonicMillis(fiber)
    for (;;) {
      const oldest = waiting[0]
      if (oldest === undefined) break
      if (!oldest.isSettled && oldest.deadline > now) {
        return Effect.flatMap(Effect.sleep(Math.ceil(oldest.deadline - now)), () => watch)
      }
      // Taken out first: whoever hears that the answer is late may ask again at once.
      waiting.shift()
      oldest.settle(undefined, fiber)
    }
    isWatched = false
    return Effect.void
  })

  // `late` hears of an answer for which nobody waits any more, `lost` that there will be none.
  //
  // A command that has been sent cannot be taken back, so it runs by itself and is awaited for so long. The counters must
  // hear how that ended, hence no interruption in between.
  return (command, read, late, lost) =>
    Effect.uninterruptible(Effect.withFiber((fiber) => {
      const now = monotonicMillis(fiber)
      const isDown = failures >= maxFailures
      if (pending >= maxPending || (isDown && (asking || now < askAgainAt))) return Effect.succeed(undefined)
      pending += 1
      asking = isDown
      return Effect.callback<Reply>((resume) => {
        const run = Effect.runForkWith(fiber.context)
        const entry: Waiting = {
          deadline: now + commandTimeout,
          isSettled: false,
          settle: (reply, at) => {
            if (entry.isSettled) return
            entry.isSettled = true
            asking = false
            failures = reply === undefined ? failures + 1 : 0
            if (reply === undefined) askAgainAt = monotonicMillis(at) + retryAfterMillis
            resume(Effect.succeed(reply))
          }
        }
        while (waiting.length > 0 && waiting[0]!.isSettled) waiting.shift()
        waiting.push(entry)
        run(Effect.flatMap(Effect.exit(command()), (exit) => {
          pending -= 1
          const reply = exit._tag === "Success" ? read(exit.value) : undefined
          if (reply === undefined) lost()
          if (entry.isSettled) return reply === undefined ? Effect.void : late(reply)
          entry.settle(reply, fiber)
          return Effect.void
        }))
        if (!isWatched) {
          isWatched = true
          run(watch)
        }
      })
    }))
}
