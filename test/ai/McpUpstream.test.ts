import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Schema } from "effect"
import { McpOps } from "effect-toolops/ai"
import { Authenticator, AuthMiddleware, Identity, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { McpClient, McpClientError, McpProtocol, McpSchema, McpServer, Tool, Toolkit } from "effect/ai"
import { FetchHttpClient, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { pipeline, serve } from "./mcp.ts"

const Text = Schema.Struct({ text: Schema.String })
const Tools = Toolkit.make(
  Tool.make("search", { parameters: Text, success: Text }).annotate(Tool.Readonly, true),
  Tool.make("write", { parameters: Text, success: Text }).annotate(Tool.Destructive, false),
  Tool.make("set", { parameters: Text, success: Text }).annotate(Tool.Idempotent, true),
  Tool.make("complain", { parameters: Text, success: Text, failure: Text })
)

/** An upstream that answers the next calls with a status instead, and counts all that it is asked. */
const flaky = Effect.gen(function*() {
  const state = { failing: 0, status: 503, calls: 0, ran: 0, credentials: new Set<string>() }
  const work = ({ text }: typeof Text.Type) => Effect.sync(() => ({ text: `${text} ${++state.ran}` }))
  const handlers = Tools.toLayer({
    search: work,
    write: work,
    set: work,
    complain: ({ text }) => Effect.fail({ text })
  })
  const outage = HttpRouter.middleware((handled) =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      for (const name of ["authorization", "x-api-key", "x-other"]) {
        if (request.headers[name]) state.credentials.add(name)
      }
      if (request.headers["mcp-method"] !== "tools/call") return handled
      state.calls += 1
      return state.failing-- > 0 ? Effect.succeed(HttpServerResponse.empty({ status: state.status })) : handled
    }), { global: true })
  const url = yield* serve(
    McpServer.toolkit(Tools).pipe(Layer.provide(handlers)),
    (server) => Layer.merge(server, outage)
  )
  const transport = yield* McpClient.http({ url, protocol: McpProtocol.v2026_07_28 }).pipe(
    Effect.provide(FetchHttpClient.layer)
  )
  const client = yield* McpClient.make({ name: "test", version: "0.0.0" }).pipe(
    Effect.provideService(McpClient.Transport, transport)
  )
  return { state, client }
})

const quick = { retry: { maxAttempts: 3, initialDelay: "1 millis" } } as const
const resilient = pipeline({ resilience: ResilienceMiddleware.layer() })

describe("McpOps.client", () => {
  it.live("repeats nothing on the upstream's word alone, and what it is told to on ours", () =>
    Effect.gen(function*() {
      const { client, state } = yield* flaky
      const attempt = (upstream: McpOps.Upstream, name: string) =>
        Effect.gen(function*() {
          Object.assign(state, { failing: 1, calls: 0 })
          const exit = yield* Effect.exit(upstream.callTool(name, { text: "a" }))
          return [Exit.isSuccess(exit), state.calls]
        })
      const untrusted = yield* McpOps.client(client, { namespace: "a", policy: quick })
      for (const name of ["search", "write", "set"]) {
        assert.deepStrictEqual(yield* attempt(untrusted, name), [false, 1])
      }
      const trusted = yield* McpOps.client(client, { namespace: "b", policy: quick, trustAnnotations: true })
      assert.deepStrictEqual(yield* attempt(trusted, "search"), [true, 2])
      assert.deepStrictEqual(yield* attempt(trusted, "set"), [true, 2])
      assert.deepStrictEqual(yield* attempt(trusted, "write"), [false, 1])
      const told = yield* McpOps.client(client, {
        namespace: "c",
        policy: quick,
        trustAnnotations: true,
        tools: { write: { readOnly: true }, search: { readOnly: false } }
      })
      assert.deepStrictEqual(yield* attempt(told, "write"), [true, 2])
      assert.deepStrictEqual(yield* attempt(told, "search"), [false, 1])
    }).pipe(Effect.provide(resilient)))

  it.live("opens one circuit for the upstream, and not for requests that make no sense", () =>
    Effect.gen(function*() {
      const { client, state } = yield* flaky
      const upstream = yield* McpOps.client(client, { namespace: "a", policy: { circuitBreaker: { maxFailures: 2 } } })
      const tagOf = (name: string, text: unknown) =>
        Effect.match(upstream.callTool(name, { text }), {
          onFailure: (error) => error.reason._tag,
          onSuccess: (result) => result.isError === true ? "isError" : "ok"
        })
      state.status = 404
      state.failing = 3
      for (let i = 0; i < 3; i++) assert.strictEqual(yield* tagOf("search", "a"), "HttpError")
      assert.strictEqual(yield* tagOf("complain", "a"), "isError")
      assert.strictEqual(yield* tagOf("complain", "a"), "isError")
      assert.strictEqual(yield* tagOf("write", "a"), "ok")
      state.status = 503
      state.failing = 2
      assert.strictEqual(yield* tagOf("search", "a"), "HttpError")
      assert.strictEqual(yield* tagOf("write", "a"), "HttpError")
      state.calls = 0
      assert.strictEqual(yield* tagOf("set", "a"), "CircuitOpen")
      assert.strictEqual(yield* tagOf("search", "a"), "CircuitOpen")
      assert.strictEqual(state.calls, 0)
    }).pipe(Effect.provide(resilient)))

  it.live("caches, limits and authorizes what it is told to, and passes no credentials on", () => {
    const stages = pipeline({
      auth: AuthMiddleware.layer.pipe(Layer.provide([
        Authenticator.layerAnonymous,
        Rbac.layer({ roles: { user: { allowedTools: ["up:search", "up:complain"], allowedActions: ["call"] } } })
      ])),
      cache: CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())),
      limit: RateLimitMiddleware.layer.pipe(Layer.provide(
        RateLimit.layer({ limits: [{ name: "up", per: "global", tools: ["up:*"], limit: 5, window: "1 hour" }] }).pipe(
          Layer.provide(RateLimitStore.layerMemory())
        )
      ))
    })
    return Effect.gen(function*() {
      const { client, state } = yield* flaky
      const upstream = yield* McpOps.client(client, {
        namespace: "up",
        tools: { search: { readOnly: true, policy: { ttl: "1 hour" } }, complain: { readOnly: true } }
      })
      const headers = { "x-api-key": "k", "x-other": "o" }
      const first = yield* upstream.callTool("search", { text: "a" }, { headers })
      assert.deepStrictEqual(first.structuredContent, { text: "a 1" })
      assert.deepStrictEqual((yield* upstream.callTool("search", { text: "a" })).structuredContent, { text: "a 1" })
      assert.strictEqual(state.calls, 1)
      // An answer that is an error is none to keep.
      for (let i = 0; i < 2; i++) assert.isTrue((yield* upstream.callTool("complain", { text: "x" })).isError)
      assert.strictEqual(state.calls, 3)
      const denied = yield* Effect.flip(upstream.callTool("write", { text: "a" }))
      assert.strictEqual(denied.reason._tag, "Forbidden")
      yield* upstream.callTool("search", { text: "b" })
      const limited = yield* Effect.flip(upstream.callTool("search", { text: "b" }))
      assert.strictEqual(limited.reason._tag, "RateLimited")
      assert.deepStrictEqual([...state.credentials], [])
    }).pipe(
      Effect.provide(stages),
      Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal: "ada", roles: ["user"] }))
    )
  })

  const listing = (
    tools: ReadonlyArray<{ readonly name: string; readonly annotations?: object; readonly properties?: object }>
  ) =>
    ({
      listTools: () =>
        Effect.succeed(
          tools.map(({ properties, ...tool }) => ({ ...tool, inputSchema: { type: "object", properties } }))
        ),
      callTool: () => Effect.succeed({ content: [] })
    }) as unknown as McpClient.McpClient

  it.effect("puts what we say of a tool over what it says of itself, and only then weighs the two", () =>
    Effect.gen(function*() {
      const client = listing([
        { name: "reads", annotations: { readOnlyHint: true } },
        { name: "destroys", annotations: { destructiveHint: true, idempotentHint: false } },
        { name: "both", annotations: { readOnlyHint: true, destructiveHint: true } },
        { name: "silent", annotations: {} }
      ])
      const said = (tools: Readonly<Record<string, McpOps.UpstreamTool>>) =>
        Effect.map(
          McpOps.client(client, { namespace: "up", trustAnnotations: true, tools }),
          (upstream) =>
            Object.fromEntries(
              upstream.tools.map(({ meta }) => [meta.name, [meta.readOnly, meta.destructive, meta.idempotent]])
            )
        )
      assert.deepStrictEqual(yield* said({}), {
        reads: [true, false, false],
        destroys: [false, true, false],
        both: [true, false, false],
        silent: [false, true, false]
      })
      assert.deepStrictEqual(
        yield* said({
          reads: { destructive: true },
          destroys: { readOnly: true },
          both: { readOnly: false },
          silent: { destructive: false, idempotent: true }
        }),
        {
          reads: [false, true, false],
          destroys: [true, false, false],
          both: [false, true, false],
          silent: [false, false, true]
        }
      )
      // Both are ours, and contradict each other.
      const exit = yield* Effect.exit(said({ reads: { readOnly: true, destructive: true } }))
      assert.isTrue(Exit.isFailure(exit))
    }).pipe(Effect.provide(pipeline())))

  describe("the circuit", () => {
    const http = (status: number) => new McpClientError.HttpError({ description: "no", status })
    const protocol = (code: number | undefined) => new McpClientError.ProtocolError({ description: "no", code })
    const speaks = [
      ...[500, 503, 408, 429].map(http),
      ...[undefined, -32_603, -32_000, -32_019].map(protocol)
    ]
    const says = [...[400, 404, 409, 428, 430, 499].map(http), ...[-32_602, -32_020, -31_999].map(protocol)]
    for (const [expected, reasons] of [["CircuitOpen", speaks], ["its own", says]] as const) {
      for (const reason of reasons) {
        const name = reason._tag === "HttpError" ? reason.status : reason.code
        it.effect(`is ${expected === "CircuitOpen" ? "opened" : "left closed"} by ${reason._tag} ${name}`, () =>
          Effect.gen(function*() {
            let calls = 0
            const client = {
              ...listing([{ name: "search" }]),
              callTool: () =>
                Effect.suspend(() => {
                  calls += 1
                  return Effect.fail(new McpClientError.McpClientError({ reason }))
                })
            } as unknown as McpClient.McpClient
            const upstream = yield* McpOps.client(client, {
              namespace: "up",
              policy: { circuitBreaker: { maxFailures: 1 } }
            })
            yield* Effect.flip(upstream.callTool("search"))
            const second = yield* Effect.flip(upstream.callTool("search"))
            assert.deepStrictEqual(
              [second.reason._tag, calls],
              expected === "CircuitOpen" ? ["CircuitOpen", 1] : [reason._tag, 2]
            )
          }).pipe(Effect.provide(resilient)))
      }
    }
  })

  it.effect("keeps what a tool answered before its parameters changed from those who ask after", () => {
    let calls = 0
    const withProperties = (properties: object) =>
      ({
        ...listing([{ name: "search", properties }, { name: "fresh", properties }]),
        callTool: () =>
          Effect.sync(() => new McpSchema.CallToolResult({ content: [{ type: "text", text: String(++calls) }] }))
      }) as unknown as McpClient.McpClient
    const options = {
      namespace: "up",
      policy: { ttl: "1 hour" },
      tools: { search: { readOnly: true }, fresh: { readOnly: true, policy: { ttl: 0 } } }
    } as const
    const ask = (client: McpClient.McpClient, name: string) =>
      Effect.gen(function*() {
        const { callTool } = yield* McpOps.client(client, options)
        const [content] = (yield* callTool(name)).content
        return content?.type === "text" ? content.text : undefined
      })
    return Effect.gen(function*() {
      const before = withProperties({ query: { type: "string" } })
      assert.strictEqual(yield* ask(before, "search"), "1")
      assert.strictEqual(yield* ask(before, "search"), "1")
      assert.strictEqual(yield* ask(withProperties({ query: { type: "number" } }), "search"), "2")
      // What is said of a single tool wins.
      assert.strictEqual(yield* ask(before, "fresh"), "3")
      assert.strictEqual(yield* ask(before, "fresh"), "4")
    }).pipe(
      Effect.provide(pipeline({ cache: CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())) })),
      Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal: "ada" }))
    )
  })

  it.effect("names what it was told about and what was not listed", () =>
    Effect.gen(function*() {
      const upstream = yield* McpOps.client(listing([{ name: "search" }]), {
        namespace: "up",
        tools: { search: { readOnly: true }, serach: { readOnly: true } }
      })
      assert.deepStrictEqual(upstream.unknown, ["serach"])
    }).pipe(Effect.provide(pipeline())))

  it.effect("leaves out names that are none, and knows no tool that was not listed", () =>
    Effect.gen(function*() {
      const listed = ["good", "no/good", "", "good", "constructor"].map((name) => ({
        name,
        inputSchema: { type: "object" as const }
      }))
      const client = {
        listTools: () => Effect.succeed(listed),
        callTool: ({ tool }: { readonly tool: { readonly name: string } }) =>
          Effect.succeed({ content: [{ type: "text", text: tool.name }] })
      } as unknown as McpClient.McpClient
      const upstream = yield* McpOps.client(client, { namespace: "up" })
      assert.deepStrictEqual(upstream.tools.map(({ meta }) => meta.id), ["up:good", "up:constructor"])
      assert.deepStrictEqual(upstream.leftOut, ["no/good", "", "good"])
      for (const name of ["toString", "no/good", "bad"]) {
        const error = yield* Effect.flip(upstream.callTool(name))
        assert.strictEqual(error.reason._tag, "ConfigurationError")
      }
      assert.throws(() => McpOps.client(client, { namespace: "a:b" }), /namespace must be/)
      assert.throws(() => McpOps.client(client, { namespace: "a", trust: true } as never), /unknown option "trust"/)
    }).pipe(Effect.provide(pipeline())))
})
