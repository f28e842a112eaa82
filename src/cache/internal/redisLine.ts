import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Redis, RedisError } from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import { monotonicMillis } from "../../internal/monotonic.ts"
import { textOf } from "./redisReplies.ts"

/**
 * - `is`: `own` when the reply was to the question, `foreign` when it was to another command, `refused` when Redis has
 *   no such question, which it takes to be well.
 * - `millis`: how long one command took.
 */
export interface Answer {
  readonly is: "own" | "foreign" | "refused"
  readonly millis: number
}

// Ending the connection may be no help, and others may use it too. The first pause is short: what has put replies out
// of step may do so once more.
const firstPauseMillis = 500
const lastPauseMillis = 5000

/**
 * Finds out whether replies belong to the commands that were sent, with a text that Redis has to repeat. Replies come in
 * the order of the commands, so after noise on the line, or with one reply too many, every command is given what belongs to
 * another one. Then the text comes back where it does not belong, and Redis is made to end the connection; the client
 * begins a new one.
 */
export class RedisLine {
  /** Questions that were asked and have not ended. */
  questions = 0
  readonly #redis: Redis["Service"]
  readonly #scope: Scope.Scope
  readonly #mark = `toolops:${globalThis.crypto.randomUUID()}:`
  #asked = 0
  #mayLeaveFrom = -Infinity
  #pauseMillis = firstPauseMillis

  constructor(redis: Redis["Service"], scope: Scope.Scope) {
    this.#redis = redis
    this.#scope = scope
  }

  /** Asks with `ECHO`, and with `PING` where that is refused. Fails when there is no answer. */
  get ask(): Effect.Effect<Answer, RedisError> {
    return Effect.suspend(() => {
      const text = this.#mark + String(++this.#asked)
      this.questions++
      const asked = Effect.flatMap(
        this.#put("ECHO", text),
        (answer) => answer.is === "refused" ? this.#put("PING", text) : Effect.succeed(answer)
      )
      return Effect.ensuring(asked, Effect.sync(() => this.questions--))
    })
  }

  /** Hears a reply that nobody waits for any more. */
  hear(reply: unknown, fiber: Fiber.Fiber<unknown, unknown>): void {
    if (textOf(reply)?.startsWith(this.#mark) === true) this.#leave(fiber)
  }

  #put(command: "ECHO" | "PING", text: string): Effect.Effect<Answer, RedisError> {
    return Effect.withFiber((fiber) => {
      const asked = monotonicMillis(fiber)
      const answer = (is: Answer["is"]): Answer => ({ is, millis: monotonicMillis(fiber) - asked })
      return Effect.matchEffect(this.#redis.send<unknown>(command, text), {
        onFailure: (error) => isRefusal(error) ? Effect.succeed(answer("refused")) : Effect.fail(error),
        onSuccess: (reply) => {
          const found = textOf(reply)
          // A proxy may answer PING itself, without looking at the text.
          if (found === text || (command === "PING" && found === "PONG")) {
            this.#pauseMillis = firstPauseMillis
            return Effect.succeed(answer("own"))
          }
          this.#leave(fiber)
          return Effect.succeed(answer("foreign"))
        }
      })
    })
  }

  /** Has Redis end the connection. What is on its way fails, and the client connects again. */
  #leave(fiber: Fiber.Fiber<unknown, unknown>): void {
    const now = monotonicMillis(fiber)
    if (now < this.#mayLeaveFrom) return
    this.#mayLeaveFrom = now + this.#pauseMillis
    this.#pauseMillis = Math.min(this.#pauseMillis * 2, lastPauseMillis)
    // It may never be replied to.
    const left = Effect.timeoutOption(Effect.ignoreCause(this.#redis.send("QUIT")), lastPauseMillis)
    Effect.runForkWith(fiber.context)(Effect.forkIn(left, this.#scope, { startImmediately: true }))
  }
}

/** An answer of Redis that says no to this command and nothing of its health. */
export const isRefusal = (error: RedisError | undefined): boolean => {
  const cause = error?.cause
  return cause instanceof Error && /^(?:ERR|OOM|WRONGTYPE|NOSCRIPT|NOPERM|READONLY|MISCONF)\b/.test(cause.message)
}
