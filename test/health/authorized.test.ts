import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { ApiKey, Authenticator, Authorizer, Rbac } from "effect-toolops/auth"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { HttpRouter } from "effect/http"

const keyOf = (role: string) => `the key of an ${role} in tests`
const keys = ["operator", "caller"].map((role) => ({
  id: role,
  key: Redacted.make(keyOf(role)),
  principal: role,
  roles: [role]
}))
const ApiKeys = ApiKey.layer().pipe(Layer.provide(ApiKey.layerMemory({ keys })))
const WithAnonymous = Layer.effect(
  Authenticator.Authenticator,
  Effect.map(Authenticator.Authenticator, (keyed) => Authenticator.firstOf(keyed, Authenticator.anonymous()))
).pipe(Layer.provide(ApiKeys))

const roles: Rbac.Options["roles"] = {
  operator: { permissions: ["tool:toolops:health:read"] },
  // May call every tool, which is not to read.
  caller: { allowedTools: ["*"], allowedActions: ["call"] }
}

const ask = (
  auth: Layer.Layer<Authenticator.Authenticator | Authorizer.Authorizer>,
  headers: Record<string, string>
) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const Checks = HealthRegistry.layerCheck(HealthCheck.make({ name: "inner-name", check: Effect.void }))
      const Routes = HealthRoutes.layerAuthorized().pipe(Layer.provide(Checks), Layer.provide(HealthRegistry.layer))
      return HttpRouter.toWebHandler(Routes.pipe(Layer.provide(auth)), { disableLogger: true })
    }),
    ({ handler }) =>
      Effect.promise(async () => {
        const texts = await Promise.all(
          ["/health", "/health/inner-name"].map(async (path) =>
            (await handler(new Request(`http://localhost${path}`, { headers }))).text()
          )
        )
        return texts.map((text) => text.includes("duration"))
      }),
    ({ dispose }) => Effect.promise(dispose)
  )

describe("HealthRoutes.layerAuthorized", () => {
  it.effect("tells details to whom the rules of the tools allow to read the tool toolops:health", () =>
    Effect.gen(function*() {
      const auth = Layer.merge(WithAnonymous, Rbac.layer({ roles }))
      assert.deepStrictEqual(yield* ask(auth, { "x-api-key": keyOf("operator") }), [true, true])
      assert.deepStrictEqual(yield* ask(auth, { "x-api-key": keyOf("caller") }), [false, false])
      assert.deepStrictEqual(yield* ask(auth, { "x-api-key": "no such key" }), [false, false])
      assert.deepStrictEqual(yield* ask(auth, {}), [false, false])
    }))

  it.effect("tells anonymous callers the status only, whatever is allowed", () =>
    Effect.gen(function*() {
      const open = Layer.merge(WithAnonymous, Authorizer.layerAllowAll)
      assert.deepStrictEqual(yield* ask(open, {}), [false, false])
      assert.deepStrictEqual(yield* ask(open, { "x-api-key": keyOf("caller") }), [true, true])
    }))

  it.effect("keeps closed in shadow mode and when the authorizer breaks", () =>
    Effect.gen(function*() {
      const headers = { "x-api-key": keyOf("caller") }
      const shadow = Layer.merge(ApiKeys, Rbac.layer({ roles, mode: "shadow" }))
      assert.deepStrictEqual(yield* ask(shadow, headers), [false, false])
      const dies = Layer.merge(ApiKeys, Authorizer.layer(() => Effect.die(new Error("broken"))))
      assert.deepStrictEqual(yield* ask(dies, headers), [false, false])
      const throws = Layer.merge(
        ApiKeys,
        Authorizer.layer(() => {
          throw new Error("broken")
        })
      )
      assert.deepStrictEqual(yield* ask(throws, headers), [false, false])
    }))

  it("takes no guard beside the authorizer", () => {
    assert.throws(() => HealthRoutes.layerAuthorized({ details: () => Effect.succeed(true) } as never), "details")
  })
})
