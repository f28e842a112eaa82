/**
 * The documents: the Markdown and TypeScript files that Effect ships for writers.
 *
 * Only files found at start can be read, by the very path under which they were found. A path from a caller is looked up
 * and never joined to anything, so there is nothing to escape from.
 */
import { Context, Effect, FileSystem, Layer, Path, Schema } from "effect"
import { fileURLToPath } from "node:url"

export class DocumentNotFound extends Schema.TaggedError<DocumentNotFound>("examples/DocumentNotFound")(
  "DocumentNotFound",
  { message: Schema.String }
) {}

export interface Match {
  readonly path: string
  readonly line: number
  readonly text: string
}

export class Docs extends Context.Service<Docs, {
  readonly search: (query: string, limit: number) => Effect.Effect<ReadonlyArray<Match>>
  readonly read: (path: string) => Effect.Effect<string, DocumentNotFound>
}>()("examples/Docs") {}

export const layer = Layer.effect(
  Docs,
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const root = yield* fs.realPath(fileURLToPath(new URL("ai-docs", import.meta.resolve("effect/package.json"))))
    const files = new Map<string, string>()
    for (const name of (yield* fs.readDirectory(root, { recursive: true })).toSorted()) {
      if (!name.endsWith(".md") && !name.endsWith(".ts")) continue
      const file = yield* fs.realPath(path.join(root, name))
      // A link could lead out of the folder.
      if (file.startsWith(root + path.sep)) files.set(name.replaceAll(path.sep, "/"), file)
    }
    const readFile = (file: string) => Effect.orDie(fs.readFileString(file))
    return {
      read: (name) => {
        const file = files.get(name)
        return file === undefined
          ? Effect.fail(new DocumentNotFound({ message: "There is no such document. Search for one." }))
          : readFile(file)
      },
      search: (query, limit) =>
        Effect.gen(function*() {
          const wanted = query.toLowerCase()
          const matches: Array<Match> = []
          for (const [name, file] of files) {
            const lines = (yield* readFile(file)).split("\n")
            for (const [index, text] of lines.entries()) {
              if (matches.length >= limit) return matches
              if (text.toLowerCase().includes(wanted)) matches.push({ path: name, line: index + 1, text: text.trim() })
            }
          }
          return matches
        })
    }
  })
)
