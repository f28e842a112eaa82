import * as Effect from "effect/Effect"
import type { Redis } from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import { monotonicMillis } from "../../internal/monotonic.ts"
import type * as CacheError from "../CacheError.ts"
import { isCacheKey } from "../CacheKey.ts"
import type { Change, Entry, Flight, NewEntry, Store, StoreStats } from "../CacheStore.ts"
import { RedisCommands, type Send } from "./redisCommands.ts"
import { entryOf, type ServerTime, timeOf } from "./redisReplies.ts"
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

export class RedisStore implements Store {
  readonly name = "redis"
  readonly #redis: Redis["Service"]
  readonly #commands: RedisCommands
  readonly #options: RedisOptions
  readonly #scope: Scope.Scope
  readonly #id = globalThis.crypto.randomUUID()
  readonly #leases = new Map<string, string>()
  readonly #owed = new Set<string>()
  #owesAll = false
  #tokens = 0
  // What to add to the server's milliseconds to have this process's monotonic ones.
  #offset: number | undefined = undefined

  constructor(redis: Redis["Service"], options: RedisOptions, scope: Scope.Scope) {
    this.#redis = redis
    this.#options = options
    this.#scope = scope
    this.#commands = new RedisCommands(redis, options, scope, {
      down: () => this.#leases.clear(),
      back: () => this.#comeBack()
    })
  }

  /** Begins what goes on in the background: leases are renewed, and the server's time is learnt. */
  get start(): Effect.Effect<void> {
    const { leaseMillis } = this.#options
    const renewal = Effect.suspend(() => {
      const leases = Array.from(this.#leases)
      if (leases.length === 0 || this.#commands.isDown) return Effect.void
      return Effect.ignore(this.#commands.send(this.#redis.eval(Scripts.renew)(leaseMillis, leases)))
    })
    // First of all, so that it is done last: until then, fibers of the scope may still send.
    return Scope.addFinalizer(this.#scope, this.#commands.close).pipe(
      Effect.andThen(Effect.ignore(this.#learnTime)),
      Effect.andThen(
        Effect.forkIn(Effect.forever(Effect.andThen(Effect.sleep(leaseMillis / 3), renewal)), this.#scope)
      ),
      Effect.asVoid
    )
  }

  get(key: string): Effect.Effect<Entry | undefined, CacheError.CacheError> {
    return Effect.suspend(() => {
      const offset = this.#offset
      if (offset === undefined) return Effect.flatMap(this.#learnTime, () => this.get(key))
      const command = this.#commands.send(this.#redis.send<unknown>("GET", `${this.#options.prefix}e:${key}`))
      return Effect.flatMap(command, (value) => {
        if (value === null) return nothing
        const found = entryOf(value, offset)
        // Somebody has written into our keys, or the reply is another command's.
        return found.key === key ? Effect.succeed(found) : Effect.as(this.#commands.suspect, found)
      })
    })
  }

  set(key: string, entry: NewEntry): Effect.Effect<void, CacheError.CacheError> {
    const keepMillis = Math.floor(entry.keepMillis)
    if (!isCacheKey(key) || keepMillis < 1) return Effect.void
    const { prefix } = this.#options
    const freshMillis = Math.floor(entry.freshMillis)
    const mark = typeof entry.mark === "string" ? entry.mark : ""
    return Effect.asVoid(
      this.#commands.send(
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
      this.#commands.send(this.#redis.send("DEL", `${prefix}e:${key}`)),
      Effect.asVoid(
        this.#commands.send(this.#redis.send("PUBLISH", `${prefix}bus`, this.#message({ _tag: "key", key })))
      )
    )
  }

  // Whatever kept an invalidation from being done, nothing is read until it is.
  invalidate(labels: ReadonlyArray<string>): Effect.Effect<void, CacheError.CacheError> {
    return Effect.onError(this.#forget(labels, this.#commands.send), () =>
      Effect.suspend(() => {
        this.#owe(labels)
        return this.#commands.goDown
      }))
  }

  get clear(): Effect.Effect<void, CacheError.CacheError> {
    return Effect.onError(this.#forgetAll(this.#commands.send), () =>
      Effect.suspend(() => {
        this.#owesAll = true
        return this.#commands.goDown
      }))
  }

  get mark(): Effect.Effect<unknown, CacheError.CacheError> {
    return Effect.map(this.#time, ({ mark }) => mark)
  }

  get stats(): Effect.Effect<StoreStats, CacheError.CacheError> {
    return Effect.map(
      this.#commands.send(this.#redis.send<number>("ZCARD", `${this.#options.prefix}l:all`)),
      (entries) => ({ store: this.name, entries, bytes: undefined, evictions: 0, errors: this.#commands.errors })
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
    return Effect.mapError(listening, (cause) => this.#commands.unavailable(cause))
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
    const noted = Effect.map(this.#commands.send(asked), (answer): readonly [number, string] => {
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
      if (answer !== 2) return this.#commands.failed(undefined)
      const longer = Math.min(wait * 2, lastPollMillis)
      return Effect.andThen(Effect.sleep(wait), Effect.suspend(() => this.#askForLead(key, onLead, longer)))
    })
  }

  #release(lease: string, token: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#leases.get(lease) === token) this.#leases.delete(lease)
      // Nobody waits for it: commands are answered in order, so whoever asks next asks after it.
      const released = Effect.ignore(this.#commands.send(this.#redis.eval(Scripts.release)(lease, token)))
      return Effect.asVoid(Effect.forkIn(released, this.#scope, { startImmediately: true }))
    })
  }

  get #time(): Effect.Effect<ServerTime, CacheError.CacheError> {
    return Effect.flatMap(this.#commands.send(this.#redis.send<unknown>("TIME")), (reply) => {
      const time = timeOf(reply)
      return time === undefined ? this.#commands.senseless : Effect.succeed(time)
    })
  }

  // By the time of the question, not of the reply: if anything, an entry grows old too early.
  get #learnTime(): Effect.Effect<void, CacheError.CacheError> {
    return Effect.withFiber((fiber) => {
      const asked = monotonicMillis(fiber)
      return Effect.map(this.#time, ({ millis }) => {
        this.#offset = asked - millis
      })
    })
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

  #comeBack(): Effect.Effect<void, CacheError.CacheError> {
    return Effect.suspend(() => {
      // Calls stay away until what was invalidated meanwhile is gone, and what is invalidated while that is done.
      const labels = Array.from(this.#owed)
      const all = this.#owesAll
      this.#owed.clear()
      this.#owesAll = false
      if (!all && labels.length === 0) {
        this.#offset = undefined
        this.#commands.isDown = false
        return Effect.void
      }
      const settled = all ? this.#forgetAll(this.#commands.timed) : this.#forget(labels, this.#commands.timed)
      const again = Effect.onError(settled, () =>
        Effect.sync(() => {
          if (all) this.#owesAll = true
          else this.#owe(labels)
        }))
      return Effect.flatMap(again, () => this.#comeBack())
    })
  }
}

const nothing: Effect.Effect<undefined> = Effect.succeed(undefined)
