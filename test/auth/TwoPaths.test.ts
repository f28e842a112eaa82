// Authenticators answer at once what they know and think about the rest. Nobody must be let in or kept out by which of the
// two it was, so here each is asked in both ways, alone and beside a neighbour that always has to think.
import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, Effect, Layer, Option, Redacted } from "effect"
import type { ToolCall } from "effect-toolops"
import { ApiKey, Authenticator, AuthError, Jwt, TokenIntrospection } from "effect-toolops/auth"
import { SqliteApiKeyStore } from "effect-toolops/node"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { audience, base64url, claims, issuer, secret, token } from "./tokens.ts"

type Headers = ToolCall.RequestHeadersInput

const misspelt = `acme_${"a".repeat(50)}`
const generated = Redacted.value(Effect.runSync(ApiKey.generate({ prefix: "acme" })))
const keys = {
  plain: "a key for the tests: plain",
  generated,
  misspelt,
  early: "a key for the tests: early",
  late: "a key for the tests: late"
}
const registrations: ReadonlyArray<ApiKey.Registration> = Object.entries(keys).map(([id, key]) => ({
  id,
  key: Redacted.make(key),
  principal: id,
  notBefore: id === "early" ? DateTime.makeUnsafe(50_000) : undefined,
  expiresAt: id === "late" ? DateTime.makeUnsafe(50_000) : undefined
}))

const good = token({ header: { alg: "HS256" }, payload: claims })
const [head, body, sign] = good.split(".") as [string, string, string]
const other = token({ header: { alg: "HS256" }, payload: { ...claims, sub: "bob" } })
const texts = [
  good,
  other,
  token({ header: { alg: "HS256" }, payload: { ...claims, exp: 1 } }),
  token({ header: { alg: "HS256" }, payload: { ...claims, nbf: 100 } }),
  token({ header: { alg: "HS256" }, payload: { ...claims, iss: "https://other.example" } }),
  `${head}.${body}.${base64url("x")}`,
  `${head}.${body}`,
  `${head}.${body}.${sign}=`,
  `${good} ${good}`,
  `${good}, Bearer ${good}`,
  "opaque",
  "inactive",
  "a".repeat(16_384),
  "a".repeat(16_385),
  ""
]

const requests: ReadonlyArray<Headers> = [
  {},
  ...[
    ...Object.values(keys),
    `${generated}0`,
    generated.slice(1),
    "nobody's",
    "",
    " ",
    "x".repeat(512),
    "x".repeat(513)
  ]
    .flatMap((key): ReadonlyArray<Headers> => [
      { "x-api-key": key },
      { "X-API-Key": [key] },
      { "x-api-key": [key, key] },
      { "x-api-key": key, "X-Api-Key": key },
      { "x-api-key": key, authorization: "Negotiate x" },
      { "x-api-key": key, authorization: "" },
      { "x-api-key": key, authorization: `Bearer ${good}` }
    ]),
  ...texts.flatMap((text): ReadonlyArray<Headers> => [
    { authorization: `Bearer ${text}` },
    { Authorization: `bearer ${text}` },
    { authorization: `Bearer  ${text}` },
    { authorization: `Bearer\t${text}` },
    { authorization: `Bearerx ${text}` },
    { authorization: [`Bearer ${text}`] },
    { authorization: [`Bearer ${text}`, `Bearer ${text}`] },
    { authorization: `Bearer ${text}`, Authorization: `Bearer ${good}` }
  ])
]

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "two-paths-"))
process.once("exit", () => Fs.rmSync(folder, { recursive: true, force: true }))

const client = HttpClient.make((request) =>
  Effect.sync(() => {
    const sent = request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
    const value = new URLSearchParams(sent).get("token") ?? ""
    const isActive = ["opaque", good].includes(value)
    return HttpClientResponse.fromWeb(
      request,
      Response.json(isActive ? { active: true, sub: "opaque", aud: audience, exp: 60 } : { active: false })
    )
  })
)

const Introspection = TokenIntrospection.layer({
  url: "https://issuer.example/introspect",
  clientId: "tools",
  clientSecret: Redacted.make("secret"),
  audience,
  cacheTtl: "1 hour"
}).pipe(Layer.provide(Layer.succeed(HttpClient.HttpClient, client)))

const Tokens = Jwt.layer({ algorithms: ["HS256"], keys: [{ secret: Redacted.make(secret) }], issuer, audience })
const Keys = ApiKey.layer({ prefix: "acme" }).pipe(Layer.provide(ApiKey.layerMemory({ keys: registrations })))
const layers = {
  ApiKey: Keys,
  Jwt: Tokens,
  TokenIntrospection: Introspection,
  byIssuer: Authenticator.layerByIssuer({ issuers: { [issuer]: Tokens }, opaque: Introspection }),
  anonymous: Authenticator.layerAnonymous,
  firstOf: Authenticator.layerFirstOf(Keys, Tokens, Authenticator.layerAnonymous)
}

const judge = (authenticator: Authenticator.Service, headers: Headers) =>
  Effect.match(Authenticator.identify(authenticator, headers), {
    onFailure: (error): string => error.reason._tag,
    onSuccess: ({ issuer, method, principal }): string => `${method} ${principal} ${issuer ?? ""}`
  })

const neighbour = Authenticator.make({ authenticate: () => Effect.as(Effect.yieldNow, Option.none()) })

describe("both paths of an authenticator", () => {
  for (const [name, layer] of Object.entries(layers)) {
    it.effect(`give the same answer: ${name}`, () =>
      Effect.gen(function*() {
        const authenticator = Context.get(yield* Layer.build(layer), Authenticator.Authenticator)
        assert.isDefined(authenticator["~now"])
        const { "~now": _now, ...asked } = authenticator
        const beside = Authenticator.firstOf(authenticator, neighbour)
        // The first round fills what is remembered, the others have it, until it has expired.
        for (const time of [10_000, 10_000, 40_000, 60_000, 400_000]) {
          yield* TestClock.setTime(time)
          for (const headers of requests) {
            const answer = yield* judge(asked, headers)
            const what = `${time} ${JSON.stringify(headers).slice(0, 200)}`
            assert.strictEqual(yield* judge(authenticator, headers), answer, what)
            assert.strictEqual(yield* judge(beside, headers), answer, what)
          }
        }
      }))
  }

  it.effect("give the same answer for keys in a file as in memory", () =>
    Effect.gen(function*() {
      const File = SqliteApiKeyStore.layer({ path: Path.join(folder, "keys.db") })
      const store = Context.get(yield* Layer.build(File), ApiKey.ApiKeyStore)
      for (const registration of registrations) yield* store.register(registration)
      const inFile = ApiKey.make(store, { prefix: "acme" })
      const inMemory = Context.get(yield* Layer.build(Keys), Authenticator.Authenticator)
      for (const headers of requests) {
        assert.strictEqual(yield* judge(inFile, headers), yield* judge(inMemory, headers), JSON.stringify(headers))
      }
      assert.strictEqual(yield* judge(inFile, { "x-api-key": misspelt }), "InvalidCredentials")
      assert.strictEqual(yield* judge(inFile, { "x-api-key": generated }), "api_key generated ")
    }))

  it.effect("agree about a key in memory that two authenticators read by other prefixes", () =>
    Effect.gen(function*() {
      const store = Context.get(yield* Layer.build(ApiKey.layerMemory({ keys: registrations })), ApiKey.ApiKeyStore)
      const lenient = ApiKey.make(store, { prefix: "other" })
      const strict = ApiKey.make(store, { prefix: "acme" })
      for (let round = 0; round < 2; round++) {
        assert.strictEqual(yield* judge(lenient, { "x-api-key": misspelt }), "api_key misspelt ")
        assert.strictEqual(yield* judge(strict, { "x-api-key": misspelt }), "InvalidCredentials")
      }
    }))

  it.effect("asks a copy with another way to authenticate in that way alone", () =>
    Effect.gen(function*() {
      const authenticator = yield* Authenticator.Authenticator
      const strict: Authenticator.Service = {
        ...authenticator,
        authenticate: () => Effect.fail(new AuthError.AuthError({ reason: new AuthError.InvalidCredentials() }))
      }
      const headers = { "x-api-key": keys.plain }
      assert.strictEqual((yield* Authenticator.identify(authenticator, headers)).principal, "plain")
      for (
        const one of [strict, Authenticator.firstOf(strict), Authenticator.firstOf(strict, Authenticator.anonymous())]
      ) {
        const refused = yield* Effect.flip(Authenticator.identify(one, headers))
        assert.strictEqual(refused.reason._tag, "InvalidCredentials")
      }
    }).pipe(Effect.provide(Keys)))
})
