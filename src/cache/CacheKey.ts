/**
 * Names the answer to a call: the same key only for the same tool, the same input and the same circle of callers.
 *
 * A key is `cache:<toolId>:<hash>`. The hash is all of SHA-256 over, each with its length in front: the version of this
 * scheme, the tool's id, its digest, the action, who shares the answer (see `Varies`), and the input as canonical JSON
 * (RFC 8785). So no value can slide from one part into the next, and a tool that changes leaves its old answers behind.
 *
 * Two inputs have the same key exactly when their JSON is equal but for the order of members:
 *
 * - Members that are undefined are left out, `-0` is `0`, an own `__proto__` is a member like any other.
 * - A tool with an `input` Schema is keyed by the Schema's JSON form, so dates, brands, bigints and classes have a key.
 *   Where the Schema encodes anything, an undefined member of it is what the Schema makes of it: mostly null, so that
 *   `{ day, note: undefined }` and `{ day }` are two calls. An input that such a Schema refuses has no key.
 * - A Schema whose JSON form is the value itself is not asked: an input that it would refuse has the key of its own JSON.
 * - Without a Schema only JSON has a key. NaN, infinities, bigints, functions, symbols, undefined in an array, dates,
 *   maps, sets, typed arrays, class instances and anything with a `toJSON` have none: what a handler makes of them is
 *   not known here. Nor have lone surrogates, cycles, more than 128 levels, or more than 1,048,576 characters.
 *
 * A call without a key is not an error. It runs, and is counted as uncacheable.
 *
 * @since 0.1.0
 */
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import type { Identity } from "../auth/Identity.ts"
import { canonicalJson } from "../internal/canonicalJson.ts"
import { controls } from "../internal/controls.ts"
import { sha256Hex } from "../internal/hash.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import { canonicalJsonOf } from "./internal/schemaWriter.ts"

/**
 * The version of the key scheme. It changes whenever the same call would get another key, so that what an older version
 * of this library stored is not found.
 *
 * @category constants
 * @since 0.1.0
 */
export const version = 1

/**
 * The longest key that is stored.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxLength = 512

/**
 * What a key is made from.
 *
 * - `tool`, `input`: the call.
 * - `identity`: the caller. Without one the tool must vary by `everyone`, or there is no key.
 * - `action`: what is done with the tool. Default `call`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly tool: ToolMeta
  readonly input?: unknown
  readonly identity?: Identity | undefined
  readonly action?: string | undefined
}

/** Makes the keys of one tool. `undefined` for a call that cannot have one. */
export type KeyOf = (input: unknown, action: string, identity: Identity | undefined) => string | undefined

// Lengths in UTF-16 code units. The hash is over UTF-8, which is injective because no part holds a lone surrogate.
const part = (text: string): string => `${text.length}:${text}`

/**
 * Makes the key of a call, or `undefined` when the call has none.
 *
 * **Example** (Two callers, two keys)
 *
 * ```ts
 * import { ToolMeta } from "effect-toolops"
 * import { Identity } from "effect-toolops/auth"
 * import { CacheKey } from "effect-toolops/cache"
 *
 * const tool = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })
 * const alice = Identity.make({ principal: "alice" })
 * const bob = Identity.make({ principal: "bob" })
 * const key = CacheKey.make({ tool, input: { q: "effect", limit: 3 }, identity: alice })
 *
 * key === CacheKey.make({ tool, input: { limit: 3, q: "effect" }, identity: alice }) // => true
 * key === CacheKey.make({ tool, input: { q: "effect", limit: 3 }, identity: bob }) // => false
 * key?.startsWith("cache:docs:search:") // => true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): string | undefined =>
  forTool(options.tool)(options.input, options.action ?? "call", options.identity)

/**
 * Says whether a text may name an entry: 1 to 512 characters, none of them a control character or a lone surrogate.
 *
 * @category guards
 * @since 0.1.0
 */
export const isCacheKey = (text: string): boolean =>
  text.length > 0 && text.length <= maxLength && !controls.test(text) && text.isWellFormed()

/** @internal Everything that depends on the tool alone is done here. */
export const forTool = (tool: ToolMeta): KeyOf => {
  const start = part(String(version)) + part(tool.id) + part(tool.digest)
  const call = start + part("call")
  const name = `cache:${tool.id}:`
  const encode = inputEncoder(tool)
  const varies = tool.varies
  return (input, action, identity) => {
    const text = encode(input)
    if (text === undefined) return undefined
    const sharedBy = varies === "everyone" ? "e" : identity === undefined ? undefined : circleOf(varies, identity)
    if (sharedBy === undefined || (action !== "call" && !action.isWellFormed())) return undefined
    const head = action === "call" ? call : start + part(action)
    return name + sha256Hex(`${head}${sharedBy.length}:${sharedBy}${text.length}:${text}`)
  }
}

const inputEncoder = (tool: ToolMeta): (input: unknown) => string | undefined => {
  const schema = tool.input
  // A handler that takes nothing: the empty text is no JSON, so nothing else has this key.
  if (schema === undefined || isPlain(schema.ast)) {
    const toJson = schema === undefined ? canonicalJson : canonicalJsonOf(schema.ast)
    return (input) => input === undefined ? "" : toJson(input)
  }
  // A member that the Schema does not know would be dropped, but the handler sees it: such an input has no key.
  const encode = Schema.encodeUnknownExit(Schema.toCodecJson(schema), { onExcessProperty: "error" })
  return (input) => {
    try {
      const encoded = encode(input)
      return Exit.isSuccess(encoded) ? canonicalJson(encoded.value) : undefined
    } catch {
      return undefined
    }
  }
}

// Schemas whose JSON form is the value itself. Then the value is keyed as it is, at a fraction of the cost. It is
// asked of the Schema as written, where a number is a number: NaN, which has a JSON form of its own in Effect, has no
// key then.
const isPlain = (ast: SchemaAST.AST): boolean => {
  if (ast.encoding !== undefined) return false
  switch (ast._tag) {
    case "String":
    case "Number":
    case "Boolean":
    case "Null":
    case "TemplateLiteral":
    case "Enum":
      return true
    case "Literal":
      return typeof ast.literal !== "bigint"
    case "Arrays":
      return ast.elements.every(isPlain) && ast.rest.every(isPlain)
    case "Objects":
      return ast.propertySignatures.every((property) => typeof property.name === "string" && isPlain(property.type)) &&
        ast.indexSignatures.every((index) => isPlain(index.parameter) && isPlain(index.type))
    case "Union":
      return ast.types.every(isPlain)
    default:
      return false
  }
}

// Who shares an answer, as text. A caller without a tenant belongs to none, so it shares with nobody else.
const circleOf = (varies: "identity" | "tenant", identity: Identity): string | undefined =>
  varies === "tenant" && identity.tenant !== undefined
    ? identity.tenant.isWellFormed() ? `t${identity.tenant}` : undefined
    : identityDigest(identity)

const digests = new WeakMap<Identity, string>()

const identityDigest = (identity: Identity): string | undefined => {
  const known = digests.get(identity)
  if (known !== undefined) return known
  const tenant = identity.tenant === undefined ? "-" : `+${identity.tenant}`
  // The method too: a principal is unique among callers that were authenticated alike, and one called "anonymous" is
  // not the anonymous caller.
  // One part more for callers with an issuer, whose principals are unique with each issuer only.
  const issuer = identity.issuer === undefined ? "" : part(identity.issuer)
  const text = `${part(identity.method)}${part(tenant)}${part(identity.principal)}${list(identity.roles)}${
    list(identity.scopes)
  }${issuer}`
  if (!text.isWellFormed()) return undefined
  const digest = `i${sha256Hex(text)}`
  // Only what cannot change any more may be remembered.
  if (Object.isFrozen(identity) && Object.isFrozen(identity.roles) && Object.isFrozen(identity.scopes)) {
    digests.set(identity, digest)
  }
  return digest
}

const list = (values: ReadonlyArray<string>): string => {
  const sorted = Array.from(new Set(values)).toSorted()
  return part(sorted.map(part).join(""))
}
