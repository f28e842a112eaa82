import { FetchFailure } from "../../internal/boundedFetch.ts"
import * as JwtKey from "./jwtKey.ts"
import { isObject, parseStrictBytes } from "./strictJson.ts"

// What is in the document of a key set, and how long it counts.

// All but HMAC. What a token may use of them is the authenticator's business.
const publicAlgorithms = (Object.keys(JwtKey.algorithms) as ReadonlyArray<JwtKey.Algorithm>)
  .filter((name) => !JwtKey.isSymmetric(name))

/** A key set that has been read. Times are of the monotonic clock. */
export interface KeySet {
  readonly byText: ReadonlyMap<string, JwtKey.VerificationKey>
  readonly keys: ReadonlyArray<JwtKey.VerificationKey>
  readonly skipped: Readonly<Record<string, number>>
  readonly fetchedAt: number
  readonly freshUntil: number
  readonly usableUntil: number
}

/**
 * Reads a key set. A key that was in the set before is the same object again, so tokens that it has verified stay verified.
 */
export const readKeys = async (
  body: Uint8Array,
  maxKeys: number,
  before: ReadonlyMap<string, JwtKey.VerificationKey> | undefined
): Promise<Pick<KeySet, "byText" | "keys" | "skipped">> => {
  const document = parseStrictBytes(body)
  if (!isObject(document) || !Array.isArray(document.keys)) throw new FetchFailure("not a key set")
  if (document.keys.length > maxKeys) throw new FetchFailure("too many keys")
  const byText = new Map<string, JwtKey.VerificationKey>()
  const kids = new Set<string>()
  const skipped: Record<string, number> = {}
  const skip = (why: string) => {
    skipped[why] = (skipped[why] ?? 0) + 1
  }
  for (const jwk of document.keys as ReadonlyArray<unknown>) {
    const names = JwtKey.fits(jwk, publicAlgorithms)
    if (typeof names === "string" || !isObject(jwk)) {
      skip(String(names))
      continue
    }
    const text = JSON.stringify(jwk)
    const key = before?.get(text) ?? await JwtKey.importJwk(jwk, names).catch(() => undefined)
    if (key === undefined) {
      skip("cannot be imported")
      continue
    }
    if (key.kid !== undefined) {
      if (kids.has(key.kid)) throw new FetchFailure("two keys with one id")
      kids.add(key.kid)
    }
    byText.set(text, key)
  }
  return { byText, keys: [...byText.values()], skipped }
}

/** How long a set is fresh, in milliseconds, by what its server says and within the limits of the options. */
export const lifetime = (
  cacheControl: string | undefined,
  settings: { readonly timeToLive: number; readonly maxTimeToLive: number; readonly cooldown: number }
): number => {
  if (cacheControl === undefined) return settings.timeToLive
  const maxAge = /(?:^|[\s,])max-age="?(\d{1,10})"?/i.exec(cacheControl)
  const asked = /no-store|no-cache/i.test(cacheControl)
    ? 0
    : maxAge === null
    ? settings.timeToLive
    : Number(maxAge[1]) * 1000
  // Not more often than for unknown keys, whatever the server says.
  return Math.min(settings.maxTimeToLive, Math.max(asked, settings.cooldown))
}
