import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { linesOf, logIdOf, makeFolders, secret, write } from "../auth/auditFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

const main = join(import.meta.dirname, "../../src/node/cli/main.ts")
const command = [process.execPath, "-C", "@effect-toolops/source", main]

interface Answer {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

const start = (program: string, args: ReadonlyArray<string>, env: Record<string, string>) =>
  new Promise<Answer>((resolve, reject) => {
    const { EFFECT_TOOLOPS_AUDIT_KEY: _, ...inherited } = process.env
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...inherited, ...env } })
    let out = ""
    let err = ""
    child.stdout.on("data", (piece) => out += String(piece))
    child.stderr.on("data", (piece) => err += String(piece))
    child.once("error", reject)
    child.once("close", (code) => resolve({ code, out, err }))
  })

const run = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  start(command[0]!, [...command.slice(1), ...args], env)

const withKey = { EFFECT_TOOLOPS_AUDIT_KEY: secret }

describe("effect-toolops audit verify", () => {
  const path = folders.freshPath()
  beforeAll(() => Effect.runPromise(write(path, 0, 20, { rotation: { maxBytes: 3000 }, checkpoints: { every: 10 } })))

  it("answers with 0 for a good log, and draws nothing where there is no terminal", async () => {
    const answer = await run(["audit", "verify", path], withKey)
    assert.match(answer.out, /^good: 20 records up to number 20, files: \d+, checkpoints: \d+, log id: [0-9a-f]{32}\n$/)
    assert.strictEqual(answer.err, "")
    assert.strictEqual(answer.code, 0)
  })

  it("answers with 1 for a bad log, and names the line and what is wrong", async () => {
    const bad = folders.freshPath()
    await Effect.runPromise(write(bad, 0, 5))
    writeFileSync(bad, linesOf(bad).toSpliced(2, 1).join("\n") + "\n")
    const answer = await run(["audit", "verify", bad], withKey)
    assert.include(
      answer.out,
      `bad: ${bad} line 3: missing: lines that were written are not there (should be record 3)\n`
    )
    assert.strictEqual(answer.code, 1)
    const json = await run(["audit", "verify", bad, "--json"], withKey)
    assert.deepStrictEqual(JSON.parse(json.out), {
      records: 2,
      files: 1,
      checkpoints: 0,
      lastSeq: 2,
      logId: logIdOf(bad),
      bad: { path: bad, line: 3, seq: 3, problem: "missing" }
    })
    assert.strictEqual(json.code, 1)
  })

  it("takes the key from a variable or a file, and from no argument", async () => {
    const file = join(dirname(folders.freshPath()), "key")
    writeFileSync(file, `${secret}\n`)
    assert.strictEqual((await run(["audit", "verify", path, "--key-file", file])).code, 0)
    assert.strictEqual((await run(["audit", "verify", path, "--key-env", "OTHER"], { OTHER: secret })).code, 0)
    const argument = await run(["audit", "verify", path, "--key", secret])
    assert.strictEqual(argument.code, 1)
    assert.notMatch(argument.out, /^good/m)
    const none = await run(["audit", "verify", path])
    assert.strictEqual(none.code, 1)
    assert.include(none.err, "no key: set the environment variable EFFECT_TOOLOPS_AUDIT_KEY")
    const absent = await run(["audit", "verify", path, "--key-file", `${file}.not`])
    assert.include(absent.err, `the key cannot be read from ${file}.not`)
    const short = await run(["audit", "verify", path], { EFFECT_TOOLOPS_AUDIT_KEY: "canary-short" })
    assert.include(short.err, "key must have at least 32 bytes")
    for (const { err, out } of [none, absent, short]) assert.notInclude(out + err, "canary")
  })

  it("says what it needs to read and cannot", async () => {
    const alone = folders.freshPath()
    await Effect.runPromise(write(alone, 0, 5))
    rmSync(`${alone}.checkpoints`)
    const without = await run(["audit", "verify", alone], withKey)
    assert.include(without.err, `${alone}.checkpoints cannot be opened`)
    assert.strictEqual(without.code, 1)
    assert.strictEqual((await run(["audit", "verify", alone, "--without-checkpoints"], withKey)).code, 0)
    const elsewhere = await run(["audit", "verify", path, "--checkpoints", `${path}.checkpoints`], withKey)
    assert.strictEqual(elsewhere.code, 0)
    const wrong = await run(["audit", "verify", path, "--first-seq", "0"], withKey)
    assert.include(wrong.err, "firstSeq must be an integer >= 1, got 0")
    assert.strictEqual((await run(["audit", "verify"], withKey)).code, 1)
    assert.strictEqual((await run(["audit", "veryfy", path], withKey)).code, 1)
  })

  it("answers with 1 for a log in the place of the one that was meant, and for one that was emptied", async () => {
    const log = folders.freshPath()
    await Effect.runPromise(write(log, 0, 5))
    const logId = logIdOf(log)
    assert.strictEqual((await run(["audit", "verify", log, "--log-id", logId], withKey)).code, 0)
    const other = await run(["audit", "verify", path, "--log-id", logId], withKey)
    assert.include(other.out, "line 1: spliced")
    assert.strictEqual(other.code, 1)
    const wrong = await run(["audit", "verify", path, "--log-id", "1"], withKey)
    assert.include(wrong.err, "logId must be 32 hexadecimal digits")
    assert.strictEqual(wrong.code, 1)
    for (const part of ["", ".checkpoints"]) writeFileSync(log + part, "")
    const empty = await run(["audit", "verify", log], withKey)
    assert.include(empty.out, `bad: ${log} line 1: empty: there is no record`)
    assert.strictEqual(empty.code, 1)
  })

  it.skipIf(!existsSync("/dev/full"))("answers with 1 when its answer cannot be written", async () => {
    const shell = [...command, "audit", "verify", path].map((word) => `'${word}'`).join(" ")
    const answer = await start("/bin/sh", ["-c", `${shell} > /dev/full`], withKey)
    assert.strictEqual(answer.code, 1)
    assert.match(answer.err, /^effect-toolops: cannot write the answer: .*\n$/)
    const closed = await start("/bin/sh", ["-c", `${shell} | true; exit 0`], withKey)
    assert.strictEqual(closed.code, 0)
    assert.notInclude(closed.err, "at ")
  })

  it("tells its version and its help", async () => {
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8")) as {
      readonly version: string
    }
    assert.include((await run(["--version"])).out, version)
    const help = await run(["audit", "verify", "--help"])
    assert.strictEqual(help.code, 0)
    assert.include(help.out, "--key-file")
  })

  // The tool of util-linux that gives a command a terminal.
  it.skipIf(!existsSync("/usr/bin/script"))("draws its progress on a terminal, and takes it away again", async () => {
    const shell = [...command, "audit", "verify", path].map((word) => `'${word}'`).join(" ")
    const answer = await start("/usr/bin/script", ["-qec", shell, "/dev/null"], withKey)
    assert.strictEqual(answer.code, 0)
    assert.match(answer.out, /\r\[#{30}\] 100 % {2}0\.0 of 0\.0 MB/)
    assert.include(answer.out, "\r\u001b[2K")
    assert.match(answer.out, /good: 20 records/)
  })
})
