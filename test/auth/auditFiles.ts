import { NodeFileSystem } from "@effect/platform-node"
import { Effect, Layer, Redacted } from "effect"
import { AuditLog, type AuditRecord } from "effect-toolops/auth"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** No text of it may ever be seen outside of memory. */
export const secret = "canary-7f3a9c-a-secret-of-more-than-32-bytes"
export const key = Redacted.make(secret)

export const record = (i: number): AuditRecord.AuditRecord => ({
  version: 1,
  kind: "call",
  callId: `call-${i}`,
  time: 1_763_650_000_000 + i,
  offsetMillis: i,
  caller: { tenant: "acme", principal: "älïce@example.com", method: "jwt" },
  tool: { id: "github:search", digest: "a1".repeat(32), action: "call" },
  decision: { allow: true, rule: "role reader" },
  outcome: "ok",
  durationMillis: 1.5
})

/** A new folder for every caller, gone with the test file. */
export const makeFolders = () => {
  const root = mkdtempSync(join(tmpdir(), "toolops-audit-"))
  let count = 0
  return {
    fresh: () => mkdtempSync(join(root, `${count++}-`)),
    freshPath: () => join(mkdtempSync(join(root, `${count++}-`)), "audit.log"),
    remove: () => rmSync(root, { recursive: true, force: true })
  }
}

export type Given = Omit<AuditLog.FileOptions, "path" | "key"> & { readonly key?: Redacted.Redacted<string> }

/** A log of its own on a real file: two uses are two logs. */
export const layer = (path: string, options: Given = {}) =>
  Layer.provide(AuditLog.layerFile({ path, key, mode: "required", ...options }), NodeFileSystem.layer)

/** Opens the log, uses it and closes it. */
export const withLog = <A, E, R>(
  path: string,
  options: Given,
  use: (log: AuditLog.AuditLog["Service"]) => Effect.Effect<A, E, R>
) => Effect.provide(Effect.flatMap(AuditLog.AuditLog, use), layer(path, options))

/** Opens the log, writes records one after the other, or many at a time, and closes it. */
export const write = (path: string, from: number, to: number, options: Given = {}, concurrency = 1) =>
  withLog(path, options, (log) =>
    Effect.forEach(
      Array.from({ length: to - from }, (_, i) => from + i),
      (i) => log.record(record(i)),
      { concurrency, discard: true }
    ))

export const verify = (path: string, options?: Partial<AuditLog.VerifyOptions>) =>
  Effect.provide(AuditLog.verify(path, { key, ...options }), NodeFileSystem.layer)

/** The lines of one file. The last line must have an end. */
export const linesOf = (path: string): Array<string> => {
  const text = readFileSync(path, "utf8")
  if (text !== "" && !text.endsWith("\n")) throw new Error(`${path} has no end`)
  return text.split("\n").slice(0, -1)
}

/** The paths of a log's files but for its checkpoints, oldest first. */
export const filesOf = (path: string): Array<string> => {
  const folder = join(path, "..")
  const names = readdirSync(folder).filter((name) => /^audit\.log\.[0-9]+$/.test(name)).toSorted()
  return [...names, "audit.log"].map((name) => join(folder, name))
}

/** What the first line of a log says that the log is. */
export const logIdOf = (path: string): string => parse(linesOf(filesOf(path)[0]!)[0]!).prev.slice(0, 32)

interface Line {
  readonly seq: number
  readonly prev: string
  readonly kind: string
  readonly callId: string
  readonly count?: number
  readonly aside?: string
  readonly mac: string
}

export const parse = (line: string): Line => JSON.parse(line) as Line
