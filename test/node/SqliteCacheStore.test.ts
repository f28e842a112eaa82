import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { CacheKey, CacheStore, ToolCache } from "effect-toolops/cache"
import { SqliteCacheStore } from "effect-toolops/node"
import { TestClock } from "effect/testing"
import { execFileSync, fork } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { suite } from "../cache/CacheStoreTest.ts"
import { cached, pipelineOf } from "../cache/support.ts"

const folder = mkdtempSync(join(tmpdir(), "toolops-cache-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
let files = 0
const fresh = () => join(folder, `cache-${files++}.db`)

suite("SqliteCacheStore", Layer.unwrap(Effect.sync(() => SqliteCacheStore.layer({ path: fresh() }))))

const entry = (text: string, over?: Partial<CacheStore.NewEntry>): CacheStore.NewEntry => ({
  text,
  freshMillis: 60_000,
  keepMillis: 60_000,
  labels: ["tool:t"],
  mark: undefined,
  ...over
})

const withStore = <A, E>(options: SqliteCacheStore.Options, use: (store: CacheStore.Store) => Effect.Effect<A, E>) =>
  Effect.provide(Effect.flatMap(CacheStore.CacheStore, use), SqliteCacheStore.layer(options))

const integrity = (path: string) => {
  const db = new DatabaseSync(path)
  try {
    return db.prepare("PRAGMA integrity_check").get()?.["integrity_check"]
  } finally {
    db.close()
  }
}

/** A small disk of its own, where we may make one. */
const mount = (bytes: number) => {
  const disk = mkdtempSync(join(tmpdir(), "toolops-disk-"))
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", disk], { stdio: "ignore" })
  } catch {
    rmSync(disk, { recursive: true })
    return undefined
  }
  disks.push(disk)
  return disk
}
const disks: Array<string> = []
afterAll(() => {
  for (const disk of disks) {
    execFileSync("umount", ["-l", disk])
    rmSync(disk, { recursive: true })
  }
})
const canMount = mount(65_536) !== undefined

const tool = ToolMeta.make({ name: "t", readOnly: true })

/** Calls a tool ten times with ten inputs, twice, and says how many runs it took. Every answer must be right. */
const runs = Effect.gen(function*() {
  const p = yield* pipelineOf
  let count = 0
  for (let i = 0; i < 20; i++) {
    const answer = yield* p.run({ tool, input: i % 10 }, Effect.sync(() => (count++, `answer ${i % 10}`)))
    assert.strictEqual(answer, `answer ${i % 10}`)
  }
  return count
})

describe("SqliteCacheStore", () => {
  it.effect("keeps answers over a restart, in a file that nobody else may read", () =>
    Effect.gen(function*() {
      const path = fresh()
      const live = cached({ store: SqliteCacheStore.layer({ path }) })
      assert.strictEqual(yield* Effect.provide(runs, live, { local: true }), 10)
      assert.strictEqual(yield* Effect.provide(runs, cached({ store: SqliteCacheStore.layer({ path }) })), 0)
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
    }))

  it.effect("shares one file between two stores, invalidations too", () =>
    Effect.gen(function*() {
      const path = fresh()
      yield* withStore({ path }, (first) =>
        withStore({ path }, (second) =>
          Effect.gen(function*() {
            const mark = yield* second.mark!
            yield* first.set("k", entry("1", { labels: ["tag:x"] }))
            assert.strictEqual((yield* second.get("k"))?.text, "1")
            yield* first.invalidate(["tag:x"])
            assert.isUndefined(yield* second.get("k"))
            yield* second.set("k", entry("old", { labels: ["tag:x"], mark }))
            assert.isUndefined(yield* first.get("k"))
          })))
    }))

  it.effect("holds at most maxBytes", () =>
    withStore({ path: fresh(), maxBytes: 50_000 }, (store) =>
      Effect.gen(function*() {
        for (let i = 0; i < 200; i++) {
          yield* store.set(`k${i}`, entry("x".repeat(1000), { keepMillis: 60_000 + i, freshMillis: 1000 }))
          const { bytes } = yield* store.stats
          assert.isAtMost(bytes!, 50_000)
        }
        const stats = yield* store.stats
        assert.isAbove(stats.entries!, 25)
        assert.strictEqual(stats.evictions, 200 - stats.entries!)
        assert.isDefined(yield* store.get("k199"))
        assert.isUndefined(yield* store.get("k0"))
        yield* store.set("large", entry("x".repeat(60_000)))
        assert.isUndefined(yield* store.get("large"))
        yield* store.clear
        assert.deepInclude(yield* store.stats, { entries: 0, bytes: 0 })
      })))

  it.effect("lets dead entries go a few at a time", () =>
    withStore({ path: fresh() }, (store) =>
      Effect.gen(function*() {
        for (let i = 0; i < 40; i++) yield* store.set(`old${i}`, entry("1", { keepMillis: 1000 }))
        yield* TestClock.adjust("2 seconds")
        yield* store.set("new", entry("1"))
        assert.strictEqual((yield* store.stats).entries, 33)
        for (let i = 0; i < 10; i++) yield* store.set("new", entry("1"))
        assert.strictEqual((yield* store.stats).entries, 1)
      })))

  it.effect("takes an entry from the future for none, after the clock was set back", () =>
    withStore({ path: fresh() }, (store) =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 hour")
        yield* store.set("k", entry("1"))
        yield* TestClock.setTime(0)
        assert.isUndefined(yield* store.get("k"))
      })))

  const damages: ReadonlyArray<[string, (path: string) => void]> = [
    ["truncated to nothing", (path) => truncateSync(path, 0)],
    ["truncated in the middle", (path) => truncateSync(path, 4096 + 100)],
    ["overwritten with noise", (path) => writeFileSync(path, Buffer.alloc(40_960, "noise"))],
    ["overwritten with text", (path) => writeFileSync(path, "this is not a database")],
    ["replaced by a directory", (path) => {
      rmSync(path)
      mkdirSync(path)
    }],
    ["another program's database", (path) => {
      rmSync(path)
      const db = new DatabaseSync(path)
      db.exec("CREATE TABLE precious (x); INSERT INTO precious VALUES (1)")
      db.close()
    }],
    ["deleted", (path) => rmSync(path)]
  ]
  for (const [name, damage] of damages) {
    it.effect(`answers calls from a file that is ${name} before it is opened, and rebuilds it`, () =>
      Effect.gen(function*() {
        const path = fresh()
        yield* Effect.provide(runs, cached({ store: SqliteCacheStore.layer({ path }) }), { local: true })
        const before = readdirSync(folder).length
        damage(path)
        for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true })
        assert.strictEqual(
          yield* Effect.provide(runs, cached({ store: SqliteCacheStore.layer({ path }) }), { local: true }),
          10
        )
        assert.strictEqual(integrity(path), "ok")
        const aside = readdirSync(folder).filter((file) => file.startsWith(`${path.slice(folder.length + 1)}.corrupt-`))
        // An empty file and no file are no file of anybody's.
        assert.strictEqual(aside.length, name === "deleted" || name === "truncated to nothing" ? 0 : 1)
        assert.isAtLeast(readdirSync(folder).length, before + aside.length)
        if (name === "another program's database") {
          const db = new DatabaseSync(join(folder, aside[0]!))
          assert.strictEqual(db.prepare("SELECT x FROM precious").get()?.["x"], 1)
          db.close()
        }
      }))

    it.effect(`answers calls while its file is ${name}`, () => {
      const path = fresh()
      return Effect.gen(function*() {
        assert.strictEqual(yield* runs, 10)
        damage(path)
        yield* runs
        yield* TestClock.adjust("11 seconds")
        yield* runs
        yield* TestClock.adjust("11 seconds")
        yield* runs
      }).pipe(
        Effect.provide(cached({ store: SqliteCacheStore.layer({ path }) })),
        Effect.andThen(Effect.suspend(() => Effect.provide(runs, cached({ store: SqliteCacheStore.layer({ path }) })))),
        Effect.andThen(Effect.sync(() => assert.strictEqual(integrity(path), "ok")))
      )
    })
  }

  it.effect("gives no text that was changed in the file", () =>
    Effect.gen(function*() {
      const path = fresh()
      yield* withStore({ path }, (store) => store.set("k", entry("\"right\"")))
      const db = new DatabaseSync(path)
      db.exec("UPDATE entries_3 SET sealed = replace(sealed, 'right', 'wrong')")
      db.close()
      yield* withStore({ path }, (store) =>
        Effect.gen(function*() {
          assert.isUndefined(yield* store.get("k"))
          yield* store.set("k", entry("\"right\""))
          assert.isDefined(yield* store.get("k"))
        }))
    }))

  it.effect("gives no text that belongs to another key", () =>
    Effect.gen(function*() {
      const path = fresh()
      yield* withStore({ path }, (store) =>
        Effect.andThen(store.set("k", entry("\"k\"")), store.set("l", entry("\"l\""))))
      const db = new DatabaseSync(path)
      db.exec("UPDATE entries_3 SET sealed = (SELECT max(sealed) FROM entries_3)")
      db.close()
      yield* withStore({ path }, (store) =>
        Effect.gen(function*() {
          const texts = yield* Effect.forEach(["k", "l"], (key) =>
            Effect.map(store.get(key), (found) => found?.text))
          assert.strictEqual(texts.filter((text) => text !== undefined).length, 1)
          assert.include(["\"k\"", undefined], texts[0])
          assert.include(["\"l\"", undefined], texts[1])
        }))
    }))

  // Two calls of two tenants whose keys, SHA-256 each, end alike: as many digits as entries are found by.
  const alike = [
    ["cache:mail:4d3669f2fd436b7607ec7867c0e073e6f8ed5a3664cf5e2d5fac716e009052d2", "alice", "acme", "53e4ae579e36d"],
    ["cache:mail:5bff335df6ff9240eacb23abfe67deab3d9351cfcc2db59483bc716e009052d2", "mallory", "evil", "173d7a3385b84"]
  ] as const

  it.effect("gives nobody an answer that is found like theirs, and is another's", () =>
    Effect.gen(function*() {
      const path = fresh()
      const mail = ToolMeta.make({ name: "mail", readOnly: true })
      yield* Effect.gen(function*() {
        const p = yield* pipelineOf
        for (const [key, principal, tenant, q] of alike) {
          const identity = Identity.make({ principal, tenant })
          assert.strictEqual(CacheKey.make({ tool: mail, input: { q }, identity }), key)
          const answer = p.run({ tool: mail, input: { q } }, Effect.succeed(`for ${principal}`))
          assert.strictEqual(
            yield* Effect.provideService(answer, Identity.CurrentIdentity, identity),
            `for ${principal}`
          )
        }
      }).pipe(Effect.provide(cached({ store: SqliteCacheStore.layer({ path }) })))
      yield* withStore({ path: fresh() }, (store) =>
        Effect.gen(function*() {
          const [first, second] = alike
          yield* store.set(first[0], entry("first"))
          assert.isUndefined(yield* store.get(second[0]))
          assert.strictEqual((yield* store.get(first[0]))?.text, "first")
          yield* store.set(second[0], entry("second"))
          assert.isUndefined(yield* store.get(first[0]))
          assert.strictEqual((yield* store.get(second[0]))?.text, "second")
        }))
    }))

  it.effect("keeps entries apart whose keys differ in one of the digits that they are found by", () =>
    withStore({ path: fresh() }, (store) =>
      Effect.gen(function*() {
        const keys = Array.from({ length: 13 }, (_, i) => `cache:t:${"0".repeat(i)}1${"0".repeat(12 - i)}`)
        for (const key of keys) yield* store.set(key, entry(key))
        for (const key of keys) assert.strictEqual((yield* store.get(key))?.text, key)
      })))

  it.effect("moves a file aside once, when several processes find it at the same time", () =>
    Effect.gen(function*() {
      const path = fresh()
      const children = Array.from({ length: 4 }, () =>
        fork(new URL("./sqliteOpener.ts", import.meta.url), [path], {
          execArgv: ["-C", "@effect-toolops/source", "--no-warnings"],
          stdio: ["ignore", "ignore", "inherit", "ipc"]
        }))
      const answers = (message?: object) =>
        Effect.promise(() => {
          const all = children.map((child) => new Promise<unknown>((resolve) => child.once("message", resolve)))
          if (message !== undefined) { for (const child of children) child.send(message) }
          return Promise.all(all)
        })
      yield* answers()
      for (let round = 0; round < 2; round++) {
        rmSync(path, { force: true })
        const db = new DatabaseSync(path)
        db.exec("CREATE TABLE precious (x)")
        db.close()
        yield* answers({ open: Date.now() + 50 })
        // Each of them sees what all have stored.
        assert.deepStrictEqual(yield* answers({ look: true }), [4, 4, 4, 4])
        assert.strictEqual(integrity(path), "ok")
        const name = `${path.slice(folder.length + 1)}.corrupt-`
        assert.strictEqual(readdirSync(folder).filter((file) => file.startsWith(name)).length, round + 1)
        yield* answers({ close: true })
      }
      for (const child of children) child.kill()
    }), { timeout: 60_000 })

  it.effect("takes a file of an older version over, and moves none aside of a newer one", () =>
    Effect.gen(function*() {
      const path = fresh()
      const older = new DatabaseSync(path)
      older.exec(`
        CREATE TABLE entries (id INTEGER PRIMARY KEY, sealed TEXT NOT NULL) STRICT;
        CREATE TABLE labels_1 (label TEXT); CREATE TABLE entries_99 (x); INSERT INTO entries_99 VALUES (1);
        PRAGMA application_id = ${0x746f7073}; PRAGMA user_version = 2;
      `)
      older.close()
      for (let start = 0; start < 3; start++) {
        assert.strictEqual(
          yield* Effect.provide(runs, cached({ store: SqliteCacheStore.layer({ path }) }), { local: true }),
          start === 0 ? 10 : 0
        )
      }
      assert.isFalse(readdirSync(folder).some((file) => file.startsWith(`${path.slice(folder.length + 1)}.corrupt-`)))
      const db = new DatabaseSync(path)
      const names = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all().map((row) => row["name"])
      assert.notInclude(names, "entries")
      assert.notInclude(names, "labels_1")
      assert.strictEqual(db.prepare("SELECT x FROM entries_99").get()?.["x"], 1)
      db.close()
    }))

  it.effect("begins its tables again when a newer version has dropped them", () =>
    Effect.gen(function*() {
      const path = fresh()
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* runs, 10)
        const newer = new DatabaseSync(path)
        for (const { name } of newer.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all()) {
          newer.exec(`DROP TABLE ${String(name)}`)
        }
        newer.close()
        assert.isAtLeast(yield* runs, 10)
        assert.strictEqual(yield* runs, 0)
      }).pipe(Effect.provide(cached({ store: SqliteCacheStore.layer({ path }) })))
      assert.isFalse(readdirSync(folder).some((file) => file.startsWith(`${path.slice(folder.length + 1)}.corrupt-`)))
    }))

  it.effect("leaves a file that another process has moved aside", () =>
    Effect.gen(function*() {
      const path = fresh()
      yield* withStore({ path }, (store) =>
        Effect.gen(function*() {
          yield* store.set("k", entry("old"))
          renameSync(path, `${path}.moved`)
          for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true })
          yield* withStore({ path }, (other) => other.set("k", entry("new")))
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* store.get("k"))?.text, "new")
        }))
      assert.strictEqual(integrity(path), "ok")
    }))

  it.effect("answers calls while another process holds the lock", () =>
    Effect.gen(function*() {
      const path = fresh()
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* runs, 10)
        const other = new DatabaseSync(path)
        other.exec("BEGIN EXCLUSIVE")
        const p = yield* pipelineOf
        assert.strictEqual(yield* p.run({ tool, input: "new" }, Effect.succeed("x")), "x")
        other.exec("ROLLBACK")
        other.close()
        assert.isAbove((yield* (yield* ToolCache.ToolCache).stats).errors, 0)
        assert.strictEqual(yield* runs, 0)
      }).pipe(Effect.provide(cached({ store: SqliteCacheStore.layer({ path, busyTimeout: 5 }) })))
    }))

  it.effect.skipIf(!canMount)(
    "answers calls on a full disk of 1 MiB, and keeps answers again when there is room",
    () =>
      Effect.gen(function*() {
        const disk = mount(1024 * 1024)!
        const path = join(disk, "cache.db")
        const filler = join(disk, "filler")
        yield* Effect.gen(function*() {
          const p = yield* pipelineOf
          const cache = yield* ToolCache.ToolCache
          const ask = (i: number) => p.run({ tool, input: i }, Effect.succeed(`answer ${i} `.repeat(200)))
          // More than fits, twice: what is found is right, and what is not is run.
          for (let i = 0; i < 2000; i++) assert.strictEqual(yield* ask(i % 1000), `answer ${i % 1000} `.repeat(200))
          assert.isAbove((yield* cache.stats).errors, 0)
        }).pipe(Effect.provide(cached({ store: SqliteCacheStore.layer({ path }) })))
        // Not even the file fits.
        for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true })
        const fill = Effect.ignore(Effect.try(() => writeFileSync(filler, Buffer.alloc(2 * 1024 * 1024))))
        yield* fill
        yield* Effect.gen(function*() {
          assert.strictEqual(yield* runs, 20)
          rmSync(filler)
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual(yield* runs, 10)
        }).pipe(Effect.provide(cached({ store: SqliteCacheStore.layer({ path }) })))
        assert.strictEqual(integrity(path), "ok")
      })
  )

  it.effect("makes up for an invalidation that a lock kept it from, before it gives an answer again", () =>
    Effect.gen(function*() {
      const path = fresh()
      yield* withStore({ path, busyTimeout: 5 }, (store) =>
        Effect.gen(function*() {
          for (const forget of [store.invalidate(["tag:x"]), store.clear]) {
            yield* store.set("k", entry("1", { labels: ["tag:x"] }))
            const other = new DatabaseSync(path)
            other.exec("BEGIN IMMEDIATE")
            assert.strictEqual((yield* Effect.exit(forget))._tag, "Failure")
            assert.strictEqual((yield* Effect.exit(store.get("k")))._tag, "Failure")
            other.exec("ROLLBACK")
            other.close()
            assert.isUndefined(yield* store.get("k"))
          }
        }))
    }))

  it.effect("answers calls when the file cannot be made, and begins it when it can", () =>
    Effect.gen(function*() {
      const path = join(folder, "later", "cache.db")
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* runs, 20)
        mkdirSync(join(folder, "later"))
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* runs, 10)
      }).pipe(Effect.provide(cached({ store: SqliteCacheStore.layer({ path }) })))
    }))

  it("survives a hundred kills in mid-write", { timeout: 120_000 }, async () => {
    const path = fresh()
    const kill = async (delay: number) => {
      const child = fork(new URL("./sqliteWriter.ts", import.meta.url), [path], {
        execArgv: ["-C", "@effect-toolops/source", "--no-warnings"],
        stdio: ["ignore", "ignore", "inherit", "ipc"]
      })
      await new Promise((resolve) => child.once("message", resolve))
      await new Promise((resolve) => setTimeout(resolve, delay))
      const ended = new Promise((resolve) => child.once("exit", resolve))
      child.kill("SIGKILL")
      await ended
    }
    // Four writers at a time on the one file, since most of the time goes into starting them.
    for (let i = 0; i < 100; i += 4) await Promise.all([0, 1, 2, 3].map((j) => kill(((i + j) * 7) % 23)))
    assert.strictEqual(integrity(path), "ok")
    const wrong = await Effect.runPromise(withStore({ path }, (store) =>
      Effect.gen(function*() {
        let bad = 0
        let found = 0
        for (let i = 0; i < 2000; i++) {
          const held = yield* store.get(`k${i}`)
          if (held === undefined) continue
          found++
          if (held.text !== JSON.stringify(`value of k${i} `.repeat(50))) bad++
        }
        assert.isAbove(found, 0)
        assert.deepInclude(yield* store.stats, { entries: found })
        return bad
      })))
    assert.strictEqual(wrong, 0)
    assert.isFalse(readdirSync(folder).some((file) => file.startsWith(`${path.slice(folder.length + 1)}.corrupt-`)))
  })

  it("refuses nonsense", () => {
    assert.throws(() => SqliteCacheStore.layer({ path: "" }), /path must be a non-empty string/)
    assert.throws(
      () => SqliteCacheStore.layer({ path: "x", maxBytes: 1 }),
      /maxBytes must be an integer >= 4096, got 1/
    )
    assert.throws(() => SqliteCacheStore.layer({ path: "x", size: 1 } as never), /unknown option "size"/)
    assert.isFalse(existsSync("x"))
  })
})
