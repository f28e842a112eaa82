/**
 * A password that is rotated while the program runs: files as Kubernetes mounts them, and a pool of connections that is
 * built anew when its password has changed. A call in flight keeps the pool that it began with.
 *
 * Run it: node -C @effect-toolops/source examples/secret-rotation.ts
 */
import { NodeServices } from "@effect/platform-node"
import { Config, ConfigProvider, Context, Deferred, Effect, Fiber, FileSystem, Layer, Redacted } from "effect"
import { FileSecretProvider, SecretConfig, SecretResolver } from "effect-toolops/secret"

/** A pool that takes its password when it is made. */
class Pool extends Context.Service<Pool, { readonly query: (gate: Effect.Effect<void>) => Effect.Effect<string> }>()(
  "example/Pool"
) {
  static readonly layer = Layer.effect(
    Pool,
    Effect.gen(function*() {
      const password = Redacted.value(yield* Config.Redacted("DB_PASSWORD"))
      const id = password.length
      console.log(`pool ${id} opens`)
      yield* Effect.addFinalizer(() => Effect.sync(() => console.log(`pool ${id} closes`)))
      return { query: (gate) => Effect.as(gate, `rows from pool ${id}`) }
    })
  )
}

const program = (mount: (version: string, password: string) => Effect.Effect<void>) =>
  Effect.gen(function*() {
    const pool = yield* SecretConfig.refreshable(Pool.layer)
    const query = (gate: Effect.Effect<void>) => pool.provide(Effect.flatMap(Pool, (service) => service.query(gate)))

    const gate = yield* Deferred.make<void>()
    const inFlight = yield* Effect.forkChild(query(Deferred.await(gate)), { startImmediately: true })
    yield* mount("2", "a-longer-one")
    // Nobody tells a call that there is a new pool, so this one asks until there is.
    yield* Effect.repeat(query(Effect.sleep("10 millis")), { until: (rows) => rows !== "rows from pool 5" })
    console.log(`a new call has ${yield* query(Effect.void)}`)
    yield* Deferred.succeed(gate, undefined)
    console.log(`the call in flight had ${yield* Fiber.join(inFlight)}`)
  })

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const root = yield* fs.makeTempDirectoryScoped()
  // Kubernetes puts a new directory behind the link `..data`, in one step.
  const mount = Effect.fnUntraced(function*(version: string, password: string) {
    yield* fs.makeDirectory(`${root}/..${version}`)
    yield* fs.writeFileString(`${root}/..${version}/password`, `${password}\n`)
    yield* fs.symlink(`..${version}`, `${root}/..next`)
    yield* fs.rename(`${root}/..next`, `${root}/..data`)
  }, Effect.orDie)
  yield* mount("1", "first")
  yield* fs.symlink("..data/password", `${root}/password`)

  const Secrets = SecretConfig.layer.pipe(
    Layer.provideMerge(SecretResolver.layer()),
    Layer.provide(FileSecretProvider.layer({ directory: root })),
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ DB_PASSWORD: "secretref:file:password" })))
  )
  yield* Effect.scoped(program(mount)).pipe(Effect.provide(Secrets))
})

await Effect.runPromise(Effect.provide(Effect.scoped(main), NodeServices.layer))
