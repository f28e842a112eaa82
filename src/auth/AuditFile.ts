/**
 * The audit log as a file, and what checks such a file: `AuditLog.layerFile` and `AuditLog.verify`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Check from "../internal/options.ts"
import { AuditError, SinkFailed, Unusable } from "./AuditError.ts"
import * as Chain from "./internal/auditChain.ts"
import { checkpointsPath, type FileProblem } from "./internal/auditDisk.ts"
import { LogFile, type Settings } from "./internal/auditLogFile.ts"
import { open, resolve } from "./internal/auditOpen.ts"
import { toPayload } from "./internal/auditPayload.ts"
import { AuditLog, optionNames, type Options } from "./internal/auditService.ts"
import * as Verify from "./internal/auditVerify.ts"

/**
 * How lines are proved.
 *
 * - `hmac-sha256` (RFC 2104): by a secret of at least 32 bytes. Who can check a log can forge it.
 * - `ed25519` (RFC 8032): by a private key in PEM form (PKCS #8). A log is checked with the public key (SPKI). A line takes
 *   some 50 us, where the secret takes one.
 *
 * @category models
 * @since 0.1.0
 */
export type Algorithm = Chain.Algorithm

/**
 * What `layerFile` takes, beside what every log takes.
 *
 * - `path`: the file. Its folder must exist. It is made with mode 0600, and refused when others than its owner may get at it.
 * - `key`, `algorithm`: what lines are proved with. Default `hmac-sha256`.
 * - `rotation`: when the file is given a name of its own and the next one begun. `maxBytes`: its size, which one batch may
 *   exceed; a whole number from 1, default 100 MiB. `maxAge`: its age by the wall clock; default infinite.
 * - `checkpoints`: how often the state of the log is written to a second file. `every`: after how many records, a whole number
 *   from 1; default 1,000. `interval`: after which time, when there are new records; default 1 minute. `path`: default
 *   `<path>.checkpoints`.
 *
 * @category options
 * @since 0.1.0
 */
export interface FileOptions extends Options {
  readonly path: string
  readonly key: Redacted.Redacted<string>
  readonly algorithm?: Algorithm | undefined
  readonly rotation?: {
    readonly maxBytes?: number | undefined
    readonly maxAge?: Duration.Input | undefined
  } | undefined
  readonly checkpoints?: {
    readonly every?: number | undefined
    readonly interval?: Duration.Input | undefined
    readonly path?: string | undefined
  } | undefined
}

const pathOf = (where: string, name: string, path: unknown): string => {
  if (typeof path !== "string" || path.length === 0 || path.includes("\0")) {
    throw new TypeError(`${where}: ${name} must be a path, a non-empty string`)
  }
  return path
}

// Tells nothing of the key, not even what is wrong with a PEM.
const checkKey = (where: string, key: unknown, algorithm: Algorithm, canProve: boolean): Redacted.Redacted<string> => {
  if (!Redacted.isRedacted(key)) throw new TypeError(`${where}: key must be Redacted`)
  const value = Redacted.value(key)
  if (typeof value !== "string") throw new TypeError(`${where}: key must be a Redacted string`)
  const redacted = key as Redacted.Redacted<string>
  if (algorithm === "hmac-sha256") {
    if (new TextEncoder().encode(value).length >= 32) return redacted
    throw new RangeError(`${where}: key must have at least 32 bytes`)
  }
  try {
    const chain = Chain.make(algorithm, redacted, "log")
    if (canProve) chain.lines(chain.genesis(""), [`{"version":1}`])
  } catch {
    throw new TypeError(`${where}: key must be an Ed25519 ${canProve ? "private " : ""}key in PEM form`)
  }
  return redacted
}

const algorithmOf = (where: string, algorithm: Algorithm | undefined): Algorithm =>
  Check.oneOf(where, "algorithm", algorithm ?? "hmac-sha256", ["hmac-sha256", "ed25519"])

const resolveFile = (where: string, options: FileOptions): Settings & { readonly checkpointMillis: number } => {
  Check.known(where, options, [...optionNames, "path", "key", "algorithm", "rotation", "checkpoints"])
  const { checkpoints = {}, rotation = {} } = options
  Check.known(`${where}: rotation`, rotation, ["maxBytes", "maxAge"])
  Check.known(`${where}: checkpoints`, checkpoints, ["every", "interval", "path"])
  const path = pathOf(where, "path", options.path)
  const algorithm = algorithmOf(where, options.algorithm)
  const checkpointPath = pathOf(where, "checkpoints.path", checkpoints.path ?? checkpointsPath(path))
  if (checkpointPath === path) throw new RangeError(`${where}: checkpoints.path must not be the path of the log`)
  return {
    path,
    key: checkKey(where, options.key, algorithm, true),
    algorithm,
    maxBytes: Check.integer(where, "rotation.maxBytes", rotation.maxBytes ?? 100 * 1024 * 1024, 1),
    maxAgeMillis: Check.millis(where, "rotation.maxAge", rotation.maxAge ?? Infinity, { allowInfinite: true }),
    checkpointEvery: Check.integer(where, "checkpoints.every", checkpoints.every ?? 1000, 1),
    checkpointMillis: Check.millis(where, "checkpoints.interval", checkpoints.interval ?? "1 minute"),
    checkpointPath
  }
}

const unusable = ({ cause, detail }: FileProblem): AuditError =>
  new AuditError({ reason: new Unusable({ problem: detail, ...(cause === undefined ? {} : { cause }) }) })

const failed = (problem: FileProblem): AuditError =>
  problem.kind === "unavailable"
    ? new AuditError({ reason: new SinkFailed({ cause: problem.cause }) })
    : unusable(problem)

const openFile = (
  where: string,
  options: FileOptions
): Effect.Effect<AuditLog["Service"], AuditError, FileSystem.FileSystem | Scope.Scope> => {
  const settings = resolveFile(where, options)
  const common = resolve(where, options)
  return Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = yield* Effect.mapError(LogFile.open(fs, settings), unusable)
    yield* Effect.forkScoped(Effect.forever(Effect.delay(file.checkpoint, settings.checkpointMillis)))
    return yield* open(common, { write: (records) => Effect.mapError(file.append(records.map(toPayload)), failed) })
  })
}

/**
 * Provides a log in a file, of which no line can be changed, taken away or put in without `verify` finding it.
 *
 * **Details**
 *
 * A line is the record's JSON with a number without gaps (`seq`), the proof of the line before it (`prev`), and a proof over
 * all of that (`mac`). Checkpoints say in a second file how far the log has come, so that its end cannot be cut off. Records
 * that wait together are written and synced together, and acknowledged when they are on the disk. What cannot be synced is
 * taken back out of the file.
 *
 * A file that is full or old is renamed to `<path>.<seq of its first line>`, and the next one goes on where it ends.
 *
 * What the first line has for the line before it is the log's id, a random number which checkpoints have too: `verify` tells
 * it, and when it is told which one to expect knows a log that was replaced by another with the same key.
 *
 * At the start everything in the newest file is checked. What a crash has left of an unfinished line is moved to
 * `<path>.torn-<time>` and told in a record of kind `repaired`. A whole line that lacks nothing but its end gets it. Where
 * there is a line of this log in what looks torn, which no crash leaves, and where there is anything else that the log has not written,
 * the layer fails with `Unusable`. So it does when another process writes to the file, when the path is a link, a folder or a
 * pipe, or when others than the file's owner may read it.
 *
 * **Gotchas**
 *
 * - Who can write to both files and has the key can forge them, and who can delete both can take the end off. Copy
 *   checkpoints to where the program cannot write, or have them there (`checkpoints.path`).
 * - A record that takes more than 256 KiB is shortened: its texts are cut, and the named fields left out.
 * - A writer says that it is there by a link beside the file, `<path>.lock.*`, and one beside the checkpoints: both folders
 *   must be able to hold links, and no two logs can have one file of checkpoints. Where a write hangs when the log is closed,
 *   the links stay until it has ended. That of a process which was killed is removed
 *   when it is certain that it is gone: on the same machine, in the same container, or before a restart of the machine. Of
 *   a process elsewhere it must be removed by hand; the error says which. It is no protection on network file systems.
 * - A folder's new names are made durable where the platform allows it, and a link is refused in one step with opening the
 *   file only where the platform can; elsewhere it is looked for before and after. Links in the folders above are followed.
 *   Windows has neither, nor modes.
 * - Other tools that rotate the file break it. Files that were rotated may be moved away, oldest first and all but the newest
 *   of them: say `firstSeq` to `verify` then.
 * - A write that takes longer than `writeTimeout` is not taken back: its records count as lost, and may be there all the same.
 *
 * **Example** (Writing to a file, and checking it)
 *
 * ```ts
 * import { NodeFileSystem } from "@effect/platform-node"
 * import { Effect, FileSystem, Layer, Redacted } from "effect"
 * import { ToolMeta, ToolPipeline } from "effect-toolops"
 * import { AuditLog, Authenticator, AuthMiddleware, Authorizer } from "effect-toolops/auth"
 *
 * const key = Redacted.make("a secret of at least 32 bytes, kept apart from the log")
 *
 * const program = Effect.gen(function*() {
 *   const fs = yield* FileSystem.FileSystem
 *   const path = `${yield* fs.makeTempDirectoryScoped()}/audit.log`
 *   const Auth = AuthMiddleware.layer.pipe(
 *     Layer.provide([
 *       Authenticator.layerAnonymous,
 *       Authorizer.layerAllowAll,
 *       AuditLog.layerFile({ path, key, mode: "required" })
 *     ])
 *   )
 *   yield* Effect.gen(function*() {
 *     const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
 *     yield* pipeline.run({ tool: ToolMeta.make({ name: "echo" }), input: "hi" }, Effect.succeed("hi"))
 *   }).pipe(Effect.provide(Auth))
 *
 *   const before = yield* AuditLog.verify(path, { key })
 *   yield* fs.writeFileString(path, (yield* fs.readFileString(path)).replace("echo", "eval"))
 *   const after = yield* AuditLog.verify(path, { key })
 *   return [before.records, before.bad, after.bad?.line, after.bad?.problem]
 * }).pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer))
 *
 * await Effect.runPromise(program) // => [2, undefined, 1, "changed"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerFile = (options: FileOptions): Layer.Layer<AuditLog, AuditError, FileSystem.FileSystem> =>
  Layer.effect(AuditLog, openFile("AuditLog.layerFile", options))

/**
 * Provides `layerFile` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerFileConfig = (
  options: Config.Wrap<FileOptions>
): Layer.Layer<AuditLog, AuditError | Config.ConfigError, FileSystem.FileSystem> =>
  Layer.effect(
    AuditLog,
    Effect.flatMap(Config.unwrap(options), (given) => openFile("AuditLog.layerFileConfig", given))
  )

/**
 * What `verify` takes.
 *
 * - `key`, `algorithm`: as the log was written with; of `ed25519` the public key. Default `hmac-sha256`.
 * - `checkpoints`: the file of checkpoints, or `false` to do without: then lines that were cut off the end are not found.
 *   Default `<path>.checkpoints`, which must exist.
 * - `logId`: the id that the log must have, as an earlier report has told it. Without it, a log that was replaced by another
 *   one of the same key, together with its checkpoints, is good.
 * - `firstSeq`: the number of the first line, where older files have been moved away. Default 1.
 * - `onProgress`: told after each piece how many bytes of how many have been read.
 *
 * @category options
 * @since 0.1.0
 */
export interface VerifyOptions {
  readonly key: Redacted.Redacted<string>
  readonly algorithm?: Algorithm | undefined
  readonly checkpoints?: string | false | undefined
  readonly logId?: string | undefined
  readonly firstSeq?: number | undefined
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => Effect.Effect<void>) | undefined
}

/**
 * Checks a log with all files that its rotation has put aside, and finds the first bad line and what is wrong with it. Takes
 * the same memory for a log of any size. A log without any line is bad, as `empty`, where there are checkpoints to expect or a
 * `logId`: nothing tells it from one that was emptied together with its checkpoints. Fails with `Unusable` when a file cannot be read.
 *
 * **Gotchas**
 *
 * A log may be checked while it is being written. Should it end in the middle of a line just then, that line is `torn`.
 *
 * @category checking
 * @since 0.1.0
 */
export const verify = (
  path: string,
  options: VerifyOptions
): Effect.Effect<Verify.Report, AuditError, FileSystem.FileSystem> => {
  const where = "AuditLog.verify"
  Check.known(where, options, ["key", "algorithm", "checkpoints", "logId", "firstSeq", "onProgress"])
  const algorithm = algorithmOf(where, options.algorithm)
  const { checkpoints, logId } = options
  if (logId !== undefined && !Chain.isId(logId)) {
    throw new TypeError(`${where}: logId must be 32 hexadecimal digits in lower case`)
  }
  const request = {
    path: pathOf(where, "path", path),
    key: checkKey(where, options.key, algorithm, false),
    algorithm,
    checkpointPath: checkpoints === false
      ? undefined
      : pathOf(where, "checkpoints", checkpoints ?? checkpointsPath(path)),
    logId,
    firstSeq: Check.integer(where, "firstSeq", options.firstSeq ?? 1, 1),
    onProgress: options.onProgress ?? (() => Effect.void)
  }
  return Effect.flatMap(
    FileSystem.FileSystem,
    (fs) => Effect.mapError(Effect.scoped(Verify.verify(fs, request)), unusable)
  )
}
