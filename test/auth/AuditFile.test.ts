import { NodeFileSystem } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, Effect, Exit, FileSystem, Layer, PlatformError, Redacted } from "effect"
import { AuditLog, AuditRecord } from "effect-toolops/auth"
import { TestClock } from "effect/testing"
import { execFileSync } from "node:child_process"
import { createHmac, generateKeyPairSync } from "node:crypto"
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { dirname, join } from "node:path"
import {
  filesOf,
  key,
  linesOf,
  logIdOf,
  makeFolders,
  parse,
  record,
  secret,
  verify,
  withLog,
  write
} from "./auditFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

/** Why a log cannot be opened. */
const refusal = (path: string, options = {}) =>
  Effect.map(
    Effect.flip(write(path, 0, 1, options)),
    ({ reason }) => reason._tag === "Unusable" ? reason.problem : reason._tag
  )

const good = (path: string, records: number) =>
  Effect.map(verify(path), (report) => {
    assert.isUndefined(report.bad)
    assert.strictEqual(report.records, records)
    return report
  })

/** What is in a folder, without the checkpoints' file. */
const names = (path: string) => readdirSync(dirname(path)).filter((name) => name !== "audit.log.checkpoints")

describe("AuditLog.layerFile", () => {
  it.live("writes one line per record, with a gapless number and a proof over every byte and the line before", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 3)
      const lines = linesOf(path)
      assert.deepStrictEqual(lines.map((line) => parse(line).seq), [1, 2, 3])
      assert.deepStrictEqual(
        lines.map((line) => parse(line).prev),
        [logIdOf(path).padEnd(64, "0"), parse(lines[0]!).mac, parse(lines[1]!).mac]
      )
      for (const [i, line] of lines.entries()) {
        const { mac, prev: _, seq: __, ...rest } = parse(line)
        assert.deepStrictEqual(rest, JSON.parse(AuditRecord.toLine(record(i))))
        const body = line.slice(0, line.lastIndexOf(",\"mac\":"))
        // As somebody would check it who has nothing but the description of the format.
        assert.strictEqual(
          mac,
          createHmac("sha256", secret).update(`effect-toolops audit log 1\n${body}`).digest("hex")
        )
        assert.deepStrictEqual(yield* AuditRecord.fromLine(line), record(i))
      }
      yield* good(path, 3)
    }))

  it.live("gives its files to their owner only, and leaves nothing else behind", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* withLog(path, {}, (log) =>
        Effect.gen(function*() {
          yield* log.record(record(0))
          assert.strictEqual(names(path).length, 3, "the log, and the locks of both files while they are open")
        }))
      assert.deepStrictEqual(readdirSync(dirname(path)).toSorted(), ["audit.log", "audit.log.checkpoints"])
      for (const name of readdirSync(dirname(path))) {
        assert.strictEqual(statSync(join(dirname(path), name)).mode & 0o777, 0o600)
      }
    }))

  it.live("goes on where it has ended", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 3)
      yield* write(path, 3, 5)
      yield* write(path, 5, 6)
      yield* good(path, 6)
    }))

  it.live("acknowledges only after the sync, one of which does for all who wait", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const events: Array<string> = []
      const counted = wrap((file, at) =>
        at !== path ? {} : {
          writeAll: (bytes) => Effect.tap(file.writeAll(bytes), () => Effect.sync(() => events.push("written"))),
          sync: Effect.tap(Effect.delay(file.sync, 5), () => Effect.sync(() => events.push("synced")))
        }
      )
      yield* Effect.gen(function*() {
        const log = yield* AuditLog.AuditLog
        yield* Effect.forEach(
          Array.from({ length: 64 }, (_, i) => i),
          (i) => Effect.tap(log.record(record(i)), () => Effect.sync(() => events.push("acknowledged"))),
          { concurrency: "unbounded", discard: true }
        )
      }).pipe(Effect.provide(on(counted, path)))
      const synced = events.indexOf("synced")
      assert.isTrue(events.indexOf("acknowledged") > synced && synced > events.indexOf("written"))
      assert.isAtMost(events.filter((event) => event === "synced").length, 3)
      assert.strictEqual(events.filter((event) => event === "acknowledged").length, 64)
      yield* good(path, 64)
    }))

  it.live("keeps records of 1,000 callers at once, each once", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 20_000, { rotation: { maxBytes: 1_000_000 } }, 1000)
      yield* good(path, 20_000)
      const ids = filesOf(path).flatMap(linesOf).map((line) => parse(line).callId)
      assert.strictEqual(new Set(ids).size, 20_000)
    }))

  it.live("writes what is left in best-effort mode when it closes", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 5000, { mode: "best-effort" })
      yield* good(path, 5000)
    }))

  it.live("proves lines by Ed25519 so that a public key checks them", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const pair = generateKeyPairSync("ed25519")
      const privateKey = Redacted.make(pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString())
      const publicKey = Redacted.make(pair.publicKey.export({ type: "spki", format: "pem" }).toString())
      yield* write(path, 0, 10, { key: privateKey, algorithm: "ed25519" })
      yield* write(path, 10, 20, { key: privateKey, algorithm: "ed25519" })
      for (const one of [privateKey, publicKey]) {
        const report = yield* verify(path, { key: one, algorithm: "ed25519" })
        assert.deepStrictEqual(report, {
          records: 20,
          files: 1,
          checkpoints: 2,
          lastSeq: 20,
          logId: logIdOf(path)
        })
      }
      writeFileSync(path, readFileSync(path, "utf8").replace("call-7", "call-8"))
      const changed = yield* verify(path, { key: publicKey, algorithm: "ed25519" })
      assert.deepStrictEqual(changed.bad, { path, line: 8, seq: 8, problem: "changed" })
      const other = generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "pem" }).toString()
      const forged = yield* verify(path, { key: Redacted.make(other), algorithm: "ed25519" })
      assert.deepStrictEqual(forged.bad, { path, line: 1, seq: 1, problem: "forged" })
      // A public key can be had by everybody: it must not be a secret that proves.
      const confused = yield* verify(path, { key: publicKey })
      assert.strictEqual(confused.bad?.line, 1)
      assert.throws(
        () => AuditLog.layerFile({ path, key: publicKey, algorithm: "ed25519" }),
        "key must be an Ed25519 private key in PEM form"
      )
    }))

  describe("checkpoints", () => {
    it.live("are written every so many records, and when the log closes", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 25, { checkpoints: { every: 10 } })
        const marks = linesOf(`${path}.checkpoints`).map((line) => JSON.parse(line) as { last: number; head: string })
        assert.deepStrictEqual(marks.map((mark) => mark.last), [10, 20, 25])
        assert.deepStrictEqual(
          marks.map((mark) => mark.head),
          [10, 20, 25].map((seq) => parse(linesOf(path)[seq - 1]!).mac)
        )
        assert.strictEqual((yield* good(path, 25)).checkpoints, 3)
      }))

    it.live("are written after so much time, when there is something new", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        const marks = () => linesOf(`${path}.checkpoints`).length
        yield* withLog(path, { checkpoints: { interval: 40 } }, (log) =>
          Effect.gen(function*() {
            yield* log.record(record(0))
            yield* until(() => marks() === 1)
            yield* Effect.sleep(150)
            assert.strictEqual(marks(), 1)
            yield* log.record(record(1))
            yield* until(() => marks() === 2)
          }))
        assert.strictEqual(marks(), 2)
      }))

    it.live("may be kept elsewhere", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        const elsewhere = folders.freshPath()
        yield* write(path, 0, 5, { checkpoints: { path: elsewhere } })
        assert.deepStrictEqual(readdirSync(dirname(path)), ["audit.log"])
        assert.isUndefined((yield* verify(path, { checkpoints: elsewhere })).bad)
        truncateSync(path, linesOf(path)[0]!.length + 2)
        assert.strictEqual((yield* verify(path, { checkpoints: elsewhere })).bad?.problem, "truncated")
      }))
  })

  describe("rotation", () => {
    it.live("begins a new file by size, with the chain carried over", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 100, { rotation: { maxBytes: 4000 } })
        const files = filesOf(path)
        assert.isAbove(files.length, 5)
        for (const file of files) {
          const lines = linesOf(file)
          assert.isBelow(statSync(file).size, 4000 + 1000)
          assert.strictEqual(statSync(file).mode & 0o777, 0o600)
          if (file !== path) assert.strictEqual(Number(file.slice(-16)), parse(lines[0]!).seq)
        }
        assert.strictEqual((yield* good(path, 100)).files, files.length)
        yield* write(path, 100, 101, { rotation: { maxBytes: 4000 } })
        yield* good(path, 101)
      }))

    it.effect("begins a new file by age, counted from when the file was made", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* withLog(path, { rotation: { maxAge: "1 day" } }, (log) =>
          Effect.gen(function*() {
            yield* log.record(record(0))
            yield* TestClock.adjust("23 hours")
            yield* log.record(record(1))
            assert.strictEqual(filesOf(path).length, 1)
            yield* TestClock.adjust("1 hours")
            yield* log.record(record(2))
            assert.strictEqual(filesOf(path).length, 2)
          }))
        yield* good(path, 3)
      }))

    it.live("is taken up when the process was killed between renaming the file and making the next", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 10)
        renameSync(path, `${path}.${"1".padStart(16, "0")}`)
        yield* good(path, 10)
        yield* write(path, 10, 12)
        assert.strictEqual((yield* good(path, 12)).files, 2)
        // The same, with the first line of the new file torn.
        renameSync(path, `${path}.${"11".padStart(16, "0")}`)
        writeFileSync(path, `{"seq":13,"prev":"`, { mode: 0o600 })
        yield* write(path, 12, 13)
        assert.strictEqual((yield* good(path, 14)).files, 3)
        assert.strictEqual(parse(linesOf(path)[0]!).kind, "repaired")
      }))

    it.live("never overwrites a file", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        const taken = `${path}.${"1".padStart(16, "0")}`
        yield* withLog(path, { rotation: { maxBytes: 100 } }, (log) =>
          Effect.gen(function*() {
            yield* log.record(record(0))
            writeFileSync(taken, "precious")
            assert.strictEqual((yield* Effect.flip(log.record(record(1)))).reason._tag, "Unusable")
          }))
        assert.strictEqual(readFileSync(taken, "utf8"), "precious")
      }))
  })

  describe("after a crash", () => {
    it.live("moves a torn end aside and says so in the log, wherever it was torn", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 3, { checkpoints: { every: 3 } })
        const whole = readFileSync(path)
        const line = Buffer.from(linesOf(path)[2]!)
        // The next line, as far as it had got.
        const { mac } = parse(line.toString())
        const next = Buffer.from(`{"seq":4,"prev":"${mac}",${line.subarray(line.indexOf(`"version"`))}`)
        for (const length of [1, 5, 17, 60, 100, 200, next.length - 1, next.length]) {
          writeFileSync(path, Buffer.concat([whole, next.subarray(0, length)]))
          assert.strictEqual((yield* verify(path)).bad?.problem, "torn")
          yield* write(path, 3, 4)
          const [repaired, , ...more] = linesOf(path).slice(3).map(parse)
          assert.strictEqual(repaired?.kind, "repaired")
          assert.strictEqual(repaired.count, length)
          assert.deepStrictEqual(readFileSync(repaired.aside ?? ""), next.subarray(0, length))
          assert.strictEqual(statSync(repaired.aside ?? "").mode & 0o777, 0o600)
          assert.deepStrictEqual(more, [])
          yield* good(path, 5)
          // Back to where it was.
          writeFileSync(path, whole)
          const marks = linesOf(`${path}.checkpoints`)
          writeFileSync(`${path}.checkpoints`, `${marks[0]}\n`)
        }
      }))

    it.live("takes zeros for what the file system has not written, many of them too", () =>
      Effect.gen(function*() {
        for (
          const garbage of [
            Buffer.alloc(5000),
            Buffer.alloc(1_000_000),
            Buffer.concat([Buffer.from(`{"seq":4,"pr`), Buffer.alloc(500)])
          ]
        ) {
          const path = folders.freshPath()
          yield* write(path, 0, 3)
          appendFileSync(path, garbage)
          yield* write(path, 3, 4)
          yield* good(path, 5)
        }
      }))

    it.live("puts a torn checkpoint right", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 3)
        appendFileSync(`${path}.checkpoints`, `{"seq":2,"prev":"`)
        assert.deepStrictEqual((yield* verify(path)).bad, {
          path: `${path}.checkpoints`,
          line: 2,
          seq: 2,
          problem: "torn"
        })
        yield* write(path, 3, 4)
        yield* good(path, 5)
        assert.strictEqual(parse(linesOf(path)[3]!).kind, "repaired")
      }))

    it.live("refuses what no crash leaves, and does not touch it", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 5)
        const whole = readFileSync(path, "utf8")
        const lines = linesOf(path)
        const damages: ReadonlyArray<readonly [string, string]> = [
          [whole.replace("call-2", "call-3"), "line 3 is not the next line of this log"],
          [lines.toSpliced(1, 1).join("\n") + "\n", "line 2 is not the next line"],
          [lines.slice(0, 3).join("\n") + "\n", "ends with line 3, and the last checkpoint speaks of line 5"],
          ["", "ends with line 0, and the last checkpoint speaks of line 5"],
          [whole + "not ours\n", "line 6 is not the next line"],
          [whole + "not ours", "line 6 is no line of this log, and not the beginning of one"],
          [whole + `{"seq":7,`, "line 6 is no line of this log, and not the beginning of one"]
        ]
        for (const [text, problem] of damages) {
          writeFileSync(path, text)
          assert.include(yield* refusal(path), problem)
          assert.strictEqual(readFileSync(path, "utf8"), text)
        }
        // Lines of a log that has taken another course, as after a backup was put back.
        const other = folders.freshPath()
        yield* write(other, 100, 105)
        writeFileSync(path, readFileSync(other))
        assert.include(yield* refusal(path), "line 5 is not the one that the last checkpoint speaks of")
        writeFileSync(path, [...lines.slice(0, 2), ...linesOf(other).slice(2)].join("\n") + "\n")
        assert.include(yield* refusal(path), "line 3 is not the next line")
        writeFileSync(path, whole)
        assert.include(
          yield* refusal(path, { key: Redacted.make("another secret of at least 32 bytes.") }),
          "line 1 is not"
        )
        yield* write(path, 5, 6)
        yield* good(path, 6)
      }))
  })

  describe("hostile paths", () => {
    it.live("follows no link, opens no pipe and no folder, and takes no file that others may read", () =>
      Effect.gen(function*() {
        const elsewhere = folders.freshPath()
        writeFileSync(elsewhere, "", { mode: 0o600 })
        const link = folders.freshPath()
        symlinkSync(elsewhere, link)
        assert.include(yield* refusal(link), "is not a plain file but a symbolic link")
        const dangling = folders.freshPath()
        symlinkSync(`${elsewhere}.not`, dangling)
        assert.include(yield* refusal(dangling), "is not a plain file but a symbolic link")
        assert.isFalse(existsSync(`${elsewhere}.not`))
        const marks = folders.freshPath()
        symlinkSync(elsewhere, `${marks}.checkpoints`)
        assert.include(yield* refusal(marks), "is not a plain file but a symbolic link")
        const folder = folders.freshPath()
        mkdirSync(folder)
        assert.include(yield* refusal(folder), "is not a plain file but a folder")
        const pipe = folders.freshPath()
        execFileSync("mkfifo", [pipe])
        assert.include(yield* refusal(pipe), "is not a plain file but of type FIFO")
        const open = folders.freshPath()
        writeFileSync(open, "")
        chmodSync(open, 0o640)
        assert.include(yield* refusal(open), "has mode 0640")
        const nowhere = join(folders.freshPath(), "none", "audit.log")
        assert.include(yield* refusal(nowhere), "cannot be")
        assert.strictEqual(readFileSync(elsewhere, "utf8"), "")
      }))

    it.live("takes no other file for a log", () =>
      Effect.gen(function*() {
        const garbage = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256))
        for (
          const content of [
            garbage,
            Buffer.from("SQLite format 3\0"),
            Buffer.from("\n\n"),
            Buffer.alloc(3_000_000, 65),
            Buffer.concat([Buffer.alloc(1_000_000), Buffer.from("x")])
          ]
        ) {
          const path = folders.freshPath()
          writeFileSync(path, content, { mode: 0o600 })
          assert.match(yield* refusal(path), /line 1 is no/)
          assert.deepStrictEqual(readFileSync(path), content)
        }
        const empty = folders.freshPath()
        writeFileSync(empty, "", { mode: 0o600 })
        yield* write(empty, 0, 1)
        yield* good(empty, 1)
      }))

    it.live("does not go on in a file that somebody else has written to since it was read", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 1)
        const meddling = Layer.effect(
          FileSystem.FileSystem,
          Effect.map(FileSystem.FileSystem, (fs) => ({
            ...fs,
            open: (at: string, options?: Parameters<FileSystem.FileSystem["open"]>[1]) =>
              Effect.suspend(() => {
                if (at === path && options?.flag === "a") appendFileSync(path, "{")
                return fs.open(at, options)
              })
          }))
        ).pipe(Layer.provide(NodeFileSystem.layer))
        const error = yield* Effect.flip(Effect.provide(AuditLog.AuditLog, on(meddling, path)))
        assert.include(JSON.stringify(error.reason), "was changed by another")
      }))

    it.live("looks before and after where the platform cannot refuse a link by itself", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        const target = folders.freshPath()
        let isSwapped = false
        const without = (swap: boolean) =>
          Layer.effect(
            FileSystem.FileSystem,
            Effect.map(FileSystem.FileSystem, (fs) => ({
              ...fs,
              open: (at: string, options?: Parameters<FileSystem.FileSystem["open"]>[1]) => {
                if (options?.noFollow === true) {
                  return Effect.fail(PlatformError.badArgument({ module: "FileSystem", method: "open" }))
                }
                if (swap && at === path && options?.flag === "a" && !isSwapped) {
                  isSwapped = true
                  rmSync(path)
                  symlinkSync(target, path)
                }
                return fs.open(at, options)
              }
            }))
          ).pipe(Layer.provide(NodeFileSystem.layer))
        const writeOn = (fs: Layer.Layer<FileSystem.FileSystem>) =>
          Effect.flatMap(AuditLog.AuditLog, (log) => log.record(record(0))).pipe(Effect.provide(on(fs, path)))
        yield* writeOn(without(false))
        yield* good(path, 1)
        writeFileSync(target, readFileSync(path), { mode: 0o600 })
        const exit = yield* Effect.exit(writeOn(without(true)))
        assert.isTrue(isSwapped)
        assert.isTrue(Exit.isFailure(exit))
        assert.strictEqual(linesOf(target).length, 1)
      }))

    it.live("does not write through a second name that was made of the file", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 1)
        linkSync(path, `${path}.backup`)
        yield* write(path, 1, 2)
        // A hard link is the same file: it may be there, and it changes nothing about the log.
        yield* good(path, 2)
      }))
  })

  it.live("tells its key to nobody: not in its files, its errors, or what is thrown", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 5)
      appendFileSync(path, "garbage\n")
      const exit = yield* Effect.exit(write(path, 5, 6))
      assert.isTrue(Exit.isFailure(exit))
      const told = Exit.isFailure(exit) ? Cause.pretty(exit.cause) + JSON.stringify(exit) : ""
      assert.include(told, "AuditError")
      const thrown: Array<string> = []
      for (const options of [{ algorithm: "ed25519" as const, key }, { key: Redacted.make(secret.slice(0, 20)) }]) {
        try {
          AuditLog.layerFile({ path, ...options })
          assert.fail("was taken")
        } catch (error) {
          thrown.push(String(error), (error as Error).stack ?? "")
        }
      }
      const files = readdirSync(dirname(path)).map((name) => readFileSync(join(dirname(path), name), "utf8"))
      for (const text of [told, ...thrown, ...files, ...readdirSync(dirname(path))]) {
        assert.notInclude(text, secret.slice(0, 12))
      }
    }))

  it("refuses nonsense options", () => {
    const bad = (options: object, message: string) =>
      // As a caller without types would.
      assert.throws(() => AuditLog.layerFile({ path: "/tmp/x", key, ...options } as AuditLog.FileOptions), message)
    bad({ path: "" }, "AuditLog.layerFile: path must be a path, a non-empty string")
    bad({ path: "a\0b" }, "path must be a path")
    bad({ key: secret }, "AuditLog.layerFile: key must be Redacted")
    bad({ key: Redacted.make("short") }, "AuditLog.layerFile: key must have at least 32 bytes")
    bad({ key: Redacted.make(7) }, "key must be a Redacted string")
    bad({ algorithm: "none" }, "algorithm must be one of hmac-sha256, ed25519")
    bad({ rotation: { maxBytes: 0 } }, "rotation.maxBytes must be an integer >= 1, got 0")
    bad({ rotation: { maxAge: 0 } }, "rotation.maxAge must be a duration > 0")
    bad({ rotation: { size: 1 } }, "unknown option \"size\"")
    bad({ checkpoints: { every: 1.5 } }, "checkpoints.every must be an integer >= 1, got 1.5")
    bad({ checkpoints: { interval: Infinity } }, "checkpoints.interval must be a duration > 0 and finite")
    bad({ checkpoints: { path: "/tmp/x" } }, "checkpoints.path must not be the path of the log")
    bad({ mode: "sometimes" }, "mode must be one of required, best-effort")
    bad({ sync: false }, "unknown option \"sync\"")
  })

  it.live("takes its options from the configuration", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const live = AuditLog.layerFileConfig({
        path: Config.String("AUDIT_PATH"),
        key: Config.Redacted("AUDIT_KEY"),
        mode: Config.succeed("required" as const)
      }).pipe(
        Layer.provide(NodeFileSystem.layer),
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ AUDIT_PATH: path, AUDIT_KEY: secret })))
      )
      yield* Effect.provide(Effect.flatMap(AuditLog.AuditLog, (log) => log.record(record(0))), live)
      yield* good(path, 1)
    }))
})

const until = (isSo: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => isSo() ? Effect.void : Effect.andThen(Effect.sleep(5), until(isSo)))

/** A log on a file system. */
const on = (fs: Layer.Layer<FileSystem.FileSystem>, path: string) =>
  Layer.provide(AuditLog.layerFile({ path, key, mode: "required" }), fs)

/** The real file system, with other behaviour of some of its open files. */
const wrap = (change: (file: FileSystem.File, path: string) => Partial<FileSystem.File>) =>
  Layer.effect(
    FileSystem.FileSystem,
    Effect.map(FileSystem.FileSystem, (fs) => ({
      ...fs,
      open: (path: string, options?: Parameters<FileSystem.FileSystem["open"]>[1]) =>
        Effect.map(fs.open(path, options), (file) => overlay(file, change(file, path)))
    }))
  ).pipe(Layer.provide(NodeFileSystem.layer))

// Its methods are on its prototype and use what is private to it.
const overlay = (file: FileSystem.File, change: Partial<FileSystem.File>): FileSystem.File =>
  new Proxy(file, {
    get: (target, name) => {
      if (name in change) return change[name as keyof FileSystem.File]
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === "function" ? value.bind(target) : value
    }
  })
