/**
 * A guided tour: starts the server of server.ts on a free port, calls its tools with the official MCP client, and shows
 * what was expected beside what happened. Exits with 0 only if each step went as expected.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { McpError } from "@modelcontextprotocol/sdk/types.js"
import { Cause, Clock, Effect, Exit, Layer, Redacted, Tracer } from "effect"
import { StructuredLogger } from "effect-toolops/observe"
import { HttpServer } from "effect/http"
import { layer } from "./server.ts"
import { Upstream } from "./server/quotes.ts"
import { newKeys, type Settings } from "./server/settings.ts"
import { attribute, recorder, tree } from "./tour/spans.ts"
import { Transcript } from "./tour/transcript.ts"

const callsPerMinute = 20

const secret = "the text of a note is nobody's business but the tool's"

interface Answer {
  readonly isError: boolean
  readonly content: any
}

/** The official client, with the key of one caller or none. */
const connect = (url: string, key: Redacted.Redacted<string> | undefined) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const client = new Client({ name: "tour", version: "0.1.0" })
        const headers: Record<string, string> = key === undefined ? {} : { "x-api-key": Redacted.value(key) }
        await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }))
        return client
      }),
      (client) => Effect.promise(() => client.close())
    ),
    (client) => ({
      list: Effect.promise(async () => (await client.listTools()).tools.map((tool) => tool.name).join(" ")).pipe(
        Effect.catchDefect((error) => Effect.succeed(`refused, ${reasonOf(error)}`))
      ),
      call: (name: string, input: Record<string, unknown> = {}): Effect.Effect<Answer> =>
        Effect.promise(async () => {
          try {
            const result = await client.callTool({ name, arguments: input })
            const [first] = result.content as ReadonlyArray<{ readonly text: string }>
            return { isError: result.isError === true, content: JSON.parse(first.text) }
          } catch (error) {
            if (!(error instanceof McpError)) throw error
            return { isError: true, content: { _tag: error.message.replace(/^MCP error (-\d+): /, "$1 ") } }
          }
        })
    })
  )

const reasonOf = (error: unknown): string => error instanceof McpError ? (error.data as any)?.reason : String(error)

/** What a caller sees of an answer. */
const told = ({ content, isError }: Answer): string =>
  isError ? `${content._tag === "ToolRefused" ? "refused" : "failed"}, ${content.reason ?? content._tag}` : "ok"

const asked = (requests: number): string =>
  ["not asked", "asked once", "asked twice"][requests] ?? `asked ${requests} times`

const tour = Effect.gen(function*() {
  const keys = yield* newKeys(
    { principal: "ruth", roles: ["reader"] },
    { principal: "walt", roles: ["writer"] },
    { principal: "bea", roles: ["reader"] },
    { principal: "quinn", roles: ["reader"] }
  )
  const settings: Settings = {
    host: "127.0.0.1",
    port: 0,
    keys,
    callsPerMinute,
    notesPath: undefined,
    quotesUrl: undefined,
    stdioRole: "reader"
  }
  const spans = recorder()
  const lines: Array<string> = []
  const context = yield* Layer.build(
    layer(settings).pipe(
      Layer.provide([
        Layer.succeed(Tracer.Tracer, spans.tracer),
        StructuredLogger.layer({ write: (line) => lines.push(line) })
      ])
    )
  )
  return yield* Effect.provide(steps(keys, spans, lines), context)
})

const steps = (
  keys: Settings["keys"],
  spans: ReturnType<typeof recorder>,
  lines: ReadonlyArray<string>
) =>
  Effect.gen(function*() {
    const server = HttpServer.formatAddress((yield* HttpServer.HttpServer).address)
    const { control } = yield* Upstream
    if (control === undefined) return yield* Effect.die("the tour needs an upstream of its own")
    const as = (principal: string) => connect(`${server}/mcp`, keys.find((key) => key.principal === principal)?.key)
    const clients = yield* Effect.forEach(["nobody", "ruth", "walt", "bea", "quinn"], as)
    const [nobody, ruth, walt, bea, quinn] = clients.map((client) => client.call)
    const [nobodySees, ruthSees, waltSees] = clients.map((client) => client.list)

    const { chapter, check, show, summary } = new Transcript()
    const outcome = () => attribute(spans.calls().at(-1), "tool.outcome")

    chapter("Who may call")
    const search = { query: "Layer.provide", limit: 3 }
    yield* check("the tools for nobody", "refused, MissingCredentials", nobodySees)
    yield* check("the tools for a reader", "docs_search docs_read notes_list quotes_latest", ruthSees)
    yield* check("the tools for a writer", "docs_search docs_read notes_add notes_list quotes_latest", waltSees)
    yield* check(
      "a search without a key finds no tool",
      "failed, -32602 Tool 'docs_search' not found",
      Effect.map(nobody("docs_search", search), told)
    )
    const first = yield* ruth("docs_search", search)
    yield* check(
      "a search by a reader",
      "ok, 3 matches",
      `${told(first)}, ${first.content.matches.length} matches`
    )
    yield* check(
      "a path that leads out of the folder",
      "failed, DocumentNotFound",
      Effect.map(ruth("docs_read", { path: "../../package.json" }), told)
    )

    chapter("What is known already")
    const again = yield* ruth("docs_search", search)
    const same = JSON.stringify(again) === JSON.stringify(first) ? "the same answer" : "another answer"
    yield* check("the same search again", "the same answer, cached", `${same}, ${outcome()}`)
    yield* check(
      "the same search by another reader",
      "ok, cached",
      Effect.map(bea("docs_search", search), (answer) => `${told(answer)}, ${outcome()}`)
    )

    chapter("Who may write")
    const countNotes = Effect.map(ruth("notes_list"), (answer) => `${answer.content.notes.length} notes, ${outcome()}`)
    yield* check("the notes", "0 notes, ok", countNotes)
    yield* check("the notes again", "0 notes, cached", countNotes)
    yield* check(
      "a note by a reader, for whom there is no such tool",
      "failed, -32602 Tool 'notes_add' not found",
      Effect.map(ruth("notes_add", { text: secret }), told)
    )
    yield* check(
      "a tool that there is for nobody",
      "failed, -32602 Tool 'notes_del' not found",
      Effect.map(ruth("notes_del", { text: secret }), told)
    )
    yield* check("a note by a writer", "ok", Effect.map(walt("notes_add", { text: secret }), told))
    yield* check("the notes, no longer from the cache", "1 notes, ok", countNotes)

    chapter("How often")
    // One call of this reader was spent above.
    const burst = yield* Effect.forEach(Array.from({ length: callsPerMinute }), () => bea("notes_list"), {
      concurrency: 5
    })
    const passed = burst.filter((answer) => !answer.isError).length
    const [limited] = burst.filter((answer) => answer.isError)
    yield* check(
      `${callsPerMinute + 1} calls of one reader`,
      `${callsPerMinute} pass, 1 refused`,
      `${passed + 1} pass, ${burst.length - passed} refused`
    )
    const wait = limited?.content.retryAfterMillis
    show(limited?.content.message)
    yield* check(
      "the refusal says when to come back",
      "RateLimited, within 3 seconds",
      `${limited?.content.reason}, ${wait > 0 && wait <= 3_000 ? "within 3 seconds" : `in ${wait} ms`}`
    )
    yield* check("another reader is not concerned", "ok", Effect.map(ruth("notes_list"), told))

    chapter("When the upstream misbehaves")
    const quote = quinn("quotes_latest", { symbol: "ACME" })
    const withRequests = <A>(self: Effect.Effect<A>) =>
      Effect.gen(function*() {
        const before = yield* control.requests
        const value = yield* self
        return { value, requests: (yield* control.requests) - before }
      })
    const counted = Effect.map(withRequests(quote), ({ requests, value }) => `${told(value)}, ${asked(requests)}`)
    yield* check("a quote", "ok, asked once", counted)
    yield* control.setMode("fail")
    yield* check("the upstream fails, so it is asked again", "failed, QuotesUnavailable, asked twice", counted)
    yield* check("and a second time", "failed, QuotesUnavailable, asked twice", counted)
    yield* check("and a third time", "failed, QuotesUnavailable, asked twice", counted)
    const refusedAt = yield* Clock.currentTimeMillis
    const open = yield* withRequests(quote)
    show(`after ${(yield* Clock.currentTimeMillis) - refusedAt} ms: ${open.value.content.message}`)
    yield* check(
      "the circuit is open now, and the upstream left alone",
      "refused, CircuitOpen, not asked",
      `${told(open.value)}, ${asked(open.requests)}`
    )
    yield* control.setMode("ok")
    yield* Effect.sleep((open.value.content.retryAfterMillis ?? 0) + 20)
    yield* check("it has recovered, a probe passes", "ok, asked once", counted)
    yield* check("and the circuit is closed", "ok, asked once", counted)
    yield* control.setMode("hang")
    const began = yield* Clock.currentTimeMillis
    const hung = told(yield* quote)
    const took = (yield* Clock.currentTimeMillis) - began
    yield* check(
      "the upstream hangs",
      "refused, TimedOut, in under 4 seconds",
      `${hung}, in ${took < 4_000 ? "under 4 seconds" : `${took} ms`}`
    )
    yield* control.setMode("ok")

    chapter("What is left behind")
    const metrics = yield* Effect.promise(async () => (await fetch(`${server}/metrics`)).text())
    const series = metrics.split("\n").filter((line) => /^tool_call_total.*quotes/.test(line))
    for (const line of series) show(line)
    yield* check(
      "metrics by outcome",
      "ok failed rejected timed_out",
      ["ok", "failed", "rejected", "timed_out"].filter((one) =>
        series.some((line) => line.includes(`outcome="${one}"`))
      ).join(" ")
    )
    const traced = spans.calls().filter((span) => attribute(span, "tool.id") === "quotes:latest").at(0)
    for (const line of tree(spans.spans, traced)) show(line)
    const execution = tree(spans.spans, traced).find((line) => line.includes("tool.exec."))
    yield* check("one call as spans", "tool.exec.quotes.latest", String(execution?.trim().split(" ")[0]))
    const ready = yield* Effect.promise(async () => (await fetch(`${server}/readyz`)).status)
    yield* check("the server is ready", "200", String(ready))
    yield* check(
      "arguments of calls in spans",
      "none",
      [secret, search.query].some((text) => spans.printed().includes(text))
        ? "some"
        : "none"
    )
    show(lines.find((line) => line.includes("notes:add") && line.includes("denied")))
    yield* check(
      "one log line per call",
      `${spans.calls().length} lines`,
      `${lines.filter((line) => line.includes("\"message\":\"tool call\"")).length} lines`
    )

    return summary()
  })

NodeRuntime.runMain(
  Effect.scoped(tour).pipe(
    Effect.timeout("15 seconds"),
    Effect.filterOrFail((wentWell) => wentWell, () => new Error("a step did not go as expected"))
  ),
  {
    disableErrorReporting: true,
    teardown: (exit, done) => {
      if (Exit.isFailure(exit)) console.error(String(Cause.squash(exit.cause)))
      done(Exit.isSuccess(exit) ? 0 : 1)
    }
  }
)
