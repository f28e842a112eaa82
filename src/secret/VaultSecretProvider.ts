/**
 * Takes secrets from the key/value store, version 2, of HashiCorp Vault, over HTTP.
 *
 * A reference is `<path>#<field>` or `<path>#<field>#<version>`. Secrets of this store have no leases; the token has, and is
 * renewed in the background. Redirects are not asked for, as they would take the token elsewhere: give the address of the
 * cluster, not of a node that redirects. An `HttpClient` that follows redirects by itself (`HttpClient.followRedirects`)
 * cannot be kept from that and does take the token there; what comes back is not used. Provide one that does not.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as HttpClient from "effect/http/HttpClient"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { checkUrl } from "../internal/boundedFetch.ts"
import * as Check from "../internal/options.ts"
import { checkName, found, isName, notFound, percentDecoded, refused, textOf, unavailable } from "./internal/outcome.ts"
import { readBounded } from "./internal/readBounded.ts"
import { at, makeAsk, type Problem } from "./internal/vaultClient.ts"
import { kubernetesSession, tokenSession } from "./internal/vaultSession.ts"
import * as SecretProvider from "./SecretProvider.ts"

/**
 * Who the program is to Vault.
 *
 * - `token`: a token that it is given. Renewed while Vault allows that.
 * - `kubernetes`: the service account it runs as. `role`: a role of the Kubernetes auth method. `mount`: where that method
 *   is. Default `kubernetes`. `jwtPath`: the file with the account's token, read at every login. Default: where Kubernetes
 *   puts it.
 *
 * @category models
 * @since 0.1.0
 */
export type Auth =
  | { readonly type: "token"; readonly token: Redacted.Redacted }
  | {
    readonly type: "kubernetes"
    readonly role: string
    readonly mount?: string | undefined
    readonly jwtPath?: string | undefined
  }

/**
 * Where Vault is and how to ask it.
 *
 * - `name`: what stands between the colons of a reference. Default `vault`.
 * - `address`: https, or http on loopback. `allowInsecureHttp`: true allows http elsewhere: anybody between here and there
 *   can then read all secrets. Default false.
 * - `auth`: who the program is.
 * - `namespace`: of Vault Enterprise. Default none.
 * - `mount`: where the store is. Default `secret`.
 * - `field`: what is meant by a reference without `#`. Default `value`.
 * - `timeout`: how long a request may take. Default 5 seconds.
 * - `maxBytes`: the largest answer that is read. Default and most 1 MiB.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly address: string
  readonly allowInsecureHttp?: boolean | undefined
  readonly auth: Auth
  readonly namespace?: string | undefined
  readonly mount?: string | undefined
  readonly field?: string | undefined
  readonly timeout?: Duration.Input | undefined
  readonly maxBytes?: number | undefined
}

const optionNames: { readonly [K in keyof Required<Options>]: true } = {
  name: true,
  address: true,
  allowInsecureHttp: true,
  auth: true,
  namespace: true,
  mount: true,
  field: true,
  timeout: true,
  maxBytes: true
}

// Something on the way may decode a "%2F" and then go up from there.
const isSegment = (segment: string | undefined): segment is string =>
  isName(segment) && segment.split("/").every((piece) => piece !== "." && piece !== "..")

const checkPath = (where: string, name: string, path: string): ReadonlyArray<string> => {
  const segments = typeof path === "string" ? path.split("/") : []
  if (segments.length === 0 || !segments.every(isSegment)) {
    throw new TypeError(`${where}: ${name} must be names separated by slashes`)
  }
  return segments
}

const checkAuth = (where: string, auth: Auth) => {
  if (auth?.type === "token") {
    Check.known(where, auth, ["type", "token"])
    const { token } = auth
    const text: unknown = Redacted.isRedacted(token) ? Redacted.value(token) : undefined
    // What a header may hold; anything else is a newline that was read along.
    if (typeof text !== "string" || !/^[\x21-\x7e]+$/.test(text)) {
      throw new TypeError(`${where}: auth.token must be a Redacted, non-empty string without blanks`)
    }
    return auth
  }
  if (auth?.type === "kubernetes") {
    Check.known(where, auth, ["type", "role", "mount", "jwtPath"])
    if (!isName(auth.role)) throw new TypeError(`${where}: auth.role must be a non-empty string`)
    return {
      type: auth.type,
      role: auth.role,
      mount: checkPath(where, "auth.mount", auth.mount ?? "kubernetes"),
      jwtPath: auth.jwtPath ?? "/var/run/secrets/kubernetes.io/serviceaccount/token"
    }
  }
  throw new TypeError(`${where}: auth.type must be one of token, kubernetes`)
}

const check = (where: string, options: Options) => {
  Check.known(where, options, Object.keys(optionNames))
  const { namespace } = options
  if (namespace !== undefined && !/^[\x21-\x7e]+$/.test(namespace)) {
    throw new TypeError(`${where}: namespace must be a non-empty string without blanks`)
  }
  if (options.field !== undefined && !isName(options.field)) {
    throw new TypeError(`${where}: field must be a non-empty string`)
  }
  const address = checkUrl(where, options.address, options.allowInsecureHttp === true)
  if (address.search !== "" || address.hash !== "") {
    throw new TypeError(`${where}: address must not hold a query or a fragment`)
  }
  return {
    name: checkName(where, options.name ?? "vault"),
    auth: checkAuth(where, options.auth),
    mount: checkPath(where, "mount", options.mount ?? "secret"),
    field: options.field ?? "value",
    server: {
      address,
      namespace,
      timeout: Check.millis(where, "timeout", options.timeout ?? "5 seconds"),
      maxBytes: Check.integer(where, "maxBytes", options.maxBytes ?? 1_048_576, 1, 1_048_576)
    }
  }
}

type Settings = ReturnType<typeof check>

const targetOf = (ref: string, field: string) => {
  const [path, name, version, ...more] = ref.split("#")
  const segments = path!.split("/").map(percentDecoded)
  const decoded = name === undefined ? field : percentDecoded(name)
  if (!segments.every(isSegment) || !isName(decoded) || more.length > 0) return undefined
  if (version !== undefined && !/^[1-9]\d{0,8}$/.test(version)) return undefined
  return { segments, field: decoded, version: version === undefined ? undefined : Number(version) }
}

const maxJwtBytes = 16_384

const fromSettings = (
  { auth, field, mount, name, server }: Settings
): Effect.Effect<SecretProvider.Provider, never, HttpClient.HttpClient | FileSystem.FileSystem | Scope.Scope> =>
  Effect.gen(function*() {
    const ask = makeAsk(yield* HttpClient.HttpClient, server)
    const fs = yield* FileSystem.FileSystem
    // Kubernetes may be putting another file in its place.
    const jwtFrom = (path: string, left = 3): Effect.Effect<string, Problem> =>
      Effect.matchEffect(readBounded(fs, path, maxJwtBytes), {
        onFailure: () => left > 1 ? jwtFrom(path, left - 1) : Effect.fail<Problem>("failed"),
        onSuccess: (content) => {
          if (content === "moved" && left > 1) return jwtFrom(path, left - 1)
          const jwt = typeof content === "string" ? undefined : textOf(content)?.trim()
          return jwt === undefined || jwt === "" ? Effect.fail<Problem>("unreadable") : Effect.succeed(jwt)
        }
      })
    const session = auth.type === "token"
      ? yield* tokenSession(ask, auth.token)
      : yield* kubernetesSession(ask, { role: auth.role, mount: auth.mount, jwt: jwtFrom(auth.jwtPath) })

    const read = (target: NonNullable<ReturnType<typeof targetOf>>): Effect.Effect<unknown, Problem> => {
      const request = { method: "GET", path: [...mount, "data", ...target.segments], version: target.version } as const
      return Effect.flatMap(session.token, (token) =>
        Effect.catchIf(
          ask({ ...request, token }),
          (problem) => problem === "denied",
          (problem) =>
            Effect.flatMap(
              session.mayRetry(token),
              (may) =>
                may ? Effect.flatMap(session.token, (other) => ask({ ...request, token: other })) : Effect.fail(problem)
            )
        ))
    }

    return SecretProvider.make({
      name,
      get: (ref) => {
        const target = targetOf(ref, field)
        if (target === undefined) return Effect.fail(refused(name, ref))
        return Effect.matchEffect(read(target), {
          onFailure: (problem) =>
            Effect.fail(problem === "not found" ? notFound(name, ref) : unavailable(name, ref, problem)),
          onSuccess: (answer) => {
            const value = at(answer, "data", "data", target.field)
            return value === undefined || typeof value === "string"
              ? found(name, ref, value)
              : Effect.fail(unavailable(name, ref, "unreadable"))
          }
        })
      }
    })
  })

/**
 * Makes the provider.
 *
 * **Details**
 *
 * A segment or field that holds `#`, `/` or `%` writes them `%23`, `%2F` and `%25`. No segment, nor a part of one between
 * slashes, may be `.` or `..`. Fields must be texts. A version that
 * was deleted or destroyed is not found. What Vault refuses is `SecretUnavailable` with `denied`, a sealed server one with
 * `sealed`. With Kubernetes, a new login is tried when a token is refused, at most once in 30 seconds, and takes its place
 * when it succeeds. While there is no valid token, a login that failed is the answer to everybody for a second.
 *
 * **Example** (Reading with a token)
 *
 * ```ts
 * import { Redacted } from "effect"
 * import { VaultSecretProvider } from "effect-toolops/secret"
 *
 * // secretref:vault:shop/db#password, secretref:vault:shop/db#password#3
 * const Secrets = VaultSecretProvider.layer({
 *   address: "https://vault.example:8200",
 *   auth: { type: "token", token: Redacted.make("hvs.example") }
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<SecretProvider.Provider, never, HttpClient.HttpClient | FileSystem.FileSystem | Scope.Scope> =>
  fromSettings(check("VaultSecretProvider.make", options))

/**
 * Provides this provider alone.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<SecretProvider.SecretProvider, never, HttpClient.HttpClient | FileSystem.FileSystem> => {
  const settings = check("VaultSecretProvider.layer", options)
  return SecretProvider.layerEffect(Effect.map(fromSettings(settings), (provider) => [provider]))
}

/**
 * Provides this provider alone, with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<SecretProvider.SecretProvider, Config.ConfigError, HttpClient.HttpClient | FileSystem.FileSystem> =>
  SecretProvider.layerEffect(
    Effect.flatMap(
      Config.unwrap(options),
      (value) => Effect.map(fromSettings(check("VaultSecretProvider.layerConfig", value)), (provider) => [provider])
    )
  )
