import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Scope from "effect/Scope"
import { type Chain, type Head, LineSplitter, maxLineBytes, mayBeTorn } from "./auditChain.ts"
import { ChainFile } from "./auditChainFile.ts"
import * as Disk from "./auditDisk.ts"

// How a log is taken up again. Everything is read before anything is written. What a crash can have left is put right;
// anything else is refused, because to write on would be to cover up for whoever did it.

/** What is in a file of a chain, up to its end or to the first thing that is no line of it. */
export interface Contents {
  /** The last line, or `undefined` when there is none. */
  readonly head: Head | undefined
  readonly firstSeq: number | undefined
  /** The bytes of the lines, with their ends. */
  readonly goodBytes: number
  /** The bytes after them, which are what a crash has left of a line. */
  readonly tornBytes: number
  /** The text of the last line. */
  readonly lastLine: string
}

/** Follows the lines of a file that is to be gone on with. */
class Follower {
  readonly #chain: Chain
  readonly #after: Head | undefined
  readonly #onLine: (head: Head) => string | undefined
  readonly splitter = new LineSplitter((line, isWhole) => this.#follow(line, isWhole))
  head: Head | undefined
  firstSeq: number | undefined
  goodBytes = 0
  /** What is wrong, and with which line. */
  problem: string | undefined
  #lines = 0
  #lastLine = new Uint8Array(0)
  #lastLength = 0

  constructor(chain: Chain, after: Head | undefined, onLine: (head: Head) => string | undefined) {
    this.#chain = chain
    this.#after = after
    this.#onLine = onLine
  }

  get lastLine(): string {
    return new TextDecoder().decode(this.#lastLine.subarray(0, this.#lastLength))
  }

  end(): void {
    const { isDropZero, rest } = this.splitter
    if (this.problem !== undefined || rest.length === 0) return
    const follows = this.head ?? this.#after ?? this.#chain.genesis
    if (isDropZero && mayBeTorn(follows, rest)) return
    this.problem = `line ${this.#lines + 1} is no line of this log, and not the beginning of one`
  }

  #follow(line: Uint8Array, isWhole: boolean): void {
    if (this.problem !== undefined) return
    this.#lines++
    const parsed = isWhole ? this.#chain.parse(line) : undefined
    const before = this.head ?? this.#after
    const isNext = parsed !== undefined &&
      (before === undefined || (parsed.seq === before.seq + 1 && parsed.prev === before.mac))
    if (parsed === undefined || !isNext || !this.#chain.isGenuine(line, parsed)) {
      this.problem = `line ${this.#lines} is not the next line of this log`
      return
    }
    const head = { seq: parsed.seq, mac: parsed.mac }
    const contradiction = this.#onLine(head)
    if (contradiction !== undefined) {
      this.problem = `line ${this.#lines} ${contradiction}`
      return
    }
    this.head = head
    this.firstSeq ??= head.seq
    this.goodBytes += line.length + 1
    if (line.length > this.#lastLine.length) this.#lastLine = new Uint8Array(line.length * 2)
    this.#lastLine.set(line)
    this.#lastLength = line.length
  }
}

/**
 * Reads a file that is to be gone on with. Its first line is taken by its proof alone, unless `after` says what it follows;
 * every other line must follow the one before it. `onLine` may find more that is wrong.
 */
const readContents = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  path: string,
  chain: Chain,
  after: Head | undefined,
  onLine: (head: Head) => string | undefined
): Effect.fn.Return<Contents, Disk.FileProblem> {
  const follower = new Follower(chain, after, onLine)
  let size = 0
  yield* Effect.scoped(Effect.flatMap(Disk.open(fs, path, "r"), ({ file }) =>
    Disk.readAll(file, path, (bytes) => {
      size += bytes.length
      follower.splitter.push(bytes)
      return follower.problem === undefined
    })))
  follower.end()
  if (follower.problem !== undefined) {
    return yield* Effect.fail<Disk.FileProblem>({ kind: "damaged", detail: `${path}: ${follower.problem}` })
  }
  const { firstSeq, goodBytes, head, lastLine } = follower
  return { head, firstSeq, goodBytes, tornBytes: size - goodBytes, lastLine }
})

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
  const marks = yield* contentsOf(
    fs,
    checkpointPath,
    checkpointChain,
    checkpointChain.genesis,
    () => undefined
  )
  const mark = marks.head === undefined ? undefined : decodeCheckpoint(marks.lastLine)
  const asides = yield* Disk.rotated(fs, path)
  const last = asides.at(-1)
  const before = last === undefined ? undefined : yield* Effect.scoped(endOf(fs, last.path, chain))
  const speaksOf = (head: Head): string | undefined =>
    mark !== undefined && head.seq === mark.seq && head.mac !== mark.mac
      ? "is not the one that the last checkpoint speaks of"
      : undefined
  const log = yield* contentsOf(fs, path, chain, before, speaksOf)
  const head = log.head ?? before ?? chain.genesis
  if (mark !== undefined && head.seq < mark.seq) {
    const detail = `${path} ends with line ${head.seq}, and the last checkpoint speaks of line ${mark.seq}`
    return yield* Effect.fail<Disk.FileProblem>({ kind: "damaged", detail })
  }
  const repairs: Array<Repair> = []
  for (
    const [name, at, { goodBytes, tornBytes }] of [["log", path, log], ["checkpoints", checkpointPath, marks]] as const
  ) {
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
      head: marks.head ?? checkpointChain.genesis,
      firstSeq: 1,
      size: marks.goodBytes
    }),
    () => file.close
  )
  return { file, checkpoints, checkpointed: mark?.seq ?? 0, repairs }
})

const contentsOf = (
  fs: FileSystem.FileSystem,
  path: string,
  chain: Chain,
  after: Head | undefined,
  onLine: (head: Head) => string | undefined
): Effect.Effect<Contents, Disk.FileProblem> =>
  Effect.flatMap(
    Disk.look(fs, path),
    (info) => info === undefined ? Effect.succeed(nothing) : readContents(fs, path, chain, after, onLine)
  )

const nothing: Contents = { head: undefined, firstSeq: undefined, goodBytes: 0, tornBytes: 0, lastLine: "" }
