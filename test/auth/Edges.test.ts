// One rule for every way in: what a request shows is judged alike by HTTP routes, health routes and MCP servers.
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Redacted, Schema } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { McpOps, ToolkitOps } from "effect-toolops/ai"
import { ApiKey, Authenticator, AuthError, AuthMiddleware, Authorizer, HttpAuth, Identity } from "effect-toolops/auth"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { McpProtocol, McpServer, Tool, Toolkit } from "effect/ai"
import { HttpRouter, HttpServerResponse } from "effect/http"
import * as Http from "node:http"
import * as Net from "node:net"
import type { AddressInfo } from "node:net"
import { pipeline } from "../ai/mcp.ts"

const key = "a key for the tests of edges"
const Keys = ApiKey.layer().pipe(Layer.provide(ApiKey.layerMemory({
  keys: [{ id: "k", key: Redacted.make(key), principal: "ada" }]
})))

/** Takes the bearer token for the principal, unless it is `bad`. */
const Named = Authenticator.layer({
  schemes: ["Bearer"],
  authenticate: (headers) =>
    Effect.flatMap(
      Authenticator.bearer(headers),
      Option.match({
        onNone: () => Effect.succeedNone,
        onSome: (token) =>
          Redacted.value(token) === "bad"
            ? Effect.fail(new AuthError.AuthError({ reason: new AuthError.InvalidCredentials() }))
            : Effect.succeedSome(Identity.make({ principal: Redacted.value(token), method: "named" }))
      })
    )
})

const WhoAmI = Tool.make("who_am_i", { parameters: Tool.EmptyParams, success: Schema.String })
const Tools = ToolkitOps.guard(Toolkit.make(WhoAmI))
const handlers = ToolkitOps.layer(Tools, {
  who_am_i: () => Effect.map(Identity.CurrentIdentity, (who) => who.principal)
})

const mcp = <A, R>(
  path: `/${string}`,
  middleware: Layer.Layer<A, never, R>,
  auth: Layer.Layer<AuthMiddleware.AuthMiddleware>
) =>
  McpServer.layerHttp({
    name: "test",
    version: "0.0.0",
    path,
    protocols: [McpProtocol.v2026_07_28],
    registrations: McpServer.toolkit(Tools).pipe(
      Layer.provide(middleware),
      Layer.provide(handlers),
      Layer.provide(pipeline({ auth }))
    )
  })

const me = HttpRouter.add(
  "GET",
  "/me",
  Effect.map(Identity.CurrentIdentity, (who) => HttpServerResponse.text(who.principal))
).pipe(Layer.provide(HttpAuth.middleware().layer))

const health = HealthRoutes.layerAuthorized().pipe(
  Layer.provide(HealthRegistry.layerCheck(HealthCheck.make({ name: "inner", check: Effect.void }))),
  Layer.provide(HealthRegistry.layer)
)

const body = JSON.stringify({
  jsonrpc: "2.0",
  id: 1,
  method: "tools/call",
  params: {
    name: "who_am_i",
    arguments: {},
    _meta: {
      "io.modelcontextprotocol/protocolVersion": "2026-07-28",
      "io.modelcontextprotocol/clientInfo": { name: "by-hand", version: "0.0.0" },
      "io.modelcontextprotocol/clientCapabilities": {}
    }
  }
})
const mcpLines = [
  "Content-Type: application/json",
  "Accept: application/json, text/event-stream",
  "Mcp-Protocol-Version: 2026-07-28",
  "Mcp-Method: tools/call",
  "Mcp-Name: who_am_i",
  `Content-Length: ${Buffer.byteLength(body)}`
]

const edges = {
  "HttpAuth": { path: "/me", isIn: (text: string) => text.includes("ada") },
  "HealthRoutes.layerAuthorized": { path: "/health", isIn: (text: string) => text.includes("duration") },
  "McpOps.headers": { path: "/mcp", isIn: (text: string) => text.includes("ada") },
  "McpOps.authenticate": { path: "/mcp-authenticated", isIn: (text: string) => text.includes("ada") }
}

const serve = (authenticator: Layer.Layer<Authenticator.Authenticator>) =>
  Effect.gen(function*() {
    const Stage = AuthMiddleware.layer.pipe(Layer.provide([authenticator, Authorizer.layerAllowAll]))
    const App = Layer.mergeAll(
      me,
      health,
      mcp("/mcp", McpOps.headers.layer, Stage),
      mcp("/mcp-authenticated", McpOps.authenticate.layer, Stage)
    ).pipe(Layer.provide([authenticator, Authorizer.layerAllowAll]))
    const server = Http.createServer()
    yield* Layer.build(
      HttpRouter.serve(Layer.orDie(App), {
        disableLogger: true,
        disableListenLog: true
      }).pipe(Layer.provide(NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" })))
    )
    const { port } = server.address() as AddressInfo
    return (edge: keyof typeof edges, lines: ReadonlyArray<string>) =>
      Effect.callback<boolean>((resume) => {
        const { isIn, path } = edges[edge]
        const isMcp = path.startsWith("/mcp")
        let text = ""
        const socket = Net.connect(port, "127.0.0.1", () => {
          const head = [`${isMcp ? "POST" : "GET"} ${path} HTTP/1.1`, "Host: a", "Connection: close", ...lines]
          socket.write([...head, ...isMcp ? mcpLines : [], "", isMcp ? body : ""].join("\r\n"))
        })
        socket.on("data", (data) => text += String(data))
        socket.once("close", () => resume(Effect.succeed(isIn(text.slice(text.indexOf("\r\n\r\n"))))))
      })
  })

const cases: ReadonlyArray<readonly [string, ReadonlyArray<string>, boolean]> = [
  ["one token", ["Authorization: Bearer ada"], true],
  ["a key", [`X-API-Key: ${key}`], true],
  ["a key and a token of one caller", [`X-API-Key: ${key}`, "Authorization: bearer ada"], true],
  ["nothing", [], false],
  ["two headers, both good", ["Authorization: Bearer ada", "Authorization: Bearer ada"], false],
  ["two headers, one good", ["Authorization: Bearer ada", "authorization: Bearer bad"], false],
  ["two headers, one empty", ["Authorization: Bearer ada", "Authorization:"], false],
  ["two tokens in one header", ["Authorization: Bearer ada, Bearer ada"], false],
  ["a key and a bad token", [`X-API-Key: ${key}`, "Authorization: Bearer bad"], false],
  ["a key and a token of somebody else", [`X-API-Key: ${key}`, "Authorization: Bearer bob"], false],
  ["a key and two headers", [`X-API-Key: ${key}`, "Authorization: Bearer ada", "Authorization: Bearer ada"], false],
  ["a key and a scheme that nobody reads", [`X-API-Key: ${key}`, "Authorization: Negotiate ada"], false],
  ["a key and an empty header", [`X-API-Key: ${key}`, "Authorization:"], false],
  ["two keys", [`X-API-Key: ${key}`, `X-API-Key: ${key}`], false]
]

describe("at every edge", () => {
  it.live("what a request shows is judged alike", () =>
    Effect.gen(function*() {
      const ask = yield* serve(Authenticator.layerFirstOf(Keys, Named))
      for (const [what, lines, isIn] of cases) {
        for (const edge of Object.keys(edges) as ReadonlyArray<keyof typeof edges>) {
          assert.strictEqual(yield* ask(edge, lines), isIn, `${edge}: ${what}`)
        }
      }
    }))

  it.live("an Authorization header that nobody reads is bad beside a good key as well", () =>
    Effect.gen(function*() {
      const ask = yield* serve(Keys)
      for (const edge of Object.keys(edges) as ReadonlyArray<keyof typeof edges>) {
        assert.isTrue(yield* ask(edge, [`X-API-Key: ${key}`]), edge)
        for (const bad of ["Bearer stolen", "Bearer a, Bearer b", "Bearer", "Basic YTpi"]) {
          assert.isFalse(yield* ask(edge, [`X-API-Key: ${key}`, `Authorization: ${bad}`]), `${edge}: ${bad}`)
        }
        const twice = ["Authorization: Bearer a", "Authorization: Bearer b"]
        assert.isFalse(yield* ask(edge, [`X-API-Key: ${key}`, ...twice]), edge)
      }
    }))

  it.effect("and by the pipeline itself", () =>
    Effect.gen(function*() {
      const guarded = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
      const tool = ToolMeta.make({ name: "t" })
      const run = (headers: Record<string, string | ReadonlyArray<string>>) =>
        Effect.match(guarded.run({ tool, headers }, Effect.map(Identity.CurrentIdentity, (who) => who.principal)), {
          onFailure: (error): string => error.reason._tag,
          onSuccess: (principal) => principal
        })
      const beside = (authorization: string | ReadonlyArray<string>) => run({ "x-api-key": key, authorization })
      assert.strictEqual(yield* run({ "x-api-key": key }), "ada")
      for (const read of ["Bearer ada", "bearer ada", "BEARER ada"]) assert.strictEqual(yield* beside(read), "ada")
      for (
        const bad of ["Bearer bob", "Bearer bad", "Bearerx ada", "Negotiate ada", "", " Bearer ada", ["Bearer ada", ""]]
      ) assert.strictEqual(yield* beside(bad), "InvalidCredentials", JSON.stringify(bad))
    }).pipe(Effect.provide(AuthMiddleware.layer.pipe(
      Layer.provide([Authenticator.layerFirstOf(Keys, Named), Authorizer.layerAllowAll])
    ))))
})
