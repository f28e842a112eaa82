import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"

/** Why a file was not read. */
export type Unread = "no file" | "too large" | "moved"

const isSame = (left: FileSystem.File.Info, right: FileSystem.File.Info): boolean =>
  left.dev === right.dev && Option.getOrUndefined(left.ino) === Option.getOrUndefined(right.ino)

/**
 * Whether an open file really is where it may be, which nobody can change by what they put into its path. True where that
 * cannot be told: only systems with Linux's `/proc` tell it, and only of a file whose descriptor is known.
 */
const isWhereItMay = (
  fs: FileSystem.FileSystem,
  file: FileSystem.File,
  isInside: (place: string) => boolean
): Effect.Effect<boolean> =>
  "fd" in file && typeof file.fd === "number"
    ? Effect.match(fs.readLink(`/proc/self/fd/${file.fd}`), {
      // There for every open file wherever it is there at all; who is kept from looking at it does not know.
      onFailure: ({ reason }) => reason._tag === "NotFound",
      onSuccess: isInside
    })
    : Effect.succeed(true)

/**
 * Reads a file of at most `maxBytes`. Looks before it opens, as opening a pipe would wait for a writer, and once more
 * afterwards, so that what was read is what the path stood for.
 *
 * `isThere` says whether the path still leads where it should. It is asked around the last look at the file, so one that
 * was another place's while it was opened is noticed when it is put back. `isInside` says whether a place is one that files
 * may be read from, and is asked about the open file. Without it, all may.
 */
export const readBounded = (
  fs: FileSystem.FileSystem,
  path: string,
  maxBytes: number,
  isThere: Effect.Effect<boolean, PlatformError> = Effect.succeed(true),
  isInside?: (place: string) => boolean
): Effect.Effect<Uint8Array | Unread, PlatformError> =>
  Effect.scoped(Effect.gen(function*() {
    const seen = yield* fs.stat(path)
    if (seen.type !== "File") return "no file"
    if (seen.size > BigInt(maxBytes)) return "too large"
    const file = yield* fs.open(path)
    if (!isSame(seen, yield* file.stat) || !isSame(seen, yield* fs.stat(path))) return "moved"
    if (isInside !== undefined && !(yield* isWhereItMay(fs, file, isInside))) return "moved"
    // One more than there should be, so that a file which has grown since is noticed.
    const buffer = new Uint8Array(Number(seen.size) + 1)
    let size = 0
    while (size < buffer.length) {
      const read = Number(yield* file.read(buffer.subarray(size)))
      if (read === 0) {
        const isWhatItWas = (yield* isThere) && isSame(seen, yield* fs.stat(path)) && (yield* isThere)
        return isWhatItWas ? buffer.slice(0, size) : "moved"
      }
      size += read
    }
    return "moved"
  }))
