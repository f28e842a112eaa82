/**
 * The tools as callers see them. `docs_search` is `docs:search` in the pipeline.
 *
 * The annotations decide what may happen to a call: only read-only tools are cached and retried, and only a tool for
 * everyone shares its answers between callers.
 */
import { Effect, Schema } from "effect"
import { ToolkitOps, ToolPolicy } from "effect-toolops/ai"
import { Identity } from "effect-toolops/auth"
import { Tool, Toolkit } from "effect/ai"
import * as Docs from "./docs.ts"
import * as Notes from "./notes.ts"
import * as Quotes from "./quotes.ts"

const Match = Schema.Struct({ path: Schema.String, line: Schema.Int, text: Schema.String })

const Note = Schema.Struct({ id: Schema.Int, author: Schema.String, text: Schema.String, at: Schema.String })

const Text = Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(2_000))

const DocsSearch = Tool.make("docs_search", {
  description: "Finds lines in Effect's documents for writers.",
  parameters: Schema.Struct({
    query: Schema.String.check(Schema.isMinLength(2), Schema.isMaxLength(200)),
    limit: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 50 })))
  }),
  success: Schema.Struct({ matches: Schema.Array(Match) })
})
  .annotate(Tool.Readonly, true)
  .annotate(Tool.OpenWorld, false)
  .annotate(ToolPolicy.ToolPolicy, { varies: "everyone" })

const DocsRead = Tool.make("docs_read", {
  description: "Reads one document, by the path that docs_search gave.",
  parameters: Schema.Struct({ path: Schema.String.check(Schema.isMaxLength(300)) }),
  success: Schema.Struct({ path: Schema.String, text: Schema.String }),
  failure: Docs.DocumentNotFound,
  failureMode: "return"
})
  .annotate(Tool.Readonly, true)
  .annotate(Tool.OpenWorld, false)
  .annotate(ToolPolicy.ToolPolicy, { varies: "everyone" })

const NotesAdd = Tool.make("notes_add", {
  description: "Writes down a note.",
  parameters: Schema.Struct({ text: Text }),
  success: Schema.Struct({ id: Schema.Int })
})
  .annotate(Tool.Destructive, false)
  .annotate(Tool.OpenWorld, false)
  .annotate(ToolPolicy.ToolPolicy, { policy: { invalidates: () => ["notes"] } })

const NotesList = Tool.make("notes_list", {
  description: "Lists the last hundred notes.",
  success: Schema.Struct({ notes: Schema.Array(Note) })
})
  .annotate(Tool.Readonly, true)
  .annotate(Tool.OpenWorld, false)
  .annotate(ToolPolicy.ToolPolicy, { varies: "everyone", policy: { tags: () => ["notes"] } })

const QuotesLatest = Tool.make("quotes_latest", {
  description: "The latest quote of a symbol.",
  parameters: Schema.Struct({ symbol: Schema.String.check(Schema.isPattern(/^[A-Z]{1,8}$/)) }),
  success: Quotes.Quote,
  failure: Quotes.QuotesUnavailable,
  failureMode: "return"
})
  .annotate(Tool.Readonly, true)
  .annotate(ToolPolicy.ToolPolicy, {
    policy: {
      // A quote that is kept is not the latest.
      ttl: 0,
      dependency: "quotes-upstream",
      timeout: { timeout: "600 millis" },
      retry: { maxAttempts: 2, initialDelay: "20 millis" },
      circuitBreaker: { maxFailures: 3, resetTimeout: "1 second" }
    }
  })

/** The toolkit, with room for the pipeline's refusals. */
export const Tools = ToolkitOps.guard(Toolkit.make(DocsSearch, DocsRead, NotesAdd, NotesList, QuotesLatest))

/** Its handlers. They know nothing of keys, limits, caches and breakers. */
export const handlers = ToolkitOps.layer(
  Tools,
  Effect.gen(function*() {
    const docs = yield* Docs.Docs
    const notes = yield* Notes.Notes
    const quotes = yield* Quotes.Quotes
    return {
      docs_search: ({ query, limit = 10 }) => Effect.map(docs.search(query, limit), (matches) => ({ matches })),
      docs_read: ({ path }) => Effect.map(docs.read(path), (text) => ({ path, text })),
      notes_add: Effect.fn("notes_add")(function*({ text }) {
        const caller = yield* Identity.CurrentIdentity
        return { id: yield* notes.add(caller.principal, text) }
      }),
      notes_list: () => Effect.map(notes.list, (list) => ({ notes: list })),
      quotes_latest: ({ symbol }) => quotes.latest(symbol)
    }
  })
)
