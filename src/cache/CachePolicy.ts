/**
 * Which answers are kept, and for how long.
 *
 * A tool's answers are cacheable when the tool is `readOnly`, or tagged `cacheable`, and has none of the tags `write`,
 * `danger`, `unsafe`, `mutation` and `delete` (in any case of letters). What is set here for all tools, a tool's own
 * `policy` sets for that tool.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import type { ToolCall } from "../ToolCall.ts"
import type { ToolMeta } from "../ToolMeta.ts"

/**
 * The cache settings of one tool.
 *
 * - `ttl`: how long an answer is fresh. 0 turns caching off for the tool. Never more than the layer's `maxTtl`.
 * - `ttlOf`: the same for one answer. `undefined` leaves it at `ttl`; 0 means that the answer is for this call alone.
 * - `jitter`: by how much of itself a ttl may be shortened, 0 to 1, so that entries do not all end at once.
 * - `staleWhileRevalidate`: how long after its ttl an answer is still given at once, while one call in the background
 *   fetches a new one. That one runs on the decision of the call that was given the old answer, which a `required`
 *   audit log has acknowledged before; the log's record of the outcome is that call's (`stale`), and none is written of
 *   what became of the refresh: see `ToolCache.Stats` and the `tool.exec.*` metrics.
 * - `staleIfError`: how long after its ttl an answer is given when the tool cannot be reached: an open circuit, a
 *   timeout, a transport failure, or what `staleIf` says.
 * - `staleIf`: more errors for which `staleIfError` holds.
 * - `maxEntryBytes`: the largest answer that is kept, in bytes of UTF-8 JSON.
 * - `tags`: names for this answer, to invalidate it by.
 * - `invalidates`: for writes: the tags whose answers are no longer true. `result` is undefined when it is not known
 *   whether the write happened: it failed, timed out or was interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export interface ToolCachePolicy {
  readonly ttl?: Duration.Input | undefined
  readonly ttlOf?: ((result: unknown) => Duration.Input | undefined) | undefined
  readonly jitter?: number | undefined
  readonly staleWhileRevalidate?: Duration.Input | undefined
  readonly staleIfError?: Duration.Input | undefined
  readonly staleIf?: ((error: unknown) => boolean) | undefined
  readonly maxEntryBytes?: number | undefined
  readonly tags?: ((call: ToolCall, result: unknown) => ReadonlyArray<string>) | undefined
  readonly invalidates?: ((call: ToolCall, result: unknown) => ReadonlyArray<string>) | undefined
}

/**
 * What `layer` takes.
 *
 * - `defaultTtl`: how long an answer is fresh when its tool does not say. Default 5 minutes; 0 caches only tools that do.
 * - `maxTtl`: the longest ttl that a tool or a result may ask for. Default 1 hour.
 * - `allowUnsafe`: cache tools with an unsafe tag as well, if they are otherwise cacheable. Default false.
 * - `jitter`: by how much of itself a ttl may be shortened, 0 to 1. Default 0.1.
 * - `staleWhileRevalidate`, `staleIfError`: see `ToolCachePolicy`. Default 0, that is, off.
 * - `maxEntryBytes`: the largest answer that is kept. Default 1 MiB.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly defaultTtl?: Duration.Input | undefined
  readonly maxTtl?: Duration.Input | undefined
  readonly allowUnsafe?: boolean | undefined
  readonly jitter?: number | undefined
  readonly staleWhileRevalidate?: Duration.Input | undefined
  readonly staleIfError?: Duration.Input | undefined
  readonly maxEntryBytes?: number | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  defaultTtl: true,
  maxTtl: true,
  allowUnsafe: true,
  jitter: true,
  staleWhileRevalidate: true,
  staleIfError: true,
  maxEntryBytes: true
}

/**
 * A policy with every setting resolved. Times are in milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Resolved {
  readonly defaultTtlMillis: number
  readonly maxTtlMillis: number
  readonly allowUnsafe: boolean
  readonly jitter: number
  readonly staleWhileRevalidateMillis: number
  readonly staleIfErrorMillis: number
  readonly maxEntryBytes: number
}

/**
 * Checks options and fills in the defaults.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Resolved => {
  const where = "CachePolicy.make"
  Check.known(where, options, Object.keys(optionNames))
  const zero = { allowZero: true }
  return Object.freeze({
    defaultTtlMillis: Check.millis(where, "defaultTtl", options.defaultTtl ?? "5 minutes", zero),
    maxTtlMillis: Check.millis(where, "maxTtl", options.maxTtl ?? "1 hour"),
    allowUnsafe: options.allowUnsafe ?? false,
    jitter: Check.finite(where, "jitter", options.jitter ?? 0.1, { minimum: 0, maximum: 1 }),
    staleWhileRevalidateMillis: Check.millis(where, "staleWhileRevalidate", options.staleWhileRevalidate ?? 0, zero),
    staleIfErrorMillis: Check.millis(where, "staleIfError", options.staleIfError ?? 0, zero),
    maxEntryBytes: Check.integer(where, "maxEntryBytes", options.maxEntryBytes ?? 1024 * 1024, 1)
  })
}

/**
 * The policy for all tools. Without a layer it is the defaults of `Options`.
 *
 * @category references
 * @since 0.1.0
 */
export const CachePolicy: Context.Reference<Resolved> = Context.Reference<Resolved>(
  "effect-toolops/cache/CachePolicy",
  { defaultValue: () => make() }
)

/**
 * Sets the policy of the cache stage that it is provided to.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<never> => Layer.succeed(CachePolicy, make(options))

/**
 * `layer` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<never, Config.ConfigError> =>
  Layer.effect(CachePolicy, Effect.map(Config.unwrap(options), make))

/** @internal The policy of one tool, or why its answers are not kept. */
export interface ToolPlan {
  readonly refused: "unsafe_tag" | "not_read_only" | "ttl_0" | undefined
  readonly ttlMillis: number
  readonly maxTtlMillis: number
  readonly jitter: number
  readonly revalidateMillis: number
  readonly errorMillis: number
  readonly maxEntryBytes: number
}

const unsafeTags: ReadonlySet<string> = new Set(["write", "danger", "unsafe", "mutation", "delete"])

/** @internal */
export const forTool = (policy: Resolved, tool: ToolMeta): ToolPlan => {
  const own = tool.policy
  const where = `ToolMeta.make: policy of ${tool.id}`
  const zero = { allowZero: true }
  const tags = tool.tags.map((tag) => tag.toLowerCase())
  const asked = own.ttl === undefined ? policy.defaultTtlMillis : Check.millis(where, "ttl", own.ttl, {
    allowZero: true,
    allowInfinite: true
  })
  const refused = !policy.allowUnsafe && tags.some((tag) => unsafeTags.has(tag))
    ? "unsafe_tag"
    : !tool.readOnly && !tags.includes("cacheable")
    ? "not_read_only"
    : asked === 0 && own.ttlOf === undefined
    ? "ttl_0"
    : undefined
  return {
    refused,
    ttlMillis: Math.min(asked, policy.maxTtlMillis),
    maxTtlMillis: policy.maxTtlMillis,
    jitter: own.jitter === undefined
      ? policy.jitter
      : Check.finite(where, "jitter", own.jitter, { minimum: 0, maximum: 1 }),
    revalidateMillis: own.staleWhileRevalidate === undefined
      ? policy.staleWhileRevalidateMillis
      : Check.millis(where, "staleWhileRevalidate", own.staleWhileRevalidate, zero),
    errorMillis: own.staleIfError === undefined
      ? policy.staleIfErrorMillis
      : Check.millis(where, "staleIfError", own.staleIfError, zero),
    maxEntryBytes: own.maxEntryBytes === undefined
      ? policy.maxEntryBytes
      : Check.integer(where, "maxEntryBytes", own.maxEntryBytes, 1)
  }
}
