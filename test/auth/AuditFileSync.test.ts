import { NodeFileSystem } from "@effect/platform-node"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, PlatformError } from "effect"
import { AuditLog } from "effect-toolops/auth"
import { appendFileSync, chmodSync, existsSync, statSync, writeFileSync } from "node:fs"
import { basename, dirname } from "node:path"
import { key, linesOf, makeFolders, parse, record, verify, withLog, write } from "./auditFiles.ts"

// What must be on the disk before what: a file system that forgets all that was not synced would lose records, or the
// file's name, when the machine goes down.

const folders = makeFolders()
afterAll(folders.remove)

/** The real file system, which tells what is done to it in what order, and can be told to fail. */
const watched = (path: string) => {
  const events: Array<string> = []
  const state = {
    /** How many of the next syncs of the log fail. */
    failingSyncs: 0,
    beforeOpen: (_path: string, _flag: string | undefined): void => {}
  }
  const nameOf = (at: string) => at === dirname(path) ? "folder" : basename(at).replace(/torn-.*/, "torn")
  const layer = Layer.effect(
    FileSystem.FileSystem,
    Effect.map(FileSystem.FileSystem, (fs) => ({
      ...fs,
      rename: (from: string, to: string) =>
        Effect.tap(fs.rename(from, to), () => Effect.sync(() => events.push(`rename ${nameOf(from)}`))),
      open: (at: string, options?: Parameters<FileSystem.FileSystem["open"]>[1]) =>
        Effect.suspend(() => {
          state.beforeOpen(at, options?.flag)
          if (options?.flag !== "r") events.push(`${existsSync(at) ? "open" : "make"} ${nameOf(at)}`)
          return Effect.map(fs.open(at, options), (file) =>
            new Proxy(file, {
              get: (target, name) => {
                const tell = (what: string) => Effect.sync(() => events.push(`${what} ${nameOf(at)}`))
                if (name === "sync") {
                  return Effect.suspend(() => {
                    if (at === path && state.failingSyncs-- > 0) {
                      return Effect.fail(
                        PlatformError.systemError({ _tag: "Unknown", module: "FileSystem", method: "sync" })
                      )
                    }
                    return Effect.tap(target.sync, () => tell("sync"))
                  })
                }
                if (name === "writeAll") {
                  return (bytes: Uint8Array) => Effect.tap(target.writeAll(bytes), () => tell("write"))
                }
                if (name === "truncate") {
                  return (length?: number) => Effect.tap(target.truncate(length), () => tell("truncate"))
                }
                const value: unknown = Reflect.get(target, name, target)
                return typeof value === "function" ? value.bind(target) : value
              }
            }))
        })
    }))
  ).pipe(Layer.provide(NodeFileSystem.layer))
  const use = <A, E>(
    run: (log: AuditLog.AuditLog["Service"]) => Effect.Effect<A, E>,
    options: Partial<AuditLog.FileOptions> = {}
  ) =>
    Effect.flatMap(AuditLog.AuditLog, run).pipe(
      Effect.provide(Layer.provide(AuditLog.layerFile({ path, key, mode: "required", ...options }), layer))
    )
  return { events, state, use }
}

/** The events, in order, are among those that there were, in order; `!` before one says that it is not until the next. */
const assertOrder = (events: ReadonlyArray<string>, expected: ReadonlyArray<string>) => {
  let at = 0
  let forbidden: ReadonlyArray<string> = []
  for (const event of expected) {
    if (event.startsWith("!")) {
      forbidden = [...forbidden, event.slice(1)]
      continue
    }
    const next = events.indexOf(event, at)
    assert.isAtLeast(next, at, `no ${event} after ${events.slice(0, at).join(", ")} in ${events.join(", ")}`)
    for (const none of forbidden) assert.notInclude(events.slice(at, next), none, events.join(", "))
    forbidden = []
    at = next + 1
  }
}

describe("AuditLog.layerFile on a disk that forgets what was not synced", () => {
  it.live("makes the names of new files durable before it acknowledges anything", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const { events, use } = watched(path)
      yield* use((log) => Effect.andThen(log.record(record(0)), Effect.sync(() => events.push("acknowledged"))))
      assertOrder(events, ["make audit.log", "!write audit.log", "sync folder", "write audit.log", "sync audit.log"])
      assertOrder(events, ["make audit.log.checkpoints", "!acknowledged", "sync folder", "acknowledged"])
    }))

  it.live("makes the name that rotation gives durable before the next file has its own", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const { events, use } = watched(path)
      yield* use(
        (log) => Effect.andThen(log.record(record(0)), log.record(record(1))),
        { rotation: { maxBytes: 1 } }
      )
      assertOrder(events, [
        "rename audit.log",
        "!make audit.log",
        "sync folder",
        "make audit.log",
        "!write audit.log",
        "sync folder",
        "write audit.log",
        "sync audit.log"
      ])
      assert.isUndefined((yield* verify(path)).bad)
    }))

  it.live("writes a checkpoint before it gives a file away", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* withLog(path, { rotation: { maxBytes: 1 }, checkpoints: { every: 1000 } }, (log) =>
        Effect.gen(function*() {
          for (let i = 0; i < 3; i++) yield* log.record(record(i))
          const marks = linesOf(`${path}.checkpoints`).map((line) => (JSON.parse(line) as { last: number }).last)
          assert.deepStrictEqual(marks, [1, 2])
        }))
    }))

  it.live("does not forget that it has taken a write back", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      const { events, state, use } = watched(path)
      yield* use((log) =>
        Effect.gen(function*() {
          yield* log.record(record(0))
          state.failingSyncs = 1
          yield* Effect.flip(log.record(record(1)))
          assertOrder(events, [
            "sync audit.log",
            "write audit.log",
            "truncate audit.log",
            "!write audit.log",
            "sync audit.log"
          ])
          yield* log.record(record(2))
        })
      )
      assert.isUndefined((yield* verify(path)).bad)
      assert.deepStrictEqual(
        linesOf(path).map(parse).map(({ callId, kind }) => kind === "lost" ? kind : callId),
        ["call-0", "lost", "call-2"]
      )
    }))

  it.live("has the copy of a torn end on the disk before it takes it from the file", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 1)
      appendFileSync(path, `{"seq":2,`)
      const { events, use } = watched(path)
      yield* use(() => Effect.void)
      assertOrder(events, [
        "make audit.log.torn",
        "write audit.log.torn",
        "!truncate audit.log",
        "sync audit.log.torn",
        "!truncate audit.log",
        "sync folder",
        "truncate audit.log",
        "!write audit.log",
        "sync audit.log"
      ])
    }))

  it.live("has the end that it gives a line on the disk before it goes on", () =>
    Effect.gen(function*() {
      const path = folders.freshPath()
      yield* write(path, 0, 1)
      const line = linesOf(path)[0]!
      writeFileSync(path, line)
      const { events, use } = watched(path)
      yield* use((log) => log.record(record(1)))
      assertOrder(events, [
        "truncate audit.log",
        "write audit.log",
        "!write audit.log",
        "sync audit.log",
        "write audit.log"
      ])
      assert.isUndefined((yield* verify(path)).bad)
    }))
})

describe("AuditLog.layerFile and a file that changes while it is opened", () => {
  for (const isThere of [false, true]) {
    it.live(`takes none that others may read by then, ${isThere ? "known" : "new"}`, () =>
      Effect.gen(function*() {
        const path = folders.freshPath()
        if (isThere) yield* write(path, 0, 1)
        const { state, use } = watched(path)
        state.beforeOpen = (at, flag) => {
          if (at !== path || flag !== "a") return
          if (!isThere) writeFileSync(path, "")
          chmodSync(path, 0o644)
        }
        const size = isThere ? statSync(path).size : 0
        const error = yield* Effect.flip(use((log) => log.record(record(1))))
        assert.include(JSON.stringify(error), "has mode 0644")
        assert.strictEqual(statSync(path).size, size)
      }))
  }
})
