/**
 * How the program is: checks that components register, the routes that probes ask, and an end that loses no call.
 *
 * Run it: node -C @effect-toolops/source examples/health.ts
 */
import { Effect, Layer, ManagedRuntime, Ref, Schedule } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { DrainMiddleware, HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { Graceful } from "effect-toolops/node"
import { HttpRouter } from "effect/http"

const isDatabaseUp = Ref.makeUnsafe(true)

const Checks = Layer.mergeAll(
  HealthRegistry.layerCheck(HealthCheck.make({ name: "database", check: Ref.get(isDatabaseUp), interval: 0 })),
  // The program can do without its search index, so it is degraded and keeps serving.
  HealthRegistry.layerCheck(
    HealthCheck.make({ name: "index", check: Effect.fail("not built"), critical: false, interval: 0 })
  )
)

const Routes = HealthRoutes.layer().pipe(Layer.provide(Checks), Layer.provide(HealthRegistry.layer))

// Longer in a real program: load balancers need some seconds to learn that it goes away.
const Ending = Graceful.layer({ delay: "2 seconds", grace: "10 seconds" })
const runtime = ManagedRuntime.make(
  Layer.merge(Ending, DrainMiddleware.layer).pipe(Layer.provideMerge(HealthRegistry.layer))
)

// One program, so the routes and the pipeline know one registry.
const { dispose, handler } = HttpRouter.toWebHandler(Routes, { memoMap: runtime.memoMap })

const show = (what: string, told: string) => console.log(`${what.padEnd(18)} ${told}`)

const probe = async (path: string) => {
  const response = await handler(new Request(`http://localhost${path}`))
  show(path, `${response.status} ${(await response.text()).trim()}`)
}

const report = ToolMeta.make({ name: "report" })

const call = (what: string, work: Promise<string>) =>
  runtime.runPromise(Effect.gen(function*() {
    const pipeline = yield* ToolPipeline.make(DrainMiddleware.DrainMiddleware)
    const told = yield* pipeline.run({ tool: report }, Effect.promise(() => work)).pipe(
      Effect.catchTag("ResilienceError", ({ reason }) => Effect.succeed(`refused: ${reason._tag}`))
    )
    show(what, told)
  }))

await probe("/healthz")
await probe("/readyz")
console.log("the database goes away")
Effect.runSync(Ref.set(isDatabaseUp, false))
await probe("/readyz")
await probe("/healthz")

console.log("the database is back, and the program is told to end")
Effect.runSync(Ref.set(isDatabaseUp, true))
const answer = Promise.withResolvers<string>()
const inFlight = call("a call in flight", answer.promise)
// What a server does in a real program: it keeps the process alive while nothing happens.
const server = setInterval(() => {}, 1000)
process.kill(process.pid, "SIGTERM")
await runtime.runPromise(Effect.flatMap(Graceful.Graceful, ({ requested }) => requested))
await probe("/readyz")
await probe("/healthz")
await call("a call at once", Promise.resolve("done"))
const takesCalls = Effect.flatMap(HealthRegistry.HealthRegistry, (registry) => registry.takesCalls)
await runtime.runPromise(Effect.repeat(takesCalls, { while: (is) => is, schedule: Schedule.spaced("50 millis") }))
await call("a call later", Promise.resolve("done"))
answer.resolve("done")
await inFlight
// Here the end of the program: what is below closes after the calls.
await runtime.dispose()
await dispose()
clearInterval(server)
