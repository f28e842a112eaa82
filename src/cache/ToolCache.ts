/**
 * The cache itself: finds, forgets and counts the answers of tools. The cache stage works on it; programs use it to
 * invalidate, and to look.
 *
 * It stands between the stage and a `CacheStore`. What a store returns is checked here: that it was stored under this
 * key, that its time is not over, and that it still fits the tool's `success` Schema. Anything else counts as a miss.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Identity } from "../auth/Identity.ts"
import { cacheStoreCheck } from "../health/internal/partChecks.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import type { ToolCall } from "../ToolCall.ts"
import * as CacheError from "./CacheError.ts"
import { isCacheKey } from "./CacheKey.ts"
import type * as CacheKey from "./CacheKey.ts"
import { CacheStore, type Options, type StoreStats } from "./CacheStore.ts"
import * as Store from "./CacheStore.ts"
import { callerOf, Engine } from "./internal/engine.ts"
import * as Labels from "./internal/labels.ts"
import { corrupt } from "./internal/resultCodec.ts"

/**
 * What to forget. Exactly one of:
 *
 * - `key`: one entry, by the key that the call's record names.
 * - `tool`: every answer of a tool, by its id. `namespace`: of every tool in it.
 * - `tag`: every answer that has the tag, or one of the tags, given by a tool's `policy.tags`.
 * - `tenant`: every answer given to a tenant, or to one of its identities.
 * - `identity`: every answer given to one principal, whatever its roles and scopes. With an `issuer` that issuer's
 *   principal alone, without one the principals of that name of all issuers.
 *
 * An answer that everyone shares belongs to no tenant and to no identity.
 *
 * @category models
 * @since 0.1.0
 */
export type Target =
  | { readonly key: string }
  | { readonly tool: string }
  | { readonly namespace: string }
  | { readonly tag: string | ReadonlyArray<string> }
  | { readonly tenant: string }
  | { readonly identity: Pick<Identity, "issuer" | "principal" | "tenant"> }

/**
 * What has been counted since the layer was built.
 *
 * - `hits`, `misses`, `stale`, `coalesced`: answers from the store, executions, answers past their time, answers that
 *   another call was computing.
 * - `bypassed`: calls of tools that are cacheable that asked not to be. `refreshes`: answers fetched anew before anybody
 *   waited. `failedRefreshes`: those of them that failed, which no caller was told. Their executions are in `tool.exec.*`.
 * - `uncacheable`: calls without a key. `unstored`: answers that were not kept: not JSON, too large, for one call alone.
 * - `corrupt`: what a store returned and should not have. `errors`: operations of the store that failed, and functions
 *   of a tool's policy that threw.
 * - `stores`: each store's own figures.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly hits: number
  readonly misses: number
  readonly stale: number
  readonly coalesced: number
  readonly bypassed: number
  readonly refreshes: number
  readonly failedRefreshes: number
  readonly uncacheable: number
  readonly unstored: number
  readonly corrupt: number
  readonly errors: number
  readonly stores: ReadonlyArray<StoreStats>
}

/**
 * The answers of tools.
 *
 * - `lookup`: the answer to a call, if it is there and fresh. Runs nothing. The caller is `identity`, else the one of
 *   the call, else `CurrentIdentity`, else the anonymous one.
 * - `invalidate`: forgets what `Target` names, and what is being computed from the time before.
 * - `stats`: see `Stats`. `clear`: forgets everything.
 *
 * **Example** (Forgetting what a write has changed)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { ToolMeta, ToolPipeline } from "effect-toolops"
 * import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
 *
 * const now = ToolMeta.make({ name: "now", readOnly: true })
 * let time = 1
 *
 * const program = Effect.gen(function*() {
 *   const pipeline = yield* ToolPipeline.make(CacheMiddleware.CacheMiddleware)
 *   const cache = yield* ToolCache.ToolCache
 *   const call = pipeline.run({ tool: now }, Effect.sync(() => time++))
 *   const answers = [yield* call, yield* call]
 *   yield* cache.invalidate({ tool: "now" })
 *   return [...answers, yield* call]
 * })
 *
 * const Live = CacheMiddleware.layer.pipe(Layer.provideMerge(ToolCache.layerMemory()))
 * await Effect.runPromise(program.pipe(Effect.provide(Live))) // => [1, 1, 2]
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class ToolCache extends Context.Service<ToolCache, {
  readonly lookup: (
    call: ToolCall | CacheKey.Options,
    identity?: Identity
  ) => Effect.Effect<Option.Option<unknown>, CacheError.CacheError>
  readonly invalidate: (target: Target) => Effect.Effect<void, CacheError.CacheError>
  readonly stats: Effect.Effect<Stats>
  readonly clear: Effect.Effect<void, CacheError.CacheError>
  /** @internal What the cache stage works on. */
  readonly "~engine": Engine
}>()("effect-toolops/cache/ToolCache") {}

const named = (kind: "key" | "tag", name: string): Effect.Effect<string, CacheError.CacheError> =>
  isCacheKey(name)
    ? Effect.succeed(name)
    : Effect.fail(new CacheError.CacheError({ reason: new CacheError.InvalidName({ kind }) }))

const labelsOf = (target: Exclude<Target, { readonly key: string }>) => {
  if ("tool" in target) return Effect.succeed([Labels.tool(target.tool)])
  if ("namespace" in target) return Effect.succeed([Labels.namespace(target.namespace)])
  if ("tenant" in target) return Effect.succeed([Labels.tenant(target.tenant)])
  if ("identity" in target) return Effect.succeed([Labels.identity(target.identity)])
  const tags = typeof target.tag === "string" ? [target.tag] : target.tag
  return Effect.forEach(tags, (tag) => Effect.map(named("tag", tag), Labels.tag))
}

const make = (store: Store.Store): ToolCache["Service"] => {
  const engine = new Engine(store)
  return {
    "~engine": engine,
    lookup: (call, identity) =>
      Effect.withFiber((fiber) => {
        const { codec, keyOf } = engine.forTool(call.tool)
        const given = identity ?? ("record" in call ? call.record.identity : call.identity)
        const key = keyOf(call.input, call.action ?? "call", given ?? callerOf(fiber))
        if (key === undefined) return Effect.succeedNone
        return Effect.map(store.get(key), (entry) => {
          const now = monotonicMillis(fiber)
          const sound = engine.check(entry, key, now)
          if (sound === undefined || sound.freshUntil <= now) return Option.none()
          const answer = codec.decode(sound.text)
          return answer === corrupt ? Option.none() : Option.some(answer)
        })
      }),
    invalidate: (target) =>
      "key" in target
        ? Effect.flatMap(named("key", target.key), (key) => engine.remove(key))
        : Effect.flatMap(labelsOf(target), (labels) => engine.invalidate(labels)),
    clear: engine.clear,
    stats: Effect.map(
      Effect.catchCause(
        store.stats,
        () =>
          Effect.succeed<StoreStats>({
            store: store.name,
            entries: undefined,
            bytes: undefined,
            evictions: 0,
            errors: 1
          })
      ),
      (stats): Stats => ({ ...engine.counters, stores: stats.tiers ?? [stats] })
    )
  }
}

/**
 * Provides a `ToolCache` that keeps its answers in the given `CacheStore`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ToolCache, never, CacheStore> = Layer.effect(
  ToolCache,
  Effect.flatMap(CacheStore, (store) => Effect.as(cacheStoreCheck(store), make(store)))
)

/**
 * Provides a `ToolCache` in this process's memory: `layer` with `CacheStore.layerMemory`.
 *
 * **Gotchas**
 *
 * Two calls of `layerMemory` are two caches. Bind it once to share it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options?: Options): Layer.Layer<ToolCache> =>
  Layer.provide(layer, Store.layerMemoryOf("ToolCache.layerMemory", options))

/**
 * `layerMemory` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryConfig = (options: Config.Wrap<Options>): Layer.Layer<ToolCache, Config.ConfigError> =>
  Layer.provide(layer, Store.layerMemoryConfig(options))
