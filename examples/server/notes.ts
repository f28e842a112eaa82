/** Notes in a SQLite file. Text reaches SQL as a bound parameter and nothing else. */
import { Context, DateTime, Effect, Layer } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { SettingsError } from "./settings.ts"

export interface Note {
  readonly id: number
  readonly author: string
  readonly text: string
  readonly at: string
}

export class Notes extends Context.Service<Notes, {
  readonly add: (author: string, text: string) => Effect.Effect<number>
  readonly list: Effect.Effect<ReadonlyArray<Note>>
}>()("examples/Notes") {}

const temporaryFile = Effect.map(
  Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "effect-toolops-"))),
    (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
  ),
  (folder) => join(folder, "notes.sqlite")
)

const open = (path: string) =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const database = new DatabaseSync(path)
        database.exec(
          "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, author TEXT NOT NULL, text TEXT NOT NULL, at TEXT NOT NULL)"
        )
        return database
      },
      catch: () => new SettingsError({ field: "TOOLOPS_NOTES", problem: `cannot open ${path} as a SQLite file` })
    }),
    (database) => Effect.sync(() => database.close())
  )

export const layer = (path: string | undefined): Layer.Layer<Notes, SettingsError> =>
  Layer.effect(
    Notes,
    Effect.gen(function*() {
      const database = yield* open(path ?? (yield* temporaryFile))
      const insert = database.prepare("INSERT INTO notes (author, text, at) VALUES (?, ?, ?)")
      const select = database.prepare("SELECT id, author, text, at FROM notes ORDER BY id DESC LIMIT 100")
      return {
        add: (author, text) =>
          Effect.map(
            DateTime.now,
            (now) => Number(insert.run(author, text, DateTime.formatIso(now)).lastInsertRowid)
          ),
        list: Effect.sync(() =>
          select.all().map((row) => ({
            id: Number(row["id"]),
            author: String(row["author"]),
            text: String(row["text"]),
            at: String(row["at"])
          }))
        )
      }
    })
  )
