/**
 * How the program is: checks that components register, and the routes that probes ask.
 *
 * Run it: node -C @effect-toolops/source examples/health.ts
 */
import { Effect, Layer, Ref } from "effect"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
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

const { dispose, handler } = HttpRouter.toWebHandler(Routes)

const probe = async (path: string) => {
  const response = await handler(new Request(`http://localhost${path}`))
  console.log(`${path.padEnd(18)} ${response.status} ${(await response.text()).trim()}`)
}

await probe("/healthz")
await probe("/readyz")
console.log("the database goes away")
Effect.runSync(Ref.set(isDatabaseUp, false))
await probe("/readyz")
await probe("/healthz")
await dispose()
