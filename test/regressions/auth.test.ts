// One test for each defect of the auth package of toolops, the library that this one succeeds, and for what its largest
// consumer made of it. A name says what must hold; the comment, what did not.
import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, Deferred, Effect, Fiber, Layer, Option, Redacted } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import {
  ApiKey,
  Authenticator,
  AuthMiddleware,
  Authorizer,
  HttpAuth,
  Identity,
  Jwks,
  Jwt,
  Rbac,
  TokenIntrospection
} from "effect-toolops/auth"
import { HttpClient, HttpClientResponse, HttpRouter, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Crypto from "node:crypto"
import { audience, bearer, claims, issuer, secret, token } from "../auth/tokens.ts"

const jwt: Jwt.Options = { algorithms: ["HS256"], keys: [{ secret: Redacted.make(secret) }], issuer, audience }

const outcome = (authenticator: Authenticator.Service, headers: Record<string, string>) =>
  Effect.match(Authenticator.identify(authenticator, headers), {
    onFailure: (error): string => error.reason._tag,
    onSuccess: (identity): string => identity.principal
  })

const judge = (payload: object, options: Partial<Jwt.Options> = {}) =>
  Effect.flatMap(
    Jwt.make({ ...jwt, ...options }),
    (authenticator) => outcome(authenticator, bearer(token({ header: { alg: "HS256" }, payload: { ...payload } })))
  )

const echo = ToolMeta.make({ name: "echo" })
const issue = ToolMeta.make({ namespace: "github", name: "create_issue" })

const allows = (
  roles: Readonly<Record<string, Rbac.Role>>,
  held: ReadonlyArray<string>,
  tool: ToolMeta.ToolMeta,
  action = "call"
) =>
  Effect.runSync(
    Rbac.make({ roles }).authorize({
      identity: Identity.make({ principal: "ada", roles: held }),
      tool,
      action,
      input: undefined
    })
  ).allow

/** A client that answers every request with `reply` and counts them. */
const answering = (reply: () => Effect.Effect<Response>) => {
  const asked: Array<string> = []
  const client = HttpClient.make((request) =>
    Effect.suspend(() => {
      asked.push(request.headers.authorization ?? "")
      return Effect.map(reply(), (response) => HttpClientResponse.fromWeb(request, response))
    })
  )
  return { asked, Client: Layer.succeed(HttpClient.HttpClient, client) }
}

const json = (body: unknown) => Effect.sync(() => new Response(JSON.stringify(body)))

const withJwks = (Client: Layer.Layer<HttpClient.HttpClient>, options: Partial<Jwks.Options> = {}) =>
  Effect.map(
    Layer.build(
      Jwt.layerJwks({ algorithms: ["ES256"], issuer, audience }).pipe(
        Layer.provide(Jwks.layer({ url: "https://issuer.example/jwks", ...options })),
        Layer.provide(Client)
      )
    ),
    Context.get(Authenticator.Authenticator)
  )

const pair = Crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
const jwk = { ...pair.publicKey.export({ format: "jwk" }), kid: "1" }
const es256 = (kid: string | undefined, sub = "ada", key = pair.privateKey) =>
  bearer(token({ header: { alg: "ES256", kid }, payload: { ...claims, exp: 8e9, sub }, algorithm: "ES256", key }))

const withIntrospection = (
  Client: Layer.Layer<HttpClient.HttpClient>,
  options: Partial<TokenIntrospection.Options> = {}
) =>
  Effect.map(
    Layer.build(
      TokenIntrospection.layer({
        url: "https://issuer.example/introspect",
        clientId: "a:b",
        clientSecret: Redacted.make("c+d"),
        audience,
        clockTolerance: 0,
        ...options
      }).pipe(Layer.provide(Client))
    ),
    Context.get(Authenticator.Authenticator)
  )

describe("toolops auth", () => {
  // An empty HMAC key was installed when neither a secret nor a key set was configured.
  it("a JWT authenticator without a key is not built", () => {
    assert.throws(() => Jwt.layer({ ...jwt, keys: [] }), /at least one key/)
    assert.throws(() => Jwt.layer({ ...jwt, keys: [{ secret: Redacted.make("") }] }), /at least 32 bytes/)
  })

  // There was no allow-list of algorithms, and a token without an end was valid for ever.
  it.effect("a token without exp is refused, and so is one of another algorithm", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* judge(claims), "ada")
      assert.strictEqual(yield* judge({ ...claims, exp: undefined }), "TokenMalformed")
      const other = token({ header: { alg: "HS512" }, payload: claims, algorithm: "HS512" })
      assert.strictEqual(yield* outcome(yield* Jwt.make(jwt), bearer(other)), "InvalidCredentials")
    }))

  // An expired identity was still authorized.
  it.effect("an identity that has expired is not authorized", () =>
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
      yield* TestClock.setTime(1000)
      const expired = Identity.make({ principal: "ada", expiresAt: DateTime.makeUnsafe(1000) })
      const error = yield* Effect.flip(
        Effect.provideService(pipeline.run({ tool: echo }, Effect.void), Identity.CurrentIdentity, expired)
      )
      assert.strictEqual(error.reason._tag, "TokenExpired")
    }).pipe(Effect.provide(
      Layer.provide(AuthMiddleware.layer, [Authenticator.layerAnonymous, Authorizer.layerAllowAll])
    )))

  // A list of audiences in the configuration turned the check off.
  it.effect("a list of audiences is checked", () =>
    Effect.gen(function*() {
      const given = { audience: ["https://a.example", "https://b.example"] }
      assert.strictEqual(yield* judge({ ...claims, aud: "https://b.example" }, given), "ada")
      assert.strictEqual(yield* judge({ ...claims, aud: audience }, given), "InvalidCredentials")
      assert.throws(() => Jwt.layer({ ...jwt, audience: [] }), /audience/)
    }))

  // The first role that allowed won over the denials of the others and of inherited ones.
  it("a denial wins over the grant of another or an inherited role", () => {
    const roles = {
      admin: { permissions: ["*:*"] },
      limited: { deniedTools: ["github:create_issue"] },
      heir: { inherits: ["limited"], permissions: ["*:*"] },
      parent: { inherits: ["admin"], deniedTools: ["github:create_issue"] }
    }
    for (const held of [["admin", "limited"], ["limited", "admin"], ["heir"], ["parent"], ["admin", "heir"]]) {
      assert.isFalse(allows(roles, held, issue), held.join())
    }
    assert.isTrue(allows(roles, ["admin"], issue))
  })

  // The header was looked up in one spelling, which Go's own form is not.
  it.effect("the API key header is found in any spelling", () =>
    Effect.gen(function*() {
      const authenticator = yield* Authenticator.Authenticator
      for (const name of ["X-API-Key", "X-Api-Key", "x-api-key"]) {
        assert.strictEqual(yield* outcome(authenticator, { [name]: "a key for the tests" }), "ada")
      }
    }).pipe(Effect.provide(
      Authenticator.layerFirstOf(
        Layer.provide(
          ApiKey.layer(),
          ApiKey.layerMemory({ keys: [{ id: "k", key: Redacted.make("a key for the tests"), principal: "ada" }] })
        ),
        Authenticator.layerAnonymous
      )
    )))

  // An answer was kept past the end of its token, for ever if it was not asked for again; aud and iss were not looked at.
  it.effect("an introspected token ends when it says, is kept in a bounded place, and is for us", () =>
    Effect.gen(function*() {
      const body = { active: true, sub: "ada", aud: audience, exp: 10 }
      const { asked, Client } = answering(() => json(body))
      const authenticator = yield* withIntrospection(Client, { cacheTtl: "5 minutes", maxEntries: 10 })
      assert.strictEqual(yield* outcome(authenticator, bearer("t0")), "ada")
      for (let i = 1; i <= 10; i++) yield* outcome(authenticator, bearer(`t${i}`))
      yield* outcome(authenticator, bearer("t0"))
      assert.strictEqual(asked.length, 12)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* outcome(authenticator, bearer("t0")), "TokenExpired")
      const foreign = yield* withIntrospection(answering(() => json({ ...body, exp: 1000, aud: "other" })).Client)
      assert.strictEqual(yield* outcome(foreign, bearer("t")), "InvalidCredentials")
    }))

  // Every token with an unknown key id made a request to the issuer.
  it.effect("unknown key ids make one request, not one each", () =>
    Effect.gen(function*() {
      const { asked, Client } = answering(() => json({ keys: [jwk] }))
      const authenticator = yield* withJwks(Client)
      yield* outcome(authenticator, es256("1"))
      for (let i = 0; i < 100; i++) {
        assert.strictEqual(yield* outcome(authenticator, es256(`unknown ${i}`)), "KeyNotFound")
      }
      assert.strictEqual(asked.length, 2)
    }))

  // The fetch belonged to the caller that began it, and failed all others when that one left.
  it.effect("a key set is fetched for all who wait, also when the first of them leaves", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { Client } = answering(() => Effect.andThen(Deferred.await(gate), json({ keys: [jwk] })))
      const authenticator = yield* withJwks(Client)
      const first = yield* Effect.forkChild(outcome(authenticator, es256("1")))
      const second = yield* Effect.forkChild(outcome(authenticator, es256("1", "bob")))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(second), "bob")
    }))

  // Keys were only ever added to the set that was used while the issuer was down, and it was used without end.
  it.effect("a withdrawn key does not come back when the issuer is down, and no set is used for ever", () =>
    Effect.gen(function*() {
      const other = Crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
      const two = { ...other.publicKey.export({ format: "jwk" }), kid: "2" }
      let reply: Effect.Effect<Response> = json({ keys: [jwk] })
      const { Client } = answering(() => reply)
      const authenticator = yield* withJwks(Client, { timeToLive: "1 minute", maxStale: "1 minute" })
      assert.strictEqual(yield* outcome(authenticator, es256("1")), "ada")
      reply = json({ keys: [two] })
      assert.strictEqual(yield* outcome(authenticator, es256("2", "bob", other.privateKey)), "bob")
      reply = Effect.sync(() => new Response("", { status: 503 }))
      yield* TestClock.adjust("90 seconds")
      assert.notStrictEqual(yield* outcome(authenticator, es256("1")), "ada")
      assert.strictEqual(yield* outcome(authenticator, es256("2", "carol", other.privateKey)), "carol")
      yield* TestClock.adjust("31 seconds")
      assert.strictEqual(yield* outcome(authenticator, es256("2", "dave", other.privateKey)), "AuthUnavailable")
    }))

  // Only RSA was known, use and alg were ignored, and a token without a key id got any key.
  it.effect("other key types work, keys for encryption do not, and no key id means the only key", () =>
    Effect.gen(function*() {
      const one = yield* withJwks(answering(() => json({ keys: [jwk] })).Client)
      assert.strictEqual(yield* outcome(one, es256(undefined)), "ada")
      const enc = yield* withJwks(answering(() => json({ keys: [{ ...jwk, use: "enc" }] })).Client)
      assert.strictEqual(yield* outcome(enc, es256("1")), "KeyNotFound")
      const bound = yield* withJwks(answering(() => json({ keys: [{ ...jwk, alg: "ES384" }] })).Client)
      assert.strictEqual(yield* outcome(bound, es256("1")), "KeyNotFound")
      const both = yield* withJwks(answering(() => json({ keys: [jwk, { ...jwk, kid: "2" }] })).Client)
      for (let i = 0; i < 20; i++) assert.strictEqual(yield* outcome(both, es256(undefined)), "KeyNotFound")
    }))

  // Every failure was a malformed token, the issuer's own outage too; "expired" was found in the text of the error.
  it.effect("each failure has its own reason", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000)
      const reasons = {
        expired: yield* judge(claims),
        early: yield* judge({ ...claims, exp: 2000, nbf: 1500 }),
        foreign: yield* judge({ ...claims, exp: 2000, aud: "expired" }),
        malformed: yield* judge({ ...claims, exp: "expired" }),
        down: yield* outcome(
          yield* withJwks(answering(() => Effect.sync(() => new Response("", { status: 500 }))).Client),
          es256("1")
        )
      }
      assert.deepStrictEqual(reasons, {
        expired: "TokenExpired",
        early: "TokenInactive",
        foreign: "InvalidCredentials",
        malformed: "TokenMalformed",
        down: "AuthUnavailable"
      })
    }))

  // Permissions were split at every colon, so a tool with a namespace could not be named and a bare action named all.
  it("a permission names a tool with its namespace, and a bare action is refused", () => {
    assert.isTrue(allows({ a: { permissions: ["tool:github:create_issue:call"] } }, ["a"], issue))
    assert.isTrue(allows({ a: { permissions: ["tool:github:*:call"] } }, ["a"], issue))
    assert.isFalse(allows({ a: { permissions: ["tool:github:*:call"] } }, ["a"], echo))
    assert.throws(() => Rbac.layer({ roles: { a: { permissions: ["call"] } } }), /form/)
  })

  // Any list of allowed tools allowed every action with them.
  it("a role that may list may not call", () => {
    const roles = { reader: { allowedTools: ["github:*"], permissions: ["github:*:list"] } }
    assert.isTrue(allows(roles, ["reader"], issue, "list"))
    assert.isFalse(allows(roles, ["reader"], issue, "call"))
  })

  // Scopes were read from tokens and never consulted.
  it.effect("the scopes of a token are compared with those that the tool needs", () =>
    Effect.gen(function*() {
      const tool = ToolMeta.make({ name: "files", scopes: ["files:read"] })
      const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
      const call = (scope: string) =>
        pipeline.run(
          { tool, headers: bearer(token({ header: { alg: "HS256" }, payload: { ...claims, scope } })) },
          Effect.succeed("ran")
        )
      assert.strictEqual(yield* call("other files:read"), "ran")
      assert.strictEqual((yield* Effect.flip(call("files:reader"))).reason._tag, "InsufficientScope")
    }).pipe(Effect.provide(Layer.provide(AuthMiddleware.layer, [Jwt.layer(jwt), Authorizer.layerAllowAll]))))

  // The end of a key was ignored, errors of the store were dropped, keys could be kept in the clear, and comparing
  // stopped at the first difference.
  it.effect("a key ends, a failed registration is told, and nothing is kept in the clear", () =>
    Effect.gen(function*() {
      const keys = yield* ApiKey.ApiKeyStore
      const key = Redacted.make("a key for the tests")
      yield* keys.register({ id: "k", key, principal: "ada", expiresAt: DateTime.makeUnsafe(1000) })
      assert.strictEqual(
        (yield* Effect.flip(keys.register({ id: "k", key, principal: "eve" }))).reason._tag,
        "DuplicateKey"
      )
      const found = Option.getOrThrow(yield* keys.find(ApiKey.hashKey(key)))
      assert.notInclude(JSON.stringify(found), "a key for")
      yield* TestClock.setTime(1000)
      const authenticator = ApiKey.make(keys)
      assert.strictEqual(yield* outcome(authenticator, { "x-api-key": "a key for the tests" }), "TokenExpired")
      assert.throws(() => ApiKey.layerMemory({ keys: [], hash_algorithm: "plain" } as object), /unknown option/)
    }).pipe(Effect.provide(ApiKey.layerMemory())))

  // The credentials of the client were joined as they were.
  it.effect("the client's own credentials are form-encoded before they are joined", () =>
    Effect.gen(function*() {
      const { asked, Client } = answering(() => json({ active: false }))
      yield* outcome(yield* withIntrospection(Client), bearer("t"))
      assert.strictEqual(atob(asked[0]!.slice(6)), "a%3Ab:c%2Bd")
    }))

  // "Set to 0 to disable caching" meant five minutes.
  it.effect("a cacheTtl of 0 means no cache", () =>
    Effect.gen(function*() {
      const { asked, Client } = answering(() => json({ active: true, sub: "ada", aud: audience }))
      const authenticator = yield* withIntrospection(Client, { cacheTtl: 0 })
      for (let i = 0; i < 3; i++) yield* outcome(authenticator, bearer("t"))
      assert.strictEqual(asked.length, 3)
    }))

  // The scheme was compared in one case.
  it.effect("the scheme is found in any case", () =>
    Effect.gen(function*() {
      const authenticator = yield* Jwt.make(jwt)
      const value = token({ header: { alg: "HS256" }, payload: claims })
      for (const scheme of ["Bearer", "bearer", "BEARER"]) {
        assert.strictEqual(yield* outcome(authenticator, { authorization: `${scheme} ${value}` }), "ada")
      }
    }))

  // The method "basic" had a name and no code; there were no challenges and no document.
  it.effect("user names with passwords, challenges and the document of RFC 9728 are there", () =>
    Effect.gen(function*() {
      const headers = { authorization: `Basic ${btoa("ada:pass")}` }
      const found = Option.getOrThrow(yield* Authenticator.basic(headers))
      assert.strictEqual(found.username, "ada")
      const metadata = { resource: "https://tools.example", authorizationServers: [issuer] }
      const App = Layer.merge(
        HttpRouter.add("GET", "/", HttpServerResponse.empty()).pipe(
          Layer.provide(HttpAuth.middleware({ metadata }).layer),
          Layer.provide(Jwt.layer(jwt))
        ),
        HttpAuth.layerMetadata(metadata)
      )
      const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
      const refused = yield* Effect.promise(() => handler(new Request("https://tools.example/")))
      const url = /resource_metadata="([^"]+)"/.exec(refused.headers.get("www-authenticate")!)![1]!
      const document = yield* Effect.promise(() => handler(new Request(url)).then((response) => response.json()))
      assert.strictEqual((document as { resource: string }).resource, metadata.resource)
      yield* Effect.promise(dispose)
    }))
})

describe("metatools auth", () => {
  // A bad credential became the anonymous caller where anonymous callers were allowed.
  it.effect("a bad or expired credential is refused where anonymous callers are welcome", () =>
    Effect.gen(function*() {
      const authenticator = Authenticator.firstOf(yield* Jwt.make(jwt), Authenticator.anonymous())
      assert.strictEqual(yield* outcome(authenticator, {}), "anonymous")
      assert.strictEqual(yield* outcome(authenticator, bearer("bad")), "TokenMalformed")
      yield* TestClock.setTime(1_000_000)
      const expired = token({ header: { alg: "HS256" }, payload: claims })
      assert.strictEqual(yield* outcome(authenticator, bearer(expired)), "TokenExpired")
    }))

  // A role with an unknown member, as in the documentation's own example, denied everything without a word.
  it("a role with a member that does not exist is refused", () => {
    const role = { allow: ["*"] } as Rbac.Role
    assert.throws(() => Rbac.layer({ roles: { admin: role } }), /unknown option "allow"/)
  })
})
