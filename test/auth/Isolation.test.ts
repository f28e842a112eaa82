// Whose call it is, under load; and that nothing that was presented is ever shown.
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Logger, Option, Redacted, Scheduler, Tracer } from "effect"
import { type CallRecord, ToolCall, ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import {
  ApiKey,
  Authenticator,
  AuthError,
  AuthMiddleware,
  Authorizer,
  Identity,
  Jwks,
  Jwt,
  Rbac,
  TokenIntrospection
} from "effect-toolops/auth"
import { HttpClient, HttpClientError, HttpClientResponse } from "effect/http"
import { inspect } from "node:util"
import { audience, bearer, claims, issuer, token } from "./tokens.ts"

const generator = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let value = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value
  return ((value ^ (value >>> 14)) >>> 0) / 4294967296
}

describe("identities", () => {
  it.live("are never mixed up in 100,000 interleaved calls of 1,000 callers", () =>
    Effect.gen(function*() {
      const callers = 1000
      const calls = 100_000
      const keyOf = (caller: number) => `a key for the caller ${caller}`
      const random = generator(1)
      // One that is known at once, one that takes its time, and edges: every way in, side by side.
      const Slow = Authenticator.layer({
        authenticate: (headers) =>
          Effect.flatMap(Authenticator.headerValue(headers, "x-slow"), (found) =>
            Option.isNone(found)
              ? Effect.succeedNone
              : Effect.as(Effect.yieldNow, Option.some(Identity.make({ principal: found.value, roles: ["user"] }))))
      })
      const Keys = Layer.provide(
        ApiKey.layer(),
        ApiKey.layerMemory({
          keys: Array.from({ length: callers }, (_, i) => ({
            id: `k${i}`,
            key: Redacted.make(keyOf(i)),
            principal: `p${i}`,
            roles: ["user"]
          }))
        })
      )
      const Own = Authorizer.layer(({ identity, input }) =>
        Effect.as(Effect.yieldNow, { allow: input === identity.principal })
      )
      const pipeline = yield* Effect.provide(
        ToolPipeline.make(AuthMiddleware.AuthMiddleware),
        Layer.provide(AuthMiddleware.layer, [Authenticator.layerFirstOf(Keys, Slow), Own])
      )
      const tool = ToolMeta.make({ name: "whoami" })
      let answered = 0
      let interrupted = 0
      const one = (i: number) => {
        const caller = Math.floor(random() * callers)
        const principal = `p${caller}`
        const yields = Math.floor(random() * 4)
        const handler = Effect.gen(function*() {
          const before = yield* Identity.CurrentIdentity
          for (let j = 0; j < yields; j++) yield* Effect.yieldNow
          const after = yield* Identity.CurrentIdentity
          assert.strictEqual(before.principal, principal)
          assert.strictEqual(after, before)
          // A tool that this one calls is called by the same caller.
          if (i % 10 === 0) {
            const inner = yield* pipeline.run(
              { tool, input: principal },
              Effect.map(Identity.CurrentIdentity, (who) => who.principal)
            )
            assert.strictEqual(inner, principal)
          }
          answered++
        })
        const ways = [
          () => pipeline.run({ tool, input: principal, headers: { "X-API-Key": keyOf(caller) } }, handler),
          () => pipeline.run({ tool, input: principal, headers: { "x-slow": principal } }, handler),
          () =>
            Effect.provideService(
              pipeline.run({ tool, input: principal }, handler),
              ToolCall.RequestHeaders,
              { "x-api-key": keyOf(caller) }
            ),
          () =>
            Effect.provideService(
              pipeline.run({ tool, input: principal }, handler),
              Identity.CurrentIdentity,
              Identity.make({ principal })
            )
        ]
        const run = ways[i % ways.length]!()
        if (random() > 0.05) return run
        return Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(run)
          for (let j = Math.floor(random() * 5); j > 0; j--) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          interrupted++
        })
      }
      yield* Effect.forEach(Array.from({ length: calls }, (_, i) => i), one, { concurrency: 500, discard: true })
      assert.isAbove(answered, calls * 0.9)
      assert.isAbove(interrupted, calls * 0.04)
    }), 60_000)

  it.effect("do not stay behind when a call is interrupted at any position", () =>
    Effect.gen(function*() {
      const pipeline = yield* Effect.provide(
        ToolPipeline.make(AuthMiddleware.AuthMiddleware),
        Layer.provide(AuthMiddleware.layer, [
          Authenticator.layer({
            authenticate: () => Effect.as(Effect.yieldNow, Option.some(Identity.make({ principal: "inner" })))
          }),
          Authorizer.layerAllowAll
        ])
      )
      const tool = ToolMeta.make({ name: "whoami" })
      const outer = Identity.make({ principal: "outer" })
      let seen = 0
      for (let ops = 3; ops <= 64; ops++) {
        const check = Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(
            Effect.exit(pipeline.run({ tool, headers: {} }, Effect.andThen(Effect.yieldNow, Effect.yieldNow)))
          )
          yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          // The same fiber goes on after a call that failed and one that was given up.
          yield* Effect.exit(pipeline.run({ tool, headers: {} }, Effect.die("own")))
          yield* Effect.raceFirst(pipeline.run({ tool, headers: {} }, Effect.never), Effect.yieldNow)
          assert.strictEqual((yield* Identity.CurrentIdentity).principal, "outer")
          seen++
        })
        yield* check.pipe(
          Effect.provideService(Identity.CurrentIdentity, outer),
          Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)
        )
      }
      assert.strictEqual(seen, 62)
    }))
})

describe("secrets", () => {
  const canary = (position: number) => `canary${position}${"0123456789abcdef".repeat(3)}`
  const sinks: Array<string> = []
  const put = (...values: ReadonlyArray<unknown>) => {
    for (const value of values) {
      sinks.push(inspect(value, { depth: 12, showHidden: true, getters: true }), String(value))
      try {
        sinks.push(JSON.stringify(value) ?? "")
      } catch {
        // What has no JSON form leaks nothing that way.
      }
    }
  }
  const logger = Logger.make((options) => {
    put(options.message, options.cause, Cause.pretty(options.cause))
    for (const name of ["logfmt", "json", "structured"] as const) {
      const format = { logfmt: Logger.formatLogFmt, json: Logger.formatJson, structured: Logger.formatStructured }[name]
      put(format.log(options))
    }
  })
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      const end = span.end.bind(span)
      span.end = (time, exit) => {
        end(time, exit)
        put(
          span.name,
          [...span.attributes.entries()],
          span.events,
          Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""
        )
      }
      return span
    }
  })

  it.live("are in no error, log, span, record, inspection or JSON, from whichever position they come", () =>
    Effect.gen(function*() {
      let position = 0
      const planted: Array<string> = []
      const plant = () => {
        const value = canary(position++)
        planted.push(value)
        return value
      }
      const records: Array<CallRecord.CallRecord> = []
      class Watch extends Context.Service<Watch, ToolMiddleware.ToolMiddleware<never>>()("test/Watch") {}
      const watching = ToolMiddleware.of<never>({
        name: "watch",
        forTool: () => (call, next) =>
          Effect.onExit(next, (exit) =>
            Effect.sync(() => {
              call.record.settle(exit)
              records.push(call.record)
              put(call)
            }))
      })
      const failing = HttpClient.make((request, url) =>
        Effect.fail(
          new HttpClientError.HttpClientError({
            reason: new HttpClientError.TransportError({ request, description: `${url.href} ${plant()}` })
          })
        )
      )
      const echoing = HttpClient.make((request) =>
        Effect.succeed(
          HttpClientResponse.fromWeb(request, new Response(`<p>${inspect(request, { depth: 9 })}</p>`, { status: 200 }))
        )
      )
      const introspecting = (client: HttpClient.HttpClient) =>
        TokenIntrospection.layer({
          url: "https://issuer.example/introspect",
          clientId: "server",
          clientSecret: Redacted.make(plant()),
          clientAuthentication: records.length % 2 === 0 ? "basic" : "post",
          audience
        }).pipe(Layer.provide(Layer.succeed(HttpClient.HttpClient, client)))
      const goodKey = plant()
      const pepper = plant()
      const hmac = plant()
      const Keys = ApiKey.layer({ pepper: Redacted.make(pepper) }).pipe(Layer.provide(
        ApiKey.layerMemory({
          pepper: Redacted.make(pepper),
          keys: [{ id: "k", key: Redacted.make(goodKey), principal: "ada" }]
        })
      ))
      const Tokens = Jwt.layer({
        algorithms: ["HS256"],
        keys: [{ secret: Redacted.make(hmac) }],
        issuer,
        audience,
        clockTolerance: 0
      })
      const Throwing = Authenticator.layer({
        authenticate: (headers) => {
          throw new Error(`not this one: ${plant()} ${JSON.stringify(headers)}`)
        }
      })
      const Remote = Jwt.layerJwks({ algorithms: ["ES256"], issuer, audience }).pipe(
        Layer.provide(Jwks.layer({ url: "https://issuer.example/jwks" })),
        Layer.provide(Layer.succeed(HttpClient.HttpClient, failing))
      )
      const now = Math.floor(Date.now() / 1000)
      const signed = (more: object, key = hmac, header: object = { alg: "HS256" }) =>
        token({ header: { ...header }, payload: { ...claims, exp: now + 60, ...more }, key })
      const whole = (value: string) => {
        planted.push(value, value.split(".")[2] ?? value)
        return value
      }
      const attempts: ReadonlyArray<readonly [Layer.Layer<Authenticator.Authenticator>, Record<string, any>]> = [
        [Keys, { "x-api-key": plant() }],
        [Keys, { "X-API-Key": goodKey }],
        [Keys, { "x-api-key": [plant(), plant()] }],
        [Keys, { "x-api-key": plant().repeat(50) }],
        [Keys, { authorization: `Bearer ${plant()}` }],
        [Keys, { authorization: plant() }],
        [Tokens, { authorization: `Bearer ${plant()}` }],
        [Tokens, { authorization: `Bearer ${plant()}, Bearer ${plant()}` }],
        [Tokens, { authorization: `Negotiate ${plant()}` }],
        [Tokens, { authorization: plant(), Authorization: plant() }],
        [Tokens, bearer(whole(signed({})))],
        [Tokens, bearer(whole(signed({ exp: now - 60 })))],
        [Tokens, bearer(whole(signed({ sub: `${plant()}\n` })))],
        [Tokens, bearer(whole(signed({ aud: plant(), iss: plant() })))],
        [Tokens, bearer(whole(signed({ roles: plant(), scope: [plant()] })))],
        [Tokens, bearer(whole(signed({}, plant())))],
        [Tokens, bearer(whole(signed({}, hmac, { alg: plant(), kid: plant() })))],
        [Tokens, bearer(whole(signed({}, hmac, { alg: "HS256", kid: [plant()], jku: plant() })))],
        [Remote, bearer(whole(signed({}, hmac, { alg: "ES256", kid: plant() })))],
        [introspecting(failing), bearer(plant())],
        [introspecting(echoing), bearer(plant())],
        [Throwing, bearer(plant())],
        [Throwing, { "x-api-key": plant(), cookie: plant(), "x-other": plant() }]
      ]
      const Died = Authorizer.layer(() => {
        throw new Error(plant())
      })
      let accepted = 0
      for (const [authenticator, headers] of attempts) {
        for (const authorizer of [Authorizer.layerAllowAll, Rbac.layer({ roles: {} }), Died]) {
          const exit = yield* Effect.gen(function*() {
            const pipeline = yield* ToolPipeline.make(Watch, AuthMiddleware.AuthMiddleware)
            const call = ToolCall.make({ tool: ToolMeta.make({ name: "tool" }), headers, input: { password: plant() } })
            put(call, pipeline, yield* pipeline.explain(call))
            return yield* Effect.exit(Effect.withSpan(pipeline.run(call, Effect.succeed("ran")), "call"))
          }).pipe(
            Effect.provide([
              Layer.succeed(Watch, watching),
              Layer.provide(AuthMiddleware.layer, [authenticator, authorizer])
            ]),
            Effect.provide(Logger.layer([logger])),
            Effect.withTracer(tracer)
          )
          put(exit)
          if (Exit.isSuccess(exit)) accepted++
          else {
            put(Cause.pretty(exit.cause), Cause.squash(exit.cause))
            assert.instanceOf(Cause.squash(exit.cause), AuthError.AuthError)
          }
        }
      }
      for (const record of records) put(record)
      const nonsense: ReadonlyArray<() => unknown> = [
        () => Jwt.layer({ algorithms: ["HS512"], keys: [{ secret: Redacted.make(plant()) }], issuer, audience }),
        () => Jwt.layer({ algorithms: ["HS256"], keys: [{ secret: plant() as never }], issuer, audience }),
        () => ApiKey.layerMemory({ keys: [{ id: "k", key: plant() as never, principal: "ada" }] }),
        () => ApiKey.layerMemory({ keys: [{ id: "k", hash: plant(), principal: "ada" }] }),
        () => ApiKey.layer({ pepper: plant() as never })
      ]
      for (const make of nonsense) {
        put(yield* Effect.exit(Effect.scoped(Effect.suspend(() => Layer.build(make() as Layer.Layer<never>)))))
      }
      const text = sinks.join("\n")
      assert.isAbove(new Set(planted).size, 60)
      // Calls that succeeded are among them, and the sinks were really written to.
      assert.isAtLeast(accepted, 2)
      assert.include(text, "AuthUnavailable")
      assert.include(text, "error.type")
      const found = planted.filter((value) => text.includes(value))
      assert.deepStrictEqual(found, [])
    }))
})
