import { closeSync, existsSync, openSync, renameSync, rmSync, statSync } from "node:fs"
import { DatabaseSync, type StatementSync } from "node:sqlite"
import { sha256Hex } from "../../internal/hash.ts"

// The SQL below `SqliteCacheStore`. Everything here is synchronous and throws what SQLite throws.

/** Names the file as ours in SQLite's header ("tops"). */
const applicationId = 0x746f7073
const schemaVersion = 3

/** Labels whose last invalidation is remembered. */
const maxInvalidations = 10_000

// An entry is found by its `id`, a number that is made of a part of its key, and so in one look at one tree. What is read
// of it is one column, `sealed`, which holds the whole key, to be compared by whoever reads it: the rest is for letting
// entries go. Bytes are counted by triggers, so that no process and no crash can leave the sum wrong.
const schema = `
  CREATE TABLE entries (
    id INTEGER PRIMARY KEY, sealed TEXT NOT NULL, keep INTEGER NOT NULL, bytes INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX entries_keep ON entries (keep);
  CREATE TABLE labels (label TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (label, id)) STRICT, WITHOUT ROWID;
  CREATE INDEX labels_id ON labels (id);
  CREATE TABLE invalidations (label TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE INDEX invalidations_seq ON invalidations (seq);
  CREATE TABLE state (one INTEGER PRIMARY KEY, seq INTEGER NOT NULL, floor INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
  INSERT INTO state VALUES (1, 0, 0, 0);
  CREATE TRIGGER entries_in AFTER INSERT ON entries BEGIN
    UPDATE state SET bytes = bytes + new.bytes;
  END;
  CREATE TRIGGER entries_out AFTER DELETE ON entries BEGIN
    UPDATE state SET bytes = bytes - old.bytes;
    DELETE FROM labels WHERE id = old.id;
  END;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion};
`

/** What a row and its index entries take beside its texts, roughly. */
const rowOverhead = 200

/**
 * The number of a key: the last 52 bits of its SHA-256. Keys that share them are found within minutes by whoever looks for
 * some, so a number proves nothing. Of two such keys the later one takes the other's place.
 */
export const idOf = (key: string): number => {
  const tail = key.slice(-idDigits)
  // A key made by `CacheKey` ends with a SHA-256.
  return Number.parseInt(hexadecimal.test(tail) ? tail : sha256Hex(key).slice(0, idDigits), 16)
}
const idDigits = 13
const hexadecimal = /^[0-9a-f]{13}$/

export interface NewRow {
  readonly id: number
  readonly sealed: string
  readonly written: number
  readonly keep: number
  readonly labels: ReadonlyArray<string>
  readonly mark: number | undefined
}

/** Says whether an error means that the file itself is bad: malformed, not a database, or cut short. */
export const isDamage = (error: unknown): boolean => {
  if (error instanceof ForeignFile) return true
  if (typeof error !== "object" || error === null || !("errcode" in error)) return false
  const code = Number(error.errcode)
  // SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_IOERR_SHORT_READ; SQLITE_ERROR comes of a table that is gone.
  return (code & 0xff) === 11 || (code & 0xff) === 26 || code === 522 || code === 1
}

class ForeignFile extends Error {}

export class CacheFile {
  readonly #db: DatabaseSync
  readonly #inode: number
  /** The file that was there had to be moved aside. */
  isRebuilt = false
  readonly #read: StatementSync
  readonly #mark: StatementSync
  readonly #statements = new Map<string, StatementSync>()

  private constructor(db: DatabaseSync, inode: number) {
    this.#db = db
    this.#inode = inode
    this.#read = db.prepare("SELECT sealed FROM entries WHERE id = ?")
    // An object with the column's name takes a third of the time of a hit.
    this.#read.setReturnArrays(true)
    this.#mark = db.prepare("SELECT seq FROM state")
  }

  /** Opens or makes the file. One that is damaged or not ours is moved aside first, if it `mayRebuild`. */
  static open(path: string, busyMillis: number, now: number, mayRebuild: boolean): CacheFile {
    try {
      return CacheFile.#openSound(path, busyMillis)
    } catch (error) {
      if (!mayRebuild) throw error
      const isDirectory = typeof error === "object" && error !== null && "code" in error && error.code === "EISDIR"
      if (!isDamage(error) && !isDirectory) throw error
      return CacheFile.rebuild(path, busyMillis, now)
    }
  }

  static rebuild(path: string, busyMillis: number, now: number): CacheFile {
    const stamp = new Date(now).toISOString().replaceAll(/[:.]/g, "-")
    let aside = `${path}.corrupt-${stamp}`
    for (let i = 2; existsSync(aside); i++) aside = `${path}.corrupt-${stamp}-${i}`
    if (existsSync(path)) renameSync(path, aside)
    // A log that belongs to the old file would be played into the new one.
    for (const suffix of ["-wal", "-shm", "-journal"]) rmSync(path + suffix, { force: true })
    const file = CacheFile.#openSound(path, busyMillis)
    file.isRebuilt = true
    return file
  }

  static #openSound(path: string, busyMillis: number): CacheFile {
    // Made by us, so that nobody else may read it; SQLite gives its other files the same mode.
    closeSync(openSync(path, "a", 0o600))
    const db = new DatabaseSync(path, { timeout: busyMillis })
    try {
      const id = Number(db.prepare("PRAGMA application_id").get()?.["application_id"])
      const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"])
      const tables = Number(db.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.["n"])
      if (tables > 0 && (id !== applicationId || version !== schemaVersion)) throw new ForeignFile(path)
      db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304")
      if (tables === 0) {
        // Two processes may get here together: the second finds the tables once it has the lock.
        db.exec("BEGIN IMMEDIATE")
        if (Number(db.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.["n"]) === 0) db.exec(schema)
        db.exec("COMMIT")
      }
      return new CacheFile(db, statSync(path).ino)
    } catch (error) {
      db.close()
      throw error
    }
  }

  /** Says whether the path still leads to this file, and not to one that another process has begun instead. */
  isAt(path: string): boolean {
    const there = statSync(path, { throwIfNoEntry: false })
    return there !== undefined && there.ino === this.#inode
  }

  close(): void {
    try {
      this.#db.close()
    } catch {
      // A file that is damaged may not close cleanly; there is nothing left to save.
    }
  }

  read(id: number): string | undefined {
    // An array, as was asked for above. The column is declared so, and the table is STRICT.
    const row = this.#read.get(id) as unknown as readonly [sealed: string] | undefined
    return row?.[0]
  }

  mark(): number {
    return Number(this.#mark.get()?.["seq"])
  }

  /** Stores a row unless it was invalidated since its mark. Returns how many others had to go. */
  write(row: NewRow, maxBytes: number): number {
    const bytes = rowOverhead + Buffer.byteLength(row.sealed) + row.labels.length * 60
    if (bytes > maxBytes) return 0
    return this.#transaction(() => {
      if (row.mark !== undefined && this.#isInvalid(row.labels, row.mark)) return 0
      const { id } = row
      this.#run("DELETE FROM entries WHERE id = ?", id)
      this.#run("INSERT INTO entries (id, sealed, keep, bytes) VALUES (?, ?, ?, ?)", id, row.sealed, row.keep, bytes)
      for (const label of row.labels) {
        this.#run("INSERT OR IGNORE INTO labels (label, id) VALUES (?, ?)", label, id)
      }
      // A few of the dead with every new one, so that nothing has to stop for all of them.
      this.#run(
        "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE keep <= ? ORDER BY keep LIMIT 8)",
        row.written
      )
      return this.#evict(maxBytes, id)
    })
  }

  remove(id: number): void {
    this.#run("DELETE FROM entries WHERE id = ?", id)
  }

  markInvalid(labels: ReadonlyArray<string>): void {
    this.#transaction(() => {
      this.#run("UPDATE state SET seq = seq + 1")
      const seq = this.mark()
      for (const label of labels) this.#run("INSERT OR REPLACE INTO invalidations VALUES (?, ?)", label, seq)
      const surplus = Number(this.#get("SELECT count(*) AS n FROM invalidations")["n"]) - maxInvalidations
      if (surplus <= 0) return
      // What is no longer remembered counts as everything.
      const last = this.#get("SELECT seq FROM invalidations ORDER BY seq LIMIT 1 OFFSET ?", surplus - 1)["seq"]!
      this.#run("UPDATE state SET floor = ?", last)
      this.#run("DELETE FROM invalidations WHERE seq <= ?", last)
    })
  }

  markAllInvalid(): void {
    this.#run("UPDATE state SET seq = seq + 1, floor = seq + 1")
  }

  removeLabelled(labels: ReadonlyArray<string>, limit: number): number {
    return this.#transaction(() => {
      let removed = 0
      for (const label of labels) {
        if (removed >= limit) break
        const { changes } = this.#run(
          "DELETE FROM entries WHERE id IN (SELECT id FROM labels WHERE label = ? LIMIT ?)",
          label,
          limit - removed
        )
        removed += Number(changes)
      }
      return removed
    })
  }

  removeAny(limit: number): number {
    const { changes } = this.#run("DELETE FROM entries WHERE id IN (SELECT id FROM entries LIMIT ?)", limit)
    return Number(changes)
  }

  stats(): { readonly entries: number; readonly bytes: number } {
    const row = this.#get("SELECT bytes, (SELECT count(*) FROM entries) AS n FROM state")
    return { entries: Number(row["n"]), bytes: Number(row["bytes"]) }
  }

  #isInvalid(labels: ReadonlyArray<string>, mark: number): boolean {
    if (Number(this.#get("SELECT floor FROM state")["floor"]) > mark) return true
    return labels.some((label) => {
      const row = this.#statement("SELECT seq FROM invalidations WHERE label = ?").get(label)
      return row !== undefined && Number(row["seq"]) > mark
    })
  }

  #evict(maxBytes: number, newest: number): number {
    let evicted = 0
    while (Number(this.#get("SELECT bytes FROM state")["bytes"]) > maxBytes) {
      const { changes } = this.#run(
        "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE id <> ? ORDER BY keep LIMIT 8)",
        newest
      )
      if (Number(changes) === 0) break
      evicted += Number(changes)
    }
    return evicted
  }

  #transaction<A>(body: () => A): A {
    this.#db.exec("BEGIN IMMEDIATE")
    try {
      const result = body()
      this.#db.exec("COMMIT")
      return result
    } catch (error) {
      // SQLite has rolled back by itself after a full disk or an I/O error.
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK")
      throw error
    }
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#db.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  #run(sql: string, ...values: ReadonlyArray<string | number | bigint>) {
    return this.#statement(sql).run(...values)
  }

  #get(sql: string, ...values: ReadonlyArray<string | number>): Record<string, string | number> {
    // Every statement it is used for has a row, and none of its columns is a blob or null.
    return this.#statement(sql).get(...values) as Record<string, string | number>
  }
}
