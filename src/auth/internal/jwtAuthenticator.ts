import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Jose from "jose"
import { LRUCache } from "lru-cache"
import { sha256Hex } from "../../internal/hash.ts"
import { monotonicMillis } from "../../internal/monotonic.ts"
import type { RequestHeadersInput } from "../../ToolCall.ts"
import * as Authenticator from "../Authenticator.ts"
import * as AuthError from "../AuthError.ts"
import type * as Identity from "../Identity.ts"
import { ambiguous, authorization, rawAuthorization } from "./credentials.ts"
import type { Answer } from "./findCaller.ts"
import { toIdentity } from "./jwtClaims.ts"
import * as JwtKey from "./jwtKey.ts"
import type { Rules } from "./jwtOptions.ts"
import { compactParts, isObject, parseStrictBytes } from "./strictJson.ts"

// The authenticator of tokens, whatever its keys come from.

interface Header {
  readonly algorithm: JwtKey.Algorithm
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

/** Makes the authenticator of tokens that are signed with a key of `source` and say what `rules` ask. */
export const fromSource = (source: JwtKey.KeySource, rules: Rules): Authenticator.Service => {
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
