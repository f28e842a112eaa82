import type { DatabaseSync } from "node:sqlite"

// The tables of a cache file, and what is asked of them.

/** Names the file as ours in SQLite's header ("tops"). */
const applicationId = 0x746f7073

/** Part of every table's name, so that two versions of this library can use one file, each its own tables. */
const schemaVersion = 3

const entries = `entries_${schemaVersion}`
const labels = `labels_${schemaVersion}`
const invalidations = `invalidations_${schemaVersion}`
const state = `state_${schemaVersion}`

// An entry is found by its `id`, a number that is made of a part of its key, and so in one look at one tree. What is read
// of it is one column, `sealed`, which holds the whole key, to be compared by whoever reads it: the rest is for letting
// entries go. Bytes are counted by triggers, so that no process and no crash can leave the sum wrong.
const schema = `
  CREATE TABLE ${entries} (
    id INTEGER PRIMARY KEY, sealed TEXT NOT NULL, keep INTEGER NOT NULL, bytes INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX ${entries}_keep ON ${entries} (keep);
  CREATE TABLE ${labels} (label TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (label, id)) STRICT, WITHOUT ROWID;
  CREATE INDEX ${labels}_id ON ${labels} (id);
  CREATE TABLE ${invalidations} (label TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE INDEX ${invalidations}_seq ON ${invalidations} (seq);
  CREATE TABLE ${state} (
    one INTEGER PRIMARY KEY, seq INTEGER NOT NULL, floor INTEGER NOT NULL, bytes INTEGER NOT NULL
  ) STRICT;
  INSERT INTO ${state} VALUES (1, 0, 0, 0);
  CREATE TRIGGER ${entries}_in AFTER INSERT ON ${entries} BEGIN
    UPDATE ${state} SET bytes = bytes + new.bytes;
  END;
  CREATE TRIGGER ${entries}_out AFTER DELETE ON ${entries} BEGIN
    UPDATE ${state} SET bytes = bytes - old.bytes;
    DELETE FROM ${labels} WHERE id = old.id;
  END;
  PRAGMA application_id = ${applicationId};
`

export const sql = {
  read: `SELECT sealed FROM ${entries} WHERE id = ?`,
  mark: `SELECT seq FROM ${state}`,
  insert: `INSERT INTO ${entries} (id, sealed, keep, bytes) VALUES (?, ?, ?, ?)`,
  remove: `DELETE FROM ${entries} WHERE id = ?`,
  removeAny: `DELETE FROM ${entries} WHERE id IN (SELECT id FROM ${entries} LIMIT ?)`,
  removeLabelled: `DELETE FROM ${entries} WHERE id IN (SELECT id FROM ${labels} WHERE label = ? LIMIT ?)`,
  removeDead: `DELETE FROM ${entries} WHERE id IN (SELECT id FROM ${entries} WHERE keep <= ? ORDER BY keep LIMIT 8)`,
  evict: `DELETE FROM ${entries} WHERE id IN (SELECT id FROM ${entries} WHERE id <> ? ORDER BY keep LIMIT 8)`,
  label: `INSERT OR IGNORE INTO ${labels} (label, id) VALUES (?, ?)`,
  count: `UPDATE ${state} SET seq = seq + 1`,
  countAll: `UPDATE ${state} SET seq = seq + 1, floor = seq + 1`,
  raise: `UPDATE ${state} SET floor = ?`,
  floor: `SELECT floor FROM ${state}`,
  bytes: `SELECT bytes FROM ${state}`,
  stats: `SELECT bytes, (SELECT count(*) FROM ${entries}) AS n FROM ${state}`,
  invalidate: `INSERT OR REPLACE INTO ${invalidations} VALUES (?, ?)`,
  invalidated: `SELECT seq FROM ${invalidations} WHERE label = ?`,
  invalidations: `SELECT count(*) AS n FROM ${invalidations}`,
  invalidatedAt: `SELECT seq FROM ${invalidations} ORDER BY seq LIMIT 1 OFFSET ?`,
  forget: `DELETE FROM ${invalidations} WHERE seq <= ?`
} as const

/** Says that a file is another program's. */
export class ForeignFile extends Error {}

/** Whether the tables are there. Throws when the file is another program's. Writes nothing. */
export const hasTables = (db: DatabaseSync, path: string): boolean => {
  const id = Number(db.prepare("PRAGMA application_id").get()?.["application_id"])
  const names = tablesOf(db)
  if (names.length > 0 && id !== applicationId) throw new ForeignFile(path)
  return names.includes(entries)
}

/** Makes the tables, in place of those of older versions. */
export const makeTables = (db: DatabaseSync, path: string): void => {
  db.exec("BEGIN IMMEDIATE")
  // Two processes may get here together: the second finds the tables once it has the lock.
  if (!hasTables(db, path)) {
    for (const name of tablesOf(db)) if (versionOf(name) < schemaVersion) db.exec(`DROP TABLE "${name}"`)
    db.exec(schema)
  }
  db.exec("COMMIT")
}

const tablesOf = (db: DatabaseSync): ReadonlyArray<string> =>
  db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'").all()
    .map((row) => String(row["name"]))

// The first versions had names without a number.
const versionOf = (table: string): number => Number(/^[a-z]+_(\d+)$/.exec(table)?.[1] ?? 0)
