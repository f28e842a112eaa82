import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Schema, Stream } from "effect"
import { McpOps, ToolkitOps, ToolRefusal } from "effect-toolops/ai"
import { Authenticator, AuthError, AuthMiddleware, Authorizer } from "effect-toolops/auth"
import { RateLimitError, RateLimitMiddleware } from "effect-toolops/limit"
import { McpRequest } from "effect-toolops/observe"
import { ResilienceError, ResilienceMiddleware } from "effect-toolops/resilience"
import { McpSchema, McpServer, Tool, Toolkit } from "effect/ai"
import { call, connect, pipeline, rpc, serve } from "./mcp.ts"

class Broken extends Schema.TaggedError<Broken>("test/Broken")("Broken", { part: Schema.String }) {}

const limited = new RateLimitError.RateLimitError({
  reason: new RateLimitError.RateLimited({ limit: "x", per: "identity", retryAfter: Duration.millis(1_500) })
})

const refusals = [
  [limited, -32_012, { reason: "RateLimited", retryable: true, retryAfterMillis: 1_500 }],
  [AuthError.refused("MissingCredentials"), -32_010, { reason: "MissingCredentials", retryable: false }],
  [AuthError.refused("TokenExpired"), -32_010, { reason: "TokenExpired", retryable: false }],
  [AuthError.insufficientScope("echo", ["a", "b"]), -32_011, {
    reason: "InsufficientScope",
    requiredScopes: ["a", "b"]
  }],
  [AuthError.refused("AuthUnavailable"), -32_013, { reason: "AuthUnavailable", retryable: true }],
  [
    new ResilienceError.ResilienceError({
      reason: new ResilienceError.CircuitOpen({ name: "internal-db", retryAfter: Duration.seconds(3) })
    }),
    -32_013,
    { reason: "CircuitOpen", retryAfterMillis: 3_000 }
  ],
  [
    new ResilienceError.ResilienceError({
      reason: new ResilienceError.TimedOut({ name: "internal-db", timeout: Duration.seconds(1) })
    }),
    -32_014,
    { reason: "TimedOut", retryable: false }
  ]
] as const

const Text = Schema.Struct({ text: Schema.String })
const Echo = Tool.make("echo", { parameters: Text, success: Text, failure: Broken, failureMode: "return" })
const Tools = ToolkitOps.guard(Toolkit.make(Echo))

/** A stage that refuses the inputs that start with `refuse` with the error that the input names. */
const refusing = Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, {
  name: "limit",
  forTool: () => <A, E, R>({ input }: { readonly input: unknown }, next: Effect.Effect<A, E, R>) => {
    const { text = "nothing" } = input as Partial<typeof Text.Type>
    // A stage of its own may refuse with whatever a pipeline may.
    const error = refusals[Number(text.replace("refuse ", ""))]?.[0] as RateLimitError.RateLimitError | undefined
    return error === undefined ? next : Effect.fail(error)
  }
})

const registered = (middleware: McpOps.Middleware<McpServer.McpServer>) =>
  McpServer.toolkit(Tools).pipe(
    Layer.provide(middleware.layer),
    Layer.provide(ToolkitOps.layer(Tools, {
      echo: ({ text }) => text === "broken" ? Effect.fail(new Broken({ part: "disk" })) : Effect.succeed({ text })
    })),
    Layer.provide(pipeline({ limit: refusing }))
  )

const asErrors = (options?: Omit<McpOps.ErrorOptions, "style">) =>
  registered(McpOps.headers.combine(McpOps.errors({ style: "json-rpc", ...options })))

describe("McpOps.errors", () => {
  for (const revision of ["2026-07-28", "2025-11-25"] as const) {
    for (const [index, [error, code, data]] of refusals.entries()) {
      it.live(`makes ${error.reason._tag} an error of the protocol in ${revision}`, () =>
        Effect.gen(function*() {
          const speak = yield* rpc(yield* serve(asErrors()), revision)
          const { body } = yield* speak("tools/call", { name: "echo", arguments: { text: `refuse ${index}` } })
          const answer = JSON.parse(body)
          assert.strictEqual(answer.result, undefined)
          assert.strictEqual(answer.error.code, code)
          assert.include(answer.error.message, error.reason.message)
          assert.containsSubset(answer.error.data, { _tag: "ToolRefused", ...data })
          assert.notInclude(body, "internal-db")
        }))
    }
  }

  it.live("tells what observes a call which code a refusal will have", () => {
    const seen: Array<ReadonlyArray<string | undefined>> = []
    const asking = {
      name: "limit",
      forTool: () => <A, E, R>(_call: unknown, next: Effect.Effect<A, E, R>) =>
        Effect.flatMap(McpRequest.CurrentMcpRequest, (request) => {
          seen.push(["RateLimited", "TimedOut", "Other"].map((tag) => request?.errorType?.(tag)))
          return next
        })
    }
    const served = (middleware: McpOps.Middleware<McpServer.McpServer>) =>
      serve(
        McpServer.toolkit(Tools).pipe(
          Layer.provide(middleware.layer),
          Layer.provide(ToolkitOps.layer(Tools, { echo: Effect.succeed })),
          Layer.provide(pipeline({ limit: Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, asking) }))
        )
      )
    return Effect.gen(function*() {
      const errors = McpOps.errors({ style: "json-rpc", codes: { limited: -32_001 } })
      for (const middleware of [McpOps.headers, McpOps.headers.combine(errors)]) {
        yield* call(yield* connect(yield* served(middleware)), "echo", { text: "x" })
      }
      assert.deepStrictEqual(seen, [[undefined, undefined, undefined], ["-32001", "-32014", undefined]])
    })
  })

  it.live("leaves refusals what they are where nothing is said or results are asked for", () =>
    Effect.gen(function*() {
      for (const middleware of [McpOps.headers, McpOps.headers.combine(McpOps.errors())]) {
        const client = yield* connect(yield* serve(registered(middleware)))
        const answer = yield* call(client, "echo", { text: "refuse 0" })
        assert.isTrue(answer.isError)
        const refusal = Schema.decodeUnknownSync(ToolRefusal.ToolRefusal)(JSON.parse(answer.text))
        assert.strictEqual(refusal.retryAfterMillis, 1_500)
      }
    }))

  it.live("leaves answers, failures of handlers and bad parameters what they are", () =>
    Effect.gen(function*() {
      const client = yield* connect(yield* serve(asErrors()))
      assert.deepInclude(yield* call(client, "echo", { text: "hi" }), { isError: false, structured: { text: "hi" } })
      const broken = yield* call(client, "echo", { text: "broken" })
      assert.isTrue(broken.isError)
      assert.include(broken.text, "disk")
      assert.isTrue((yield* call(client, "echo", { text: 7 })).isError)
    }))

  it.live("tells refused calls from others that run beside them, also in one batch", () =>
    Effect.gen(function*() {
      const url = yield* serve(asErrors())
      const client = yield* connect(url)
      const outcomes = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, index) => index % 3 === 0 ? "refuse 0" : `word ${index}`),
        (text) =>
          Effect.match(
            Effect.tryPromise({
              try: () => client.callTool({ name: "echo", arguments: { text } }),
              catch: (error) => error as { readonly code: number }
            }),
            { onFailure: ({ code }) => [text, code], onSuccess: (result) => [text, result.structuredContent] }
          ),
        { concurrency: "unbounded" }
      )
      for (const [text, came] of outcomes) {
        assert.deepStrictEqual(came, text === "refuse 0" ? -32_012 : { text })
      }
      const speak = yield* rpc(url, "2025-03-26")
      const batch = yield* speak.batch(
        ["a", "refuse 0", "b"].map((text) => ({ method: "tools/call", params: { name: "echo", arguments: { text } } }))
      )
      const answers: ReadonlyArray<{ readonly id: number; readonly error?: { readonly code: number } }> = JSON.parse(
        batch.body
      )
      assert.deepStrictEqual(
        answers.toSorted((a, b) => a.id - b.id).map((answer) => answer.error?.code),
        [undefined, -32_012, undefined]
      )
    }))

  it.live("is silent about a tool that the handler calls itself and whose refusal it deals with", () => {
    const Outer = ToolkitOps.guard(Toolkit.make(Tool.make("outer", { success: Schema.String })))
    const inner = ToolkitOps.layer(Tools, { echo: ({ text }) => Effect.succeed({ text }) })
    return Effect.gen(function*() {
      const outer = ToolkitOps.layer(
        Outer,
        Effect.gen(function*() {
          const { handle } = yield* Tools
          return {
            outer: () =>
              Effect.orDie(Effect.map(
                Effect.flatMap(handle("echo", { text: "refuse 0" }), Stream.runCollect),
                (results) => `inner ${results.at(-1)?.isFailure === true ? "refused" : "passed"}`
              ))
          }
        })
      )
      const url = yield* serve(
        McpServer.toolkit(Outer).pipe(
          Layer.provide(McpOps.headers.combine(McpOps.errors({ style: "json-rpc" })).layer),
          Layer.provide(outer.pipe(Layer.provide(inner))),
          Layer.provide(pipeline({ limit: refusing }))
        )
      )
      const answer = yield* call(yield* connect(url), "outer")
      assert.deepStrictEqual(answer, { isError: false, structured: undefined, text: "inner refused" })
    })
  })

  describe("a handler's own failure that looks like a refusal", () => {
    const scopes = AuthError.insufficientScope("inner:tool", ["inner:scope"])
    const Own = ToolkitOps.guard(Toolkit.make(
      Tool.make("own_limit", { success: Schema.String, failure: RateLimitError.RateLimitError }),
      Tool.make("own_scopes", { success: Schema.String, failure: AuthError.AuthError }).annotate(Tool.Idempotent, true)
    ))
    const handlers = ToolkitOps.layer(Own, {
      own_limit: () => Effect.fail(limited),
      own_scopes: () => Effect.fail(scopes)
    })
    const again = { own_limit: limited, own_scopes: scopes }

    for (const name of ["own_limit", "own_scopes"] as const) {
      it.live(`stays what the tool has declared, ${name}`, () =>
        Effect.gen(function*() {
          const stages = pipeline({ resilience: ResilienceMiddleware.layer() })
          const { handle } = yield* Own.pipe(Effect.provide(handlers.pipe(Layer.provide(stages))))
          // The second, because what fails with one object may do so again.
          for (let i = 0; i < 2; i++) {
            const error = yield* Effect.flip(Effect.flatMap(handle(name, {}), Stream.runDrain))
            assert.strictEqual(error, again[name])
          }
          const url = yield* serve(
            McpServer.toolkit(Own).pipe(
              Layer.provide(McpOps.headers.combine(McpOps.errors({ style: "json-rpc" })).layer),
              Layer.provide(handlers),
              Layer.provide(stages)
            )
          )
          const { isError, text } = yield* call(yield* connect(url), name)
          assert.isTrue(isError)
          assert.notInclude(text, "ToolRefused")
        }))
    }
  })

  it.live("makes a refusal of parameters that do not fit an error of the protocol too", () => {
    const always = Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, {
      name: "limit",
      forTool: () => () => Effect.fail(limited)
    })
    return Effect.gen(function*() {
      const url = yield* serve(
        McpServer.toolkit(Tools).pipe(
          Layer.provide(McpOps.headers.combine(McpOps.errors({ style: "json-rpc" })).layer),
          Layer.provide(ToolkitOps.layer(Tools, { echo: Effect.succeed })),
          Layer.provide(pipeline({ limit: always as typeof RateLimitMiddleware.layerPassthrough }))
        )
      )
      const speak = yield* rpc(url, "2026-07-28")
      const { body } = yield* speak("tools/call", { name: "echo", arguments: { text: 7 } })
      assert.include(JSON.parse(body).error, { code: -32_012 })
    })
  })

  for (const style of ["result", "json-rpc"] as const) {
    it.live(`gives its codes to lists and to requests that are turned away before, in the style ${style}`, () => {
      const codes = { unauthenticated: -32_001, unavailable: -32_002 }
      const auth = Layer.mergeAll(
        Layer.succeed(
          Authenticator.Authenticator,
          Authenticator.make({
            authenticate: ({ "x-user": user }) =>
              user === "down" ? Effect.fail(AuthError.refused("AuthUnavailable")) : Effect.succeedNone
          })
        ),
        Authorizer.layerAllowAll
      )
      const codeOf = (inside: McpOps.Middleware<any>, user: string, method: string) =>
        Effect.gen(function*() {
          const outside = McpOps.errors({ style, codes })
          const url = yield* serve(
            McpServer.toolkit(Tools).pipe(
              // It needs nothing but what is provided here.
              Layer.provide(inside.combine(outside).layer as Layer.Layer<never, never, McpServer.McpServer>),
              Layer.provide(ToolkitOps.layer(Tools, { echo: Effect.succeed })),
              Layer.provide(pipeline({ auth: AuthMiddleware.layer.pipe(Layer.provide(auth)) })),
              Layer.provide(auth)
            )
          )
          const speak = yield* rpc(url, "2026-07-28", { "x-user": user })
          return JSON.parse((yield* speak(method, { name: "echo", arguments: { text: "hi" } })).body).error.code
        })
      return Effect.gen(function*() {
        const visible = McpOps.headers.combine(McpOps.visibility(Tools))
        assert.strictEqual(yield* codeOf(visible, "nobody", "tools/list"), -32_001)
        assert.strictEqual(yield* codeOf(visible, "down", "tools/list"), -32_002)
        // A tool that is hidden stays one that is not there.
        assert.strictEqual(yield* codeOf(visible, "nobody", "tools/call"), -32_602)
        // What it provides is for handlers, and these need nothing of it.
        const known = McpOps.headers.combine(McpOps.authenticate) as McpOps.Middleware<any>
        assert.strictEqual(yield* codeOf(known, "nobody", "tools/call"), -32_001)
        // Errors that are not refusals are none of ours.
        const other = McpOps.headers.combine(
          McpServer.middleware(() =>
            Effect.fail(new McpSchema.McpErrorBase({ code: -32_010, message: "busy", data: { reason: "TimedOut" } }))
          )
        )
        assert.strictEqual(yield* codeOf(other, "nobody", "tools/call"), -32_010)
      })
    })
  }

  it.live("takes codes of the range that is free, and no others", () =>
    Effect.gen(function*() {
      const client = yield* connect(yield* serve(asErrors({ codes: { limited: -32_000 } })))
      const failed = yield* Effect.flip(Effect.tryPromise({
        try: () => client.callTool({ name: "echo", arguments: { text: "refuse 0" } }),
        catch: (error) => error as { readonly code: number }
      }))
      assert.strictEqual(failed.code, -32_000)
      assert.throws(() => McpOps.errors({ codes: { limited: -32_020 } }), /limited must be an integer from -32019/)
      assert.throws(() => McpOps.errors({ codes: { limited: -31_999 } }), /limited must be an integer from -32019/)
      assert.throws(() => McpOps.errors({ codes: { lmited: -32_001 } as never }), /unknown option "lmited"/)
      assert.throws(() => McpOps.errors({ style: "exception" as never }), /style must be one of result, json-rpc/)
    }))
})
