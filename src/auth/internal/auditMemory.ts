import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Check from "../../internal/options.ts"
import type { AuditRecord } from "../AuditRecord.ts"
import { Recording, resolveRecording } from "./auditRecording.ts"
import type { AuditLog, Mode, RecordingOptions } from "./auditService.ts"

/** What `AuditLog.layerMemory` takes, beside what all logs take. */
export interface MemoryOptions extends RecordingOptions {
  readonly mode?: Mode | undefined
  readonly maxRecords?: number | undefined
}

/** The records of a log that is kept in memory. */
export interface Memory {
  readonly records: Effect.Effect<ReadonlyArray<AuditRecord>>
  readonly clear: Effect.Effect<void>
}

const nothing = Effect.void

/** The log that keeps nothing. */
export const none: AuditLog["Service"] = {
  mode: "best-effort",
  record: () => nothing,
  recordUnsafe: () => true,
  flush: nothing,
  stats: Effect.succeed({ written: 0, lost: 0, repeated: 0, queued: 0, lagMillis: 0 }),
  "~recording": undefined
}

/** Checks the options. Throws for a nonsense one. */
export const resolveMemory = (where: string, options: MemoryOptions) => ({
  recording: resolveRecording(where, options),
  mode: Check.oneOf(where, "mode", options.mode ?? "best-effort", ["required", "best-effort"]),
  maxRecords: Check.integer(where, "maxRecords", options.maxRecords ?? 10_000, 1, 10_000_000)
})

/** Opens a log that keeps the last records. There is no way between it and its records, so nothing is ever lost. */
export const openMemory = (
  { maxRecords, mode, recording: settings }: ReturnType<typeof resolveMemory>
): Effect.Effect<{ readonly log: AuditLog["Service"]; readonly memory: Memory }, never, Scope.Scope> =>
  Effect.contextWith((context: Context.Context<Scope.Scope>) => {
    let records: Array<AuditRecord> = []
    let written = 0
    const recordUnsafe = (record: AuditRecord): boolean => {
      written += 1
      records.push(record)
      // Now and then, so that forgetting one record does not move all others.
      if (records.length >= 2 * maxRecords) records = records.slice(-maxRecords)
      return true
    }
    const recording = new Recording(settings, context).onRepeats(recordUnsafe)
    const log: AuditLog["Service"] = {
      mode,
      record: (record) => Effect.sync(() => void recordUnsafe(record)),
      recordUnsafe,
      flush: nothing,
      stats: Effect.sync(() => ({ written, lost: 0, repeated: recording.repeated, queued: 0, lagMillis: 0 })),
      "~recording": recording
    }
    const memory: Memory = {
      records: Effect.sync(() => records.slice(-maxRecords)),
      clear: Effect.sync(() => {
        records = []
      })
    }
    return Effect.as(Effect.addFinalizer(() => Effect.sync(() => recording.stop())), { log, memory })
  })
