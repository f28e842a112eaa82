/**
 * What is sent to a store that may not answer: so many commands at once, an end to each, and a pause when they fail.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { ResilienceError } from "../ResilienceError.ts"
import { BulkheadImpl } from "./bulkhead.ts"
import { CircuitBreakerImpl } from "./circuitBreaker.ts"
import * as CircuitOptions from "./circuitOptions.ts"
import { TimeoutImpl } from "./timeout.ts"

/** @internal How long a store that keeps failing is left alone. */
export const storePause = Duration.seconds(1)

/** @internal `timeout` is in milliseconds. `isAnswer` says of an error whether it speaks for the store. */
export interface Settings {
  readonly timeout: number
  readonly maxCommands: number
  readonly isAnswer: (error: unknown) => boolean
}

/** @internal */
export class StoreCommands {
  private readonly bulkhead: BulkheadImpl
  private readonly pause: CircuitBreakerImpl
  private readonly timeout: TimeoutImpl

  constructor({ isAnswer, maxCommands, timeout }: Settings, where: string) {
    const bulkhead = { name: where, maxConcurrent: maxCommands, maxQueue: 0, maxWait: 0, retryAfter: storePause }
    this.bulkhead = new BulkheadImpl(bulkhead, undefined)
    const pause = CircuitOptions.resolve({
      maxFailures: 3,
      resetTimeout: storePause,
      classify: (exit) =>
        exit._tag === "Failure" &&
          exit.cause.reasons.some((reason) => reason._tag !== "Fail" || !isAnswer(reason.error))
          ? "failure"
          : "success"
    }, where)
    this.pause = new CircuitBreakerImpl(pause, undefined)
    // No grace: nobody waits for a command that does not let itself be interrupted.
    this.timeout = new TimeoutImpl({ name: where, timeout, total: Infinity, grace: 0 }, undefined)
  }

  /** Sends one of very many commands. */
  send<A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return this.bulkhead.execute(this.sendAlways(command))
  }

  /** Sends what few have to send, however many other commands are under way. */
  sendAlways<A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return this.pause.execute(this.timeout.execute(command))
  }
}
