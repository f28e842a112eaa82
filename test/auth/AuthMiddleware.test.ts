import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, DateTime, Deferred, Effect, Exit, Fiber, Layer, Option, Redacted, Ref } from "effect"
import { type CallRecord, ToolCall, ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { ApiKey, Authenticator, AuthError, AuthMiddleware, Authorizer, Identity, Rbac } from "effect-toolops/auth"
import { TestClock } from "effect/testing"

const echo = ToolMeta.make({ name: "echo", readOnly: true })
const scoped = ToolMeta.make({ name: "scoped", scopes: ["files:read", "files:write"] })

const aliceKey = "alice-key-for-the-tests"
const bobKey = "bob-key-for-the-tests"

const Keys = ApiKey.layer().pipe(Layer.provide(ApiKey.layerMemory({
  keys: [
    { id: "a", key: Redacted.make(aliceKey), principal: "alice", roles: ["reader"], scopes: ["files:read"] },
    { id: "b", key: Redacted.make(bobKey), principal: "bob", scopes: ["files:read", "files:write"] }
  ]
})))

class Watch extends Context.Service<Watch, ToolMiddleware.ToolMiddleware<never>>()("test/Watch") {}

/** A pipeline of the auth stage alone, with the record of every call kept. */
const guarded = (
  authenticator: Layer.Layer<Authenticator.Authenticator>,
  authorizer: Layer.Layer<Authorizer.Authorizer> = Authorizer.layerAllowAll
) => {
  const records: Array<CallRecord.CallRecord> = []
  const watching = ToolMiddleware.of<never>({
    name: "watch",
    forTool: () => (call, next) =>
      Effect.onExit(next, (exit) =>
        Effect.sync(() => {
          call.record.settle(exit)
          records.push(call.record)
        }))
  })
  return Effect.map(
    Effect.provide(
      ToolPipeline.make(Watch, AuthMiddleware.AuthMiddleware),
      Layer.merge(
        Layer.succeed(Watch, watching),
        Layer.provide(AuthMiddleware.layer, Layer.merge(authenticator, authorizer))
      )
    ),
    (pipeline) => ({ pipeline, records })
  )
}

const whoami = Effect.map(Identity.CurrentIdentity, (who) => who.principal)
const key = (value: string) => ({ "x-api-key": value })
const reasonOf = <A, R>(effect: Effect.Effect<A, AuthError.AuthError, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason._tag)

const WithAnonymous = Authenticator.layerFirstOf(Keys, Authenticator.layerAnonymous)

describe("AuthMiddleware", () => {
  describe("whose call it is", () => {
    it.effect("is the caller that the call's own headers prove", () =>
      Effect.gen(function*() {
        const { pipeline, records } = yield* guarded(Keys)
        assert.strictEqual(yield* pipeline.run({ tool: echo, headers: key(aliceKey) }, whoami), "alice")
        assert.strictEqual(records[0]!.identity!.principal, "alice")
        assert.strictEqual(records[0]!.outcome, "ok")
        assert.strictEqual(records[0]!.rule, "allow all")
      }))

    it.effect("is the caller of the request when the call brings no headers", () =>
      Effect.gen(function*() {
        const { pipeline } = yield* guarded(Keys)
        const who = pipeline.run({ tool: echo }, whoami).pipe(
          Effect.provideService(ToolCall.RequestHeaders, key(bobKey))
        )
        assert.strictEqual(yield* who, "bob")
      }))

    it.effect("is whom the edge has authenticated, without a look at the request's headers", () =>
      Effect.gen(function*() {
        const { pipeline } = yield* guarded(Keys)
        const carol = Identity.make({ principal: "carol" })
        const who = pipeline.run({ tool: echo, headers: { accept: "*/*" } }, whoami).pipe(
          Effect.provideService(ToolCall.RequestHeaders, key("not a key of anybody")),
          Effect.provideService(Identity.CurrentIdentity, carol)
        )
        assert.strictEqual(yield* who, "carol")
      }))

    it.effect("is the caller of the headers also where an edge has authenticated somebody else", () =>
      Effect.gen(function*() {
        const { pipeline } = yield* guarded(Keys)
        const who = pipeline.run({ tool: echo, headers: key(aliceKey) }, whoami)
        const carol = Identity.make({ principal: "carol" })
        assert.strictEqual(yield* Effect.provideService(who, Identity.CurrentIdentity, carol), "alice")
      }))

    it.effect("stays the first caller when a tool calls a tool", () =>
      Effect.gen(function*() {
        const { pipeline, records } = yield* guarded(WithAnonymous)
        const inner = pipeline.run({ tool: echo }, whoami)
        assert.strictEqual(yield* pipeline.run({ tool: echo, headers: key(aliceKey) }, inner), "alice")
        assert.deepStrictEqual(records.map((record) => record.identity!.principal), ["alice", "alice"])
      }))

    it.effect("does not reach out of the call", () =>
      Effect.gen(function*() {
        const { pipeline } = yield* guarded(WithAnonymous)
        yield* pipeline.run({ tool: echo, headers: key(aliceKey) }, whoami)
        assert.strictEqual(yield* pipeline.run({ tool: echo }, whoami), "anonymous")
        assert.isTrue(Option.isNone(yield* Effect.serviceOption(Identity.CurrentIdentity)))
      }))

    it.effect("is nobody's when nothing was presented, unless anonymous callers are allowed in so many words", () =>
      Effect.gen(function*() {
        const strict = yield* guarded(Keys)
        assert.strictEqual(yield* reasonOf(strict.pipeline.run({ tool: echo }, whoami)), "MissingCredentials")
        assert.strictEqual(
          yield* reasonOf(strict.pipeline.run({ tool: echo, headers: { accept: "*/*" } }, whoami)),
          "MissingCredentials"
        )
        assert.deepStrictEqual(strict.records.map((record) => record.outcome), ["unauthenticated", "unauthenticated"])
        assert.strictEqual(strict.records[0]!.identity, undefined)
        const open = yield* guarded(WithAnonymous)
        assert.strictEqual(yield* open.pipeline.run({ tool: echo }, whoami), "anonymous")
      }))
  })

  describe("a bad credential", () => {
    it.effect("fails and does not become the anonymous caller or the one of the edge", () =>
      Effect.gen(function*() {
        const { pipeline, records } = yield* guarded(WithAnonymous)
        const bad = pipeline.run({ tool: echo, headers: key("a key that nobody has") }, whoami)
        assert.strictEqual(yield* reasonOf(bad), "InvalidCredentials")
        const carol = Identity.make({ principal: "carol" })
        assert.strictEqual(
          yield* reasonOf(Effect.provideService(bad, Identity.CurrentIdentity, carol)),
          "InvalidCredentials"
        )
        assert.strictEqual(
          yield* reasonOf(
            Effect.provideService(
              pipeline.run({ tool: echo }, whoami),
              ToolCall.RequestHeaders,
              key("a key that nobody has")
            )
          ),
          "InvalidCredentials"
        )
        assert.deepStrictEqual(records.map((record) => record.outcome), [
          "unauthenticated",
          "unauthenticated",
          "unauthenticated"
        ])
      }))

    it.effect("is also an Authorization header that no authenticator reads", () =>
      Effect.gen(function*() {
        const { pipeline } = yield* guarded(WithAnonymous)
        const bad = pipeline.run({ tool: echo, headers: { authorization: "Negotiate abc" } }, whoami)
        assert.strictEqual(yield* reasonOf(bad), "InvalidCredentials")
      }))
  })

  describe("whatever breaks", () => {
    const broken: ReadonlyArray<readonly [string, () => any]> = [
      ["dies", () => Effect.die(new Error("secret"))],
      ["throws", () => {
        throw new Error("secret")
      }],
      ["fails with something else", () => Effect.fail("secret")],
      ["answers nothing", () => undefined],
      ["answers with a promise", () => Promise.resolve(Option.none())],
      ["answers with null", () => Effect.succeed(null)],
      ["answers with something else", () => Effect.succeed({ _tag: "Some", value: "alice", allow: "yes", rule: 1 })]
    ]
    for (const [how, run] of broken) {
      it.effect(`refuses the call when the authenticator ${how}`, () =>
        Effect.gen(function*() {
          const Broken = Authenticator.layer({ authenticate: run })
          for (const authenticator of [Broken, Authenticator.layerFirstOf(Broken, Authenticator.layerAnonymous)]) {
            const { pipeline, records } = yield* guarded(authenticator)
            assert.strictEqual(
              yield* reasonOf(pipeline.run({ tool: echo, headers: {} }, whoami)),
              "AuthUnavailable"
            )
            assert.strictEqual(records[0]!.outcome, "unauthenticated")
          }
        }))

      it.effect(`refuses the call when the authorizer ${how}`, () =>
        Effect.gen(function*() {
          for (
            const Broken of [
              Layer.succeed(Authorizer.Authorizer, { authorize: run }),
              Authorizer.layer(run, { mode: "shadow" })
            ]
          ) {
            const { pipeline, records } = yield* guarded(Keys, Broken)
            assert.strictEqual(
              yield* reasonOf(pipeline.run({ tool: echo, headers: key(aliceKey) }, whoami)),
              "AuthUnavailable"
            )
            assert.strictEqual(records[0]!.outcome, "denied")
          }
        }))
    }

    it.effect("leaves the handler's own failures and defects alone", () =>
      Effect.gen(function*() {
        const { pipeline, records } = yield* guarded(Keys)
        const call = { tool: echo, headers: key(aliceKey) }
        assert.strictEqual(yield* Effect.flip(pipeline.run(call, Effect.fail("own"))), "own")
        const died = yield* Effect.exit(pipeline.run(call, Effect.die("own defect")))
        assert.isTrue(Exit.isFailure(died) && Cause.squash(died.cause) === "own defect")
        assert.deepStrictEqual(records.map((record) => record.outcome), ["failed", "defect"])
      }))

    it.effect("is interrupted with its caller while it authenticates", () =>
      Effect.gen(function*() {
        const started = yield* Deferred.make<void>()
        const Hanging = Authenticator.layer({
          authenticate: () => Effect.andThen(Deferred.succeed(started, undefined), Effect.never)
        })
        const { pipeline, records } = yield* guarded(Hanging)
        const fiber = yield* Effect.forkChild(pipeline.run({ tool: echo, headers: {} }, whoami))
        yield* Deferred.await(started)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(records[0]!.outcome, "interrupted")
      }))
  })

  describe("what the caller may do", () => {
    const Roles = Rbac.layer({ roles: { reader: { allowedTools: ["echo"], allowedActions: ["list"] } } })

    it.effect("is refused as Forbidden with tool and action, and the rule is in the record", () =>
      Effect.gen(function*() {
        const { pipeline, records } = yield* guarded(Keys, Roles)
        const error = yield* Effect.flip(pipeline.run({ tool: echo, headers: key(aliceKey) }, whoami))
        assert.deepInclude(error.reason, { _tag: "Forbidden", tool: "echo", action: "call" })
        assert.strictEqual(records[0]!.outcome, "denied")
        assert.strictEqual(records[0]!.rule, "no rule grants it")
        assert.strictEqual(records[0]!.identity!.principal, "alice")
        assert.strictEqual(
          yield* pipeline.run({ tool: echo, action: "list", headers: key(aliceKey) }, whoami),
          "alice"
        )
      }))

    it.effect("is refused as InsufficientScope with every scope that the tool needs", () =>
      Effect.gen(function*() {
        const { pipeline } = yield* guarded(Keys)
        const error = yield* Effect.flip(pipeline.run({ tool: scoped, headers: key(aliceKey) }, whoami))
        assert.strictEqual(error.reason._tag, "InsufficientScope")
        assert.deepInclude(error.reason, { tool: "scoped", requiredScopes: ["files:read", "files:write"] })
        assert.strictEqual(yield* pipeline.run({ tool: scoped, headers: key(bobKey) }, whoami), "bob")
      }))

    it.effect("is let through in shadow mode, and the record says what would have been", () =>
      Effect.gen(function*() {
        const Shadow = Rbac.layer({ mode: "shadow", roles: { reader: {} } })
        const { pipeline, records } = yield* guarded(Keys, Shadow)
        assert.strictEqual(yield* pipeline.run({ tool: echo, headers: key(aliceKey) }, whoami), "alice")
        assert.strictEqual(records[0]!.rule, "shadow: no rule grants it")
        assert.strictEqual(records[0]!.outcome, "ok")
      }))

    it.effect("may depend on the arguments", () =>
      Effect.gen(function*() {
        const Own = Authorizer.layer(({ identity, input }) => Effect.succeed({ allow: input === identity.principal }))
        const { pipeline } = yield* guarded(Keys, Own)
        const call = { tool: echo, headers: key(aliceKey) }
        assert.strictEqual(yield* pipeline.run({ ...call, input: "alice" }, whoami), "alice")
        assert.strictEqual(yield* reasonOf(pipeline.run({ ...call, input: "bob" }, whoami)), "Forbidden")
      }))

    it.effect("follows the policy that holds when the call comes", () =>
      Effect.gen(function*() {
        const ref = yield* Ref.make(Authorizer.make(() => true))
        const { pipeline } = yield* guarded(Keys, Authorizer.layerRef(ref))
        const call = pipeline.run({ tool: echo, headers: key(aliceKey) }, whoami)
        assert.strictEqual(yield* call, "alice")
        yield* Ref.set(ref, Authorizer.make(() => false))
        assert.strictEqual(yield* reasonOf(call), "Forbidden")
      }))
  })

  describe("an identity that expires", () => {
    const expiring = (principal: string) => Identity.make({ principal, expiresAt: DateTime.makeUnsafe(10_000) })

    it.effect("is valid before the moment and not at it", () =>
      Effect.gen(function*() {
        const { pipeline } = yield* guarded(Keys)
        const call = Effect.provideService(
          pipeline.run({ tool: echo }, whoami),
          Identity.CurrentIdentity,
          expiring("carol")
        )
        yield* TestClock.setTime(9_999)
        assert.strictEqual(yield* call, "carol")
        yield* TestClock.setTime(10_000)
        assert.strictEqual(yield* reasonOf(call), "TokenExpired")
      }))

    it.effect("is refused before the tool runs when the call has waited for too long", () =>
      Effect.gen(function*() {
        let executions = 0
        const waiting = ToolMiddleware.of<never>({
          name: "waiting",
          forTool: () => (_call, next) => Effect.andThen(Effect.sleep("20 seconds"), next)
        })
        class Waiting extends Context.Service<Waiting, ToolMiddleware.ToolMiddleware<never>>()("test/Waiting") {}
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* Effect.provide(
          ToolPipeline.make(AuthMiddleware.AuthMiddleware, Waiting),
          Layer.merge(
            Layer.succeed(Waiting, waiting),
            Layer.provide(AuthMiddleware.layer, Layer.merge(Keys, Authorizer.layerAllowAll))
          )
        )
        const call = ToolCall.make({ tool: echo })
        void records
        const fiber = yield* Effect.forkChild(Effect.flip(
          Effect.provideService(
            pipeline.run(call, Effect.sync(() => executions++)),
            Identity.CurrentIdentity,
            expiring("carol")
          )
        ))
        yield* TestClock.adjust("20 seconds")
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error.reason._tag, "TokenExpired")
        assert.strictEqual(executions, 0)
      }))
  })

  describe("explain", () => {
    it.effect("says who calls and which rule decides, and runs nothing", () =>
      Effect.gen(function*() {
        const { pipeline, records } = yield* guarded(
          Keys,
          Rbac.layer({ roles: { reader: { permissions: ["echo:call"] } } })
        )
        const plan = (yield* pipeline.explain({ tool: echo, headers: key(aliceKey) }))
          .find(({ stage }) => stage === "auth")!
        assert.strictEqual(plan.verdict, "pass")
        assert.deepInclude(plan.detail, { principal: "alice", rule: "role reader: permission echo:call" })
        const denied = (yield* pipeline.explain({ tool: echo, headers: key(bobKey) }))[1]!
        assert.strictEqual(denied.verdict, "refuse")
        assert.deepInclude(denied.detail, { principal: "bob", error: "Forbidden" })
        const nobody = (yield* pipeline.explain({ tool: echo }))[1]!
        assert.deepStrictEqual(nobody.detail, { error: "MissingCredentials" })
        assert.strictEqual(records.length, 0)
      }))
  })
})
