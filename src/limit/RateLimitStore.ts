/**
 * Where the buckets of the limits are kept.
 *
 * A store decides all limits of one call in one atomic step, so that a call refused by one of them has spent nothing of
 * the others. It knows keys and numbers only: which limits concern a call, and who the caller is, is `RateLimit`'s part.
 *
 * Buckets follow the generic cell rate algorithm (GCRA): all that is remembered of a caller is the moment at which their
 * bucket would be full again. A bucket whose moment has passed is full, and forgetting it loses nothing.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { LimitStatus } from "../CallRecord.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import * as Internal from "./internal/buckets.ts"
import type { RateLimitError } from "./RateLimitError.ts"

/**
 * The shape of one limit's buckets.
 *
 * - `name`: which limit. Buckets of the same name are rescaled together when the shape changes. `per`: whose calls count
 *   together.
 * - `intervalMillis`: how long one token takes to come back.
 * - `burst`: how many tokens a full bucket holds. `spanMillis`: how long an empty one takes to fill.
 * - `shadow`: the limit is counted and never refuses.
 *
 * @category models
 * @since 0.1.0
 */
export interface BucketShape {
  readonly name: string
  readonly per: string
  readonly intervalMillis: number
  readonly burst: number
  readonly spanMillis: number
  readonly shadow: boolean
}

/**
 * The name of a bucket within the store: limit, kind of caller, caller. Callers who come again bring the same one.
 *
 * - `isAnonymous`: whether the caller is one of those nobody knows, of whom there may be any number. Default false.
 * - `place`: where a store has found the bucket last. It may be gone from there.
 *
 * @category models
 * @since 0.1.0
 */
export class BucketKey {
  readonly text: string
  readonly isAnonymous: boolean
  place = -1

  constructor(text: string, isAnonymous = false) {
    this.text = text
    this.isAnonymous = isAnonymous
  }
}

/**
 * What one call wants of one bucket, and what the store answered. As a `LimitStatus` it goes into the call's record.
 *
 * Printed and encoded it shows the status alone: the key names the caller.
 *
 * @category models
 * @since 0.1.0
 */
export class Take implements LimitStatus {
  readonly name: string
  readonly shadow: boolean
  allowed = true
  remaining = 0
  resetAfterMillis = 0
  /** When the same take would be granted: 0 when it is now, `Infinity` when it never will be. */
  retryAfterMillis = 0
  #shape: BucketShape
  #key: BucketKey
  #cost: number
  #spentUntil = 0
  #spentFrom = ""

  constructor(shape: BucketShape, key: BucketKey, cost: number) {
    this.name = shape.name
    this.shadow = shape.shadow
    this.#shape = shape
    this.#key = key
    this.#cost = cost
  }

  get shape(): BucketShape {
    return this.#shape
  }

  get key(): BucketKey {
    return this.#key
  }

  /** How many tokens are asked for. */
  get cost(): number {
    return this.#cost
  }

  /** Set by the store when tokens were spent: the moment, on the store's clock, at which the bucket is full again. */
  get spentUntil(): number {
    return this.#spentUntil
  }

  set spentUntil(moment: number) {
    this.#spentUntil = moment
  }

  /** A note of the store for itself, of where the tokens came from. */
  get spentFrom(): string {
    return this.#spentFrom
  }

  set spentFrom(place: string) {
    this.#spentFrom = place
  }
}

/**
 * What `consume` returns for a call that is refused. Any other number is how many milliseconds the call has to wait for
 * the tokens that it has been given.
 *
 * @category constants
 * @since 0.1.0
 */
export const refused: -1 = Internal.refused

/**
 * The operations of a store.
 *
 * - `consume`: decides all takes at once; no two of them are of one bucket. Either every take that is not in shadow mode is granted, or none is spent. A
 *   call may be given tokens that come back within `maxWaitMillis`; it has to wait for them. It is not interrupted while
 *   it decides, so it must settle in bounded time.
 * - `peek`: what `consume` would find, without spending.
 * - `refund`: gives back what the takes have spent, as far as time has not given it back already. Never fails.
 * - `consumeUnsafe`: the same as `consume`, for a store that can answer at once. `nowMillis` is the monotonic clock.
 *
 * @category services
 * @since 0.1.0
 */
export class RateLimitStore extends Context.Service<RateLimitStore, {
  readonly consume: (takes: ReadonlyArray<Take>, maxWaitMillis: number) => Effect.Effect<number, RateLimitError>
  readonly peek: (takes: ReadonlyArray<Take>, maxWaitMillis: number) => Effect.Effect<number, RateLimitError>
  readonly refund: (takes: ReadonlyArray<Take>) => Effect.Effect<void>
  readonly consumeUnsafe?:
    | ((takes: ReadonlyArray<Take>, maxWaitMillis: number, nowMillis: number) => number)
    | undefined
}>()("effect-toolops/limit/RateLimitStore") {}

/**
 * What `layerMemory` takes.
 *
 * - `maxKeys`: most buckets kept at once, from 1 to 10,000,000. Default 100,000. One takes about 100 bytes and its key.
 *
 * @category options
 * @since 0.1.0
 */
export interface MemoryOptions {
  readonly maxKeys?: number | undefined
}

/** @internal */
export const makeMemory = (where: string, options: MemoryOptions | undefined): RateLimitStore["Service"] => {
  if (options !== undefined) Check.known(where, options, ["maxKeys"])
  const buckets = new Internal.Buckets(Check.integer(where, "maxKeys", options?.maxKeys ?? 100_000, 1, 10_000_000))
  return {
    consume: (takes, maxWaitMillis) =>
      Effect.withFiber((fiber) => Effect.succeed(buckets.consume(takes, maxWaitMillis, monotonicMillis(fiber)))),
    peek: (takes, maxWaitMillis) =>
      Effect.withFiber((fiber) => Effect.succeed(buckets.decide(takes, maxWaitMillis, monotonicMillis(fiber)))),
    refund: (takes) =>
      Effect.withFiber((fiber) => {
        buckets.refund(takes, monotonicMillis(fiber))
        return Effect.void
      }),
    consumeUnsafe: (takes, maxWaitMillis, nowMillis) => buckets.consume(takes, maxWaitMillis, nowMillis)
  }
}

/**
 * Provides a store in this process, on the monotonic clock.
 *
 * **Details**
 *
 * Full buckets are forgotten a few at a time while calls come in, so there is neither a timer nor a pause. A bucket that
 * is in use is never forgotten. When all `maxKeys` are in use, callers who have none share a bucket until there is room,
 * and their own then starts where the shared one is: one for each limit and those who are known, and one for each limit
 * and those who are anonymous. So a flood of invented callers can neither grow the store nor give anyone a full bucket.
 *
 * Who has a bucket in use keeps it in a flood. Who has been idle has none, comes as somebody new, and has to share: with
 * other known callers if anonymous ones are the flood. Choose `maxKeys` above the number of callers who are active within
 * the longest time that a bucket of theirs takes to fill, and put a `global` limit beside the others.
 *
 * **Gotchas**
 *
 * Two calls make two stores, and limits of the same name in one store are one limit. Limits are per process; `RedisRateLimitStore` shares them.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options?: MemoryOptions): Layer.Layer<RateLimitStore> => {
  const make = () => makeMemory("RateLimitStore.layerMemory", options)
  make()
  return Layer.sync(RateLimitStore, make)
}

/**
 * `layerMemory` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryConfig = (
  options: Config.Wrap<MemoryOptions>
): Layer.Layer<RateLimitStore, Config.ConfigError> =>
  Layer.effect(
    RateLimitStore,
    Effect.map(Config.unwrap(options), (given) => makeMemory("RateLimitStore.layerMemory", given))
  )
