/**
 * Writes to an audit log at full speed until it is killed: `auditWriter.ts <log> <acknowledgements> <maxBytes>`.
 *
 * A record is acknowledged to the caller before the next one, and then noted in the second file, which a killed process
 * leaves as it is. Says `open` when the log is open, and why when it cannot be opened.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { openSync, writeSync } from "node:fs"
// Less to load than all of `effect-toolops/auth`: it is started hundreds of times.
import * as AuditLog from "../../src/auth/AuditLog.ts"

const [path, acknowledgements, maxBytes] = process.argv.slice(2)
if (path === undefined || acknowledgements === undefined) throw new Error("no path")

const secret = "canary-7f3a9c-a-secret-of-more-than-32-bytes"

const write = Effect.gen(function*() {
  const log = yield* AuditLog.AuditLog
  const file = openSync(acknowledgements, "a")
  writeSync(1, "open\n")
  let count = 0
  yield* Effect.forEach(
    Array.from({ length: 16 }),
    () =>
      Effect.forever(Effect.suspend(() => {
        const callId = `${process.pid}-${count++}`
        return Effect.map(
          log.record({
            version: 1,
            kind: "decision",
            callId,
            time: 0,
            offsetMillis: 0,
            tool: { id: "t", action: "call" },
            errorType: "x".repeat(count % 700)
          }),
          () => writeSync(file, `${callId}\n`)
        )
      })),
    { concurrency: "unbounded", discard: true }
  )
})

const live = AuditLog.layerFile({
  path,
  key: Redacted.make(secret),
  mode: "required",
  rotation: { maxBytes: Number(maxBytes ?? 1e9) },
  checkpoints: { every: 50 }
})

await Effect.runPromise(
  write.pipe(
    Effect.provide(live),
    Effect.provide(NodeFileSystem.layer),
    Effect.catchTag("AuditError", ({ reason }) =>
      Effect.sync(() => {
        writeSync(1, `${JSON.stringify(reason)}\n`)
        process.exitCode = 3
      }))
  )
)
