/**
 * Where secrets come from.
 *
 * A provider answers for one name in `secretref:<name>:<ref>`. A program installs as many as it needs, under different
 * names, as one `SecretProvider` service. For all providers here an empty secret is one that is not there.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Check from "../internal/options.ts"
import { environment } from "./internal/environment.ts"
import { checkName, found } from "./internal/outcome.ts"
import type { SecretError } from "./SecretError.ts"

/**
 * One source of secrets.
 *
 * - `name`: what stands between the colons of a reference: 1 to 64 of `a-z 0-9 _ -`, starting with a letter.
 * - `get`: the current value of a secret. Bounded in time by the resolver, which makes errors anew from their kind, so
 *   that nothing else that they say comes through.
 * - `ttl`: most that the resolver may keep a value, where its own `ttl` is longer. 0 is for sources that are near enough
 *   to be asked every time. Default: as long as the resolver likes.
 * - `changed`: says that secrets may have changed, so that whoever watches one looks at once. Default: says nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface Provider {
  readonly name: string
  readonly get: (ref: string) => Effect.Effect<Redacted.Redacted, SecretError>
  readonly ttl?: Duration.Input | undefined
  readonly changed?: Stream.Stream<unknown> | undefined
}

/**
 * The providers of the program, by name.
 *
 * @category services
 * @since 0.1.0
 */
export class SecretProvider extends Context.Service<SecretProvider, {
  readonly providers: ReadonlyMap<string, Provider>
}>()("effect-toolops/secret/SecretProvider") {}

/**
 * Makes a provider of your own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (provider: Provider): Provider => {
  checkName("SecretProvider.make", provider.name)
  if (provider.ttl !== undefined) Check.millis("SecretProvider.make", "ttl", provider.ttl, { allowZero: true })
  return provider
}

/**
 * What `env` takes.
 *
 * - `name`: Default `env`.
 * - `prefixes`: only variables whose names start with one of these are secrets that may be asked for. At least one.
 * - `variables`: the variables. Default: those of the process, as they are when the provider is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface EnvOptions {
  readonly name?: string | undefined
  readonly prefixes: ReadonlyArray<string>
  readonly variables?: Readonly<Record<string, string | undefined>> | undefined
}

/**
 * Takes secrets from environment variables.
 *
 * @category constructors
 * @since 0.1.0
 */
export const env = (options: EnvOptions): Provider => {
  const where = "SecretProvider.env"
  Check.known(where, options, ["name", "prefixes", "variables"])
  const name = checkName(where, options.name ?? "env")
  const prefixes = [...options.prefixes]
  if (prefixes.length === 0 || !prefixes.every((prefix) => typeof prefix === "string" && prefix !== "")) {
    throw new TypeError(`${where}: prefixes must be a list of at least one non-empty string`)
  }
  const lookup = environment(options.variables)
  return {
    name,
    get: (ref) =>
      Effect.suspend(() => {
        const isAllowed = prefixes.some((prefix) => ref.startsWith(prefix))
        return found(name, ref, isAllowed ? lookup(ref) : undefined)
      })
  }
}

/**
 * Keeps secrets in memory, for tests. What is changed in `secrets` counts from then on.
 *
 * @category constructors
 * @since 0.1.0
 */
export const memory = (
  secrets: ReadonlyMap<string, string> | Readonly<Record<string, string>>,
  options?: { readonly name?: string | undefined }
): Provider => {
  const name = checkName("SecretProvider.memory", options?.name ?? "memory")
  const lookup = (ref: string): string | undefined =>
    isMap(secrets) ? secrets.get(ref) : Object.hasOwn(secrets, ref) ? secrets[ref] : undefined
  return {
    name,
    ttl: 0,
    get: (ref) => Effect.suspend(() => found(name, ref, lookup(ref)))
  }
}

const isMap = (secrets: object): secrets is ReadonlyMap<string, string> => secrets instanceof Map

/**
 * Provides the given providers. Two of one name are a mistake and throw.
 *
 * **Example** (Installing two providers)
 *
 * ```ts
 * import { SecretProvider } from "effect-toolops/secret"
 *
 * const Secrets = SecretProvider.layer(
 *   SecretProvider.env({ prefixes: ["APP_"] }),
 *   SecretProvider.memory({ token: "t" }, { name: "test" })
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (...providers: ReadonlyArray<Provider>): Layer.Layer<SecretProvider> =>
  Layer.succeed(SecretProvider, fromProviders(providers))

/**
 * Provides providers that have to be made first, such as one that logs in.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEffect = <E, R>(
  providers: Effect.Effect<ReadonlyArray<Provider>, E, R>
): Layer.Layer<SecretProvider, E, Exclude<R, Scope.Scope>> =>
  Layer.effect(SecretProvider, Effect.map(providers, fromProviders))

const fromProviders = (providers: ReadonlyArray<Provider>): SecretProvider["Service"] => {
  const byName = new Map<string, Provider>()
  for (const provider of providers) {
    checkName("SecretProvider.layer", provider.name)
    if (byName.has(provider.name)) throw new TypeError(`SecretProvider.layer: two providers are named ${provider.name}`)
    byName.set(provider.name, provider)
  }
  return { providers: byName }
}

/**
 * Provides the environment provider alone, with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEnvConfig = (
  options: Config.Wrap<Pick<EnvOptions, "name" | "prefixes">>
): Layer.Layer<SecretProvider, Config.ConfigError> =>
  Layer.effect(SecretProvider, Effect.map(Config.unwrap(options), (resolved) => fromProviders([env(resolved)])))
