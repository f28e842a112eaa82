/**
 * Authentication by JSON Web Token, in `Authorization: Bearer`.
 *
 * Built on `jose` for the cryptography, and stricter than it: what RFC 8725 advises is required here, and a token that
 * two readers could read in two ways is refused. Keys come from the options (`layer`) or from a `Jwks` (`layerJwks`).
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Jose from "jose"
import { LRUCache } from "lru-cache"
import { sha256Hex } from "../internal/hash.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import type { RequestHeadersInput } from "../ToolCall.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import type * as Identity from "./Identity.ts"
import { ambiguous, authorization, rawAuthorization } from "./internal/credentials.ts"
import type { Answer } from "./internal/findCaller.ts"
import { toIdentity } from "./internal/jwtClaims.ts"
import * as JwtKey from "./internal/jwtKey.ts"
import { checkKeys, checkRules, type Rules, verifyNames } from "./internal/jwtOptions.ts"
import { compactParts, isObject, parseStrictBytes } from "./internal/strictJson.ts"
import * as Jwks from "./Jwks.ts"

/**
 * The algorithms that a token may be signed with. `none` is not one of them.
 *
 * @category models
 * @since 0.1.0
 */
export type Algorithm = JwtKey.Algorithm

/**
 * What is asked of a token.
 *
 * - `algorithms`: the algorithms that are allowed. HMAC and public keys cannot be mixed.
 * - `issuer`: what `iss` must be, to the letter.
 * - `audience`: who this server is; `aud` must name it, or one of the list.
 * - `typ`: `JWT` takes tokens whose `typ` is absent, `JWT` or `at+jwt`; `at+jwt` takes access tokens of RFC 9068 alone,
 *   with all claims that it requires. Default `JWT`.
 * - `clockTolerance`: how far the issuer's clock may be off. Default 30 seconds, at most 5 minutes. The `expiresAt` of an
 *   identity has it included: it is the moment from which the token is refused.
 * - `maxTokenAge`: how long after `iat` a token is taken at most; `iat` is required then. Default none.
 * - `maxBytes`: the longest token that is looked at. Default 16,384, which is also the most.
 * - `principalClaim`: default `sub`. `tenantClaim`: default none. `rolesClaim`: default `roles`. A list is a path:
 *   `["realm_access", "roles"]`.
 * - `cache`: verified tokens are kept by their hash until they expire, at most `maxEntries` (default 10,000) and for at
 *   most `timeToLive` (default 5 minutes; 0 turns it off).
 *
 * Scopes are those of `scope`, else of `scp`.
 *
 * @category options
 * @since 0.1.0
 */
export interface VerifyOptions {
  readonly algorithms: ReadonlyArray<Algorithm>
  readonly issuer: string
  readonly audience: string | ReadonlyArray<string>
  readonly typ?: "JWT" | "at+jwt" | undefined
  readonly clockTolerance?: Duration.Input | undefined
  readonly maxTokenAge?: Duration.Input | undefined
  readonly maxBytes?: number | undefined
  readonly principalClaim?: string | ReadonlyArray<string> | undefined
  readonly tenantClaim?: string | ReadonlyArray<string> | undefined
  readonly rolesClaim?: string | ReadonlyArray<string> | undefined
  readonly cache?:
    | { readonly maxEntries?: number | undefined; readonly timeToLive?: Duration.Input | undefined }
    | undefined
}

/**
 * A key to verify with. A `kid` is compared with the one of the token.
 *
 * - `secret`: for HMAC, at least as long as the hash of each allowed algorithm (32, 48, 64 bytes); text is UTF-8.
 * - `jwk`: a public JSON Web Key. `pem`: a public key (`BEGIN PUBLIC KEY`) or a certificate.
 *
 * @category options
 * @since 0.1.0
 */
export type Key =
  | { readonly secret: Redacted.Redacted<string> | Redacted.Redacted<Uint8Array>; readonly kid?: string | undefined }
  | { readonly jwk: Readonly<Record<string, unknown>> }
  | { readonly pem: string; readonly kid?: string | undefined }

/**
 * What `make` and `layer` take: `VerifyOptions`, and `keys`, of which there must be one at least.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends VerifyOptions {
  readonly keys: ReadonlyArray<Key>
}

interface Header {
  readonly algorithm: Algorithm
  readonly kid: string | undefined
  readonly only: { readonly algorithms: Array<string> }
}

type Running = Fiber.Fiber<unknown, unknown>

const wallClock = (fiber: Running): number => fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()

// Members that bring a key along or change what is signed. None is needed to verify with keys that are known.
const refusedMembers = ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"]

const readHeader = (part: string, rules: Rules): Header | AuthError.AuthError => {
  const header = parseStrictBytes(Jose.base64url.decode(part))
  if (!isObject(header) || refusedMembers.some((name) => Object.hasOwn(header, name))) {
    return AuthError.refused("TokenMalformed")
  }
  const { alg, kid, typ } = header
  if (typ !== undefined && typeof typ !== "string") return AuthError.refused("TokenMalformed")
  if (kid !== undefined && (typeof kid !== "string" || kid.length > 1024)) return AuthError.refused("TokenMalformed")
  if (!rules.types.includes(typ?.toLowerCase().replace(/^application\//, ""))) {
    return AuthError.refused("InvalidCredentials")
  }
  return JwtKey.isAlgorithm(alg) && rules.algorithms.includes(alg)
    ? { algorithm: alg, kid, only: { algorithms: [alg] } }
    : AuthError.refused("InvalidCredentials")
}

interface Verified {
  readonly answer: Option.Option<Identity.Identity>
  readonly key: JwtKey.VerificationKey
  readonly expiresAt: number
  readonly keptUntil: number
}

const fromSource = (source: JwtKey.KeySource, rules: Rules): Authenticator.Service => {
  const cache = rules.cacheMillis === 0 ? undefined : new LRUCache<string, Verified>({ max: rules.cacheEntries })
  // An issuer writes the same few headers all day.
  const headers = new LRUCache<string, Header>({ max: 100 })

  const headerOf = (part: string): Header | AuthError.AuthError => {
    const known = headers.get(part)
    if (known !== undefined) return known
    const header = readHeader(part, rules)
    if (!(header instanceof AuthError.AuthError)) headers.set(part, header)
    return header
  }

  const verify = (
    token: string,
    hash: string,
    fiber: Running
  ): Effect.Effect<Option.Option<Identity.Identity>, AuthError.AuthError> => {
    const parts = compactParts(token)
    if (parts === undefined) return Effect.fail(AuthError.refused("TokenMalformed"))
    const header = headerOf(parts.header)
    if (header instanceof AuthError.AuthError) return Effect.fail(header)
    return Effect.flatMapEager(source.find(header.algorithm, header.kid), (key) =>
      Effect.flatMap(
        Effect.tryPromise({
          try: () => Jose.compactVerify(token, key.ready.get(header.algorithm)!, header.only),
          catch: (error) =>
            AuthError.refused(error instanceof Jose.errors.JOSEError ? "InvalidCredentials" : "AuthUnavailable")
        }),
        ({ payload }) => {
          const identity = toIdentity(parseStrictBytes(payload), rules, wallClock(fiber))
          if (identity instanceof AuthError.AuthError) return Effect.fail(identity)
          const answer = Option.some(identity)
          cache?.set(hash, {
            answer,
            key,
            expiresAt: DateTime.toEpochMillis(identity.expiresAt!),
            keptUntil: monotonicMillis(fiber) + rules.cacheMillis
          })
          return Effect.succeed(answer)
        }
      ))
  }

  // The token of a request, before anything is done with it.
  const tokenOf = (headers: RequestHeadersInput): string | AuthError.AuthError | undefined => {
    const token = authorization(headers, "bearer")
    if (token === undefined) return undefined
    if (token === ambiguous) return AuthError.refused("InvalidCredentials")
    return token.length > rules.maxBytes ? AuthError.refused("TokenMalformed") : token
  }

  // What is known of a token that has been verified before, if that still counts.
  const recall = (hash: string, fiber: Running): Answer | undefined => {
    const known = cache?.get(hash)
    if (known === undefined) return undefined
    if (wallClock(fiber) >= known.expiresAt) {
      cache?.delete(hash)
      return AuthError.refused("TokenExpired")
    }
    // A key that has been withdrawn takes the tokens with it that were verified with it.
    if (monotonicMillis(fiber) < known.keptUntil && source.isTrusted(known.key, fiber)) return known.answer
    cache?.delete(hash)
    return undefined
  }

  const options: Authenticator.Options = {
    schemes: ["Bearer"],
    authenticate: (headers) =>
      Effect.withFiber((fiber) => {
        const token = tokenOf(headers)
        if (token === undefined) return Effect.succeedNone
        if (token instanceof AuthError.AuthError) return Effect.fail(token)
        if (cache === undefined) return verify(token, "", fiber)
        const hash = sha256Hex(token)
        const known = recall(hash, fiber)
        if (known === undefined) return verify(token, hash, fiber)
        return known instanceof AuthError.AuthError ? Effect.fail(known) : Effect.succeed(known)
      })
  }
  if (cache === undefined) return Authenticator.make(options)
  return Authenticator.makeNow(options, (headers, fiber) => {
    // Whatever is not well-formed has never been verified, so it need not be looked at to be sent the long way.
    const token = rawAuthorization(headers, "bearer")
    if (token === undefined) return Option.none()
    return token === ambiguous || token.length > rules.maxBytes ? undefined : recall(sha256Hex(token), fiber)
  })
}

const prepare = (where: string, options: Options): Effect.Effect<Authenticator.Service> => {
  Check.known(where, options, [...Object.keys(verifyNames), "keys"])
  const rules = checkRules(where, options)
  const imports = checkKeys(where, options.keys, rules.algorithms)
  return Effect.map(
    Effect.promise(() => Promise.all(imports.map((load) => load()))),
    (keys) =>
      fromSource({
        find: (algorithm, kid) => {
          const key = JwtKey.select(keys, algorithm, kid)
          return key === undefined ? Effect.fail(AuthError.refused("KeyNotFound")) : Effect.succeed(key)
        },
        isTrusted: () => true
      }, rules)
  )
}

/**
 * Makes an authenticator of tokens that are signed with one of the given keys. Throws for options that make no sense,
 * and dies for a key that cannot be imported.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Effect.Effect<Authenticator.Service> => prepare("Jwt.make", options)

/**
 * Provides the authenticator of tokens that are signed with one of the given keys. See `make`.
 *
 * **Example** (A shared secret)
 *
 * ```ts
 * import { Effect, Redacted } from "effect"
 * import { Authenticator, Jwt } from "effect-toolops/auth"
 * import { SignJWT } from "jose"
 *
 * const secret = "no secret but an example, 32 bytes or more"
 * const Tokens = Jwt.layer({
 *   algorithms: ["HS256"],
 *   keys: [{ secret: Redacted.make(secret) }],
 *   issuer: "https://issuer.example",
 *   audience: "https://tools.example"
 * })
 *
 * const token = await new SignJWT({ roles: ["reader"] }).setProtectedHeader({ alg: "HS256" }).setSubject("ada")
 *   .setIssuer("https://issuer.example").setAudience("https://tools.example").setExpirationTime("5m")
 *   .sign(new TextEncoder().encode(secret))
 *
 * const program = Effect.gen(function*() {
 *   const authenticator = yield* Authenticator.Authenticator
 *   return yield* Authenticator.identify(authenticator, { authorization: `Bearer ${token}` })
 * })
 *
 * const who = await Effect.runPromise(Effect.provide(program, Tokens))
 * who.principal // => "ada"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Authenticator.Authenticator> =>
  Layer.effect(Authenticator.Authenticator, prepare("Jwt.layer", options))

/**
 * Provides `layer` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<Authenticator.Authenticator, Config.ConfigError> =>
  Layer.effect(
    Authenticator.Authenticator,
    Effect.flatMap(Config.unwrap(options), (value) => prepare("Jwt.layerConfig", value))
  )

const fromJwks = (where: string, options: VerifyOptions): Effect.Effect<Authenticator.Service, never, Jwks.Jwks> => {
  Check.known(where, options, Object.keys(verifyNames))
  const rules = checkRules(where, options)
  if (rules.algorithms.some(JwtKey.isSymmetric)) {
    throw new TypeError(`${where}: algorithms must not be HMAC, a key set is public`)
  }
  return Effect.map(Jwks.Jwks, (jwks) => fromSource(jwks, rules))
}

/**
 * Provides the authenticator of tokens that are signed with a key of the program's `Jwks`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerJwks = (
  options: VerifyOptions
): Layer.Layer<Authenticator.Authenticator, never, Jwks.Jwks> =>
  Layer.effect(Authenticator.Authenticator, fromJwks("Jwt.layerJwks", options))

/**
 * Provides `layerJwks` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerJwksConfig = (
  options: Config.Wrap<VerifyOptions>
): Layer.Layer<Authenticator.Authenticator, Config.ConfigError, Jwks.Jwks> =>
  Layer.effect(
    Authenticator.Authenticator,
    Effect.flatMap(Config.unwrap(options), (value) => fromJwks("Jwt.layerJwksConfig", value))
  )
