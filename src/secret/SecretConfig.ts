/**
 * A configuration in which references to secrets may stand.
 *
 * The program's `ConfigProvider` is wrapped: every text it gives is resolved as `SecretRef` describes before `Config` sees
 * it, so `Config.Redacted("API_KEY")` works with `API_KEY=secretref:vault:api/key`. A text that cannot be resolved is an
 * error; it is never handed on as it stands.
 *
 * @since 0.1.0
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { SecretResolver } from "./SecretResolver.ts"

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
    Effect.mapBoth(resolver.resolveValue(text), {
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
