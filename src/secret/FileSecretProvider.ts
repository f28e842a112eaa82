/**
 * Takes secrets from files of a directory, as Kubernetes and Docker mount them.
 *
 * A reference is a path below the directory. No path and no symbolic link leads out of it; links inside are followed,
 * since Kubernetes swaps a directory behind one (`..data`) to change all secrets at once. Files are read whenever they are
 * asked for, so a change counts from the next question on, and whoever watches a secret is told at once.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Check from "../internal/options.ts"
import { checkName, found, isName, notFound, refused, textOf, unavailable, withoutNewline } from "./internal/outcome.ts"
import { readBounded, type Unread } from "./internal/readBounded.ts"
import type { SecretError } from "./SecretError.ts"
import * as SecretProvider from "./SecretProvider.ts"

/**
 * Where the files are.
 *
 * - `name`: what stands between the colons of a reference. Default `file`.
 * - `directory`: an absolute path.
 * - `maxBytes`: the largest file that is read. Default and most 1 MiB, which is what Kubernetes allows.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly directory: string
  readonly maxBytes?: number | undefined
}

const isBelow = (path: Path.Path, root: string, target: string): boolean => {
  const way = path.relative(root, target)
  return way !== "" && way !== ".." && !way.startsWith(`..${path.sep}`) && !path.isAbsolute(way)
}

// What starts with two dots is Kubernetes's own, or the way out.
const isSegment = (segment: string): boolean => isName(segment) && segment !== "." && !segment.startsWith("..")

// Kubernetes removes the directory that a path leads to right after it has put another in its place.
const attempts = 20

/**
 * Makes the provider.
 *
 * **Details**
 *
 * A file holds its secret as UTF-8, less one newline at its end. Segments of a reference that start with two dots are
 * refused. Links are looked up before and after a file is read, and what was not the same throughout is not given; on Linux the
 * system also says of the open file itself where it is, so that not even someone who swaps links in the directory at will
 * gets a file from outside read. Elsewhere nobody but the owner of the secrets should be able to write into the directory.
 *
 * Where the platform can watch a directory, changes directly below it are noticed at once and others when
 * `SecretResolver` looks again.
 *
 * **Example** (Reading what Kubernetes mounts)
 *
 * ```ts
 * import { FileSecretProvider, SecretResolver } from "effect-toolops/secret"
 * import { Layer } from "effect"
 *
 * // secretref:file:db-password
 * const Secrets = SecretResolver.layer().pipe(
 *   Layer.provide(FileSecretProvider.layer({ directory: "/var/run/secrets/app" }))
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<SecretProvider.Provider, never, FileSystem.FileSystem | Path.Path> => {
  const where = "FileSecretProvider.make"
  Check.known(where, options, ["name", "directory", "maxBytes"])
  const name = checkName(where, options.name ?? "file")
  const maxBytes = Check.integer(where, "maxBytes", options.maxBytes ?? 1_048_576, 1, 1_048_576)
  const { directory } = options
  return Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    if (typeof directory !== "string" || !path.isAbsolute(directory)) {
      throw new TypeError(`${where}: directory must be an absolute path`)
    }

    const read = (ref: string, left: number): Effect.Effect<Redacted.Redacted, SecretError> => {
      const outcome: Effect.Effect<Uint8Array | Unread | "outside", PlatformError.PlatformError> = Effect.gen(
        function*() {
          const root = yield* fs.realPath(directory)
          const target = yield* fs.realPath(path.join(directory, ...ref.split("/")))
          if (!isBelow(path, root, target)) return "outside"
          // A directory on the way may have become a link since.
          const isThere = Effect.map(fs.realPath(target), (now) => now === target)
          return yield* readBounded(fs, target, maxBytes, isThere, (place) => isBelow(path, root, place))
        }
      )
      return Effect.matchEffect(outcome, {
        onFailure: ({ reason }) =>
          reason._tag === "PermissionDenied"
            ? Effect.fail(unavailable(name, ref, "denied"))
            : reason._tag !== "NotFound" && reason._tag !== "BadResource"
            ? Effect.fail(unavailable(name, ref, "failed"))
            : left > 1
            ? read(ref, left - 1)
            : Effect.fail(notFound(name, ref)),
        onSuccess: (content) => {
          if (content === "outside") return Effect.fail(refused(name, ref))
          if (content === "no file") return Effect.fail(notFound(name, ref))
          if (content === "too large") return Effect.fail(unavailable(name, ref, "unreadable"))
          if (content === "moved") {
            return left > 1 ? read(ref, left - 1) : Effect.fail(unavailable(name, ref, "failed"))
          }
          const text = textOf(content)
          return text === undefined
            ? Effect.fail(unavailable(name, ref, "unreadable"))
            : found(name, ref, withoutNewline(text))
        }
      })
    }

    // Once as soon as somebody watches: what has changed before that nobody would tell.
    const changed = Stream.suspend(() => {
      const ready = Deferred.makeUnsafe<void>()
      const onReady = () => Deferred.doneUnsafe(ready, Effect.void)
      return Stream.merge(Stream.fromEffect(Deferred.await(ready)), fs.watch(directory, { onReady }))
    })

    return SecretProvider.make({
      name,
      ttl: 0,
      get: (ref) =>
        ref.split("/").every(isSegment) && !ref.includes("\\")
          ? read(ref, attempts)
          : Effect.fail(refused(name, ref)),
      changed: Stream.catchCause(changed, () => Stream.empty)
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
): Layer.Layer<SecretProvider.SecretProvider, never, FileSystem.FileSystem | Path.Path> =>
  SecretProvider.layerEffect(Effect.map(make(options), (provider) => [provider]))

/**
 * Provides this provider alone, with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<SecretProvider.SecretProvider, Config.ConfigError, FileSystem.FileSystem | Path.Path> =>
  SecretProvider.layerEffect(Effect.map(Effect.flatMap(Config.unwrap(options), make), (provider) => [provider]))
