/**
 * An `ApiKeyStore` in a SQLite file, which the processes of one machine may share.
 *
 * It holds hashes and never keys. Each lookup reads the file, so a key that one process revokes is refused by all at
 * once, and what was revoked stays so: every change is on the disk before it is reported. Unlike a cache, a file that
 * is damaged is not replaced: calls are refused until somebody has looked at it.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { closeSync, constants, fstatSync, openSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import * as ApiKey from "../auth/ApiKey.ts"
import * as Check from "../internal/options.ts"

/**
 * What `layer` takes.
 *
 * - `path`: the file. Its folder must exist. It is made with mode 0600. A symbolic link, a file that others may write, and
 *   a database of another program are refused and left as they are.
 * - `pepper`: see `ApiKey.Options`. Needed here for registrations by `key`. Default none.
 * - `busyTimeout`: how long to wait for another process's change, on the event loop. Default 250 ms.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly path: string
  readonly pepper?: Redacted.Redacted<string> | undefined
  readonly busyTimeout?: Duration.Input | undefined
}

const check = (where: string, options: Options) => {
  Check.known(where, options, ["path", "pepper", "busyTimeout"])
  if (typeof options.path !== "string" || options.path.length === 0) {
    throw new TypeError(`${where}: path must be a non-empty string`)
  }
  if (options.path === ":memory:" || /^file:/i.test(options.path)) {
    throw new TypeError(`${where}: path must be the path of a file; ApiKey.layerMemory keeps keys in memory`)
  }
  return {
    where,
    path: options.path,
    pepper: ApiKey.checkPepper(where, options.pepper),
    busyMillis: Check.millis(where, "busyTimeout", options.busyTimeout ?? 250, { allowZero: true })
  }
}

type Settings = ReturnType<typeof check>

const version = 1
// What SQLite calls the number by which a program knows its files: `tkey` in ASCII.
const applicationId = 0x746b6579

// SQLite would make the file readable for others, and open whatever a link leads to.
const prepareFile = (path: string): void => {
  const noFollow = constants.O_NOFOLLOW as number | undefined
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT | (noFollow ?? 0), 0o600)
  try {
    const { mode } = fstatSync(file)
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw new Error("the path is not of a file")
    // Who may write the file may let anybody in. Windows has other rights, which these bits say nothing of.
    if (process.platform !== "win32" && (mode & 0o022) !== 0) throw new Error("others may write the file")
  } finally {
    closeSync(file)
  }
}

// Nothing is written before the file is known to be ours, or nobody's.
const checkOwner = (database: DatabaseSync): void => {
  const numberOf = (sql: string): number => Number(Object.values(database.prepare(sql).get() ?? {})[0])
  const owner = numberOf("PRAGMA application_id")
  const found = numberOf("PRAGMA user_version")
  if (owner === applicationId) {
    if (found !== version) throw new Error(`the file has version ${found} of its tables`)
  } else if (owner !== 0 || found !== 0 || numberOf("SELECT count(*) FROM sqlite_master") !== 0) {
    throw new Error("the file is of another program")
  }
}

const open = ({ busyMillis, path }: Settings): DatabaseSync => {
  prepareFile(path)
  const database = new DatabaseSync(path, { timeout: Math.ceil(busyMillis) })
  try {
    checkOwner(database)
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    // In one step, so that another process finds either nothing or a file of ours.
    database.exec(`
      BEGIN IMMEDIATE;
      CREATE TABLE IF NOT EXISTS api_keys (hash TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, data TEXT NOT NULL) STRICT;
      PRAGMA application_id = ${applicationId};
      PRAGMA user_version = ${version};
      COMMIT
    `)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

// Times as ISO 8601, the rest as it is.
const encode = (record: ApiKey.ApiKeyRecord): string => {
  const { hash: _hash, id: _id, ...rest } = record
  return JSON.stringify({
    ...rest,
    notBefore: rest.notBefore === undefined ? undefined : DateTime.formatIso(rest.notBefore),
    expiresAt: rest.expiresAt === undefined ? undefined : DateTime.formatIso(rest.expiresAt)
  })
}

// What is read is checked like what is registered: a row that makes no sense must not become a caller.
const decode = (where: string, row: Record<string, unknown>): ApiKey.ApiKeyRecord => {
  const data = JSON.parse(String(row.data)) as Record<string, any>
  return ApiKey.toRecord(where, {
    ...data,
    principal: data.principal,
    id: row.id as string,
    hash: row.hash as string,
    notBefore: data.notBefore === undefined ? undefined : DateTime.makeUnsafe(data.notBefore as string),
    expiresAt: data.expiresAt === undefined ? undefined : DateTime.makeUnsafe(data.expiresAt as string)
  }, undefined)
}

const attempt = <A>(run: () => A): Effect.Effect<A, ApiKey.ApiKeyStoreError> =>
  Effect.try({
    try: run,
    catch: (cause) => new ApiKey.ApiKeyStoreError({ reason: new ApiKey.StoreUnavailable({ cause }) })
  })

const isConstraint = (error: unknown): boolean =>
  error instanceof Error && "errcode" in error && typeof error.errcode === "number" && (error.errcode & 0xff) === 19

const fromSettings = (
  settings: Settings
): Effect.Effect<ApiKey.ApiKeyStore["Service"], ApiKey.ApiKeyStoreError, Scope.Scope> =>
  Effect.gen(function*() {
    const { pepper, where } = settings
    const database = yield* Effect.acquireRelease(
      attempt(() => open(settings)),
      (database) => Effect.sync(() => database.close())
    )
    const select = database.prepare("SELECT hash, id, data FROM api_keys WHERE hash = ?")
    const insert = database.prepare("INSERT INTO api_keys (hash, id, data) VALUES (?, ?, ?)")
    const remove = database.prepare("DELETE FROM api_keys WHERE id = ?")
    const all = database.prepare("SELECT hash, id, data FROM api_keys ORDER BY id")
    return {
      find: (hash) =>
        attempt(() => {
          const row = select.get(hash)
          return row === undefined ? Option.none() : Option.some(decode(where, row))
        }),
      register: (registration) =>
        Effect.suspend(() => {
          const record = ApiKey.toRecord(where, registration, pepper)
          return Effect.flatMap(
            attempt(() => {
              try {
                insert.run(record.hash, record.id, encode(record))
                return true
              } catch (error) {
                if (isConstraint(error)) return false
                throw error
              }
            }),
            (isNew) => isNew ? Effect.succeed(record) : Effect.fail(ApiKey.duplicateKey(record.id))
          )
        }),
      revoke: (id) => attempt(() => Number(remove.run(id).changes) > 0),
      list: attempt(() => all.all().map((row) => decode(where, row)))
    }
  })

/**
 * Provides an `ApiKeyStore` in a file. Fails as `StoreUnavailable` when the file cannot be opened or is not such a file.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<ApiKey.ApiKeyStore, ApiKey.ApiKeyStoreError> => {
  const settings = check("SqliteApiKeyStore.layer", options)
  return Layer.effect(ApiKey.ApiKeyStore, fromSettings(settings))
}

/**
 * Provides `layer` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<ApiKey.ApiKeyStore, ApiKey.ApiKeyStoreError | Config.ConfigError> =>
  Layer.effect(
    ApiKey.ApiKeyStore,
    Effect.flatMap(Config.unwrap(options), (value) => fromSettings(check("SqliteApiKeyStore.layerConfig", value)))
  )
