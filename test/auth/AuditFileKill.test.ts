import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync } from "node:fs"
import { availableParallelism } from "node:os"
import { dirname, join } from "node:path"
import { build } from "rolldown"
import * as Random from "../support/random.ts"
import { filesOf, linesOf, makeFolders, parse, verify, withLog, write } from "./auditFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

// To start is most of what a child does: as one file that is compiled already it takes a third of the time.
const bundle = folders.fresh()
const program = join(bundle, "auditWriter.js")
beforeAll(async () => {
  await build({
    input: join(import.meta.dirname, "auditWriter.ts"),
    platform: "node",
    resolve: { conditionNames: ["@effect-toolops/source", "node", "import"] },
    output: { dir: bundle, format: "esm" }
  })
  // Only one that ends by itself leaves what has been compiled.
  await once(start(join(bundle, "none", "audit.log"), join(bundle, "acknowledged")), "exit")
})

const children = new Set<ChildProcess>()
afterAll(() => children.forEach((child) => child.kill("SIGKILL")))

const start = (...args: ReadonlyArray<string>): ChildProcess => {
  const child = spawn(process.execPath, [program, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, NODE_COMPILE_CACHE: bundle }
  })
  children.add(child)
  child.once("exit", () => children.delete(child))
  return child
}

const firstLine = async (child: ChildProcess): Promise<string> => {
  let text = ""
  for await (const piece of child.stdout!) {
    text += String(piece)
    const end = text.indexOf("\n")
    if (end !== -1) return text.slice(0, end)
  }
  return text
}

const sleep = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

const kill = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, "exit")
  child.kill("SIGKILL")
  await exit
}

const acknowledged = (path: string): ReadonlyArray<string> =>
  existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : []

describe("AuditLog.layerFile, killed", () => {
  const kills = 300
  it(
    `keeps every acknowledged record over ${kills} kills at random moments, and every start puts right what they left`,
    async () => {
      const random = Random.make(99)
      const lanes = Math.min(3, availableParallelism())
      let records = 0
      let killsWhileOpen = 0
      await Promise.all(Array.from({ length: lanes }, async (_, lane) => {
        const path = folders.freshPath()
        const acks = join(dirname(path), "acknowledged")
        for (let i = lane; i < kills; i += lanes) {
          // Small files, so that many kills meet a rotation.
          const child = start(path, acks, "20000")
          if (random.below(6) === 0 && i >= lanes) {
            // Some are killed while they start, or put right what the last kill has left.
            await sleep(30 + random.below(150))
          } else {
            assert.strictEqual(await firstLine(child), "open")
            killsWhileOpen++
            // A process that has just started is slow: some get the time to come to full speed.
            await sleep(random.below(20) === 0 ? 200 + random.below(200) : random.next() * 25)
          }
          await kill(child)
          if (i % 30 < lanes) {
            const report = await Effect.runPromise(verify(path))
            // What the kill has torn is there until the next start.
            if (report.bad?.problem !== "torn") assert.isUndefined(report.bad)
          }
        }
        await Effect.runPromise(write(path, 0, 1))
        const report = await Effect.runPromise(verify(path))
        assert.isUndefined(report.bad)
        const lines = filesOf(path).flatMap(linesOf).map(parse)
        assert.strictEqual(report.records, lines.length)
        records += lines.length
        const there = lines.filter((line) => line.kind !== "repaired").map((line) => line.callId)
        const ids = new Set(there)
        assert.strictEqual(ids.size, there.length)
        const acknowledgements = acknowledged(acks)
        assert.isAbove(acknowledgements.length, 1000)
        assert.deepStrictEqual(acknowledgements.filter((id) => !ids.has(id)), [])
        assert.deepStrictEqual(readdirSync(dirname(path)).filter((name) => name.includes(".lock.")), [])
      }))
      assert.isAbove(killsWhileOpen, 200)
      assert.isAbove(records, 5000)
    },
    180_000
  )
})

describe("AuditLog.layerFile, with other writers", () => {
  it("refuses a second process on the same file, and names the first", async () => {
    const path = folders.freshPath()
    const first = start(path, join(dirname(path), "acknowledged"))
    assert.strictEqual(await firstLine(first), "open")
    const second = start(path, join(dirname(path), "acknowledged-2"))
    const answer = JSON.parse(await firstLine(second)) as { _tag: string; problem: string }
    assert.strictEqual(answer._tag, "Unusable")
    assert.include(answer.problem, `${path} is being written by process ${first.pid} on `)
    assert.include(answer.problem, `${path}.lock.${first.pid}-`)
    await once(second, "exit")
    assert.strictEqual(second.exitCode, 3)
    assert.isFalse(existsSync(join(dirname(path), "acknowledged-2")))
    await kill(first)
    // It is gone for certain, so its lock is nothing.
    await Effect.runPromise(write(path, 0, 1))
    assert.isUndefined((await Effect.runPromise(verify(path))).bad)
  })

  it("lets one of many that start together have the file", async () => {
    for (let round = 0; round < 3; round++) {
      const path = folders.freshPath()
      const starting = Array.from({ length: 4 }, (_, i) => start(path, join(dirname(path), `acknowledged-${i}`)))
      const answers = await Promise.all(starting.map(firstLine))
      // All may give way to each other, and then try again: never may two have it.
      assert.isAtMost(answers.filter((answer) => answer === "open").length, 1)
      await Promise.all(starting.map(kill))
      await Effect.runPromise(write(path, 0, 1))
      assert.isUndefined((await Effect.runPromise(verify(path))).bad)
    }
  })

  it.live("refuses a second writer in the same process", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* withLog(path, {}, () =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(write(path, 0, 1))
          assert.include(JSON.stringify(error.reason), "is being written by process")
        }))
      yield* write(path, 0, 1)
    }))

  it.live("takes over from who is gone for certain, and from nobody else", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const mine = yield* withLog(path, {}, () =>
        Effect.sync(() => {
          const name = readdirSync(dirname(path)).find((each) => each.includes(".lock."))!
          return readlinkSync(join(dirname(path), name)).split(" ")
        }))
      const [pid, started, host, boot, space] = mine as [string, string, string, string, string]
      const leave = (text: string) => symlinkSync(text, `${path}.lock.left`)
      const left = () => readdirSync(dirname(path)).includes("audit.log.lock.left")
      const gone = [
        // A number of a process that is not there, one that was given again, and a machine that was started again.
        [String(2 ** 22 - 7), started, host, boot, space],
        [pid, "1", host, boot, space],
        ["1", started, host, "another-boot", space]
      ]
      for (const text of gone) {
        leave(text.join(" "))
        yield* write(path, 0, 1)
        assert.isFalse(left())
      }
      const others = [
        [pid, started, host, boot, space],
        [pid, started, "another-host", "another-boot", space],
        [pid, "1", host, boot, "another-container"],
        ["who", "knows"],
        [`${"x".repeat(500)}`]
      ]
      for (const text of others) {
        leave(text.join(" "))
        const error = yield* Effect.flip(write(path, 0, 1))
        assert.include(JSON.stringify(error.reason), "If it is gone, remove")
        assert.isTrue(left())
        rmSync(`${path}.lock.left`)
      }
      yield* write(path, 0, 1)
      assert.isUndefined((yield* verify(path)).bad)
    }))
})
