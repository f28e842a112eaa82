/**
 * What the pipeline knows about a tool: its name, what running it may do, and who may share its answers.
 *
 * Make one `ToolMeta` per tool, once, and keep it: stages prepare their work for it the first time they see it. A tool
 * that says nothing is taken for destructive and not idempotent, as the Model Context Protocol has it, so it is neither
 * cached nor retried.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import * as SchemaModule from "effect/Schema"
import type { ToolCachePolicy } from "./cache/CachePolicy.ts"
import { sha256Hex } from "./internal/hash.ts"
import * as Check from "./internal/options.ts"
import { namePart } from "./internal/toolPattern.ts"
import type { ResiliencePolicy } from "./resilience/ResiliencePolicy.ts"

/**
 * Who may be given the answer that somebody else's call produced.
 *
 * - `identity`: nobody but the same principal of the same tenant with the same roles and scopes. The default.
 * - `tenant`: anybody of the same tenant.
 * - `everyone`: any caller. The handler of such a tool must not look at the caller.
 *
 * @category models
 * @since 0.1.0
 */
export type Varies = "identity" | "tenant" | "everyone"

/**
 * Settings of the stages for one tool. They win over what the stages' layers say.
 *
 * @category models
 * @since 0.1.0
 */
export interface ToolPolicy extends ResiliencePolicy, ToolCachePolicy {}

// Spelled out so that a misspelt member is found when the tool is made; the compiler keeps the list complete.
const policyNames: { readonly [K in keyof Required<ToolPolicy>]: true } = {
  dependency: true,
  circuitBreaker: true,
  retry: true,
  timeout: true,
  bulkhead: true,
  hedge: true,
  acceptsIdempotencyKey: true,
  ttl: true,
  ttlOf: true,
  jitter: true,
  staleWhileRevalidate: true,
  staleIfError: true,
  staleIf: true,
  maxEntryBytes: true,
  tags: true,
  invalidates: true
}

/**
 * The description of one tool. `Input` is what its handler takes and `V` what `varies` says.
 *
 * - `id`: `namespace:name`, or `name` alone.
 * - `spanName`: `tool.exec.<namespace>.<name>` or `tool.exec.<name>`.
 * - `digest`: SHA-256 over name, version, description, annotations and schemas, in hexadecimal. It changes when the
 *   tool does, and is part of every cache key.
 *
 * @category models
 * @since 0.1.0
 */
export interface ToolMeta<Input = any, out V extends Varies = Varies> {
  readonly id: string
  readonly namespace: string | undefined
  readonly name: string
  readonly version: string | undefined
  readonly description: string | undefined
  readonly tags: ReadonlyArray<string>
  readonly category: string | undefined
  readonly readOnly: boolean
  readonly destructive: boolean
  readonly idempotent: boolean
  readonly openWorld: boolean
  readonly varies: V
  readonly scopes: ReadonlyArray<string>
  readonly input: Schema.Codec<Input, unknown> | undefined
  readonly success: Schema.Codec<unknown, unknown> | undefined
  readonly failure: Schema.Codec<unknown, unknown> | undefined
  readonly policy: ToolPolicy
  readonly spanName: string
  readonly digest: string
}

/**
 * What `make` takes.
 *
 * - `namespace`, `name`: 1 to 128 of `A-Z a-z 0-9 _ - .` each.
 * - `version`, `description`, `category`: free text. A new `version` gives the tool a new digest.
 * - `tags`: free words. `cacheable` allows caching, `write`, `danger`, `unsafe`, `mutation` and `delete` forbid it.
 * - `readOnly`: running the tool changes nothing. Default false.
 * - `destructive`: running it may destroy something. Default: true unless `readOnly`.
 * - `idempotent`: running it twice is the same as once. Default false.
 * - `openWorld`: it reaches beyond this program. Default true.
 * - `varies`: who may share an answer. Default `identity`.
 * - `scopes`: the caller's identity must hold all of them.
 * - `input`, `success`, `failure`: Schemas of what the handler takes, returns and fails with.
 * - `policy`: settings of the stages for this tool.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<Input = any, V extends Varies = Varies> {
  readonly namespace?: string | undefined
  readonly name: string
  readonly version?: string | undefined
  readonly description?: string | undefined
  readonly tags?: ReadonlyArray<string> | undefined
  readonly category?: string | undefined
  readonly readOnly?: boolean | undefined
  readonly destructive?: boolean | undefined
  readonly idempotent?: boolean | undefined
  readonly openWorld?: boolean | undefined
  readonly varies?: V | undefined
  readonly scopes?: ReadonlyArray<string> | undefined
  readonly input?: Schema.Codec<Input, any> | undefined
  readonly success?: Schema.Codec<any, any> | undefined
  readonly failure?: Schema.Codec<any, any> | undefined
  readonly policy?: ToolPolicy | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  namespace: true,
  name: true,
  version: true,
  description: true,
  tags: true,
  category: true,
  readOnly: true,
  destructive: true,
  idempotent: true,
  openWorld: true,
  varies: true,
  scopes: true,
  input: true,
  success: true,
  failure: true,
  policy: true
}

const where = "ToolMeta.make"

const checkName = (field: string, value: unknown): void => {
  if (typeof value !== "string" || !namePart.test(value)) {
    const came = typeof value === "string" ? JSON.stringify(value) : String(value)
    throw new TypeError(`${where}: ${field} must be 1 to 128 of the characters A-Z a-z 0-9 _ - . , got ${came}`)
  }
}

const checkObject = (field: string, value: unknown): void => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const came = value === null ? "null" : Array.isArray(value) ? "an array" : typeof value
    throw new TypeError(`${where}: ${field} must be an object, got ${came}`)
  }
}

const strings = (field: string, values: ReadonlyArray<string> | undefined): ReadonlyArray<string> => {
  if (values === undefined) return Object.freeze([])
  if (!Array.isArray(values) || !values.every((value) => typeof value === "string" && value.length > 0)) {
    throw new TypeError(`${where}: ${field} must be an array of non-empty strings`)
  }
  return Object.freeze([...values])
}

const boolean = (field: string, value: boolean | undefined, fallback: boolean): boolean => {
  if (value === undefined) return fallback
  if (typeof value !== "boolean") throw new TypeError(`${where}: ${field} must be true or false, got ${typeof value}`)
  return value
}

const text = (field: string, value: string | undefined): string | undefined => {
  if (value !== undefined && typeof value !== "string") {
    throw new TypeError(`${where}: ${field} must be a string, got ${typeof value}`)
  }
  return value
}

const schema = <A>(field: string, value: Schema.Codec<A, any> | undefined): Schema.Codec<A, unknown> | undefined => {
  if (value !== undefined && !SchemaModule.isSchema(value)) {
    throw new TypeError(`${where}: ${field} must be a Schema, got ${typeof value}`)
  }
  return value
}

// A schema without a JSON form (one that holds a function, say) is told apart by what it prints.
const describeSchema = (value: Schema.Codec<any, unknown> | undefined): unknown => {
  if (value === undefined) return null
  try {
    return SchemaModule.toJsonSchemaDocument(value)
  } catch {
    return String(value.ast)
  }
}

class ToolMetaImpl<Input, V extends Varies> implements ToolMeta<Input, V> {
  readonly id: string
  readonly namespace: string | undefined
  readonly name: string
  readonly version: string | undefined
  readonly description: string | undefined
  readonly tags: ReadonlyArray<string>
  readonly category: string | undefined
  readonly readOnly: boolean
  readonly destructive: boolean
  readonly idempotent: boolean
  readonly openWorld: boolean
  readonly varies: V
  readonly scopes: ReadonlyArray<string>
  readonly input: Schema.Codec<Input, unknown> | undefined
  readonly success: Schema.Codec<unknown, unknown> | undefined
  readonly failure: Schema.Codec<unknown, unknown> | undefined
  readonly policy: ToolPolicy
  readonly spanName: string
  #digest: string | undefined = undefined

  constructor(options: Options<Input, V>, varies: V) {
    this.namespace = options.namespace
    this.name = options.name
    this.id = options.namespace === undefined ? options.name : `${options.namespace}:${options.name}`
    this.version = text("version", options.version)
    this.description = text("description", options.description)
    this.tags = strings("tags", options.tags)
    this.category = text("category", options.category)
    this.readOnly = boolean("readOnly", options.readOnly, false)
    this.destructive = boolean("destructive", options.destructive, !this.readOnly)
    this.idempotent = boolean("idempotent", options.idempotent, false)
    this.openWorld = boolean("openWorld", options.openWorld, true)
    this.varies = varies
    this.scopes = strings("scopes", options.scopes)
    this.input = schema("input", options.input)
    this.success = schema("success", options.success)
    this.failure = schema("failure", options.failure)
    this.policy = Object.freeze({ ...options.policy })
    this.spanName = options.namespace === undefined
      ? `tool.exec.${options.name}`
      : `tool.exec.${options.namespace}.${options.name}`
  }

  // Computed on first use: turning schemas into JSON is dear, and a program may declare tools it never calls.
  get digest(): string {
    return this.#digest ??= sha256Hex(JSON.stringify([
      this.namespace ?? null,
      this.name,
      this.version ?? null,
      this.description ?? null,
      [this.readOnly, this.destructive, this.idempotent, this.openWorld, this.varies],
      this.tags,
      this.scopes,
      this.category ?? null,
      describeSchema(this.input),
      describeSchema(this.success),
      describeSchema(this.failure)
    ]))
  }

  toJSON(): unknown {
    return { _id: "effect-toolops/ToolMeta", id: this.id, version: this.version, digest: this.digest }
  }
}

/**
 * Makes the description of a tool.
 *
 * **Details**
 *
 * Throws a `TypeError` that names the field for a bad name, an unknown field, a field of the wrong kind, and for
 * annotations that contradict each other (`readOnly` with `destructive`). What `policy` says is checked by the stages that
 * go by it, when the tool is wrapped or first called.
 *
 * **Example** (Describing a read-only tool)
 *
 * ```ts
 * import { ToolMeta } from "effect-toolops"
 *
 * const search = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })
 * search.id // => "docs:search"
 * search.spanName // => "tool.exec.docs.search"
 * search.destructive // => false
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Input = any, const V extends Varies = "identity">(
  options: Options<Input, V>
): ToolMeta<Input, V> => {
  checkObject("the argument", options)
  Check.known(where, options, Object.keys(optionNames))
  checkName("name", options.name)
  if (options.namespace !== undefined) checkName("namespace", options.namespace)
  const varies = options.varies ?? "identity"
  Check.oneOf(where, "varies", varies, ["identity", "tenant", "everyone"])
  if (options.readOnly === true && options.destructive === true) {
    throw new TypeError(`${where}: a tool cannot be both readOnly and destructive (${options.name})`)
  }
  if (options.policy !== undefined) {
    checkObject("policy", options.policy)
    Check.known(`${where}: policy`, options.policy, Object.keys(policyNames))
  }
  // `V` defaults to "identity", which is what an absent `varies` means.
  return Object.freeze(new ToolMetaImpl(options, varies as V))
}

/**
 * Says whether a value was made by `make`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isToolMeta = (value: unknown): value is ToolMeta => value instanceof ToolMetaImpl
