/**
 * A process that asks for one answer many times at once: `flightWorker.ts <url> <prefix> <callers> <millis>`, where
 * `millis` is how long the handler takes. It says when it is ready, begins when its input ends, and says when its handler
 * runs. It prints how often that was, and which answers its callers were given.
 */
import { NodeRedis } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { CacheMiddleware, CachePolicy, CacheStore, RedisCacheStore, ToolCache } from "effect-toolops/cache"
import { text } from "node:stream/consumers"

const [url = "", prefix = "", callers = "0", millis = "0"] = process.argv.slice(2)
const tool = ToolMeta.make({ name: "slow", readOnly: true, varies: "everyone" })

const program = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(CacheMiddleware.CacheMiddleware)
  const store = yield* CacheStore.CacheStore
  // The connection is there before the race begins.
  yield* store.stats
  let runs = 0
  const handler = Effect.suspend(() => {
    runs += 1
    process.send!("running")
    return Effect.as(Effect.sleep(Number(millis)), process.pid)
  })
  yield* Effect.promise(() => {
    process.send!("ready")
    return text(process.stdin)
  })
  const answers = yield* Effect.forEach(
    Array.from({ length: Number(callers) }),
    () => pipeline.run({ tool, input: "one" }, handler),
    { concurrency: "unbounded" }
  )
  return { runs, answers: Array.from(new Set(answers)) }
})

const result = await Effect.runPromise(Effect.provide(
  program,
  CacheMiddleware.layer.pipe(
    Layer.provideMerge(ToolCache.layer),
    Layer.provideMerge(RedisCacheStore.layer({ prefix, commandTimeout: "5 seconds", lease: "500 millis" })),
    Layer.provide(CachePolicy.layer()),
    Layer.provide(NodeRedis.layer({ url }))
  )
))
process.disconnect()
console.log(JSON.stringify(result))
