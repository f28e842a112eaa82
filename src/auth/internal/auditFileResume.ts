import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type Chain, type Head, idOf, makeId, maxLineBytes } from "./auditChain.ts"
import { ChainFile } from "./auditChainFile.ts"
import { contentsOf } from "./auditContents.ts"
import * as Disk from "./auditDisk.ts"

// How a log is taken up again. Everything is read before anything is written. What a crash can have left is put right;
// anything else is refused, because to write on would be to cover up for whoever did it.

/** Copies what follows the lines of a file into a file of its own, and takes it from there. Gives the new file's path. */
export const moveTornAside = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  path: string,
  goodBytes: number
): Effect.fn.Return<{ readonly aside: string; readonly bytes: number }, Disk.FileProblem, Scope.Scope> {
  const now = new Date(yield* Clock.currentTimeMillis).toISOString().replaceAll(/[:.]/g, "-")
  let aside = `${path}.torn-${now}`
  for (let i = 2; (yield* Disk.look(fs, aside)) !== undefined; i++) aside = `${path}.torn-${now}-${i}`
  const { file: from } = yield* Disk.open(fs, path, "r")
  const { file: to } = yield* Disk.open(fs, aside, "ax")
  const failed = Disk.unavailable(`${path} has a torn end that cannot be moved to ${aside}`)
  const buffer = new Uint8Array(maxLineBytes)
  let bytes = 0
  for (;;) {
    const read = yield* Effect.mapError(from.read(buffer, { position: BigInt(goodBytes + bytes) }), failed)
    if (read === 0) break
    yield* Effect.mapError(to.writeAll(buffer.subarray(0, read)), failed)
    bytes += read
  }
  yield* Effect.mapError(to.sync, failed)
  yield* Disk.syncFolder(fs, path)
  const { file } = yield* Disk.open(fs, path, "a")
  yield* Effect.mapError(Effect.andThen(file.truncate(goodBytes), file.sync), failed)
  return { aside, bytes }
})

/** Gives the last line of a file its end, in place of zeros if there are any. `goodBytes` are those of the lines with their ends. */
const endLine = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  path: string,
  goodBytes: number
): Effect.fn.Return<void, Disk.FileProblem, Scope.Scope> {
  const { file } = yield* Disk.open(fs, path, "a")
  yield* file.truncate(goodBytes - 1).pipe(
    Effect.andThen(file.writeAll(new Uint8Array([newline]))),
    Effect.andThen(file.sync),
    Effect.mapError(Disk.unavailable(`${path} has a last line without an end, which cannot be written`))
  )
})

const newline = 10

/** The id of the log, from the oldest of the files that rotation has put aside. Unknown when older ones were moved away. */
const idIn = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  { firstSeq, path }: { readonly path: string; readonly firstSeq: number },
  chain: Chain
): Effect.fn.Return<string | undefined, Disk.FileProblem, Scope.Scope> {
  if (firstSeq !== 1) return undefined
  const { file } = yield* Disk.open(fs, path, "r")
  const bytes = new Uint8Array(maxLineBytes + 1)
  const read = yield* Effect.mapError(file.read(bytes, { position: 0n }), Disk.unavailable(`${path} cannot be read`))
  const parsed = chain.parse(bytes.subarray(0, Math.max(0, bytes.subarray(0, read).indexOf(newline))))
  return parsed === undefined ? undefined : idOf(parsed.prev)
})

/** The last line of a file that rotation has put aside. */
const endOf = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  path: string,
  chain: Chain
): Effect.fn.Return<Head, Disk.FileProblem, Scope.Scope> {
  const { file, info } = yield* Disk.open(fs, path, "r")
  const bytes = new Uint8Array(Math.min(Number(info.size), maxLineBytes + 2))
  const position = info.size - BigInt(bytes.length)
  const read = yield* Effect.mapError(file.read(bytes, { position }), Disk.unavailable(`${path} cannot be read`))
  const text = bytes.subarray(0, read)
  const line = text.subarray(text.lastIndexOf(10, -2) + 1, -1)
  const parsed = text.at(-1) === 10 ? chain.parse(line) : undefined
  if (parsed === undefined || !chain.isGenuine(line, parsed)) {
    return yield* Effect.fail<Disk.FileProblem>({
      kind: "damaged",
      detail: `${path} does not end with a line of this log`
    })
  }
  return { seq: parsed.seq, mac: parsed.mac }
})

/** What a checkpoint says: the log had a line with this number and this proof. */
export const encodeCheckpoint = (time: number, { mac, seq }: Head): string =>
  JSON.stringify({ version: 1, kind: "checkpoint", time, last: seq, head: mac })

/** Reads the line of a checkpoint that has been proved to be one. */
export const decodeCheckpoint = (line: string): Head => {
  // Its proof says that `encodeCheckpoint` has made it.
  const { head, last } = JSON.parse(line) as { readonly head: string; readonly last: number }
  return { seq: last, mac: head }
}

/** What a crash had left, and where it is now. */
export interface Repair {
  readonly file: "log" | "checkpoints"
  readonly bytes: number
  readonly aside: string
}

export interface Resumed {
  readonly file: ChainFile
  readonly checkpoints: ChainFile
  readonly checkpointed: number
  readonly repairs: ReadonlyArray<Repair>
}

/** Opens the log and its checkpoints at their ends. */
export const resume = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  paths: { readonly path: string; readonly checkpointPath: string },
  chain: Chain,
  checkpointChain: Chain
): Effect.fn.Return<Resumed, Disk.FileProblem> {
  const { checkpointPath, path } = paths
  if (yield* isSame(fs, path, checkpointPath)) {
    return yield* Effect.fail<Disk.FileProblem>({
      kind: "unsafe",
      detail: `${path} and ${checkpointPath} are one file`
    })
  }
  const marks = yield* contentsOf(fs, checkpointPath, checkpointChain, { seq: 0, mac: undefined }, () => undefined)
  const mark = marks.head === undefined ? undefined : decodeCheckpoint(marks.lastLine)
  const asides = yield* Disk.rotated(fs, path)
  const last = asides.at(-1)
  const before = last === undefined ? undefined : yield* Effect.scoped(endOf(fs, last.path, chain))
  const speaksOf = (head: Head): string | undefined =>
    mark !== undefined && head.seq === mark.seq && head.mac !== mark.mac
      ? "is not the one that the last checkpoint speaks of"
      : undefined
  const log = yield* contentsOf(fs, path, chain, before, speaksOf)
  const oldest = asides[0]
  const known = oldest !== undefined
    ? yield* Effect.scoped(idIn(fs, oldest, chain))
    : log.firstSeq === 1 && log.firstPrev !== undefined
    ? idOf(log.firstPrev)
    : undefined
  const marked = marks.firstPrev === undefined ? undefined : idOf(marks.firstPrev)
  if (known !== undefined && marked !== undefined && known !== marked) {
    const detail = `${checkpointPath} has the checkpoints of another log than ${path}`
    return yield* Effect.fail<Disk.FileProblem>({ kind: "damaged", detail })
  }
  const id = known ?? marked ?? makeId()
  const head = log.head ?? before ?? chain.genesis(id)
  if (mark !== undefined && head.seq < mark.seq) {
    const detail = `${path} ends with line ${head.seq}, and the last checkpoint speaks of line ${mark.seq}`
    return yield* Effect.fail<Disk.FileProblem>({ kind: "damaged", detail })
  }
  const repairs: Array<Repair> = []
  for (
    const [name, at, { goodBytes, isUnended, tornBytes }] of [["log", path, log], [
      "checkpoints",
      checkpointPath,
      marks
    ]] as const
  ) {
    if (isUnended) yield* Effect.scoped(endLine(fs, at, goodBytes))
    if (tornBytes > 0) repairs.push({ file: name, ...yield* Effect.scoped(moveTornAside(fs, at, goodBytes)) })
  }
  const file = yield* ChainFile.open(fs, chain, {
    path,
    head,
    firstSeq: log.firstSeq ?? head.seq + 1,
    size: log.goodBytes
  })
  const checkpoints = yield* Effect.onError(
    ChainFile.open(fs, checkpointChain, {
      path: checkpointPath,
      head: marks.head ?? checkpointChain.genesis(id),
      firstSeq: 1,
      size: marks.goodBytes
    }),
    () => file.close
  )
  return { file, checkpoints, checkpointed: mark?.seq ?? 0, repairs }
})

const isSame = (fs: FileSystem.FileSystem, one: string, other: string): Effect.Effect<boolean, Disk.FileProblem> =>
  Effect.zipWith(Disk.look(fs, one), Disk.look(fs, other), (a, b) => {
    if (a === undefined || b === undefined) return false
    const ino = Option.getOrUndefined(a.ino)
    return ino !== undefined && ino === Option.getOrUndefined(b.ino) && a.dev === b.dev
  })
