// Several issuers behind one header.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, Redacted } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { Authenticator, AuthMiddleware, Authorizer, Identity, Jwt, TokenIntrospection } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { audience, base64url, bearer, claims, token } from "./tokens.ts"

const secretOf = (name: string) => `the secret of ${name}`.repeat(4)
const urlOf = (name: string) => `https://${name}.example`

const jwt = (name: string) =>
  Jwt.layer({
    algorithms: ["HS256"],
    keys: [{ secret: Redacted.make(secretOf(name)) }],
    issuer: urlOf(name),
    audience
  })

const signed = (name: string, more: object = {}, key = secretOf(name)) =>
  token({ header: { alg: "HS256" }, payload: { ...claims, iss: urlOf(name), sub: `caller of ${name}`, ...more }, key })

const asked: Array<string> = []
const Introspection = TokenIntrospection.layer({
  url: "https://opaque.example/introspect",
  clientId: "tools",
  clientSecret: Redacted.make("secret"),
  audience,
  cacheTtl: 0
}).pipe(Layer.provide(Layer.succeed(
  HttpClient.HttpClient,
  HttpClient.make((request) =>
    Effect.sync(() => {
      const body = request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
      const value = new URLSearchParams(body).get("token") ?? ""
      asked.push(value)
      return HttpClientResponse.fromWeb(
        request,
        Response.json(value.startsWith("good") ? { active: true, sub: "opaque", aud: audience } : { active: false })
      )
    })
  )
)))

const outcome = (headers: Readonly<Record<string, string | ReadonlyArray<string>>>) =>
  Effect.flatMap(
    Authenticator.Authenticator,
    (authenticator) =>
      Effect.match(Authenticator.identify(authenticator, headers), {
        onFailure: (error): string => error.reason._tag,
        onSuccess: (identity): string => identity.principal
      })
  )

const Both = { [urlOf("a")]: jwt("a"), [urlOf("b")]: jwt("b") }
const All = Authenticator.layerByIssuer({ issuers: Both, opaque: Introspection })

describe("Authenticator.byIssuer", () => {
  it.effect("hands a token to the authenticator of its issuer, and others to the one of opaque tokens", () =>
    Effect.gen(function*() {
      asked.length = 0
      for (let round = 0; round < 2; round++) {
        assert.strictEqual(yield* outcome(bearer(signed("a"))), "caller of a")
        assert.strictEqual(yield* outcome(bearer(signed("b"))), "caller of b")
      }
      assert.deepStrictEqual(asked, [])
      assert.strictEqual(yield* outcome(bearer("good")), "opaque")
      // Looks like a token that can be read and is none.
      assert.strictEqual(yield* outcome(bearer("good.abc.def")), "opaque")
      assert.deepStrictEqual(asked, ["good", "good.abc.def"])
    }).pipe(Effect.provide(All)))

  it.effect("lets nothing fall through: what the chosen one refuses is refused", () =>
    Effect.gen(function*() {
      asked.length = 0
      const forged = {
        "the key of another": signed("a", {}, secretOf("b")),
        "the issuer of another": signed("b", { iss: urlOf("a") }),
        "an issuer that is not listed": signed("c"),
        "an issuer that begins alike": signed("a", { iss: `${urlOf("a")}/` }),
        "a member of every object": signed("a", { iss: "constructor" }),
        "another audience": signed("a", { aud: "https://other.example" })
      }
      for (const [name, value] of Object.entries(forged)) {
        assert.strictEqual(yield* outcome(bearer(value)), "InvalidCredentials", name)
      }
      assert.strictEqual(yield* outcome(bearer(signed("a", { exp: -100 }))), "TokenExpired")
      assert.deepStrictEqual(asked, [])
      // These claim no issuer, so they are for the one that asks; it knows none of them.
      const nameless = [
        "bad",
        signed("a", { iss: undefined }),
        signed("a", { iss: [urlOf("a")] }),
        token({
          header: { alg: "HS256" },
          payload: `{"iss":"${urlOf("b")}",${JSON.stringify({ ...claims, iss: urlOf("a") }).slice(1)}`,
          key: secretOf("a")
        }),
        `${signed("a")}.${base64url("x")}`
      ]
      for (const value of nameless) assert.strictEqual(yield* outcome(bearer(value)), "TokenInactive", value)
      assert.deepStrictEqual(asked, nameless)
    }).pipe(Effect.provide(All)))

  it.effect("refuses opaque tokens where nobody is there for them, and reads one header with one token", () =>
    Effect.gen(function*() {
      const good = signed("a")
      assert.strictEqual(yield* outcome(bearer("good")), "InvalidCredentials")
      assert.strictEqual(yield* outcome({}), "MissingCredentials")
      assert.strictEqual(yield* outcome({ authorization: `Basic ${good}` }), "InvalidCredentials")
      assert.strictEqual(yield* outcome({ authorization: `Bearer ${good}, Bearer ${good}` }), "InvalidCredentials")
      assert.strictEqual(yield* outcome({ authorization: [`Bearer ${good}`, `Bearer ${good}`] }), "InvalidCredentials")
      assert.strictEqual(yield* outcome(bearer("a".repeat(16_385))), "TokenMalformed")
      assert.strictEqual(yield* outcome(bearer(good)), "caller of a")
    }).pipe(Effect.provide(Authenticator.layerByIssuer({ issuers: Both }))))

  it.effect("stands beside others in firstOf, and forgets a token when it expires", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* outcome({}), "anonymous")
      assert.strictEqual(yield* outcome(bearer("bad")), "TokenInactive")
      assert.strictEqual(yield* outcome(bearer(signed("b"))), "caller of b")
      assert.strictEqual(yield* outcome(bearer(signed("b"))), "caller of b")
      yield* TestClock.adjust("330 seconds")
      assert.strictEqual(yield* outcome(bearer(signed("b"))), "TokenExpired")
    }).pipe(Effect.provide(Authenticator.layerFirstOf(Authenticator.layerAnonymous, All))))

  it.effect("refuses what an authenticator that did not look at the token has to say", () =>
    Effect.gen(function*() {
      const silent = Authenticator.make({ schemes: ["Bearer"], authenticate: () => Effect.succeedNone })
      const dying = Authenticator.make({ schemes: ["bearer"], authenticate: () => Effect.die("own") })
      const authenticator = Authenticator.byIssuer({ issuers: { [urlOf("a")]: silent }, opaque: dying })
      const given = (value: string) => Effect.flip(Authenticator.identify(authenticator, bearer(value)))
      assert.strictEqual((yield* given(signed("a"))).reason._tag, "InvalidCredentials")
      assert.strictEqual((yield* given("opaque")).reason._tag, "AuthUnavailable")
      const open = Authenticator.firstOf(authenticator, Authenticator.anonymous())
      const error = yield* Effect.flip(Authenticator.identify(open, bearer(signed("a"))))
      assert.strictEqual(error.reason._tag, "InvalidCredentials")
      // Nor is it left to whoever else stands there.
      const somebody = Authenticator.make({
        authenticate: () => Effect.succeedSome(Identity.make({ principal: "somebody" }))
      })
      const beside = Authenticator.firstOf(authenticator, somebody)
      const refused = yield* Effect.flip(Authenticator.identify(beside, bearer(signed("a"))))
      assert.strictEqual(refused.reason._tag, "InvalidCredentials")
      assert.strictEqual((yield* Authenticator.identify(beside, {})).principal, "somebody")
    }))

  it.effect("knows the same name of two issuers for two callers, to caches, limits and invalidation", () => {
    const Pipeline = Layer.mergeAll(
      AuthMiddleware.layer.pipe(Layer.provide([All, Authorizer.layerAllowAll])),
      RateLimitMiddleware.layer.pipe(
        Layer.provide(RateLimit.layer({ limits: [{ name: "each", per: "identity", limit: 2, window: "1 hour" }] })),
        Layer.provide(RateLimitStore.layerMemory())
      ),
      CacheMiddleware.layer.pipe(Layer.provideMerge(ToolCache.layerMemory()))
    )
    return Effect.gen(function*() {
      const [a, b] = [bearer(signed("a", { sub: "ada" })), bearer(signed("b", { sub: "ada" }))]
      const cached = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware, CacheMiddleware.CacheMiddleware)
      const tool = ToolMeta.make({ name: "inbox", readOnly: true })
      let runs = 0
      const read = (headers: Record<string, string>) =>
        cached.run(
          { tool, headers, input: {} },
          Effect.map(Identity.CurrentIdentity, (who) => `mail ${++runs} of ${who.principal} at ${who.issuer}`)
        )
      const first = [yield* read(a), yield* read(b)]
      assert.deepStrictEqual(first, [`mail 1 of ada at ${urlOf("a")}`, `mail 2 of ada at ${urlOf("b")}`])
      assert.deepStrictEqual([yield* read(a), yield* read(b)], first)

      // One issuer's caller is forgotten alone, and without an issuer all callers of that name.
      const cache = yield* ToolCache.ToolCache
      yield* cache.invalidate({ identity: { issuer: urlOf("a"), principal: "ada", tenant: undefined } })
      assert.deepStrictEqual([yield* read(a), yield* read(b)], [`mail 3 of ada at ${urlOf("a")}`, first[1]])
      yield* cache.invalidate({ identity: { principal: "ada", tenant: undefined } })
      assert.deepStrictEqual([yield* read(a), yield* read(b)], [
        `mail 4 of ada at ${urlOf("a")}`,
        `mail 5 of ada at ${urlOf("b")}`
      ])

      const limited = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware, RateLimitMiddleware.RateLimitMiddleware)
      const passes = (headers: Record<string, string>) =>
        Effect.map(Effect.exit(limited.run({ tool, headers }, Effect.void)), Exit.isSuccess)
      assert.deepStrictEqual([yield* passes(a), yield* passes(a), yield* passes(a)], [true, true, false])
      assert.deepStrictEqual([yield* passes(b), yield* passes(b), yield* passes(b)], [true, true, false])
    }).pipe(Effect.provide(Pipeline))
  })

  it.effect("lets a tenant be fixed for each issuer", () =>
    Effect.gen(function*() {
      const given = (tenantClaim?: string) =>
        Jwt.make({
          algorithms: ["HS256"],
          keys: [{ secret: Redacted.make(secretOf("a")) }],
          issuer: urlOf("a"),
          audience,
          tenantClaim
        })
      const value = bearer(signed("a", { tenant: "acme" }))
      const tenantOf = (one: Authenticator.Service) =>
        Effect.map(Authenticator.identify(one, value), (identity) => identity.tenant)
      assert.strictEqual(yield* tenantOf(yield* given()), undefined)
      assert.strictEqual(yield* tenantOf(yield* given("iss")), urlOf("a"))
      assert.strictEqual(yield* tenantOf(yield* given("tenant")), "acme")
    }))

  it("refuses what makes no sense", () => {
    const one = Authenticator.make({ schemes: ["Bearer"], authenticate: () => Effect.succeedNone })
    const keys = Authenticator.make({ authenticate: () => Effect.succeedNone })
    const open = Authenticator.firstOf(one, Authenticator.anonymous())
    const refused: ReadonlyArray<readonly [any, RegExp]> = [
      [{ issuers: {} }, /at least one issuer/],
      [{ issuers: { "": one } }, /must have a name/],
      [{ issuers: { a: keys } }, /Bearer/],
      [{ issuers: { a: one }, opaque: keys }, /Bearer/],
      [{ issuers: { a: open } }, /anonymous/],
      [{ issuers: { a: one }, otherwise: one }, /unknown option/]
    ]
    for (const [options, message] of refused) assert.throws(() => Authenticator.byIssuer(options), message)
  })
})

describe("somebody who is called anonymous", () => {
  it.effect("is not the anonymous caller", () =>
    Effect.gen(function*() {
      const authenticator = yield* Authenticator.Authenticator
      const value = signed("a", { sub: "anonymous", roles: undefined })
      const somebody = yield* Authenticator.identify(authenticator, bearer(value))
      const nobody = yield* Authenticator.identify(authenticator, {})
      assert.deepStrictEqual([somebody.principal, nobody.principal], ["anonymous", "anonymous"])
      assert.isFalse(Identity.isAnonymous(somebody))
      assert.isTrue(Identity.isAnonymous(nobody))
      // Nor does a claim make a caller anonymous.
      const claimed = yield* Authenticator.identify(
        authenticator,
        bearer(signed("a", { sub: "anonymous", method: "anonymous" }))
      )
      assert.isFalse(Identity.isAnonymous(claimed))
    }).pipe(Effect.provide(Authenticator.layerFirstOf(jwt("a"), Authenticator.layerAnonymous))))

  it.effect("is told apart in what a handler, a policy and the record of the call see", () =>
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
      const tool = ToolMeta.make({ name: "members-only" })
      const run = (headers: Record<string, string>) =>
        pipeline.run({ tool, headers }, Effect.map(Identity.CurrentIdentity, (who) => who.method))
      const value = signed("a", { sub: "anonymous" })
      assert.strictEqual(yield* run(bearer(value)), "jwt")
      const error = yield* Effect.flip(run({}))
      assert.strictEqual(error.reason._tag, "Forbidden")
      const explained = yield* pipeline.explain({ tool, headers: bearer(value) })
      assert.include(JSON.stringify(explained), "\"method\":\"jwt\"")
    }).pipe(Effect.provide(Layer.provide(AuthMiddleware.layer, [
      Authenticator.layerFirstOf(jwt("a"), Authenticator.layerAnonymous),
      Authorizer.layer(({ identity }) => !Identity.isAnonymous(identity))
    ]))))

  it.effect("is nobody's guest: an identity given for anonymous callers is anonymous whatever it says", () =>
    Effect.gen(function*() {
      const guest = Identity.make({ principal: "guest", roles: ["guest"], claims: { plan: "none" } })
      const authenticator = Authenticator.anonymous(guest)
      const identity = yield* Authenticator.identify(authenticator, {})
      assert.isTrue(Identity.isAnonymous(identity))
      assert.deepInclude(identity, { principal: "guest", roles: ["guest"], claims: { plan: "none" } })
      assert.isFalse(Identity.isAnonymous(guest))
      assert.strictEqual(Option.getOrThrow(Authenticator.anonymous().anonymous), Identity.anonymous)
    }))
})
