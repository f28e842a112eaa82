/**
 * Authentication by API key, in the header `X-API-Key`.
 *
 * A key is a secret of high entropy, so its SHA-256 is all that is kept (or its HMAC, with a pepper that is not where the
 * hashes are). Make keys with `generate`; words that people choose are passwords and do not belong here. A key is valid
 * from `notBefore` on and before `expiresAt`, not at it.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { equalText, hmacSha256Bytes, hmacSha256Hex, randomBytes, sha256Bytes, sha256Hex } from "../internal/hash.ts"
import * as Check from "../internal/options.ts"
import type { RequestHeadersInput } from "../ToolCall.ts"
import { type ApiKeyRecord, ApiKeyStore, checkPepper, minimumKeyLength } from "./ApiKeyStore.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import * as Identity from "./Identity.ts"
import { defaultPrefix, hasChecksum, keyWithChecksum } from "./internal/apiKey.ts"
import { ambiguous, header } from "./internal/credentials.ts"

export * from "./ApiKeyStore.ts"

/**
 * How keys are read.
 *
 * - `header`: the name of the header, in any case; not `Authorization`, whose credentials have a scheme. Default
 *   `X-API-Key`.
 * - `prefix`: what generated keys start with, before the first `_`: 1 to 32 of `a-z 0-9`. A key that starts so and has
 *   a wrong checksum is refused, also where somebody has registered it. Default `tk`.
 * - `pepper`: a secret of at least 32 characters that hashes are keyed with. The store must have been filled with the
 *   same. Default none.
 * - `maxLength`: the longest key that is hashed at all, in characters. Default 512.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly header?: string | undefined
  readonly prefix?: string | undefined
  readonly pepper?: Redacted.Redacted<string> | undefined
  readonly maxLength?: number | undefined
}

const checkPrefix = (where: string, prefix: string): string => {
  if (typeof prefix !== "string" || !/^[a-z0-9]{1,32}$/.test(prefix)) {
    throw new TypeError(`${where}: prefix must be 1 to 32 of the characters a-z 0-9`)
  }
  return prefix
}

type Running = Fiber.Fiber<unknown, unknown>

const wallClock = (fiber: Running): number => fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()

const toIdentity = (record: ApiKeyRecord): Identity.Identity =>
  Identity.make({
    principal: record.principal,
    tenant: record.tenant,
    roles: record.roles,
    scopes: record.scopes,
    method: "api_key",
    claims: { ...record.metadata, keyId: record.id },
    expiresAt: record.expiresAt
  })

/**
 * Makes an authenticator of API keys that asks the given store for each call, so a revoked key is refused at once.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (store: ApiKeyStore["Service"], options: Options = {}): Authenticator.Service => {
  const where = "ApiKey.make"
  Check.known(where, options, ["header", "prefix", "pepper", "maxLength"])
  const name = (options.header ?? "X-API-Key").toLowerCase()
  if (!/^[a-z0-9!#$%&'*+\-.^_`|~]+$/.test(name)) throw new TypeError(`${where}: header must be the name of a header`)
  if (name === "authorization") throw new TypeError(`${where}: header must not be Authorization`)
  const start = `${checkPrefix(where, options.prefix ?? defaultPrefix)}_`
  const pepper = checkPepper(where, options.pepper)
  const maxLength = Check.integer(where, "maxLength", options.maxLength ?? 512, minimumKeyLength, 16_384)
  const secret = pepper === undefined ? undefined : Redacted.value(pepper)
  const hash = secret === undefined ? sha256Hex : (key: string) => hmacSha256Hex(secret, key)
  // The key that a request shows.
  const keyOf = (headers: RequestHeadersInput): string | AuthError.AuthError | undefined => {
    const key = header(headers, name)
    if (key === undefined) return undefined
    return key === ambiguous || key.length === 0 || key.length > maxLength
      ? AuthError.refused("InvalidCredentials")
      : key
  }
  const isSound = (key: string): boolean => !key.startsWith(start) || hasChecksum(key, start.length)

  // Why a key may not be used now, if so.
  const flawOf = ({ expiresAt, notBefore }: ApiKeyRecord, fiber: Running): AuthError.AuthError | undefined => {
    if (notBefore !== undefined && wallClock(fiber) < DateTime.toEpochMillis(notBefore)) {
      return AuthError.refused("TokenInactive")
    }
    return expiresAt !== undefined && wallClock(fiber) >= DateTime.toEpochMillis(expiresAt)
      ? AuthError.refused("TokenExpired")
      : undefined
  }

  const authenticate: Authenticator.Service["authenticate"] = (headers) =>
    Effect.withFiber((fiber) => {
      const key = keyOf(headers)
      if (key === undefined) return Effect.succeedNone
      if (key instanceof AuthError.AuthError) return Effect.fail(key)
      if (!isSound(key)) return Effect.fail(AuthError.refused("InvalidCredentials"))
      const hashed = hash(key)
      return Effect.matchCauseEffect(store.find(hashed), {
        // A defect goes on to where all defects of authenticators are dealt with.
        onFailure: (cause): Effect.Effect<never, AuthError.AuthError> =>
          cause.reasons.some(Cause.isFailReason)
            ? Effect.andThen(
              Effect.logError("effect-toolops: the API key store does not answer, the call was refused"),
              Effect.fail(AuthError.refused("AuthUnavailable"))
            )
            : Effect.failCause(Cause.fromReasons(cause.reasons.filter((reason) => !Cause.isFailReason(reason)))),
        onSuccess: (found) => {
          // The hash is compared again, since a store may compare texts in its own way.
          if (Option.isNone(found) || !equalText(found.value.hash, hashed)) {
            return Effect.fail(AuthError.refused("InvalidCredentials"))
          }
          const flaw = flawOf(found.value, fiber)
          return flaw === undefined ? Effect.succeedSome(toIdentity(found.value)) : Effect.fail(flaw)
        }
      })
    })

  const findNow = store["~find"]
  if (findNow === undefined) return Authenticator.make({ authenticate })
  const digest = secret === undefined ? sha256Bytes : (key: string) => hmacSha256Bytes(secret, key)
  // Looking a key up in memory is cheaper than its checksum, which is looked at once.
  return Authenticator.makeNow({ authenticate }, (headers, fiber) => {
    const key = keyOf(headers)
    if (key === undefined) return Option.none()
    if (key instanceof AuthError.AuthError) return key
    const kept = findNow(digest(key))
    if (kept === undefined) return AuthError.refused("InvalidCredentials")
    if (kept.soundAfter !== start) {
      if (!isSound(key)) return AuthError.refused("InvalidCredentials")
      kept.soundAfter = start
    }
    return flawOf(kept.record, fiber) ?? (kept.identity ??= Option.some(toIdentity(kept.record)))
  })
}

/**
 * Provides the authenticator of API keys.
 *
 * **Example** (Giving a key out and taking it back)
 *
 * ```ts
 * import { Effect, Layer, Redacted } from "effect"
 * import { ApiKey, Authenticator } from "effect-toolops/auth"
 *
 * const program = Effect.gen(function*() {
 *   const key = yield* ApiKey.generate()
 *   const store = yield* ApiKey.ApiKeyStore
 *   yield* store.register({ id: "ci", key, principal: "build-server" })
 *
 *   const authenticator = yield* Authenticator.Authenticator
 *   const request = Authenticator.identify(authenticator, { "X-Api-Key": Redacted.value(key) })
 *   const before = yield* request
 *   yield* store.revoke("ci")
 *   const after = yield* Effect.flip(request)
 *   return [before.principal, after.reason._tag]
 * })
 *
 * const Keys = ApiKey.layer().pipe(Layer.provideMerge(ApiKey.layerMemory()))
 * await Effect.runPromise(Effect.provide(program, Keys)) // => ["build-server", "InvalidCredentials"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Authenticator.Authenticator, never, ApiKeyStore> =>
  Layer.effect(Authenticator.Authenticator, Effect.map(ApiKeyStore, (store) => make(store, options)))

/**
 * Provides `layer` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<Authenticator.Authenticator, Config.ConfigError, ApiKeyStore> =>
  Layer.effect(
    Authenticator.Authenticator,
    Effect.gen(function*() {
      const store = yield* ApiKeyStore
      return make(store, yield* Config.unwrap(options))
    })
  )

/**
 * Makes a new key: the prefix (default `tk`), `_`, 256 random bits and a checksum, in letters and digits.
 *
 * **Details**
 *
 * Hand the key to its owner and register it; nobody can read it again. The bits come from the system's secure source,
 * not from `Random`, whose numbers can be foretold.
 *
 * @category generating
 * @since 0.1.0
 */
export const generate = (
  options?: { readonly prefix?: string | undefined }
): Effect.Effect<Redacted.Redacted<string>> => {
  const start = `${checkPrefix("ApiKey.generate", options?.prefix ?? defaultPrefix)}_`
  return Effect.sync(() => Redacted.make(keyWithChecksum(start, randomBytes(32))))
}
