import { assert, describe, it } from "@effect/vitest"
import { discoverOAuthProtectedResourceMetadata } from "@modelcontextprotocol/sdk/client/auth.js"
import { Effect, Layer, Redacted, Schema } from "effect"
import { McpOps, ToolkitOps, ToolPolicy } from "effect-toolops/ai"
import { Authenticator, AuthError, AuthMiddleware, Authorizer, Identity } from "effect-toolops/auth"
import { McpServer, Tool, Toolkit } from "effect/ai"
import { call, connect, pipeline, type Raw, rpc, serve } from "./mcp.ts"

const Who = Schema.Struct({ principal: Schema.String })
const Read = Tool.make("files_read", { success: Who }).annotate(Tool.Readonly, true)
const Write = Tool.make("files_write", { success: Who })
  .annotate(ToolPolicy.ToolPolicy, { scopes: ["files:read", "files:write"] })
const Format = Tool.make("disk_format", { success: Who })
const Tools = ToolkitOps.guard(Toolkit.make(Read, Write, Format))

const ran: Array<string> = []
const work = (name: string) => () =>
  Effect.map(Identity.CurrentIdentity, ({ principal }) => {
    ran.push(name)
    return { principal }
  })
const handlers = ToolkitOps.layer(Tools, {
  files_read: work("files_read"),
  files_write: work("files_write"),
  disk_format: work("disk_format")
})

/** Takes `Bearer name.scope.scope` for a token, `_` for the `:` of a scope. */
const tokens = Layer.succeed(
  Authenticator.Authenticator,
  Authenticator.make({
    schemes: ["Bearer"],
    authenticate: (headers) =>
      Effect.flatMap(Authenticator.bearer(headers), (token) => {
        if (token._tag === "None") return Effect.succeedNone
        const [principal = "", ...scopes] = Redacted.value(token.value).split(".")
        return principal === "mallory"
          ? Effect.fail(AuthError.refused("TokenExpired"))
          : Effect.succeedSome(Identity.make({ principal, scopes: scopes.map((scope) => scope.replace("_", ":")) }))
      })
  })
)
const policy = Authorizer.layer(({ tool }) => tool.id !== "disk:format")

const metadata = {
  resource: "https://tools.example.com/public/mcp",
  authorizationServers: ["https://login.example.com"],
  scopesSupported: ["files:read", "files:write"]
}

const start = (
  options: Partial<McpOps.ResourceServerOptions> = {},
  middleware: McpOps.Middleware<any> = McpOps.headers
) => {
  const auth = Layer.mergeAll(tokens, policy)
  return serve(
    McpServer.toolkit(Tools).pipe(
      // It needs nothing but what is provided here.
      Layer.provide(middleware.layer as Layer.Layer<never, never, McpServer.McpServer>),
      Layer.provide(handlers),
      Layer.provide(pipeline({ auth: AuthMiddleware.layer.pipe(Layer.provide(auth)) })),
      Layer.provide(auth)
    ),
    (server) => McpOps.resourceServer({ metadata, ...options })(server).pipe(Layer.provide(tokens))
  )
}

const document = "https://tools.example.com/.well-known/oauth-protected-resource/public/mcp"
const challengeOf = ({ headers }: Raw) => headers["www-authenticate"]

describe("McpOps.resourceServer", () => {
  for (const revision of ["2026-07-28", "2025-11-25"] as const) {
    it.live(`answers 401 with a challenge to whoever has no valid token, in ${revision}`, () =>
      Effect.gen(function*() {
        const url = yield* start()
        ran.length = 0
        const nobody = yield* rpc(url, revision)
        for (const method of ["initialize", "server/discover", "tools/list", "tools/call", "no/such/method"]) {
          const answer = yield* nobody(method, { name: "files_read" })
          assert.strictEqual(answer.status, 401)
          assert.strictEqual(challengeOf(answer), `Bearer resource_metadata="${document}"`)
        }
        const mallory = yield* rpc(url, revision, { authorization: "Bearer mallory" })
        const answer = yield* mallory("tools/call", { name: "files_read" })
        assert.strictEqual(answer.status, 401)
        assert.match(challengeOf(answer)!, /^Bearer error="invalid_token", .*resource_metadata="/)
        // A token in the address does not count.
        const sneaky = yield* rpc(`${url}?access_token=ada`, revision)
        assert.strictEqual((yield* sneaky("tools/list", {})).status, 401)
        assert.deepStrictEqual(ran, [])
      }))

    it.live(`answers 403 and names all scopes of a tool that needs more, in ${revision}`, () =>
      Effect.gen(function*() {
        const url = yield* start()
        ran.length = 0
        const ada = yield* rpc(url, revision, { authorization: "Bearer ada.files_read" })
        const answer = yield* ada("tools/call", { name: "files_write" })
        assert.strictEqual(answer.status, 403)
        assert.strictEqual(
          challengeOf(answer),
          `Bearer error="insufficient_scope", error_description="The caller lacks a scope that the tool needs", scope="files:read files:write", resource_metadata="${document}"`
        )
        assert.deepStrictEqual(ran, [])
        const walt = yield* rpc(url, revision, { authorization: "Bearer walt.files_read.files_write" })
        const passed = yield* walt("tools/call", { name: "files_write" })
        assert.deepInclude(passed, { status: 200 })
        assert.include(passed.body, "walt")
        assert.isUndefined(challengeOf(passed))
      }))

    it.live(`decides by the name in the body, and takes no other in the header, in ${revision}`, () =>
      Effect.gen(function*() {
        const url = yield* start()
        ran.length = 0
        const ada = yield* rpc(url, revision, { authorization: "Bearer ada" })
        for (
          const headers of [
            { "mcp-name": "files_read" },
            { "mcp-method": "tools/list" },
            { "mcp-name": "files_write, files_read" },
            { "mcp-name": "=?base64?!?=" }
          ]
        ) {
          const answer = yield* ada("tools/call", { name: "files_write" }, headers)
          assert.include(JSON.parse(answer.body).error, { code: -32_020 })
        }
        const said = { "mcp-name": "=?base64?ZmlsZXNfcmVhZA==?=", "mcp-method": "tools/call" }
        assert.include((yield* ada("tools/call", { name: "files_read" }, said)).body, "ada")
        assert.deepStrictEqual(ran, ["files_read"])
      }))
  }

  it.live("takes a header that is missing for none, before the revision that asks for it", () =>
    Effect.gen(function*() {
      const url = yield* start()
      const headers = { authorization: "Bearer ada" }
      const none = { "mcp-name": undefined }
      const old = yield* rpc(url, "2025-11-25", headers)
      assert.include((yield* old("tools/call", { name: "files_read" }, none)).body, "ada")
      const now = yield* rpc(url, "2026-07-28", headers)
      assert.include(JSON.parse((yield* now("tools/call", { name: "files_read" }, none)).body).error, { code: -32_020 })
    }))

  it.live("leaves other refusals to the server, in its style", () =>
    Effect.gen(function*() {
      const plain = yield* rpc(yield* start(), "2026-07-28", { authorization: "Bearer ada" })
      const refused = yield* plain("tools/call", { name: "disk_format" })
      assert.deepStrictEqual([refused.status, JSON.parse(refused.body).result.isError], [200, true])
      const url = yield* start({}, McpOps.headers.combine(McpOps.errors({ style: "json-rpc" })))
      const strict = yield* rpc(url, "2026-07-28", { authorization: "Bearer ada" })
      assert.include(JSON.parse((yield* strict("tools/call", { name: "disk_format" })).body).error, { code: -32_011 })
      assert.strictEqual((yield* strict("tools/call", { name: "files_write" })).status, 403)
    }))

  it.live("asks everybody for the scopes of the server", () =>
    Effect.gen(function*() {
      const url = yield* start({ requiredScopes: ["files:read"] })
      const without = yield* rpc(url, "2026-07-28", { authorization: "Bearer ada" })
      const answer = yield* without("tools/list", {})
      assert.strictEqual(answer.status, 403)
      assert.include(challengeOf(answer), "scope=\"files:read\"")
      const held = yield* rpc(url, "2026-07-28", { authorization: "Bearer ada.files_read" })
      assert.strictEqual((yield* held("tools/list", {})).status, 200)
    }))

  for (const style of ["result", "json-rpc"] as const) {
    it.live(`keeps the other answers of a batch one of whose calls needs more scopes, in the style ${style}`, () =>
      Effect.gen(function*() {
        const url = yield* start({}, McpOps.headers.combine(McpOps.errors({ style })))
        const ada = yield* rpc(url, "2025-03-26", { authorization: "Bearer ada" })
        const answer = yield* ada.batch(
          ["files_read", "files_write", "files_read"].map((name) => ({
            method: "tools/call",
            params: { name, arguments: {} }
          }))
        )
        assert.strictEqual(answer.status, 200)
        const results: ReadonlyArray<{ readonly id: number; readonly result?: { readonly isError?: boolean } }> = JSON
          .parse(answer.body)
        assert.deepStrictEqual(
          results.toSorted((a, b) => a.id - b.id).map(({ result }) => result?.isError),
          [false, style === "result" ? true : undefined, false]
        )
      }))
  }

  it.live("goes together with filtered lists: hidden tools are absent, and missing scopes still step up", () => {
    const seen = McpOps.headers.combine(McpOps.visibility(Tools, { missingScopes: "show" }))
    return Effect.gen(function*() {
      const url = yield* start({}, seen)
      const ada = yield* rpc(url, "2026-07-28", { authorization: "Bearer ada" })
      const { body } = yield* ada("tools/list", {})
      const names = JSON.parse(body).result.tools.map((tool: { readonly name: string }) => tool.name)
      assert.deepStrictEqual(names, ["files_read", "files_write"])
      assert.include(challengeOf(yield* ada("tools/call", { name: "files_write" })), "insufficient_scope")
      const hidden = yield* ada("tools/call", { name: "disk_format" })
      const absent = yield* ada("tools/call", { name: "disk_formaz" })
      assert.deepStrictEqual({ ...hidden, body: hidden.body.replaceAll("format", "formaz") }, absent)
      const nobody = yield* rpc(url, "2026-07-28")
      for (const name of ["disk_format", "disk_formaz"]) {
        assert.strictEqual((yield* nobody("tools/call", { name })).status, 401)
      }
    })
  })

  it.live("answers 401 also where a token stops being good between the edge and the tool", () => {
    const late = Layer.succeed(AuthMiddleware.AuthMiddleware, {
      name: "auth",
      forTool: () => () => Effect.fail(AuthError.refused("TokenExpired"))
    })
    return Effect.gen(function*() {
      const url = yield* serve(
        McpServer.toolkit(Tools).pipe(
          Layer.provide(McpOps.headers.layer),
          Layer.provide(handlers),
          Layer.provide(pipeline({ auth: late as typeof AuthMiddleware.layerPassthrough }))
        ),
        (server) => McpOps.resourceServer({ metadata })(server).pipe(Layer.provide(tokens))
      )
      const ada = yield* rpc(url, "2026-07-28", { authorization: "Bearer ada" })
      const answer = yield* ada("tools/call", { name: "files_read" })
      assert.strictEqual(answer.status, 401)
      assert.include(challengeOf(answer), "error=\"invalid_token\"")
    })
  })

  it.live("asks for no scopes on behalf of a handler that lacks some itself", () => {
    const Own = ToolkitOps.guard(Toolkit.make(Tool.make("own_scopes", { success: Who, failure: AuthError.AuthError })))
    return Effect.gen(function*() {
      const auth = Layer.mergeAll(tokens, policy)
      const url = yield* serve(
        McpServer.toolkit(Own).pipe(
          Layer.provide(McpOps.headers.layer),
          Layer.provide(ToolkitOps.layer(Own, {
            own_scopes: () => Effect.fail(AuthError.insufficientScope("inner:tool", ["inner:scope"]))
          })),
          Layer.provide(pipeline({ auth: AuthMiddleware.layer.pipe(Layer.provide(auth)) }))
        ),
        (server) => McpOps.resourceServer({ metadata })(server).pipe(Layer.provide(tokens))
      )
      const ada = yield* rpc(url, "2026-07-28", { authorization: "Bearer ada" })
      const answer = yield* ada("tools/call", { name: "own_scopes" })
      assert.deepStrictEqual([answer.status, JSON.parse(answer.body).result.isError], [200, true])
    })
  })

  it.live("serves the document where the official client looks for it", () =>
    Effect.gen(function*() {
      const url = yield* start()
      for (const base of [url, new URL("/public/mcp", url), new URL("/", url)]) {
        const found = yield* Effect.promise(() => discoverOAuthProtectedResourceMetadata(base))
        assert.strictEqual(found.resource, metadata.resource)
        assert.deepStrictEqual(found.authorization_servers, metadata.authorizationServers)
        assert.deepStrictEqual(found.scopes_supported, metadata.scopesSupported)
      }
    }))

  it.live("lets the official client in with a token, and tells it the rest", () =>
    Effect.gen(function*() {
      const url = yield* start()
      const client = yield* connect(url, { authorization: "Bearer ada" })
      assert.deepStrictEqual((yield* call(client, "files_read")).structured, { principal: "ada" })
      const refused = yield* Effect.flip(Effect.tryPromise({
        try: () => client.callTool({ name: "files_write", arguments: {} }),
        catch: (error) => error as { readonly code: number }
      }))
      assert.strictEqual(refused.code, 403)
      const turnedAway = yield* Effect.flip(Effect.tryPromise({
        try: () => Effect.runPromise(Effect.scoped(connect(url))),
        catch: String
      }))
      assert.include(turnedAway, "MissingCredentials")
    }))

  it("refuses metadata that makes no sense", () => {
    assert.throws(() => McpOps.resourceServer({ metadata: { ...metadata, authorizationServers: [] } }), /at least one/)
  })
})
