import { NodeFileSystem } from "@effect/platform-node"
import { Effect, Exit, FileSystem, Layer, Redacted, Scope, Semaphore } from "effect"
import { AuditLog, AuditRecord } from "effect-toolops/auth"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Group, Settings } from "./harness.ts"

const record = (i: number): AuditRecord.AuditRecord => ({
  version: 1,
  kind: "decision",
  callId: `call-${i}`,
  time: 1_763_650_000_000 + i,
  offsetMillis: i,
  caller: { tenant: "acme", principal: "ada", method: "jwt" },
  tool: { id: "docs:search", digest: "a1".repeat(32), action: "call" },
  input: { digest: "b2".repeat(32) },
  decision: { allow: true, rule: "role reader" }
})

const outcome = (i: number): AuditRecord.AuditRecord => ({
  version: 1,
  kind: "outcome",
  callId: `call-${i}`,
  time: 1_763_650_000_000 + i,
  offsetMillis: i + 1,
  caller: { tenant: "acme", principal: "ada", method: "jwt" },
  tool: { id: "docs:search", digest: "a1".repeat(32), action: "call" },
  decision: { allow: true, rule: "role reader" },
  outcome: "ok",
  durationMillis: 1.25,
  attempts: 1
})

/** Does `n` turns, taken by so many callers, each of which waits for one before it goes on to the next. */
const turns = (callers: number, turn: (i: number) => Effect.Effect<void, unknown>) => (n: number) =>
  Effect.runPromise(Effect.suspend(() => {
    let i = 0
    const caller = Effect.gen(function*() {
      while (i < n) yield* turn(i++)
    })
    return Effect.as(Effect.all(Array.from({ length: callers }, () => caller), { concurrency: callers }), n)
  }))

/** Hands `n` records over, each of which is waited for. */
const from = (callers: number, write: (record: AuditRecord.AuditRecord) => Effect.Effect<void, unknown>) =>
  turns(callers, (i) => write(record(i)))

const all = (result: unknown, n: number): void => {
  if (result !== n) throw new Error(`${String(result)} of ${n} records were written`)
}

export default async (_settings: Settings): Promise<ReadonlyArray<Group>> => {
  const folder = mkdtempSync(join(tmpdir(), "toolops-bench-audit-"))
  const scope = Effect.runSync(Scope.make())
  const key = Redacted.make("a secret of at least 32 bytes for measuring")
  const open = (mode: AuditLog.Mode) =>
    Effect.map(
      Layer.build(Layer.provide(
        AuditLog.layerFile({ path: join(folder, mode), key, mode, maxQueued: 1_000_000 }),
        NodeFileSystem.layer
      )),
      (context) => Effect.runSync(Effect.provideContext(AuditLog.AuditLog, context))
    )
  const { bestEffort, plain, required } = await Effect.runPromise(
    Effect.provide(
      Effect.all({
        required: open("required"),
        bestEffort: open("best-effort"),
        plain: Effect.flatMap(FileSystem.FileSystem, (fs) => fs.open(join(folder, "plain"), { flag: "a" }))
      }),
      NodeFileSystem.layer
    ).pipe(Effect.provideService(Scope.Scope, scope))
  )
  // What one would write without thinking of it: each record for itself, and no proof.
  const oneAtATime = Semaphore.makeUnsafe(1)
  const encoder = new TextEncoder()
  const writePlain = (one: AuditRecord.AuditRecord) =>
    oneAtATime.withPermit(
      Effect.andThen(plain.writeAll(encoder.encode(`${AuditRecord.toLine(one)}\n`)), plain.sync)
    )
  const run = from(64, required.record)
  // As a call writes them: its decision is waited for, its outcome goes with whatever is written next.
  const decided = turns(64, (i) => Effect.map(required.record(record(i)), () => void required.recordUnsafe(outcome(i))))
  const runCalls = async (n: number): Promise<number> => {
    const done = await decided(n / 2)
    await Effect.runPromise(required.flush)
    return done * 2
  }
  const handOver = async (n: number, isAll: boolean): Promise<number> => {
    let spent = 0
    for (let done = 0; done < n; done += 1000) {
      const records = Array.from({ length: 1000 }, (_, i) => record(i))
      const start = performance.now()
      for (const one of records) if (!bestEffort.recordUnsafe(one)) throw new Error("a record was lost")
      const handedOver = performance.now()
      await Effect.runPromise(bestEffort.flush)
      spent += (isAll ? performance.now() : handedOver) - start
    }
    return spent * 1000 / n
  }
  return [
    {
      name: "audit file",
      close: async () => {
        await Effect.runPromise(Scope.close(scope, Exit.void))
        rmSync(folder, { recursive: true, force: true })
      },
      cases: [
        { name: "one fsync per record, 64 callers", run: from(64, writePlain), check: all, ops: 256, allocOps: 64 },
        {
          name: "required, 64 callers",
          run,
          check: all,
          ops: 6400,
          allocOps: 640,
          baseline: "one fsync per record, 64 callers",
          goal: 1 / 50
        },
        {
          name: "required, 64 callers, decisions and outcomes",
          run: runCalls,
          check: all,
          ops: 12_800,
          allocOps: 1280,
          baseline: "one fsync per record, 64 callers",
          goal: 1 / 50
        },
        { name: "required, 1 caller", run: from(1, required.record), check: all, ops: 256, allocOps: 64 },
        {
          name: "records per second, required, 64 callers",
          figure: true,
          atLeast: true,
          goal: 20_000,
          ops: 6400,
          run: async (n) => {
            const start = performance.now()
            await run(n)
            return n / (performance.now() - start) * 1000
          }
        },
        {
          name: "us until a record is handed over, best-effort",
          figure: true,
          goal: 2,
          ops: 10_000,
          run: (n) => handOver(n, false)
        },
        {
          name: "us per record until 1,000 are on the disk, best-effort",
          figure: true,
          ops: 10_000,
          run: (n) => handOver(n, true)
        }
      ]
    }
  ]
}
