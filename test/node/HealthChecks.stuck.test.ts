import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { HealthRegistry } from "effect-toolops/health"
import { DiskCheck } from "effect-toolops/node"
import { TestClock } from "effect/testing"
import { vi } from "vitest"

const disk = vi.hoisted(() => ({ asked: 0, release: (): void => {} }))

// A network file system whose server is gone: the question never comes back and nothing can take it back.
vi.mock("node:fs/promises", async (original) => ({
  ...await original<typeof import("node:fs/promises")>(),
  statfs: () => {
    disk.asked += 1
    return new Promise((resolve) => {
      disk.release = () => resolve({ blocks: 100, bavail: 50, files: 0, ffree: 0, bsize: 4096 })
    })
  }
}))

describe("DiskCheck of a file system that hangs", () => {
  it.effect("asks it once, however often it is given up on", () =>
    Effect.scoped(Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      yield* registry.register(DiskCheck.make({ path: "/mnt/gone", interval: "1 second", timeout: "100 millis" }))
      const ask = Effect.gen(function*() {
        const asking = yield* Effect.forkChild(registry.check("disk"), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        return (yield* Fiber.join(asking)).reason
      })
      for (let i = 0; i < 5; i++) assert.strictEqual(yield* ask, "timeout")
      assert.strictEqual(disk.asked, 1)
      disk.release()
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve)))
      const asking = yield* Effect.forkChild(registry.check("disk"), { startImmediately: true })
      disk.release()
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve)))
      assert.deepStrictEqual([asking.pollUnsafe()?._tag, disk.asked], ["Success", 2])
    })))
})
