import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Redacted from "effect/Redacted"
import { boundedRun } from "../../internal/boundedRun.ts"
import { monotonicMillis, monotonicMillisOf } from "../../internal/monotonic.ts"
import { ReferenceRefused, SecretError, SecretNotFound, SecretUnavailable } from "../SecretError.ts"
import type { Provider } from "../SecretProvider.ts"
import { notFound, refused, unavailable } from "./outcome.ts"

/** One secret, wherever it comes from. */
export interface Secret {
  readonly provider: Provider
  readonly ref: string
}

interface Entry {
  readonly value: Redacted.Redacted
  readonly fetchedAt: number
}

/** How long providers are waited for at the end: a program has a second to end by itself, and one to be gone when killed. */
const stopMillis = 3000

type Answer = Deferred.Deferred<Redacted.Redacted, SecretError>

/** Asks providers: one question at a time per secret, answers kept for a while, failures not at all. */
export class Lookups {
  readonly options: { readonly ttlMillis: number; readonly maxEntries: number; readonly timeoutMillis: number }
  readonly #entries = new Map<string, Entry>()
  readonly #pending = new Map<string, Answer>()
  readonly #stops = new Set<() => void>()
  #isStopped = false
  #stopped: Deferred.Deferred<void> | undefined = undefined

  constructor(options: Lookups["options"]) {
    this.options = options
  }

  /** The value of a secret, no older than `maxAge` milliseconds and than it may be anyway. */
  get(secret: Secret, maxAge = Infinity): Effect.Effect<Redacted.Redacted, SecretError> {
    return Effect.withFiber((fiber) => {
      const key = keyOf(secret.provider.name, secret.ref)
      const entry = this.#entries.get(key)
      const age = Math.min(maxAge, this.ttl(secret.provider))
      if (entry !== undefined && monotonicMillis(fiber) < entry.fetchedAt + age) return Effect.succeed(entry.value)
      return this.ask(fiber, key, secret)
    })
  }

  ttl({ ttl }: Provider): number {
    return ttl === undefined ? this.options.ttlMillis : Math.min(this.options.ttlMillis, Duration.toMillis(ttl))
  }

  // In one step with the look at what is kept: a fiber may yield between two, and another ask the same.
  ask(
    asking: Fiber.Fiber<unknown, unknown>,
    key: string,
    secret: Secret
  ): Effect.Effect<Redacted.Redacted, SecretError> {
    const pending = this.#pending.get(key)
    if (pending !== undefined) return Deferred.await(pending)
    // What is begun now, such as by one who tries again, nobody would end.
    if (this.#isStopped) return Effect.fail(unavailable(secret.provider.name, secret.ref, "failed"))
    const answer: Answer = Deferred.makeUnsafe()
    const clock = asking.getRef(Clock.Clock)
    this.#pending.set(key, answer)
    // In a fiber that is not the asking one: who asked first may go away, the others still wait. An answer that comes
    // after its time is dropped, as those who asked have been told that there is none.
    let hasEnded = false
    let running: (() => void) | undefined
    const get = Effect.suspend(() => secret.provider.get(secret.ref))
    running = boundedRun(asking.context, get, this.options.timeoutMillis, {
      settle: (exit, isLate) => {
        // Not when it was to be forgotten meanwhile: it may be what was there before.
        const isCurrent = this.#pending.get(key) === answer
        if (isCurrent) this.#pending.delete(key)
        if (exit?._tag === "Success") {
          if (isCurrent) this.keep(key, secret.provider, exit.value, monotonicMillisOf(clock))
          Deferred.doneUnsafe(answer, Effect.succeed(exit.value))
        } else {
          const error = exit === undefined
            ? unavailable(secret.provider.name, secret.ref, isLate ? "timeout" : "failed")
            : sanitized(secret, exit)
          Deferred.doneUnsafe(answer, Effect.fail(error))
        }
      },
      end: () => {
        hasEnded = true
        // Not there yet when the run ends before `boundedRun` has returned.
        if (running !== undefined) this.#stops.delete(running)
        if (this.#stops.size === 0 && this.#stopped !== undefined) Deferred.doneUnsafe(this.#stopped, Effect.void)
      }
    })
    if (!hasEnded) this.#stops.add(running)
    return Deferred.await(answer)
  }

  /**
   * Ends all questions. Providers are waited for, since they may have to end something first, such as a program that they
   * have started; but not for ever, since they may ignore it.
   */
  readonly stop: Effect.Effect<void> = Effect.contextWith((context: Context.Context<never>) => {
    this.#isStopped = true
    for (const stop of this.#stops) stop()
    if (this.#stops.size === 0) return Effect.void
    const stopped = this.#stopped ??= Deferred.makeUnsafe<void>()
    // In a finalizer nothing can be interrupted, so what is raced here runs in a fiber of its own.
    const waiting = Effect.runForkWith(context)(Effect.raceFirst(Deferred.await(stopped), Effect.sleep(stopMillis)))
    return Effect.asVoid(Fiber.await(waiting))
  })

  keep(key: string, provider: Provider, value: Redacted.Redacted, fetchedAt: number): void {
    const { maxEntries } = this.options
    if (this.ttl(provider) === 0) return
    this.#entries.delete(key)
    if (this.#entries.size >= maxEntries) {
      const oldest = this.#entries.keys().next()
      if (oldest.done !== true) this.#entries.delete(oldest.value)
    }
    this.#entries.set(key, { value, fetchedAt })
  }

  /** Forgets what is kept; who asks from now on does not get the answer to an earlier question either. */
  forget(provider: string, ref: string): void {
    const key = keyOf(provider, ref)
    this.#entries.delete(key)
    this.#pending.delete(key)
  }

  clear(): void {
    this.#entries.clear()
    this.#pending.clear()
  }
}

// A provider's name holds no colon, so no two secrets share a key.
const keyOf = (provider: string, ref: string): string => `${provider}:${ref}`

// Made anew from what is known here, so that nothing a provider says comes through.
const sanitized = ({ provider, ref }: Secret, exit: Exit.Failure<unknown, SecretError>): SecretError => {
  const failure = exit.cause.reasons.find(Cause.isFailReason)?.error
  const reason = failure instanceof SecretError ? failure.reason : undefined
  if (reason instanceof SecretNotFound) return notFound(provider.name, ref)
  if (reason instanceof ReferenceRefused) return refused(provider.name, ref)
  return unavailable(provider.name, ref, reason instanceof SecretUnavailable ? reason.problem : "failed")
}
