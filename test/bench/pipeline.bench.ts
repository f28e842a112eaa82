import { Effect, Layer, Logger, Redacted } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ApiKey, AuthMiddleware, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import type { Case, Group } from "./harness.ts"

let executions = 0
const handler = Effect.promise(() => {
  executions++
  return Promise.resolve("answer")
})

interface Outcome {
  readonly last: unknown
  readonly executions: number
}

const repeated = <E, R>(effect: Effect.Effect<unknown, E, R>, n: number) =>
  Effect.gen(function*() {
    const before = executions
    let last: unknown = undefined
    for (let i = 0; i < n; i++) last = yield* effect
    return { last, executions: executions - before } satisfies Outcome
  })

const repeat = (effect: Effect.Effect<unknown, unknown>) => (n: number) => Effect.runPromise(repeated(effect, n))

const answeredBy = (expected: (n: number) => number): NonNullable<Case["check"]> => (result, n) => {
  const { executions, last } = result as Outcome
  if (last !== "answer") throw new Error("the call was not answered")
  if (executions !== expected(n)) throw new Error(`the handler ran ${executions} times in ${n} calls`)
}
const byHandler = answeredBy((n) => n)
const byCache = answeredBy(() => 0)

const passedThrough = ToolPipeline.layer.pipe(Layer.provide([
  ObserveMiddleware.layerPassthrough,
  AuthMiddleware.layerPassthrough,
  RateLimitMiddleware.layerPassthrough,
  CacheMiddleware.layerPassthrough,
  ResilienceMiddleware.layerPassthrough
]))

const key = await Effect.runPromise(ApiKey.generate())
const headers = { "X-API-Key": Redacted.value(key) }

const allOn = ToolPipeline.layer.pipe(
  Layer.provide([
    ObserveMiddleware.layer(),
    AuthMiddleware.layer,
    RateLimitMiddleware.layer,
    CacheMiddleware.layer,
    ResilienceMiddleware.layer()
  ]),
  Layer.provide([
    ApiKey.layer(),
    Rbac.layer({ roles: { caller: { allowedTools: ["*"], allowedActions: ["call"] } } }),
    RateLimit.layer({ limits: [{ name: "plenty", per: "identity", limit: 1_000_000, window: "1 second" }] }),
    ToolCache.layerMemory()
  ]),
  Layer.provide([
    ApiKey.layerMemory({ keys: [{ id: "bench", key, principal: "bench", roles: ["caller"] }] }),
    RateLimitStore.layerMemory()
  ])
)

/** A logger that takes every line and writes none: where lines go is not what is measured. */
const noSink = Logger.layer([Logger.make(() => {})])

export default async (): Promise<ReadonlyArray<Group>> => {
  const write = ToolMeta.make({ name: "write" })
  // Kept for longer than any run takes, so that it is never asked for again.
  const read = ToolMeta.make({ name: "read", readOnly: true, policy: { ttl: "1 day" } })
  const bare = await Effect.runPromise(Effect.provide(ToolPipeline.ToolPipeline, passedThrough))
  const full = await Effect.runPromise(Effect.provide(ToolPipeline.ToolPipeline, allOn))
  const passed = bare.wrap(write, () => handler)
  const miss = full.wrap(write, () => handler)
  const hit = full.wrap(read, () => handler)
  const input = { query: "effect", limit: 10, filters: { language: "typescript", since: "2026-01-01" }, page: 1 }
  const logged = <A, E>(effect: Effect.Effect<A, E>) => Effect.provide(effect, noSink)
  await Effect.runPromise(logged(hit(input, { headers })))
  return [{
    name: "pipeline",
    cases: [
      { name: "bare handler", run: repeat(handler), check: byHandler },
      {
        name: "all stages passed through, run",
        run: repeat(bare.run({ tool: write, input }, handler)),
        check: byHandler,
        baseline: "bare handler"
      },
      {
        name: "all stages passed through, wrap",
        run: repeat(Effect.suspend(() => passed(input))),
        check: byHandler,
        baseline: "bare handler"
      },
      {
        name: "all stages on, not cacheable",
        run: (n) => Effect.runPromise(logged(repeated(Effect.suspend(() => miss(input, { headers })), n))),
        check: byHandler,
        baseline: "bare handler"
      },
      {
        name: "all stages on, answered from the cache",
        run: (n) => Effect.runPromise(logged(repeated(Effect.suspend(() => hit(input, { headers })), n))),
        check: byCache,
        baseline: "bare handler"
      }
    ]
  }]
}
