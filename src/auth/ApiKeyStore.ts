/**
 * Where API keys are kept, and the store in memory. Users find all of it in `ApiKey`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { hmacSha256Hex, sha256Hex } from "../internal/hash.ts"
import * as Check from "../internal/options.ts"
import type * as Identity from "./Identity.ts"
import { isHash, isMisspelt, metadataOf, namesOf } from "./internal/apiKey.ts"
import { type Digested, digestOfHex, makeKeyIndex } from "./internal/keyIndex.ts"

/**
 * What is kept of a key: never the key itself.
 *
 * - `id`: names the key in logs and for `revoke`. Unique, and no secret.
 * - `hash`: SHA-256 of the key, or its HMAC-SHA-256 under the pepper: 64 lower-case hexadecimal digits.
 * - `principal`, `tenant`, `roles`, `scopes`: whom the key stands for.
 * - `metadata`: goes into the claims of the identity, beside `keyId`. JSON, copied and frozen.
 * - `notBefore`, `expiresAt`: the key is valid from the one on and before the other.
 *
 * @category models
 * @since 0.1.0
 */
export interface ApiKeyRecord {
  readonly id: string
  readonly hash: string
  readonly principal: string
  readonly tenant: string | undefined
  readonly roles: ReadonlyArray<string>
  readonly scopes: ReadonlyArray<string>
  readonly metadata: Readonly<Record<string, unknown>>
  readonly notBefore: DateTime.Utc | undefined
  readonly expiresAt: DateTime.Utc | undefined
}

/**
 * A key to register: `key` itself, which is hashed and forgotten, or the `hash` of it. Exactly one of the two. A `key`
 * that looks like a generated one must have its checksum.
 *
 * @category options
 * @since 0.1.0
 */
export interface Registration {
  readonly id: string
  readonly key?: Redacted.Redacted<string> | undefined
  readonly hash?: string | undefined
  readonly principal: string
  readonly tenant?: string | undefined
  readonly roles?: ReadonlyArray<string> | undefined
  readonly scopes?: ReadonlyArray<string> | undefined
  readonly metadata?: Readonly<Record<string, unknown>> | undefined
  readonly notBefore?: DateTime.Utc | undefined
  readonly expiresAt?: DateTime.Utc | undefined
}

const registrationNames: { readonly [K in keyof Required<Registration>]: true } = {
  id: true,
  key: true,
  hash: true,
  principal: true,
  tenant: true,
  roles: true,
  scopes: true,
  metadata: true,
  notBefore: true,
  expiresAt: true
}

/** @category errors @since 0.1.0 */
export class DuplicateKey extends Schema.TaggedError<DuplicateKey>("effect-toolops/auth/ApiKey/DuplicateKey")(
  "DuplicateKey",
  { id: Schema.String }
) {
  override get message(): string {
    return "A key with this id or this hash is registered already"
  }
}

/** @category errors @since 0.1.0 */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>(
  "effect-toolops/auth/ApiKey/StoreUnavailable"
)("StoreUnavailable", { cause: Schema.Defect() }) {
  override get message(): string {
    return "The key store does not answer"
  }
}

/**
 * What a key store fails with.
 *
 * @category errors
 * @since 0.1.0
 */
export class ApiKeyStoreError extends Schema.TaggedError<ApiKeyStoreError>(
  "effect-toolops/auth/ApiKey/ApiKeyStoreError"
)("ApiKeyStoreError", { reason: Schema.Union([DuplicateKey, StoreUnavailable]) }) {
  override get message(): string {
    return this.reason.message
  }
}

/**
 * A key in memory, with the identity that it stands for once somebody has asked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Kept extends Digested {
  readonly record: ApiKeyRecord
  /** What an authenticator takes for the start of generated keys, if the key starts so and its checksum is right. */
  soundAfter: string | undefined
  identity: Option.Option<Identity.Identity> | undefined
}

/**
 * Where keys are kept.
 *
 * - `find`: the key with this hash, whether or not it is valid now.
 * - `register`: adds a key. `DuplicateKey` when its id or hash is there already.
 * - `revoke`: removes a key for good, at once. Says whether it was there.
 * - `list`: all keys, ordered by id.
 *
 * @category services
 * @since 0.1.0
 */
export class ApiKeyStore extends Context.Service<ApiKeyStore, {
  readonly find: (hash: string) => Effect.Effect<Option.Option<ApiKeyRecord>, ApiKeyStoreError>
  readonly register: (key: Registration) => Effect.Effect<ApiKeyRecord, ApiKeyStoreError>
  readonly revoke: (id: string) => Effect.Effect<boolean, ApiKeyStoreError>
  readonly list: Effect.Effect<ReadonlyArray<ApiKeyRecord>, ApiKeyStoreError>
  /** `find` by the bytes of the hash, for a store that has its answers at hand. Not for users. */
  readonly "~find"?: ((digest: string) => Kept | undefined) | undefined
}>()("effect-toolops/auth/ApiKey/ApiKeyStore") {}

/** @internal */
export const duplicateKey = (id: string): ApiKeyStoreError => new ApiKeyStoreError({ reason: new DuplicateKey({ id }) })

/** @internal */
export const minimumKeyLength = 16

/**
 * Hashes a key as the stores keep it: SHA-256, or HMAC-SHA-256 under a pepper, in lower-case hexadecimal.
 *
 * @category hashing
 * @since 0.1.0
 */
export const hashKey = (key: Redacted.Redacted<string>, pepper?: Redacted.Redacted<string>): string =>
  pepper === undefined ? sha256Hex(Redacted.value(key)) : hmacSha256Hex(Redacted.value(pepper), Redacted.value(key))

/** @internal */
export const checkPepper = (
  where: string,
  pepper: Redacted.Redacted<string> | undefined
): Redacted.Redacted<string> | undefined => {
  if (pepper !== undefined && (!Redacted.isRedacted(pepper) || Redacted.value(pepper).length < 32)) {
    throw new TypeError(`${where}: pepper must be a Redacted string of at least 32 characters`)
  }
  return pepper
}

/** @internal What a store keeps of a registration. Throws for one that makes no sense. */
export const toRecord = (
  where: string,
  registration: Registration,
  pepper: Redacted.Redacted<string> | undefined
): ApiKeyRecord => {
  Check.known(where, registration, Object.keys(registrationNames))
  const { expiresAt, hash, id, key, notBefore, principal, tenant } = registration
  if (typeof id !== "string" || id.length === 0) throw new TypeError(`${where}: id must be a non-empty string`)
  const field = `${where}: key ${JSON.stringify(id)}`
  if (typeof principal !== "string" || principal.length === 0) {
    throw new TypeError(`${field}: principal must be a non-empty string`)
  }
  if (tenant !== undefined && typeof tenant !== "string") throw new TypeError(`${field}: tenant must be a string`)
  if ((key === undefined) === (hash === undefined)) {
    throw new TypeError(`${field}: give either its key or its hash`)
  }
  if (hash !== undefined && !isHash(hash)) {
    throw new TypeError(`${field}: hash must be 64 lower-case hexadecimal digits`)
  }
  if (key !== undefined && (!Redacted.isRedacted(key) || Redacted.value(key).length < minimumKeyLength)) {
    throw new TypeError(`${field}: key must be a Redacted string of at least ${minimumKeyLength} characters`)
  }
  if (key !== undefined && isMisspelt(Redacted.value(key))) {
    throw new TypeError(
      `${field}: key looks like a generated one and its checksum is wrong, so it would be refused; use ApiKey.generate`
    )
  }
  for (const [name, time] of [["notBefore", notBefore], ["expiresAt", expiresAt]] as const) {
    if (time !== undefined && !DateTime.isUtc(time)) throw new TypeError(`${field}: ${name} must be a DateTime.Utc`)
  }
  if (notBefore !== undefined && expiresAt !== undefined && !DateTime.isLessThan(notBefore, expiresAt)) {
    throw new RangeError(`${field}: notBefore must be before expiresAt`)
  }
  return Object.freeze({
    id,
    hash: hash ?? hashKey(key!, pepper),
    principal,
    tenant,
    roles: namesOf(field, "roles", registration.roles),
    scopes: namesOf(field, "scopes", registration.scopes),
    metadata: metadataOf(field, registration.metadata),
    notBefore,
    expiresAt
  })
}

/**
 * What the memory store takes.
 *
 * - `keys`: the keys to start with. Two with the same id or the same hash are refused.
 * - `pepper`: see `Options`. Needed here for registrations by `key`. Default none.
 *
 * @category options
 * @since 0.1.0
 */
export interface MemoryOptions {
  readonly keys?: ReadonlyArray<Registration> | undefined
  readonly pepper?: Redacted.Redacted<string> | undefined
}

const makeMemory = (options: MemoryOptions): ApiKeyStore["Service"] => {
  const where = "ApiKey.layerMemory"
  Check.known(where, options, ["keys", "pepper"])
  const pepper = checkPepper(where, options.pepper)
  const byDigest = makeKeyIndex<Kept>()
  const byId = new Map<string, ApiKeyRecord>()
  const add = (registration: Registration): ApiKeyRecord | undefined => {
    const record = toRecord(where, registration, pepper)
    const digest = digestOfHex(record.hash)
    if (byId.has(record.id) || byDigest.find(digest) !== undefined) return undefined
    byId.set(record.id, record)
    byDigest.add({ digest, record, soundAfter: undefined, identity: undefined })
    return record
  }
  for (const registration of options.keys ?? []) {
    if (add(registration) === undefined) {
      throw new TypeError(`${where}: the id or hash of key ${JSON.stringify(registration.id)} is there twice`)
    }
  }
  return {
    "~find": byDigest.find,
    find: (hash) =>
      Effect.succeed(
        isHash(hash) ? Option.fromUndefinedOr(byDigest.find(digestOfHex(hash))?.record) : Option.none()
      ),
    register: (registration) =>
      Effect.suspend(() => {
        const record = add(registration)
        return record === undefined ? Effect.fail(duplicateKey(registration.id)) : Effect.succeed(record)
      }),
    revoke: (id) =>
      Effect.sync(() => {
        const record = byId.get(id)
        if (record === undefined) return false
        byId.delete(id)
        byDigest.remove(digestOfHex(record.hash))
        return true
      }),
    list: Effect.sync(() => [...byId.values()].toSorted((a, b) => a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
  }
}

/**
 * Provides an `ApiKeyStore` in this process's memory.
 *
 * **Gotchas**
 *
 * Two calls make two stores. Keys that are registered later are gone when the process ends.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options: MemoryOptions = {}): Layer.Layer<ApiKeyStore> => {
  const store = makeMemory(options)
  return Layer.succeed(ApiKeyStore, store)
}

/**
 * Provides `layerMemory` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryConfig = (
  options: Config.Wrap<MemoryOptions>
): Layer.Layer<ApiKeyStore, Config.ConfigError> =>
  Layer.effect(ApiKeyStore, Effect.map(Config.unwrap(options), makeMemory))
