import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Latch, Layer, Queue, Schema, Tracer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { McpOps, ToolkitOps, ToolPolicy } from "effect-toolops/ai"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { ObserveMiddleware } from "effect-toolops/observe"
import { McpProtocol, McpSchema, McpServer, McpTest, Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import { connect, pipeline, rpc, serve } from "./mcp.ts"

const Text = Schema.Struct({ text: Schema.String })
const Copy = Tool.make("copy", { parameters: Text, success: Text })
  .annotate(Tool.Readonly, true)
  .annotate(ToolPolicy.ToolPolicy, { policy: { ttl: "1 hour" } })
const Tools = ToolkitOps.guard(Toolkit.make(Copy))

const start = (
  copy: (params: typeof Text.Type) => Effect.Effect<typeof Text.Type>,
  stages: Parameters<typeof pipeline>[0] = {}
) =>
  serve(
    McpServer.toolkit(Tools).pipe(
      Layer.provide(McpOps.headers.layer),
      Layer.provide(ToolkitOps.layer(Tools, { copy })),
      Layer.provide(pipeline(stages))
    )
  )

const reports = [
  { progress: 1, total: 3, message: "first" },
  { progress: 1, total: 3, message: "again the first" },
  { progress: 0, total: 3, message: "backwards" },
  { progress: Number.NaN },
  { progress: -Infinity },
  { progress: Infinity },
  { progress: 2.5, total: 3 },
  { progress: 3 }
]
const reporting = (params: typeof Text.Type) => Effect.as(Effect.forEach(reports, McpOps.progress), params)

describe("McpOps.progress", () => {
  it.live("reaches the client that has asked for it, and only ever grows", () =>
    Effect.gen(function*() {
      const client = yield* connect(yield* start(reporting))
      const told = yield* Effect.forEach(["a", "b", "c"], (text) =>
        Effect.promise(async () => {
          const seen: Array<unknown> = []
          await client.callTool({ name: "copy", arguments: { text } }, undefined, {
            onprogress: (one) => seen.push(one)
          })
          return seen
        }), { concurrency: "unbounded" })
      for (const seen of told) {
        assert.deepStrictEqual(seen, [{ progress: 1, total: 3, message: "first" }, { progress: 2.5, total: 3 }, {
          progress: 3
        }])
      }
    }))

  for (const revision of ["2026-07-28", "2025-11-25"] as const) {
    it.live(`carries the token of the request in ${revision}, and is silent without one`, () =>
      Effect.gen(function*() {
        const speak = yield* rpc(yield* start(reporting), revision)
        const params = { name: "copy", arguments: { text: "hi" } }
        for (const progressToken of ["token-1", 7]) {
          const { body } = yield* speak("tools/call", { ...params, _meta: { progressToken } })
          const tokens = [...body.matchAll(/"progressToken":("token-1"|7)/g)].map((match) => JSON.parse(match[1]!))
          assert.deepStrictEqual(tokens, [progressToken, progressToken, progressToken])
        }
        assert.notInclude((yield* speak("tools/call", params)).body, "progress")
        assert.notInclude(
          (yield* speak("tools/call", { ...params, _meta: { progressToken: null } })).body,
          "notifications"
        )
      }))
  }

  it.effect("ends with the answer, though a run goes on behind it", () => {
    const Refreshed = ToolkitOps.guard(Toolkit.make(
      Tool.make("refreshed", { success: Schema.Int }).annotate(Tool.Readonly, true).annotate(ToolPolicy.ToolPolicy, {
        policy: { ttl: "1 second", staleWhileRevalidate: "1 hour" }
      })
    ))
    const cache = CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory()))
    return Effect.gen(function*() {
      const gate = yield* Latch.make(true)
      const ran = yield* Queue.unbounded<number>()
      let runs = 0
      const handlers = ToolkitOps.layer(Refreshed, {
        refreshed: () =>
          Effect.gen(function*() {
            runs += 1
            yield* McpOps.progress({ progress: 1 })
            yield* gate.await
            yield* McpOps.progress({ progress: 2 })
            yield* Queue.offer(ran, runs)
            return runs
          })
      })
      const client = yield* McpTest.makeClient(
        McpServer.toolkit(Refreshed).pipe(
          Layer.provide(McpOps.headers.layer),
          Layer.provide(handlers),
          Layer.provide(pipeline({ cache }))
        ),
        { protocols: [McpProtocol.v2025_11_25] }
      )
      const ask = (progressToken: string) =>
        Effect.map(client.callTool({ name: "refreshed", _meta: { progressToken } }), ({ content }) => content)
      const first = yield* ask("in-time")
      assert.strictEqual(yield* Queue.take(ran), 1)
      for (let i = 0; i < 2; i++) {
        assert.include(JSON.stringify(yield* Queue.take(client.notifications)), "in-time")
      }
      yield* TestClock.adjust("2 seconds")
      gate.closeUnsafe()
      assert.deepStrictEqual(yield* ask("too-late"), first)
      // What the run has reported before the answer came before the answer.
      yield* Queue.clear(client.notifications)
      yield* gate.open
      assert.strictEqual(yield* Queue.take(ran), 2)
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow
      assert.strictEqual(yield* Queue.size(client.notifications), 0)
    }).pipe(Effect.scoped)
  })
})

describe("McpOps.headers", () => {
  for (const revision of ["2026-07-28", "2025-11-25"] as const) {
    it.live(`writes the id and the trace of the request on the root span in ${revision}`, () => {
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          if (span.name === "tools/call copy") spans.push(span)
          return span
        }
      })
      return Effect.gen(function*() {
        const url = yield* start(Effect.succeed, { observe: ObserveMiddleware.layer({ log: false }) })
        const speak = yield* rpc(url, revision)
        const traceId = "0af7651916cd43dd8448eb211c80319c"
        yield* speak("tools/call", {
          name: "copy",
          // An id within the arguments is none of the request's.
          arguments: { text: "{\"id\":99}" },
          _meta: { traceparent: `00-${traceId}-b7ad6b7169203331-01` }
        })
        assert.strictEqual(spans[0]?.attributes.get("jsonrpc.request.id"), "1")
        assert.strictEqual(spans[0]?.traceId, traceId)
        assert.strictEqual(spans[0]?.parent._tag === "Some" && spans[0].parent.value.spanId, "b7ad6b7169203331")
        // Ids of calls differ where those of requests do not.
        yield* speak("tools/call", { name: "copy", arguments: { text: "b" }, _meta: { traceparent: "nonsense" } })
        const callId = (index: number) => spans[index]?.attributes.get("gen_ai.tool.call.id")
        assert.notStrictEqual(callId(0), callId(1))
        assert.notStrictEqual(spans[1]?.traceId, traceId)
        yield* speak("tools/call", { name: "copy", arguments: { text: "x".repeat(70_000) } })
        assert.isFalse(spans[2]?.attributes.has("jsonrpc.request.id"))
      }).pipe(Effect.withTracer(tracer))
    })

    it.live(`neither caches nor answers from the cache what brings input that was asked for, in ${revision}`, () => {
      let runs = 0
      const counting = () => Effect.sync(() => ({ text: `run ${++runs}` }))
      return Effect.gen(function*() {
        const cache = CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory()))
        const speak = yield* rpc(yield* start(counting, { cache }), revision)
        const ask = (more: object = {}) =>
          Effect.map(
            speak("tools/call", { name: "copy", arguments: { text: "x" }, ...more }),
            ({ body }) => JSON.parse(body).result.structuredContent.text
          )
        const brought = { requestState: "s" }
        const answered = { inputResponses: { name: { action: "accept", content: { name: "ada" } } } }
        const came = [
          yield* ask(brought),
          yield* ask(),
          yield* ask(),
          yield* ask(answered),
          yield* ask(brought),
          yield* ask()
        ]
        // Revisions before 2026-07-28 do not know the two members, so they are not seen.
        assert.deepStrictEqual(
          came,
          revision === "2026-07-28"
            ? ["run 1", "run 2", "run 2", "run 3", "run 4", "run 2"]
            : ["run 1", "run 1", "run 1", "run 1", "run 1", "run 1"]
        )
      })
    })
  }

  it.live("interrupts a handler whose client hangs up, in the revision without cancellation", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const url = yield* start(() =>
        Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        )
      )
      const controller = new AbortController()
      const body = {
        jsonrpc: "2.0",
        id: 1,
        method: "tools/call",
        params: {
          name: "copy",
          arguments: { text: "x" },
          _meta: {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}
          }
        }
      }
      fetch(url, {
        method: "POST",
        signal: controller.signal,
        headers: {
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
          "mcp-protocol-version": "2026-07-28",
          "mcp-method": "tools/call",
          "mcp-name": "copy"
        },
        body: JSON.stringify(body)
      }).catch(() => {})
      yield* Deferred.await(started)
      controller.abort()
      yield* Deferred.await(interrupted)
    }))

  it.effect("does not keep an answer that asks for input", () => {
    const ask = ToolMeta.make({ name: "ask", readOnly: true, success: Schema.Unknown, policy: { ttl: "1 hour" } })
    let runs = 0
    const asking = Effect.sync(() => {
      runs += 1
      return new McpSchema.InputRequired({ requestState: `round ${runs}` })
    })
    return Effect.gen(function*() {
      const { run } = yield* ToolPipeline.ToolPipeline
      const states = yield* Effect.forEach([1, 2, 3], () => run({ tool: ask }, asking))
      assert.deepStrictEqual(states.map(({ requestState }) => requestState), ["round 1", "round 2", "round 3"])
    }).pipe(Effect.provide(pipeline({
      cache: CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory()))
    })))
  })
})
