/** Stores many distinct keys of 1 KB under a budget of 64 MiB and tells by how many MiB the process has grown. */
import { Effect } from "effect"
import { CacheStore } from "effect-toolops/cache"

const gc = globalThis.gc
if (gc === undefined) throw new Error("run with --expose-gc")

const count = Number(process.argv[2] ?? 2_000_000)

const program = Effect.gen(function*() {
  const store = yield* CacheStore.CacheStore
  const hash = "0".repeat(56)
  const set = (i: number) =>
    store.set(`cache:tool:${String(i).padStart(8, "0")}${hash}`, {
      text: JSON.stringify(String(i).padEnd(1000, "x")),
      freshMillis: 300_000,
      keepMillis: 300_000,
      labels: ["tool:tool"],
      mark: undefined
    })
  // Compiled and grown before it is measured.
  for (let i = 0; i < 2000; i++) yield* set(i)
  yield* store.clear
  gc()
  const before = process.memoryUsage.rss()
  let highest = 0
  for (let i = 0; i < count; i++) {
    yield* set(i)
    if (i % 20_000 === 19_999) {
      gc()
      highest = Math.max(highest, process.memoryUsage.rss())
    }
  }
  const grown = Math.round((highest - before) / 1024 / 1024)
  if (process.send === undefined) console.log(`grown by ${grown} MiB`)
  else process.send(grown)
})

await Effect.runPromise(
  Effect.provide(program, CacheStore.layerMemory({ maxEntries: 60_000, maxBytes: 64 * 1024 * 1024 }))
)
process.exit(0)
