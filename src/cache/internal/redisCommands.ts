import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { Redis, RedisError } from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import { monotonicMillis } from "../../internal/monotonic.ts"
import { refusal } from "../../internal/refusal.ts"
import * as CacheError from "../CacheError.ts"
import { isRefusal, RedisLine } from "./redisLine.ts"

export interface CommandOptions {
  readonly commandMillis: number
  readonly maxPending: number
  readonly retryMillis: number
}

export type Send = <A>(command: Effect.Effect<A, RedisError>) => Effect.Effect<A, CacheError.CacheError>

/** A command that was sent and has neither ended nor run out of time, whether or not somebody still waits for it. */
interface Pending {
  readonly deadline: number
  /** Ends the waiting: with how the command ended, or for want of time. */
  readonly end: (exit: Exit.Exit<unknown, RedisError> | undefined) => void
}

/**
 * Questions on their way to a Redis that is down, which a client that is not connected keeps until it is. When there are
 * as many, only one in as many turns is asked.
 */
const manyQuestions = 64

/**
 * Commands with an end to each and a bound on all, and none at all while Redis is down: `down` is called when it goes, and
 * `back` is run when it answers again. It says with `isDown` when others may ask too.
 */
export class RedisCommands {
  isDown = false
  errors = 0
  readonly #line: RedisLine
  readonly #options: CommandOptions
  readonly #scope: Scope.Scope
  readonly #on: { readonly down: () => void; readonly back: () => Effect.Effect<void, CacheError.CacheError> }
  readonly #pending = new Set<Pending>()
  #isWatching = false
  #isSuspected = false

  constructor(
    redis: Redis["Service"],
    options: CommandOptions,
    scope: Scope.Scope,
    on: { readonly down: () => void; readonly back: () => Effect.Effect<void, CacheError.CacheError> }
  ) {
    this.#line = new RedisLine(redis, scope)
    this.#options = options
    this.#scope = scope
    this.#on = on
  }

  /** Ends what is on its way, and sends nothing any more: nobody would notice that it takes too long. */
  get close(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.isDown = true
      for (const pending of this.#pending) pending.end(undefined)
    })
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
      // No news to anybody, and made for each of a call's commands.
      return Effect.fail(
        refusal(CacheError.CacheError, {
          _tag: "CacheError",
          reason: refusal(CacheError.StoreUnavailable, { _tag: "StoreUnavailable", store: "redis" })
        })
      )
    })

  // A command runs in a fiber of its own that is started on the spot and resumes its caller directly. `Effect.timeout`
  // would start two fibers, each on a turn of the event loop, which takes longer than Redis does. Nobody can take a
  // command back once it is sent, so its fiber goes on when nobody waits for it any more, and hears the reply.
  readonly timed: Send = (command) =>
    Effect.withFiber((fiber) => {
      const awaited = Effect.callback<Exit.Exit<any, RedisError> | undefined>((resume) => {
        const running = Effect.runForkWith(fiber.context)(command)
        const pending: Pending = {
          deadline: monotonicMillis(fiber) + this.#options.commandMillis,
          end: (exit) => {
            if (this.#pending.delete(pending)) resume(Effect.succeed(exit))
            else if (exit?._tag === "Success") this.#line.hear(exit.value, fiber)
          }
        }
        this.#pending.add(pending)
        running.addObserver(pending.end)
        if (!this.#isWatching) this.#watch(fiber)
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
        // Also when nobody waited any more: what is on its way is bounded only as long as it ends.
        return Effect.flatMap(this.goDown, () => watch)
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

  /** Fails for a reply that makes no sense. */
  get senseless(): Effect.Effect<never, CacheError.CacheError> {
    return Effect.andThen(
      this.suspect,
      Effect.suspend(() => {
        this.errors++
        return Effect.fail(this.unavailable(undefined))
      })
    )
  }

  /** Finds out whether a reply that makes no sense was another command's. One question at a time. */
  get suspect(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#isSuspected || this.isDown) return Effect.void
      this.#isSuspected = true
      const asked = Effect.flatMap(Effect.exit(this.#line.ask), (answer) => {
        this.#isSuspected = false
        return answer._tag === "Success" && answer.value.is !== "foreign" ? Effect.void : this.goDown
      })
      return Effect.asVoid(Effect.forkIn(asked, this.#scope))
    })
  }

  /** Stops sending, and asks until Redis answers again, in time and with what it was asked. */
  get goDown(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.isDown) return Effect.void
      this.isDown = true
      this.#on.down()
      return Effect.asVoid(Effect.forkIn(this.#untilBack, this.#scope))
    })
  }

  get #untilBack(): Effect.Effect<void> {
    const { commandMillis, retryMillis } = this.#options
    // A Redis that is slow would only be given up again.
    const question = Effect.map(this.#line.ask, ({ is, millis }) => is !== "foreign" && millis <= commandMillis)
    return Effect.gen({ self: this }, function*() {
      let isWell = false
      for (let turn = 0; !isWell; turn++) {
        yield* Effect.sleep(retryMillis)
        if (this.#line.questions >= manyQuestions && turn % manyQuestions !== 0) continue
        // Not one after the other: the reply to the first may never come, although Redis answers again.
        const answer = yield* Effect.forkIn(question, this.#scope, { startImmediately: true })
        const exit = yield* Effect.timeoutOption(Fiber.await(answer), retryMillis)
        if (exit._tag === "None" || exit.value._tag === "Failure" || !exit.value.value) continue
        isWell = (yield* Effect.exit(this.#on.back()))._tag === "Success"
      }
    })
  }
}
