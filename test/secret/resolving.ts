import { Effect, Layer, Redacted } from "effect"
import { type SecretError, SecretProvider, SecretResolver } from "effect-toolops/secret"

// What the tests of secrets have in common.

export const reasonOf = (error: SecretError.SecretError) => error.reason._tag

/** The tag of what came, with its problem where it has one: `found`, `SecretNotFound`, `SecretUnavailable denied`. */
export const outcomeOf = (
  effect: Effect.Effect<Redacted.Redacted, SecretError.SecretError>
): Effect.Effect<string> =>
  Effect.match(effect, {
    onFailure: ({ reason }) => reason._tag === "SecretUnavailable" ? `${reason._tag} ${reason.problem}` : reason._tag,
    onSuccess: (value) => `found ${Redacted.value(value)}`
  })

/** A resolver over some providers. */
export const resolverOf = (
  providers: ReadonlyArray<SecretProvider.Provider>,
  options?: SecretResolver.Options
): Layer.Layer<SecretResolver.SecretResolver> =>
  SecretResolver.layer(options).pipe(Layer.provide(SecretProvider.layer(...providers)))
