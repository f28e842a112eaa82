import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Chain, Head } from "./auditChain.ts"
import * as Disk from "./auditDisk.ts"

/** How far a file has come: the last line of the chain, the first line that the file has or will have, and its bytes. */
export interface Position {
  readonly path: string
  readonly head: Head
  readonly firstSeq: number
  readonly size: number
}

/**
 * A file of a chain that is being written. One write at a time.
 *
 * What cannot be written and synced as a whole is taken back, so that the file never holds what its writer was told had
 * failed. If it cannot be taken back either, the file is closed for good and has to be opened anew.
 */
export class ChainFile {
  readonly #fs: FileSystem.FileSystem
  readonly #chain: Chain
  readonly #scope: Scope.Closeable
  readonly #file: FileSystem.File
  readonly path: string
  head: Head
  /** The number of the first line that the file holds or will hold. */
  readonly firstSeq: number
  size: number
  /** When the file was made, by the wall clock. */
  readonly madeAt: number
  isBroken = false

  private constructor(
    fs: FileSystem.FileSystem,
    chain: Chain,
    scope: Scope.Closeable,
    file: FileSystem.File,
    { firstSeq, head, path, size }: Position,
    madeAt: number
  ) {
    this.#fs = fs
    this.#chain = chain
    this.#scope = scope
    this.#file = file
    this.path = path
    this.head = head
    this.firstSeq = firstSeq
    this.size = size
    this.madeAt = madeAt
  }

  /** Opens a file that is known to have come so far, or makes one. */
  static open(fs: FileSystem.FileSystem, chain: Chain, at: Position): Effect.Effect<ChainFile, Disk.FileProblem> {
    return Effect.flatMap(Scope.make(), (scope) =>
      Effect.onError(
        Effect.gen(function*() {
          const { file, info } = yield* Scope.provide(Disk.open(fs, at.path, "a"), scope)
          if (Number(info.size) !== at.size) {
            return yield* Effect.fail<Disk.FileProblem>({
              kind: "damaged",
              detail: `${at.path} was changed by another`
            })
          }
          if (at.size === 0) yield* Disk.syncFolder(fs, at.path)
          const made = Option.match(info.birthtime, { onNone: () => 0, onSome: (time) => time.getTime() })
          const now = yield* Clock.currentTimeMillis
          const madeAt = at.size > 0 && made > 0 ? Math.min(made, now) : now
          return new ChainFile(fs, chain, scope, file, at, madeAt)
        }),
        () => Scope.close(scope, Exit.void)
      ))
  }

  /** Writes payloads as lines, and returns when they are on the disk. */
  append(payloads: ReadonlyArray<string>): Effect.Effect<void, Disk.FileProblem> {
    return Effect.suspend(() => {
      const { bytes, head } = this.#chain.lines(this.head, payloads)
      return Effect.matchEffect(Effect.andThen(this.#file.writeAll(bytes), this.#file.sync), {
        onFailure: (error) =>
          Effect.andThen(this.#takeBack, Effect.fail(Disk.unavailable(`${this.path} cannot be written`)(error))),
        onSuccess: () => {
          this.head = head
          this.size += bytes.length
          return Effect.void
        }
      })
    })
  }

  /** Gives the file its name among the rotated ones, and closes it. */
  readonly putAside: Effect.Effect<void, Disk.FileProblem> = Effect.suspend(() => {
    const aside = Disk.rotatedPath(this.path, this.firstSeq)
    return Effect.flatMap(Disk.look(this.#fs, aside), (there) => {
      if (there !== undefined) {
        return Effect.fail<Disk.FileProblem>({
          kind: "damaged",
          detail: `${aside} exists, and must not be overwritten`
        })
      }
      return this.#fs.rename(this.path, aside).pipe(
        Effect.mapError(Disk.unavailable(`${this.path} cannot be renamed to ${aside}`)),
        Effect.andThen(Disk.syncFolder(this.#fs, this.path)),
        Effect.andThen(this.close)
      )
    })
  })

  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isBroken = true
    return Scope.close(this.#scope, Exit.void)
  })

  // A failed sync says nothing about which pages have got to the disk, and the next one would not try them again: so the
  // lines are cut off and written anew.
  readonly #takeBack: Effect.Effect<void> = Effect.suspend(() =>
    Effect.catch(
      Effect.andThen(this.#file.truncate(this.size), this.#file.sync),
      () => this.close
    )
  )
}
