import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Layer, Redacted, Schema, Tracer } from "effect"
import { ToolCall, ToolPipeline } from "effect-toolops"
import { McpOps, ToolkitOps } from "effect-toolops/ai"
import { ApiKey, Authenticator, AuthError, AuthMiddleware, Authorizer, Identity, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitError, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { McpRequest, ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceError, ResilienceMiddleware } from "effect-toolops/resilience"
import { McpProtocol, McpServer, McpTest, Tool, Toolkit } from "effect/ai"
import { HttpRouter } from "effect/http"
import { call, connect, pipeline, serve } from "./mcp.ts"

const secret = "canary-77aa"

const WhoAmI = Tool.make("who_am_i", {
  parameters: Schema.Struct({ word: Schema.String }),
  success: Schema.Struct({ principal: Schema.String, word: Schema.String })
}).annotate(Tool.Readonly, true)

const Tools = ToolkitOps.guard(Toolkit.make(WhoAmI))

const handlers = ToolkitOps.layer(Tools, {
  who_am_i: ({ word }) =>
    Effect.gen(function*() {
      yield* Effect.yieldNow
      const identity = yield* Identity.CurrentIdentity
      yield* Effect.yieldNow
      return { principal: identity.principal, word }
    })
})

const registrations = McpServer.toolkit(Tools).pipe(Layer.provide(McpOps.headers.layer), Layer.provide(handlers))

/** Takes the `x-user` header for the caller. */
const userHeader = Layer.succeed(AuthMiddleware.AuthMiddleware, {
  name: "auth",
  forTool: () => <A, E, R>(_call: ToolCall.ToolCall, next: Effect.Effect<A, E, R>) =>
    Effect.withFiber((fiber): Effect.Effect<A, E | AuthError.AuthError, R> => {
      const user = fiber.getRef(ToolCall.RequestHeaders)?.["x-user"]
      return typeof user === "string"
        ? Effect.provideService(next, Identity.CurrentIdentity, Identity.make({ principal: user }))
        : Effect.fail(new AuthError.AuthError({ reason: new AuthError.MissingCredentials() }))
    })
})

const refusing = <E>(error: E) => ({ name: "refusing", forTool: () => () => Effect.fail(error) })

describe("McpOps.headers", () => {
  it.live("lets the pipeline see who calls, and tells a caller without credentials so", () =>
    Effect.gen(function*() {
      const url = yield* serve(registrations.pipe(Layer.provide(pipeline({ auth: userHeader }))))
      const known = yield* call(yield* connect(url, { "X-User": "ada" }), "who_am_i", { word: "hi" })
      assert.deepStrictEqual([known.isError, known.structured], [false, { principal: "ada", word: "hi" }])
      const unknown = yield* call(yield* connect(url), "who_am_i", { word: "hi" })
      assert.isTrue(unknown.isError)
      assert.deepStrictEqual(JSON.parse(unknown.text), {
        _tag: "ToolRefused",
        reason: "MissingCredentials",
        message: "No credentials were presented. Do not try again without valid credentials.",
        retryable: false
      })
    }))

  it.live("says that the call came over MCP and in which trace", () => {
    const seen: Array<McpRequest.McpRequest | undefined> = []
    const watching = Layer.succeed(ObserveMiddleware.ObserveMiddleware, {
      name: "observe",
      forTool: () => (_call, next) =>
        Effect.withFiber((fiber) => {
          seen.push(fiber.getRef(McpRequest.CurrentMcpRequest))
          return next
        })
    })
    return Effect.gen(function*() {
      const url = yield* serve(registrations.pipe(Layer.provide(pipeline({ observe: watching }))))
      const client = yield* connect(url)
      const traceId = "0af7651916cd43dd8448eb211c80319c"
      const trace = { traceparent: `00-${traceId}-b7ad6b7169203331-01` }
      yield* Effect.promise(() => client.callTool({ name: "who_am_i", arguments: { word: "a" }, _meta: trace }))
      yield* Effect.promise(() => client.callTool({ name: "who_am_i", arguments: { word: "a" } }))
      assert.strictEqual(seen[0]?.transport, "tcp")
      assert.strictEqual(seen[0]?.protocolVersion, "2025-11-25")
      assert.strictEqual(seen[0]?.parent?.traceId, traceId)
      assert.isUndefined(seen[1]?.parent)
    })
  })

  it.effect("leaves the credentials alone that stand around a server without HTTP", () => {
    const seen: Array<McpRequest.McpRequest | undefined> = []
    const watching = Layer.succeed(ObserveMiddleware.ObserveMiddleware, {
      name: "observe",
      forTool: () => (_call, next) =>
        Effect.withFiber((fiber) => {
          seen.push(fiber.getRef(McpRequest.CurrentMcpRequest))
          return next
        })
    })
    return Effect.gen(function*() {
      const client = yield* McpTest.makeClient(
        registrations.pipe(Layer.provide(pipeline({ auth: userHeader, observe: watching }))),
        { protocols: [McpProtocol.v2026_07_28] }
      )
      const result = yield* client.callTool({ name: "who_am_i", arguments: { word: "hi" } })
      assert.deepStrictEqual(result.structuredContent, { principal: "ada", word: "hi" })
      assert.deepStrictEqual([seen[0]?.transport, seen[0]?.protocolVersion], ["pipe", "2026-07-28"])
    }).pipe(Effect.provideService(ToolCall.RequestHeaders, { "x-user": "ada" }))
  })

  it.live("tells a limit where an anonymous caller calls from", () => {
    const peers: Array<string | undefined> = []
    const watching = Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, {
      name: "limit",
      forTool: () => (_call, next) =>
        Effect.withFiber((fiber) => {
          peers.push(fiber.getRef(RateLimit.CurrentPeer))
          return next
        })
    })
    return Effect.gen(function*() {
      const url = yield* serve(registrations.pipe(Layer.provide(pipeline({ limit: watching }))))
      // A header that anybody can write does not count.
      yield* call(yield* connect(url, { "x-forwarded-for": "192.0.2.1" }), "who_am_i", { word: "hi" })
      assert.deepStrictEqual(peers, ["127.0.0.1"])
    })
  })

  it.live("leaves the address to an edge that knows the proxies in between", () => {
    const peers: Array<string | undefined> = []
    const watching = Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, {
      name: "limit",
      forTool: () => (_call, next) =>
        Effect.withFiber((fiber) => {
          peers.push(fiber.getRef(RateLimit.CurrentPeer))
          return next
        })
    })
    const edge = HttpRouter.middleware(
      (handled) => Effect.provideService(handled, RateLimit.CurrentPeer, "203.0.113.7"),
      { global: true }
    )
    return Effect.gen(function*() {
      const url = yield* serve(
        registrations.pipe(Layer.provide(pipeline({ limit: watching }))),
        (server) => Layer.merge(server, edge)
      )
      yield* call(yield* connect(url), "who_am_i", { word: "hi" })
      assert.deepStrictEqual(peers, ["203.0.113.7"])
    })
  })

  it.live("does not mix up 200 concurrent calls of 20 callers, whatever the stages keep", () =>
    Effect.gen(function*() {
      const principals = Array.from({ length: 20 }, (_, index) => `user-${index}`)
      const keys = yield* Effect.forEach(principals, (principal) =>
        Effect.map(ApiKey.generate(), (key) => ({ id: principal, principal, key, roles: ["caller"] })))
      const stages = ToolPipeline.layer.pipe(Layer.provide([
        ObserveMiddleware.layer({ log: false }),
        AuthMiddleware.layer.pipe(Layer.provide([
          ApiKey.layer().pipe(Layer.provide(ApiKey.layerMemory({ keys }))),
          Rbac.layer({ roles: { caller: { allowedTools: ["who:*"], allowedActions: ["call"] } } })
        ])),
        // Each caller has ten calls, and makes ten.
        RateLimitMiddleware.layer.pipe(Layer.provide(
          RateLimit.layer({ limits: [{ name: "ten", per: "identity", limit: 10, window: "1 hour" }] }).pipe(
            Layer.provide(RateLimitStore.layerMemory())
          )
        )),
        CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())),
        ResilienceMiddleware.layer({ defaults: { bulkhead: { maxConcurrent: 200 } } })
      ]))
      const url = yield* serve(registrations.pipe(Layer.provide(stages)))
      const clients = yield* Effect.forEach(
        keys,
        ({ key }) =>
          connect(url, { "x-api-key": Redacted.value(key) }),
        { concurrency: 5 }
      )
      // Everybody asks the same few things, so that an answer kept for one caller would do for another.
      const calls = Array.from({ length: 200 }, (_, index) => ({ caller: index % 20, word: `word-${index % 3}` }))
      const answers = yield* Effect.forEach(
        calls,
        ({ caller, word }) => call(clients[caller]!, "who_am_i", { word }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        answers.map((answer) => answer.structured),
        calls.map(({ caller, word }) => ({ principal: principals[caller], word }))
      )
      const eleventh = yield* call(clients[7]!, "who_am_i", { word: "one more" })
      assert.include(JSON.parse(eleventh.text), { reason: "RateLimited" })
    }))
})

describe("McpOps.authenticate", () => {
  const authenticator = Layer.succeed(
    Authenticator.Authenticator,
    Authenticator.make({
      authenticate: (headers) => {
        const user = headers["x-user"]
        return typeof user !== "string"
          ? Effect.succeedNone
          : user === "mallory"
          ? Effect.fail(new AuthError.AuthError({ reason: new AuthError.InvalidCredentials() }))
          : Effect.succeedSome(Identity.make({ principal: user }))
      }
    })
  )
  const authenticated = McpServer.toolkit(Tools).pipe(
    Layer.provide(McpOps.headers.combine(McpOps.authenticate).layer),
    Layer.provide(handlers),
    Layer.provide([authenticator, pipeline()])
  )

  it.live("makes the caller known to handlers, and answers the others with a JSON-RPC error", () =>
    Effect.gen(function*() {
      const url = yield* serve(authenticated)
      const answer = yield* call(yield* connect(url, { "x-user": "ada" }), "who_am_i", { word: "hi" })
      assert.deepStrictEqual(answer.structured, { principal: "ada", word: "hi" })
      for (
        const [headers, reason] of [[{}, "MissingCredentials"], [
          { "x-user": "mallory" },
          "InvalidCredentials"
        ]] as const
      ) {
        const client = yield* connect(url, headers)
        const error = yield* Effect.flip(Effect.tryPromise({
          try: () => client.callTool({ name: "who_am_i", arguments: { word: "hi" } }),
          catch: (error) => error as { readonly code: number; readonly data: { readonly reason: string } }
        }))
        assert.strictEqual(error.code, McpOps.errorCodes.unauthenticated)
        assert.strictEqual(error.data.reason, reason)
      }
    }))
})

describe("McpOps.stdio", () => {
  it.effect("makes the configured caller known, in place of none and of no other", () =>
    Effect.gen(function*() {
      const speaksFor = (middleware: McpOps.Middleware) =>
        McpTest.makeClient(
          McpServer.toolkit(Tools).pipe(
            Layer.provide(McpOps.headers.combine(middleware).layer),
            Layer.provide(handlers),
            Layer.provide(pipeline({ auth: userHeader }))
          ),
          { protocols: [McpProtocol.v2026_07_28] }
        )
      const client = yield* speaksFor(McpOps.stdio({ credentials: { "x-user": Redacted.make("ada") } }))
      const result = yield* client.callTool({ name: "who_am_i", arguments: { word: "hi" } })
      assert.deepStrictEqual(result.structuredContent, { principal: "ada", word: "hi" })
      // No header proves this one, so a stage that looks at headers alone finds nobody.
      const other = yield* speaksFor(McpOps.stdio({ identity: { principal: "grace", roles: ["reader"] } }))
      assert.isTrue((yield* other.callTool({ name: "who_am_i", arguments: { word: "hi" } })).isError)
    }))

  it.live("is nobody over HTTP", () => {
    const nobody = Authenticator.make({ authenticate: () => Effect.succeedNone })
    const auth = AuthMiddleware.layer.pipe(Layer.provide([
      Layer.succeed(Authenticator.Authenticator, nobody),
      Authorizer.layerAllowAll
    ]))
    return Effect.gen(function*() {
      const url = yield* serve(
        McpServer.toolkit(Tools).pipe(
          Layer.provide(McpOps.headers.combine(McpOps.stdio({ identity: { principal: "ada" } })).layer),
          Layer.provide(handlers),
          Layer.provide(pipeline({ auth }))
        )
      )
      const answer = yield* call(yield* connect(url), "who_am_i", { word: "hi" })
      assert.include(JSON.parse(answer.text), { reason: "MissingCredentials" })
    })
  })

  it("takes either credentials or an identity", () => {
    assert.throws(() => McpOps.stdio({}), /exactly one of credentials and identity/)
    assert.throws(
      () => McpOps.stdio({ credentials: {}, identity: { principal: "ada" } }),
      /exactly one of credentials and identity/
    )
    assert.throws(() => McpOps.stdio({ identity: { principal: "" } }), /principal must be a non-empty string/)
    assert.throws(() => McpOps.stdio({ user: "ada" } as never), /unknown option "user"/)
  })
})

describe("an MCP server whose toolkit is guarded", () => {
  const refusals = [
    [
      "limit",
      {
        limit: Layer.succeed(
          RateLimitMiddleware.RateLimitMiddleware,
          refusing(
            new RateLimitError.RateLimitError({
              reason: new RateLimitError.RateLimited({ limit: "x", per: "identity", retryAfter: Duration.seconds(7) })
            })
          )
        )
      },
      { reason: "RateLimited", retryable: true, retryAfterMillis: 7_000 }
    ],
    [
      "resilience",
      {
        resilience: Layer.succeed(
          ResilienceMiddleware.ResilienceMiddleware,
          refusing(
            new ResilienceError.ResilienceError({
              reason: new ResilienceError.CircuitOpen({ name: "internal-db", retryAfter: Duration.seconds(3) })
            })
          )
        )
      },
      { reason: "CircuitOpen", retryable: true, retryAfterMillis: 3_000 }
    ],
    [
      "auth",
      {
        auth: Layer.succeed(
          AuthMiddleware.AuthMiddleware,
          refusing(new AuthError.AuthError({ reason: new AuthError.Forbidden({ tool: "who:am_i", action: "call" }) }))
        )
      },
      { reason: "Forbidden", retryable: false }
    ]
  ] as const

  for (const [stage, stages, expected] of refusals) {
    it.live(`gives a refusal of the ${stage} stage as a tool error with data`, () =>
      Effect.gen(function*() {
        const url = yield* serve(registrations.pipe(Layer.provide(pipeline(stages))))
        const answer = yield* call(yield* connect(url), "who_am_i", { word: secret })
        assert.isTrue(answer.isError)
        assert.include(JSON.parse(answer.text), expected)
        assert.notInclude(answer.text, "internal-db")
        assert.notInclude(answer.text, secret)
      }))
  }

  it.live("interrupts a handler whose client cancels", () => {
    const Slow = ToolkitOps.guard(Toolkit.make(Tool.make("slow")))
    return Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const slow = ToolkitOps.layer(Slow, {
        slow: () =>
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          )
      })
      const url = yield* serve(
        McpServer.toolkit(Slow).pipe(
          Layer.provide(McpOps.headers.layer),
          Layer.provide(slow),
          Layer.provide(pipeline())
        )
      )
      const client = yield* connect(url)
      const controller = new AbortController()
      const answer = client.callTool({ name: "slow", arguments: {} }, undefined, { signal: controller.signal })
      answer.catch(() => {})
      yield* Deferred.await(started)
      controller.abort()
      yield* Deferred.await(interrupted)
    })
  })

  it.live("keeps the arguments off every span", () => {
    const spans: Array<Tracer.NativeSpan> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    return Effect.gen(function*() {
      const url = yield* serve(registrations.pipe(Layer.provide(pipeline())))
      const client = yield* connect(url)
      yield* call(client, "who_am_i", { word: secret })
      yield* Effect.exit(call(client, "who_am_i", { word: { not: "a word", secret } }))
      // Spans end a moment after the answer is there. An exporter also writes down how they ended.
      while (spans.some((span) => span.status._tag !== "Ended")) yield* Effect.sleep("1 millis")
      const told = spans.map((span) => [
        span.name,
        [...span.attributes],
        span.events.map(String),
        span.status._tag === "Ended" && Exit.isFailure(span.status.exit) ? Cause.pretty(span.status.exit.cause) : "ok"
      ])
      assert.isAbove(spans.filter((span) => span.name.includes("tools/call")).length, 0)
      assert.notInclude(JSON.stringify(told), secret)
    }).pipe(Effect.withTracer(tracer))
  })
})

describe("McpOps.toMcpError", () => {
  it("keeps to the codes that the protocol leaves free", () => {
    for (const code of Object.values(McpOps.errorCodes)) {
      assert.isTrue(code <= -32_000 && code >= -32_019)
    }
    const error = McpOps.toMcpError(
      new RateLimitError.RateLimitError({
        reason: new RateLimitError.RateLimited({ limit: "x", per: "identity", retryAfter: Duration.seconds(7) })
      })
    )
    assert.strictEqual(error.code, McpOps.errorCodes.limited)
    assert.include(error.data, { reason: "RateLimited", retryAfterMillis: 7_000 })
  })
})
