import * as DateTime from "effect/DateTime"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Redacted from "effect/Redacted"
import * as Check from "../../internal/options.ts"
import * as AuthError from "../AuthError.ts"
import * as Identity from "../Identity.ts"
import type { Options } from "../TokenIntrospection.ts"
import { checkEndpoint } from "./endpoint.ts"
import { at, claimPath, isFor, isName, millisOf, scopesOf, strings } from "./jwtClaims.ts"
import { isObject } from "./strictJson.ts"

// The options of `TokenIntrospection`, checked, its request, and what an answer means.

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

/** Checks the options. */
export const check = (where: string, options: Options) => {
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
    url: checkEndpoint(where, options.url, options.allowInsecureHttp === true),
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

/** The checked options. Times in milliseconds. */
export type Settings = ReturnType<typeof check>

// RFC 6749, 2.3.1: both parts are form-encoded before they are joined, so a colon in the id cannot move the border.
const formEncode = (value: string): string => new URLSearchParams([["", value]]).toString().slice(1)

/** The request that asks about a token. */
export const requestFor = (settings: Settings, token: string): HttpClientRequest.HttpClientRequest => {
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

/** When an answer that has been understood stops to count, in milliseconds. */
export const endOf = (answer: unknown): number =>
  isObject(answer) && answer.exp !== undefined ? millisOf(answer.exp) ?? -Infinity : Infinity

// What servers call a token that is for servers like this one. A refresh token is for its issuer alone, an id token is
// for the client, and one that is bound to a key is worth nothing without the proof of it.
const accessTokens = ["bearer", "access", "access_token", "urn:ietf:params:oauth:token-type:access_token"]

const isAccessToken = (value: unknown): boolean =>
  typeof value === "string" && accessTokens.includes(value.toLowerCase())

// Some servers send the token back, and claims are no place for it.
const withoutToken = (answer: Readonly<Record<string, unknown>>, token: string): Readonly<Record<string, unknown>> =>
  Object.values(answer).includes(token)
    ? Object.fromEntries(Object.entries(answer).filter(([, value]) => value !== token))
    : answer

/** Who a token stands for, by what its issuer says. An answer without `active` is no answer. */
export const toIdentity = (
  answer: unknown,
  token: string,
  settings: Settings,
  now: number
): Identity.Identity | AuthError.AuthError => {
  if (!isObject(answer) || typeof answer.active !== "boolean") return AuthError.refused("AuthUnavailable")
  if (!answer.active) return AuthError.refused("TokenInactive")
  if (!isAbsentOr(answer.token_type, isAccessToken) || !isAbsentOr(answer.token_use, isAccessToken)) {
    return AuthError.refused("InvalidCredentials")
  }
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
  if (!isAbsentOr(answer.iss, isName)) return AuthError.refused("TokenMalformed")
  const principal = at(answer, settings.principal)
  const tenant = settings.tenant === undefined ? undefined : at(answer, settings.tenant)
  const held = at(answer, settings.roles)
  const roles = held === undefined ? [] : strings(held)
  const scopes = scopesOf(answer)
  if (!isName(principal) || !isAbsentOr(tenant, isName) || roles === undefined || scopes === undefined) {
    return AuthError.refused("TokenMalformed")
  }
  return Identity.make({
    // Without an issuer to compare with, it is the endpoint that vouches, for all that it names.
    issuer: settings.issuer ??
      (answer.iss === undefined ? settings.url.href : `${settings.url.href}#${answer.iss as string}`),
    principal,
    tenant: tenant as string | undefined,
    roles,
    scopes,
    method: "introspection",
    claims: withoutToken(answer, token),
    expiresAt: expiresAt === undefined ? undefined : DateTime.makeUnsafe(Math.min(Math.floor(expiresAt), 8.64e15)),
    issuedAt: iat === undefined ? undefined : DateTime.makeUnsafe(Math.floor(millisOf(iat)!))
  })
}
