import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Redacted } from "effect"
import type { ToolCall } from "effect-toolops"
import { Authenticator, AuthError, Identity } from "effect-toolops/auth"

const bad = Effect.fail(new AuthError.AuthError({ reason: new AuthError.InvalidCredentials() }))

/** An authenticator of one header: `<name>: <principal>` is good unless it says `bad`; `slow` ones think about it. */
const of = (name: string, slow = false) => {
  const asked: Array<unknown> = []
  const authenticator = Authenticator.make({
    authenticate: (headers) => {
      asked.push(headers)
      const answer = Effect.flatMap(
        Authenticator.headerValue(headers, name),
        Option.match({
          onNone: () => Effect.succeedNone,
          onSome: (value) => value === "bad" ? bad : Effect.succeedSome(Identity.make({ principal: value }))
        })
      )
      return slow ? Effect.andThen(Effect.yieldNow, answer) : answer
    }
  })
  return { asked, authenticator }
}

const identify = (authenticator: Authenticator.Service, headers: ToolCall.RequestHeadersInput) =>
  Effect.match(Authenticator.identify(authenticator, headers), {
    onFailure: (error): string => error.reason._tag,
    onSuccess: (identity): string => identity.principal
  })

describe("Authenticator", () => {
  for (const slow of [false, true]) {
    describe(slow ? "firstOf some that take their time" : "firstOf", () => {
      it.effect("takes the first caller that is found, in order", () =>
        Effect.gen(function*() {
          const all = Authenticator.firstOf(
            of("a", slow).authenticator,
            of("b").authenticator,
            of("c", slow).authenticator
          )
          assert.strictEqual(yield* identify(all, { a: "ada" }), "ada")
          assert.strictEqual(yield* identify(all, { c: "carol" }), "carol")
          assert.strictEqual(yield* identify(all, {}), "MissingCredentials")
        }))

      it.effect("fails for good credentials of two callers, and takes two of one caller", () =>
        Effect.gen(function*() {
          const given = (name: string, identity: Identity.Options) =>
            Authenticator.make({
              authenticate: (headers) =>
                Effect.andThen(
                  slow ? Effect.yieldNow : Effect.void,
                  Effect.succeed(headers[name] === undefined ? Option.none() : Option.some(Identity.make(identity)))
                )
            })
          const judge = (one: Identity.Options, other: Identity.Options) =>
            Effect.gen(function*() {
              const answers = [
                yield* identify(Authenticator.firstOf(given("a", one), given("b", other)), { a: "1", b: "1" }),
                yield* identify(Authenticator.firstOf(given("b", other), given("a", one)), { a: "1", b: "1" })
              ]
              assert.strictEqual(answers[0], answers[1])
              return answers[0]
            })
          const ada = { principal: "ada", tenant: "acme", issuer: "https://a.example" }
          assert.strictEqual(yield* judge(ada, { ...ada, method: "other", roles: ["admin"] }), "ada")
          assert.strictEqual(yield* judge(ada, { ...ada, issuer: undefined }), "ada")
          for (
            const other of [
              { principal: "bob" },
              { tenant: "globex" },
              { tenant: undefined },
              { issuer: "https://b.example" }
            ]
          ) assert.strictEqual(yield* judge(ada, { ...ada, ...other }), "InvalidCredentials", JSON.stringify(other))
          const all = Authenticator.firstOf(of("a", slow).authenticator, of("b").authenticator)
          assert.strictEqual(yield* identify(all, { a: "ada", b: "bob" }), "InvalidCredentials")
          assert.strictEqual(yield* identify(all, { a: "ada", b: "ada" }), "ada")
        }))

      it.effect("fails for a bad credential wherever it stands, and whatever good one stands beside it", () =>
        Effect.gen(function*() {
          const all = Authenticator.firstOf(
            Authenticator.anonymous(),
            of("a", slow).authenticator,
            of("b").authenticator
          )
          for (const headers of [{ a: "bad" }, { b: "bad" }, { a: "bad", b: "bob" }, { a: "ada", b: "bad" }]) {
            assert.strictEqual(yield* identify(all, headers), "InvalidCredentials", JSON.stringify(headers))
          }
          assert.strictEqual(yield* identify(all, {}), "anonymous")
        }))

      it.effect("does not ask the others once one has failed", () =>
        Effect.gen(function*() {
          const last = of("b")
          const all = Authenticator.firstOf(of("a", slow).authenticator, last.authenticator)
          yield* identify(all, { a: "bad" })
          assert.strictEqual(last.asked.length, 0)
        }))
    })
  }

  it("schemes that do not belong into a header are refused", () => {
    const authenticate = () => Effect.succeedNone
    for (const scheme of ["", "Bearer x", "Bearer,", "Bearer\r\nX-Evil: 1", "\u00fc", 1 as never]) {
      assert.throws(() => Authenticator.make({ authenticate, schemes: [scheme] }), /schemes/)
    }
    assert.deepStrictEqual(Authenticator.make({ authenticate, schemes: ["DPoP"] }).schemes, ["DPoP"])
  })

  it("options that make no sense are refused", () => {
    const authenticate = () => Effect.succeedNone
    assert.throws(() => Authenticator.make({ authenticate, scheme: ["Bearer"] } as never), /unknown option "scheme"/)
    assert.throws(() => Authenticator.make({ authenticate, anonymous: Option.none() } as never), /unknown option/)
    assert.throws(() => Authenticator.make({ schemes: ["Bearer"] } as never), /authenticate/)
  })

  it("firstOf nobody is refused", () => {
    assert.throws(() => Authenticator.firstOf(), /at least one/)
  })

  it.effect("is anonymous only for those who present nothing, and then without roles and scopes", () =>
    Effect.gen(function*() {
      const authenticator = yield* Effect.provide(
        Authenticator.Authenticator,
        Authenticator.layerFirstOf(
          Authenticator.layerAnonymous,
          Layer.succeed(Authenticator.Authenticator, of("a").authenticator)
        )
      )
      const identity = yield* Authenticator.identify(authenticator, {})
      assert.deepInclude(identity, { principal: "anonymous", roles: [], scopes: [], method: "anonymous" })
      assert.strictEqual(yield* identify(authenticator, { a: "ada" }), "ada")
      assert.strictEqual(yield* identify(authenticator, { a: "bad" }), "InvalidCredentials")
      assert.strictEqual(yield* identify(authenticator, { authorization: "Negotiate x" }), "InvalidCredentials")
    }))

  it.effect("knows only headers of the request itself", () =>
    Effect.gen(function*() {
      const { authenticator } = of("a")
      assert.strictEqual(yield* identify(authenticator, Object.create({ a: "eve" })), "MissingCredentials")
      assert.strictEqual(yield* identify(of("constructor").authenticator, {}), "MissingCredentials")
      assert.strictEqual(yield* identify(authenticator, { a: undefined }), "MissingCredentials")
      assert.strictEqual(yield* identify(authenticator, { a: 1 as never }), "InvalidCredentials")
    }))

  describe("bearer", () => {
    const read = (headers: ToolCall.RequestHeadersInput) =>
      Effect.match(Authenticator.bearer(headers), {
        onFailure: (error): string | undefined => error.reason._tag,
        onSuccess: (found) => Option.getOrUndefined(Option.map(found, Redacted.value))
      })

    it.effect("is the token of a Bearer header and nothing else", () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* read({ authorization: "Bearer a.b-c_d~e+f/g==" }), "a.b-c_d~e+f/g==")
        assert.strictEqual(yield* read({ Authorization: "bEARER x" }), "x")
        for (const none of [{}, { authorization: "Basic x" }, { authorization: "Bearerx y" }, { token: "Bearer x" }]) {
          assert.strictEqual(yield* read(none), undefined, JSON.stringify(none))
        }
        for (
          const authorization of [
            "Bearer",
            "Bearer ",
            "Bearer  x",
            "Bearer x y",
            "Bearer x,",
            "Bearer x, Bearer y",
            "Bearer\tx",
            "Bearer,x",
            "Bearer =x",
            "Bearer \u00e9"
          ]
        ) assert.strictEqual(yield* read({ authorization }), "InvalidCredentials", authorization)
      }))
  })

  describe("basic", () => {
    const read = (text: string) =>
      Effect.match(Authenticator.basic({ authorization: `Basic ${text}` }), {
        onFailure: (error): unknown => error.reason._tag,
        onSuccess: (found) => {
          const { password, username } = Option.getOrThrow(found)
          return [username, Redacted.value(password)]
        }
      })
    const encode = (text: string) => Buffer.from(text).toString("base64")

    it.effect("is a user name and a password in UTF-8, divided by the first colon", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* read(encode("ada:pass:word")), ["ada", "pass:word"])
        assert.deepStrictEqual(yield* read(encode("jürgen:pässword")), ["jürgen", "pässword"])
        assert.deepStrictEqual(yield* read(encode(":")), ["", ""])
        // Two names, and not one.
        assert.deepStrictEqual(yield* read(encode("\ufeffada:pw")), ["\ufeffada", "pw"])
        for (
          const text of [
            encode("ada"),
            Buffer.from([0xff, 0x3a]).toString("base64"),
            "a",
            "",
            encode("a:".repeat(20_000)),
            // Another spelling of `a:`, `a:b` without its padding, and base64url.
            "YTp=",
            "YTr=",
            "YTpi=",
            "YTo",
            "YTr_",
            encode("a\0da:pw"),
            encode("ada:p\u007fw"),
            encode("ada:pw\r\n"),
            encode("ada:\u0085pw")
          ]
        ) {
          assert.strictEqual(yield* read(text), "InvalidCredentials", text.slice(0, 20))
        }
      }))
  })
})
