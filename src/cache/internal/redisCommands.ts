import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Redis, RedisError } from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import { monotonicMillis } from "../../internal/monotonic.ts"
import * as CacheError from "../CacheError.ts"

export interface CommandOptions {
  readonly commandMillis: number
  readonly maxPending: number
  readonly retryMillis: number
}

export type Send = <A>(command: Effect.Effect<A, RedisError>) => Effect.Effect<A, CacheError.CacheError>

/** A command that was sent. `undefined` ends it for want of time. */
interface Pending {
  readonly deadline: number
  readonly end: (exit: Exit.Exit<unknown, RedisError> | undefined) => void
}

/**
 * Commands with an end to each and a bound on all, and none at all while Redis is down: `down` is called when it goes, and
 * `back` is run when it answers again. It says with `isDown` when others may ask too.
 */
export class RedisCommands {
  isDown = false
  errors = 0
  readonly #redis: Redis["Service"]
  readonly #options: CommandOptions
  readonly #scope: Scope.Scope
  readonly #on: { readonly down: () => void; readonly back: () => Effect.Effect<void, CacheError.CacheError> }
  readonly #pending = new Set<Pending>()
  #isWatching = false

  constructor(
    redis: Redis["Service"],
    options: CommandOptions,
    scope: Scope.Scope,
    on: { readonly down: () => void; readonly back: () => Effect.Effect<void, CacheError.CacheError> }
  ) {
    this.#redis = redis
    this.#options = options
    this.#scope = scope
    this.#on = on
  }

  unavailable(cause: unknown): CacheError.CacheError {
    return new CacheError.CacheError({
      reason: new CacheError.StoreUnavailable({ store: "redis", ...(cause === undefined ? {} : { cause }) })
    })
  }

  /** Sends a command, unless Redis is down or too many are on their way. */
  readonly send: Send = (command) =>
    Effect.suspend(() => {
      if (!this.isDown && this.#pending.size < this.#options.maxPending) return this.timed(command)
      this.errors++
      return Effect.fail(this.unavailable(undefined))
    })

  // A command runs in a fiber of its own that is started on the spot and resumes its caller directly. `Effect.timeout`
  // would start two fibers, each on a turn of the event loop, which takes longer than Redis does.
  readonly timed: Send = (command) =>
    Effect.withFiber((fiber) => {
      const awaited = Effect.callback<Exit.Exit<any, RedisError> | undefined>((resume) => {
        const running = Effect.runForkWith(fiber.context)(command)
        const pending: Pending = {
          deadline: monotonicMillis(fiber) + this.#options.commandMillis,
          end: (exit) => {
            if (!this.#pending.delete(pending)) return
            if (exit === undefined) running.interruptUnsafe()
            resume(Effect.succeed(exit))
          }
        }
        this.#pending.add(pending)
        running.addObserver(pending.end)
        if (!this.#isWatching) this.#watch(fiber)
        return Effect.suspend(() => {
          this.#pending.delete(pending)
          running.interruptUnsafe()
          return Effect.void
        })
      })
      return Effect.flatMap(awaited, (exit) => {
        if (exit?._tag === "Success") return Effect.succeed(exit.value)
        const error = exit?.cause.reasons.find(Cause.isFailReason)
        return this.failed(error?.error)
      })
    })

  // All commands have the same time, so the first is the next to be late, and one sleeper is enough for all of them.
  #watch(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.#isWatching = true
    const watch: Effect.Effect<void> = Effect.suspend(() => {
      const now = monotonicMillis(fiber)
      for (const pending of this.#pending) {
        if (pending.deadline > now) {
          return Effect.flatMap(Effect.sleep(Math.ceil(pending.deadline - now)), () => watch)
        }
        pending.end(undefined)
      }
      this.#isWatching = false
      return Effect.void
    })
    Effect.runForkWith(fiber.context)(Effect.forkIn(watch, this.#scope))
  }

  failed(error: RedisError | undefined): Effect.Effect<never, CacheError.CacheError> {
    this.errors++
    const failed = Effect.fail(this.unavailable(error))
    return isRefusal(error) ? failed : Effect.andThen(this.goDown, failed)
  }

  // One question at a time, and no time limit on it: a client that is not connected keeps commands until it is, and
  // must not be given more and more of them.
  get goDown(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.isDown) return Effect.void
      this.isDown = true
      this.#on.down()
      const question = Effect.andThen(
        Effect.sleep(this.#options.retryMillis),
        Effect.withFiber((fiber) => {
          const asked = monotonicMillis(fiber)
          return Effect.flatMap(this.#redis.send("PING"), () =>
            // A Redis that is slow would only be given up again.
            monotonicMillis(fiber) - asked <= this.#options.commandMillis
              ? Effect.void
              : Effect.fail(this.unavailable(undefined)))
        })
      )
      const again: Effect.Effect<void> = Effect.matchEffect(Effect.flatMap(question, () => this.#on.back()), {
        onSuccess: () => Effect.void,
        onFailure: () => Effect.suspend(() => again)
      })
      return Effect.asVoid(Effect.forkIn(again, this.#scope))
    })
  }
}

/** An answer of Redis that says no to this command and nothing of its health. */
const isRefusal = (error: RedisError | undefined): boolean => {
  const cause = error?.cause
  return cause instanceof Error && /^(?:ERR|OOM|WRONGTYPE|NOSCRIPT|NOPERM|READONLY|MISCONF)\b/.test(cause.message)
}
