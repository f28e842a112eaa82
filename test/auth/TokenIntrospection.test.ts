import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Deferred, Effect, Fiber, Layer, Logger, Redacted, Scheduler } from "effect"
import { Authenticator, TokenIntrospection } from "effect-toolops/auth"
import { FetchHttpClient, HttpClient, type HttpClientRequest, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { bearer } from "./tokens.ts"

const audience = "https://tools.example"
const active = { active: true, sub: "ada", aud: audience, exp: 300, scope: "files:read", client_id: "cli" }

const options: TokenIntrospection.Options = {
  url: "https://issuer.example/introspect",
  clientId: "server",
  clientSecret: Redacted.make("server-secret"),
  audience
}

interface Reply {
  readonly status?: number
  readonly body: unknown
}

const served = (
  reply: { current: Reply | Effect.Effect<Reply> },
  given: Partial<TokenIntrospection.Options> = {}
) => {
  const asked: Array<{ readonly headers: Record<string, string>; readonly body: string }> = []
  const textOf = (request: HttpClientRequest.HttpClientRequest) =>
    request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
  const client = HttpClient.make((request) =>
    Effect.suspend(() => {
      asked.push({ headers: { ...request.headers }, body: textOf(request) })
      return Effect.map(
        Effect.isEffect(reply.current) ? reply.current : Effect.succeed(reply.current),
        ({ body, status = 200 }) =>
          HttpClientResponse.fromWeb(
            request,
            new Response(typeof body === "string" ? body : JSON.stringify(body), { status })
          )
      )
    })
  )
  return Effect.map(
    Layer.build(
      TokenIntrospection.layer({ ...options, ...given }).pipe(
        Layer.provide(Layer.succeed(HttpClient.HttpClient, client))
      )
    ),
    (context) => {
      const authenticator = Context.get(context, Authenticator.Authenticator)
      return {
        asked,
        authenticator,
        judge: (token: string) =>
          Effect.match(Authenticator.identify(authenticator, bearer(token)), {
            onFailure: (error): string => error.reason._tag,
            onSuccess: (identity): string => identity.principal
          })
      }
    }
  )
}

describe("TokenIntrospection", () => {
  it.effect("gives the identity that the issuer describes", () =>
    Effect.gen(function*() {
      const { authenticator } = yield* served(
        { current: { body: { ...active, org: "acme", roles: ["reader"], iat: 0 } } },
        { tenantClaim: "org" }
      )
      const identity = yield* Authenticator.identify(authenticator, bearer("t"))
      assert.deepInclude(identity, {
        principal: "ada",
        tenant: "acme",
        roles: ["reader"],
        scopes: ["files:read"],
        method: "introspection"
      })
    }))

  it.effect("names who vouches for the caller: the issuer that was compared, else the endpoint", () =>
    Effect.gen(function*() {
      const issuer = "https://issuer.example"
      const of = (iss: unknown, given: Partial<TokenIntrospection.Options> = {}) =>
        Effect.gen(function*() {
          const { authenticator } = yield* served({ current: { body: { ...active, iss } } }, given)
          return yield* Effect.match(Authenticator.identify(authenticator, bearer("t")), {
            onFailure: (error): unknown => error.reason._tag,
            onSuccess: (identity) => identity.issuer
          })
        })
      assert.strictEqual(yield* of(issuer, { issuer }), issuer)
      assert.strictEqual(yield* of(undefined), options.url)
      assert.strictEqual(yield* of(issuer), `${options.url}#${issuer}`)
      for (const iss of [1, "", ["x"], null]) assert.strictEqual(yield* of(iss), "TokenMalformed", String(iss))
    }))

  it.effect("takes access tokens, and nothing else that the issuer calls active", () =>
    Effect.gen(function*() {
      for (const kind of ["Bearer", "bearer", "access_token", "urn:ietf:params:oauth:token-type:access_token"]) {
        const { judge } = yield* served({ current: { body: { ...active, token_type: kind, token_use: "access" } } })
        assert.strictEqual(yield* judge("t"), "ada", kind)
      }
      for (const kind of ["refresh_token", "Refresh", "id_token", "DPoP", "N_A", "", null, 1, ["Bearer"]]) {
        for (const member of ["token_type", "token_use"]) {
          const { judge } = yield* served({ current: { body: { ...active, [member]: kind } } })
          assert.strictEqual(yield* judge("t"), "InvalidCredentials", `${member} ${String(kind)}`)
        }
      }
    }))

  it.effect("keeps the token out of the claims, also where the issuer sends it back", () =>
    Effect.gen(function*() {
      const body = { ...active, access_token: "canary", jti: "canary", plan: "free" }
      const { authenticator } = yield* served({ current: { body } })
      const { claims } = yield* Authenticator.identify(authenticator, bearer("canary"))
      assert.notInclude(JSON.stringify(claims), "canary")
      assert.strictEqual(claims["plan"], "free")
      assert.strictEqual(claims["sub"], "ada")
    }))

  it.effect("asks about no token that is longer than 16,384 characters", () =>
    Effect.gen(function*() {
      const { asked, judge } = yield* served({ current: { body: active } })
      assert.strictEqual(yield* judge("a".repeat(16_385)), "TokenMalformed")
      assert.strictEqual(asked.length, 0)
      assert.strictEqual(yield* judge("a".repeat(16_384)), "ada")
      assert.strictEqual(asked.length, 1)
    }))

  it.effect("believes nothing but active: true", () =>
    Effect.gen(function*() {
      for (
        const [body, answer] of [
          [{ ...active, active: false }, "TokenInactive"],
          [{ ...active, active: "true" }, "AuthUnavailable"],
          [{ ...active, active: 1 }, "AuthUnavailable"],
          [{ ...active, active: undefined }, "AuthUnavailable"],
          ["{\"active\":false,\"active\":true,\"sub\":\"ada\"}", "AuthUnavailable"],
          [[active], "AuthUnavailable"],
          ["", "AuthUnavailable"],
          ["<html>", "AuthUnavailable"],
          [active, "ada"]
        ] as const
      ) {
        const { judge } = yield* served({ current: { body } })
        assert.strictEqual(yield* judge("t"), answer, JSON.stringify(body))
      }
    }))

  it.effect("checks audience, issuer, times and names", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(100_000)
      const issuer = "https://issuer.example"
      for (
        const [more, answer, given] of [
          [{ aud: "https://other.example" }, "InvalidCredentials", {}],
          [{ aud: undefined }, "InvalidCredentials", {}],
          [{ aud: ["a", audience] }, "ada", {}],
          [{ aud: undefined }, "ada", { audience: false }],
          [{ iss: issuer }, "ada", { issuer }],
          [{ iss: `${issuer}/` }, "InvalidCredentials", { issuer }],
          [{}, "InvalidCredentials", { issuer }],
          [{ exp: 70 }, "TokenExpired", {}],
          [{ exp: 71 }, "ada", {}],
          [{ exp: "300" }, "TokenMalformed", {}],
          [{ nbf: 131 }, "TokenInactive", {}],
          [{ nbf: 130 }, "ada", {}],
          [{ sub: undefined }, "TokenMalformed", {}],
          [{ sub: undefined }, "cli", { principalClaim: "client_id" }],
          [{ sub: "a\nb" }, "TokenMalformed", {}],
          [{ roles: "admin" }, "TokenMalformed", {}],
          [{ scope: ["a"] }, "TokenMalformed", {}]
        ] as const
      ) {
        const { judge } = yield* served({ current: { body: { ...active, ...more } } }, given)
        assert.strictEqual(yield* judge("t"), answer, JSON.stringify([more, given]))
      }
    }))

  it.effect("authenticates itself in the header, form-encoded first, or in the body", () =>
    Effect.gen(function*() {
      const client = { clientId: "a:b c", clientSecret: Redacted.make("s+e/c r:é") }
      const basic = yield* served({ current: { body: active } }, client)
      yield* basic.judge("to+k/en")
      assert.strictEqual(
        Buffer.from(basic.asked[0]!.headers.authorization!.slice(6), "base64").toString(),
        "a%3Ab+c:s%2Be%2Fc+r%3A%C3%A9"
      )
      assert.strictEqual(basic.asked[0]!.body, "token=to%2Bk%2Fen&token_type_hint=access_token")
      assert.strictEqual(basic.asked[0]!.headers["content-type"], "application/x-www-form-urlencoded")
      const post = yield* served({ current: { body: active } }, { ...client, clientAuthentication: "post" })
      yield* post.judge("t")
      assert.strictEqual(post.asked[0]!.headers.authorization, undefined)
      assert.include(post.asked[0]!.body, "client_id=a%3Ab+c&client_secret=s%2Be%2Fc+r%3A%C3%A9")
    }))

  describe("what is known", () => {
    it.effect("is used for cacheTtl and never past the end of the token", () =>
      Effect.gen(function*() {
        const { asked, judge } = yield* served({ current: { body: active } }, { clockTolerance: 0 })
        yield* judge("t")
        yield* TestClock.adjust("29 seconds")
        assert.strictEqual(yield* judge("t"), "ada")
        assert.strictEqual(asked.length, 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* judge("t"), "ada")
        assert.strictEqual(asked.length, 2)
        const long = yield* served({ current: { body: active } }, { clockTolerance: 0, cacheTtl: "1 hour" })
        yield* long.judge("t")
        yield* TestClock.setTime(300_000)
        assert.strictEqual(yield* long.judge("t"), "TokenExpired")
      }))

    it.effect("is not used from exp on, whatever the tolerance: then only the issuer may say that it still counts", () =>
      Effect.gen(function*() {
        const reply: { current: Reply } = { current: { body: active } }
        const { asked, judge } = yield* served(reply, { clockTolerance: "30 seconds", cacheTtl: "1 hour" })
        yield* judge("t")
        yield* TestClock.setTime(299_999)
        assert.strictEqual(yield* judge("t"), "ada")
        assert.strictEqual(asked.length, 1)
        yield* TestClock.setTime(300_000)
        for (const times of [2, 3]) {
          assert.strictEqual(yield* judge("t"), "ada")
          assert.strictEqual(asked.length, times)
        }
        reply.current = { body: { active: false } }
        assert.strictEqual(yield* judge("t"), "TokenInactive")
        reply.current = { body: active }
        yield* TestClock.setTime(330_000)
        assert.strictEqual(yield* judge("t"), "TokenExpired")
      }))

    it.effect("is nothing when cacheTtl is 0, and nothing of tokens that were refused", () =>
      Effect.gen(function*() {
        const off = yield* served({ current: { body: active } }, { cacheTtl: 0 })
        yield* off.judge("t")
        yield* off.judge("t")
        assert.strictEqual(off.asked.length, 2)
        const reply: { current: Reply } = { current: { body: { active: false } } }
        const { judge } = yield* served(reply)
        assert.strictEqual(yield* judge("t"), "TokenInactive")
        reply.current = { body: active }
        assert.strictEqual(yield* judge("t"), "ada")
      }))

    it.effect("is bounded in entries", () =>
      Effect.gen(function*() {
        const { asked, judge } = yield* served({ current: { body: active } }, { maxEntries: 2 })
        for (const token of ["a", "b", "c", "a"]) yield* judge(token)
        assert.strictEqual(asked.length, 4)
      }))
  })

  describe("one request", () => {
    it.effect("serves all callers with the same token, also when the first one leaves", () =>
      Effect.gen(function*() {
        const answer = yield* Deferred.make<Reply>()
        const { asked, judge } = yield* served({ current: Deferred.await(answer) }, { cacheTtl: 0 })
        const first = yield* Effect.forkChild(judge("t"))
        const others = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(judge("t")))
        const another = yield* Effect.forkChild(judge("u"))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(first)
        yield* Deferred.succeed(answer, { body: active })
        for (const fiber of [...others, another]) assert.strictEqual(yield* Fiber.join(fiber), "ada")
        assert.strictEqual(asked.length, 2)
      }))

    it.effect("is left in good order by a caller that is interrupted at any position", () =>
      Effect.gen(function*() {
        for (let ops = 3; ops <= 64; ops++) {
          for (let yields = 0; yields <= 4; yields++) {
            const answer = yield* Deferred.make<Reply>()
            const { judge } = yield* served({ current: Deferred.await(answer) }, { maxConcurrent: 1 })
            const first = yield* Effect.forkChild(judge("t")).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)
            )
            for (let i = 0; i < yields; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(first)
            yield* Deferred.succeed(answer, { body: active })
            assert.strictEqual(yield* judge("t"), "ada", `${ops} ${yields}`)
            // The one place is free again.
            assert.strictEqual(yield* judge("u"), "ada", `${ops} ${yields}`)
          }
        }
      }))

    it.effect("is one of a bounded number, and is given up after the time limit", () =>
      Effect.gen(function*() {
        const { judge } = yield* served({ current: Effect.never }, { maxConcurrent: 2, timeout: "1 second" })
        const waiting = yield* Effect.forEach(["a", "b"], (token) => Effect.forkChild(judge(token)))
        yield* Effect.yieldNow
        assert.strictEqual(yield* judge("c"), "AuthUnavailable")
        yield* TestClock.adjust("1 second")
        for (const fiber of waiting) assert.strictEqual(yield* Fiber.join(fiber), "AuthUnavailable")
      }))
  })

  describe("a real server", () => {
    const cases: ReadonlyArray<readonly [string, Http.RequestListener, string]> = [
      ["answers", (_, response) => response.end(JSON.stringify({ ...active, exp: undefined })), "ada"],
      ["hangs", () => {}, "AuthUnavailable"],
      ["resets", (request) => request.socket.resetAndDestroy(), "AuthUnavailable"],
      ["stops in the middle", (_, response) => {
        response.writeHead(200, { "content-length": 1000 }).write("{")
        response.destroy()
      }, "AuthUnavailable"],
      ["redirects", (request, response) =>
        request.url === "/introspect"
          ? response.writeHead(307, { location: "/other" }).end()
          : response.end(JSON.stringify(active)), "AuthUnavailable"],
      [
        "sends 10 MB",
        (_, response) => response.end(JSON.stringify({ ...active, fill: "x".repeat(1e7) })),
        "AuthUnavailable"
      ],
      ["refuses us", (_, response) => response.writeHead(401).end(JSON.stringify(active)), "AuthUnavailable"]
    ]
    for (const [name, handler, answer] of cases) {
      it.live(`that ${name} makes the answer ${answer}`, () =>
        Effect.gen(function*() {
          const server = Http.createServer(handler)
          yield* Effect.acquireRelease(
            Effect.promise(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))),
            () =>
              Effect.sync(() => {
                server.closeAllConnections()
                server.close()
              })
          )
          const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/introspect`
          const context = yield* Layer.build(
            TokenIntrospection.layer({ ...options, url, audience: false, timeout: "300 millis", clockTolerance: 0 })
              .pipe(
                Layer.provide(FetchHttpClient.layer)
              )
          )
          const found = yield* Effect.match(
            Authenticator.identify(Context.get(context, Authenticator.Authenticator), bearer("t")),
            { onFailure: (error): string => error.reason._tag, onSuccess: (identity): string => identity.principal }
          )
          assert.strictEqual(found, answer)
        }))
    }
  })

  it.effect("says nothing of the token or the secret when it fails", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => {
        lines.push(JSON.stringify(message))
      })
      for (
        const body of [{ status: 500, body: "canary-token" }, { status: 401, body: "no" }, { body: "canary-token" }]
      ) {
        const { authenticator } = yield* served({ current: body })
        const error = yield* Effect.flip(Authenticator.identify(authenticator, bearer("canary-token"))).pipe(
          Effect.provide(Logger.layer([logger]))
        )
        assert.strictEqual(error.reason._tag, "AuthUnavailable")
        lines.push(JSON.stringify(error), String(error))
      }
      assert.isAbove(lines.length, 3)
      assert.notMatch(lines.join(), /canary|server-secret/)
    }))

  it.effect("takes its options from configuration", () =>
    Effect.gen(function*() {
      const Tokens = TokenIntrospection.layerConfig({
        url: Config.String("URL"),
        clientId: Config.succeed("server"),
        clientSecret: Config.Redacted("SECRET"),
        audience: Config.succeed(audience)
      })
      const client = HttpClient.make((request) =>
        Effect.succeed(HttpClientResponse.fromWeb(request, new Response(JSON.stringify(active))))
      )
      const env = ConfigProvider.fromUnknown({ URL: "http://127.0.0.1:1/", SECRET: "s" })
      const who = yield* Effect.flatMap(Authenticator.Authenticator, (one) => Authenticator.identify(one, bearer("t")))
        .pipe(
          Effect.provide(
            Tokens.pipe(Layer.provide([Layer.succeed(HttpClient.HttpClient, client), ConfigProvider.layer(env)]))
          )
        )
      assert.strictEqual(who.principal, "ada")
    }))

  it("refuses options that make no sense", () => {
    for (
      const given of [
        { url: "http://issuer.example" },
        { url: "https://issuer.example/introspect#x" },
        { clientId: "" },
        { clientSecret: "secret" as never },
        { audience: undefined as never },
        { audience: [] },
        { cacheTtl: -1 },
        { clientAuthentication: "none" as never },
        { cacheTTL: 0 } as object
      ]
    ) assert.throws(() => TokenIntrospection.layer({ ...options, ...given }), /TokenIntrospection/)
  })
})
