/**
 * Takes secrets from a program that prints them, such as `op read` or `gopass show`.
 *
 * The program is started without a shell, so nothing in a reference is ever a command. A reference that starts with a
 * dash is refused and `--` stands before it, so it is no option either. The program gets the variables it is given and no
 * others; what it prints to its standard error is never shown.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import type * as Redacted from "effect/Redacted"
import * as Check from "../internal/options.ts"
import { checkName, found, isName, refused, textOf, unavailable, withoutNewline } from "./internal/outcome.ts"
import { runner, runnerOptionNames, texts } from "./internal/runCommand.ts"
import type { SecretError } from "./SecretError.ts"
import * as SecretProvider from "./SecretProvider.ts"

/**
 * What to run.
 *
 * - `name`: what stands between the colons of a reference. Default `command`.
 * - `command`: the program, by its path or looked up in the `PATH` it is given.
 * - `args`: its first arguments. Default none.
 * - `argument`: its last argument, with `{ref}` where the reference goes, as in `op://{ref}`. Default `{ref}`.
 * - `separator`: whether `--` stands before the last argument. Default true; false is for programs that do not know it.
 * - `env`: variables for the program. `inherit`: names of those it has from this process. Default `PATH` and `HOME`.
 * - `timeout`: how long it may take before it is killed. Default 10 seconds.
 * - `maxBytes`: most that it may print. Default 65,536, at most 16 MiB.
 * - `maxConcurrent`: how many may run at a time; others wait. Default 4.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly command: string
  readonly args?: ReadonlyArray<string> | undefined
  readonly argument?: string | undefined
  readonly separator?: boolean | undefined
  readonly env?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
  readonly inherit?: ReadonlyArray<string> | undefined
  readonly timeout?: Duration.Input | undefined
  readonly maxBytes?: number | undefined
  readonly maxConcurrent?: number | undefined
}

const placeholder = "{ref}"

/**
 * Makes the provider.
 *
 * **Details**
 *
 * What the program prints is the secret, less one newline at its end. Any exit code but 0 is a failure, and so are bytes
 * that are not UTF-8; printing nothing means that there is no such secret.
 *
 * A program that takes too long, prints too much or is not needed any more gets SIGTERM, and SIGKILL a second later. What it
 * leaves behind when it ends, whatever its exit code, is killed at once, unless that has a process group of its own, as
 * daemons have. Nothing that still holds its output keeps the answer back: the answer is there when nothing has come for 20
 * milliseconds after the end, and about a second after it at the latest.
 *
 * **Gotchas**
 *
 * What a daemon that the program has started prints to the same output before that is part of the secret. What it prints later
 * is read and dropped, slowly, for as long as it holds the output. So long it also keeps a Node process alive which would
 * otherwise end by itself. Daemons usually let go of it.
 *
 * **Example** (Asking 1Password and gopass)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { CommandSecretProvider, SecretProvider } from "effect-toolops/secret"
 *
 * // secretref:op:vault/item/field, secretref:gopass:web/token
 * const Secrets = SecretProvider.layerEffect(Effect.all([
 *   CommandSecretProvider.make({ name: "op", command: "op", args: ["read", "--no-newline"], argument: "op://{ref}" }),
 *   CommandSecretProvider.make({ name: "gopass", command: "gopass", args: ["show", "-o"] })
 * ]))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<SecretProvider.Provider, never, ChildProcessSpawner.ChildProcessSpawner> => {
  const where = "CommandSecretProvider.make"
  Check.known(where, options, ["name", "args", "argument", "separator", ...runnerOptionNames])
  const name = checkName(where, options.name ?? "command")
  const args = texts(where, "args", options.args ?? [])
  const argument = options.argument ?? placeholder
  if (typeof argument !== "string" || argument.split(placeholder).length !== 2 || argument.startsWith("-")) {
    throw new TypeError(`${where}: argument must hold ${placeholder} once and not start with a dash`)
  }
  const before = options.separator ?? true ? [...args, "--"] : args
  const [head, tail] = argument.split(placeholder)
  return Effect.map(runner(where, options), (run) =>
    SecretProvider.make({
      name,
      get: (ref) =>
        isName(ref) && !ref.startsWith("-")
          ? Effect.flatMap(run([...before, `${head}${ref}${tail}`]), (outcome): Effect.Effect<
            Redacted.Redacted,
            SecretError
          > => {
            if (outcome._tag !== "Exited") {
              return Effect.fail(unavailable(name, ref, problems[outcome._tag]))
            }
            if (outcome.code !== 0) return Effect.fail(unavailable(name, ref, "failed"))
            const text = textOf(outcome.output)
            return text === undefined
              ? Effect.fail(unavailable(name, ref, "unreadable"))
              : found(name, ref, withoutNewline(text))
          })
          : Effect.fail(refused(name, ref))
    }))
}

const problems = { TooLarge: "unreadable", Late: "timeout", Failed: "failed" } as const

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
  SecretProvider.layerEffect(
    Effect.map(Effect.flatMap(Config.unwrap(options), make), (provider) => [provider])
  )
