import { assert, describe, it } from "@effect/vitest"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { Effect, Layer, Redacted, Schema } from "effect"
import { McpOps, ToolkitOps } from "effect-toolops/ai"
import { Authenticator, AuthMiddleware, Authorizer, Identity } from "effect-toolops/auth"
import { McpServer, Tool, Toolkit } from "effect/ai"
import { pipeline, rpc, serve } from "./mcp.ts"

const Who = Tool.make("who", { success: Schema.Struct({ principal: Schema.String }) }).annotate(Tool.Readonly, true)
const Tools = ToolkitOps.guard(Toolkit.make(Who))

/** Takes `Bearer name.scope_tenant_issuer_method` for a token. `~d800` in a name is the code unit of that number. */
const tokens = Layer.succeed(
  Authenticator.Authenticator,
  Authenticator.make({
    schemes: ["Bearer"],
    authenticate: (headers) =>
      Effect.flatMap(Authenticator.bearer(headers), (token) => {
        if (token._tag === "None") return Effect.succeedNone
        const [name = "", tenant, issuer, method] = Redacted.value(token.value).split("_")
        const [written = "", ...scopes] = name.split(".")
        const principal = written.replace(/~(....)/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 16)))
        return Effect.succeedSome(Identity.make({
          principal,
          scopes,
          ...tenant === undefined ? {} : { tenant },
          ...issuer === undefined ? {} : { issuer },
          ...method === undefined ? {} : { method }
        }))
      })
  })
)

const start = () => {
  const auth = Layer.mergeAll(tokens, Authorizer.layer(() => true))
  return serve(
    McpServer.toolkit(Tools).pipe(
      Layer.provide(McpOps.headers.layer),
      Layer.provide(ToolkitOps.layer(Tools, {
        who: () => Effect.map(Identity.CurrentIdentity, ({ principal }) => ({ principal }))
      })),
      Layer.provide(pipeline({ auth: AuthMiddleware.layer.pipe(Layer.provide(auth)) }))
    ),
    (server) =>
      McpOps.resourceServer({
        metadata: { resource: "https://tools.example.com/mcp", authorizationServers: ["https://login.example.com"] }
      })(server).pipe(Layer.provide(tokens))
  )
}

const join = (url: string, token: string, sessionId?: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Client({ name: "test-client", version: "0.0.0" })
      const transport = new StreamableHTTPClientTransport(new URL(url), {
        requestInit: { headers: { authorization: `Bearer ${token}` } },
        ...sessionId === undefined ? {} : { sessionId }
      })
      await client.connect(transport as never)
      return { client, transport }
    }),
    ({ client }) => Effect.promise(() => client.close())
  )

const who = ({ client }: { readonly client: Client }) =>
  Effect.map(
    Effect.tryPromise({
      try: () => client.callTool({ name: "who", arguments: {} }),
      catch: (error) => (error as { readonly code?: number }).code
    }),
    ({ structuredContent }) => (structuredContent as { readonly principal: string }).principal
  )

describe("sessions of a resource server", () => {
  it.live("are of no use to other callers who know the id, and stay what they were for their own", () =>
    Effect.gen(function*() {
      const url = yield* start()
      const ada = yield* join(url, "ada.read")
      const id = ada.transport.sessionId
      assert(id !== undefined)
      assert.strictEqual(yield* who(ada), "ada")

      for (const other of ["bob", "ada_acme"]) {
        const thief = yield* join(url, other, id)
        assert.strictEqual(yield* Effect.flip(who(thief)), 404)
        yield* Effect.promise(() => thief.transport.terminateSession().catch(() => undefined))
      }
      // With the scopes of a step-up.
      const later = yield* join(url, "ada.read.write", id)
      assert.strictEqual(yield* who(later), "ada")
      assert.strictEqual(yield* who(ada), "ada")

      yield* Effect.promise(() => ada.transport.terminateSession())
      assert.strictEqual(yield* Effect.flip(who(later)), 404)
    }))

  it.live("answer another's id, a made-up one and one of a session that is over alike, whatever the method", () =>
    Effect.gen(function*() {
      const url = yield* start()
      const ada = yield* join(url, "ada")
      const bob = yield* join(url, "bob")
      const id = ada.transport.sessionId!
      const own = bob.transport.sessionId!
      const over = yield* join(url, "bob")
      const ended = over.transport.sessionId!
      yield* Effect.promise(() => over.transport.terminateSession())
      const ask = (method: string, session: string, version: string) =>
        Effect.promise(async () => {
          const response = await fetch(url, {
            method,
            headers: {
              authorization: "Bearer bob",
              accept: method === "GET" ? "text/event-stream" : "application/json, text/event-stream",
              "content-type": "application/json",
              "mcp-session-id": session,
              "mcp-protocol-version": version
            },
            ...method === "POST" ? { body: `{"jsonrpc":"2.0","id":1,"method":"tools/list"}` } : {}
          })
          return { status: response.status, body: method === "GET" ? "" : await response.text() }
        })
      const [bare = ""] = id.split(".")
      const mixed = `${bare}.${own.split(".")[1]}`
      for (const method of ["POST", "GET", "DELETE"]) {
        for (const session of [id, bare, mixed, "", ".", "none", ended]) {
          assert.deepStrictEqual(yield* ask(method, session, "2025-11-25"), {
            status: method === "GET" ? 405 : 404,
            body: ""
          }, method)
        }
        // A revision without sessions does not look at the id, and nobody gets into one by naming it.
        assert.notStrictEqual((yield* ask(method, id, "2026-07-28")).status, 200, method)
      }
      assert.strictEqual(yield* who(ada), "ada")
      assert.strictEqual(yield* who(bob), "bob")
    }))

  it.live("are of one caller, in all that tells callers apart", () =>
    Effect.gen(function*() {
      const url = yield* start()
      const groups = [
        ["ada_acme_a_jwt", "ada_acme_b_jwt", "ada_acme_a_key", "ada_acme", "ada", "bob_acme_a_jwt"],
        // What no UTF-8 tells apart, and what is told apart by where one part ends.
        ["x~d800", "x~d801", "x~fffd", "x"],
        ["a_bc", "ab_c", "null", "a"]
      ]
      for (const tokens of groups) {
        for (const token of tokens) {
          const own = yield* join(url, token)
          const id = own.transport.sessionId!
          for (const other of tokens) {
            const status = yield* Effect.promise(async () => {
              const response = await fetch(url, {
                method: "POST",
                headers: {
                  authorization: `Bearer ${other}`,
                  accept: "application/json, text/event-stream",
                  "content-type": "application/json",
                  "mcp-session-id": id,
                  "mcp-protocol-version": "2025-11-25"
                },
                body: `{"jsonrpc":"2.0","id":1,"method":"ping"}`
              })
              await response.text()
              return response.status
            })
            assert.strictEqual(status, token === other ? 200 : 404, `${other} in a session of ${token}`)
          }
        }
      }
    }))

  it.live("say nothing to a revision that has none", () =>
    Effect.gen(function*() {
      const url = yield* start()
      const ada = yield* rpc(url, "2026-07-28", { authorization: "Bearer ada", "mcp-session-id": "another server's" })
      const answer = yield* ada("tools/call", { name: "who", arguments: {} })
      assert.strictEqual(answer.status, 200)
      assert.include(answer.body, `"principal":"ada"`)
      assert.notProperty(answer.headers, "mcp-session-id")
    }))
})
