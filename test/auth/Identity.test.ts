import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Layer, Option } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { Authenticator, AuthMiddleware, Authorizer, Identity } from "effect-toolops/auth"
import { TestClock } from "effect/testing"

const ada = Identity.make({ principal: "ada", expiresAt: DateTime.makeUnsafe(10_000) })

describe("Identity", () => {
  describe("make refuses", () => {
    const refused: ReadonlyArray<readonly [string, object, RegExp]> = [
      ["no principal", { principal: "" }, /principal/],
      ["a principal that is no text", { principal: 1 }, /principal/],
      ["a tenant that is no text", { tenant: 1 }, /tenant/],
      ["an empty issuer", { issuer: "" }, /issuer/],
      ["an issuer that is no text", { issuer: new URL("https://a.example") }, /issuer/],
      ["an empty method", { method: "" }, /method/],
      ["roles in one text", { roles: "admin" }, /roles/],
      ["a scope that is no text", { scopes: [1] }, /scopes/],
      ["an end that is a Date", { expiresAt: new Date(0) }, /expiresAt/],
      ["an end that is a number", { expiresAt: 0 }, /expiresAt/],
      ["an end that is null", { expiresAt: null }, /expiresAt/],
      ["an end in a time zone", { expiresAt: DateTime.makeZonedUnsafe(0, { timeZone: "Europe/Paris" }) }, /expiresAt/],
      ["a beginning that is a Date", { issuedAt: new Date(0) }, /issuedAt/],
      ["claims that are a list", { claims: [] }, /claims/],
      ["claims that are null", { claims: null }, /claims/]
    ]
    for (const [what, more, message] of refused) {
      it(what, () => {
        assert.throws(() => Identity.make({ principal: "ada", ...more } as Identity.Options), message)
      })
    }
  })

  it("copies claims to the last plain object, and what was given stays as it was", () => {
    const given = {
      groups: ["a"],
      nested: { deep: { list: [{ x: 1 }] } },
      when: new Date(0),
      self: undefined as unknown
    }
    given.self = given
    const { claims } = Identity.make({ principal: "ada", claims: given })
    given.groups.push("admin")
    given.nested.deep.list[0]!.x = 2
    assert.deepStrictEqual(claims["groups"], ["a"])
    assert.deepStrictEqual(claims["nested"], { deep: { list: [{ x: 1 }] } })
    assert.strictEqual(claims["when"], given.when)
    for (
      const change of [
        () => (claims["groups"] as Array<string>).push("admin"),
        () => {
          ;(claims["nested"] as typeof given.nested).deep.list[0]!.x = 3
        },
        () => {
          ;(claims as Record<string, unknown>)["more"] = 1
        }
      ]
    ) assert.throws(change, TypeError)
    assert.isFalse(Object.isFrozen(given) || Object.isFrozen(given.nested))
  })

  it("takes a claim called __proto__ for a claim", () => {
    const { claims } = Identity.make({
      principal: "ada",
      claims: JSON.parse("{\"__proto__\":{\"role\":\"admin\"},\"in\":{\"__proto__\":{\"role\":\"admin\"}}}")
    })
    assert.strictEqual(claims["role"], undefined)
    assert.strictEqual((claims["in"] as Record<string, unknown>)["role"], undefined)
    assert.deepStrictEqual(Object.keys(claims), ["__proto__", "in"])
  })
})

describe("an answer of somebody's own authenticator", () => {
  const judge = (identity: unknown) => {
    const authenticator = Authenticator.make({
      authenticate: () => Effect.succeed(Option.some(identity as Identity.Identity))
    })
    return Effect.match(Authenticator.identify(authenticator, {}), {
      onFailure: (error): string => error.reason._tag,
      onSuccess: ({ principal }): string => principal
    })
  }

  it.effect("counts only where all of it is an identity", () =>
    Effect.gen(function*() {
      const { issuer: _issuer, ...without } = ada
      assert.strictEqual(yield* judge(ada), "ada")
      assert.strictEqual(yield* judge(without), "ada")
      for (
        const more of [
          { principal: "" },
          { principal: undefined },
          { tenant: null },
          { tenant: 1 },
          { issuer: "" },
          { issuer: 1 },
          { roles: undefined },
          { roles: "admin" },
          { roles: [1] },
          { scopes: undefined },
          { method: undefined },
          { method: "" },
          { claims: undefined },
          { claims: null },
          { expiresAt: null },
          { expiresAt: new Date(1e15) },
          { expiresAt: 1e15 },
          { issuedAt: "now" }
        ]
      ) assert.strictEqual(yield* judge({ ...ada, ...more }), "AuthUnavailable", JSON.stringify(more))
      for (const none of [null, undefined, "ada", [], () => ada]) {
        assert.strictEqual(yield* judge(none), "AuthUnavailable", String(none))
      }
    }))

  it.effect("is refused once it has expired, whichever edge asks", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(9999)
      assert.strictEqual(yield* judge(ada), "ada")
      yield* TestClock.setTime(10_000)
      assert.strictEqual(yield* judge(ada), "TokenExpired")
    }))

  it.effect("is refused as well when it comes from an edge and its end is no time", () =>
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
      const call = pipeline.run({ tool: ToolMeta.make({ name: "t" }) }, Effect.void)
      for (const expiresAt of [null, new Date(1e15), 1e15, "never", NaN]) {
        const known = { ...ada, expiresAt } as unknown as Identity.Identity
        const error = yield* Effect.flip(Effect.provideService(call, Identity.CurrentIdentity, known))
        assert.strictEqual(error.reason._tag, "TokenExpired", String(expiresAt))
      }
      yield* Effect.provideService(call, Identity.CurrentIdentity, ada)
    }).pipe(Effect.provide(
      AuthMiddleware.layer.pipe(Layer.provide([Authenticator.layerAnonymous, Authorizer.layerAllowAll]))
    )))
})
