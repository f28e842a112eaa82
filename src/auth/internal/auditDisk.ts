import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import type * as Scope from "effect/Scope"

// What the audit file asks of `effect/FileSystem`, with what may go wrong put in the audit log's own words.

/**
 * Why the file cannot be used.
 *
 * - `locked`: another writer has it. `damaged`: it is not what a writer has left. `unsafe`: it is no plain file of ours.
 * - `unavailable`: the file system refuses; it may be better later.
 */
export interface FileProblem {
  readonly kind: "locked" | "damaged" | "unsafe" | "unavailable"
  /** A sentence that holds paths and line numbers, nothing of the log's content and nothing of the key. */
  readonly detail: string
  readonly cause?: unknown
  readonly isNotFound?: boolean
}

export const unavailable = (detail: string) => (cause: PlatformError): FileProblem => ({
  kind: "unavailable",
  detail,
  cause,
  isNotFound: isNotFound(cause)
})

export const isNotFound = (error: PlatformError): boolean => error.reason._tag === "NotFound"

/** The folder of a path, and its last part. */
export const split = (path: string): { readonly folder: string; readonly base: string } => {
  const at = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"))
  return { folder: at === -1 ? "." : at === 0 ? path.slice(0, 1) : path.slice(0, at), base: path.slice(at + 1) }
}

/** What is at the path itself, which may be a link, or nothing. */
export const look = (
  fs: FileSystem.FileSystem,
  path: string
): Effect.Effect<FileSystem.File.Info | undefined, FileProblem> =>
  Effect.catch(
    fs.lstat(path),
    (error) =>
      isNotFound(error) ? Effect.succeed(undefined) : Effect.fail(unavailable(`${path} cannot be looked at`)(error))
  )

/**
 * Opens a plain file, or makes one with mode 0600. Anything else at the path is refused, a link too. It is looked at before
 * it is opened, because to open a pipe is to wait for its other end, and once more when it is open.
 */
export const open = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  path: string,
  flag: "r" | "a" | "ax",
  forOwnerOnly = true
): Effect.fn.Return<
  { readonly file: FileSystem.File; readonly info: FileSystem.File.Info },
  FileProblem,
  Scope.Scope
> {
  const before = yield* look(fs, path)
  if (before !== undefined) yield* checkPlain(path, before, forOwnerOnly)
  const failed = unavailable(`${path} cannot be opened`)
  const file = yield* fs.open(path, { flag, mode: 0o600, noFollow: true }).pipe(
    // Where there is no such flag, what was looked at must be what was opened.
    Effect.catch((error) =>
      error.reason._tag === "BadArgument" ? fs.open(path, { flag, mode: 0o600 }) : Effect.fail(error)
    ),
    Effect.mapError(failed)
  )
  const info = yield* Effect.mapError(file.stat, failed)
  yield* checkPlain(path, info, forOwnerOnly)
  const isAnother = before !== undefined &&
    (before.dev !== info.dev || Option.getOrUndefined(before.ino) !== Option.getOrUndefined(info.ino))
  if (isAnother) {
    return yield* Effect.fail<FileProblem>({ kind: "unsafe", detail: `${path} was replaced while it was opened` })
  }
  return { file, info }
})

const checkPlain = (
  path: string,
  info: FileSystem.File.Info,
  forOwnerOnly: boolean
): Effect.Effect<void, FileProblem> => {
  if (info.type !== "File") {
    return Effect.fail({ kind: "unsafe", detail: `${path} is not a plain file but ${kindOf(info.type)}` })
  }
  if (forOwnerOnly && (info.mode & 0o077) !== 0) {
    const mode = (info.mode & 0o777).toString(8).padStart(4, "0")
    return Effect.fail({
      kind: "unsafe",
      detail: `${path} has mode ${mode}, and others than its owner must not get at it`
    })
  }
  return Effect.void
}

const kindOf = (type: FileSystem.File.Type): string =>
  type === "SymbolicLink" ? "a symbolic link" : type === "Directory" ? "a folder" : `of type ${type}`

/** Reads an open file from the start to the end that it has when it gets there, or until `onBytes` says `false`. */
export const readAll = Effect.fnUntraced(function*(
  file: FileSystem.File,
  path: string,
  onBytes: (bytes: Uint8Array) => boolean | void
): Effect.fn.Return<void, FileProblem> {
  const buffer = new Uint8Array(256 * 1024)
  let position = 0n
  for (;;) {
    const read = yield* Effect.mapError(file.read(buffer, { position }), unavailable(`${path} cannot be read`))
    if (read === 0) return
    position += BigInt(read)
    if (onBytes(buffer.subarray(0, read)) === false) return
  }
})

/**
 * Makes a new name in a folder durable. Not every platform can sync a folder; where it cannot, the name is as durable as
 * the platform makes it by itself.
 */
export const syncFolder = (fs: FileSystem.FileSystem, path: string): Effect.Effect<void> =>
  Effect.ignore(Effect.scoped(Effect.flatMap(fs.open(split(path).folder, { flag: "r" }), (folder) => folder.sync)))

/** The files that a log's rotation has put aside, in the order of their lines. */
export const rotated = (
  fs: FileSystem.FileSystem,
  path: string
): Effect.Effect<ReadonlyArray<{ readonly path: string; readonly firstSeq: number }>, FileProblem> => {
  const { base, folder } = split(path)
  return Effect.map(
    Effect.mapError(fs.readDirectory(folder), unavailable(`${folder} cannot be listed`)),
    (names) =>
      names
        .filter((name) => name.startsWith(`${base}.`) && /^[0-9]{16}$/.test(name.slice(base.length + 1)))
        .toSorted()
        .map((name) => {
          const suffix = name.slice(base.length)
          return { path: path + suffix, firstSeq: Number(suffix.slice(1)) }
        })
  )
}

/** What rotation calls the file whose first line has this number. */
export const rotatedPath = (path: string, firstSeq: number): string => `${path}.${String(firstSeq).padStart(16, "0")}`

/** Where checkpoints are unless said otherwise. */
export const checkpointsPath = (path: string): string => `${path}.checkpoints`
