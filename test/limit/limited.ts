import { Context, Duration, Effect, Exit, Layer, Result } from "effect"
import { type CallRecord, ToolCall, type ToolMeta, type ToolMiddleware, ToolPipeline } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"

class Recording extends Context.Service<Recording, ToolMiddleware.ToolMiddleware<never>>()("test/Recording") {}

/** Calls tools through the limit stage and keeps the records of the calls. */
export const limited = <E = never, R = never>(
  options: RateLimit.Options,
  store: Layer.Layer<RateLimitStore.RateLimitStore, E, R> = RateLimitStore.layerMemory() as Layer.Layer<
    RateLimitStore.RateLimitStore,
    E,
    R
  >
) =>
  Effect.gen(function*() {
    const records: Array<CallRecord.CallRecord> = []
    const context = yield* Layer.build(
      RateLimitMiddleware.layer.pipe(
        Layer.provideMerge(RateLimit.layer(options)),
        Layer.provideMerge(store)
      )
    )
    const pipeline = yield* ToolPipeline.make(Recording, RateLimitMiddleware.RateLimitMiddleware).pipe(
      Effect.provideService(Recording, {
        name: "recording",
        forTool: () => (call, next) =>
          Effect.onExit(next, (exit) =>
            Effect.sync(() => {
              call.record.settle(exit)
              records.push(call.record)
            }))
      }),
      Effect.provide(context)
    )
    const as = (identity: Identity.Identity | undefined) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      identity === undefined ? effect : Effect.provideService(effect, Identity.CurrentIdentity, identity)
    return {
      records,
      limits: Context.get(context, RateLimit.RateLimit),
      store: Context.get(context, RateLimitStore.RateLimitStore),
      pipeline,
      /** A call of a known caller, for what works on a call without a pipeline. */
      call: (tool: ToolMeta.ToolMeta, identity: Identity.Identity) => {
        const call = ToolCall.make({ tool })
        call.record.identity = identity
        return call
      },
      run: (tool: ToolMeta.ToolMeta, identity?: Identity.Identity, handler: Effect.Effect<unknown> = Effect.void) =>
        as(identity)(pipeline.run({ tool }, handler)),
      /** Whether a call passes; it has run when it does. */
      passes: (tool: ToolMeta.ToolMeta, identity?: Identity.Identity, input?: unknown) =>
        as(identity)(Effect.map(Effect.result(pipeline.run({ tool, input }, Effect.void)), Result.isSuccess)),
      /** How many of `n` calls pass. */
      count: (n: number, tool: ToolMeta.ToolMeta, identity?: Identity.Identity) =>
        Effect.gen(function*() {
          let passed = 0
          for (let i = 0; i < n; i++) {
            if (Exit.isSuccess(yield* Effect.exit(as(identity)(pipeline.run({ tool }, Effect.void))))) passed += 1
          }
          return passed
        }),
      refusal: (tool: ToolMeta.ToolMeta, identity?: Identity.Identity) =>
        Effect.map(Effect.flip(as(identity)(pipeline.run({ tool }, Effect.void))), (error) => {
          if (error.reason._tag !== "RateLimited") throw new Error(error.reason._tag)
          return {
            limit: error.reason.limit,
            per: error.reason.per,
            retryAfter: Duration.toMillis(error.reason.retryAfter)
          }
        })
    }
  })

export const alice = Identity.make({ principal: "alice", tenant: "acme", roles: ["reader"] })
export const bob = Identity.make({ principal: "bob", tenant: "acme", roles: ["writer", "admin"] })
export const carol = Identity.make({ principal: "carol", tenant: "other" })
