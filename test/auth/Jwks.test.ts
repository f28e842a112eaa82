import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Scheduler } from "effect"
import { Authenticator, Jwks, Jwt } from "effect-toolops/auth"
import { FetchHttpClient, HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Crypto from "node:crypto"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { audience, bearer, claims, issuer, token } from "./tokens.ts"

const pair = () => Crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
const jwk = (key: Crypto.KeyObject, more: object = {}) => ({
  ...key.export({ format: "jwk" }),
  use: "sig",
  alg: "ES256",
  ...more
})
const signed = (key: Crypto.KeyObject, kid?: string, more: object = {}) =>
  token({ header: { alg: "ES256", kid }, payload: { ...claims, exp: 8e9, ...more }, algorithm: "ES256", key })

const one = pair()
const two = pair()
const three = pair()

interface Reply {
  readonly status?: number
  readonly body: unknown
  readonly headers?: Record<string, string>
}

/** A key set behind a client that answers what `reply` says and counts what it is asked. */
const served = (
  reply: { current: Reply | Effect.Effect<Reply> },
  options: Partial<Jwks.Options> = {},
  verify: Partial<Jwt.VerifyOptions> = {}
) => {
  const asked = { count: 0 }
  const client = HttpClient.make((request) =>
    Effect.suspend(() => {
      asked.count++
      return Effect.map(
        Effect.isEffect(reply.current) ? reply.current : Effect.succeed(reply.current),
        ({ body, headers = {}, status = 200 }) =>
          HttpClientResponse.fromWeb(
            request,
            new Response(typeof body === "string" ? body : JSON.stringify(body), { status, headers })
          )
      )
    })
  )
  const Keys = Jwks.layer({ url: "https://issuer.example/jwks", ...options })
  const Tokens = Jwt.layerJwks({ algorithms: ["ES256"], issuer, audience, ...verify }).pipe(
    Layer.provideMerge(Keys),
    Layer.provide(Layer.succeed(HttpClient.HttpClient, client))
  )
  return Effect.map(Layer.build(Tokens), (context) => {
    const authenticator = Context.get(context, Authenticator.Authenticator)
    return {
      asked,
      jwks: Context.get(context, Jwks.Jwks),
      judge: (value: string) =>
        Effect.match(Authenticator.identify(authenticator, bearer(value)), {
          onFailure: (error): string => error.reason._tag,
          onSuccess: (identity): string => identity.principal
        })
    }
  })
}

const setOf = (...keys: ReadonlyArray<object>) => ({ body: { keys } })

describe("Jwks", () => {
  describe("finding a key", () => {
    it.effect("fetches the set once for many callers, and not again while it is fresh", () =>
      Effect.gen(function*() {
        const { asked, judge } = yield* served({ current: setOf(jwk(one.publicKey, { kid: "1" })) })
        const tokens = Array.from({ length: 50 }, (_, i) => signed(one.privateKey, "1", { sub: `u${i}` }))
        const answers = yield* Effect.forEach(tokens, judge, { concurrency: "unbounded" })
        assert.deepStrictEqual(answers, tokens.map((_, i) => `u${i}`))
        assert.strictEqual(asked.count, 1)
      }))

    it.effect("serves a token without a key id only where exactly one key fits", () =>
      Effect.gen(function*() {
        const alone = yield* served({ current: setOf(jwk(one.publicKey, { kid: "1" })) })
        assert.strictEqual(yield* alone.judge(signed(one.privateKey)), "ada")
        const several = yield* served({
          current: setOf(jwk(one.publicKey, { kid: "1" }), jwk(two.publicKey, { kid: "2" }))
        })
        assert.strictEqual(yield* several.judge(signed(one.privateKey)), "KeyNotFound")
        assert.strictEqual(yield* several.judge(signed(two.privateKey, "2")), "ada")
      }))

    it.effect("asks again for an unknown key, but only once per cooldown", () =>
      Effect.gen(function*() {
        const reply = { current: setOf(jwk(one.publicKey, { kid: "1" })) }
        const { asked, judge } = yield* served(reply)
        assert.strictEqual(yield* judge(signed(one.privateKey, "1")), "ada")
        for (let i = 0; i < 20; i++) assert.strictEqual(yield* judge(signed(two.privateKey, `x${i}`)), "KeyNotFound")
        assert.strictEqual(asked.count, 2)
        reply.current = setOf(jwk(one.publicKey, { kid: "1" }), jwk(two.publicKey, { kid: "2" }))
        yield* TestClock.adjust("29 seconds")
        assert.strictEqual(yield* judge(signed(two.privateKey, "2")), "KeyNotFound")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* judge(signed(two.privateKey, "2")), "ada")
        assert.strictEqual(asked.count, 3)
      }))

    it.effect("finds a rotated key at once, and forgets with a key the tokens that it had verified", () =>
      Effect.gen(function*() {
        const reply = { current: setOf(jwk(one.publicKey, { kid: "1" })) }
        const { judge } = yield* served(reply)
        const old = signed(one.privateKey, "1")
        assert.strictEqual(yield* judge(old), "ada")
        reply.current = setOf(jwk(two.publicKey, { kid: "2" }))
        assert.strictEqual(yield* judge(signed(two.privateKey, "2")), "ada")
        assert.strictEqual(yield* judge(old), "KeyNotFound")
      }))
  })

  describe("one fetch", () => {
    it.effect("goes on when the caller that began it leaves", () =>
      Effect.gen(function*() {
        const started = yield* Deferred.make<void>()
        const answer = yield* Deferred.make<Reply>()
        const { asked, judge } = yield* served({
          current: Effect.andThen(Deferred.succeed(started, undefined), Deferred.await(answer))
        })
        const first = yield* Effect.forkChild(judge(signed(one.privateKey, "1")))
        yield* Deferred.await(started)
        const second = yield* Effect.forkChild(judge(signed(one.privateKey, "1", { sub: "bob" })))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(first)
        yield* Deferred.succeed(answer, setOf(jwk(one.publicKey, { kid: "1" })))
        assert.strictEqual(yield* Fiber.join(second), "bob")
        assert.strictEqual(asked.count, 1)
      }))

    it.effect("is left in good order by a caller that is interrupted at any position", () =>
      Effect.gen(function*() {
        for (let ops = 3; ops <= 64; ops++) {
          for (let yields = 0; yields <= 4; yields++) {
            const answer = yield* Deferred.make<Reply>()
            const { judge } = yield* served({ current: Deferred.await(answer) })
            const first = yield* Effect.forkChild(judge(signed(one.privateKey, "1"))).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)
            )
            for (let i = 0; i < yields; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(first)
            const second = yield* Effect.forkChild(judge(signed(one.privateKey, "1", { sub: "bob" })))
            yield* Effect.yieldNow
            yield* Deferred.succeed(answer, setOf(jwk(one.publicKey, { kid: "1" })))
            assert.strictEqual(yield* Fiber.join(second), "bob", `${ops} ${yields}`)
          }
        }
      }))

    it.effect("is given up after the time limit", () =>
      Effect.gen(function*() {
        const { judge, jwks } = yield* served({ current: Effect.never }, { timeout: "2 seconds" })
        const waiting = yield* Effect.forkChild(judge(signed(one.privateKey, "1")))
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* Fiber.join(waiting), "AuthUnavailable")
        assert.strictEqual((yield* jwks.status).failures, 1)
      }))

    it.effect("is not repeated at once when it has failed", () =>
      Effect.gen(function*() {
        const reply: { current: Reply } = { current: { status: 500, body: "" } }
        const { asked, judge } = yield* served(reply)
        for (let i = 0; i < 20; i++) assert.strictEqual(yield* judge(signed(one.privateKey, "1")), "AuthUnavailable")
        assert.strictEqual(asked.count, 1)
        reply.current = setOf(jwk(one.publicKey, { kid: "1" }))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* judge(signed(one.privateKey, "1")), "ada")
      }))
  })

  describe("an old set", () => {
    it.effect("is fetched again in the background and used meanwhile", () =>
      Effect.gen(function*() {
        const reply = { current: setOf(jwk(one.publicKey, { kid: "1" })) }
        const { asked, judge } = yield* served(reply, { timeToLive: "1 minute" })
        assert.strictEqual(yield* judge(signed(one.privateKey, "1")), "ada")
        yield* TestClock.adjust("59 seconds")
        yield* judge(signed(one.privateKey, "1", { sub: "bob" }))
        assert.strictEqual(asked.count, 1)
        yield* TestClock.adjust("1 second")
        reply.current = setOf()
        yield* judge(signed(one.privateKey, "1", { sub: "eve" }))
        assert.strictEqual(asked.count, 2)
      }))

    it.effect("is used while the server is down, and no longer than maxStale", () =>
      Effect.gen(function*() {
        const reply: { current: Reply } = { current: setOf(jwk(one.publicKey, { kid: "1" })) }
        const { judge, jwks } = yield* served(reply, { timeToLive: "1 minute", maxStale: "1 minute" })
        const cached = signed(one.privateKey, "1")
        assert.strictEqual(yield* judge(cached), "ada")
        reply.current = { status: 503, body: "" }
        yield* TestClock.adjust("119 seconds")
        assert.strictEqual(yield* judge(signed(one.privateKey, "1", { sub: "bob" })), "bob")
        assert.isTrue((yield* jwks.status).usable)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* judge(signed(one.privateKey, "1", { sub: "carol" })), "AuthUnavailable")
        assert.strictEqual(yield* judge(cached), "AuthUnavailable")
        assert.isFalse((yield* jwks.status).usable)
      }))

    it.effect("lives as long as the server says, within the limits", () =>
      Effect.gen(function*() {
        const agedOut = (cacheControl: string, seconds: number) =>
          Effect.gen(function*() {
            const { asked, judge } = yield* served({
              current: { ...setOf(jwk(one.publicKey, { kid: "1" })), headers: { "cache-control": cacheControl } }
            })
            yield* judge(signed(one.privateKey, "1"))
            yield* TestClock.adjust(`${seconds} seconds`)
            yield* judge(signed(one.privateKey, "1", { sub: "bob" }))
            return asked.count === 2
          })
        assert.isFalse(yield* agedOut("public, max-age=120", 119))
        assert.isTrue(yield* agedOut("public, max-age=120", 120))
        assert.isFalse(yield* agedOut("max-age=31536000", 3599))
        assert.isTrue(yield* agedOut("max-age=31536000", 3600))
        assert.isFalse(yield* agedOut("no-store", 29))
        assert.isTrue(yield* agedOut("no-store", 30))
      }))
  })

  describe("what is in the set", () => {
    it.effect("is skipped and counted when it is of no use", () =>
      Effect.gen(function*() {
        const rsa = Crypto.generateKeyPairSync("rsa", { modulusLength: 2048 })
        const weak = Crypto.generateKeyPairSync("rsa", { modulusLength: 1024 })
        const p384 = Crypto.generateKeyPairSync("ec", { namedCurve: "P-384" })
        const rsaJwk = rsa.publicKey.export({ format: "jwk" })
        const { judge, jwks } = yield* served({
          current: setOf(
            jwk(one.publicKey, { kid: "1" }),
            { ...two.privateKey.export({ format: "jwk" }), kid: "private" },
            jwk(two.publicKey, { kid: "enc", use: "enc" }),
            jwk(two.publicKey, { kid: "ops", key_ops: ["encrypt"] }),
            { ...weak.publicKey.export({ format: "jwk" }), kid: "weak" },
            { ...rsaJwk, kid: "e1", e: "AQ" },
            { ...rsaJwk, kid: "e3", e: "Aw" },
            { ...rsaJwk, kid: "even", e: "AQAC" },
            { kty: "oct", k: "AAAA", kid: "oct" },
            { ...p384.publicKey.export({ format: "jwk" }), kid: "curve", alg: "ES256" },
            { kty: "EC", crv: "P-256", x: "A".repeat(43), y: "A".repeat(43), kid: "off the curve" },
            { kty: "OKP", crv: "X25519", x: "A".repeat(43), kid: "x25519" },
            { kty: "new", kid: "new" },
            "text" as never,
            null as never
          )
        })
        assert.strictEqual(yield* judge(signed(one.privateKey, "1")), "ada")
        for (const kid of ["private", "enc", "ops"]) {
          assert.strictEqual(yield* judge(signed(two.privateKey, kid)), "KeyNotFound", kid)
        }
        const status = yield* jwks.status
        assert.strictEqual(status.keys, 1)
        assert.strictEqual(Object.values(status.skipped).reduce((sum, count) => sum + count, 0), 14)
        assert.strictEqual(status.skipped["not a public key"], 2)
      }))

    it.effect("may be no key at all, and then the set is not usable", () =>
      Effect.gen(function*() {
        const reply: { current: Reply } = { current: setOf(jwk(one.publicKey, { kid: "1" })) }
        const { judge, jwks } = yield* served(reply)
        yield* jwks.refresh
        assert.isTrue((yield* jwks.status).usable)
        for (const set of [setOf(), setOf({ kty: "new", kid: "1" })]) {
          reply.current = set
          yield* jwks.refresh
          assert.deepInclude(yield* jwks.status, { usable: false, keys: 0, failures: 0 })
          assert.strictEqual(yield* judge(signed(one.privateKey, "1")), "KeyNotFound")
        }
      }))

    const bad: ReadonlyArray<readonly [string, unknown, Partial<Jwks.Options>?]> = [
      ["two keys with one id", setOf(jwk(one.publicKey, { kid: "1" }), jwk(two.publicKey, { kid: "1" })).body],
      ["too many keys", setOf(jwk(one.publicKey, { kid: "1" }), jwk(two.publicKey, { kid: "2" })).body, { maxKeys: 1 }],
      ["too many bytes", { keys: [jwk(one.publicKey, { kid: "1" })], fill: "x".repeat(2000) }, { maxBytes: 1000 }],
      ["no list of keys", { keys: { 0: jwk(one.publicKey, { kid: "1" }) } }],
      ["no JSON", "<html>"],
      ["a member twice", `{"keys":[],"keys":[${JSON.stringify(jwk(one.publicKey, { kid: "1" }))}]}`]
    ]
    for (const [name, body, options] of bad) {
      it.effect(`refuses the whole set for ${name}, and keeps the one before`, () =>
        Effect.gen(function*() {
          const reply: { current: Reply } = { current: { body } }
          const fresh = yield* served(reply, options)
          assert.strictEqual(yield* fresh.judge(signed(one.privateKey, "1")), "AuthUnavailable")
          reply.current = setOf(jwk(three.publicKey, { kid: "3" }))
          const { judge, jwks } = yield* served(reply, options)
          assert.strictEqual(yield* judge(signed(three.privateKey, "3")), "ada")
          reply.current = { body }
          yield* jwks.refresh
          assert.strictEqual(yield* judge(signed(three.privateKey, "3")), "ada")
          assert.strictEqual(yield* judge(signed(one.privateKey, "1")), "AuthUnavailable")
        }))
    }
  })

  describe("its options", () => {
    for (
      const [url, allowed] of [
        ["https://issuer.example/jwks", true],
        ["http://localhost:1/jwks", true],
        ["http://127.0.0.1/jwks", true],
        ["http://[::1]:80/jwks", true],
        ["http://issuer.example/jwks", false],
        ["http://127.0.0.1.evil.example/jwks", false],
        ["http://localhost.evil.example/jwks", false],
        ["https://user:pass@issuer.example/jwks", false],
        ["file:///etc/passwd", false],
        ["https://issuer.example/jwks#keys", false],
        ["https://issuer.example/jwks#", false],
        ["/jwks", false]
      ] as const
    ) {
      it(`${allowed ? "take" : "refuse"} the URL ${url}`, () => {
        const make = () => Jwks.layer({ url })
        if (allowed) assert.doesNotThrow(make)
        else assert.throws(make, /url must/)
      })
    }

    it("take http elsewhere when told in so many words, and HMAC never", () => {
      assert.doesNotThrow(() => Jwks.layer({ url: "http://issuer.example", allowInsecureHttp: true }))
      assert.throws(() => Jwks.layer({ url: "https://a.example", maxKeys: 0 }), /maxKeys/)
      assert.throws(
        () => Jwt.layerJwks({ algorithms: ["HS256"], issuer, audience }),
        /HMAC/
      )
    })
  })

  describe("a real server", () => {
    const listening = (handler: Http.RequestListener) =>
      Effect.acquireRelease(
        Effect.callback<string>((resume) => {
          const server = Http.createServer(handler)
          servers.push(server)
          server.listen(0, "127.0.0.1", () => {
            resume(Effect.succeed(`http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`))
          })
        }),
        () =>
          Effect.sync(() => {
            for (const server of servers.splice(0)) {
              server.closeAllConnections()
              server.close()
            }
          })
      )
    const servers: Array<Http.Server> = []
    const keys = JSON.stringify({ keys: [jwk(one.publicKey, { kid: "1" })] })

    const judged = (url: string, fetching: Layer.Layer<never> = Layer.empty) =>
      Effect.gen(function*() {
        const context = yield* Layer.build(
          Jwt.layerJwks({ algorithms: ["ES256"], issuer, audience }).pipe(
            Layer.provide(Jwks.layer({ url, timeout: "300 millis" })),
            Layer.provide(FetchHttpClient.layer),
            Layer.provide(fetching)
          )
        )
        const authenticator = Context.get(context, Authenticator.Authenticator)
        return yield* Effect.match(Authenticator.identify(authenticator, bearer(signed(one.privateKey, "1"))), {
          onFailure: (error): string => error.reason._tag,
          onSuccess: (identity): string => identity.principal
        })
      })

    const cases: ReadonlyArray<readonly [string, Http.RequestListener, string]> = [
      ["gives its keys", (_, response) => response.end(keys), "ada"],
      ["hangs", () => {}, "AuthUnavailable"],
      ["hangs in the middle of the body", (_, response) => response.write(keys.slice(0, 20)), "AuthUnavailable"],
      ["resets", (request) => request.socket.resetAndDestroy(), "AuthUnavailable"],
      ["redirects", (request, response) =>
        request.url === "/jwks"
          ? response.writeHead(302, { location: "/other" }).end()
          : response.end(keys), "AuthUnavailable"],
      [
        "sends 10 MB",
        (_, response) => response.end(`{"fill":"${"x".repeat(10_000_000)}",${keys.slice(1)}`),
        "AuthUnavailable"
      ],
      ["sends 10 MB without saying so", (_, response) => {
        response.write(`{"fill":"${"x".repeat(10_000_000)}"`)
        response.end(`,${keys.slice(1)}`)
      }, "AuthUnavailable"],
      ["says 404", (_, response) => response.writeHead(404).end(keys), "AuthUnavailable"]
    ]
    it.live("that redirects is not believed either where the client follows by itself", () =>
      Effect.gen(function*() {
        const asked: Array<string> = []
        const url = yield* listening((request, response) => {
          asked.push(String(request.url))
          if (request.url === "/jwks") response.writeHead(302, { location: "/other" }).end()
          else response.end(keys)
        })
        const following = Layer.succeed(FetchHttpClient.Fetch, (input, init) =>
          fetch(input, { ...init, redirect: "follow" }))
        assert.strictEqual(yield* judged(url, following), "AuthUnavailable")
        assert.deepStrictEqual(asked, ["/jwks", "/other"])
        // The one of the platform, which does as it is told, does not even ask.
        asked.length = 0
        assert.strictEqual(yield* judged(url), "AuthUnavailable")
        assert.deepStrictEqual(asked, ["/jwks"])
      }))

    for (const [name, handler, answer] of cases) {
      it.live(`that ${name} makes the answer ${answer}`, () =>
        Effect.gen(function*() {
          const url = yield* listening(handler)
          assert.strictEqual(yield* judged(url), answer)
        }))
    }
  })
})
