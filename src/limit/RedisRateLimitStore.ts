/**
 * Limits shared by all processes that share a Redis.
 *
 * One script decides all limits of a call in one round trip, by the server's clock, so the clocks of the processes do not
 * matter. What happens while Redis does not answer is `onStoreError`'s choice.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { redisCheck } from "../health/internal/partChecks.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { refusal } from "../internal/refusal.ts"
import { Buckets, shared } from "./internal/buckets.ts"
import { Owed } from "./internal/owed.ts"
import * as Asking from "./internal/redisAsking.ts"
import * as Scripts from "./internal/redisScripts.ts"
import { LimitStoreUnavailable, type RateLimitError, rateLimitError } from "./RateLimitError.ts"
import { RateLimitStore, refused, Take } from "./RateLimitStore.ts"

/**
 * What `layer` takes.
 *
 * - `prefix`: begins every key. Default `toolops:limit:`. In a Redis Cluster it must hold a hash tag, `{limits}:` say,
 *   because one script may only touch keys of one slot.
 * - `commandTimeout`: how long a call waits for Redis. Default 100 milliseconds.
 * - `onStoreError`: what becomes of calls while Redis does not answer. `local` (the default): limits are kept in this
 *   process, starting from what Redis last said of the caller. `refuse`: they fail with `LimitStoreUnavailable`. `allow`:
 *   they pass.
 * - `retryAfter`: after 3 failures in a row Redis is left alone for so long, then asked once. Default 1 second.
 * - `maxPending`: most commands on their way at once; calls beyond it are treated as if Redis did not answer. Default
 *   10,000.
 * - `maxKeys`: most buckets kept in this process for `local`. Default 100,000.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly prefix?: string | undefined
  readonly commandTimeout?: Duration.Input | undefined
  readonly onStoreError?: "refuse" | "allow" | "local" | undefined
  readonly retryAfter?: Duration.Input | undefined
  readonly maxPending?: number | undefined
  readonly maxKeys?: number | undefined
}

interface Settings {
  readonly prefix: string
  readonly commandTimeout: number
  readonly onStoreError: "refuse" | "allow" | "local"
  readonly retryAfterMillis: number
  readonly maxPending: number
  readonly maxKeys: number
}

const resolve = (where: string, options: Options): Settings => {
  Check.known(where, options, ["prefix", "commandTimeout", "onStoreError", "retryAfter", "maxPending", "maxKeys"])
  const prefix = options.prefix === undefined ? "toolops:limit:" : options.prefix
  if (typeof prefix !== "string" || prefix.length === 0 || prefix.length > 128) {
    throw new TypeError(`${where}: prefix must be a string of 1 to 128 characters`)
  }
  return {
    prefix,
    commandTimeout: Check.millis(where, "commandTimeout", options.commandTimeout ?? "100 millis"),
    onStoreError: Check.oneOf(where, "onStoreError", options.onStoreError ?? "local", ["refuse", "allow", "local"]),
    retryAfterMillis: Check.millis(where, "retryAfter", options.retryAfter ?? "1 second"),
    maxPending: Check.integer(where, "maxPending", options.maxPending ?? 10_000, 1, 1_000_000),
    maxKeys: Check.integer(where, "maxKeys", options.maxKeys ?? 100_000, 1, 10_000_000)
  }
}

const make = (settings: Settings, redis: Redis.Redis["Service"]): RateLimitStore["Service"] => {
  const { onStoreError, prefix } = settings
  const local = new Buckets(settings.maxKeys)
  const owed = new Owed(settings.maxKeys)
  const consumeScript = Scripts.consumeScript()
  const refundScript = Scripts.refundScript()
  const unavailable = rateLimitError(refusal(LimitStoreUnavailable, { _tag: "LimitStoreUnavailable" }))

  const ask = Asking.make(settings)
  // By how much the server's clock is ahead. Before the first answer, what is owed has no end: no clock is that late.
  let ahead = Number.MAX_SAFE_INTEGER / 1000

  const giveBack = (given: ReadonlyArray<string>): Effect.Effect<void> =>
    ask({
      send: () => ({ reply: Scripts.run(redis, refundScript, given), lost: () => {} }),
      read: (reply) => typeof reply === "number" ? [reply] : undefined,
      late: () => Effect.void,
      next: () => Effect.void
    })

  const decideHere = (takes: ReadonlyArray<Take>, maxWaitMillis: number, spend: boolean, now: number): number => {
    if (!spend) return local.decide(takes, maxWaitMillis, now)
    const wait = local.consume(takes, maxWaitMillis, now)
    for (const take of takes) {
      if (take.spentUntil !== 0 && take.spentFrom !== shared) owed.add(take, now)
    }
    return wait
  }

  const decide = (
    takes: ReadonlyArray<Take>,
    maxWaitMillis: number,
    spend: boolean
  ): Effect.Effect<number, RateLimitError> => {
    if (takes.length === 0) return Effect.succeed(0)
    return ask({
      send: (now) => {
        const debts = owed.collect(takes, now)
        const given = Scripts.consumeArguments(prefix, takes, maxWaitMillis, spend, debts, ahead)
        return {
          reply: Scripts.run(redis, consumeScript, given),
          lost: () => {
            if (debts !== undefined) owed.putBack(takes, debts)
          }
        }
      },
      read: (reply) => Scripts.readReply(reply, takes.length),
      // The call was decided without this answer, so what it spent is given back.
      late: (reply) => {
        const copies = takes.map((take) => new Take(take.shape, take.key, take.cost))
        return Scripts.settle(copies, reply, spend) !== refused && spend
          ? Effect.asVoid(Effect.exit(Scripts.run(redis, refundScript, Scripts.refundArguments(prefix, copies))))
          : Effect.void
      },
      next: (reply, now) => {
        if (reply !== undefined) {
          const wait = Scripts.settle(takes, reply, spend)
          if (onStoreError === "local") {
            ahead = Scripts.aheadOf(reply, now)
            local.learn(takes, now, owed)
          }
          return Effect.succeed(wait)
        }
        switch (onStoreError) {
          case "refuse":
            return Effect.fail(unavailable)
          case "allow":
            return Effect.succeed(0)
          case "local":
            return Effect.succeed(decideHere(takes, maxWaitMillis, spend, now))
        }
      }
    })
  }

  return {
    consume: (takes, maxWaitMillis) => decide(takes, maxWaitMillis, true),
    peek: (takes, maxWaitMillis) => decide(takes, maxWaitMillis, false),
    refund: (takes) =>
      Effect.withFiber((fiber) => {
        const there = takes.filter(Scripts.isSpentThere)
        for (const take of takes) {
          // What Redis has been charged with by now stays spent there.
          if (!Scripts.isSpentThere(take)) owed.giveBack(take, local.giveBack(take, monotonicMillis(fiber)))
        }
        if (there.length === 0) return Effect.void
        const command = giveBack(Scripts.refundArguments(prefix, there))
        // At once, so that a second refund finds nothing while the first is on its way.
        for (const take of there) take.spentUntil = 0
        return command
      })
  }
}

const checked = (settings: Settings) =>
  Effect.flatMap(Redis.Redis, (redis) => Effect.as(redisCheck("limits", redis), make(settings, redis)))

/**
 * Provides a store in Redis.
 *
 * **Details**
 *
 * A bucket is one key that expires when the bucket is full, so idle callers leave nothing behind. Keys hold the name of
 * the limit, tenant and principal. A step of the server's clock forwards gives back what the time in between would have;
 * a step backwards locks nobody out.
 *
 * While Redis does not answer and `onStoreError` is `local`, each process grants by itself what it knows to be left, at
 * most the whole limit. With the first calls that Redis answers again it is charged for what was granted in the meantime,
 * up to one whole limit beyond an empty bucket. So one process keeps to the limit however often Redis comes and goes,
 * except for the calls that are on their way when it does; many processes grant no more than the limit each between two
 * answers. Callers beyond `maxKeys` are not carried over.
 *
 * **Example** (Sharing limits over Redis)
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { RateLimit, RateLimitMiddleware, RedisRateLimitStore } from "effect-toolops/limit"
 *
 * const Limits = RateLimitMiddleware.layer.pipe(
 *   Layer.provide(RateLimit.layer({ limits: [{ name: "caller", per: "identity", limit: 60, window: "1 minute" }] })),
 *   Layer.provide(RedisRateLimitStore.layer({ onStoreError: "refuse" })),
 *   Layer.provide(NodeRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<RateLimitStore, never, Redis.Redis> => {
  const settings = resolve("RedisRateLimitStore.layer", options)
  return Layer.effect(RateLimitStore, checked(settings))
}

/**
 * `layer` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<RateLimitStore, Config.ConfigError, Redis.Redis> =>
  Layer.effect(
    RateLimitStore,
    Effect.gen(function*() {
      const given = yield* Config.unwrap(options)
      return yield* checked(resolve("RedisRateLimitStore.layerConfig", given))
    })
  )
