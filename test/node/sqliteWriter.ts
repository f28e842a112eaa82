/** Writes to a cache file until it is killed. */
import { Effect } from "effect"
import { CacheStore } from "effect-toolops/cache"
import { SqliteCacheStore } from "effect-toolops/node"

const path = process.argv[2]
if (path === undefined) throw new Error("no path")

const program = Effect.gen(function*() {
  const store = yield* CacheStore.CacheStore
  yield* store.get("k0")
  process.send?.("ready")
  for (let i = process.pid;; i++) {
    const key = `k${i % 2000}`
    yield* store.set(key, {
      text: JSON.stringify(`value of ${key} `.repeat(50)),
      freshMillis: 3_600_000,
      keepMillis: 3_600_000,
      labels: ["tool:t", `tag:${i % 7}`],
      mark: undefined
    })
  }
})

await Effect.runPromise(Effect.provide(program, SqliteCacheStore.layer({ path })))
