import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type AuditRecord, version } from "../AuditRecord.ts"
import * as Chain from "./auditChain.ts"
import { ChainFile } from "./auditChainFile.ts"
import type * as Disk from "./auditDisk.ts"
import { type Lock, lockOf } from "./auditFileLock.ts"
import { encodeCheckpoint, type Repair, resume } from "./auditFileResume.ts"

// The log file with its rotated files and its checkpoints: what is written, and how writing is taken up again after the
// process that did it has ended in whatever way.

export interface Settings {
  readonly path: string
  readonly key: Redacted.Redacted
  readonly algorithm: Chain.Algorithm
  readonly maxBytes: number
  readonly maxAgeMillis: number
  readonly checkpointPath: string
  readonly checkpointEvery: number
}

/** How long closing waits for a write that does not end. */
const closeMillis = 5000

/** A checkpoint that could not be written is tried again no sooner than this. */
const retryMillis = 1000

// What the log has to say of itself is a record too.
const encodeRepair = (time: number, { aside, bytes, file }: Repair): string => {
  const about: AuditRecord = {
    version,
    kind: "repaired",
    callId: "",
    time,
    offsetMillis: 0,
    tool: { id: "_other", action: "" },
    count: bytes
  }
  return JSON.stringify({ ...about, file, aside })
}

export class LogFile {
  readonly #fs: FileSystem.FileSystem
  readonly #settings: Settings
  readonly #chain: Chain.Chain
  readonly #checkpointChain: Chain.Chain
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  #file: ChainFile | undefined
  #checkpoints: ChainFile | undefined
  /** The last line that a checkpoint speaks of. */
  #checkpointed = 0
  #failedAt = -Infinity

  private constructor(fs: FileSystem.FileSystem, settings: Settings) {
    this.#fs = fs
    this.#settings = settings
    this.#chain = Chain.make(settings.algorithm, settings.key, "log")
    this.#checkpointChain = Chain.make(settings.algorithm, settings.key, "checkpoints")
  }

  /** Becomes the file's one writer until the scope closes, and takes the log up where it ends. */
  static open(fs: FileSystem.FileSystem, settings: Settings): Effect.Effect<LogFile, Disk.FileProblem, Scope.Scope> {
    return Effect.gen(function*() {
      const log = new LogFile(fs, settings)
      const locks = [lockOf(fs, settings.path), lockOf(fs, settings.checkpointPath)]
      yield* Effect.addFinalizer(() => log.#end(locks))
      for (const lock of locks) yield* lock.acquire
      yield* log.#takeUp
      return log
    })
  }

  /**
   * Writes payloads as lines, and returns when they are on the disk. Cannot be interrupted: a write that was given up would
   * go on in the operating system, and meet the next one there.
   */
  append(payloads: ReadonlyArray<string>): Effect.Effect<void, Disk.FileProblem> {
    return this.#alone(Effect.flatMap(this.#current, (file) =>
      Effect.andThen(
        file.append(payloads),
        Effect.suspend(() =>
          file.head.seq - this.#checkpointed >= this.#settings.checkpointEvery ? this.#checkpoint : Effect.void
        )
      )))
  }

  /** Writes a checkpoint when there are lines that none speaks of. Not being able to is told in the program's log only. */
  get checkpoint(): Effect.Effect<void> {
    return this.#alone(this.#checkpoint)
  }

  #alone<A, E>(operation: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return this.#oneAtATime.withPermit(Effect.uninterruptible(operation))
  }

  get #current(): Effect.Effect<ChainFile, Disk.FileProblem> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const file = this.#file
      if (file === undefined || file.isBroken || this.#checkpoints?.isBroken === true) return this.#takeUp
      const { maxAgeMillis, maxBytes } = this.#settings
      const isDue = file.size > 0 && (file.size >= maxBytes || now - file.madeAt >= maxAgeMillis)
      return isDue ? this.#rotate(file) : Effect.succeed(file)
    })
  }

  #rotate(file: ChainFile): Effect.Effect<ChainFile, Disk.FileProblem> {
    const { head, path } = file
    return this.#checkpoint.pipe(
      Effect.andThen(file.putAside),
      Effect.andThen(ChainFile.open(this.#fs, this.#chain, { path, head, firstSeq: head.seq + 1, size: 0 })),
      Effect.tap((next) =>
        Effect.sync(() => {
          this.#file = next
        })
      )
    )
  }

  get #checkpoint(): Effect.Effect<void> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const [file, checkpoints] = [this.#file, this.#checkpoints]
      if (file === undefined || checkpoints === undefined || file.head.seq <= this.#checkpointed) return Effect.void
      // After one that failed, others do so too for a while.
      if (Math.abs(now - this.#failedAt) < retryMillis) return Effect.void
      const { head } = file
      return Effect.matchEffect(checkpoints.append([encodeCheckpoint(now, head)]), {
        onFailure: ({ cause, detail }) => {
          this.#failedAt = now
          return Effect.logWarning(`effect-toolops: the audit log has no checkpoint: ${detail}`, cause)
        },
        onSuccess: () => {
          this.#checkpointed = head.seq
          return Effect.void
        }
      })
    })
  }

  // Reads what is there before it writes anything, and refuses what a writer cannot have left.
  get #takeUp(): Effect.Effect<ChainFile, Disk.FileProblem> {
    return Effect.gen({ self: this }, function*() {
      yield* this.#close
      const resumed = yield* resume(this.#fs, this.#settings, this.#chain, this.#checkpointChain)
      this.#file = resumed.file
      this.#checkpoints = resumed.checkpoints
      this.#checkpointed = resumed.checkpointed
      const now = yield* Clock.currentTimeMillis
      if (resumed.repairs.length > 0) {
        yield* this.#file.append(resumed.repairs.map((repair) => encodeRepair(now, repair)))
      }
      return this.#file
    })
  }

  // A write that does not end keeps its files open and locked, and this goes on behind the scope that has closed: another
  // writer would meet that write in the middle of its own.
  #end(locks: ReadonlyArray<Lock>): Effect.Effect<void> {
    return Effect.suspend(() => {
      // The last checkpoint is worth a try at once.
      this.#failedAt = -Infinity
      const release = Effect.forEach(locks, (lock) => lock.release, { discard: true })
      const end = Effect.ensuring(this.#alone(Effect.andThen(this.#checkpoint, this.#close)), release)
      return Effect.flatMap(
        Effect.forkDetach(end),
        (fiber) => Fiber.await(fiber).pipe(Effect.interruptible, Effect.timeoutOption(closeMillis), Effect.asVoid)
      )
    })
  }

  get #close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const open = [this.#file, this.#checkpoints].filter((file) => file !== undefined)
      this.#file = undefined
      this.#checkpoints = undefined
      return Effect.forEach(open, (file) => file.close, { discard: true })
    })
  }
}
