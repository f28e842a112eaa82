import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Jose from "jose"
import type { AuthError } from "../AuthError.ts"
import { isCanonicalBase64Url, isObject } from "./strictJson.ts"

// Keys that verify signatures, each bound to the algorithms that it may be used with (RFC 8725, 3.1).

/** What each algorithm needs of a key. `bytes` is the least length of an HMAC secret (RFC 7518, 3.2). */
export const algorithms = {
  HS256: { kty: "oct", bytes: 32, hash: "SHA-256" },
  HS384: { kty: "oct", bytes: 48, hash: "SHA-384" },
  HS512: { kty: "oct", bytes: 64, hash: "SHA-512" },
  RS256: { kty: "RSA" },
  RS384: { kty: "RSA" },
  RS512: { kty: "RSA" },
  PS256: { kty: "RSA" },
  PS384: { kty: "RSA" },
  PS512: { kty: "RSA" },
  ES256: { kty: "EC", crv: "P-256", bytes: 32 },
  ES384: { kty: "EC", crv: "P-384", bytes: 48 },
  ES512: { kty: "EC", crv: "P-521", bytes: 66 },
  EdDSA: { kty: "OKP", crv: "Ed25519", bytes: 32 },
  Ed25519: { kty: "OKP", crv: "Ed25519", bytes: 32 }
} as const

/** The name of an algorithm, as in the `alg` of a token. */
export type Algorithm = keyof typeof algorithms

/** Says whether a name is one of ours. Not every member of an object is: `constructor` is in each. */
export const isAlgorithm = (name: unknown): name is Algorithm =>
  typeof name === "string" && Object.hasOwn(algorithms, name)

/** Says whether an algorithm is symmetric. */
export const isSymmetric = (name: Algorithm): boolean => algorithms[name].kty === "oct"

/** A key that is ready for each algorithm that it fits. */
export interface VerificationKey {
  readonly kid: string | undefined
  readonly ready: ReadonlyMap<Algorithm, Jose.CryptoKey>
}

/** Where an authenticator gets keys. `isTrusted` says whether one that was found before still counts. */
export interface KeySource {
  readonly find: (algorithm: Algorithm, kid: string | undefined) => Effect.Effect<VerificationKey, AuthError>
  readonly isTrusted: (key: VerificationKey, fiber: Fiber.Fiber<unknown, unknown>) => boolean
}

/**
 * The key for an algorithm and a key id. A token without a key id is served only where exactly one key fits, and a key
 * without an id only where no other could be meant.
 */
export const select = (
  keys: ReadonlyArray<VerificationKey>,
  algorithm: Algorithm,
  kid: string | undefined
): VerificationKey | undefined => {
  const fitting = keys.filter((key) => key.ready.has(algorithm))
  if (kid === undefined) return fitting.length === 1 ? fitting[0] : undefined
  const named = fitting.find((key) => key.kid === kid)
  if (named !== undefined) return named
  const nameless = fitting.filter((key) => key.kid === undefined)
  return nameless.length === 1 ? nameless[0] : undefined
}

const bytesOf = (value: unknown): Uint8Array | undefined =>
  typeof value === "string" && isCanonicalBase64Url(value) ? Jose.base64url.decode(value) : undefined

const toBigInt = (bytes: Uint8Array): bigint => {
  let value = 0n
  for (const byte of bytes) value = value << 8n | BigInt(byte)
  return value
}

const bitLength = (bytes: Uint8Array): number => {
  const first = bytes.findIndex((byte) => byte !== 0)
  return first === -1 ? 0 : (bytes.length - first) * 8 - Math.clz32(bytes[first]!) + 24
}

const weakRsa = (bits: number, exponent: bigint): string | undefined =>
  bits < 2048 || bits > 8192
    ? "an RSA key must have 2048 to 8192 bits"
    : exponent < 65_537n || exponent % 2n === 0n
    ? "an RSA exponent must be odd and at least 65537"
    : undefined

const isPublicJwk = (jwk: Readonly<Record<string, unknown>>): string | undefined => {
  for (const member of ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"]) {
    if (Object.hasOwn(jwk, member)) return "not a public key"
  }
  switch (jwk.kty) {
    case "RSA": {
      const n = bytesOf(jwk.n)
      const e = bytesOf(jwk.e)
      return n === undefined || e === undefined || e.length > 8
        ? "malformed RSA key"
        : weakRsa(bitLength(n), toBigInt(e))
    }
    case "EC":
    case "OKP": {
      const needs = Object.values(algorithms).find((one) => "crv" in one && one.kty === jwk.kty && one.crv === jwk.crv)
      if (needs === undefined || !("bytes" in needs)) return "unknown curve"
      const isCoordinate = (value: unknown) => bytesOf(value)?.length === needs.bytes
      return isCoordinate(jwk.x) && (jwk.kty === "OKP" || isCoordinate(jwk.y)) ? undefined : "malformed coordinates"
    }
    default:
      return "unknown key type"
  }
}

/** The algorithms of `allowed` that a public JWK may be used with, or why it is of no use. */
export const fits = (jwk: unknown, allowed: ReadonlyArray<Algorithm>): ReadonlyArray<Algorithm> | string => {
  if (!isObject(jwk)) return "not a JWK"
  const flaw = isPublicJwk(jwk)
  if (flaw !== undefined) return flaw
  if (jwk.use !== undefined && jwk.use !== "sig") return "not for signatures"
  if (jwk.key_ops !== undefined && !(Array.isArray(jwk.key_ops) && jwk.key_ops.includes("verify"))) {
    return "not for verifying"
  }
  if (jwk.kid !== undefined && (typeof jwk.kid !== "string" || jwk.kid.length === 0)) return "malformed key id"
  if (jwk.alg !== undefined && !isAlgorithm(jwk.alg)) return "unknown algorithm"
  const found = allowed.filter((name) => {
    const needs = algorithms[name]
    return needs.kty === jwk.kty && (!("crv" in needs) || needs.crv === jwk.crv) &&
      (jwk.alg === undefined || jwk.alg === name)
  })
  return found.length === 0 ? "fits no allowed algorithm" : found
}

/** Makes a public JWK ready. Rejects when it is none after all, for example for a point that is not on the curve. */
export const importJwk = async (
  jwk: Readonly<Record<string, unknown>>,
  names: ReadonlyArray<Algorithm>
): Promise<VerificationKey> => {
  // Only what makes the key, so that nothing else in the document has a say.
  const { crv, e, kty, n, x, y } = jwk as Record<string, string>
  const bare = kty === "RSA" ? { kty, n, e } : kty === "EC" ? { kty, crv, x, y } : { kty, crv, x }
  const ready = new Map<Algorithm, Jose.CryptoKey>()
  // The types of `jose` know members as strings or absent, which `fits` has made sure of.
  for (const name of names) ready.set(name, await Jose.importJWK(bare as Jose.JWK, name) as Jose.CryptoKey)
  return { kid: jwk.kid as string | undefined, ready }
}

/** Makes the public key of a PEM text ready for each of the algorithms that it fits. Rejects when there is none. */
export const importPem = async (
  pem: string,
  kid: string | undefined,
  names: ReadonlyArray<Algorithm>
): Promise<VerificationKey> => {
  const load = pem.includes("-----BEGIN CERTIFICATE-----") ? Jose.importX509 : Jose.importSPKI
  const ready = new Map<Algorithm, Jose.CryptoKey>()
  for (const name of names) {
    const key = await load(pem, name).catch(() => undefined)
    if (key === undefined) continue
    const { modulusLength, publicExponent } = key.algorithm as {
      readonly modulusLength?: number
      readonly publicExponent?: Uint8Array
    }
    if (modulusLength !== undefined && publicExponent !== undefined) {
      const flaw = weakRsa(modulusLength, toBigInt(publicExponent))
      if (flaw !== undefined) throw new TypeError(flaw)
    }
    ready.set(name, key)
  }
  if (ready.size === 0) throw new TypeError("a PEM key fits no allowed algorithm")
  return { kid, ready }
}

/** Makes an HMAC secret ready, which is long enough for each of the algorithms. */
export const importSecret = async (
  secret: Uint8Array,
  kid: string | undefined,
  names: ReadonlyArray<Algorithm>
): Promise<VerificationKey> => {
  const ready = new Map<Algorithm, Jose.CryptoKey>()
  for (const name of names) {
    const needs = algorithms[name]
    if (!("hash" in needs)) continue
    const key = await crypto.subtle.importKey(
      "raw",
      new Uint8Array(secret),
      { name: "HMAC", hash: needs.hash },
      false,
      [
        "verify"
      ]
    )
    ready.set(name, key)
  }
  return { kid, ready }
}
