import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Chain from "./auditChain.ts"
import { Diagnosis, type Place, type Problem } from "./auditDiagnosis.ts"
import * as Disk from "./auditDisk.ts"
import { decodeCheckpoint } from "./auditFileResume.ts"

/**
 * The first thing that is wrong with a log. `line` is counted from 1 in the file `path`, `seq` is the number that the line
 * there should have.
 *
 * @category models
 * @since 0.1.0
 */
export interface BadLine {
  readonly path: string
  readonly line: number
  readonly seq: number
  readonly problem: Problem
}

/**
 * What was found. `records`, `files`, `checkpoints`: how many are good, up to the first bad line if there is one. `lastSeq`:
 * the number of the last good line, 0 when there is none. `logId`: what tells the log apart from others with the same key;
 * absent when neither its first line nor a checkpoint is there. `bad`: absent from the report of a good log.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly records: number
  readonly files: number
  readonly checkpoints: number
  readonly lastSeq: number
  readonly logId?: string
  readonly bad?: BadLine
}

/** @internal */
export interface Request {
  readonly path: string
  readonly key: Redacted.Redacted
  readonly algorithm: Chain.Algorithm
  readonly checkpointPath: string | undefined
  readonly firstSeq: number
  readonly logId: string | undefined
  readonly onProgress: (doneBytes: number, totalBytes: number) => Effect.Effect<void>
}

interface Mark {
  readonly head: Chain.Head
  readonly place: Place
}

/** Reads checkpoints as far as they are needed. Holds those of one piece of their file. */
class Marks {
  readonly #file: FileSystem.File
  readonly #path: string
  readonly #end: bigint
  readonly #splitter: Chain.LineSplitter
  readonly diagnosis: Diagnosis
  #position = 0n
  #pending: Array<Mark> = []
  #lines = 0
  last = 0
  /** The id of the log that they speak of. */
  logId: string | undefined

  // What is appended while the log is being read would speak of lines that have been missed.
  constructor(file: FileSystem.File, path: string, size: bigint, chain: Chain.Chain, start: Chain.Start) {
    this.#file = file
    this.#path = path
    this.#end = size
    this.diagnosis = new Diagnosis(chain, start, ({ prev }, place, line) => {
      this.logId ??= Chain.idOf(prev)
      const head = decodeCheckpoint(new TextDecoder().decode(line))
      this.last = Math.max(this.last, head.seq)
      this.#pending.push({ head, place })
    })
    this.#splitter = new Chain.LineSplitter((line, isWhole) =>
      this.diagnosis.push(line, isWhole, { path, line: ++this.#lines })
    )
  }

  /** Hands out every checkpoint up to a line of the log. */
  takeUpTo(seq: number, onMark: (mark: Mark) => void): Effect.Effect<void, Disk.FileProblem> {
    return Effect.suspend(() => {
      const beyond = this.#pending.findIndex((mark) => mark.head.seq > seq)
      for (const mark of this.#pending.splice(0, beyond === -1 ? this.#pending.length : beyond)) onMark(mark)
      if (beyond !== -1 || this.#position >= this.#end) return Effect.void
      return Effect.flatMap(this.#read, () => this.takeUpTo(seq, onMark))
    })
  }

  get bad(): BadLine | undefined {
    const { diagnosis } = this
    const problem = diagnosis.problem(0)
    const seq = diagnosis.seq + 1
    if (problem !== undefined && diagnosis.badPlace !== undefined) return { ...diagnosis.badPlace, seq, problem }
    const isTorn = this.#splitter.rest.length > 0
    return isTorn ? { path: this.#path, line: this.#lines + 1, seq, problem: "torn" } : undefined
  }

  get #read(): Effect.Effect<void, Disk.FileProblem> {
    return Effect.suspend(() => {
      const left = this.#end - this.#position
      const buffer = new Uint8Array(left < pieceBytes ? Number(left) : pieceBytes)
      return Effect.map(
        Effect.mapError(
          this.#file.read(buffer, { position: this.#position }),
          Disk.unavailable(`${this.#path} cannot be read`)
        ),
        (read) => {
          this.#position = read === 0 ? this.#end : this.#position + BigInt(read)
          this.#splitter.push(buffer.subarray(0, read))
        }
      )
    })
  }
}

const pieceBytes = 64 * 1024

/** Reads a log from its oldest file to its newest, and its checkpoints beside it. */
export const verify = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  request: Request
): Effect.fn.Return<Report, Disk.FileProblem, Scope.Scope> {
  const { algorithm, checkpointPath, firstSeq, key, path } = request
  const startOf = (chain: Chain.Chain): Chain.Start =>
    request.logId === undefined ? { seq: 0, mac: undefined } : chain.genesis(request.logId)
  const markChain = Chain.make(algorithm, key, "checkpoints")
  const marks = checkpointPath === undefined ? undefined : yield* Effect.map(
    openFor(fs, checkpointPath),
    ({ file, info }) => new Marks(file, checkpointPath, info.size, markChain, startOf(markChain))
  )
  const chain = Chain.make(algorithm, key, "log")
  // Of the piece that is being read, so that checkpoints can be held against it.
  const recent = new Map<number, { readonly mac: string; readonly place: Place }>()
  let logId: string | undefined
  const log = new Diagnosis(
    chain,
    firstSeq === 1 ? startOf(chain) : { seq: firstSeq - 1, mac: undefined },
    (head, place) => {
      if (head.seq === 1) logId = Chain.idOf(head.prev)
      if (marks !== undefined) recent.set(head.seq, { mac: head.mac, place })
    }
  )
  const contradicted: Array<BadLine> = []
  let checkpoints = 0
  const hold = (mark: Mark): void => {
    checkpoints++
    const line = recent.get(mark.head.seq)
    if (line === undefined || line.mac === mark.head.mac) return
    contradicted.push({ ...line.place, seq: mark.head.seq, problem: "spliced" })
  }

  const total = yield* totalBytes(fs, path)
  const buffer = new Uint8Array(Math.min(Math.max(total, 4096), 256 * 1024))
  let done = 0
  let lines = 0
  let end: { readonly place: Place; readonly isTorn: boolean } = { place: { path, line: 1 }, isTorn: false }
  const read = Effect.fnUntraced(function*(at: string, file: FileSystem.File, isLast: boolean) {
    lines = 0
    const splitter = new Chain.LineSplitter((line, isWhole) => log.push(line, isWhole, { path: at, line: ++lines }))
    let position = 0n
    for (;;) {
      const count = yield* Effect.mapError(file.read(buffer, { position }), Disk.unavailable(`${at} cannot be read`))
      if (count === 0) break
      position += BigInt(count)
      done += count
      splitter.push(buffer.subarray(0, count))
      if (marks !== undefined) yield* marks.takeUpTo(log.seq, hold)
      recent.clear()
      yield* request.onProgress(done, Math.max(total, done))
    }
    const hasRest = splitter.rest.length > 0
    // Only the newest file can have been cut off by a crash.
    if (hasRest && !isLast) log.push(splitter.rest, false, { path: at, line: ++lines })
    const isTorn = hasRest && isLast && log.badPlace === undefined
    end = { place: { path: at, line: lines + 1 }, isTorn }
  })

  const files = yield* eachFile(fs, path, read)
  const spokenOf = marks === undefined ? 0 : yield* Effect.map(
    marks.takeUpTo(Infinity, () => {}),
    () => marks.last
  )
  const known = logId ?? marks?.logId
  const report = {
    records: log.lines,
    files,
    checkpoints,
    lastSeq: log.lines === 0 ? 0 : log.seq,
    ...(known === undefined ? undefined : { logId: known })
  }
  // Who expects more than the file itself can tell expects that there is something.
  const isExpected = marks !== undefined || request.logId !== undefined
  const bad = contradicted[0] ?? badLine(log, end, spokenOf) ?? marks?.bad ??
    (isExpected && log.lines === 0 ? { ...end.place, seq: firstSeq, problem: "empty" as const } : undefined)
  return bad === undefined ? report : { ...report, bad }
})

const badLine = (
  log: Diagnosis,
  end: { readonly place: Place; readonly isTorn: boolean },
  spokenOf: number
): BadLine | undefined => {
  const seq = log.seq + 1
  const problem = log.problem(spokenOf)
  if (problem !== undefined && log.badPlace !== undefined) return { ...log.badPlace, seq, problem }
  if (spokenOf > log.seq) return { ...end.place, seq, problem: "truncated" }
  return end.isTorn ? { ...end.place, seq, problem: "torn" } : undefined
}

/** A log may be read that others than its owner can read, and through a link. Nothing but a plain file may be opened. */
const openFor = Effect.fnUntraced(function*(fs: FileSystem.FileSystem, path: string) {
  const failed = Disk.unavailable(`${path} cannot be opened`)
  const info = yield* Effect.mapError(fs.stat(path), failed)
  if (info.type !== "File") {
    return yield* Effect.fail<Disk.FileProblem>({ kind: "unsafe", detail: `${path} is not a plain file` })
  }
  const file = yield* Effect.mapError(fs.open(path, { flag: "r" }), failed)
  return { file, info: yield* Effect.mapError(file.stat, failed) }
})

const totalBytes = Effect.fnUntraced(function*(fs: FileSystem.FileSystem, path: string) {
  const paths = [...(yield* Disk.rotated(fs, path)).map((file) => file.path), path]
  const sizes = yield* Effect.forEach(
    paths,
    (each) => Effect.orElseSucceed(Effect.map(fs.stat(each), (info) => Number(info.size)), () => 0)
  )
  return sizes.reduce((sum, size) => sum + size, 0)
})

// A log that is being written may be rotated while it is being read.
const eachFile = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  path: string,
  read: (path: string, file: FileSystem.File, isLast: boolean) => Effect.Effect<void, Disk.FileProblem>
): Effect.fn.Return<number, Disk.FileProblem> {
  let last = ""
  let count = 0
  const nextRotated = Effect.map(Disk.rotated(fs, path), (files) => files.find((file) => file.path > last))
  const readRotated = Effect.fnUntraced(function*(next: { readonly path: string }) {
    last = next.path
    count++
    yield* Effect.scoped(Effect.flatMap(openFor(fs, next.path), ({ file }) => read(next.path, file, false)))
  })
  for (;;) {
    const next = yield* nextRotated
    if (next !== undefined) {
      yield* readRotated(next)
      continue
    }
    const isDone = yield* Effect.scoped(Effect.gen(function*() {
      const newest = yield* Effect.result(openFor(fs, path))
      if ((yield* nextRotated) !== undefined) return false
      if (Result.isSuccess(newest)) {
        count++
        yield* read(path, newest.success.file, true)
        return true
      }
      // Between rotating and making the next file there is none: it may be there by now, or a process was killed there.
      const there = yield* Disk.look(fs, path)
      if (there === undefined && count > 0) return true
      if (there?.type === "File" && newest.failure.isNotFound === true) return false
      return yield* Effect.fail(newest.failure)
    }))
    if (isDone) return count
  }
})
