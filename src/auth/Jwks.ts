/**
 * The public keys of an issuer, fetched from its JSON Web Key Set.
 *
 * One fetch at a time, which goes on when the caller that needed it leaves. A set that grows old is fetched again in the
 * background and used meanwhile, at most `maxStale` longer; after that everything is refused as `AuthUnavailable`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { jwksCheck } from "../health/internal/partChecks.ts"
import { boundedFetch, FetchFailure } from "../internal/boundedFetch.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import { type AuthError, refused } from "./AuthError.ts"
import { checkEndpoint } from "./internal/endpoint.ts"
import * as JwtKey from "./internal/jwtKey.ts"
import { type KeySet, lifetime, readKeys } from "./internal/keySet.ts"

/**
 * How the set is doing, for health checks.
 *
 * - `keys`: how many keys are usable. `skipped`: how many were of no use, by reason.
 * - `age`: milliseconds since the set was fetched. `undefined` before the first fetch.
 * - `usable`: false when every token is refused, because there is no set, no usable key in it, or it is too old.
 * - `failures`: fetches that have failed since the last that did not.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  readonly keys: number
  readonly skipped: Readonly<Record<string, number>>
  readonly age: number | undefined
  readonly usable: boolean
  readonly failures: number
}

/**
 * The key set of a program.
 *
 * - `find`: the key for an algorithm and a key id; `Jwt.layerJwks` asks it.
 * - `isTrusted`: whether a key that was found before is still in the set.
 * - `refresh`: fetches the set now, or joins the fetch that is under way. Never fails; see `status`.
 *
 * @category services
 * @since 0.1.0
 */
export class Jwks extends Context.Service<Jwks, {
  readonly find: (
    algorithm: JwtKey.Algorithm,
    kid: string | undefined
  ) => Effect.Effect<JwtKey.VerificationKey, AuthError>
  readonly isTrusted: (key: JwtKey.VerificationKey, fiber: Fiber.Fiber<unknown, unknown>) => boolean
  readonly refresh: Effect.Effect<void>
  readonly status: Effect.Effect<Status>
}>()("effect-toolops/auth/Jwks") {}

/**
 * Where the set is and how long it counts.
 *
 * - `url`: https, or http on loopback, without a fragment. Redirects are not followed.
 * - `allowInsecureHttp`: true allows http elsewhere: anybody between here and there can then make tokens. Default false.
 * - `timeToLive`: how old a set may get before it is fetched again, where the server does not say. Default 10 minutes.
 * - `maxTimeToLive`: the same where the server says more. Default 1 hour.
 * - `maxStale`: how much longer the last good set is used while it cannot be fetched. Default 1 hour; 0 is allowed.
 * - `cooldown`: how long after a fetch for an unknown key id until the next such fetch. Tokens with an unknown key id are
 *   refused at once meanwhile, as `KeyNotFound`, also one whose key came that moment. Default 30 seconds.
 * - `timeout`: how long a fetch may take. Default 5 seconds.
 * - `maxBytes`: the largest body that is read. Default and most 1 MiB.
 * - `maxKeys`: a set with more keys is refused. Default 100, at most 1,000.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly url: string
  readonly allowInsecureHttp?: boolean | undefined
  readonly timeToLive?: Duration.Input | undefined
  readonly maxTimeToLive?: Duration.Input | undefined
  readonly maxStale?: Duration.Input | undefined
  readonly cooldown?: Duration.Input | undefined
  readonly timeout?: Duration.Input | undefined
  readonly maxBytes?: number | undefined
  readonly maxKeys?: number | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  url: true,
  allowInsecureHttp: true,
  timeToLive: true,
  maxTimeToLive: true,
  maxStale: true,
  cooldown: true,
  timeout: true,
  maxBytes: true,
  maxKeys: true
}

interface Settings {
  readonly url: URL
  readonly timeToLive: number
  readonly maxTimeToLive: number
  readonly maxStale: number
  readonly cooldown: number
  readonly timeout: number
  readonly maxBytes: number
  readonly maxKeys: number
}

const check = (where: string, options: Options): Settings => {
  Check.known(where, options, Object.keys(optionNames))
  const maxTimeToLive = Check.millis(where, "maxTimeToLive", options.maxTimeToLive ?? "1 hour")
  return {
    url: checkEndpoint(where, options.url, options.allowInsecureHttp === true),
    timeToLive: Math.min(maxTimeToLive, Check.millis(where, "timeToLive", options.timeToLive ?? "10 minutes")),
    maxTimeToLive,
    maxStale: Check.millis(where, "maxStale", options.maxStale ?? "1 hour", { allowZero: true }),
    cooldown: Check.millis(where, "cooldown", options.cooldown ?? "30 seconds"),
    timeout: Check.millis(where, "timeout", options.timeout ?? "5 seconds"),
    maxBytes: Check.integer(where, "maxBytes", options.maxBytes ?? 1_048_576, 1, 1_048_576),
    maxKeys: Check.integer(where, "maxKeys", options.maxKeys ?? 100, 1, 1000)
  }
}

const fromSettings = (
  settings: Settings
): Effect.Effect<Jwks["Service"], never, HttpClient.HttpClient | Scope.Scope> =>
  Effect.gen(function*() {
    const client = yield* HttpClient.HttpClient
    // Fetches belong to the layer, not to the call that needs one first.
    const fork = yield* FiberSet.makeRuntime()
    let set: KeySet | undefined = undefined
    let inFlight: Deferred.Deferred<void> | undefined = undefined
    let failures = 0
    let nextAttempt = -Infinity
    let nextForUnknown = -Infinity

    const load = Effect.gen(function*() {
      const request = HttpClientRequest.get(settings.url.href, { headers: { accept: "application/json" } })
      const { body, headers, status } = yield* boundedFetch({ client, request, ...settings })
      if (status !== 200) return yield* Effect.fail(new FetchFailure("unexpected status"))
      const read = yield* Effect.tryPromise({
        try: () => readKeys(body, settings.maxKeys, set?.byText),
        catch: (error) => error instanceof FetchFailure ? error : new FetchFailure("not a key set")
      })
      return yield* Effect.withFiber((fiber) => {
        const fetchedAt = monotonicMillis(fiber)
        const freshUntil = fetchedAt + lifetime(headers["cache-control"], settings)
        set = { ...read, fetchedAt, freshUntil, usableUntil: freshUntil + settings.maxStale }
        failures = 0
        nextAttempt = -Infinity
        return Effect.void
      })
    })

    const failed = ({ why }: FetchFailure) =>
      Effect.withFiber((fiber) => {
        nextAttempt = monotonicMillis(fiber) + Math.min(settings.cooldown, 1000 * 2 ** failures)
        failures = Math.min(failures + 1, 30)
        return Effect.logWarning(`effect-toolops: the key set could not be fetched: ${why}`)
      })

    // Starts a fetch, or finds the one that is under way. Synchronous, so that no interruption can get in between.
    const start = (): Deferred.Deferred<void> => {
      if (inFlight !== undefined) return inFlight
      const done = Deferred.makeUnsafe<void>()
      inFlight = done
      fork(Effect.catch(load, failed)).addObserver(() => {
        inFlight = undefined
        Deferred.doneUnsafe(done, Exit.void)
      })
      return done
    }

    const usable = (now: number): KeySet | undefined => set !== undefined && now < set.usableUntil ? set : undefined

    const lookUp = (
      algorithm: JwtKey.Algorithm,
      kid: string | undefined,
      now: number
    ): Effect.Effect<JwtKey.VerificationKey, AuthError> => {
      const keys = usable(now)?.keys
      if (keys === undefined) return Effect.fail(refused("AuthUnavailable"))
      const key = JwtKey.select(keys, algorithm, kid)
      if (key !== undefined) return Effect.succeed(key)
      // While fetching fails, nobody knows whether there is such a key.
      return Effect.fail(refused(failures > 0 ? "AuthUnavailable" : "KeyNotFound"))
    }

    const mayAttempt = (now: number): boolean => inFlight !== undefined || now >= nextAttempt

    return {
      find: (algorithm, kid) =>
        Effect.withFiber((fiber) => {
          const now = monotonicMillis(fiber)
          const current = usable(now)
          if (current !== undefined) {
            if (now >= current.freshUntil && mayAttempt(now)) start()
            const key = JwtKey.select(current.keys, algorithm, kid)
            if (key !== undefined) return Effect.succeed(key)
            // The fetch that is under way may bring the key; one of its own a token gets once per cooldown.
            if (inFlight === undefined && now < nextForUnknown) return lookUp(algorithm, kid, now)
            if (inFlight === undefined) nextForUnknown = now + settings.cooldown
          } else if (!mayAttempt(now)) {
            return Effect.fail(refused("AuthUnavailable"))
          }
          return Effect.flatMap(
            Deferred.await(start()),
            () => Effect.suspend(() => lookUp(algorithm, kid, monotonicMillis(fiber)))
          )
        }),
      isTrusted: (key, fiber) => {
        const current = usable(monotonicMillis(fiber))
        if (current === undefined) return false
        if (monotonicMillis(fiber) >= current.freshUntil && mayAttempt(monotonicMillis(fiber))) start()
        return current.keys.includes(key)
      },
      refresh: Effect.suspend(() => Deferred.await(start())),
      status: Effect.withFiber((fiber) => {
        const now = monotonicMillis(fiber)
        return Effect.succeed({
          keys: set?.keys.length ?? 0,
          skipped: { ...set?.skipped },
          age: set === undefined ? undefined : now - set.fetchedAt,
          usable: (usable(now)?.keys.length ?? 0) > 0,
          failures
        })
      })
    }
  })

/**
 * Provides the key set at a URL. It is fetched when the first token asks for a key.
 *
 * **Gotchas**
 *
 * Bring your own `HttpClient`: `FetchHttpClient.layer` from `effect/http`, or the one of your platform.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Jwks, never, HttpClient.HttpClient> => {
  const settings = check("Jwks.layer", options)
  return Layer.effect(Jwks, Effect.tap(fromSettings(settings), jwksCheck))
}

/**
 * Provides `layer` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<Jwks, Config.ConfigError, HttpClient.HttpClient> =>
  Layer.effect(
    Jwks,
    Effect.flatMap(
      Config.unwrap(options),
      (value) => Effect.tap(fromSettings(check("Jwks.layerConfig", value)), jwksCheck)
    )
  )
