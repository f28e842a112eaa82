/**
 * One tool, guarded once, for hosts that know promises and nothing of Effect. Whatever calls it, the pipeline is the same
 * object: a caller has one limit and one cache, whichever door they came in by.
 */
import { Effect, Layer, ManagedRuntime, Redacted, Schema } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ToolRefusal } from "effect-toolops/ai"
import { ApiKey, AuthMiddleware, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"

export interface Place {
  readonly city: string
}

export const forecast = ToolMeta.make({
  namespace: "weather",
  name: "forecast",
  description: "Tomorrow's weather in a city.",
  readOnly: true,
  input: Schema.Struct({ city: Schema.String }),
  success: Schema.String
})

/** The key of the one caller there is. */
export const key = Redacted.value(await Effect.runPromise(ApiKey.generate()))

const Live = ToolPipeline.layer.pipe(
  Layer.provide([
    ObserveMiddleware.layer({ log: false }),
    AuthMiddleware.layer,
    RateLimitMiddleware.layer,
    CacheMiddleware.layer,
    ResilienceMiddleware.layer()
  ]),
  Layer.provide([
    ApiKey.layer(),
    Rbac.layer({ roles: { guest: { allowedTools: ["weather:*"], allowedActions: ["call"] } } }),
    RateLimit.layer({ limits: [{ name: "calls", per: "identity", limit: 3, window: "1 minute" }] }),
    ToolCache.layerMemory()
  ]),
  Layer.provide([
    ApiKey.layerMemory({ keys: [{ id: "ada-1", key: Redacted.make(key), principal: "ada", roles: ["guest"] }] }),
    RateLimitStore.layerMemory()
  ])
)

const runtime = ManagedRuntime.make(Live)

export const dispose = (): Promise<void> => runtime.dispose()

/** How often the handler has run. */
export let runs = 0

const answer = ({ city }: Place) =>
  Effect.sync(() => {
    runs += 1
    return `Sun in ${city}`
  })

export type Answer = { readonly value: string } | { readonly refusal: ToolRefusal.ToolRefusal }

const guarded = await runtime.runPromise(
  Effect.map(ToolPipeline.ToolPipeline, (pipeline) => pipeline.wrap(forecast, answer))
)

/**
 * Calls the tool. A refusal is an answer, for the host to put into its own words; anything else that goes wrong rejects.
 * Aborting `signal` interrupts the call.
 */
export const call = (
  place: Place,
  { signal, ...options }: {
    readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
    readonly callId?: string | undefined
    readonly signal?: AbortSignal | undefined
  }
): Promise<Answer> =>
  runtime.runPromise(
    Effect.match(guarded(place, options), {
      onFailure: (error): Answer => ({ refusal: ToolRefusal.fromError(error, forecast) }),
      onSuccess: (value): Answer => ({ value })
    }),
    { signal }
  )
