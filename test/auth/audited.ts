import { Context, Effect, Layer, Redacted, Tracer } from "effect"
import { type CallRecord, type ToolCall, ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { ApiKey, AuditLog, type AuditRecord, AuthMiddleware, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, CachePolicy, CacheStore, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"

class Recorder extends Context.Service<Recorder, ToolMiddleware.ToolMiddleware<never>>()("test/Recorder") {}

/** A call as a stage around all others has seen it. */
export interface Seen {
  readonly call: ToolCall.ToolCall
  readonly record: Pick<CallRecord.CallRecord, "outcome" | "errorType" | "attempts" | "startedAt" | "durationMillis">
}

export const aliceKey = "an example key of alice"

export const read = ToolMeta.make({
  namespace: "docs",
  name: "read",
  readOnly: true,
  policy: { ttl: "1 second", staleWhileRevalidate: "1 hour" }
})
export const write = ToolMeta.make({ namespace: "docs", name: "write" })
export const dear = ToolMeta.make({ namespace: "dear", name: "train" })
export const secret = ToolMeta.make({ namespace: "hr", name: "salaries" })

/** All five stages, with a log and a stage around all that keeps the calls. */
export const stages = <E>(log: Layer.Layer<AuditLog.AuditLog, E>, seen: Array<Seen>) =>
  Layer.mergeAll(
    Layer.succeed(
      Recorder,
      ToolMiddleware.of<never>({
        name: "recorder",
        forTool: () => (call, next) =>
          Effect.onExit(next, (exit) =>
            Effect.sync(() => {
              call.record.settle(exit)
              // A copy: a refresh in the background goes on with the record.
              const { attempts, durationMillis, errorType, outcome, startedAt } = call.record
              seen.push({ call, record: { attempts, durationMillis, errorType, outcome, startedAt } })
            }))
      })
    ),
    ObserveMiddleware.layer({ log: false }),
    AuthMiddleware.layerAudited.pipe(Layer.provide([
      ApiKey.layer().pipe(Layer.provide(
        ApiKey.layerMemory({
          keys: [{
            id: "k1",
            key: Redacted.make(aliceKey),
            principal: "alice",
            tenant: "acme",
            roles: ["reader"],
            metadata: { note: "metadata-canary" }
          }]
        })
      )),
      Rbac.layer({ roles: { reader: { allowedTools: ["docs:*", "dear:*"], allowedActions: ["call"] } } }),
      log
    ])),
    RateLimitMiddleware.layer.pipe(
      Layer.provide(RateLimit.layer({
        limits: [{ name: "dear", per: "identity", tools: ["dear:*"], limit: 1, window: "1 hour" }]
      })),
      Layer.provide(RateLimitStore.layerMemory())
    ),
    CacheMiddleware.layer.pipe(
      Layer.provide(ToolCache.layer),
      Layer.provide(CacheStore.layerMemory()),
      Layer.provide(CachePolicy.layer({ jitter: 0 }))
    ),
    ResilienceMiddleware.layer({
      defaults: {
        retry: false,
        timeout: { timeout: "1 second" },
        bulkhead: { maxConcurrent: 1 },
        circuitBreaker: false
      }
    })
  )

const pipelineOf = ToolPipeline.make(
  Recorder,
  ObserveMiddleware.ObserveMiddleware,
  AuthMiddleware.AuthMiddleware,
  RateLimitMiddleware.RateLimitMiddleware,
  CacheMiddleware.CacheMiddleware,
  ResilienceMiddleware.ResilienceMiddleware
)

const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })

/** A pipeline of all stages with a log in memory. */
export const audited = (options?: AuditLog.MemoryOptions) => {
  const log = AuditLog.layerMemory(options)
  return Effect.gen(function*() {
    const seen: Array<Seen> = []
    const context = yield* Layer.build(Layer.provideMerge(stages(log, seen), log))
    const pipeline = yield* Effect.provideContext(pipelineOf, context)
    const memory = Context.get(context, AuditLog.AuditMemory)
    const run = (tool: ToolMeta.ToolMeta, handler: Effect.Effect<unknown, unknown>, more?: {
      readonly input?: unknown
      readonly headers?: ToolCall.RequestHeadersInput
      readonly callId?: string
    }) =>
      pipeline.run({ tool, input: {}, headers: { "x-api-key": aliceKey }, ...more }, handler).pipe(
        Effect.withTracer(tracer)
      )
    return {
      log: Context.get(context, AuditLog.AuditLog),
      pipeline,
      records: memory.records,
      clear: memory.clear,
      run,
      seen
    }
  })
}

/** A pipeline of the stages around the given log, for calls of alice. */
export const pipelineWith = <E>(log: Layer.Layer<AuditLog.AuditLog, E>) =>
  Effect.gen(function*() {
    const seen: Array<Seen> = []
    const context = yield* Layer.build(Layer.provideMerge(stages(log, seen), log))
    const pipeline = yield* Effect.provideContext(pipelineOf, context)
    return {
      log: Context.get(context, AuditLog.AuditLog),
      seen,
      run: (tool: ToolMeta.ToolMeta, handler: Effect.Effect<unknown, unknown>, input: unknown = {}) =>
        pipeline.run({ tool, input, headers: { "x-api-key": aliceKey } }, handler)
    }
  })

/** What a test compares of records, in their order. */
export const told = (records: ReadonlyArray<AuditRecord.AuditRecord>) =>
  records.map(({ count, kind, outcome }) => [kind, outcome, count].filter((part) => part !== undefined).join(" "))
