import { NodeFileSystem } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Layer, PlatformError } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { AuditLog, Authenticator, AuthMiddleware, Authorizer } from "effect-toolops/auth"
import { execFileSync } from "node:child_process"
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { filesOf, key, linesOf, makeFolders, parse, record, verify, withLog, write } from "./auditFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

/** A small disk of its own, where we may make one. */
const mount = (bytes: number) => {
  const folder = folders.fresh()
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", folder], { stdio: "ignore" })
  } catch {
    return undefined
  }
  return { path: join(folder, "audit.log"), unmount: () => execFileSync("umount", ["-l", folder]) }
}

const canMount = (() => {
  const disk = mount(65_536)
  disk?.unmount()
  return disk !== undefined
})()

/** Leaves less room than a batch needs, and not none: so that writing ends in the middle of a record. */
const fill = (path: string, room: number) => {
  const filler = join(dirname(path), "filler")
  const free = Number(execFileSync("stat", ["-f", "-c", "%a %S", dirname(path)]).toString().split(" ")[0]) * 4096
  writeFileSync(filler, Buffer.alloc(Math.max(0, free - room)))
  return () => rmSync(filler)
}

const lostIn = (path: string) => linesOf(path).map(parse).filter((line) => line.kind === "lost")

describe("AuditLog.layerFile on a full disk", () => {
  it.live.skipIf(!canMount)(
    "refuses in required mode what does not fit, keeps what did, and goes on when there is room",
    () =>
      Effect.gen(function*() {
        const disk = mount(512 * 1024)!
        yield* Effect.gen(function*() {
          yield* withLog(disk.path, {}, (log) =>
            Effect.gen(function*() {
              for (let i = 0; i < 10; i++) yield* log.record(record(i))
              const empty = fill(disk.path, 4096)
              const answers = yield* Effect.forEach(
                Array.from({ length: 200 }, (_, i) => i + 10),
                (i) => Effect.result(log.record(record(i))),
                { concurrency: "unbounded" }
              )
              const failed = answers.filter((answer) => answer._tag === "Failure")
              assert.strictEqual(failed.length, 200)
              assert.strictEqual(failed[0]?.failure.reason._tag, "SinkFailed")
              // The part of them that was written has been taken back.
              assert.strictEqual(linesOf(disk.path).length, 10)
              empty()
              yield* log.record(record(1000))
            }))
          const report = yield* verify(disk.path)
          assert.isUndefined(report.bad)
          const ids = linesOf(disk.path).map((line) => parse(line).callId)
          assert.deepStrictEqual(ids.slice(0, 10), Array.from({ length: 10 }, (_, i) => `call-${i}`))
          assert.strictEqual(ids.at(-1), "call-1000")
          assert.deepStrictEqual(lostIn(disk.path).map((line) => line.count), [200])
        }).pipe(Effect.ensuring(Effect.sync(disk.unmount)))
      })
  )

  it.live.skipIf(!canMount)(
    "counts in best-effort mode what does not fit, says so in the log, and breaks no call",
    () =>
      Effect.gen(function*() {
        const disk = mount(512 * 1024)!
        yield* Effect.gen(function*() {
          yield* withLog(disk.path, { mode: "best-effort" }, (log) =>
            Effect.gen(function*() {
              yield* log.record(record(0))
              yield* log.flush
              const empty = fill(disk.path, 8192)
              for (let i = 1; i <= 500; i++) yield* log.record(record(i))
              yield* log.flush
              assert.strictEqual((yield* log.stats).lost, 500)
              empty()
              yield* log.record(record(1000))
              yield* log.flush
            }))
          const report = yield* verify(disk.path)
          assert.isUndefined(report.bad)
          assert.strictEqual(report.records, 3)
          assert.deepStrictEqual(lostIn(disk.path).map((line) => line.count), [500])
        }).pipe(Effect.ensuring(Effect.sync(disk.unmount)))
      })
  )

  it.live.skipIf(!canMount)(
    "starts no more than the disk lets it, and loses nothing of what is there",
    () =>
      Effect.gen(function*() {
        const disk = mount(512 * 1024)!
        yield* Effect.gen(function*() {
          yield* write(disk.path, 0, 5)
          const { mac } = parse(linesOf(disk.path)[4]!)
          const torn = readFileSync(disk.path, "utf8") + `{"seq":6,"prev":"${mac}"`
          writeFileSync(disk.path, torn)
          const empty = fill(disk.path, 0)
          const error = yield* Effect.flip(write(disk.path, 5, 6))
          assert.strictEqual(error.reason._tag, "Unusable")
          assert.strictEqual(readFileSync(disk.path, "utf8"), torn)
          empty()
          yield* write(disk.path, 5, 6)
          const report = yield* verify(disk.path)
          assert.isUndefined(report.bad)
          assert.strictEqual(report.records, 7)
        }).pipe(Effect.ensuring(Effect.sync(disk.unmount)))
      })
  )

  it.live("runs no call whose decision cannot be recorded, and runs it in best-effort mode", () =>
    Effect.gen(function*() {
      const tool = ToolMeta.make({ name: "echo" })
      for (const mode of ["required", "best-effort"] as const) {
        const path = folders.freshPath()
        const disk = failing()
        const Auth = AuthMiddleware.layer.pipe(Layer.provide([
          Authenticator.layerAnonymous,
          Authorizer.layerAllowAll,
          Layer.provide(AuditLog.layerFile({ path, key, mode }), disk.layer)
        ]))
        let runs = 0
        yield* Effect.gen(function*() {
          const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
          const call = pipeline.run({ tool, input: "hi" }, Effect.sync(() => ++runs))
          yield* call
          disk.state.isFull = true
          const exit = yield* Effect.result(call)
          assert.strictEqual(exit._tag, mode === "required" ? "Failure" : "Success")
          if (exit._tag === "Failure") assert.strictEqual(exit.failure.reason._tag, "AuthUnavailable")
          assert.strictEqual(runs, mode === "required" ? 1 : 2)
          disk.state.isFull = false
          yield* call
        }).pipe(Effect.provide(Auth))
        assert.isUndefined((yield* verify(path)).bad)
      }
    }))

  it.live("opens the file anew when not even what was written in part can be taken back", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const disk = failing()
      yield* Effect.gen(function*() {
        const log = yield* AuditLog.AuditLog
        yield* log.record(record(0))
        disk.state.isFull = true
        disk.state.isStuck = true
        yield* Effect.flip(log.record(record(1)))
        assert.isFalse(readFileSync(path, "utf8").endsWith("\n"))
        yield* Effect.flip(log.record(record(2)))
        disk.state.isFull = false
        disk.state.isStuck = false
        yield* log.record(record(3))
      }).pipe(Effect.provide(Layer.provide(AuditLog.layerFile({ path, key, mode: "required" }), disk.layer)))
      const report = yield* verify(path)
      assert.isUndefined(report.bad)
      assert.deepStrictEqual(linesOf(path).map((line) => parse(line).kind), ["call", "repaired", "lost", "call"])
    }))

  it.live("goes on without a checkpoint that cannot be written, and writes it later", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const disk = failing((at) => at.endsWith(".checkpoints"))
      yield* Effect.gen(function*() {
        const log = yield* AuditLog.AuditLog
        disk.state.isFull = true
        for (let i = 0; i < 5; i++) yield* log.record(record(i))
        assert.strictEqual(statSync(`${path}.checkpoints`).size, 0)
        disk.state.isFull = false
      }).pipe(
        Effect.provide(
          Layer.provide(AuditLog.layerFile({ path, key, mode: "required", checkpoints: { every: 2 } }), disk.layer)
        )
      )
      const report = yield* verify(path)
      assert.isUndefined(report.bad)
      assert.strictEqual(report.checkpoints, 1)
    }))

  it.live("does not write into a write that has been given up", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const disk = failing()
      yield* Effect.gen(function*() {
        const log = yield* AuditLog.AuditLog
        yield* log.record(record(0))
        disk.state.delayMillis = 300
        const late = yield* Effect.flip(log.record(record(1)))
        assert.strictEqual(late.reason._tag, "SinkTimedOut")
        disk.state.delayMillis = 0
        // Refused until the slow write has ended.
        const accepted = yield* Effect.forkChild(Effect.eventually(Effect.delay(log.record(record(2)), 20)))
        yield* Fiber.join(accepted)
      }).pipe(
        Effect.provide(Layer.provide(AuditLog.layerFile({ path, key, mode: "required", writeTimeout: 50 }), disk.layer))
      )
      const report = yield* verify(path)
      assert.isUndefined(report.bad)
      assert.strictEqual(filesOf(path).length, 1)
    }))
})

/** The real file system, on which writing can be made to fail half-way, taking back to fail too, or all to be slow. */
const failing = (isMeant: (path: string) => boolean = () => true) => {
  const state = { isFull: false, isStuck: false, delayMillis: 0 }
  const error = (method: string) =>
    Effect.fail(PlatformError.systemError({ _tag: "Unknown", module: "FileSystem", method, description: "ENOSPC" }))
  const layer = Layer.effect(
    FileSystem.FileSystem,
    Effect.map(FileSystem.FileSystem, (fs) => ({
      ...fs,
      open: (path: string, options?: Parameters<FileSystem.FileSystem["open"]>[1]) =>
        Effect.map(fs.open(path, options), (file) => isMeant(path) ? new FailingFile(file, state, error) : file)
    }))
  ).pipe(Layer.provide(NodeFileSystem.layer))
  return { state, layer }
}

class FailingFile implements FileSystem.File {
  readonly [FileSystem.FileTypeId]: typeof FileSystem.FileTypeId = FileSystem.FileTypeId
  readonly #file: FileSystem.File
  readonly #state: { readonly isFull: boolean; readonly isStuck: boolean; readonly delayMillis: number }
  readonly #error: (method: string) => Effect.Effect<never, PlatformError.PlatformError>

  constructor(
    file: FileSystem.File,
    state: FailingFile["state"],
    error: (method: string) => Effect.Effect<never, PlatformError.PlatformError>
  ) {
    this.#file = file
    this.#state = state
    this.#error = error
  }

  get state() {
    return this.#state
  }
  get stat() {
    return this.#file.stat
  }
  get sync() {
    return Effect.suspend(() => Effect.delay(this.#file.sync, this.#state.delayMillis))
  }
  seek(offset: bigint, from: FileSystem.SeekMode) {
    return this.#file.seek(offset, from)
  }
  read(buffer: Uint8Array, options?: FileSystem.File.ReadOptions) {
    return this.#file.read(buffer, options)
  }
  readAlloc(size: number, options?: FileSystem.File.ReadOptions) {
    return this.#file.readAlloc(size, options)
  }
  truncate(length?: number) {
    return Effect.suspend(() => this.#state.isStuck ? this.#error("truncate") : this.#file.truncate(length))
  }
  write(buffer: Uint8Array) {
    return this.#file.write(buffer)
  }
  writeAll(buffer: Uint8Array) {
    return Effect.suspend(() =>
      this.#state.isFull
        ? Effect.andThen(this.#file.writeAll(buffer.subarray(0, buffer.length >> 1)), this.#error("writeAll"))
        : this.#file.writeAll(buffer)
    )
  }
}
