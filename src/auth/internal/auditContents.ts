import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import {
  type Chain,
  type Head,
  holdsGenuine,
  isNext,
  isZero,
  LineSplitter,
  mayBeTorn,
  type Parsed,
  type Start
} from "./auditChain.ts"
import * as Disk from "./auditDisk.ts"

/** What is in a file of a chain, up to its end or to the first thing that is no line of it. */
export interface Contents {
  /** The last line, or `undefined` when there is none. */
  readonly head: Head | undefined
  readonly firstSeq: number | undefined
  /** The bytes of the lines, with their ends. */
  readonly goodBytes: number
  /** The bytes after them, which are what a crash has left of a line. */
  readonly tornBytes: number
  /** Whether the last line lacks its end, which `goodBytes` counts all the same. */
  readonly isUnended: boolean
  /** What the first line follows. */
  readonly firstPrev: string | undefined
  /** The text of the last line. */
  readonly lastLine: string
}

/** Follows the lines of a file that is to be gone on with. */
class Follower {
  readonly #chain: Chain
  readonly #after: Start | undefined
  readonly #onLine: (head: Head) => string | undefined
  readonly splitter = new LineSplitter((line, isWhole) => this.#follow(line, isWhole))
  head: Head | undefined
  firstSeq: number | undefined
  firstPrev: string | undefined
  goodBytes = 0
  isUnended = false
  /** What is wrong, and with which line. */
  problem: string | undefined
  #lines = 0
  #lastLine = new Uint8Array(0)
  #lastLength = 0

  constructor(chain: Chain, after: Start | undefined, onLine: (head: Head) => string | undefined) {
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
    const zero = rest.indexOf(0)
    const written = zero === -1 ? rest : rest.subarray(0, zero)
    const isZeroAfter = isDropZero && (zero === -1 || isZero(rest.subarray(zero)))
    if (isZeroAfter && this.#parseNext(written) !== undefined) {
      // A whole line may have been acknowledged, by who has then taken its end away.
      this.isUnended = true
      return this.#follow(written, true)
    }
    if (holdsGenuine(this.#chain, rest)) {
      this.problem = `line ${this.#lines + 1} holds a line of this log and more, which no crash leaves`
    } else if (!isDropZero || !mayBeTorn(this.head ?? this.#after ?? { seq: 0, mac: undefined }, rest)) {
      this.problem = `line ${this.#lines + 1} is no line of this log, and not the beginning of one`
    }
  }

  /** Reads a line that comes next and was made with the key. */
  #parseNext(line: Uint8Array): Parsed | undefined {
    const parsed = this.#chain.parse(line)
    const before = this.head ?? this.#after
    if (parsed === undefined || (before !== undefined && !isNext(before, parsed))) return undefined
    return this.#chain.isGenuine(line, parsed) ? parsed : undefined
  }

  #follow(line: Uint8Array, isWhole: boolean): void {
    if (this.problem !== undefined) return
    this.#lines++
    const parsed = isWhole ? this.#parseNext(line) : undefined
    if (parsed === undefined) {
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
    this.firstPrev ??= parsed.prev
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
  after: Start | undefined,
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
  const { firstPrev, firstSeq, goodBytes, head, isUnended, lastLine } = follower
  return { head, firstSeq, firstPrev, goodBytes, isUnended, tornBytes: isUnended ? 0 : size - goodBytes, lastLine }
})

/** What is in a file that may not be there. */
export const contentsOf = (
  fs: FileSystem.FileSystem,
  path: string,
  chain: Chain,
  after: Start | undefined,
  onLine: (head: Head) => string | undefined
): Effect.Effect<Contents, Disk.FileProblem> =>
  Effect.flatMap(
    Disk.look(fs, path),
    (info) => info === undefined ? Effect.succeed(nothing) : readContents(fs, path, chain, after, onLine)
  )

const nothing: Contents = {
  head: undefined,
  firstSeq: undefined,
  firstPrev: undefined,
  goodBytes: 0,
  isUnended: false,
  tornBytes: 0,
  lastLine: ""
}
