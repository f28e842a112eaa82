/**
 * What is already known: answers of read-only tools are kept, per caller unless the tool says otherwise, until a write
 * says that they are no longer true. A failure is never kept.
 *
 * Run it: node -C @effect-toolops/source examples/cache.ts
 */
import { Effect, Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"

const list = ToolMeta.make({ name: "list", readOnly: true, policy: { ttl: "1 minute", tags: () => ["notes"] } })
const add = ToolMeta.make({ name: "add", policy: { invalidates: () => ["notes"] } })
const lookUp = ToolMeta.make({ name: "look_up", readOnly: true })

// Bound once: a second call of `layerMemory` would be a second cache.
const Cache = Layer.provideMerge(CacheMiddleware.layer, ToolCache.layerMemory({ maxEntries: 1_000 }))

const program = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(CacheMiddleware.CacheMiddleware)
  const notes: Array<string> = ["milk"]
  let runs = 0
  const listNotes = pipeline.wrap(list, () =>
    Effect.sync(() => {
      runs += 1
      return notes.join(", ")
    }))
  const addNote = pipeline.wrap(add, (note: string) =>
    Effect.sync(() => {
      notes.push(note)
    }))
  const show = (title: string) =>
    Effect.map(listNotes({}), (answer) => console.log(`${title.padEnd(34)} ${answer.padEnd(12)} runs: ${runs}`))
  const as = (principal: string) => Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal }))

  yield* show("ada asks").pipe(as("ada"))
  yield* show("ada asks again").pipe(as("ada"))
  yield* show("bob does not get ada's answer").pipe(as("bob"))
  yield* addNote("bread").pipe(as("ada"))
  yield* show("ada asks after a write").pipe(as("ada"))

  let lookUps = 0
  const failing = pipeline.run(
    { tool: lookUp },
    Effect.suspend(() => {
      lookUps += 1
      return Effect.fail("not found")
    })
  )
  yield* Effect.ignore(failing)
  yield* Effect.ignore(failing)
  console.log(`two calls of a tool that fails     ran ${lookUps} times`)

  const { hits, misses } = yield* Effect.flatMap(ToolCache.ToolCache, (cache) => cache.stats)
  console.log(`hits ${hits}, misses ${misses}`)
})

await Effect.runPromise(Effect.provide(program, Cache))
