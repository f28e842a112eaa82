import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Redis, RedisError } from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { monotonicMillis } from "../../internal/monotonic.ts"
import * as CacheError from "../CacheError.ts"
import { isCacheKey } from "../CacheKey.ts"
import type { Change, Entry, Flight, NewEntry, Store, StoreStats } from "../CacheStore.ts"
import * as Scripts from "./redisScripts.ts"

export interface RedisOptions {
  readonly prefix: string
  readonly commandMillis: number
  readonly maxPending: number
  readonly retryMillis: number
  readonly leaseMillis: number
}

/** Labels that wait for Redis to come back. Beyond it, everything is invalidated then. */
const maxOwed = 10_000

// How long a follower waits between two looks: short at first, since most answers come soon.
const firstPollMillis = 10
const lastPollMillis = 100

/** A command that was sent. `undefined` ends it for want of time. */
interface Pending {
  readonly deadline: number
  readonly end: (exit: Exit.Exit<unknown, RedisError> | undefined) => void
}

type Send = <A>(command: Effect.Effect<A, RedisError>) => Effect.Effect<A, CacheError.CacheError>

export class RedisStore implements Store {
  readonly name = "redis"
  readonly #redis: Redis["Service"]
  readonly #options: RedisOptions
  readonly #scope: Scope.Scope
  readonly #id = globalThis.crypto.randomUUID()
  readonly #leases = new Map<string, string>()
  readonly #owed = new Set<string>()
  #owesAll = false
  #isDown = false
  readonly #pending = new Set<Pending>()
  #isWatching = false
  #errors = 0
  #tokens = 0
  // What to add to the server's milliseconds to have this process's monotonic ones.
  #offset: number | undefined = undefined

  constructor(redis: Redis["Service"], options: RedisOptions, scope: Scope.Scope) {
    this.#redis = redis
    this.#options = options
    this.#scope = scope
  }

  /** Begins what goes on in the background: leases are renewed, and the server's time is learnt. */
  get start(): Effect.Effect<void> {
    const { leaseMillis } = this.#options
    const renewal = Effect.suspend(() => {
      const leases = Array.from(this.#leases)
      if (leases.length === 0 || this.#isDown) return Effect.void
      return Effect.ignore(this.#send(this.#redis.eval(Scripts.renew)(leaseMillis, leases)))
    })
    return Effect.andThen(
      Effect.ignore(this.#learnTime),
      Effect.asVoid(
        Effect.forkIn(Effect.forever(Effect.andThen(Effect.sleep(leaseMillis / 3), renewal)), this.#scope)
      )
    )
  }

  get(key: string): Effect.Effect<Entry | undefined, CacheError.CacheError> {
    return Effect.suspend(() => {
      const offset = this.#offset
      if (offset === undefined) return Effect.flatMap(this.#learnTime, () => this.get(key))
      const command = this.#send(this.#redis.send<unknown>("GET", `${this.#options.prefix}e:${key}`))
      return Effect.map(command, (value) => typeof value === "string" ? parse(value, offset) : undefined)
    })
  }

  set(key: string, entry: NewEntry): Effect.Effect<void, CacheError.CacheError> {
    const keepMillis = Math.floor(entry.keepMillis)
    if (!isCacheKey(key) || keepMillis < 1) return Effect.void
    const { prefix } = this.#options
    const freshMillis = Math.floor(entry.freshMillis)
    const mark = typeof entry.mark === "string" ? entry.mark : ""
    return Effect.asVoid(
      this.#send(
        this.#redis.eval(Scripts.store)(
          `${prefix}e:${key}`,
          prefix,
          key,
          entry.text,
          freshMillis,
          keepMillis,
          mark,
          entry.labels
        )
      )
    )
  }

  remove(key: string): Effect.Effect<void, CacheError.CacheError> {
    const { prefix } = this.#options
    return Effect.andThen(
      this.#send(this.#redis.send("DEL", `${prefix}e:${key}`)),
      Effect.asVoid(this.#send(this.#redis.send("PUBLISH", `${prefix}bus`, this.#message({ _tag: "key", key }))))
    )
  }

  // Whatever kept an invalidation from being done, nothing is read until it is.
  invalidate(labels: ReadonlyArray<string>): Effect.Effect<void, CacheError.CacheError> {
    return Effect.onError(this.#forget(labels, this.#send), () =>
      Effect.suspend(() => {
        this.#owe(labels)
        return this.#goDown
      }))
  }

  get clear(): Effect.Effect<void, CacheError.CacheError> {
    return Effect.onError(this.#forgetAll(this.#send), () =>
      Effect.suspend(() => {
        this.#owesAll = true
        return this.#goDown
      }))
  }

  get mark(): Effect.Effect<unknown, CacheError.CacheError> {
    return Effect.map(
      this.#send(this.#redis.send<ReadonlyArray<string>>("TIME")),
      ([seconds, micros]) => `${seconds}${String(micros).padStart(6, "0")}`
    )
  }

  get stats(): Effect.Effect<StoreStats, CacheError.CacheError> {
    return Effect.map(
      this.#send(this.#redis.send<number>("ZCARD", `${this.#options.prefix}l:all`)),
      (entries) => ({ store: this.name, entries, bytes: undefined, evictions: 0, errors: this.#errors })
    )
  }

  flight(
    key: string,
    onLead: (release: Effect.Effect<void>) => void
  ): Effect.Effect<Flight, CacheError.CacheError> {
    return this.#askForLead(key, onLead, firstPollMillis)
  }

  changes(onChange: (change: Change) => void): Effect.Effect<never, CacheError.CacheError> {
    const listening = Effect.scoped(
      Effect.flatMap(
        this.#redis.subscribe(`${this.#options.prefix}bus`),
        (messages) =>
          Effect.forever(Effect.map(Queue.take(messages), ({ message }) => {
            const change = this.#parseMessage(message)
            if (change !== undefined) onChange(change)
          }))
      )
    )
    return Effect.mapError(listening, (cause) => this.#unavailable(cause))
  }

  #askForLead(
    key: string,
    onLead: (release: Effect.Effect<void>) => void,
    wait: number
  ): Effect.Effect<Flight, CacheError.CacheError> {
    const { leaseMillis, prefix } = this.#options
    const lease = `${prefix}f:${key}`
    const token = `${this.#id}:${++this.#tokens}`
    const asked = this.#redis.eval(Scripts.lead)(`${prefix}e:${key}`, lease, token, leaseMillis)
    const noted = Effect.map(this.#send(asked), (answer): readonly [number, string] => {
      // In the step that takes the reply in, so that a lease is never held without somebody to give it back. One whose
      // reply is lost is not renewed, and ends by itself.
      if (answer[0] === 1) {
        this.#leases.set(lease, token)
        onLead(this.#release(lease, token))
      }
      return answer
    })
    return Effect.flatMap(noted, ([answer, mark]): Effect.Effect<Flight, CacheError.CacheError> => {
      if (answer === 1) return Effect.succeed({ _tag: "lead", mark })
      if (answer === 0) return Effect.succeed({ _tag: "landed" })
      if (answer !== 2) return this.#failed(undefined)
      const longer = Math.min(wait * 2, lastPollMillis)
      return Effect.andThen(Effect.sleep(wait), Effect.suspend(() => this.#askForLead(key, onLead, longer)))
    })
  }

  #release(lease: string, token: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#leases.get(lease) === token) this.#leases.delete(lease)
      // Nobody waits for it: commands are answered in order, so whoever asks next asks after it.
      const released = Effect.ignore(this.#send(this.#redis.eval(Scripts.release)(lease, token)))
      return Effect.asVoid(Effect.forkIn(released, this.#scope, { startImmediately: true }))
    })
  }

  get #learnTime(): Effect.Effect<void, CacheError.CacheError> {
    return Effect.withFiber((fiber) =>
      Effect.map(this.#send(this.#redis.send<ReadonlyArray<string>>("TIME")), ([seconds, micros]) => {
        this.#offset = monotonicMillis(fiber) - (Number(seconds) * 1000 + Number(micros) / 1000)
      })
    )
  }

  #forget(labels: ReadonlyArray<string>, send: Send): Effect.Effect<void, CacheError.CacheError> {
    const { prefix } = this.#options
    const message = this.#message({ _tag: "labels", labels })
    return Effect.andThen(
      send(this.#redis.eval(Scripts.mark)(prefix, message, labels)),
      Effect.forEach(labels, (label) => this.#drain(label, send), { discard: true })
    )
  }

  #forgetAll(send: Send): Effect.Effect<void, CacheError.CacheError> {
    const { prefix } = this.#options
    return Effect.andThen(
      send(this.#redis.eval(Scripts.mark)(prefix, this.#message({ _tag: "all" }), [])),
      this.#drain("all", send)
    )
  }

  #drain(label: string, send: Send): Effect.Effect<void, CacheError.CacheError> {
    return Effect.flatMap(
      send(this.#redis.eval(Scripts.drain)(this.#options.prefix, label)),
      (removed) => removed >= 1000 ? this.#drain(label, send) : Effect.void
    )
  }

  #owe(labels: ReadonlyArray<string>): void {
    if (this.#owed.size + labels.length > maxOwed) {
      this.#owesAll = true
      this.#owed.clear()
    } else if (!this.#owesAll) {
      for (const label of labels) this.#owed.add(label)
    }
  }

  #message(change: Change): string {
    return JSON.stringify({ from: this.#id, change })
  }

  #parseMessage(message: string): Change | undefined {
    try {
      const { change, from } = JSON.parse(message)
      if (from === this.#id) return undefined
      const isLabels = change._tag === "labels" && Array.isArray(change.labels)
      return isLabels || change._tag === "key" ? change : { _tag: "all" }
    } catch {
      // What nobody understands may have been about anything.
      return { _tag: "all" }
    }
  }

  #unavailable(cause: unknown): CacheError.CacheError {
    return new CacheError.CacheError({
      reason: new CacheError.StoreUnavailable({ store: this.name, ...(cause === undefined ? {} : { cause }) })
    })
  }

  readonly #send: Send = (command) =>
    Effect.suspend(() => {
      if (!this.#isDown && this.#pending.size < this.#options.maxPending) return this.#timed(command)
      this.#errors++
      return Effect.fail(this.#unavailable(undefined))
    })

  // A command runs in a fiber of its own that is started on the spot and resumes its caller directly. `Effect.timeout`
  // would start two fibers, each on a turn of the event loop, which takes longer than Redis does.
  readonly #timed: Send = (command) =>
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
        return this.#failed(error?.error)
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

  #failed(error: RedisError | undefined): Effect.Effect<never, CacheError.CacheError> {
    this.#errors++
    const failed = Effect.fail(this.#unavailable(error))
    return isRefusal(error) ? failed : Effect.andThen(this.#goDown, failed)
  }

  // One question at a time, and no time limit on it: a client that is not connected keeps commands until it is, and
  // must not be given more and more of them.
  get #goDown(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#isDown) return Effect.void
      this.#isDown = true
      this.#leases.clear()
      const question = Effect.andThen(
        Effect.sleep(this.#options.retryMillis),
        Effect.withFiber((fiber) => {
          const asked = monotonicMillis(fiber)
          return Effect.flatMap(this.#redis.send("PING"), () =>
            // A Redis that is slow would only be given up again.
            monotonicMillis(fiber) - asked <= this.#options.commandMillis
              ? Effect.void
              : Effect.fail(this.#unavailable(undefined)))
        })
      )
      const again: Effect.Effect<void> = Effect.matchEffect(Effect.flatMap(question, () => this.#comeBack()), {
        onSuccess: () => Effect.void,
        onFailure: () => Effect.suspend(() => again)
      })
      return Effect.asVoid(Effect.forkIn(again, this.#scope))
    })
  }

  #comeBack(): Effect.Effect<void, CacheError.CacheError> {
    return Effect.suspend(() => {
      // Calls stay away until what was invalidated meanwhile is gone, and what is invalidated while that is done.
      const labels = Array.from(this.#owed)
      const all = this.#owesAll
      this.#owed.clear()
      this.#owesAll = false
      if (!all && labels.length === 0) {
        this.#offset = undefined
        this.#isDown = false
        return Effect.void
      }
      const settled = all ? this.#forgetAll(this.#timed) : this.#forget(labels, this.#timed)
      const again = Effect.onError(settled, () =>
        Effect.sync(() => {
          if (all) this.#owesAll = true
          else this.#owe(labels)
        }))
      return Effect.flatMap(again, () => this.#comeBack())
    })
  }
}

/** An answer of Redis that says no to this command and nothing of its health. */
const isRefusal = (error: RedisError | undefined): boolean => {
  const cause = error?.cause
  return cause instanceof Error && /^(?:ERR|OOM|WRONGTYPE|NOSCRIPT|NOPERM|READONLY|MISCONF)\b/.test(cause.message)
}

const envelope = /^1 (\d+) (\d+) /

const parse = (value: string, offset: number): Entry | undefined => {
  const end = value.indexOf("\n")
  const head = envelope.exec(value)
  if (head === null || end === -1) return { key: "", text: "", freshUntil: 0, keepUntil: 0 }
  const [key, ...labels] = value.slice(head[0].length, end).split("\t")
  return {
    key: key!,
    labels,
    text: value.slice(end + 1),
    freshUntil: Number(head[1]) + offset,
    keepUntil: Number(head[2]) + offset
  }
}
