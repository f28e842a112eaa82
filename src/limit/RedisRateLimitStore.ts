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
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { redisCheck } from "../health/internal/partChecks.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { refusal } from "../internal/refusal.ts"
import { Buckets } from "./internal/buckets.ts"
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

const maxFailures = 3

const spentHere = "redis"

/** What Redis answered, or that it did not. */
type Reply = ReadonlyArray<number> | undefined

/** A command for whose answer a call waits. */
interface Waiting {
  readonly deadline: number
  isSettled: boolean
  readonly settle: (reply: Reply, at: Fiber.Fiber<unknown, unknown>) => void
}

const make = (settings: Settings, redis: Redis.Redis["Service"]): RateLimitStore["Service"] => {
  const { commandTimeout, maxPending, onStoreError, prefix, retryAfterMillis } = settings
  const local = new Buckets(settings.maxKeys)
  const consumeScript = Scripts.consumeScript()
  const refundScript = Scripts.refundScript()
  const unavailable = rateLimitError(refusal(LimitStoreUnavailable, { _tag: "LimitStoreUnavailable" }))

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

  // `late` hears of an answer for which nobody waits any more.
  //
  // A command that has been sent cannot be taken back, so it runs by itself and is awaited for so long. The counters must
  // hear how that ended, hence no interruption in between.
  const ask = (
    command: Effect.Effect<unknown, Redis.RedisError>,
    read: (reply: unknown) => Reply,
    late: (reply: ReadonlyArray<number>) => Effect.Effect<void>
  ): Effect.Effect<Reply> =>
    Effect.uninterruptible(Effect.withFiber((fiber) => {
      const now = monotonicMillis(fiber)
      const isDown = failures >= maxFailures
      if (pending >= maxPending || (isDown && (asking || now < askAgainAt))) return Effect.succeed(undefined)
      pending += 1
      asking = isDown
      return Effect.callback<Reply>((resume) => {
        const run = Effect.runForkWith(fiber.context)
        const entry: Waiting = {
          deadline: now + commandTimeout,
          isSettled: false,
          settle: (reply, at) => {
            if (entry.isSettled) return
            entry.isSettled = true
            asking = false
            failures = reply === undefined ? failures + 1 : 0
            if (reply === undefined) askAgainAt = monotonicMillis(at) + retryAfterMillis
            resume(Effect.succeed(reply))
          }
        }
        while (waiting.length > 0 && waiting[0]!.isSettled) waiting.shift()
        waiting.push(entry)
        run(Effect.flatMap(Effect.exit(command), (exit) => {
          pending -= 1
          const reply = exit._tag === "Success" ? read(exit.value) : undefined
          if (entry.isSettled) return reply === undefined ? Effect.void : late(reply)
          entry.settle(reply, fiber)
          return Effect.void
        }))
        if (!isWatched) {
          isWatched = true
          run(watch)
        }
      })
    }))

  const giveBack = (takes: ReadonlyArray<Take>): Effect.Effect<void> =>
    Effect.asVoid(
      ask(Scripts.run(redis, refundScript, Scripts.refundArguments(prefix, takes)), (reply) =>
        typeof reply === "number" ? [reply] : undefined, () =>
        Effect.void)
    )

  const decide = (
    takes: ReadonlyArray<Take>,
    maxWaitMillis: number,
    spend: boolean
  ): Effect.Effect<number, RateLimitError> =>
    takes.length === 0 ? Effect.succeed(0) : Effect.withFiber((fiber) =>
      Effect.flatMap(
        ask(
          Scripts.run(redis, consumeScript, Scripts.consumeArguments(prefix, takes, maxWaitMillis, spend)),
          (reply) => Scripts.readReply(reply, takes.length),
          // The call was decided without this answer, so what it spent is given back.
          (reply) => {
            const copies = takes.map((take) => new Take(take.shape, take.key, take.cost))
            return Scripts.settle(copies, reply, spend, spentHere) !== refused && spend
              ? Effect.asVoid(Effect.exit(Scripts.run(redis, refundScript, Scripts.refundArguments(prefix, copies))))
              : Effect.void
          }
        ),
        (reply) => {
          const now = monotonicMillis(fiber)
          if (reply !== undefined) {
            const wait = Scripts.settle(takes, reply, spend, spentHere)
            if (onStoreError === "local") local.learn(takes, now)
            return Effect.succeed(wait)
          }
          switch (onStoreError) {
            case "refuse":
              return Effect.fail(unavailable)
            case "allow":
              return Effect.succeed(0)
            case "local":
              return Effect.succeed(
                spend ? local.consume(takes, maxWaitMillis, now) : local.decide(takes, maxWaitMillis, now)
              )
          }
        }
      )
    )

  return {
    consume: (takes, maxWaitMillis) => decide(takes, maxWaitMillis, true),
    peek: (takes, maxWaitMillis) => decide(takes, maxWaitMillis, false),
    refund: (takes) =>
      Effect.withFiber((fiber) => {
        const there = takes.filter((take) => take.spentUntil !== 0 && take.spentFrom === spentHere)
        local.refund(takes.filter((take) => take.spentFrom !== spentHere), monotonicMillis(fiber))
        if (there.length === 0) return Effect.void
        const command = giveBack(there)
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
 * While Redis does not answer and `onStoreError` is `local`, each process grants the whole limit by itself. What was spent
 * in the meantime is not carried over when Redis is back.
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
