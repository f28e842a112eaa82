import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { auditCheck } from "../../health/internal/partChecks.ts"
import * as Check from "../../internal/options.ts"
import type { AuditError } from "../AuditError.ts"
import type { AuditRecord } from "../AuditRecord.ts"
import { AuditMeter } from "./auditMeter.ts"
import { AuditQueue } from "./auditQueue.ts"
import { Recording, resolveRecording } from "./auditRecording.ts"
import type { AuditLog, Options, Sink } from "./auditService.ts"

/** Checks what every log takes. Throws for a nonsense option. */
export const resolve = (where: string, options: Options) => ({
  mode: Check.oneOf(where, "mode", options.mode ?? "best-effort", ["required", "best-effort"]),
  recording: resolveRecording(where, options),
  bounds: {
    maxQueued: Check.integer(where, "maxQueued", options.maxQueued ?? 10_000, 1, 10_000_000),
    maxBatch: Check.integer(where, "maxBatch", options.maxBatch ?? 1000, 1),
    writeTimeoutMillis: Check.millis(where, "writeTimeout", options.writeTimeout ?? "5 seconds"),
    closeTimeoutMillis: Check.millis(where, "closeTimeout", options.closeTimeout ?? "5 seconds", { allowZero: true })
  }
})

/**
 * Opens a log that writes to `sink` in the background. When the scope closes, what is still to be written is written, as far
 * as `closeTimeout` goes; what the sink itself needs closed is to be in the scope before.
 */
export const open = (
  { bounds, mode, recording: settings }: ReturnType<typeof resolve>,
  sink: Sink
): Effect.Effect<AuditLog["Service"], never, Scope.Scope> =>
  Effect.contextWith((context: Context.Context<Scope.Scope>) => {
    const recording = new Recording(settings, context)
    const meter = new AuditMeter(context)
    const queue = new AuditQueue(bounds, sink, recording, meter, context)
    recording.onRepeats((record) => queue.push(record, undefined))
    const acknowledged = (record: AuditRecord): Effect.Effect<void, AuditError> =>
      Effect.callback((resume) => {
        const refused = queue.push(record, (error) => resume(error === undefined ? Effect.void : Effect.fail(error)))
        if (refused !== undefined) resume(Effect.fail(refused()))
      })
    const close = Effect.suspend(() => {
      recording.stop()
      return queue.close
    })
    const log: AuditLog["Service"] = {
      mode,
      record: mode === "required"
        ? acknowledged
        : (record) => Effect.sync(() => void queue.push(record, undefined)),
      recordUnsafe: (record) => queue.push(record, undefined) === undefined,
      flush: Effect.suspend(() => queue.flush),
      stats: Effect.sync(() => ({
        written: meter.written,
        lost: meter.lostCount,
        repeated: recording.repeated,
        queued: queue.queued,
        lagMillis: meter.lagMillis
      })),
      "~recording": recording
    }
    return Effect.addFinalizer(() => close).pipe(Effect.andThen(auditCheck(log.stats)), Effect.as(log))
  })
