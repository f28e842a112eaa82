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
      const database = new DatabaseSync(later)
      database.exec("PRAGMA user_version = 2")
      database.close()
      for (const path of [damaged, later, Path.join(folder, "not/there.db")]) {
        const error = yield* Effect.flip(Effect.scoped(open(path)))
        assert.strictEqual(error.reason._tag, "StoreUnavailable", path)
      }
      assert.strictEqual(Fs.readFileSync(damaged, "utf8"), "no database ".repeat(100))
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
    assert.throws(() => SqliteApiKeyStore.layer({ path: "" }), /path/)
    assert.throws(() => SqliteApiKeyStore.layer({ path: "a", busyTimeout: -1 }), /busyTimeout/)
  })
})
