/**
 * A process that takes as many tokens of one bucket as it gets: `redisWorker.ts <url> <prefix> <key> <millis>`. It tells
 * its parent when it is ready, and begins when its input ends.
 */
import { NodeRedis } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { RateLimitStore, RedisRateLimitStore } from "effect-toolops/limit"
import { text } from "node:stream/consumers"
import { shape, takeOf } from "./bucketShape.ts"

const [url = "", prefix = "", key = "", millis = "0"] = process.argv.slice(2)
const bucket = shape("shared", 200, 1000, { burst: 100 })
const now = () => performance.timeOrigin + performance.now()

const program = Effect.gen(function*() {
  const store = yield* RateLimitStore.RateLimitStore
  // The connection and the script are there before the race begins.
  yield* store.peek([takeOf(bucket, key, 1)], 0)
  yield* Effect.promise(async () => {
    process.send!("ready")
    await text(process.stdin)
    process.disconnect()
  })
  const first = now()
  let asked = 0
  let last = first
  let passed = 0
  while (now() - first < Number(millis)) {
    const waits = yield* Effect.forEach(
      Array.from({ length: 4 }),
      () => store.consume([takeOf(bucket, key, 1)], 0),
      { concurrency: "unbounded" }
    )
    asked += waits.length
    const granted = waits.filter((wait) => wait === 0).length
    if (granted > 0) last = now()
    passed += granted
  }
  return { first, last, asked, passed }
})

const result = await Effect.runPromise(Effect.provide(
  program,
  RedisRateLimitStore.layer({ prefix, commandTimeout: "5 seconds", onStoreError: "refuse" }).pipe(
    Layer.provide(NodeRedis.layer({ url }))
  )
))
console.log(JSON.stringify(result))
