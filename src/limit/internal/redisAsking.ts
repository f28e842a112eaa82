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

/** A command on its way. `lost` hears that there will be no answer to it. */
export interface Sent {
  readonly reply: Effect.Effect<unknown, Redis.RedisError>
  readonly lost: () => void
}

/**
 * How one command is sent, and what follows on its answer, which is `undefined` when there is none in time or the command
 * was not even sent. `late` hears of an answer for which nobody waits any more. `nowMillis` is the monotonic clock.
 */
export interface Question<A, E> {
  readonly send: (nowMillis: number) => Sent
  readonly read: (reply: unknown) => Reply
  readonly late: (reply: ReadonlyArray<number>) => Effect.Effect<void>
  readonly next: (reply: Reply, nowMillis: number) => Effect.Effect<A, E>
}

export type Ask = <A, E>(question: Question<A, E>) => Effect.Effect<A, E>

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

  // A command that has been sent cannot be taken back, so it runs by itself and is awaited for so long. The counters must
  // hear how that ended, hence no interruption in between.
  return <A, E>({ late, next, read, send }: Question<A, E>) =>
    Effect.uninterruptible(Effect.withFiber((fiber): Effect.Effect<A, E> => {
      const now = monotonicMillis(fiber)
      const isDown = failures >= maxFailures
      if (pending >= maxPending || (isDown && (asking || now < askAgainAt))) return next(undefined, now)
      pending += 1
      asking = isDown
      return Effect.callback<A, E>((resume) => {
        const run = Effect.runForkWith(fiber.context)
        const entry: Waiting = {
          deadline: now + commandTimeout,
          isSettled: false,
          settle: (reply, at) => {
            if (entry.isSettled) return
            entry.isSettled = true
            asking = false
            const now = monotonicMillis(at)
            failures = reply === undefined ? failures + 1 : 0
            if (reply === undefined) askAgainAt = now + retryAfterMillis
            resume(Effect.suspend(() => next(reply, now)))
          }
        }
        while (waiting.length > 0 && waiting[0]!.isSettled) waiting.shift()
        waiting.push(entry)
        const sent = send(now)
        run(sent.reply).addObserver((exit) => {
          pending -= 1
          const reply = exit._tag === "Success" ? read(exit.value) : undefined
          if (reply === undefined) sent.lost()
          if (!entry.isSettled) entry.settle(reply, fiber)
          else if (reply !== undefined) run(late(reply))
        })
        if (!isWatched) {
          isWatched = true
          run(watch)
        }
      })
    }))
}
