import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer } from "effect"
import { HealthCheck, HealthRegistry } from "effect-toolops/health"
import { DiskCheck, EventLoopCheck, MemoryCheck, SqliteCheck } from "effect-toolops/node"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { getHeapStatistics } from "node:v8"
import { startServer, until } from "./gracefulChild.ts"

const run = (check: HealthCheck.HealthCheck) =>
  Effect.scoped(Effect.gen(function*() {
    const registry = yield* HealthRegistry.make
    yield* registry.register(check)
    return yield* registry.check(check.name)
  }))

const inFolder = <A, E>(f: (folder: string) => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-toolops-health-"))),
    f,
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )

const MiB = 1024 * 1024

/** A cgroup of version 2 as its files tell it. */
const cgroup = (folder: string, limit: number | "max", current: number, inactive = 0): string => {
  writeFileSync(join(folder, "memory.max"), `${limit}\n`)
  writeFileSync(join(folder, "memory.current"), `${current}\n`)
  writeFileSync(join(folder, "memory.stat"), `anon 1\ninactive_file ${inactive}\nactive_file 5\n`)
  return folder
}

describe("MemoryCheck", () => {
  it.effect("compares the heap with V8's limit, and is degraded from warn and unhealthy from critical", () =>
    Effect.gen(function*() {
      const none = { cgroup: "/nonexistent" }
      const { details, status } = yield* run(MemoryCheck.make(none))
      assert.strictEqual(status, "healthy")
      assert.strictEqual(details?.["heapLimitBytes"], getHeapStatistics().heap_size_limit)
      assert.notProperty(details, "cgroupShare")
      assert.strictEqual((yield* run(MemoryCheck.make({ ...none, warn: 0.000_001 }))).status, "degraded")
      assert.strictEqual(
        (yield* run(MemoryCheck.make({ ...none, warn: 0.000_001, critical: 0.000_001 }))).status,
        "unhealthy"
      )
    }))

  it.effect("compares the container's memory with its limit, without the file cache that can be dropped", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const statusAt = (current: number, inactive?: number) =>
          Effect.map(
            run(MemoryCheck.make({ cgroup: cgroup(folder, 100 * MiB, current * MiB, (inactive ?? 0) * MiB) })),
            ({ details, status }) => [status, details?.["cgroupShare"]]
          )
        assert.deepStrictEqual(yield* statusAt(79), ["healthy", 0.79])
        assert.deepStrictEqual(yield* statusAt(80), ["degraded", 0.8])
        assert.deepStrictEqual(yield* statusAt(94), ["degraded", 0.94])
        assert.deepStrictEqual(yield* statusAt(95), ["unhealthy", 0.95])
        assert.deepStrictEqual(yield* statusAt(99, 60), ["healthy", 0.39])
      })
    ))

  it.effect("does without a limit where the cgroup has none, or its files make no sense", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        for (const limit of ["max", 0, 2 ** 63] as const) {
          const { details, status } = yield* run(MemoryCheck.make({ cgroup: cgroup(folder, limit, 10 * MiB) }))
          assert.strictEqual(status, "healthy")
          assert.notProperty(details, "cgroupShare", String(limit))
        }
      })
    ))

  it("refuses shares that make no sense", () => {
    assert.throws(() => MemoryCheck.make({ warn: 0 }), "MemoryCheck.make: warn must be a number > 0 and <= 1")
    assert.throws(() => MemoryCheck.make({ warn: 0.9, critical: 0.8 }), "critical must be a number >= 0.9")
    assert.throws(() => MemoryCheck.make({ wran: 0.9 } as never), "unknown option \"wran\"")
  })

  it("changes its mind only after three bad looks, so that one full heap refuses no traffic", () => {
    assert.strictEqual(MemoryCheck.make().failAfter, 3)
    assert.deepStrictEqual([MemoryCheck.make().critical, MemoryCheck.make({ isCritical: false }).critical], [
      true,
      false
    ])
  })
})

describe("DiskCheck", () => {
  it.live("tells how full the file system is", () =>
    Effect.gen(function*() {
      const { details, status } = yield* run(DiskCheck.make({ path: tmpdir(), warn: 1 }))
      assert.notStrictEqual(status, "degraded")
      assert.isAbove(Number(details?.["totalBytes"]), 0)
      assert.isAtMost(Number(details?.["availableBytes"]), Number(details?.["totalBytes"]))
      const full = yield* run(DiskCheck.make({ path: tmpdir(), warn: 1e-9, critical: 1e-9 }))
      // Nothing at all may be in use on a file system of this machine's memory.
      const isUsed = Number(full.details?.["usedShare"]) > 0 || Number(full.details?.["usedFilesShare"]) > 0
      assert.strictEqual(full.status, isUsed ? "unhealthy" : "healthy")
    }))

  it.live("fails for a path that is not there, without telling it", () =>
    Effect.gen(function*() {
      const report = yield* run(DiskCheck.make({ path: "/no/such/canary" }))
      assert.deepStrictEqual([report.status, report.reason], ["unhealthy", "failed"])
      assert.notInclude(JSON.stringify(report), "canary")
    }))
})

describe("SqliteCheck", () => {
  it.effect("reads the file and never makes one", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const path = join(folder, "data.db")
        assert.strictEqual((yield* run(SqliteCheck.make({ path }))).reason, "failed")
        assert.throws(() => new DatabaseSync(path, { readOnly: true }))
        const database = new DatabaseSync(path)
        database.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        assert.strictEqual((yield* run(SqliteCheck.make({ path }))).status, "healthy")
        // A writer in the middle of its work does not keep readers out.
        database.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)")
        assert.strictEqual((yield* run(SqliteCheck.make({ path }))).status, "healthy")
        database.exec("COMMIT")
        database.close()
        writeFileSync(path, "this is no database, however long it may be ".repeat(100))
        assert.strictEqual((yield* run(SqliteCheck.make({ path }))).status, "unhealthy")
      })
    ))
})

describe("SqliteCheck of a file that a writer has locked", () => {
  it.live("waits for the lock, without stopping the event loop, and gives up at its timeout", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        const path = join(folder, "data.db")
        const writer = new DatabaseSync(path)
        writer.exec("PRAGMA journal_mode = DELETE; CREATE TABLE t (a); BEGIN EXCLUSIVE")
        const commit = setTimeout(() => writer.exec("COMMIT"), 50)
        const { durationMillis, status } = yield* run(SqliteCheck.make({ path, timeout: "1 minute" }))
        clearTimeout(commit)
        assert.strictEqual(status, "healthy")
        assert.isAtLeast(durationMillis, 40)
        writer.exec("BEGIN EXCLUSIVE")
        const stuck = yield* run(SqliteCheck.make({ path, timeout: "200 millis" }))
        assert.deepStrictEqual([stuck.status, stuck.reason], ["unhealthy", "timeout"])
        writer.close()
      })
    ))
})

describe("EventLoopCheck", () => {
  it.live("is healthy while the loop turns, and says so of a pause", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.HealthRegistry
      const block = (millis: number) =>
        Effect.sync(() => {
          const end = performance.now() + millis
          while (performance.now() < end);
        })
      // What others do to this machine is a pause as well, so a quiet moment is waited for.
      yield* Effect.repeat(registry.check("event-loop"), { until: ({ status }) => status === "healthy" })
      yield* block(800)
      const report = yield* registry.check("event-loop")
      assert.strictEqual(report.status, "degraded")
      assert.isAtLeast(Number(report.details?.["worstDelayMillis"]), 700)
      // Told twice at most, whatever the reader does.
      yield* Effect.repeat(registry.check("event-loop"), { until: ({ status }) => status === "healthy" })
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          EventLoopCheck.layer({ interval: 0, failAfter: 1, warn: "500 millis", critical: "1 minute" }),
          HealthRegistry.layer
        )
      )
    ))

  it("tells a pause of 3 seconds of a real server, which answers liveness as soon as it can", {
    timeout: 120_000
  }, async () => {
    await using server = await startServer()
    const worst = async () => {
      const { checks } = JSON.parse((await server.ask("/health")).text)
      return Number(checks["event-loop"].details?.worstDelayMillis)
    }
    await until(async () => (await worst()) < 1000)
    const blocked = server.ask("/block/3000", "POST")
    const looks = (async () => {
      let most = 0
      await until(async () => (most = Math.max(most, await worst())) >= 2500)
      return most
    })()
    assert.deepStrictEqual([(await blocked).text, (await server.ask("/healthz")).status], ["blocked", 200])
    assert.isAtLeast(await looks, 2500)
  })

  it("refuses thresholds that make no sense", () => {
    assert.throws(
      () => EventLoopCheck.layer({ warn: "2 seconds", critical: "1 second" }),
      "critical must be at least warn"
    )
  })
})

describe("the ready-made checks", () => {
  it.live("take their options from the configuration", () =>
    inFolder((folder) =>
      Effect.gen(function*() {
        new DatabaseSync(join(folder, "db")).close()
        const registry = yield* HealthRegistry.HealthRegistry
        const env = {
          DISK: folder,
          DB: join(folder, "db"),
          WARN: "0.000001",
          CGROUP: "/nonexistent",
          DELAY: "1 hour",
          NAME: "loop"
        }
        const Checks = Layer.mergeAll(
          MemoryCheck.layerConfig({ warn: Config.Number("WARN"), cgroup: Config.String("CGROUP") }),
          DiskCheck.layerConfig({ path: Config.String("DISK"), isCritical: Config.succeed(false) }),
          SqliteCheck.layerConfig({ path: Config.String("DB"), groups: Config.succeed(["startup"]) }),
          EventLoopCheck.layerConfig({ critical: Config.Duration("DELAY"), name: Config.String("NAME") })
        )
        const provider = ConfigProvider.layer(ConfigProvider.fromEnvRecord(env))
        yield* Effect.gen(function*() {
          assert.strictEqual((yield* registry.check("memory")).status, "degraded")
          assert.strictEqual((yield* registry.check("disk")).critical, false)
          const { checks } = yield* registry.report("startup")
          assert.deepStrictEqual(checks.map(({ name, status }) => [name, status]), [["sqlite", "healthy"]])
          assert.notStrictEqual((yield* registry.check("loop")).status, "unhealthy")
        }).pipe(Effect.provide(Layer.provide(Checks, provider)))
        // What is missing is no check.
        const none = SqliteCheck.layerConfig({ path: Config.String("NOWHERE") })
        const error = yield* Effect.flip(Effect.provide(Effect.void, Layer.provide(none, provider)))
        assert.include(String(error), "NOWHERE")
      }).pipe(Effect.provide(HealthRegistry.layer))
    ))
})

describe("a server with 10,000 calls in flight", () => {
  it("answers liveness within a second, 99 times of 100", { timeout: 120_000 }, async () => {
    await using server = await startServer()
    await server.ask("/crowd/10000", "POST")
    await until(async () => (await server.ask("/in-flight")).text === "10000")
    const took: Array<number> = []
    for (let i = 0; i < 300; i++) {
      const begun = performance.now()
      assert.strictEqual((await server.ask("/healthz")).status, 200)
      took.push(performance.now() - begun)
    }
    const p99 = took.toSorted((a, b) => a - b)[296]!
    assert.isBelow(p99, 1000)
    // The calls are still there: it was not an idle server that answered.
    assert.isAbove(Number((await server.ask("/in-flight")).text), 9000)
  })
})
