import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, PlatformError, Redacted } from "effect"
import { AuditLog } from "effect-toolops/auth"
import { execFileSync } from "node:child_process"
import { createHmac } from "node:crypto"
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { dirname, join } from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Random from "../support/random.ts"
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
import { memoryFiles } from "./memoryFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

/** A log of three files, as its lines with their ends. */
interface Log {
  readonly path: string
  readonly files: ReadonlyArray<{ readonly path: string; readonly lines: ReadonlyArray<string> }>
  readonly checkpoints: Uint8Array
}

type Files = ReadonlyArray<{ readonly path: string; readonly lines: ReadonlyArray<string> }>

interface Edit {
  readonly files: Files
  readonly problems: ReadonlyArray<AuditLog.Problem>
}

const encoder = new TextEncoder()

/** A line as it is made by who does not have the key: with a key of their own. */
const forge = (seq: number, prev: string, payload: string): string => {
  const body = `{"seq":${seq},"prev":"${prev}",${payload}`
  const mac = createHmac("sha256", "not the key").update(`effect-toolops audit log 1\n${body}`).digest("hex")
  return `${body},"mac":"${mac}"}\n`
}

const payloadOf = (line: string): string => line.slice(line.indexOf(`"version"`), line.lastIndexOf(",\"mac\":"))

const edits = (log: Log, random: Random.Random): ReadonlyArray<() => Edit> => {
  const fileIndex = random.below(log.files.length)
  const { lines, path } = log.files[fileIndex]!
  const isLastFile = fileIndex === log.files.length - 1
  const at = random.below(lines.length)
  const line = lines[at]!
  const isLastLine = isLastFile && at === lines.length - 1
  const inFile = (changed: ReadonlyArray<string>): Files => log.files.with(fileIndex, { path, lines: changed })
  const text = lines.join("")
  const inText = (changed: string): Files => inFile([changed])
  const other = random.below(lines.length)
  return [
    // One bit, in UTF-8 as in the file.
    () => {
      const bytes = encoder.encode(text)
      const byte = random.below(bytes.length)
      bytes[byte] = bytes[byte]! ^ (1 << random.below(8))
      const isEnd = byte === bytes.length - 1
      // Bytes that are no UTF-8 any more must not be put right on the way.
      const latin = Array.from(bytes, (value) => String.fromCharCode(value)).join("")
      return { files: inText(latin), problems: isEnd && isLastFile ? ["truncated"] : ["changed"] }
    },
    () => ({
      files: inFile(lines.toSpliced(at, 1)),
      problems: isLastLine ? ["truncated"] : ["missing"]
    }),
    () => ({
      files: inFile(lines.with(at, lines[other]!).with(other, line)),
      problems: ["reordered"]
    }),
    () => ({ files: inFile(lines.toSpliced(at, 0, lines[other]!)), problems: ["duplicated"] }),
    () => ({
      files: inFile(lines.toSpliced(at, 0, forge(parse(line).seq, parse(line).prev, payloadOf(line)))),
      problems: ["forged"]
    }),
    () => ({ files: inFile(lines.toSpliced(at, 0, "{\"seq\":1}\n")), problems: ["forged"] }),
    // The end cut off, of one file.
    () => {
      const bytes = random.below(text.length)
      const isAtEnd = bytes === 0 || text[bytes - 1] === "\n"
      return {
        files: inText(text.slice(0, bytes)),
        problems: isLastFile ? ["truncated"] : isAtEnd ? ["missing"] : ["changed"]
      }
    },
    // A piece taken out of the middle.
    () => {
      const from = random.below(text.length - 2)
      const to = from + 1 + random.below(text.length - from - 2)
      return { files: inText(text.slice(0, from) + text.slice(to)), problems: ["changed", "missing"] }
    },
    // One line changed, and all after it fitted to it.
    () => {
      const upTo = at + 1 + random.below(lines.length - at)
      let prev = parse(line).prev
      const rewritten = lines.slice(at, upTo).map((each, i) => {
        const forged = forge(
          parse(each).seq,
          prev,
          i === 0 ? payloadOf(each).replace("github", "gitlab") : payloadOf(each)
        )
        prev = parse(forged).mac
        return forged
      })
      return {
        files: inFile(lines.toSpliced(at, upTo - at, ...rewritten)),
        // A single one is the same as a line with another record and another proof.
        problems: rewritten.length === 1 ? ["changed"] : ["forged"]
      }
    },
    () => ({
      files: log.files.toSpliced(fileIndex, 1),
      problems: isLastFile ? ["truncated"] : ["missing"]
    })
  ]
}

const bytesOf = (text: string, isLatin: boolean): Uint8Array =>
  isLatin ? Uint8Array.from(text, (char) => char.charCodeAt(0)) : encoder.encode(text)

/** The most memory above what was used before that checking a log takes: its heap and its buffers. */
const peak = Effect.fnUntraced(function*(path: string) {
  const used = () => {
    const { arrayBuffers, heapUsed } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  const collect = globalThis.gc ?? (yield* Effect.sync(() => {
    setFlagsFromString("--expose-gc")
    return runInNewContext("gc") as () => void
  }))
  collect()
  const before = used()
  let most = 0
  let count = 0
  yield* verify(path, {
    onProgress: () =>
      Effect.sync(() => {
        // What is not needed any more does not count, and to find out takes a while.
        if (count++ % 50 !== 0) return
        collect()
        most = Math.max(most, used() - before)
      })
  })
  return most
})

/** The first line that is not what it was. Where a file ends too early, it is noticed with the next one. */
const firstChange = (log: Log, files: ReadonlyMap<string, Uint8Array>) => {
  for (const [i, { lines, path }] of log.files.entries()) {
    const before = encoder.encode(lines.join(""))
    const after = files.get(path) ?? new Uint8Array()
    let same = 0
    while (same < before.length && same < after.length && before[same] === after[same]) same++
    if (same === before.length && same === after.length) continue
    const line = 1 + after.subarray(0, same).filter((byte) => byte === 10).length
    const isCut = same === after.length && (same === 0 || after[same - 1] === 10)
    const next = log.files[i + 1]
    return isCut && next !== undefined ? { path: next.path, line: 1 } : { path, line }
  }
  return undefined
}

describe("AuditLog.verify", () => {
  let log: Log

  beforeAll(() =>
    Effect.runPromise(Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 18, { rotation: { maxBytes: 2600 }, checkpoints: { every: 4 } })
      log = {
        path,
        files: filesOf(path).map((each) => ({ path: each, lines: linesOf(each).map((line) => `${line}\n`) })),
        checkpoints: readFileSync(`${path}.checkpoints`)
      }
      assert.isAtLeast(log.files.length, 3)
      assert.isTrue(log.files.every((file) => file.lines.length >= 2))
    }))
  )

  const verifyFiles = (
    files: ReadonlyMap<string, Uint8Array>,
    options?: Partial<AuditLog.VerifyOptions>,
    path = log.path
  ) => Effect.provideService(AuditLog.verify(path, { key, ...options }), FileSystem.FileSystem, memoryFiles(files))

  const asMap = (files: Files, isLatin = false, of = log) =>
    new Map([
      ...files.map(({ lines, path }) => [path, bytesOf(lines.join(""), isLatin)] as const),
      [`${of.path}.checkpoints`, new Uint8Array(of.checkpoints)] as const
    ])

  /** Edits a log, again and again from anew, and asks each time for the line and for what is wrong. */
  const checkEdits = Effect.fnUntraced(function*(of: Log, times: number, seed: number) {
    const random = Random.make(seed)
    const found = new Map<string, number>()
    let done = 0
    while (done < times) {
      const kinds = edits(of, random)
      const kind = random.below(kinds.length)
      const edit = kinds[kind]!()
      const files = asMap(edit.files, kind === 0 && edit.files.some((file) => file.lines.length === 1), of)
      // Only the file with the flipped bit was put together from single bytes.
      if (kind === 0) {
        for (const [i, file] of edit.files.entries()) {
          if (file === of.files[i]) files.set(file.path, encoder.encode(file.lines.join("")))
        }
      }
      // The newest file may be absent, but not when there is nothing else to say that it was.
      if (!files.has(of.path)) files.set(of.path, new Uint8Array())
      const expected = firstChange(of, files)
      if (expected === undefined) continue
      done++
      const { bad } = yield* verifyFiles(files, {}, of.path)
      if (
        bad === undefined || bad.path !== expected.path || bad.line !== expected.line ||
        !edit.problems.includes(bad.problem)
      ) {
        assert.fail(
          `edit ${done} of kind ${kind}: expected ${edit.problems.join(" or ")} at ${JSON.stringify(expected)}, ` +
            `got ${JSON.stringify(bad)}`
        )
      }
      found.set(bad.problem, (found.get(bad.problem) ?? 0) + 1)
    }
    return found
  })

  it.live("finds every one of 20,000 random edits, and names its line and what is wrong", () =>
    Effect.gen(function*() {
      const whole = yield* verifyFiles(asMap(log.files))
      assert.deepStrictEqual(whole, {
        records: 18,
        files: log.files.length,
        checkpoints: 7,
        lastSeq: 18,
        logId: logIdOf(log.path)
      })
      const found = yield* checkEdits(log, 20_000, 20_261_120)
      for (const problem of ["changed", "missing", "duplicated", "reordered", "truncated", "forged"]) {
        assert.isAbove(found.get(problem) ?? 0, 100, problem)
      }
    }), 120_000)

  it.live(
    "finds edits of a log that is read in many pieces, lines and checkpoints cut at any byte",
    () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        const records = 1200
        yield* write(path, 0, records, { rotation: { maxBytes: 300_000 }, checkpoints: { every: 2 } })
        const long: Log = {
          path,
          files: filesOf(path).map((each) => ({ path: each, lines: linesOf(each).map((line) => `${line}\n`) })),
          checkpoints: readFileSync(`${path}.checkpoints`)
        }
        assert.isAtLeast(long.files.length, 2)
        // More than one piece of each.
        assert.isAbove(statSync(long.files[0]!.path).size, 256 * 1024)
        assert.isAbove(long.checkpoints.length, 2 * 64 * 1024)
        const whole = yield* verifyFiles(asMap(long.files, false, long), {}, path)
        assert.isUndefined(whole.bad)
        assert.deepStrictEqual([whole.records, whole.checkpoints], [records, linesOf(`${path}.checkpoints`).length])
        yield* checkEdits(long, 200, 64_256)
        // A line of another course that has the key is only known by the checkpoint which speaks of it, wherever that is.
        const marks = linesOf(`${path}.checkpoints`)
        const random = Random.make(9)
        for (let i = 0; i < 30; i++) {
          const at = random.below(marks.length)
          const files = asMap(long.files, false, long)
          files.set(`${path}.checkpoints`, encoder.encode(marks.map((line) => `${line}\n`).toSpliced(at, 1).join("")))
          const { bad } = yield* verifyFiles(files, {}, path)
          assert.deepStrictEqual(
            bad && [bad.path, bad.line, bad.problem],
            at === marks.length - 1 ? undefined : [`${path}.checkpoints`, at + 1, "missing"]
          )
        }
      }),
    120_000
  )

  it.live("finds a changed checkpoint, and names the line of it", () =>
    Effect.gen(function*() {
      const random = Random.make(7)
      for (let i = 0; i < 1000; i++) {
        const files = asMap(log.files)
        const marks = new Uint8Array(log.checkpoints)
        const byte = random.below(marks.length - 1)
        marks[byte] = marks[byte]! ^ (1 << random.below(8))
        files.set(`${log.path}.checkpoints`, marks)
        const line = 1 + new Uint8Array(log.checkpoints).subarray(0, byte).filter((each) => each === 10).length
        const { bad } = yield* verifyFiles(files)
        assert.deepStrictEqual([bad?.path, bad?.line], [`${log.path}.checkpoints`, line])
      }
    }))

  it.live("needs the checkpoints to see that the end is gone, and says so when they are not there", () =>
    Effect.gen(function*() {
      const last = log.files.at(-1)!
      const cut = log.files.with(log.files.length - 1, { path: last.path, lines: last.lines.slice(0, -1) })
      assert.deepStrictEqual((yield* verifyFiles(asMap(cut))).bad, {
        path: log.path,
        line: last.lines.length,
        seq: 18,
        problem: "truncated"
      })
      assert.isUndefined((yield* verifyFiles(asMap(cut), { checkpoints: false })).bad)
      const without = asMap(log.files)
      without.delete(`${log.path}.checkpoints`)
      const error = yield* Effect.flip(verifyFiles(without))
      assert.strictEqual(error.reason._tag, "Unusable")
      assert.include(JSON.stringify(error.reason), "audit.log.checkpoints cannot be opened")
    }))

  it.live("takes no line of the checkpoints for a line of the log", () =>
    Effect.gen(function*() {
      const files = asMap(log.files)
      const first = log.files[0]!
      const mark = new TextDecoder().decode(log.checkpoints).split("\n")[0]!
      files.set(first.path, encoder.encode(`${mark}\n${first.lines.slice(1).join("")}`))
      assert.deepStrictEqual((yield* verifyFiles(files)).bad, { path: first.path, line: 1, seq: 1, problem: "changed" })
    }))

  it.live("finds lines of another course of the same log", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 10)
      const [text, marks] = [readFileSync(path, "utf8"), readFileSync(`${path}.checkpoints`)]
      // As when a backup is put back: numbers are given twice.
      rmSync(path)
      rmSync(`${path}.checkpoints`)
      yield* write(path, 100, 110)
      const other = readFileSync(path, "utf8")
      assert.isUndefined((yield* verify(path)).bad)
      writeFileSync(`${path}.checkpoints`, marks)
      assert.deepStrictEqual((yield* verify(path)).bad, { path, line: 10, seq: 10, problem: "spliced" })
      writeFileSync(path, [...text.split("\n").slice(0, 5), ...other.split("\n").slice(5)].join("\n"))
      assert.deepStrictEqual((yield* verify(path)).bad, { path, line: 6, seq: 6, problem: "spliced" })
    }))

  it.live("tells a log from another one with the same key that was put in its place, when it knows which it must be", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 5)
      const { logId = "" } = yield* verify(path)
      assert.match(logId, /^[0-9a-f]{32}$/)
      yield* write(path, 5, 6)
      assert.isUndefined((yield* verify(path, { logId })).bad)
      const other = folders.freshPath()
      yield* write(other, 100, 103)
      for (const part of ["", ".checkpoints"]) writeFileSync(path + part, readFileSync(other + part))
      const replaced = yield* verify(path)
      assert.isUndefined(replaced.bad)
      assert.notStrictEqual(replaced.logId, logId)
      assert.deepStrictEqual((yield* verify(path, { logId })).bad, { path, line: 1, seq: 1, problem: "spliced" })
      const bare = yield* verify(path, { logId, checkpoints: false })
      assert.deepStrictEqual(bare.bad, { path, line: 1, seq: 1, problem: "spliced" })
    }))

  it.live("knows a log whose oldest files were moved away only when told", () =>
    Effect.gen(function*() {
      const rest = log.files.slice(1)
      const firstSeq = parse(rest[0]!.lines[0]!).seq
      assert.deepStrictEqual((yield* verifyFiles(asMap(rest))).bad, {
        path: rest[0]!.path,
        line: 1,
        seq: 1,
        problem: "missing"
      })
      const report = yield* verifyFiles(asMap(rest), { firstSeq })
      assert.isUndefined(report.bad)
      assert.strictEqual(report.records, 18 - firstSeq + 1)
      assert.strictEqual((yield* verifyFiles(asMap(rest), { firstSeq: firstSeq + 1 })).bad?.problem, "duplicated")
      assert.strictEqual((yield* verifyFiles(asMap(rest), { firstSeq: firstSeq - 1 })).bad?.problem, "missing")
    }))

  it.live("takes every line for forged under another key", () =>
    Effect.gen(function*() {
      const report = yield* verifyFiles(asMap(log.files), {
        key: Redacted.make("another secret of at least 32 bytes.")
      })
      assert.deepStrictEqual(report.bad, { path: log.files[0]!.path, line: 1, seq: 1, problem: "forged" })
    }))

  it.live("verifies a log while it is written and rotated", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* withLog(path, { rotation: { maxBytes: 20_000 }, checkpoints: { every: 20 } }, (open) =>
        Effect.gen(function*() {
          const state = { isDone: false }
          let written = 0
          yield* open.record(record(written++))
          const writer = yield* Effect.forkChild(Effect.gen(function*() {
            while (!state.isDone) {
              yield* open.record(record(written++))
            }
          }))
          let last = 0
          let count = 0
          while (filesOf(path).length < 8) {
            count++
            const { bad, records } = yield* verify(path)
            // What is written just then may not have its end yet.
            if (bad?.problem !== "torn") {
              assert.isUndefined(bad)
            }
            assert.isAtLeast(records, last)
            last = records
          }
          state.isDone = true
          yield* Fiber.join(writer)
          assert.isAbove(count, 7)
        }))
    }))

  it.live("waits for the next file where one has just been put aside", () =>
    Effect.gen(function*() {
      const fs = memoryFiles(asMap(log.files))
      let misses = 0
      const report = yield* Effect.provideService(AuditLog.verify(log.path, { key }), FileSystem.FileSystem, {
        ...fs,
        open: (path, options) =>
          Effect.suspend(() =>
            path === log.path && misses++ < 3
              ? Effect.fail(PlatformError.systemError({ _tag: "NotFound", module: "FileSystem", method: "open" }))
              : fs.open(path, options)
          )
      })
      assert.strictEqual(report.records, 18)
      assert.strictEqual(misses, 4)
    }))

  it.live("asks for no line that was written after it had begun", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* withLog(path, { rotation: { maxBytes: 1 }, checkpoints: { every: 1 } }, (open) =>
        Effect.gen(function*() {
          yield* open.record(record(0))
          const report = yield* verify(path, {
            // The file that has just been read is put aside, and checkpoints speak of lines in files that came after it.
            onProgress: () => Effect.orDie(Effect.forEach([1, 2, 3], (i) => open.record(record(i)), { discard: true }))
          })
          assert.deepStrictEqual(report, { records: 1, files: 1, checkpoints: 1, lastSeq: 1, logId: logIdOf(path) })
        }))
      assert.strictEqual((yield* verify(path)).records, 4)
    }))

  it.live("reads a log of 200 MB in constant memory", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const more = (from: number, to: number) =>
        withLog(path, { rotation: { maxBytes: 50_000_000 } }, (log) =>
          Effect.forEach(
            Array.from({ length: to - from }, (_, i) => from + i),
            (i) => log.record({ ...record(i), callId: `call-${i}-${"x".repeat(10_000)}` }),
            { concurrency: 100, discard: true }
          ))
      yield* more(0, 1000)
      assert.isUndefined((yield* verify(path)).bad)
      const small = yield* peak(path)
      yield* more(1000, 20_000)
      const bytes = readdirSync(dirname(path)).reduce(
        (sum, name) => sum + statSync(join(dirname(path), name)).size,
        0
      )
      assert.isAbove(bytes, 190_000_000)
      const large = yield* peak(path)
      assert.isBelow(large, small + 20_000_000, `${small} and ${large} bytes`)
    }), 120_000)

  it.live("reads a log of 150,000 short lines in constant memory", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const more = (from: number, to: number) => write(path, from, to, {}, 1000)
      yield* more(0, 2000)
      assert.isUndefined((yield* verify(path)).bad)
      const small = yield* peak(path)
      yield* more(2000, 150_000)
      const large = yield* peak(path)
      // To remember a hundred bytes of every line would be as many again.
      assert.isBelow(large, small + 10_000_000, `${small} and ${large} bytes`)
    }), 120_000)

  describe("hostile files", () => {
    it.live("names line 1 of what is no log", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        writeFileSync(`${path}.checkpoints`, "")
        const line = linesOf(log.path)[0]!
        const contents: ReadonlyArray<Uint8Array> = [
          Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7919) % 256)),
          Buffer.from("\n"),
          Buffer.from("{}\n"),
          Buffer.from(`{"seq":9007199254740993,"prev":"${"0".repeat(64)}","a":1,"mac":"${"0".repeat(64)}"}\n`),
          Buffer.from(`{"seq":0,"prev":"${"0".repeat(64)}","a":1,"mac":"${"0".repeat(64)}"}\n`),
          Buffer.from(`{"seq":1,"prev":"${"0".repeat(64)}",\n`),
          Buffer.from(`{"seq":1,"prev":"${"0".repeat(64)}","mac":"${"0".repeat(64)}"}\n`),
          Buffer.from(`\ufeff${line}\n`),
          Buffer.from(`${line}\r\n`)
        ]
        for (const content of contents) {
          writeFileSync(path, content)
          assert.strictEqual((yield* verify(path)).bad?.line, 1)
        }
        for (const content of ["{", "\0\0\0"]) {
          writeFileSync(path, content)
          assert.deepStrictEqual((yield* verify(path)).bad, { path, line: 1, seq: 1, problem: "torn" })
        }
        writeFileSync(path, "")
        const nothing = { records: 0, files: 1, checkpoints: 0, lastSeq: 0 }
        // Where checkpoints are expected there must be something that they could speak of.
        const empty = { ...nothing, bad: { path, line: 1, seq: 1, problem: "empty" as const } }
        assert.deepStrictEqual(yield* verify(path), empty)
        assert.deepStrictEqual(yield* verify(path, { checkpoints: false, logId: "0".repeat(32) }), empty)
        assert.deepStrictEqual(yield* verify(path, { checkpoints: false }), nothing)
      }))

    it.live("reads a line of 100 MB without holding it", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        yield* write(path, 0, 3)
        const before = linesOf(path)
        const file = openSync(path, "a")
        const piece = Buffer.alloc(1_000_000, 65)
        for (let i = 0; i < 100; i++) writeSync(file, piece)
        writeSync(file, "\n")
        closeSync(file)
        assert.strictEqual(before.length, 3)
        assert.deepStrictEqual((yield* verify(path)).bad, { path, line: 4, seq: 4, problem: "changed" })
        assert.isBelow(yield* peak(path), 30_000_000)
      }))

    it.live("opens no folder and no pipe, and fails for what is not there", () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        const problem = Effect.map(
          Effect.flip(verify(path, { checkpoints: false })),
          ({ reason }) => reason._tag === "Unusable" ? reason.problem : reason._tag
        )
        assert.include(yield* problem, "cannot be opened")
        mkdirSync(path)
        assert.include(yield* problem, "is not a plain file")
        rmSync(path, { recursive: true })
        execFileSync("mkfifo", [path])
        assert.include(yield* problem, "is not a plain file")
      }))
  })

  it("refuses nonsense options", () => {
    const bad = (options: object, message: string) =>
      // As a caller without types would.
      assert.throws(() => AuditLog.verify("/tmp/x", { key, ...options } as AuditLog.VerifyOptions), message)
    bad({ key: secret }, "AuditLog.verify: key must be Redacted")
    bad({ logId: "0".repeat(31) }, "logId must be 32 hexadecimal digits in lower case")
    bad({ firstSeq: 0 }, "firstSeq must be an integer >= 1, got 0")
    bad({ checkpoints: "" }, "checkpoints must be a path")
    bad({ algorithm: "sha1" }, "algorithm must be one of")
    bad({ checkpoint: false }, "unknown option \"checkpoint\"")
    assert.throws(() => AuditLog.verify("", { key }), "path must be a path")
  })

  it.live("tells how far it has got", () =>
    Effect.gen(function*() {
      const told: Array<readonly [number, number]> = []
      yield* verifyFiles(asMap(log.files), {
        onProgress: (done, total) => Effect.sync(() => told.push([done, total]))
      })
      const total = log.files.reduce((sum, file) => sum + encoder.encode(file.lines.join("")).length, 0)
      assert.strictEqual(told.length, log.files.length)
      assert.deepStrictEqual(told.at(-1), [total, total])
    }))
})
