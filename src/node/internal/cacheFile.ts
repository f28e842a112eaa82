import { closeSync, existsSync, openSync, renameSync, rmSync, statSync } from "node:fs"
import { DatabaseSync, type StatementSync } from "node:sqlite"
import { sha256Hex } from "../../internal/hash.ts"
import { ForeignFile, hasTables, makeTables, sql } from "./cacheTables.ts"

// The SQL below `SqliteCacheStore`. Everything here is synchronous and throws what SQLite throws.

/** Labels whose last invalidation is remembered. */
const maxInvalidations = 10_000

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
  // SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_IOERR_SHORT_READ; SQLITE_ERROR comes of a table that is not as we know it.
  return (code & 0xff) === 11 || (code & 0xff) === 26 || code === 522 || isUnknownTable(error)
}

/** Says whether an error means that a table is not there or is another than expected. */
export const isUnknownTable = (error: unknown): boolean =>
  typeof error === "object" && error !== null && "errcode" in error && error.errcode === 1

/** Tells files at one path apart. 0 where there is none. */
const inodeAt = (path: string): number => statSync(path, { throwIfNoEntry: false })?.ino ?? 0

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
    this.#read = db.prepare(sql.read)
    // An object with the column's name takes a third of the time of a hit.
    this.#read.setReturnArrays(true)
    this.#mark = db.prepare(sql.mark)
  }

  /** Opens or makes the file. One that is damaged or not ours is moved aside first, if it `mayRebuild`. */
  static open(path: string, busyMillis: number, now: number, mayRebuild: boolean): CacheFile {
    const inode = inodeAt(path)
    try {
      return CacheFile.#openSound(path, busyMillis)
    } catch (error) {
      if (!mayRebuild || !isDamage(error)) throw error
      return CacheFile.#rebuild(path, inode, busyMillis, now)
    }
  }

  /** Closes a file that is damaged, and begins a new one at its path unless another process has. */
  rebuild(path: string, busyMillis: number, now: number): CacheFile {
    this.close()
    return CacheFile.#rebuild(path, this.#inode, busyMillis, now)
  }

  // One process at a time, so that none moves aside what another has just begun. The lock is SQLite's, on a file of its own
  // that stays empty, and ends with the process that holds it. The file itself cannot be locked when it is damaged.
  static #rebuild(path: string, inode: number, busyMillis: number, now: number): CacheFile {
    const lock = new DatabaseSync(`${path}.rebuild`, { timeout: busyMillis })
    try {
      lock.exec("BEGIN EXCLUSIVE")
      const isThere = inodeAt(path) === inode
      if (isThere) moveAside(path, now)
      const file = CacheFile.#openSound(path, busyMillis)
      file.isRebuilt = isThere
      return file
    } finally {
      lock.close()
    }
  }

  static #openSound(path: string, busyMillis: number): CacheFile {
    // Made by us, so that nobody else may read it; SQLite gives its other files the same mode. Only where there is none:
    // to close a file that is in use would end the locks that this process has on it.
    if (!existsSync(path)) closeSync(openSync(path, "a", 0o600))
    const there = statSync(path)
    if (there.isDirectory()) throw new ForeignFile(path)
    const db = new DatabaseSync(path, { timeout: busyMillis })
    try {
      const isReady = hasTables(db, path)
      // Its log is found by its path, so nothing may be written when the path leads to another file by now.
      if (inodeAt(path) !== there.ino) throw new Error("The file was replaced while it was being opened.")
      db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304")
      if (!isReady) makeTables(db, path)
      return new CacheFile(db, there.ino)
    } catch (error) {
      db.close()
      throw error
    }
  }

  /** Says whether the path still leads to this file, and not to one that another process has begun instead. */
  isAt(path: string): boolean {
    return inodeAt(path) === this.#inode
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
      this.#run(sql.remove, id)
      this.#run(sql.insert, id, row.sealed, row.keep, bytes)
      for (const label of row.labels) this.#run(sql.label, label, id)
      // A few of the dead with every new one, so that nothing has to stop for all of them.
      this.#run(sql.removeDead, row.written)
      return this.#evict(maxBytes, id)
    })
  }

  remove(id: number): void {
    this.#run(sql.remove, id)
  }

  markInvalid(labels: ReadonlyArray<string>): void {
    this.#transaction(() => {
      this.#run(sql.count)
      const seq = this.mark()
      for (const label of labels) this.#run(sql.invalidate, label, seq)
      const surplus = Number(this.#get(sql.invalidations)["n"]) - maxInvalidations
      if (surplus <= 0) return
      // What is no longer remembered counts as everything.
      const last = this.#get(sql.invalidatedAt, surplus - 1)["seq"]!
      this.#run(sql.raise, last)
      this.#run(sql.forget, last)
    })
  }

  markAllInvalid(): void {
    this.#run(sql.countAll)
  }

  removeLabelled(labels: ReadonlyArray<string>, limit: number): number {
    return this.#transaction(() => {
      let removed = 0
      for (const label of labels) {
        if (removed >= limit) break
        const { changes } = this.#run(sql.removeLabelled, label, limit - removed)
        removed += Number(changes)
      }
      return removed
    })
  }

  removeAny(limit: number): number {
    const { changes } = this.#run(sql.removeAny, limit)
    return Number(changes)
  }

  stats(): { readonly entries: number; readonly bytes: number } {
    const row = this.#get(sql.stats)
    return { entries: Number(row["n"]), bytes: Number(row["bytes"]) }
  }

  #isInvalid(labels: ReadonlyArray<string>, mark: number): boolean {
    if (Number(this.#get(sql.floor)["floor"]) > mark) return true
    return labels.some((label) => {
      const row = this.#statement(sql.invalidated).get(label)
      return row !== undefined && Number(row["seq"]) > mark
    })
  }

  #evict(maxBytes: number, newest: number): number {
    let evicted = 0
    while (Number(this.#get(sql.bytes)["bytes"]) > maxBytes) {
      const { changes } = this.#run(sql.evict, newest)
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

  #statement(text: string): StatementSync {
    let statement = this.#statements.get(text)
    if (statement === undefined) {
      statement = this.#db.prepare(text)
      this.#statements.set(text, statement)
    }
    return statement
  }

  #run(text: string, ...values: ReadonlyArray<string | number | bigint>) {
    return this.#statement(text).run(...values)
  }

  #get(text: string, ...values: ReadonlyArray<string | number>): Record<string, string | number> {
    // Every statement it is used for has a row, and none of its columns is a blob or null.
    return this.#statement(text).get(...values) as Record<string, string | number>
  }
}

const moveAside = (path: string, now: number): void => {
  const stamp = new Date(now).toISOString().replaceAll(/[:.]/g, "-")
  let aside = `${path}.corrupt-${stamp}`
  for (let i = 2; existsSync(aside); i++) aside = `${path}.corrupt-${stamp}-${i}`
  if (existsSync(path)) renameSync(path, aside)
  // A log that belongs to the old file would be played into the new one.
  for (const suffix of ["-wal", "-shm", "-journal"]) rmSync(path + suffix, { force: true })
}
