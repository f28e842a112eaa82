/**
 * Authentication by a bearer token that only its issuer can read (RFC 7662).
 *
 * Every token that is not known yet is asked about; callers with the same token share one request. What is known is used
 * for a short time, never past the end of the token, so a revoked token is refused that much later at most. What the
 * answer calls anything but an access token (`token_type`, `token_use`) is refused.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { LRUCache } from "lru-cache"
import { boundedFetch } from "../internal/boundedFetch.ts"
import { sha256Hex } from "../internal/hash.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import * as Identity from "./Identity.ts"
import { ambiguous, authorization, rawAuthorization } from "./internal/credentials.ts"
import type { Answer } from "./internal/findCaller.ts"
import { check, endOf, requestFor, type Settings, toIdentity } from "./internal/introspection.ts"
import { parseStrictBytes } from "./internal/strictJson.ts"

/**
 * Whom to ask and what to make of the answer.
 *
 * - `url`: the introspection endpoint: https, or http on loopback; `allowInsecureHttp: true` allows http elsewhere. No
 *   fragment. Redirects are not followed: the token and the secret go nowhere else.
 * - `clientId`, `clientSecret`: who asks. `clientAuthentication`: in the `Authorization` header (`basic`, default) or in
 *   the body (`post`).
 * - `audience`: who this server is; the answer's `aud` must name it, or one of the list. `false` takes tokens that were
 *   made for any server, which is safe only where the issuer answers for this one alone.
 * - `issuer`: what the answer's `iss` must be, and the `issuer` of the identity. Default: not checked; the issuer of the
 *   identity is then the `url`, with the answer's `iss` behind a `#` where it has one.
 * - `clockTolerance`: how far the issuer's clock may be off. Default 30 seconds, at most 5 minutes. From `exp` on the
 *   issuer is asked every time, and believed until the tolerance is over as well.
 * - `principalClaim`: default `sub`. `tenantClaim`: default none. `rolesClaim`: default `roles`. A list is a path.
 * - `cacheTtl`: how long an answer is used. Default 30 seconds; 0 asks every time. `maxEntries`: default 10,000.
 * - `timeout`: how long an answer may take. Default 5 seconds. `maxBytes`: default 65,536.
 * - `maxConcurrent`: requests under way at once; more are refused as `AuthUnavailable`. Default 100.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly url: string
  readonly allowInsecureHttp?: boolean | undefined
  readonly clientId: string
  readonly clientSecret: Redacted.Redacted<string>
  readonly clientAuthentication?: "basic" | "post" | undefined
  readonly audience: string | ReadonlyArray<string> | false
  readonly issuer?: string | undefined
  readonly clockTolerance?: Duration.Input | undefined
  readonly principalClaim?: string | ReadonlyArray<string> | undefined
  readonly tenantClaim?: string | ReadonlyArray<string> | undefined
  readonly rolesClaim?: string | ReadonlyArray<string> | undefined
  readonly cacheTtl?: Duration.Input | undefined
  readonly maxEntries?: number | undefined
  readonly timeout?: Duration.Input | undefined
  readonly maxBytes?: number | undefined
  readonly maxConcurrent?: number | undefined
}

type Found = Option.Option<Identity.Identity>

interface Known {
  readonly answer: Found
  readonly expiresAt: number
  readonly keptUntil: number
}

const fromSettings = (
  settings: Settings
): Effect.Effect<Authenticator.Service, never, HttpClient.HttpClient | Scope.Scope> =>
  Effect.gen(function*() {
    const client = yield* HttpClient.HttpClient
    // Requests belong to the layer: other callers may wait for one whose first caller has left.
    const fork = yield* FiberSet.makeRuntime()
    const cache = settings.cacheTtl === 0 ? undefined : new LRUCache<string, Known>({ max: settings.maxEntries })
    const inFlight = new Map<string, Deferred.Deferred<Found, AuthError.AuthError>>()

    const ask = (token: string, hash: string): Effect.Effect<Found, AuthError.AuthError> =>
      boundedFetch({ client, request: requestFor(settings, token), ...settings }).pipe(
        Effect.catch(({ why }) => unavailable(why)),
        Effect.flatMap(({ body, status }) =>
          status === 200 ? Effect.succeed(parseStrictBytes(body)) : unavailable("unexpected status")
        ),
        Effect.flatMap((answer) =>
          Effect.withFiber((fiber): Effect.Effect<Found, AuthError.AuthError> => {
            const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
            const identity = toIdentity(answer, token, settings, now)
            if (identity instanceof AuthError.AuthError) {
              return identity.reason._tag === "AuthUnavailable" ? unavailable("not an answer") : Effect.fail(identity)
            }
            const found = Option.some(identity)
            cache?.set(hash, {
              answer: found,
              // To the letter: a token that the issuer's clock may still call good is asked about again.
              expiresAt: endOf(answer),
              keptUntil: monotonicMillis(fiber) + settings.cacheTtl
            })
            return Effect.succeed(found)
          })
        )
      )

    const join = (token: string, hash: string): Effect.Effect<Found, AuthError.AuthError> => {
      const running = inFlight.get(hash)
      if (running !== undefined) return Deferred.await(running)
      if (inFlight.size >= settings.maxConcurrent) return Effect.fail(AuthError.refused("AuthUnavailable"))
      const done = Deferred.makeUnsafe<Found, AuthError.AuthError>()
      inFlight.set(hash, done)
      fork(Effect.exit(ask(token, hash))).addObserver((exit) => {
        inFlight.delete(hash)
        Deferred.doneUnsafe(
          done,
          Exit.isSuccess(exit) && !Exit.hasInterrupts(exit.value)
            ? exit.value
            : Effect.fail(AuthError.refused("AuthUnavailable"))
        )
      })
      return Deferred.await(done)
    }

    // What is known of a token, if that still counts.
    const recall = (hash: string, fiber: Fiber.Fiber<unknown, unknown>): Answer | undefined => {
      const known = cache?.get(hash)
      if (known === undefined) return undefined
      if (fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() >= known.expiresAt) {
        cache?.delete(hash)
        return undefined
      }
      if (monotonicMillis(fiber) < known.keptUntil) return known.answer
      cache?.delete(hash)
      return undefined
    }

    const authenticate: Authenticator.Service["authenticate"] = (headers) =>
      Effect.withFiber((fiber) => {
        const token = authorization(headers, "bearer")
        if (token === undefined) return Effect.succeedNone
        if (token === ambiguous) return Effect.fail(AuthError.refused("InvalidCredentials"))
        if (token.length > maxToken) return Effect.fail(AuthError.refused("TokenMalformed"))
        const hash = sha256Hex(token)
        const known = recall(hash, fiber)
        if (known === undefined) return join(token, hash)
        return known instanceof AuthError.AuthError ? Effect.fail(known) : Effect.succeed(known)
      })

    return Authenticator.makeNow({ schemes: ["Bearer"], authenticate }, (headers, fiber) => {
      const token = rawAuthorization(headers, "bearer")
      if (token === undefined) return Option.none()
      return token === ambiguous || token.length > maxToken ? undefined : recall(sha256Hex(token), fiber)
    })
  })

const maxToken = 16_384

const unavailable = (why: string): Effect.Effect<never, AuthError.AuthError> =>
  Effect.andThen(
    Effect.logWarning(`effect-toolops: a token could not be asked about: ${why}`),
    Effect.fail(AuthError.refused("AuthUnavailable"))
  )

/**
 * Provides the authenticator that asks the issuer about each token.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Authenticator.Authenticator, never, HttpClient.HttpClient> => {
  const settings = check("TokenIntrospection.layer", options)
  return Layer.effect(Authenticator.Authenticator, fromSettings(settings))
}

/**
 * Provides `layer` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<Authenticator.Authenticator, Config.ConfigError, HttpClient.HttpClient> =>
  Layer.effect(
    Authenticator.Authenticator,
    Effect.flatMap(Config.unwrap(options), (value) => fromSettings(check("TokenIntrospection.layerConfig", value)))
  )
