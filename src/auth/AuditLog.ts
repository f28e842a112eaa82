/**
 * A record of every call that the auth stage sees: who called, what was decided, and what became of it.
 *
 * `AuthMiddleware.layer` writes it where it is given an `AuditLog`: everything that can become of a call happens inside of
 * that stage. A log is one of the layers here, or `layer` around a sink of your own. What a record holds is in `AuditRecord`.
 *
 * **What has no record.** A request that `HttpAuth` answers with 401 or 403 is no call: it ends at the edge, before the auth
 * stage, with no tool and often nobody to tell of. Take it from the access log of the HTTP server. Where refused credentials
 * must be in this log, let the auth stage find out who calls, without `HttpAuth` in front of it; or put an `Authenticator`
 * around yours that hands a record of each failure to `record`. The same holds for what a protocol refuses by itself: a
 * malformed request, a tool that does not exist.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Definition } from "../internal/metricSeries.ts"
import * as Check from "../internal/options.ts"
import { consoleSink } from "./internal/auditConsole.ts"
import * as Internal from "./internal/auditMemory.ts"
import { auditLag, auditQueued, auditTotal } from "./internal/auditMeter.ts"
import { open, resolve } from "./internal/auditOpen.ts"
import { AuditLog, optionNames, type Options, recordingNames, type Sink } from "./internal/auditService.ts"

export { layerFile, layerFileConfig, verify } from "./AuditFile.ts"
export type { Algorithm, FileOptions, VerifyOptions } from "./AuditFile.ts"
export type { Problem } from "./internal/auditDiagnosis.ts"
export { AuditLog } from "./internal/auditService.ts"
export type { Mode, Options, RecordingOptions, Sink, Stats } from "./internal/auditService.ts"
export type { BadLine, Report } from "./internal/auditVerify.ts"

/**
 * What `make` and `layer` take: where to write, and how.
 *
 * @category options
 * @since 0.1.0
 */
export interface SinkOptions extends Options, Sink {}

const openSink = (where: string, options: SinkOptions): Effect.Effect<AuditLog["Service"], never, Scope.Scope> => {
  Check.known(where, options, [...optionNames, "write"])
  if (typeof options.write !== "function") throw new TypeError(`${where}: write must be a function`)
  return open(resolve(where, options), options)
}

/**
 * Opens a log that writes to a sink of your own.
 *
 * **Details**
 *
 * Records wait in a bounded queue and are written in batches, one batch at a time. In `best-effort` mode no call ever waits
 * for the sink, whether it is slow, fails, dies or hangs; what cannot be written is counted, and told by a record of kind
 * `lost`: as soon as there is nothing else to write, or with the next record where the last write has failed. Closing tries
 * once more. In `required` mode a call waits for the acknowledgement of its decision, at most as long
 * as a write under way and its own may take, and is refused as `AuthUnavailable` when there is none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: SinkOptions): Effect.Effect<AuditLog["Service"], never, Scope.Scope> =>
  openSink("AuditLog.make", options)

/**
 * Provides a log that writes to a sink of your own. See `make`.
 *
 * **Example** (Writing lines)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { ToolMeta, ToolPipeline } from "effect-toolops"
 * import { AuditLog, AuditRecord, Authenticator, AuthMiddleware, Authorizer } from "effect-toolops/auth"
 *
 * const lines: Array<string> = []
 * const Audit = AuditLog.layer({
 *   write: (records) => Effect.sync(() => lines.push(...records.map(AuditRecord.toLine)))
 * })
 * const Auth = AuthMiddleware.layer.pipe(
 *   Layer.provide([Authenticator.layerAnonymous, Authorizer.layerAllowAll, Audit])
 * )
 *
 * const program = Effect.gen(function*() {
 *   const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
 *   yield* pipeline.run({ tool: ToolMeta.make({ name: "echo" }), input: "hi" }, Effect.succeed("hi"))
 * })
 *
 * // Closing the layer writes what is still to be written.
 * await Effect.runPromise(Effect.provide(program, Auth))
 * const record = await Effect.runPromise(AuditRecord.fromLine(lines[0] ?? ""))
 * const told = [record.tool.id, record.caller?.principal, record.outcome]
 * told // => ["echo", "anonymous", "ok"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: SinkOptions): Layer.Layer<AuditLog> =>
  Layer.effect(AuditLog, openSink("AuditLog.layer", options))

/**
 * Provides `layer` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (sink: Sink, options: Config.Wrap<Options>): Layer.Layer<AuditLog, Config.ConfigError> =>
  Layer.effect(
    AuditLog,
    Effect.flatMap(
      Config.unwrap(options),
      (given) => openSink("AuditLog.layerConfig", { ...given, write: sink.write })
    )
  )

/**
 * The metrics of logs that write in the background: records written and lost, how long they waited, and how many wait. They
 * go to the metrics of the program that opens the log.
 *
 * @category metrics
 * @since 0.1.0
 */
export const metrics: ReadonlyArray<Definition> = [auditTotal, auditLag, auditQueued]

/**
 * Provides no log, in so many words. A call costs nothing more than without an `AuditLog`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNone: Layer.Layer<AuditLog> = Layer.succeed(AuditLog, Internal.none)

/**
 * What `layerMemory` takes.
 *
 * - `maxRecords`: most records kept, a whole number from 1; the oldest goes first. Default 10,000.
 * - `mode`: default `best-effort`.
 *
 * @category options
 * @since 0.1.0
 */
export interface MemoryOptions extends Internal.MemoryOptions {}

/**
 * The records of `layerMemory`. `records`: oldest first. `clear`: forgets them.
 *
 * @category services
 * @since 0.1.0
 */
export class AuditMemory extends Context.Service<AuditMemory, Internal.Memory>()(
  "effect-toolops/auth/AuditLog/AuditMemory"
) {}

const openMemory = (where: string, options: MemoryOptions) => {
  Check.known(where, options, ["mode", "maxRecords", ...recordingNames])
  return Effect.map(
    Internal.openMemory(Internal.resolveMemory(where, options)),
    ({ log, memory }) => Context.add(Context.make(AuditLog, log), AuditMemory, memory)
  )
}

/**
 * Provides a log in memory and the way to read it, for tests and for looking at the last calls.
 *
 * **Gotchas**
 *
 * Two calls make two logs. It is gone with the process, in `required` mode too.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options: MemoryOptions = {}): Layer.Layer<AuditLog | AuditMemory> =>
  Layer.effectContext(openMemory("AuditLog.layerMemory", options))

/**
 * Provides `layerMemory` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryConfig = (
  options: Config.Wrap<MemoryOptions>
): Layer.Layer<AuditLog | AuditMemory, Config.ConfigError> =>
  Layer.effectContext(
    Effect.flatMap(Config.unwrap(options), (given) => openMemory("AuditLog.layerMemoryConfig", given))
  )

/**
 * What `layerConsole` takes.
 *
 * - `stream`: `stderr`, or `stdout` where no protocol uses it. Default `stderr`.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConsoleOptions extends Options {
  readonly stream?: "stderr" | "stdout" | undefined
}

const openConsole = (where: string, options: ConsoleOptions) => {
  Check.known(where, options, [...optionNames, "stream"])
  const settings = resolve(where, options)
  const stream = Check.oneOf(where, "stream", options.stream ?? "stderr", ["stderr", "stdout"])
  return open(settings, consoleSink(stream))
}

/**
 * Provides a log of JSON lines on the `Console` service.
 *
 * **Gotchas**
 *
 * A line counts as written when the console has taken it, which is no promise that anybody reads it. While more
 * than 1 MiB waits for a reader that does not read, nothing more is written, and after `writeTimeout` records are lost, or in
 * `required` mode their calls refused. A pipe that nobody reads
 * any more breaks no call and, other than in a program without this layer, does not end the process; records that are
 * written once this is known are lost, and in `required` mode their calls are refused.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConsole = (options: ConsoleOptions = {}): Layer.Layer<AuditLog> =>
  Layer.effect(AuditLog, openConsole("AuditLog.layerConsole", options))

/**
 * Provides `layerConsole` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConsoleConfig = (options: Config.Wrap<ConsoleOptions>): Layer.Layer<AuditLog, Config.ConfigError> =>
  Layer.effect(
    AuditLog,
    Effect.flatMap(Config.unwrap(options), (given) => openConsole("AuditLog.layerConsoleConfig", given))
  )
