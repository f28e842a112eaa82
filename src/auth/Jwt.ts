/**
 * Authentication by JSON Web Token, in `Authorization: Bearer`.
 *
 * Built on `jose` for the cryptography, and stricter than it: what RFC 8725 advises is required here, and a token that
 * two readers could read in two ways is refused. Keys come from the options (`layer`) or from a `Jwks` (`layerJwks`).
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Check from "../internal/options.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import { fromSource } from "./internal/jwtAuthenticator.ts"
import * as JwtKey from "./internal/jwtKey.ts"
import { checkKeys, checkRules, verifyNames } from "./internal/jwtOptions.ts"
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
 * Scopes are those of `scope`, else of `scp`. The `issuer` of the identity is the `iss` that has been verified.
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
 * A key to verify with. A `kid` is compared with the one of the token; that of a `jwk` is a member of the `jwk`.
 *
 * - `secret`: for HMAC, at least as long as the hash of each allowed algorithm (32, 48, 64 bytes); text is UTF-8.
 * - `jwk`: a public JSON Web Key. `pem`: a public key (`BEGIN PUBLIC KEY`) or a certificate, of which
 *   only the key counts: its dates and who signed it are not looked at.
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
