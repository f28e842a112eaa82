/**
 * Who is calling.
 *
 * An `Identity` is made by an authenticator, is immutable, and holds no credential. Handlers read the caller with
 * `yield* Identity.CurrentIdentity`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"

/**
 * A caller that has been authenticated, or the anonymous one.
 *
 * - `issuer`: who vouches for the caller, where somebody outside does: the `iss` of a token. The same principal of two
 *   issuers is two callers, to caches and limits as well.
 * - `principal`: who, unique within the issuer and the tenant.
 * - `tenant`: the organisation that the principal belongs to. The same tenant of two issuers is one.
 * - `roles`, `scopes`: what role-based rules and OAuth scopes look at.
 * - `method`: how the caller was authenticated, for example `api_key` or `jwt`; `anonymous` means not at all.
 * - `claims`: what else the credential said. Not a place for secrets.
 * - `expiresAt`: when the identity stops being valid. It is checked again right before a call runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Identity {
  readonly issuer?: string | undefined
  readonly principal: string
  readonly tenant: string | undefined
  readonly roles: ReadonlyArray<string>
  readonly scopes: ReadonlyArray<string>
  readonly method: string
  readonly claims: Readonly<Record<string, unknown>>
  readonly expiresAt: DateTime.Utc | undefined
  readonly issuedAt: DateTime.Utc | undefined
}

/**
 * What `make` takes: only `principal` is required, `method` defaults to `custom`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly issuer?: string | undefined
  readonly principal: string
  readonly tenant?: string | undefined
  readonly roles?: Iterable<string> | undefined
  readonly scopes?: Iterable<string> | undefined
  readonly method?: string | undefined
  readonly claims?: Readonly<Record<string, unknown>> | undefined
  readonly expiresAt?: DateTime.Utc | undefined
  readonly issuedAt?: DateTime.Utc | undefined
}

const copyStrings = (name: string, values: Iterable<string> | undefined): ReadonlyArray<string> => {
  if (typeof values === "string") throw new TypeError(`Identity.make: ${name} must be a list of strings, got a string`)
  const copy = Array.from(values ?? [])
  if (!copy.every((value) => typeof value === "string")) {
    throw new TypeError(`Identity.make: ${name} must hold strings only`)
  }
  return Object.freeze(copy)
}

/**
 * Makes an immutable identity. Throws a `TypeError` when `principal` is not a non-empty string.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Identity => {
  if (typeof options.principal !== "string" || options.principal.length === 0) {
    throw new TypeError("Identity.make: principal must be a non-empty string")
  }
  if (options.issuer !== undefined && (typeof options.issuer !== "string" || options.issuer.length === 0)) {
    throw new TypeError("Identity.make: issuer must be a non-empty string")
  }
  return Object.freeze({
    issuer: options.issuer,
    principal: options.principal,
    tenant: options.tenant,
    roles: copyStrings("roles", options.roles),
    scopes: copyStrings("scopes", options.scopes),
    method: options.method ?? "custom",
    claims: Object.freeze({ ...options.claims }),
    expiresAt: options.expiresAt,
    issuedAt: options.issuedAt
  })
}

/** @internal The same of parts that are checked and frozen through and through. Only for our own authenticators. */
export const fromFrozen = (identity: Identity): Identity => Object.freeze(identity)

/**
 * The caller without a credential: no tenant, no roles, no scopes, method `anonymous`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const anonymous: Identity = make({ principal: "anonymous", method: "anonymous" })

/**
 * Says whether nobody has been authenticated. The method decides and not the principal: a credential may well belong to
 * somebody who is called "anonymous", and that is somebody else.
 *
 * @category guards
 * @since 0.1.0
 */
export const isAnonymous = (identity: Identity): boolean => identity.method === anonymous.method

/**
 * The caller of the running tool call. The auth stage provides it to the handler.
 *
 * @category services
 * @since 0.1.0
 */
export class CurrentIdentity extends Context.Service<CurrentIdentity, Identity>()(
  "effect-toolops/auth/Identity/CurrentIdentity"
) {}
