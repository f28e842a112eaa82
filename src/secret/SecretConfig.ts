/**
 * A configuration in which references to secrets may stand.
 *
 * The program's `ConfigProvider` is wrapped: every text it gives is resolved as `SecretRef` describes before `Config` sees
 * it, so `Config.Redacted("API_KEY")` works with `API_KEY=secretref:vault:api/key`. A text that cannot be resolved is an
 * error; it is never handed on as it stands. `refreshable` builds a Layer anew when a secret that it was built with has
 * changed.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as ConfigProvider from "effect/ConfigProvider"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Check from "../internal/options.ts"
import { Builds, keepFresh } from "./internal/refreshable.ts"
import { CurrentUses } from "./internal/uses.ts"
import * as SecretRef from "./SecretRef.ts"
import { SecretResolver } from "./SecretResolver.ts"

const holdsSecret = (text: string): boolean =>
  Result.match(SecretRef.parse(text, { strict: false }), {
    onFailure: () => false,
    onSuccess: (parts) => parts.some((part) => part._tag === "Secret")
  })

// Of several values that one text has had, the first: who watches it sees that it is another by now.
const note = (text: string, value: Redacted.Redacted): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const uses = fiber.getRef(CurrentUses)
    if (uses !== undefined && !uses.has(text) && holdsSecret(text)) uses.set(text, value)
    return Effect.void
  })

/**
 * Wraps a `ConfigProvider`, so that what it gives is resolved.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  self: ConfigProvider.ConfigProvider,
  resolver: SecretResolver["Service"]
): ConfigProvider.ConfigProvider => {
  const resolve = (text: string, path: ConfigProvider.Path): Effect.Effect<string, ConfigProvider.SourceError> =>
    Effect.mapBoth(Effect.tap(resolver.resolveValue(text), (value) => note(text, value)), {
      onSuccess: Redacted.value,
      onFailure: (error) => new ConfigProvider.SourceError({ message: `${path.join(".")}: ${error.message}` })
    })
  return ConfigProvider.make((path) =>
    Effect.flatMap(
      self.load(path),
      (node): Effect.Effect<ConfigProvider.Node | undefined, ConfigProvider.SourceError> => {
        if (node?.value === undefined) return Effect.succeed(node)
        return Effect.map(resolve(node.value, path), (value) => ({ ...node, value }))
      }
    )
  )
}

/**
 * Wraps the program's `ConfigProvider`.
 *
 * **Gotchas**
 *
 * With a strict resolver every single `$` in the configuration must be written `$$`, also in texts without a reference.
 *
 * **Example** (Reading a secret from the configuration)
 *
 * ```ts
 * import { Config, ConfigProvider, Effect, Layer, Redacted } from "effect"
 * import { SecretConfig, SecretProvider, SecretResolver } from "effect-toolops/secret"
 *
 * const Env = ConfigProvider.layer(ConfigProvider.fromEnvRecord({ API_KEY: "secretref:memory:api" }))
 * const Secrets = SecretConfig.layer.pipe(
 *   Layer.provide(SecretResolver.layer()),
 *   Layer.provide(SecretProvider.layer(SecretProvider.memory({ api: "k-1" }))),
 *   Layer.provide(Env)
 * )
 * const key = await Effect.runPromise(Effect.provide(Config.Redacted("API_KEY"), Secrets))
 * Redacted.value(key) // => "k-1"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, never, SecretResolver> = ConfigProvider.layer(
  Effect.gen(function*() {
    return make(yield* ConfigProvider.ConfigProvider, yield* SecretResolver)
  })
)

/**
 * A Layer that is built anew when a secret that it was built with has changed.
 *
 * - `provide`: runs an effect with the present build. The effect keeps that build to its end. What it acquires is its
 *   caller's and may live on; take `context` for what needs the build for as long.
 * - `context`: the present build, which stays as it is until the scope closes.
 * - `layer`: the same as a Layer, for as long as that is in use.
 *
 * @category models
 * @since 0.1.0
 */
export interface Refreshable<in out I> {
  readonly provide: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, I>>
  readonly context: Effect.Effect<Context.Context<I>, never, Scope.Scope>
  readonly layer: Layer.Layer<I>
}

/**
 * What `refreshable` takes.
 *
 * - `retryDelay`: how long after a build that failed until the next, and the least time between two builds anew: a source
 *   that gives another value at every read must not keep the program building. Default 10 seconds.
 * - `onFailure`: told of each build that failed, other than the first. That one does not end well itself is a line in the
 *   log. Default: a warning in the log, without the cause, since what a driver says may hold what it was given.
 *
 * @category options
 * @since 0.1.0
 */
export interface RefreshableOptions<E> {
  readonly retryDelay?: Duration.Input | undefined
  readonly onFailure?: ((cause: Cause.Cause<E>) => Effect.Effect<void>) | undefined
}

const warn = (): Effect.Effect<void> =>
  Effect.logWarning(
    "effect-toolops: a layer could not be built anew with a secret that has changed; it stays as it was"
  )

/**
 * Builds a Layer now and again whenever a secret that it reads through `layer` has changed.
 *
 * **When to use**
 *
 * Where a secret is read once, when something is built: a pool of connections, a client with a key. Wrap such Layers one
 * by one: only the one whose secret has changed is built anew.
 *
 * **Details**
 *
 * The new build comes first; then new users get it, and the old one ends with the last that uses it. No call waits for that
 * end; the scope does, for as long as the finalizers of the layer take. While a new one cannot be built the old one stays.
 * Changes are noticed as `SecretResolver.changes` notices them. Fails when the first build does.
 *
 * **Gotchas**
 *
 * Everything inside the given Layer is built anew; what it requires from outside is not. Once the scope begins to close,
 * using the result is a defect.
 *
 * **Example** (Following a password that is rotated)
 *
 * ```ts
 * import { Config, ConfigProvider, Context, Effect, Layer, Redacted } from "effect"
 * import { SecretConfig, SecretProvider, SecretResolver } from "effect-toolops/secret"
 *
 * class Database extends Context.Service<Database, { readonly password: string }>()("Database") {
 *   static readonly layer = Layer.effect(
 *     Database,
 *     Effect.map(Config.Redacted("PASSWORD"), (password) => ({ password: Redacted.value(password) }))
 *   )
 * }
 *
 * const secrets = new Map([["db", "first"]])
 * const Secrets = SecretConfig.layer.pipe(
 *   Layer.provideMerge(SecretResolver.layer({ refreshInterval: "20 millis" })),
 *   Layer.provide(SecretProvider.layer(SecretProvider.memory(secrets))),
 *   Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ PASSWORD: "secretref:memory:db" })))
 * )
 * const program = Effect.gen(function*() {
 *   const database = yield* SecretConfig.refreshable(Database.layer)
 *   const before = yield* database.provide(Database)
 *   secrets.set("db", "second")
 *   yield* Effect.sleep("200 millis")
 *   const after = yield* database.provide(Database)
 *   return [before.password, after.password]
 * })
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, Secrets))) // => ["first", "second"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const refreshable = <I, E, R>(
  self: Layer.Layer<I, E, R>,
  options: RefreshableOptions<E> = {}
): Effect.Effect<Refreshable<I>, E, R | SecretResolver | Scope.Scope> => {
  const where = "SecretConfig.refreshable"
  Check.known(where, options, ["retryDelay", "onFailure"])
  const retryMillis = Check.millis(where, "retryDelay", options.retryDelay ?? "10 seconds")
  return Effect.gen(function*() {
    const resolver = yield* SecretResolver
    const owner = yield* Effect.scope
    const builds = new Builds<I>(yield* Effect.context<never>())
    // One finalizer of the owner's, in whatever order that closes what it holds. From the last that is done to the first:
    const ending = yield* Scope.fork(owner, "sequential")
    yield* Scope.addFinalizer(ending, builds.settled)
    const scope = yield* Scope.fork(ending)
    const first = yield* builds.build(self, scope)
    yield* Effect.forkIn(
      keepFresh({ builds, first, layer: self, resolver, scope, retryMillis, onFailure: options.onFailure ?? warn }),
      ending
    )
    yield* Scope.addFinalizer(ending, Effect.sync(() => void (builds.isClosed = true)))
    return {
      provide: builds.use,
      context: builds.borrow,
      layer: Layer.effectContext(builds.borrow)
    }
  })
}
