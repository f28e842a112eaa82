import { assert, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { fromSource } from "../support/workers.ts"
import { hang, startCollector } from "./collector.ts"

const start = (...args: ReadonlyArray<string>): ChildProcess =>
  spawn(process.execPath, [...fromSource, join(import.meta.dirname, "telemetryChild.ts"), ...args], {
    stdio: ["ignore", "pipe", "pipe", "ipc"]
  })

/** How long a process took to end, in milliseconds, and what it said. */
const ended = async (child: ChildProcess) => {
  const began = performance.now()
  const complaint = text(child.stderr!)
  const [code, signal] = await once(child, "exit")
  return { millis: performance.now() - began, code, signal, complaint: await complaint }
}

describe("Telemetry when the process ends", () => {
  it("has sent everything at the end of a signal, where the collector is well", async () => {
    const collector = await startCollector()
    const child = start("signal", collector.url)
    try {
      await once(child, "message")
      assert.isBelow(collector.spans().length, 3000)
      const end = ended(child)
      child.kill("SIGTERM")
      const { code, complaint } = await end
      assert.deepStrictEqual([code, complaint], [130, ""])
      assert.strictEqual(collector.spans().length, 3000)
      assert.deepStrictEqual(
        collector.points().filter(({ name }) => name === "child.work").map(({ value }) => value),
        [3000]
      )
      assert.isAtMost(collector.mostInFlight(), 2)
    } finally {
      child.kill("SIGKILL")
      await collector.close()
    }
  })

  it("ends within its bound after a signal, where the collector never answers", async () => {
    const collector = await startCollector(hang)
    const child = start("signal", collector.url)
    try {
      await once(child, "message")
      const end = ended(child)
      child.kill("SIGTERM")
      const { code, complaint, millis } = await end
      assert.deepStrictEqual([code, complaint], [130, ""])
      // Both have 3 seconds together. Without the end of the program each would try for a minute.
      assert.isAbove(millis, 2000)
      assert.isBelow(millis, 20_000)
      assert.deepStrictEqual(collector.requests.map(({ path }) => path).toSorted(), ["/v1/metrics", "/v1/traces"])
    } finally {
      child.kill("SIGKILL")
      await collector.close()
    }
  })

  it("does not keep a program alive that has come to its end", async () => {
    const collector = await startCollector(hang)
    const child = start("end", collector.url)
    try {
      const { code, complaint } = await ended(child)
      assert.deepStrictEqual([code, complaint], [0, ""])
      assert.isAbove(collector.requests.length, 0)
    } finally {
      child.kill("SIGKILL")
      await collector.close()
    }
  })

  it("does not keep a program alive that ends in the middle of a request without closing anything", async () => {
    const collector = await startCollector(hang)
    const child = start("abandoned", collector.url)
    try {
      const { code, complaint, millis } = await ended(child)
      assert.deepStrictEqual([code, complaint], [0, ""])
      assert.isAbove(collector.requests.length, 0)
      // A request may take a minute.
      assert.isBelow(millis, 25_000)
    } finally {
      child.kill("SIGKILL")
      await collector.close()
    }
  })

  it("goes on when nobody reads standard output any more, and counts what is lost", async () => {
    const child = start("stdout")
    try {
      const end = ended(child)
      await once(child.stdout!, "data")
      child.stdout!.destroy()
      const { code, complaint } = await end
      assert.strictEqual(code, 0)
      assert.isAbove(JSON.parse(complaint).lost, 0)
    } finally {
      child.kill("SIGKILL")
    }
  })
})
