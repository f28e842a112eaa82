import * as Redacted from "effect/Redacted"
import * as Check from "../../internal/options.ts"
import type { Algorithm, Key, VerifyOptions } from "../Jwt.ts"
import { claimPath, type ClaimRules } from "./jwtClaims.ts"
import * as JwtKey from "./jwtKey.ts"
import { isObject } from "./strictJson.ts"

// The options of `Jwt`, checked. What makes no sense throws here, before anything is built.

/** Every member of the options but `keys`. */
export const verifyNames: { readonly [K in keyof Required<VerifyOptions>]: true } = {
  algorithms: true,
  issuer: true,
  audience: true,
  typ: true,
  clockTolerance: true,
  maxTokenAge: true,
  maxBytes: true,
  principalClaim: true,
  tenantClaim: true,
  rolesClaim: true,
  cache: true
}

/** The checked options. */
export interface Rules extends ClaimRules {
  readonly algorithms: ReadonlyArray<Algorithm>
  readonly types: ReadonlyArray<string | undefined>
  readonly maxBytes: number
  readonly cacheEntries: number
  readonly cacheMillis: number
}

/** Checks what is asked of a token. */
export const checkRules = (where: string, options: VerifyOptions): Rules => {
  const { algorithms, audience, issuer } = options
  if (!Array.isArray(algorithms) || algorithms.length === 0 || !algorithms.every(JwtKey.isAlgorithm)) {
    throw new TypeError(`${where}: algorithms must be a list of ${Object.keys(JwtKey.algorithms).join(", ")}`)
  }
  if (algorithms.some(JwtKey.isSymmetric) && !algorithms.every(JwtKey.isSymmetric)) {
    throw new TypeError(`${where}: algorithms must not mix HMAC with public keys`)
  }
  if (typeof issuer !== "string" || issuer === "") throw new TypeError(`${where}: issuer must be a non-empty string`)
  const audiences = typeof audience === "string" ? [audience] : audience
  if (!Array.isArray(audiences) || audiences.length === 0 || audiences.some((a) => typeof a !== "string" || a === "")) {
    throw new TypeError(`${where}: audience must be a non-empty string or a list of them`)
  }
  const typ = Check.oneOf(where, "typ", options.typ ?? "JWT", ["JWT", "at+jwt"])
  const clockTolerance = Check.millis(where, "clockTolerance", options.clockTolerance ?? "30 seconds", {
    allowZero: true
  })
  if (clockTolerance > 300_000) {
    throw new RangeError(`${where}: clockTolerance must be at most 5 minutes, got ${clockTolerance} ms`)
  }
  const cache = options.cache ?? {}
  Check.known(`${where}: cache`, cache, ["maxEntries", "timeToLive"])
  return {
    algorithms: [...algorithms],
    issuer,
    audiences: [...audiences],
    types: typ === "JWT" ? [undefined, "jwt", "at+jwt"] : ["at+jwt"],
    requireAccessToken: typ === "at+jwt",
    clockTolerance,
    maxTokenAge: options.maxTokenAge === undefined ? Infinity : Check.millis(where, "maxTokenAge", options.maxTokenAge),
    maxBytes: Check.integer(where, "maxBytes", options.maxBytes ?? 16_384, 64, 16_384),
    principal: claimPath(where, "principalClaim", options.principalClaim ?? "sub"),
    tenant: options.tenantClaim === undefined ? undefined : claimPath(where, "tenantClaim", options.tenantClaim),
    roles: claimPath(where, "rolesClaim", options.rolesClaim ?? "roles"),
    cacheEntries: Check.integer(where, "cache.maxEntries", cache.maxEntries ?? 10_000, 1),
    cacheMillis: Check.millis(where, "cache.timeToLive", cache.timeToLive ?? "5 minutes", { allowZero: true })
  }
}

const secretBytes = (secret: Redacted.Redacted<string> | Redacted.Redacted<Uint8Array>): Uint8Array => {
  const value: unknown = Redacted.isRedacted(secret) ? Redacted.value<unknown>(secret) : undefined
  return typeof value === "string"
    ? new TextEncoder().encode(value)
    : value instanceof Uint8Array
    ? value
    : new Uint8Array()
}

/** Says how to import each key. What can be seen to be wrong without importing it throws at once. */
export const checkKeys = (
  where: string,
  keys: ReadonlyArray<Key>,
  names: ReadonlyArray<Algorithm>
): ReadonlyArray<() => Promise<JwtKey.VerificationKey>> => {
  if (!Array.isArray(keys) || keys.length === 0) throw new TypeError(`${where}: keys must hold at least one key`)
  const kids = new Set<string>()
  return (keys as ReadonlyArray<Key>).map((key, index) => {
    const name = `${where}: key ${index}`
    if (!isObject(key)) throw new TypeError(`${name} must have one of secret, jwk and pem`)
    if (Object.keys(key).filter((member) => member !== "kid").length !== 1) {
      throw new TypeError(`${name} must have exactly one of secret, jwk and pem`)
    }
    if ("jwk" in key && "kid" in key) throw new TypeError(`${name}: the kid of a jwk is a member of the jwk`)
    const kid: unknown = "jwk" in key ? isObject(key.jwk) ? key.jwk.kid : undefined : key.kid
    if (kid !== undefined) {
      if (typeof kid !== "string" || kid === "") throw new TypeError(`${name}: kid must be a non-empty string`)
      if (kids.has(kid)) throw new TypeError(`${name}: two keys have the kid ${JSON.stringify(kid)}`)
      kids.add(kid)
    }
    if ("jwk" in key) {
      const found = JwtKey.fits(key.jwk, names)
      if (typeof found === "string") throw new TypeError(`${name}: ${found}`)
      return () => JwtKey.importJwk(key.jwk, found)
    }
    if ("pem" in key) {
      if (typeof key.pem !== "string" || !/-----BEGIN (?:PUBLIC KEY|CERTIFICATE)-----/.test(key.pem)) {
        throw new TypeError(`${name}: pem must be a public key or a certificate`)
      }
      if (names.some(JwtKey.isSymmetric)) throw new TypeError(`${name}: a public key fits no HMAC algorithm`)
      return () => JwtKey.importPem(key.pem, kid, names)
    }
    if (!("secret" in key)) throw new TypeError(`${name} must have one of secret, jwk and pem`)
    const bytes = secretBytes(key.secret)
    if (!names.every(JwtKey.isSymmetric)) throw new TypeError(`${name}: a secret fits no public-key algorithm`)
    for (const algorithm of names) {
      const needs = JwtKey.algorithms[algorithm]
      if ("bytes" in needs && bytes.length < needs.bytes) {
        throw new TypeError(`${name}: secret must be Redacted and have at least ${needs.bytes} bytes for ${algorithm}`)
      }
    }
    if (new TextDecoder().decode(bytes).includes("-----BEGIN")) {
      throw new TypeError(`${name}: secret must not be a PEM text`)
    }
    return () => JwtKey.importSecret(bytes, kid, names)
  })
}
