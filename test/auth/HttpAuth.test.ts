import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer, Redacted, Schema } from "effect"
import { ToolCall, ToolMeta, ToolPipeline } from "effect-toolops"
import { ApiKey, Authenticator, AuthMiddleware, Authorizer, HttpAuth, Identity, Jwt, Rbac } from "effect-toolops/auth"
import { RateLimit } from "effect-toolops/limit"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import * as Http from "node:http"
import * as Net from "node:net"
import type { AddressInfo } from "node:net"
import { audience, issuer, secret, token } from "./tokens.ts"

const now = Math.floor(Date.now() / 1000)
const signed = (more: object = {}) =>
  token({
    header: { alg: "HS256" },
    payload: { iss: issuer, aud: audience, sub: "ada", exp: now + 300, scope: "files:read", ...more }
  })

const Tokens = Jwt.layer({ algorithms: ["HS256"], keys: [{ secret: Redacted.make(secret) }], issuer, audience })

const metadata: HttpAuth.Metadata = {
  resource: "https://tools.example/public/mcp",
  authorizationServers: ["https://issuer.example"],
  scopesSupported: ["files:read", "files:write"]
}

const read = ToolMeta.make({ name: "read", scopes: ["files:read"] })
const write = ToolMeta.make({ name: "write", scopes: ["files:read", "files:write"] })
const secretTool = ToolMeta.make({ name: "secret" })

const call = (tool: ToolMeta.ToolMeta) =>
  Effect.gen(function*() {
    const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
    const principal = yield* pipeline.run({ tool }, Effect.map(Identity.CurrentIdentity, (who) => who.principal))
    return HttpServerResponse.text(principal)
  })

const Stage = AuthMiddleware.layer.pipe(Layer.provide([
  Tokens,
  Rbac.layer({
    defaultRole: "user",
    roles: { user: { permissions: ["read:call", "write:call"] } }
  })
]))

const Routes = Layer.mergeAll(
  HttpRouter.add("GET", "/me", Effect.map(Identity.CurrentIdentity, (who) => HttpServerResponse.text(who.principal))),
  HttpRouter.add("GET", "/read", Effect.provide(call(read), Stage)),
  HttpRouter.add("GET", "/write", Effect.provide(call(write), Stage)),
  HttpRouter.add("GET", "/secret", Effect.provide(call(secretTool), Stage))
)

const served = (
  options: HttpAuth.Options = { metadata },
  authenticator: Layer.Layer<Authenticator.Authenticator> = Tokens
) => {
  const App = Layer.merge(
    Routes.pipe(Layer.provide(HttpAuth.middleware(options).layer), Layer.provide(authenticator)),
    HttpAuth.layerMetadata(metadata)
  )
  return Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => HttpRouter.toWebHandler(App, { disableLogger: true })),
      ({ dispose }) => Effect.promise(dispose)
    ),
    ({ handler }) => (path: string, headers: Record<string, string> = {}) =>
      Effect.promise(() => handler(new Request(`https://tools.example${path}`, { headers })))
  )
}

const bearer = (value: string) => ({ authorization: `Bearer ${value}` })
const challengeOf = (response: Response) => response.headers.get("www-authenticate")
const metadataUrl = "https://tools.example/.well-known/oauth-protected-resource/public/mcp"

describe("HttpAuth", () => {
  it.live("gives the handler the caller, and the pipeline behind it only authorizes", () =>
    Effect.gen(function*() {
      const get = yield* served()
      for (const path of ["/me", "/read"]) {
        const response = yield* get(path, bearer(signed()))
        assert.strictEqual(response.status, 200)
        assert.strictEqual(yield* Effect.promise(() => response.text()), "ada")
      }
    }))

  it.live("answers 401 without an error code when nothing was presented", () =>
    Effect.gen(function*() {
      const get = yield* served({ metadata, requiredScopes: ["files:read"] })
      const response = yield* get("/me")
      assert.strictEqual(response.status, 401)
      assert.strictEqual(challengeOf(response), `Bearer scope="files:read", resource_metadata="${metadataUrl}"`)
      assert.strictEqual(response.headers.get("cache-control"), "no-store")
    }))

  it.live("answers 401 with invalid_token for a bad token, and says nothing of it", () =>
    Effect.gen(function*() {
      const get = yield* served()
      const bad = signed({ aud: "https://canary.example" })
      const response = yield* get("/me", bearer(bad))
      assert.strictEqual(response.status, 401)
      assert.strictEqual(
        challengeOf(response),
        `Bearer error="invalid_token", error_description="The credentials are not valid", resource_metadata="${metadataUrl}"`
      )
      assert.deepStrictEqual(yield* Effect.promise(() => response.json()), {
        error: "InvalidCredentials",
        message: "The credentials are not valid"
      })
    }))

  it.live("answers 403 with every scope of the operation in one challenge", () =>
    Effect.gen(function*() {
      const get = yield* served()
      const response = yield* get("/write", bearer(signed()))
      assert.strictEqual(response.status, 403)
      assert.strictEqual(
        challengeOf(response),
        `Bearer error="insufficient_scope", error_description="The caller lacks a scope that the tool needs", ` +
          `scope="files:read files:write", resource_metadata="${metadataUrl}"`
      )
      const edge = yield* served({ requiredScopes: ["mcp:use", "files:read"] })
      const refused = yield* edge("/me", bearer(signed()))
      assert.strictEqual(refused.status, 403)
      assert.include(challengeOf(refused), "scope=\"mcp:use files:read\"")
    }))

  it.live("names what the server asks of everybody beside what the tool needs", () =>
    Effect.gen(function*() {
      const get = yield* served({ metadata, requiredScopes: ["mcp:use", "files:read"] })
      const response = yield* get("/write", bearer(signed({ scope: "mcp:use files:read" })))
      assert.strictEqual(response.status, 403)
      assert.include(challengeOf(response), "error=\"insufficient_scope\"")
      assert.include(challengeOf(response), "scope=\"mcp:use files:read files:write\"")
    }))

  it.live("asks an anonymous caller for a credential, where a scope is what is missing", () =>
    Effect.gen(function*() {
      const Optional = Authenticator.layerFirstOf(Tokens, Authenticator.layerAnonymous)
      const strict = yield* served({ metadata, requiredScopes: ["mcp:use"] }, Optional)
      const refused = yield* strict("/me")
      assert.strictEqual(refused.status, 401)
      assert.strictEqual(challengeOf(refused), `Bearer scope="mcp:use", resource_metadata="${metadataUrl}"`)
      // The same where a tool needs the scope.
      const open = yield* served({ metadata }, Optional)
      const tool = yield* open("/write")
      assert.strictEqual(tool.status, 401)
      assert.strictEqual(
        challengeOf(tool),
        `Bearer scope="files:read files:write", resource_metadata="${metadataUrl}"`
      )
      assert.strictEqual((yield* open("/write", bearer(signed()))).status, 403)
      // No scope would help here.
      assert.strictEqual((yield* open("/secret")).status, 403)
      assert.strictEqual((yield* open("/me")).status, 200)
    }))

  it.live("answers 403 without a challenge for what no scope would change, and 503 for what cannot be checked", () =>
    Effect.gen(function*() {
      const get = yield* served()
      const forbidden = yield* get("/secret", bearer(signed()))
      assert.strictEqual(forbidden.status, 403)
      assert.strictEqual(challengeOf(forbidden), null)
      const down = yield* served({}, Authenticator.layer({ authenticate: () => Effect.die("down") }))
      const unavailable = yield* down("/me", bearer(signed()))
      assert.strictEqual(unavailable.status, 503)
    }))

  it.live("reads no token from the query and believes no forwarded identity", () =>
    Effect.gen(function*() {
      const get = yield* served()
      assert.strictEqual((yield* get(`/me?access_token=${signed()}`)).status, 401)
      const forwarded = {
        "x-forwarded-user": "root",
        "x-remote-user": "root",
        "x-auth-request-user": "root",
        "x-user-id": "root",
        "forwarded": "for=root",
        "cookie": `access_token=${signed()}`
      }
      assert.strictEqual((yield* get("/me", forwarded)).status, 401)
      const open = yield* served({}, Authenticator.layerAnonymous)
      const response = yield* open("/me", forwarded)
      assert.strictEqual(yield* Effect.promise(() => response.text()), "anonymous")
    }))

  it.live("keeps a scope that does not belong into a header out of it", () =>
    Effect.gen(function*() {
      const evil = ToolMeta.make({ name: "evil", scopes: ["good", "a\"b", "a\r\nX-Evil: 1", "ü"] })
      const Evil = Layer.provide(AuthMiddleware.layer, [Tokens, Authorizer.layerAllowAll])
      const App = HttpRouter.add("GET", "/evil", Effect.provide(call(evil), Evil)).pipe(
        Layer.provide(HttpAuth.middleware().layer),
        Layer.provide(Tokens)
      )
      const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
      const response = yield* Effect.promise(() =>
        handler(new Request("https://tools.example/evil", { headers: bearer(signed()) }))
      )
      yield* Effect.promise(dispose)
      assert.strictEqual(response.status, 403)
      assert.include(challengeOf(response), "scope=\"good\"")
      assert.strictEqual(response.headers.get("x-evil"), null)
    }))

  it.live("names each scheme that would do", () =>
    Effect.gen(function*() {
      const Basic = Authenticator.layer({ schemes: ["Basic"], authenticate: () => Effect.succeedNone })
      const both = yield* served({ metadata }, Authenticator.layerFirstOf(Tokens, Basic))
      assert.strictEqual(
        challengeOf(yield* both("/me")),
        `Bearer resource_metadata="${metadataUrl}", Basic realm="tools", charset="UTF-8"`
      )
      const keys = yield* served({}, Layer.provide(ApiKey.layer(), ApiKey.layerMemory()))
      assert.strictEqual(challengeOf(yield* keys("/me")), "ApiKey")
    }))

  it.live("serves the document of RFC 9728 behind the path of the resource and at the root, to anybody", () =>
    Effect.gen(function*() {
      const get = yield* served()
      for (const path of ["", "/public/mcp"]) {
        const response = yield* get(`/.well-known/oauth-protected-resource${path}`)
        assert.strictEqual(response.status, 200)
        assert.deepStrictEqual(yield* Effect.promise(() => response.json()), {
          resource: "https://tools.example/public/mcp",
          authorization_servers: ["https://issuer.example"],
          bearer_methods_supported: ["header"],
          scopes_supported: ["files:read", "files:write"]
        })
      }
    }))

  it.live("goes by the scopes that a scope stands for", () =>
    Effect.gen(function*() {
      const get = yield* served({
        requiredScopes: ["files:read", "mcp"],
        scopeHierarchy: { "files:admin": ["files:write"], "files:write": ["files:read"], "files:read": ["files:list"] }
      })
      for (
        const [scope, status] of [
          ["files:admin mcp", 200],
          ["files:read mcp", 200],
          ["files:list mcp", 403],
          ["files:admin", 403]
        ] as const
      ) {
        assert.strictEqual((yield* get("/me", bearer(signed({ scope })))).status, status, scope)
      }
      assert.throws(() => HttpAuth.middleware({ scopeHierarchy: { a: "b" as never } }), /scopeHierarchy/)
    }))

  it.live("serves the document at the very path of the resource", () =>
    Effect.gen(function*() {
      for (const path of ["/a b", "/\u00fc/mcp", "/a\"b", "/mcp/", "/a(b)"]) {
        const resource = `https://tools.example${path}`
        const given = { ...metadata, resource }
        const App = Layer.merge(
          Routes.pipe(Layer.provide(HttpAuth.middleware({ metadata: given }).layer), Layer.provide(Tokens)),
          HttpAuth.layerMetadata(given)
        )
        const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
        const refused = yield* Effect.promise(() => handler(new Request("https://tools.example/me")))
        const url = /resource_metadata="([^"]+)"$/.exec(challengeOf(refused)!)?.[1]
        assert.isDefined(url, path)
        const response = yield* Effect.promise(() => handler(new Request(url!)))
        assert.strictEqual(response.status, 200, url)
        assert.strictEqual((yield* Effect.promise(() => response.json()) as Effect.Effect<any>).resource, resource)
        // Nor does it answer for a neighbour.
        const other = yield* Effect.promise(() =>
          handler(new Request("https://tools.example/.well-known/oauth-protected-resource/v1/other"))
        )
        assert.strictEqual(other.status, 404, url)
        yield* Effect.promise(dispose)
      }
    }))

  for (
    const [name, given, message] of [
      ["http", { resource: "http://tools.example" }, /https/],
      ["a path that a router reads in its own way", { resource: "https://tools.example/v1:mcp" }, /:.*\*/],
      ["a path with a wildcard", { resource: "https://tools.example/*" }, /:.*\*/],
      ["a path with an encoded delimiter", { resource: "https://tools.example/a%2Fb" }, /encoded/],
      ["a fragment", { resource: "https://tools.example/#a" }, /fragment/],
      ["no issuer", { authorizationServers: [] }, /at least one/],
      ["offline_access", { scopesSupported: ["offline_access"] }, /offline_access/],
      ["a scope with a quote", { scopesSupported: ["a\"b"] }, /visible ASCII/]
    ] as const
  ) {
    it(`refuses a document with ${name}`, () => {
      assert.throws(() => HttpAuth.layerMetadata({ ...metadata, ...given }), message)
    })
  }

  it.live("takes the document from configuration", () =>
    Effect.gen(function*() {
      const Document = HttpAuth.layerMetadataConfig({
        resource: Config.String("RESOURCE"),
        authorizationServers: Config.map(Config.String("ISSUER"), (issuer) => [issuer])
      })
      const env = ConfigProvider.fromUnknown({ RESOURCE: "https://tools.example", ISSUER: issuer })
      const { dispose, handler } = HttpRouter.toWebHandler(
        Document.pipe(Layer.provide(ConfigProvider.layer(env)), Layer.orDie),
        { disableLogger: true }
      )
      const response = yield* Effect.promise(() =>
        handler(new Request("https://tools.example/.well-known/oauth-protected-resource"))
      )
      assert.deepInclude(yield* Effect.promise(() => response.json()), { authorization_servers: [issuer] })
      yield* Effect.promise(dispose)
    }))

  it.live("guards the endpoints of an HttpApi", () =>
    Effect.gen(function*() {
      const Api = HttpApi.make("api").add(
        HttpApiGroup.make("who").add(
          HttpApiEndpoint.get("me", "/me", { success: Schema.String }).middleware(HttpAuth.HttpApiAuth)
        )
      )
      const Who = HttpApiBuilder.group(
        Api,
        "who",
        (handlers) => handlers.handle("me", () => Effect.map(Identity.CurrentIdentity, (who) => who.principal))
      )
      const App = HttpApiBuilder.layer(Api).pipe(
        Layer.provide(Who),
        Layer.provide(HttpAuth.layerHttpApi({ metadata })),
        Layer.provide(Tokens),
        Layer.provide(HttpServer.layerServices)
      )
      const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
      const get = (headers: Record<string, string>) =>
        Effect.promise(() => handler(new Request("https://tools.example/me", { headers })))
      const me = yield* get(bearer(signed()))
      assert.strictEqual(yield* Effect.promise(() => me.json()), "ada")
      const nobody = yield* get({})
      assert.strictEqual(nobody.status, 401)
      assert.strictEqual(challengeOf(nobody), `Bearer resource_metadata="${metadataUrl}"`)
      yield* Effect.promise(dispose)
    }))

  it.live("refuses two Authorization headers, of which Node shows only the first", () =>
    Effect.gen(function*() {
      const server = Http.createServer()
      yield* Layer.build(
        HttpRouter.serve(
          Routes.pipe(Layer.provide(HttpAuth.middleware().layer), Layer.provide(Tokens)),
          { disableLogger: true, disableListenLog: true }
        ).pipe(Layer.provide(NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" })))
      )
      const port = (server.address() as AddressInfo).port
      const statusOf = (lines: ReadonlyArray<string>) =>
        Effect.callback<string>((resume) => {
          const socket = Net.connect(port, "127.0.0.1", () => {
            socket.write(["GET /me HTTP/1.1", "Host: a", "Connection: close", ...lines, "", ""].join("\r\n"))
          })
          socket.once("data", (data) => {
            socket.destroy()
            resume(Effect.succeed(String(data).slice(9, 12)))
          })
        })
      const good = `Authorization: Bearer ${signed()}`
      assert.strictEqual(yield* statusOf([good]), "200")
      assert.strictEqual(yield* statusOf([good, good]), "401")
      assert.strictEqual(yield* statusOf([good, "authorization: Bearer other"]), "401")
      assert.strictEqual(yield* statusOf([`Authorization: Bearer ${signed()}, Bearer ${signed()}`]), "401")
    }))

  it.live("lets the handler see the headers that it has looked at", () =>
    Effect.gen(function*() {
      const seen = HttpRouter.add(
        "GET",
        "/seen",
        Effect.map(
          ToolCall.RequestHeaders,
          (headers) => HttpServerResponse.text(String(headers?.["x-request"]))
        )
      )
      const App = seen.pipe(Layer.provide(HttpAuth.middleware().layer), Layer.provide(Tokens))
      const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
      const response = yield* Effect.promise(() =>
        handler(new Request("https://tools.example/seen", { headers: { ...bearer(signed()), "x-request": "one" } }))
      )
      assert.strictEqual(yield* Effect.promise(() => response.text()), "one")
      yield* Effect.promise(dispose)
    }))

  it.live("tells where the connection comes from, unless somebody has who knows the proxies", () =>
    Effect.gen(function*() {
      const peer = HttpRouter.add(
        "GET",
        "/peer",
        Effect.map(RateLimit.CurrentPeer, (peer) => HttpServerResponse.text(String(peer)))
      )
      const fromProxy = HttpRouter.middleware(
        (effect) =>
          Effect.flatMap(
            HttpServerRequest.HttpServerRequest,
            ({ headers }) => Effect.provideService(effect, RateLimit.CurrentPeer, headers["x-real-ip"])
          ),
        { global: true }
      )
      const peerOf = (more: Layer.Layer<never, never, HttpRouter.HttpRouter>) =>
        Effect.gen(function*() {
          const server = Http.createServer()
          yield* Layer.build(
            HttpRouter.serve(
              Layer.merge(peer.pipe(Layer.provide(HttpAuth.middleware().layer), Layer.provide(Tokens)), more),
              { disableLogger: true, disableListenLog: true }
            ).pipe(Layer.provide(NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" })))
          )
          const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/peer`
          const headers = { ...bearer(signed()), "x-real-ip": "203.0.113.7", "x-forwarded-for": "203.0.113.8" }
          return yield* Effect.promise(async () => (await fetch(url, { headers })).text())
        })
      assert.strictEqual(yield* peerOf(Layer.empty), "127.0.0.1")
      assert.strictEqual(yield* peerOf(fromProxy), "203.0.113.7")
    }))
})
