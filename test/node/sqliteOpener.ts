/**
 * One of several processes that open one file at one moment: opens it when told to, says how much it finds, closes it. It
 * imports no more than it needs, since several are started.
 */
import * as Effect from "effect/Effect"
import * as CacheStore from "../../src/cache/CacheStore.ts"
import * as SqliteCacheStore from "../../src/node/SqliteCacheStore.ts"

const path = process.argv[2]
if (path === undefined) throw new Error("no path")
const send = (message: unknown) => process.send?.(message)
const told = Effect.promise(() =>
  new Promise<{ readonly open?: number }>((resolve) => process.once("message", resolve))
)

const round = Effect.gen(function*() {
  const { open } = yield* told
  while (Date.now() < (open ?? 0));
  const store = yield* CacheStore.CacheStore
  const key = `key ${process.pid}`
  const entry = { text: "1", freshMillis: 60_000, keepMillis: 60_000, labels: ["tool:t"], mark: undefined }
  // Whoever finds the others at work on the file tries again.
  const set = Effect.andThen(store.set(key, entry), store.get(key))
  let held = yield* Effect.orElseSucceed(set, () => undefined)
  for (let i = 0; held === undefined && i < 100; i++) {
    yield* Effect.sleep(100)
    held = yield* Effect.orElseSucceed(set, () => undefined)
  }
  send("stored")
  yield* told
  send((yield* store.stats).entries)
  yield* told
}).pipe(
  Effect.provide(SqliteCacheStore.layer({ path, busyTimeout: 500 }), { local: true }),
  Effect.andThen(Effect.sync(() => send("closed")))
)

const ready = Effect.sync(() => send("ready"))
await Effect.runPromise(Effect.andThen(ready, Effect.forever(round)))
