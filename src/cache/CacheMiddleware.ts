/**
 * Stage 4 of 5. Answers a call from the cache when its policy allows, and stores what the rest of the path returns.
 *
 * Concurrent misses of one key run the call once. Failures are never stored. A cache that does not work is a cache that
 * knows nothing: it fails no call. Who may be given an answer is decided by the key (see `CacheKey`), so a call that
 * gets here has been authorized, and is answered from what callers with the same rights were told.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { CacheStatus, CallRecord } from "../CallRecord.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import type { ToolCall } from "../ToolCall.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import * as CachePolicy from "./CachePolicy.ts"
import { CachedPath, StatusCell } from "./internal/cachedPath.ts"
import { callerOf, type Engine } from "./internal/engine.ts"
import { invalidating } from "./internal/invalidating.ts"
import { ToolCache } from "./ToolCache.ts"

/**
 * The cache stage.
 *
 * @category services
 * @since 0.1.0
 */
export class CacheMiddleware extends Context.Service<CacheMiddleware, ToolMiddleware.ToolMiddleware<never>>()(
  "effect-toolops/cache/CacheMiddleware"
) {}

/**
 * What the calls of a part of a program want of the cache, those of tools called by tools included.
 *
 * - `use`: be answered from it. The default.
 * - `bypass`: neither be answered from it nor stored in it.
 * - `refresh`: run, and store the answer in place of the one that is there.
 *
 * **Example** (Asking for a fresh answer)
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
 *   const call = pipeline.run({ tool: now }, Effect.sync(() => time++))
 *   const fresh = Effect.provideService(call, CacheMiddleware.CacheMode, "refresh")
 *   return [yield* call, yield* call, yield* fresh, yield* call]
 * })
 *
 * const Live = CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory()))
 * await Effect.runPromise(program.pipe(Effect.provide(Live))) // => [1, 1, 2, 2]
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const CacheMode: Context.Reference<"use" | "bypass" | "refresh"> = Context.Reference<
  "use" | "bypass" | "refresh"
>("effect-toolops/cache/CacheMiddleware/CacheMode", { defaultValue: () => "use" })

/**
 * Runs a call and says where its answer came from. `undefined` when it passed no cache stage.
 *
 * **When to use**
 *
 * Where the caller is to know that an answer is past its time (`stale`).
 *
 * **Details**
 *
 * It tells of the first call that `self` makes, and not of tools that this one calls in turn.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withStatus = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<{ readonly value: A; readonly cache: CacheStatus | undefined }, E, R> =>
  Effect.suspend(() => {
    const cell: { record: CallRecord | undefined } = { record: undefined }
    return Effect.map(
      Effect.provideService(self, StatusCell, cell),
      (value) => ({ value, cache: cell.record?.cache })
    )
  })

/**
 * Provides the cache stage. Its settings are in the `CachePolicy` reference.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<CacheMiddleware, never, ToolCache> = Layer.effect(
  CacheMiddleware,
  Effect.gen(function*() {
    const engine = (yield* ToolCache)["~engine"]
    const policy = yield* CachePolicy.CachePolicy
    const scope = yield* Effect.scope
    return ToolMiddleware.of<never>({
      name: "cache",
      forTool: (tool) => {
        const plan = CachePolicy.forTool(policy, tool)
        const write = tool.policy.invalidates
        if (plan.refused !== undefined) {
          return (call, next) => {
            const path = write === undefined ? next : invalidating(engine, tool, write, call, next)
            return Effect.withFiber((fiber) => {
              const cell = fiber.getRef(StatusCell)
              if (cell !== undefined) cell.record ??= call.record
              call.record.cache = "bypass"
              return path
            })
          }
        }
        const path = new CachedPath(engine, plan, tool, scope, CacheMode)
        const around: ToolMiddleware.AroundAgain<never> = write === undefined
          ? (call, next, again) => path.around(call, next, again)
          : (call, next, again) =>
            path.around(
              call,
              invalidating(engine, tool, write, call, next),
              again && ((other) => invalidating(engine, tool, write, other, again(other)))
            )
        return plan.revalidateMillis === 0 ? around : ToolMiddleware.withAgain(around)
      },
      explain: (tool) => explain(engine, policy, tool)
    })
  })
)

const explain = (engine: Engine, policy: CachePolicy.Resolved, tool: ToolMeta) => {
  const plan = CachePolicy.forTool(policy, tool)
  const { keyOf } = engine.forTool(tool)
  return (call: ToolCall): Effect.Effect<ToolMiddleware.Explanation> => {
    if (plan.refused !== undefined) {
      return Effect.succeed({ verdict: "pass", detail: { cache: "bypass", why: plan.refused } })
    }
    return Effect.withFiber((fiber) => {
      const mode = fiber.getRef(CacheMode)
      if (mode === "bypass") return Effect.succeed({ verdict: "pass", detail: { cache: "bypass", why: "asked" } })
      const key = keyOf(call.input, call.action, call.record.identity ?? callerOf(fiber))
      if (key === undefined) return Effect.succeed({ verdict: "pass", detail: { cache: "bypass", why: "no_key" } })
      return Effect.map(
        Effect.catchCause(engine.store.get(key), () => Effect.undefined),
        (found): ToolMiddleware.Explanation => {
          const now = monotonicMillis(fiber)
          const entry = engine.check(found, key, now)
          const isFresh = entry !== undefined && entry.freshUntil > now
          return {
            verdict: isFresh && mode === "use" ? "answer" : "pass",
            detail: {
              cache: isFresh ? "hit" : entry === undefined ? "miss" : "stale",
              key,
              store: engine.store.name,
              ttlMillis: plan.ttlMillis
            }
          }
        }
      )
    })
  }
}

/**
 * Leaves the stage out: every call runs.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<CacheMiddleware> = Layer.succeed(
  CacheMiddleware,
  ToolMiddleware.passthrough("cache")
)
