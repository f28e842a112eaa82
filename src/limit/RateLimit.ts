/**
 * How often callers may call: any number of limits, by caller, tenant, tool or all together.
 *
 * `RateLimit` decides which limits concern a call and whose tokens it takes; a `RateLimitStore` keeps the tokens;
 * `RateLimitMiddleware` puts both into the pipeline. For one limit around one effect see `RateLimiter` in
 * `effect-toolops/resilience`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { CurrentPeer as peer } from "../internal/currentPeer.ts"
import * as Check from "../internal/options.ts"
import type { ToolCall } from "../ToolCall.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import type { Around, Explanation } from "../ToolMiddleware.ts"
import * as Rule from "./internal/limitRule.ts"
import { fromSettings, type Settings } from "./internal/limitStage.ts"
import type { RateLimitError } from "./RateLimitError.ts"
import { RateLimitStore, Take } from "./RateLimitStore.ts"

/**
 * Whose calls count together.
 *
 * - `identity`: those of one principal of one tenant, whatever the tool. Anonymous callers count by `CurrentPeer`, and
 *   together when there is none.
 * - `identity+tool`: those of one principal to one tool.
 * - `tenant`: those of one tenant. Callers without a tenant count as one.
 * - `tool`: those to one tool. `global`: all.
 *
 * @category models
 * @since 0.1.0
 */
export type Per = "identity" | "tenant" | "tool" | "identity+tool" | "global"

/**
 * One limit.
 *
 * - `name`: 1 to 64 of `A-Z a-z 0-9 _ - .`, unique. It names the limit in errors, records and the store.
 * - `limit`, `window`: so many tokens come back evenly over so much time. Whole numbers from 1 to 1,000,000,000.
 * - `burst`: how many tokens may be spent at once. Default `limit`.
 * - `tools`: exact ids, `namespace:*` or `*`. Default: every tool.
 * - `roles`: concerns only callers who hold one of them. Default: every caller.
 * - `cost`: tokens a call takes, a whole number from 0, or a function of the call. Default 1. A function that returns
 *   anything else is a defect of the call, which does not run; more than `burst` is refused for good.
 * - `mode`: `shadow` counts and records and never refuses. Default `enforce`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limit {
  readonly name: string
  readonly per: Per
  readonly limit: number
  readonly window: Duration.Input
  readonly burst?: number | undefined
  readonly tools?: ReadonlyArray<string> | undefined
  readonly roles?: ReadonlyArray<string> | undefined
  readonly cost?: number | ((call: ToolCall) => number) | undefined
  readonly mode?: "enforce" | "shadow" | undefined
}

/**
 * What `layer` takes.
 *
 * - `limits`: one or more. A call passes when all that concern it let it.
 * - `onExceeded`: `fail` at once (the default), or `wait` for tokens that come back within `maxWait`.
 * - `maxWait`: the longest wait, up to 1 day. Default 1 second.
 * - `mode`: `shadow` puts every limit into shadow mode. Default `enforce`.
 * - `refundHits`: a call that the cache answers gives its tokens back. Default false.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly limits: ReadonlyArray<Limit>
  readonly onExceeded?: "fail" | "wait" | undefined
  readonly maxWait?: Duration.Input | undefined
  readonly mode?: "enforce" | "shadow" | undefined
  readonly refundHits?: boolean | undefined
}

/**
 * The network address of whoever is calling, by which anonymous callers are told apart. `HttpAuth` and `McpOps` set it to
 * the socket's, unless it has been set outside of them. IPv6 addresses that share their first 64 bits count as one peer,
 * because one host mostly has all of them; an IPv4 address within an IPv6 one counts as the IPv4 address.
 *
 * **Gotchas**
 *
 * Take it from the socket, or from a header that a proxy of yours has written. A caller who may choose it may choose a
 * new one for each call; a `global` limit beside it bounds what that is good for.
 *
 * @category references
 * @since 0.1.0
 */
export const CurrentPeer: Context.Reference<string | undefined> = peer

/**
 * The limits of a program.
 *
 * - `forTool`: what limits the calls of one tool. Everything that depends on the tool alone is done there.
 * - `explain`: what the limits would say of a call. Nothing is spent.
 * - `limits`: those in force. `update`: replaces them. Buckets of a limit that keeps its name stay as full as they are,
 *   in proportion, so who is throttled stays throttled. Limits that make no sense are a defect and change nothing.
 *
 * @category services
 * @since 0.1.0
 */
export class RateLimit extends Context.Service<RateLimit, {
  readonly forTool: (tool: ToolMeta) => Around<RateLimitError>
  readonly explain: (tool: ToolMeta) => (call: ToolCall) => Effect.Effect<Explanation>
  readonly limits: Effect.Effect<ReadonlyArray<Limit>>
  readonly update: (limits: ReadonlyArray<Limit>) => Effect.Effect<void>
}>()("effect-toolops/limit/RateLimit") {}

const maxMaxWaitMillis = 86_400_000

const resolve = (where: string, options: Options): Settings => {
  Check.known(where, options, ["limits", "onExceeded", "maxWait", "mode", "refundHits"])
  const waits = Check.oneOf(where, "onExceeded", options.onExceeded ?? "fail", ["fail", "wait"]) === "wait"
  const maxWaitMillis = Check.millis(where, "maxWait", options.maxWait ?? "1 second", { allowZero: true })
  if (maxWaitMillis > maxMaxWaitMillis) {
    throw new RangeError(`${where}: maxWait must be at most 1 day, got ${maxWaitMillis} ms`)
  }
  const shadow = Check.oneOf(where, "mode", options.mode ?? "enforce", ["enforce", "shadow"]) === "shadow"
  if (options.refundHits !== undefined && typeof options.refundHits !== "boolean") {
    throw new TypeError(`${where}: refundHits must be true or false`)
  }
  return {
    rules: Rule.resolveLimits(where, options.limits, shadow),
    limits: [...options.limits],
    shadow,
    maxWaitMillis: waits ? maxWaitMillis : 0,
    refundHits: options.refundHits ?? false
  }
}

/**
 * Gives the tokens of a call back, for a later stage that finds that the call should not have counted. Returns whether
 * there was anything to give back; a second time there is not.
 *
 * **Details**
 *
 * What time has given back in the meantime is not given back again, so a late refund never exceeds the limit.
 *
 * @category combinators
 * @since 0.1.0
 */
export const refund = (call: ToolCall): Effect.Effect<boolean, never, RateLimitStore> =>
  Effect.flatMap(RateLimitStore, (store) => {
    const takes = (call.record.limits ?? []).filter((status): status is Take =>
      status instanceof Take && status.spentUntil !== 0
    )
    return takes.length === 0 ? Effect.succeed(false) : Effect.as(store.refund(takes), true)
  })

/**
 * Provides the limits of a program.
 *
 * **Example** (A hundred calls a second with bursts of ten, and a thousand an hour for each caller)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { ToolMeta, ToolPipeline } from "effect-toolops"
 * import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
 *
 * const Limits = RateLimitMiddleware.layer.pipe(
 *   Layer.provide(RateLimit.layer({
 *     limits: [
 *       { name: "all", per: "global", limit: 100, window: "1 second", burst: 10 },
 *       { name: "caller", per: "identity", limit: 1000, window: "1 hour" }
 *     ]
 *   })),
 *   Layer.provide(RateLimitStore.layerMemory())
 * )
 *
 * const program = Effect.gen(function*() {
 *   const pipeline = yield* ToolPipeline.make(RateLimitMiddleware.RateLimitMiddleware)
 *   const echo = pipeline.wrap(ToolMeta.make({ name: "echo" }), (input: string) => Effect.succeed(input))
 *   return yield* Effect.forEach(Array.from({ length: 11 }), () =>
 *     Effect.match(echo("hi"), {
 *       onSuccess: () => "passed",
 *       onFailure: (error) => error.reason._tag
 *     }))
 * })
 *
 * const outcomes = await Effect.runPromise(Effect.provide(program, Limits))
 * outcomes[9] // => "passed"
 * outcomes[10] // => "RateLimited"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<RateLimit, never, RateLimitStore> => {
  const settings = resolve("RateLimit.layer", options)
  return Layer.effect(RateLimit, Effect.map(RateLimitStore, (store) => fromSettings(settings, store)))
}

/**
 * `layer` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<RateLimit, Config.ConfigError, RateLimitStore> =>
  Layer.effect(
    RateLimit,
    Effect.gen(function*() {
      const given = yield* Config.unwrap(options)
      return fromSettings(resolve("RateLimit.layerConfig", given), yield* RateLimitStore)
    })
  )
