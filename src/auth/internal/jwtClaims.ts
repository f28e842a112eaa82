import * as DateTime from "effect/DateTime"
import * as Jose from "jose"
import { controls } from "../../internal/controls.ts"
import type { AuthError } from "../AuthError.ts"
import { refused } from "../AuthError.ts"
import * as Identity from "../Identity.ts"
import { compactParts, isObject, parseStrictBytes } from "./strictJson.ts"

// What the payload of a token whose signature is good must say, and whom it makes the caller.

/** The checked options that claims are read with. Times in milliseconds. */
export interface ClaimRules {
  readonly issuer: string
  readonly audiences: ReadonlyArray<string>
  readonly clockTolerance: number
  readonly maxTokenAge: number
  readonly requireAccessToken: boolean
  readonly principal: ReadonlyArray<string>
  readonly tenant: ReadonlyArray<string> | undefined
  readonly roles: ReadonlyArray<string>
}

const maxEntries = 1000
const maxName = 1024

type Claims = Readonly<Record<string, unknown>>

// Nearly all names are printable ASCII, and a loop over so few characters is cheaper than an expression.
const isPlain = (text: string): boolean => {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < 32 || code > 126) return false
  }
  return true
}

/** Says whether a value can name somebody: text that prints, has an end, and is the same wherever it is copied to. */
export const isName = (value: unknown): value is string =>
  typeof value === "string" && value.length > 0 && value.length <= maxName &&
  (isPlain(value) || (!controls.test(value) && value.isWellFormed()))

/** Checks the name of a claim, or a path of names, given as an option. */
export const claimPath = (
  where: string,
  name: string,
  value: string | ReadonlyArray<string>
): ReadonlyArray<string> => {
  const parts = typeof value === "string" ? [value] : value
  if (!Array.isArray(parts) || parts.length === 0 || !parts.every((part) => typeof part === "string" && part !== "")) {
    throw new TypeError(`${where}: ${name} must be the name of a claim or a path of names`)
  }
  return [...parts]
}

/** The member at the end of a path, if there is one. */
export const at = (claims: Claims, path: ReadonlyArray<string>): unknown => {
  let value: unknown = claims
  for (const part of path) {
    if (!isObject(value) || !Object.hasOwn(value, part)) return undefined
    value = value[part]
  }
  return value
}

/** A list of names that is not too long. */
export const strings = (value: unknown): ReadonlyArray<string> | undefined =>
  Array.isArray(value) && value.length <= maxEntries && value.every(isName) ? value : undefined

const words = (value: string): ReadonlyArray<string> => value.split(" ").filter((word) => word.length > 0)

/** The scopes of a token: `scope`, else `scp`. `undefined` when they are not what they should be. */
export const scopesOf = (claims: Claims): ReadonlyArray<string> | undefined => {
  const { scope, scp } = claims
  if (scope !== undefined) return typeof scope === "string" ? strings(words(scope)) : undefined
  if (scp === undefined) return []
  return strings(typeof scp === "string" ? words(scp) : scp)
}

/** Says whether a claim is a time (RFC 7519 NumericDate) that a clock can show, in milliseconds. */
export const millisOf = (value: unknown): number | undefined =>
  typeof value === "number" && Math.abs(value) <= 8.64e12 ? value * 1000 : undefined

/** Says whether `aud` names one of us. `undefined` when it is not what it should be. */
export const isFor = (aud: unknown, audiences: ReadonlyArray<string>): boolean | undefined => {
  const list = typeof aud === "string" ? [aud] : strings(aud)
  return list === undefined ? undefined : list.some((one) => audiences.includes(one))
}

/** The issuer that a token claims to be from, which nobody has verified. `undefined` for texts that claim none. */
export const claimedIssuer = (token: string): string | undefined => {
  const payload = compactParts(token)?.payload
  const claims = payload === undefined ? undefined : parseStrictBytes(Jose.base64url.decode(payload))
  return isObject(claims) && Object.hasOwn(claims, "iss") && isName(claims.iss) ? claims.iss : undefined
}

/** The caller that the claims stand for at the time `now`, or why there is none. Never throws. */
export const toIdentity = (claims: unknown, rules: ClaimRules, now: number): Identity.Identity | AuthError => {
  if (!isObject(claims)) return refused("TokenMalformed")
  const { clockTolerance } = rules
  const own = (name: string): unknown => Object.hasOwn(claims, name) ? claims[name] : undefined

  if (own("iss") !== rules.issuer) {
    return typeof own("iss") === "string"
      ? refused("InvalidCredentials")
      : refused("TokenMalformed")
  }
  const isOurs = isFor(own("aud"), rules.audiences)
  if (isOurs !== true) return isOurs === false ? refused("InvalidCredentials") : refused("TokenMalformed")

  const exp = millisOf(own("exp"))
  const nbf = own("nbf") === undefined ? -Infinity : millisOf(own("nbf"))
  const iat = own("iat") === undefined ? undefined : millisOf(own("iat"))
  if (exp === undefined || nbf === undefined || (own("iat") !== undefined && iat === undefined)) {
    return refused("TokenMalformed")
  }
  if (iat === undefined && rules.maxTokenAge !== Infinity) return refused("TokenMalformed")
  const expiresAt = Math.min(exp, (iat ?? 0) + rules.maxTokenAge) + clockTolerance
  if (now >= expiresAt) return refused("TokenExpired")
  if (now < nbf - clockTolerance) return refused("TokenInactive")
  if (iat !== undefined && now < iat - clockTolerance) return refused("TokenInactive")

  const sub = own("sub")
  if (sub !== undefined && !isName(sub)) return refused("TokenMalformed")
  if (
    rules.requireAccessToken && !(isName(sub) && isName(own("client_id")) && isName(own("jti")) && iat !== undefined)
  ) {
    return refused("TokenMalformed")
  }
  const principal = at(claims, rules.principal)
  const tenant = rules.tenant === undefined ? undefined : at(claims, rules.tenant)
  const roles = at(claims, rules.roles)
  const heldRoles = roles === undefined ? [] : strings(roles)
  const scopes = scopesOf(claims)
  if (!isName(principal) || (tenant !== undefined && !isName(tenant))) return refused("TokenMalformed")
  if (heldRoles === undefined || scopes === undefined) return refused("TokenMalformed")
  return Identity.fromFrozen({
    issuer: rules.issuer,
    principal,
    tenant,
    roles: Object.freeze(heldRoles),
    scopes: Object.freeze(scopes),
    method: "jwt",
    claims,
    // The last moment at which the token is taken: rounded, because a `DateTime` counts whole milliseconds.
    expiresAt: DateTime.makeUnsafe(Math.min(Math.floor(expiresAt), 8.64e15)),
    issuedAt: iat === undefined ? undefined : DateTime.makeUnsafe(Math.floor(iat))
  })
}
