/**
 * Authentication by a bearer token that only its issuer can read (RFC 7662).
 *
 * Every token that is not known yet is asked about; callers with the same token share one request. What is known is used
 * for a short time, never past the end of the token, so a revoked token is refused that much later at most.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { LRUCache } from "lru-cache"
import { boundedFetch, checkUrl } from "../internal/boundedFetch.ts"
import { sha256Hex } from "../internal/hash.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import * as Identity from "./Identity.ts"
import { ambiguous, authorization, rawAuthorization } from "./internal/credentials.ts"
import type { Answer } from "./internal/findCaller.ts"
import { at, claimPath, isFor, isName, millisOf, scopesOf, strings } from "./internal/jwtClaims.ts"
import { isObject, parseStrictBytes } from "./internal/strictJson.ts"

/**
 * Whom to ask and what to make of the answer.
 *
 * - `url`: the introspection endpoint: https, or http on loopback; `allowInsecureHttp: true` allows http elsewhere.
 * - `clientId`, `clientSecret`: who asks. `clientAuthentication`: in the `Authorization` header (`basic`, default) or in
 *   the body (`post`).
 * - `audience`: who this server is; the answer's `aud` must name it, or one of the list. `false` takes tokens that were
 *   made for any server, which is safe only where the issuer answers for this one alone.
 * - `issuer`: what the answer's `iss` must be. Default: not checked.
 * - `clockTolerance`: how far the issuer's clock may be off. Default 30 seconds, at most 5 minutes.
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

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  url: true,
  allowInsecureHttp: true,
  clientId: true,
  clientSecret: true,
  clientAuthentication: true,
  audience: true,
  issuer: true,
  clockTolerance: true,
  principalClaim: true,
  tenantClaim: true,
  rolesClaim: true,
  cacheTtl: true,
  maxEntries: true,
  timeout: true,
  maxBytes: true,
  maxConcurrent: true
}

const check = (where: string, options: Options) => {
  Check.known(where, options, Object.keys(optionNames))
  const { audience, clientId, clientSecret, issuer } = options
  if (typeof clientId !== "string" || clientId === "") {
    throw new TypeError(`${where}: clientId must be a non-empty string`)
  }
  if (!Redacted.isRedacted(clientSecret) || Redacted.value<unknown>(clientSecret) === "") {
    throw new TypeError(`${where}: clientSecret must be a Redacted, non-empty string`)
  }
  const audiences = typeof audience === "string" ? [audience] : audience
  if (audiences !== false && (!Array.isArray(audiences) || audiences.length === 0 || !audiences.every(isName))) {
    throw new TypeError(`${where}: audience must be a non-empty string, a list of them, or false`)
  }
  if (issuer !== undefined && !isName(issuer)) throw new TypeError(`${where}: issuer must be a non-empty string`)
  const clockTolerance = Check.millis(where, "clockTolerance", options.clockTolerance ?? "30 seconds", {
    allowZero: true
  })
  if (clockTolerance > 300_000) {
    throw new RangeError(`${where}: clockTolerance must be at most 5 minutes, got ${clockTolerance} ms`)
  }
  return {
    url: checkUrl(where, options.url, options.allowInsecureHttp === true),
    clientId,
    clientSecret,
    isBasic: Check.oneOf(where, "clientAuthentication", options.clientAuthentication ?? "basic", ["basic", "post"]) ===
      "basic",
    audiences,
    issuer,
    clockTolerance,
    principal: claimPath(where, "principalClaim", options.principalClaim ?? "sub"),
    tenant: options.tenantClaim === undefined ? undefined : claimPath(where, "tenantClaim", options.tenantClaim),
    roles: claimPath(where, "rolesClaim", options.rolesClaim ?? "roles"),
    cacheTtl: Check.millis(where, "cacheTtl", options.cacheTtl ?? "30 seconds", { allowZero: true }),
    maxEntries: Check.integer(where, "maxEntries", options.maxEntries ?? 10_000, 1),
    timeout: Check.millis(where, "timeout", options.timeout ?? "5 seconds"),
    maxBytes: Check.integer(where, "maxBytes", options.maxBytes ?? 65_536, 1, 1_048_576),
    maxConcurrent: Check.integer(where, "maxConcurrent", options.maxConcurrent ?? 100, 1)
  }
}

type Settings = ReturnType<typeof check>

// RFC 6749, 2.3.1: both parts are form-encoded before they are joined, so a colon in the id cannot move the border.
const formEncode = (value: string): string => new URLSearchParams([["", value]]).toString().slice(1)

const requestFor = (settings: Settings, token: string): HttpClientRequest.HttpClientRequest => {
  const secret = Redacted.value(settings.clientSecret)
  const form = new URLSearchParams({ token, token_type_hint: "access_token" })
  if (!settings.isBasic) {
    form.set("client_id", settings.clientId)
    form.set("client_secret", secret)
  }
  const request = HttpClientRequest.post(settings.url.href, { headers: { accept: "application/json" } }).pipe(
    HttpClientRequest.bodyText(form.toString(), "application/x-www-form-urlencoded")
  )
  return settings.isBasic
    ? HttpClientRequest.setHeader(
      request,
      "authorization",
      `Basic ${btoa(`${formEncode(settings.clientId)}:${formEncode(secret)}`)}`
    )
    : request
}

const isAbsentOr = (value: unknown, is: (value: unknown) => boolean): boolean => value === undefined || is(value)

// Who the token stands for, by what its issuer says. An answer without `active` is no answer.
const toIdentity = (answer: unknown, settings: Settings, now: number): Identity.Identity | AuthError.AuthError => {
  if (!isObject(answer) || typeof answer.active !== "boolean") return AuthError.refused("AuthUnavailable")
  if (!answer.active) return AuthError.refused("TokenInactive")
  const { clockTolerance } = settings
  const { exp, iat, nbf } = answer
  for (const time of [exp, iat, nbf]) {
    if (!isAbsentOr(time, (value) => millisOf(value) !== undefined)) return AuthError.refused("TokenMalformed")
  }
  const expiresAt = exp === undefined ? undefined : millisOf(exp)! + clockTolerance
  if (expiresAt !== undefined && now >= expiresAt) return AuthError.refused("TokenExpired")
  if (nbf !== undefined && now < millisOf(nbf)! - clockTolerance) return AuthError.refused("TokenInactive")
  if (settings.issuer !== undefined && answer.iss !== settings.issuer) return AuthError.refused("InvalidCredentials")
  if (settings.audiences !== false && isFor(answer.aud, settings.audiences) !== true) {
    return AuthError.refused("InvalidCredentials")
  }
  const principal = at(answer, settings.principal)
  const tenant = settings.tenant === undefined ? undefined : at(answer, settings.tenant)
  const held = at(answer, settings.roles)
  const roles = held === undefined ? [] : strings(held)
  const scopes = scopesOf(answer)
  if (!isName(principal) || !isAbsentOr(tenant, isName) || roles === undefined || scopes === undefined) {
    return AuthError.refused("TokenMalformed")
  }
  return Identity.make({
    principal,
    tenant: tenant as string | undefined,
    roles,
    scopes,
    method: "introspection",
    claims: answer,
    expiresAt: expiresAt === undefined ? undefined : DateTime.makeUnsafe(Math.min(Math.floor(expiresAt), 8.64e15)),
    issuedAt: iat === undefined ? undefined : DateTime.makeUnsafe(Math.floor(millisOf(iat)!))
  })
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
            const identity = toIdentity(answer, settings, now)
            if (identity instanceof AuthError.AuthError) {
              return identity.reason._tag === "AuthUnavailable" ? unavailable("not an answer") : Effect.fail(identity)
            }
            const found = Option.some(identity)
            cache?.set(hash, {
              answer: found,
              expiresAt: identity.expiresAt === undefined ? Infinity : DateTime.toEpochMillis(identity.expiresAt),
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
        return AuthError.refused("TokenExpired")
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
