/**
 * Who is calling.
 *
 * An `Identity` is made by an authenticator, is immutable, and holds no credential. Handlers read the caller with
 * `yield* Identity.CurrentIdentity`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"

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

const isText = (value: unknown): value is string => typeof value === "string" && value.length > 0

const isTextOrAbsent = (value: unknown): boolean => value === undefined || isText(value)

const isTimeOrAbsent = (value: unknown): boolean =>
  value === undefined || (DateTime.isDateTime(value) && DateTime.isUtc(value))

const isStrings = (value: unknown): boolean => Array.isArray(value) && value.every((one) => typeof one === "string")

/** @internal Says whether a value that somebody else's code made is an identity through and through. */
export const isIdentity = (value: unknown): value is Identity => {
  if (typeof value !== "object" || value === null) return false
  const { claims, expiresAt, issuedAt, issuer, method, principal, roles, scopes, tenant } = value as Partial<Identity>
  return isText(principal) && isText(method) && isTextOrAbsent(issuer) &&
    (tenant === undefined || typeof tenant === "string") && isStrings(roles) && isStrings(scopes) &&
    typeof claims === "object" && claims !== null && isTimeOrAbsent(expiresAt) && isTimeOrAbsent(issuedAt)
}

/** @internal An identity is valid before `expiresAt`, not at it; what is no time at all is over. */
export const isExpired = ({ expiresAt }: Identity, now: number): boolean =>
  expiresAt !== undefined && !(now < ((expiresAt as DateTime.Utc | null)?.epochMilliseconds ?? -Infinity))

// A copy of what is made of plain objects and arrays, which nobody can change. Anything else stays what it is.
const frozenCopy = (value: unknown, seen: Map<object, unknown>): unknown => {
  if (typeof value !== "object" || value === null) return value
  const known = seen.get(value)
  if (known !== undefined) return known
  const prototype: unknown = Object.getPrototypeOf(value)
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return value
  const copy: Record<string, unknown> | Array<unknown> = Array.isArray(value) ? [...value] : { ...value }
  seen.set(value, copy)
  // The copy has the member itself, so that one called `__proto__` is a member like any other.
  for (const [name, member] of Object.entries(copy)) {
    if (typeof member === "object") (copy as Record<string, unknown>)[name] = frozenCopy(member, seen)
  }
  return Object.freeze(copy)
}

/**
 * Makes an immutable identity. Lists and claims are copied, claims to the last plain object in them. Throws a
 * `TypeError` for what is no identity: without a `principal`, or with a member of the wrong kind.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Identity => {
  const { claims, tenant } = options
  if (!isText(options.principal)) throw new TypeError("Identity.make: principal must be a non-empty string")
  if (tenant !== undefined && typeof tenant !== "string") throw new TypeError("Identity.make: tenant must be a string")
  for (const name of ["issuer", "method"] as const) {
    if (!isTextOrAbsent(options[name])) throw new TypeError(`Identity.make: ${name} must be a non-empty string`)
  }
  for (const name of ["expiresAt", "issuedAt"] as const) {
    if (!isTimeOrAbsent(options[name])) throw new TypeError(`Identity.make: ${name} must be a DateTime.Utc`)
  }
  if (claims !== undefined && (typeof claims !== "object" || claims === null || Array.isArray(claims))) {
    throw new TypeError("Identity.make: claims must be an object")
  }
  return Object.freeze({
    issuer: options.issuer,
    principal: options.principal,
    tenant,
    roles: copyStrings("roles", options.roles),
    scopes: copyStrings("scopes", options.scopes),
    method: options.method ?? "custom",
    claims: frozenCopy({ ...claims }, new Map()) as Identity["claims"],
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
