/**
 * Takes secrets from Bitwarden Secrets Manager through its command line program, `bws`.
 *
 * A reference is the id of a secret, or `project/<name>/key/<key>`. Names are looked up in lists of which only the ids are
 * kept; the value is fetched by its id. The access token is in the environment of the program and never in its arguments,
 * which other users of the machine can see.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Redacted from "effect/Redacted"
import { checkUrl } from "../internal/boundedFetch.ts"
import * as Check from "../internal/options.ts"
import { type Ids, makeCatalogue } from "./internal/catalogue.ts"
import { checkName, found, isName, notFound, percentDecoded, refused, textOf, unavailable } from "./internal/outcome.ts"
import { type Outcome, runner, runnerOptionNames } from "./internal/runCommand.ts"
import type { SecretUnavailable } from "./SecretError.ts"
import * as SecretProvider from "./SecretProvider.ts"

/**
 * How to ask.
 *
 * - `name`: what stands between the colons of a reference. Default `bws`.
 * - `accessToken`: of a machine account.
 * - `serverUrl`: of a server of your own: https, or http on loopback, without a query or a fragment. Default: Bitwarden's.
 * - `command`: the program, by its path or looked up in the `PATH` it is given. Default `bws`.
 * - `env`: more variables for the program. `inherit`: names of those it has from this process. Default `PATH` and `HOME`.
 * - `namesTtl`: how long it is remembered which id a name stands for. Default 10 minutes; 0 looks it up every time.
 * - `timeout`: how long one run of the program may take. Default 10 seconds.
 * - `maxBytes`: most that it may print. Default 1 MiB, at most 16 MiB: lists hold values too.
 * - `maxConcurrent`: how many may run at a time; others wait. Default 4.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly accessToken: Redacted.Redacted
  readonly serverUrl?: string | undefined
  readonly command?: string | undefined
  readonly env?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
  readonly inherit?: ReadonlyArray<string> | undefined
  readonly namesTtl?: Duration.Input | undefined
  readonly timeout?: Duration.Input | undefined
  readonly maxBytes?: number | undefined
  readonly maxConcurrent?: number | undefined
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

type Target =
  | { readonly _tag: "Id"; readonly id: string }
  | { readonly _tag: "Named"; readonly project: string; readonly key: string }

// Where a name holds "/key/" itself, nobody can say where it ends, unless one of its slashes is written %2F.
const targetOf = (ref: string): Target | undefined => {
  if (uuid.test(ref)) return { _tag: "Id", id: ref.toLowerCase() }
  const [project, key, ...more] = ref.startsWith("project/") ? ref.slice("project/".length).split("/key/") : []
  if (project === undefined || key === undefined || more.length > 0) return undefined
  const names = { project: percentDecoded(project), key: percentDecoded(key) }
  return isName(names.project) && isName(names.key)
    ? { _tag: "Named", project: names.project, key: names.key }
    : undefined
}

// Of what bws says, which changes from version to version. Bitwarden does not tell a secret that is not there from one
// that may not be read.
const isNotFound = (complaint: string): boolean => /\[404\b|not found or is not accessible/i.test(complaint)
const isDenied = (complaint: string): boolean =>
  /\[40[13]\b|\(40[13]\b|invalid_client|access token|access denied/i.test(complaint)

const parsed = (output: Uint8Array): unknown => {
  try {
    return JSON.parse(textOf(output) ?? "")
  } catch {
    return undefined
  }
}

const member = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && Object.hasOwn(value, name)
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined

const idsOf = (list: unknown, nameOf: "name" | "key"): Ids | undefined => {
  if (!Array.isArray(list)) return undefined
  const ids = new Map<string, Array<string>>()
  for (const entry of list as ReadonlyArray<unknown>) {
    const id = member(entry, "id")
    const name = member(entry, nameOf)
    if (typeof id !== "string" || !uuid.test(id) || typeof name !== "string") return undefined
    const others = ids.get(name)
    if (others === undefined) ids.set(name, [id.toLowerCase()])
    else others.push(id.toLowerCase())
  }
  return ids
}

const checkServer = (where: string, url: string | undefined): Readonly<Record<string, string>> => {
  if (url === undefined) return {}
  const { href } = checkUrl(where, url, false)
  if (/[?#]/.test(href)) throw new TypeError(`${where}: serverUrl must not hold a query or a fragment`)
  // bws puts "/api" and "/identity" behind it as it stands.
  let end = href.length
  while (href[end - 1] === "/") end--
  return { BWS_SERVER_URL: href.slice(0, end) }
}

type Problem = SecretUnavailable["problem"] | "not found"

const problemOf = (outcome: Outcome): Problem => {
  switch (outcome._tag) {
    case "Exited":
      return isNotFound(outcome.complaint) ? "not found" : isDenied(outcome.complaint) ? "denied" : "failed"
    case "TooLarge":
      return "unreadable"
    case "Late":
      return "timeout"
    case "Failed":
      return "failed"
  }
}

/**
 * Makes the provider. Needs `bws` 0.3 or later.
 *
 * **Details**
 *
 * A `/` in a name may stand as it is, or as `%2F` where the name holds `/key/`; a `%` is written `%25`. Where two projects,
 * or two secrets of a project, go by one name, it stands for neither: `SecretUnavailable` with `ambiguous`.
 *
 * **Example** (Reading two secrets)
 *
 * ```ts
 * import { Effect, Redacted } from "effect"
 * import { BitwardenSecretProvider, SecretProvider } from "effect-toolops/secret"
 *
 * // secretref:bws:382580ab-1368-4e85-bfa3-b02e01400c9f, ${secretref:bws:project/Web shop/key/stripe}
 * const provider = BitwardenSecretProvider.make({ accessToken: Redacted.make("0.48c78342.example") })
 * const Secrets = SecretProvider.layerEffect(Effect.all([provider]))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<SecretProvider.Provider, never, ChildProcessSpawner.ChildProcessSpawner> => {
  const where = "BitwardenSecretProvider.make"
  Check.known(where, options, ["name", "accessToken", "serverUrl", "namesTtl", ...runnerOptionNames])
  const name = checkName(where, options.name ?? "bws")
  const { accessToken } = options
  if (!Redacted.isRedacted(accessToken) || Redacted.value<unknown>(accessToken) === "") {
    throw new TypeError(`${where}: accessToken must be a Redacted, non-empty string`)
  }
  const namesTtl = Check.millis(where, "namesTtl", options.namesTtl ?? "10 minutes", { allowZero: true })
  // Without colours, which are not JSON.
  const env = { NO_COLOR: "1", ...options.env, ...checkServer(where, options.serverUrl), BWS_ACCESS_TOKEN: accessToken }
  const program = { ...options, command: options.command ?? "bws", maxBytes: options.maxBytes ?? 1_048_576, env }
  return Effect.map(runner(where, program), (run) => {
    const ask = (...args: ReadonlyArray<string>): Effect.Effect<unknown, Problem> =>
      Effect.flatMap(run([...args, "--output", "json"]), (outcome) => {
        if (outcome._tag !== "Exited" || outcome.code !== 0) return Effect.fail(problemOf(outcome))
        const answer = parsed(outcome.output)
        return answer === undefined ? Effect.fail<Problem>("unreadable") : Effect.succeed(answer)
      })

    const names = makeCatalogue<Problem>(namesTtl, (project) =>
      Effect.flatMap(
        project === "" ? ask("project", "list") : ask("secret", "list", project),
        (list) => {
          const ids = idsOf(list, project === "" ? "name" : "key")
          return ids === undefined ? Effect.fail<Problem>("unreadable") : Effect.succeed(ids)
        }
      ))

    const only = (ids: ReadonlyArray<string>): Effect.Effect<string, Problem> =>
      ids.length === 1 ? Effect.succeed(ids[0]!) : Effect.fail(ids.length === 0 ? "not found" : "ambiguous")

    const byId = (id: string): Effect.Effect<string, Problem> =>
      Effect.flatMap(ask("secret", "get", id), (secret) => {
        const value = member(secret, "value")
        const came = member(secret, "id")
        return typeof value === "string" && typeof came === "string" && came.toLowerCase() === id
          ? Effect.succeed(value)
          : Effect.fail<Problem>("unreadable")
      })

    const byName = (target: { readonly project: string; readonly key: string }, since?: number) =>
      names.find("", target.project, since).pipe(
        Effect.flatMap(only),
        Effect.flatMap((project) => names.find(project, target.key, since)),
        Effect.flatMap(only),
        Effect.flatMap(byId)
      )

    // What was remembered may be of a secret that has been deleted and made anew, or of two that are one by now.
    const lookUp = (target: Target): Effect.Effect<string, Problem> =>
      target._tag === "Id"
        ? byId(target.id)
        : Effect.suspend(() => {
          const since = names.turn()
          return Effect.catchIf(
            byName(target),
            (problem) => problem === "not found" || problem === "ambiguous",
            () => byName(target, since)
          )
        })

    return SecretProvider.make({
      name,
      get: (ref) => {
        const target = targetOf(ref)
        return target === undefined
          ? Effect.fail(refused(name, ref))
          : Effect.matchEffect(lookUp(target), {
            onFailure: (problem) =>
              Effect.fail(problem === "not found" ? notFound(name, ref) : unavailable(name, ref, problem)),
            onSuccess: (value) => found(name, ref, value)
          })
      }
    })
  })
}

/**
 * Provides this provider alone.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<SecretProvider.SecretProvider, never, ChildProcessSpawner.ChildProcessSpawner> =>
  SecretProvider.layerEffect(Effect.map(make(options), (provider) => [provider]))

/**
 * Provides this provider alone, with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<SecretProvider.SecretProvider, Config.ConfigError, ChildProcessSpawner.ChildProcessSpawner> =>
  SecretProvider.layerEffect(Effect.map(Effect.flatMap(Config.unwrap(options), make), (provider) => [provider]))
