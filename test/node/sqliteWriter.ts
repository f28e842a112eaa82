/**
 * Writes to a cache file until it is killed. It imports no more than it needs, since it is started a hundred times.
 */
import * as Effect from "effect/Effect"
import * as CacheStore from "../../src/cache/CacheStore.ts"
import * as SqliteCacheStore from "../../src/node/SqliteCacheStore.ts"

const path = process.argv[2]
if (path === undefined) throw new Error("no path")

const program = Effect.gen(function*() {
  const store = yield* CacheStore.CacheStore
  // The file may be locked by another writer, which costs an answer and no more.
  yield* Effect.ignore(store.get("k0"))
  process.send?.("ready")
  for (let i = process.pid;; i++) {
    const key = `k${i % 2000}`
    yield* Effect.ignore(store.set(key, {
      text: JSON.stringify(`value of ${key} `.repeat(50)),
      freshMillis: 3_600_000,
      keepMillis: 3_600_000,
      labels: ["tool:t", `tag:${i % 7}`],
      mark: undefined
    }))
  }
})

await Effect.runPromise(Effect.provide(program, SqliteCacheStore.layer({ path })))
