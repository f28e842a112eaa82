/**
 * Puts secrets in the place of references.
 *
 * A text is parsed first; then its variables are read and its secrets fetched, and the pieces are joined. What a secret
 * or a variable holds is never parsed, so a value cannot smuggle a reference in. Use it for configuration only: the
 * arguments of a tool come from its caller and must not be resolved.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Check from "../internal/options.ts"
import { environment } from "./internal/environment.ts"
import { Lookups, type Secret } from "./internal/lookups.ts"
import { ProviderNotFound, SecretError, VariableNotSet } from "./SecretError.ts"
import { SecretProvider } from "./SecretProvider.ts"
import * as SecretRef from "./SecretRef.ts"

/**
 * Resolves references to secrets.
 *
 * - `resolveValue`: one text (see `SecretRef` for its grammar).
 * - `resolveAll`: all texts of a record, at once. Fails with the first text that fails.
 * - `changes`: what a text comes to, now and whenever that has changed. Looks again after `refreshInterval`, and at once
 *   where a provider notices a change itself. Fails when the first look does; a later one that fails is logged, and the
 *   value before it stands.
 * - `invalidate`: forgets the kept value of one secret, or of all.
 *
 * @category services
 * @since 0.1.0
 */
export class SecretResolver extends Context.Service<SecretResolver, {
  readonly resolveValue: (text: string) => Effect.Effect<Redacted.Redacted, SecretError>
  readonly resolveAll: <const Texts extends Readonly<Record<string, string>>>(
    texts: Texts
  ) => Effect.Effect<{ readonly [K in keyof Texts]: Redacted.Redacted }, SecretError>
  readonly changes: (text: string) => Stream.Stream<Redacted.Redacted, SecretError>
  readonly invalidate: (secret?: { readonly provider: string; readonly ref: string }) => Effect.Effect<void>
}>()("effect-toolops/secret/SecretResolver") {}

/**
 * What `layer` takes.
 *
 * - `ttl`: how long a fetched secret is kept. Default 5 minutes; 0 keeps none.
 * - `maxEntries`: most secrets kept. Default 1000; the oldest goes first.
 * - `timeout`: how long a provider may take. Default 10 seconds.
 * - `refreshInterval`: how often `changes` looks again. Default 1 minute.
 * - `strict`: whether a `$` that starts nothing is a mistake. Default true.
 * - `variables`: what `${NAME}` stands for. Default: the variables of the process, as they are when the layer is built.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly ttl?: Duration.Input | undefined
  readonly maxEntries?: number | undefined
  readonly timeout?: Duration.Input | undefined
  readonly refreshInterval?: Duration.Input | undefined
  readonly strict?: boolean | undefined
  readonly variables?: Readonly<Record<string, string | undefined>> | undefined
}

/**
 * Makes a resolver over the given providers.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<SecretResolver["Service"], never, SecretProvider | Scope.Scope> => {
  const where = "SecretResolver.layer"
  Check.known(where, options, ["ttl", "maxEntries", "timeout", "refreshInterval", "strict", "variables"])
  const limits = {
    ttlMillis: Check.millis(where, "ttl", options.ttl ?? "5 minutes", { allowZero: true }),
    maxEntries: Check.integer(where, "maxEntries", options.maxEntries ?? 1000, 1),
    timeoutMillis: Check.millis(where, "timeout", options.timeout ?? "10 seconds")
  }
  const refreshMillis = Check.millis(where, "refreshInterval", options.refreshInterval ?? "1 minute")
  const strict = options.strict ?? true
  return Effect.gen(function*() {
    const { providers } = yield* SecretProvider
    const lookups = new Lookups(limits)
    yield* Effect.addFinalizer(() => lookups.stop)
    const variable = environment(options.variables)

    const secretOf = (one: Extract<SecretRef.Part, { readonly _tag: "Secret" }>): Secret | undefined => {
      const provider = providers.get(one.provider)
      return provider === undefined ? undefined : { provider, ref: one.ref }
    }

    const part = (one: SecretRef.Part, maxAge: number): Effect.Effect<string, SecretError> => {
      switch (one._tag) {
        case "Literal":
          return Effect.succeed(one.text)
        case "Variable": {
          const value = variable(one.name)
          return value === undefined
            ? Effect.fail(new SecretError({ reason: new VariableNotSet({ name: one.name }) }))
            : Effect.succeed(value)
        }
        case "Secret": {
          const secret = secretOf(one)
          return secret === undefined
            ? Effect.fail(new SecretError({ reason: new ProviderNotFound({ provider: one.provider }) }))
            : Effect.map(lookups.get(secret, maxAge), Redacted.value)
        }
      }
    }

    const parse = (text: string) => Effect.fromResult(SecretRef.parse(text, { strict }))

    const join = (
      parts: ReadonlyArray<SecretRef.Part>,
      maxAge = Infinity
    ): Effect.Effect<Redacted.Redacted, SecretError> =>
      Effect.map(
        Effect.forEach(parts, (one) => part(one, maxAge), { concurrency: "unbounded" }),
        (pieces) => Redacted.make(pieces.join(""))
      )

    const resolveValue = (text: string) => Effect.flatMap(parse(text), (parts) => join(parts))

    const watch = (parts: ReadonlyArray<SecretRef.Part>): Stream.Stream<Redacted.Redacted, SecretError> => {
      const secrets = parts.flatMap((one) => one._tag === "Secret" ? secretOf(one) ?? [] : [])
      // Half of it, so that those who watch one secret share most fetches and none of them is an interval late.
      const ticks = Stream.map(Stream.tick(refreshMillis), () => refreshMillis / 2)
      const noticed = [...new Set(secrets.map(({ provider }) => provider))].flatMap((provider) =>
        provider.changed === undefined ? [] : provider.changed.pipe(
          // Also a fetch that is under way may bring what was there before.
          Stream.map(() => {
            for (const { ref } of secrets.filter((secret) => secret.provider === provider)) {
              lookups.forget(provider.name, ref)
            }
            return Infinity
          }),
          Stream.catchCause(() => Stream.empty)
        )
      )
      let hasSeen = false
      const look = (maxAge: number): Effect.Effect<ReadonlyArray<Redacted.Redacted>, SecretError> =>
        Effect.matchEffect(join(parts, maxAge), {
          onFailure: (error) =>
            hasSeen
              ? Effect.as(
                Effect.logWarning(`effect-toolops: a secret could not be looked at again: ${error.message}`),
                []
              )
              : Effect.fail(error),
          onSuccess: (value) => {
            hasSeen = true
            return Effect.succeed([value])
          }
        })
      return Stream.mergeAll([ticks, ...noticed], { concurrency: "unbounded" }).pipe(
        Stream.mapEffect(look),
        Stream.flattenIterable,
        Stream.changes
      )
    }

    return SecretResolver.of({
      resolveValue,
      resolveAll: (texts) =>
        Effect.map(
          Effect.forEach(
            Object.entries(texts),
            ([name, text]) => Effect.map(resolveValue(text), (value) => [name, value] as const),
            { concurrency: "unbounded" }
          ),
          // One entry per key of `texts`, so the shape is that of `texts`.
          (entries) => Object.fromEntries(entries) as never
        ),
      changes: (text) => Stream.unwrap(Effect.map(parse(text), watch)),
      invalidate: (secret) =>
        Effect.sync(() => {
          if (secret === undefined) lookups.clear()
          else lookups.forget(secret.provider, secret.ref)
        })
    })
  })
}

/**
 * Provides a resolver.
 *
 * **Details**
 *
 * Callers that need the same secret at the same time share one fetch; a fetch that failed is not remembered. What a
 * provider says when it fails is dropped. When the layer closes, fetches under way are interrupted and waited for, up to 3
 * seconds: a program that a provider has started is killed by then, and a provider that ignores it is left to itself.
 *
 * **Example** (Resolving a connection string)
 *
 * ```ts
 * import { Effect, Layer, Redacted } from "effect"
 * import { SecretProvider, SecretResolver } from "effect-toolops/secret"
 *
 * const Secrets = SecretResolver.layer({ variables: { DB_HOST: "db" } }).pipe(
 *   Layer.provide(SecretProvider.layer(SecretProvider.memory({ db: "pa$s" })))
 * )
 * const program = Effect.gen(function*() {
 *   const resolver = yield* SecretResolver.SecretResolver
 *   return yield* resolver.resolveValue("postgres://app:${secretref:memory:db}@${DB_HOST}/app")
 * })
 * const resolved = await Effect.runPromise(Effect.provide(program, Secrets))
 * String(resolved) // => "<redacted>"
 * Redacted.value(resolved) // => "postgres://app:pa$s@db/app"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<SecretResolver, never, SecretProvider> =>
  Layer.effect(SecretResolver, make(options))

/**
 * Provides a resolver with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Omit<Options, "variables">>
): Layer.Layer<SecretResolver, Config.ConfigError, SecretProvider> =>
  Layer.effect(SecretResolver, Effect.flatMap(Config.unwrap(options), make))
