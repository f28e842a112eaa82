import { Effect, FileSystem, Option, PlatformError } from "effect"
import { basename, dirname } from "node:path"

/** What reading a log needs of a file system, in memory: thousands of logs are read faster than a disk lets them be. */
export const memoryFiles = (files: ReadonlyMap<string, Uint8Array>): FileSystem.FileSystem => {
  const find = (path: string, method: string) => {
    const bytes = files.get(path)
    return bytes === undefined
      ? Effect.fail(
        PlatformError.systemError({ _tag: "NotFound", module: "FileSystem", method, pathOrDescriptor: path })
      )
      : Effect.succeed(bytes)
  }
  const info = (bytes: Uint8Array): FileSystem.File.Info => ({
    type: "File",
    mtime: Option.none(),
    atime: Option.none(),
    birthtime: Option.none(),
    dev: 0n,
    ino: Option.none(),
    mode: 0o100600,
    nlink: Option.none(),
    uid: Option.none(),
    gid: Option.none(),
    rdev: Option.none(),
    // The number of bytes, under the name that Effect gives such numbers.
    size: BigInt(bytes.length) as FileSystem.File.Info["size"],
    blksize: Option.none(),
    blocks: Option.none()
  })
  const stat = (path: string) => Effect.map(find(path, "stat"), info)
  return FileSystem.makeNoop({
    stat,
    lstat: stat,
    readDirectory: (folder) =>
      Effect.sync(() =>
        Array.from(files.keys()).filter((path) => dirname(path) === folder).map((path) => basename(path))
      ),
    open: (path) =>
      Effect.map(find(path, "open"), (bytes) => {
        const file: Pick<FileSystem.File, "stat" | "read"> = {
          stat: Effect.succeed(info(bytes)),
          read: (buffer, options) =>
            Effect.sync(() => {
              const at = Number(options?.position ?? 0)
              const piece = bytes.subarray(at, at + buffer.length)
              buffer.set(piece)
              return piece.length
            })
        }
        // Nothing else of it is used for reading a log.
        return file as FileSystem.File
      })
  })
}
