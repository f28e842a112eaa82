import { assert, describe, it } from "@effect/vitest"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { ProgressNotificationSchema } from "@modelcontextprotocol/sdk/types.js"
import { ConfigProvider, Effect, type Scope } from "effect"
import { AsyncLocalStorage } from "node:async_hooks"
import { Agent, request } from "node:http"
import { Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import { registrations } from "./clientServer.ts"
import { call, connect, serve } from "./mcp.ts"

interface Session {
  readonly client: Client
  /** What the server was told to tell. */
  readonly events: () => string
}

// Over HTTP, whoever is configured for stdio must not count.
const withUser = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(
    self,
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromUnknown({ TEST_USER: "whoever-started-it" })
  )

const overHttp: Effect.Effect<Session, never, Scope.Scope> = Effect.gen(function*() {
  let events = ""
  const url = yield* serve(registrations((event) => events += `${event}\n`))
  return { client: yield* connect(url, { "x-user": "ada" }), events: () => events }
}).pipe(withUser)

const overStdio: Effect.Effect<Session, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    let events = ""
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: ["-C", "@effect-toolops/source", fileURLToPath(new URL("clientServer.ts", import.meta.url))],
      env: { TEST_USER: "ada" },
      stderr: "pipe"
    })
    transport.stderr!.on("data", (text: unknown) => events += String(text))
    const client = new Client({ name: "test-client", version: "0.0.0" })
    await client.connect(transport)
    return { client, events: () => events }
  }),
  ({ client }) => Effect.promise(() => client.close())
)

const until = (isSo: () => boolean) =>
  Effect.gen(function*() {
    while (!isSo()) yield* Effect.sleep("5 millis")
  })
const told = (session: Session, text: string) => until(() => session.events().includes(text))

for (const [transport, open] of [["HTTP", overHttp], ["stdio", overStdio]] as const) {
  describe(`a guarded server and the official client over ${transport}`, () => {
    it.live("list, call, refuse, limit, time out, cancel and report", () =>
      Effect.gen(function*() {
        const session = yield* open
        const { client } = session
        const { tools } = yield* Effect.promise(() => client.listTools())
        assert.deepStrictEqual(
          tools.map((tool) => tool.name),
          ["who_cached", "who_fresh", "count_up", "slow_late", "slow_hang", "rare_call"]
        )
        const answer = yield* call(client, "who_fresh", { word: "hi" })
        assert.deepStrictEqual(answer.structured, { principal: "ada", word: "hi" })

        const hidden = yield* Effect.promise(() => client.callTool({ name: "admin_purge" }).catch((error) => error))
        const absent = yield* Effect.promise(() => client.callTool({ name: "admin_purgf" }).catch((error) => error))
        assert.deepStrictEqual(
          [hidden.code, hidden.message.replace("purge", "purgf"), hidden.data],
          [absent.code, absent.message, absent.data]
        )

        assert.strictEqual((yield* call(client, "rare_call")).isError, false)
        const limited = JSON.parse((yield* call(client, "rare_call")).text)
        assert.include(limited, { reason: "RateLimited", retryable: true })
        assert.isAbove(limited.retryAfterMillis, 3_500_000)

        const late = JSON.parse((yield* call(client, "slow_late")).text)
        // It has no annotations, so it may have done something.
        assert.include(late, { reason: "TimedOut", retryable: false })

        // Not by `onprogress`: the client forgets that with the answer, also for a report that came right before it.
        const reports: Array<readonly [token: unknown, progress: number]> = []
        client.setNotificationHandler(ProgressNotificationSchema, ({ params }) => {
          reports.push([params.progressToken, params.progress])
        })
        const counted = yield* Effect.promise(() =>
          client.callTool({ name: "count_up", arguments: { to: 5 }, _meta: { progressToken: "counting" } })
        )
        assert.isFalse(counted.isError)
        yield* until(() => reports.length >= 5)
        assert.deepStrictEqual(reports, [1, 2, 3, 4, 5].map((progress) => ["counting", progress] as const))

        const controller = new AbortController()
        const hanging = client.callTool({ name: "slow_hang" }, undefined, { signal: controller.signal })
        const failed = hanging.then(() => "answered", () => "failed")
        yield* told(session, "started")
        controller.abort()
        assert.strictEqual(yield* Effect.promise(() => failed), "failed")
        yield* told(session, "interrupted")
        // The connection is as good as before.
        assert.strictEqual((yield* call(client, "who_fresh", { word: "after" })).isError, false)
        assert.notInclude(session.events(), "purged")
      }), 60_000)
  })
}

/** The caller of the requests that are made inside, whatever connection and session they go over. */
const speaking = new AsyncLocalStorage<string>()

/** `fetch` over few connections that all requests share. */
const fetchOver = (agent: Agent): typeof fetch => (input, init) =>
  new Promise((resolve, reject) => {
    const headers: Record<string, string> = Object.fromEntries(new Headers(init?.headers))
    const user = speaking.getStore()
    const sent = request(String(input), {
      agent,
      method: init?.method ?? "GET",
      headers: { ...headers, ...(user === undefined ? {} : { "x-user": user }) }
    }, (incoming) => {
      const status = incoming.statusCode ?? 0
      const body = [202, 204].includes(status) ? null : Readable.toWeb(incoming) as ReadableStream
      if (body === null) incoming.resume()
      resolve(new Response(body, { status, headers: incoming.headers as Record<string, string> }))
    })
    sent.on("error", reject)
    init?.signal?.addEventListener("abort", () => sent.destroy(new Error("aborted")))
    sent.end(init?.body)
  })

describe("a guarded server", () => {
  it.live("takes nobody over HTTP for whoever is configured for stdio", () =>
    Effect.gen(function*() {
      const client = yield* connect(yield* serve(registrations(() => {})))
      const refused = yield* Effect.promise(() => client.listTools().catch((error) => error))
      assert.include(refused.data, { reason: "MissingCredentials" })
    }).pipe(withUser))

  it.live(
    "mixes nothing up in 1,000 concurrent calls of 50 callers over shared sessions and connections",
    () =>
      Effect.gen(function*() {
        const perCaller = 20
        const url = yield* serve(registrations(() => {}, perCaller))
        const agent = yield* Effect.acquireRelease(
          Effect.sync(() => new Agent({ keepAlive: true, maxSockets: 8 })),
          (agent) => Effect.sync(() => agent.destroy())
        )
        const clients = yield* Effect.forEach(Array.from({ length: 5 }), () =>
          Effect.acquireRelease(
            Effect.promise(async () => {
              const client = new Client({ name: "shared", version: "0.0.0" })
              await client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: fetchOver(agent) }))
              return client
            }),
            (client) => Effect.promise(() => client.close())
          ))
        const calls = Array.from({ length: 1_000 }, (_, index) => ({
          user: `user-${index % 50}`,
          name: index % 4 === 0 ? "who_fresh" : "who_cached",
          word: "abc".slice(0, 1 + index % 3),
          client: clients[index % 7 % 5]!
        }))
        const ask = ({ client, name, user, word }: typeof calls[number]) =>
          speaking.run(user, () => client.callTool({ name, arguments: { word } }))
        const answers = yield* Effect.promise(() => Promise.all(calls.map(ask)))
        assert.deepStrictEqual(
          answers.map((answer) => answer.structuredContent),
          calls.map(({ user, word }) => ({ principal: user, word }))
        )
        // Each has made exactly as many calls as it has: the next is refused, whoever asks.
        const refused = yield* Effect.promise(() => Promise.all(calls.slice(0, 50).map(ask)))
        for (const answer of refused) {
          const [{ text }] = answer.content as [{ readonly text: string }]
          assert.include(JSON.parse(text), { reason: "RateLimited" })
        }
        assert.isAtMost(Object.values(agent.sockets).concat(Object.values(agent.freeSockets)).flat().length, 8)
      }).pipe(withUser),
    60_000
  )
})
