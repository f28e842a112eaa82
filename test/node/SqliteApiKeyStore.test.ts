import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import { ApiKey, Authenticator } from "effect-toolops/auth"
import { SqliteApiKeyStore } from "effect-toolops/node"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as ApiKeyStoreTest from "../auth/ApiKeyStoreTest.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "api-keys-"))
process.once("exit", () => Fs.rmSync(folder, { recursive: true, force: true }))
let files = 0
const file = () => Path.join(folder, `${files++}.db`)

const key = Redacted.make("canary: a key for the tests")
const open = (path: string) =>
  Effect.map(Layer.build(SqliteApiKeyStore.layer({ path })), (context) => Context.get(context, ApiKey.ApiKeyStore))

ApiKeyStoreTest.suite("SqliteApiKeyStore", () => SqliteApiKeyStore.layer({ path: file() }))

describe("SqliteApiKeyStore", () => {
  it.effect("keeps keys over a restart, and a revoked key revoked", () =>
    Effect.gen(function*() {
      const path = file()
      yield* Effect.scoped(Effect.gen(function*() {
        const keys = yield* open(path)
        yield* keys.register({ id: "a", key, principal: "ada" })
        yield* keys.register({ id: "b", key: Redacted.make("another key for the tests"), principal: "bob" })
        yield* keys.revoke("b")
      }))
      const keys = yield* open(path)
      assert.deepStrictEqual((yield* keys.list).map(({ id }) => id), ["a"])
    }))

  it.effect("shares keys between two that have the file open, revocations at once", () =>
    Effect.gen(function*() {
      const path = file()
      const [one, two] = [yield* open(path), yield* open(path)]
      yield* one.register({ id: "a", key, principal: "ada" })
      const authenticator = ApiKey.make(two)
      const headers = { "x-api-key": Redacted.value(key) }
      assert.strictEqual((yield* Authenticator.identify(authenticator, headers)).principal, "ada")
      yield* one.revoke("a")
      const error = yield* Effect.flip(Authenticator.identify(authenticator, headers))
      assert.strictEqual(error.reason._tag, "InvalidCredentials")
    }))

  it.effect("writes no key to the disk and lets nobody else read the file", () =>
    Effect.gen(function*() {
      const path = file()
      const keys = yield* open(path)
      yield* keys.register({ id: "a", key, principal: "ada" })
      for (const name of Fs.readdirSync(folder).filter((name) => name.startsWith(Path.basename(path)))) {
        const whole = Path.join(folder, name)
        assert.notInclude(Fs.readFileSync(whole, "latin1"), "canary", name)
        assert.strictEqual(Fs.statSync(whole).mode & 0o077, 0, name)
      }
    }))

  it.effect("refuses a file that is damaged, of another program, or of a later version, and leaves it alone", () =>
    Effect.gen(function*() {
      const damaged = file()
      Fs.writeFileSync(damaged, "no database ".repeat(100))
      const later = file()
      yield* Effect.scoped(open(later))
      const made = (path: string, sql: string) => {
        const database = new DatabaseSync(path)
        database.exec(sql)
        database.close()
        Fs.chmodSync(path, 0o600)
        return path
      }
      const refused = [
        damaged,
        made(later, "PRAGMA journal_mode = DELETE; PRAGMA user_version = 2"),
        made(file(), "PRAGMA user_version = 1"),
        made(file(), "PRAGMA application_id = 77"),
        made(file(), "CREATE TABLE theirs (x)"),
        made(file(), "CREATE TABLE api_keys (hash TEXT, id TEXT, data TEXT); PRAGMA user_version = 1")
      ]
      for (const path of refused) {
        const before = Fs.readFileSync(path, "latin1")
        const error = yield* Effect.flip(Effect.scoped(open(path)))
        assert.strictEqual(error.reason._tag, "StoreUnavailable", path)
        assert.strictEqual(Fs.readFileSync(path, "latin1"), before, path)
        assert.isFalse(Fs.existsSync(`${path}-wal`), path)
      }
      const nowhere = yield* Effect.flip(Effect.scoped(open(Path.join(folder, "not/there.db"))))
      assert.strictEqual(nowhere.reason._tag, "StoreUnavailable")
    }))

  it.effect("knows its own file again, and takes an empty one", () =>
    Effect.gen(function*() {
      const path = file()
      Fs.writeFileSync(path, "", { mode: 0o600 })
      yield* Effect.scoped(open(path))
      yield* Effect.scoped(open(path))
      const database = new DatabaseSync(path)
      assert.deepStrictEqual({ ...database.prepare("PRAGMA application_id").get() }, { application_id: 0x746b6579 })
      database.close()
    }))

  it.effect("refuses a file that others may write, a symbolic link, and what is no file", () =>
    Effect.gen(function*() {
      const writable = file()
      yield* Effect.scoped(open(writable))
      const link = file()
      Fs.symlinkSync(writable, link)
      const cases: ReadonlyArray<readonly [string, () => void]> = [
        [writable, () => Fs.chmodSync(writable, 0o620)],
        [writable, () => Fs.chmodSync(writable, 0o602)],
        [link, () => Fs.chmodSync(writable, 0o600)],
        [folder, () => undefined]
      ]
      for (const [path, prepare] of cases) {
        prepare()
        const error = yield* Effect.flip(Effect.scoped(open(path)))
        assert.strictEqual(error.reason._tag, "StoreUnavailable", path)
      }
      yield* Effect.scoped(open(writable))
    }))

  it.effect("has every change on the disk before it is reported, and waits for others as long as it is told", () =>
    Effect.gen(function*() {
      const path = file()
      const connections = new Set<DatabaseSync>()
      const prepare = DatabaseSync.prototype.prepare
      DatabaseSync.prototype.prepare = function(this: DatabaseSync, ...given) {
        connections.add(this)
        return prepare.apply(this, given)
      }
      const build = (busyTimeout: number) =>
        Effect.map(
          Layer.build(SqliteApiKeyStore.layer({ path, busyTimeout })),
          (context) => Context.get(context, ApiKey.ApiKeyStore)
        )
      const patient = yield* Effect.ensuring(
        build(300),
        Effect.sync(() => {
          DatabaseSync.prototype.prepare = prepare
        })
      )
      const [connection] = connections
      // 2 is FULL: with less, a revocation that was reported may be gone after a power cut.
      assert.deepStrictEqual({ ...connection!.prepare("PRAGMA synchronous").get() }, { synchronous: 2 })
      assert.deepStrictEqual({ ...connection!.prepare("PRAGMA journal_mode").get() }, { journal_mode: "wal" })

      const hasty = yield* build(0)
      const other = new DatabaseSync(path)
      other.exec("BEGIN IMMEDIATE")
      const waited = (keys: ApiKey.ApiKeyStore["Service"]) =>
        Effect.gen(function*() {
          const start = performance.now()
          const error = yield* Effect.flip(keys.register({ id: "a", key, principal: "ada" }))
          assert.strictEqual(error.reason._tag, "StoreUnavailable")
          return performance.now() - start
        })
      const long = yield* waited(patient)
      assert.isAtLeast(long, 250)
      assert.isBelow(yield* waited(hasty), long)
      other.exec("ROLLBACK")
      other.close()
      yield* patient.register({ id: "a", key, principal: "ada" })
    }))

  it.effect("takes no row for a key that makes no sense", () =>
    Effect.gen(function*() {
      const path = file()
      const keys = yield* open(path)
      const hash = ApiKey.hashKey(key)
      const database = new DatabaseSync(path)
      for (const data of ["", "{}", "[]", "{\"principal\":\"\"}", "{\"principal\":\"eve\",\"roles\":\"admin\"}"]) {
        database.exec("DELETE FROM api_keys")
        database.prepare("INSERT INTO api_keys VALUES (?, 'a', ?)").run(hash, data)
        const error = yield* Effect.flip(keys.find(hash))
        assert.strictEqual(error.reason._tag, "StoreUnavailable", data)
      }
      database.exec("DELETE FROM api_keys")
      database.prepare("INSERT INTO api_keys VALUES (?, 'a', ?)").run(hash, "{\"principal\":\"ada\"}")
      database.close()
      assert.isTrue(Option.isSome(yield* keys.find(hash)))
    }))

  it("refuses options that make no sense", () => {
    for (const path of ["", ":memory:", "file:keys.db", "FILE:keys.db?mode=memory"]) {
      assert.throws(() => SqliteApiKeyStore.layer({ path }), /path/)
    }
    assert.throws(() => SqliteApiKeyStore.layer({ path: "a", busyTimeout: -1 }), /busyTimeout/)
  })
})
