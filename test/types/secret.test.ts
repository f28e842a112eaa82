// What the compiler promises. `npm run check` reads this file; running it only shows that it loads.
import { describe, expectTypeOf, it } from "@effect/vitest"
import { type Config, Context, Effect, Layer, Redacted, type Scope } from "effect"
import {
  BitwardenSecretProvider,
  SecretConfig,
  type SecretError,
  SecretProvider,
  SecretResolver,
  VaultSecretProvider
} from "effect-toolops/secret"
import type { ChildProcessSpawner } from "effect/process"

type NeedsOf<T> = T extends Effect.Effect<any, any, infer R> ? R : never

class Database extends Context.Service<Database, { readonly one: number }>()("test/Database") {}
class Log extends Context.Service<Log, { readonly two: number }>()("test/Log") {}

const made: Layer.Layer<Database, "down", Log> = Layer.effect(
  Database,
  Effect.andThen(Log, Effect.fail("down" as const))
)

describe("types of secrets", () => {
  it("gives Redacted values under the names that were asked for", () => {
    Effect.gen(function*() {
      const resolver = yield* SecretResolver.SecretResolver
      const all = resolver.resolveAll({ a: "x", b: "y" })
      expectTypeOf(all).toEqualTypeOf<
        Effect.Effect<{ readonly a: Redacted.Redacted; readonly b: Redacted.Redacted }, SecretError.SecretError>
      >()
      // @ts-expect-error - a secret is no string until somebody takes it out
      const text: string = yield* resolver.resolveValue("x")
      return text
    })
  })

  it("asks for what the layer needs when it is made refreshable, and for nothing of it afterwards", () => {
    Effect.gen(function*() {
      const making = SecretConfig.refreshable(made)
      expectTypeOf<NeedsOf<typeof making>>().toEqualTypeOf<Log | SecretResolver.SecretResolver | Scope.Scope>()
      const database = yield* making
      const call = database.provide(Effect.all([Database, Log]))
      expectTypeOf<NeedsOf<typeof call>>().toEqualTypeOf<Log>()
      expectTypeOf(database.layer).toEqualTypeOf<Layer.Layer<Database>>()
    })
  })

  it("says what a provider needs of the platform, and takes no token that is not Redacted", () => {
    const accessToken = Redacted.make("t")
    expectTypeOf(BitwardenSecretProvider.layer({ accessToken })).toEqualTypeOf<
      Layer.Layer<SecretProvider.SecretProvider, never, ChildProcessSpawner.ChildProcessSpawner>
    >()
    // @ts-expect-error - a token is Redacted
    const plain = () => BitwardenSecretProvider.layer({ accessToken: "t" })
    // @ts-expect-error - so it is here
    const other = () => VaultSecretProvider.layer({ address: "https://v", auth: { type: "token", token: "t" } })
    expectTypeOf(SecretResolver.layerConfig({})).toEqualTypeOf<
      Layer.Layer<SecretResolver.SecretResolver, Config.ConfigError, SecretProvider.SecretProvider>
    >()
    return [plain, other]
  })
})
