import { Context, Effect, Layer } from "effect"
import { type CallRecord, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { CacheMiddleware, CachePolicy, CacheStore, ToolCache } from "effect-toolops/cache"

export class Recorder extends Context.Service<Recorder, ToolMiddleware.ToolMiddleware<never>>()("test/Recorder") {}

/** The cache stage with a stage around it that keeps every record. */
export const cached = (options?: {
  readonly policy?: CachePolicy.Options
  readonly records?: Array<CallRecord.CallRecord>
  readonly store?: Layer.Layer<CacheStore.CacheStore, unknown>
}) => {
  const records = options?.records ?? []
  const recorder = ToolMiddleware.of<never>({
    name: "recorder",
    forTool: () => (call, next) =>
      Effect.onExit(next, (exit) =>
        Effect.sync(() => {
          call.record.settle(exit)
          records.push(call.record)
        }))
  })
  return Layer.mergeAll(CacheMiddleware.layer, Layer.succeed(Recorder, recorder)).pipe(
    Layer.provideMerge(ToolCache.layer),
    Layer.provideMerge(Layer.orDie(options?.store ?? CacheStore.layerMemory())),
    Layer.provide(CachePolicy.layer({ jitter: 0, ...options?.policy }))
  )
}

export const pipelineOf = ToolPipeline.make(Recorder, CacheMiddleware.CacheMiddleware)
