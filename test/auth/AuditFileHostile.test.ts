import { NodeFileSystem } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, FileSystem, Layer, Redacted, Scope } from "effect"
import { AuditLog, type AuditRecord } from "effect-toolops/auth"
import { appendFileSync, linkSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import {
  filesOf,
  key,
  layer,
  linesOf,
  logIdOf,
  makeFolders,
  parse,
  record,
  verify,
  withLog,
  write
} from "./auditFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

const refusal = (path: string, options = {}) =>
  Effect.map(
    Effect.flip(write(path, 0, 1, options)),
    ({ reason }) => reason._tag === "Unusable" ? reason.problem : reason._tag
  )

const ids = (path: string) => linesOf(path).map((line) => parse(line).callId)

/** Makes a log, and takes it back to where its first line had its checkpoint and the others had none. */
const withoutLaterCheckpoints = Effect.fnUntraced(function*(path: string, records: number) {
  yield* write(path, 0, 1)
  const marks = readFileSync(`${path}.checkpoints`)
  yield* write(path, 1, records)
  writeFileSync(`${path}.checkpoints`, marks)
})

describe("AuditLog.layerFile and records of any size", () => {
  const long = "x".repeat(300_000)
  // Three bytes each, and six in JSON.
  const texts = [long, "€".repeat(100_000), "\u0001".repeat(100_000)]

  for (const mode of ["required", "best-effort"] as const) {
    it.live(`writes what it can read again, ${mode}`, () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* withLog(path, { mode }, (log) =>
          Effect.gen(function*() {
            yield* log.record(record(0))
            for (const text of texts) {
              const huge: AuditRecord.AuditRecord = {
                ...record(1),
                callId: text,
                caller: { issuer: text, tenant: text, principal: text, method: text, keyId: text },
                peer: text,
                tool: { id: text, digest: text, action: text },
                input: { digest: text, fields: { [text]: text } },
                decision: { allow: false, rule: text, reason: text },
                errorType: text,
                traceId: text,
                spanId: text,
                count: 7
              }
              yield* log.record(huge)
            }
            yield* log.record({ ...record(2), input: { fields: { q: long } } })
            yield* log.record(record(3))
            yield* log.flush
            assert.strictEqual((yield* log.stats).lost, 0)
          }))
        const report = yield* verify(path)
        assert.isUndefined(report.bad)
        assert.strictEqual(report.records, 6)
        assert.deepStrictEqual([ids(path)[0], ids(path).at(-1)], ["call-0", "call-3"])
        // Two texts that were cut are still told apart.
        assert.strictEqual(new Set(ids(path)).size, 6)
        assert.isBelow(statSync(path).size, 100_000)
        yield* write(path, 4, 5)
        assert.isUndefined((yield* verify(path)).bad)
      }))
  }

  it.live("writes a record up to 256 KiB as it is", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const empty = JSON.stringify({ ...record(0), callId: "" })
      const room = 256 * 1024 - new TextEncoder().encode(empty).length
      yield* withLog(path, {}, (log) =>
        Effect.andThen(
          log.record({ ...record(0), callId: "x".repeat(room) }),
          log.record({ ...record(0), callId: "x".repeat(room + 1) })
        ))
      assert.isUndefined((yield* verify(path)).bad)
      assert.deepStrictEqual(ids(path).map((id) => id.length), [room, 256])
    }))
})

describe("AuditLog.layerFile, closed while a write hangs", () => {
  it.live("keeps the file locked until the write has ended", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const gate = yield* Deferred.make<void>()
      let hangs = false
      const slow = Layer.effect(
        FileSystem.FileSystem,
        Effect.map(FileSystem.FileSystem, (fs) => ({
          ...fs,
          open: (at: string, options?: Parameters<FileSystem.FileSystem["open"]>[1]) =>
            Effect.map(fs.open(at, options), (file) =>
              new Proxy(file, {
                get: (target, name) => {
                  const value: unknown = Reflect.get(target, name, target)
                  if (name === "writeAll" && hangs && at === path) {
                    return (bytes: Uint8Array) => Effect.andThen(Deferred.await(gate), target.writeAll(bytes))
                  }
                  return typeof value === "function" ? value.bind(target) : value
                }
              }))
        }))
      ).pipe(Layer.provide(NodeFileSystem.layer))
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        Layer.provide(AuditLog.layerFile({ path, key, writeTimeout: 50, closeTimeout: 50 }), slow),
        scope
      )
      const log = Context.get(context, AuditLog.AuditLog)
      log.recordUnsafe(record(0))
      yield* log.flush
      hangs = true
      log.recordUnsafe(record(1))
      yield* log.flush
      yield* Scope.close(scope, Exit.void)
      assert.include(yield* refusal(path), "is being written by process")

      yield* Deferred.succeed(gate, undefined)
      yield* Effect.eventually(Effect.delay(write(path, 2, 3), 20))
      assert.isUndefined((yield* verify(path)).bad)
      // The late write is there, as its bytes had gone to the operating system.
      assert.deepStrictEqual(ids(path), ["call-0", "call-1", "call-2"])
      assert.deepStrictEqual(readdirSync(dirname(path)).filter((name) => name.includes(".lock.")), [])
    }), 60_000)
})

describe("AuditLog.layerFile and its checkpoints' path", () => {
  it.live("is not the log's, by whatever name", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      assert.include(
        yield* refusal(path, { checkpoints: { path: `${dirname(path)}/./audit.log` } }),
        "being written by"
      )
      assert.include(yield* refusal(path, { checkpoints: { path: relative(process.cwd(), path) } }), "being written by")
      yield* write(path, 0, 1)
      const link = join(dirname(path), "link")
      linkSync(path, link)
      assert.include(yield* refusal(path, { checkpoints: { path: link } }), "are one file")
      assert.isUndefined((yield* verify(path)).bad)
    }))

  it.live("is that of one log, at the same time or one after the other", () =>
    Effect.gen(function*() {
      const [one, two, marks] = [folders.freshPath(), folders.freshPath(), folders.freshPath()]
      const options = { checkpoints: { path: marks, every: 2 } }
      yield* withLog(one, options, (log) =>
        Effect.gen(function*() {
          for (let i = 0; i < 4; i++) yield* log.record(record(i))
          assert.include(yield* refusal(two, options), `${marks} is being written by process`)
        }))
      yield* write(two, 0, 3)
      assert.include(yield* refusal(two, options), `${marks} has the checkpoints of another log`)
      yield* write(one, 4, 6, options)
      assert.isUndefined((yield* verify(one, { checkpoints: marks })).bad)
    }))

  it.live("may be new for a log that is not, rotated or not", () =>
    Effect.gen(function*() {
      for (const rotation of [{}, { maxBytes: 1 }]) {
        const [path, marks] = [folders.freshPath(), folders.freshPath()]
        yield* write(path, 0, 3, { rotation })
        yield* write(path, 3, 5, { rotation, checkpoints: { path: marks } })
        const report = yield* verify(path, { checkpoints: marks })
        assert.isUndefined(report.bad)
        assert.strictEqual(report.logId, logIdOf(path))
        assert.isTrue(parse(linesOf(marks)[0]!).prev.startsWith(logIdOf(path)))
      }
    }))
})

describe("AuditLog.layerFile and a last line that was tampered with", () => {
  it.live("gives a whole line its end back, with nothing lost and nothing moved", () =>
    Effect.gen(function*() {
      for (const after of [Buffer.alloc(0), Buffer.alloc(1), Buffer.alloc(5000)]) {
        const path = folders.freshPath()
        yield* withoutLaterCheckpoints(path, 4)
        truncateSync(path, statSync(path).size - 1)
        appendFileSync(path, after)
        assert.strictEqual((yield* verify(path)).bad?.problem, "torn")
        yield* write(path, 4, 5)
        assert.isUndefined((yield* verify(path)).bad)
        assert.deepStrictEqual(ids(path), ["call-0", "call-1", "call-2", "call-3", "call-4"])
        assert.deepStrictEqual(readdirSync(dirname(path)).filter((name) => name.includes("torn")), [])
      }
    }))

  it.live("gives a checkpoint its end back", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 3)
      truncateSync(`${path}.checkpoints`, statSync(`${path}.checkpoints`).size - 1)
      yield* write(path, 3, 4)
      const report = yield* verify(path)
      assert.isUndefined(report.bad)
      assert.strictEqual(report.checkpoints, 2)
    }))

  it.live("moves nothing aside in which there is a line that it has written", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* withoutLaterCheckpoints(path, 4)
      const [first, ...rest] = linesOf(path)
      const tails: ReadonlyArray<string | Buffer> = [
        // Line ends that became blanks, or nothing.
        rest.join(" "),
        rest.join(""),
        `${rest[0]} `,
        `${rest[0]}{"seq":3,`,
        // The first of them changed, so that only those behind it are genuine.
        rest.join(" ").replace("call-1", "call-9"),
        Buffer.concat([Buffer.from(`${rest[0]!.slice(0, 100)}`), Buffer.from(rest[1]!)]),
        Buffer.concat([Buffer.from(`${rest[0]!.slice(0, 100)}`), Buffer.alloc(4), Buffer.from(rest[1]!)])
      ]
      for (const tail of tails) {
        const text = Buffer.concat([Buffer.from(`${first}\n`), Buffer.from(tail)])
        writeFileSync(path, text)
        assert.include(yield* refusal(path), "line 2 holds a line of this log and more, which no crash leaves")
        assert.deepStrictEqual(readFileSync(path), text)
      }
    }))

  it.live("takes nothing but zeros behind a zero for what the file system has not written", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 2)
      const whole = readFileSync(path)
      for (const tail of [`\0x`, `{"seq":3\0\0,"prev"`, `\0\0{"seq":3`]) {
        writeFileSync(path, Buffer.concat([whole, Buffer.from(tail)]))
        assert.include(yield* refusal(path), "line 3 is no line of this log, and not the beginning of one")
      }
    }))

  it.live("takes the first line for torn wherever that was, and what cannot be its beginning for damage", () =>
    Effect.gen(function*() {
      const sample = folders.freshPath()
      yield* write(sample, 0, 1)
      const line = linesOf(sample)[0]!
      for (const length of [1, 8, 17, 40, 82, 84, 90, 200, line.length - 1]) {
        const path = folders.freshPath()
        writeFileSync(path, line.slice(0, length), { mode: 0o600 })
        yield* write(path, 0, 1)
        assert.isUndefined((yield* verify(path)).bad)
        assert.deepStrictEqual(linesOf(path).map((each) => parse(each).kind), ["repaired", "call"])
      }
      for (
        const text of [
          `{"seq":1,"prev":"xyz`,
          `{"seq":1,"prev":"${"0".repeat(64)}x`,
          `{"seq":2,`,
          `{"seq":1,"prev":"00"x`
        ]
      ) {
        const path = folders.freshPath()
        writeFileSync(path, text, { mode: 0o600 })
        assert.include(yield* refusal(path), "line 1 is no line of this log")
      }
    }))
})

describe("AuditLog.layerFile, emptied", () => {
  it.live("is found when it is checked, although there is nothing to check", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 5)
      for (const part of ["", ".checkpoints"]) writeFileSync(path + part, "")
      assert.deepStrictEqual((yield* verify(path)).bad, { path, line: 1, seq: 1, problem: "empty" })
      assert.strictEqual(filesOf(path).length, 1)
    }))

  it.live("has another id when it is written again", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 5)
      const logId = logIdOf(path)
      for (const part of ["", ".checkpoints"]) writeFileSync(path + part, "")
      yield* Effect.provide(Effect.void, layer(path))
      yield* write(path, 0, 5)
      assert.isUndefined((yield* verify(path)).bad)
      assert.strictEqual((yield* verify(path, { logId })).bad?.problem, "spliced")
      const wrong = yield* verify(path, { logId, key: Redacted.make("another secret of at least 32 bytes.") })
      assert.strictEqual(wrong.bad?.problem, "forged")
    }))
})
