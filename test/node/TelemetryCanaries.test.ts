import { assert, describe, it } from "@effect/vitest"
import { type Context, Effect, Layer, Metric, Schema, Stream, Tracer } from "effect"
import { type ToolCall, ToolMeta, ToolPipeline } from "effect-toolops"
import { ToolkitOps } from "effect-toolops/ai"
import { ObserveMiddleware, Redaction } from "effect-toolops/observe"
import { Tool, Toolkit } from "effect/ai"
import { FetchHttpClient, HttpClient, HttpMiddleware, HttpRouter, HttpServerResponse } from "effect/http"
import { pipeline as guards } from "../ai/mcp.ts"
import { accept, answer, startCollector } from "./collector.ts"
import { startTelemetry } from "./telemetry.ts"

/** What shows that an entry point led anywhere, and what must not be seen. */
interface Pair {
  readonly shown: string
  readonly secret: string
}

const Echo = Tool.make("echo", { parameters: Schema.Struct({ text: Schema.String }), success: Schema.String })
const Raw = Toolkit.make(Echo)
const Guarded = ToolkitOps.guard(Raw)

const Input = Schema.Struct({ note: Redaction.sensitive(Schema.String), text: Schema.String })
const tool = ToolMeta.make({ name: "t", input: Input, success: Schema.Unknown })

const pipeline = (
  handler: Effect.Effect<unknown, unknown>,
  call: Partial<ToolCall.Options> = {}
): Effect.Effect<unknown> =>
  Effect.flatMap(
    ToolPipeline.make(ObserveMiddleware.ObserveMiddleware),
    (made) => Effect.exit(made.run({ tool, ...call }, handler))
  ).pipe(
    Effect.provide(ObserveMiddleware.layer({ log: false, capture: { arguments: true, result: true } }))
  )

/** A request that a server of this program answers, in the trace that comes with it. */
const served = (url: string, headers: Record<string, string>, status = 200) =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.promise(async () => {
      const { dispose, handler } = HttpRouter.toWebHandler(
        HttpRouter.add("GET", "/*", Effect.succeed(HttpServerResponse.empty({ status }))).pipe(
          Layer.provide(Layer.succeedContext(context))
        ),
        { disableLogger: true }
      )
      await handler(new Request(url, { headers }), context)
      await dispose()
    })
  ).pipe(Effect.provideService(HttpMiddleware.TracerHeaderFilter, () => true))

const entries: Record<string, (pair: Pair) => Effect.Effect<unknown, unknown>> = {
  "an attribute under a sensitive name": ({ secret, shown }) =>
    Effect.withSpan(Effect.void, "x", { attributes: { note: shown, Authorization: secret, "db.password": secret } }),
  "an attribute with text": ({ secret, shown }) =>
    Effect.withSpan(Effect.void, "x", { attributes: { note: `${shown} Bearer ${secret}` } }),
  "an attribute with an object": ({ secret, shown }) =>
    Effect.withSpan(Effect.void, "x", { attributes: { note: { shown, nested: [{ access_token: secret }] } } }),
  "an attribute with a list": ({ secret, shown }) =>
    Effect.withSpan(Effect.void, "x", { attributes: { note: [shown, `password=${secret}`] } }),
  "the name of a span": ({ secret, shown }) => Effect.withSpan(Effect.void, `GET /${shown}?access_token=${secret}`),
  "an annotation of all spans": ({ secret, shown }) =>
    Effect.annotateSpans(Effect.withSpan(Effect.void, "x"), { note: shown, apiKey: secret }),
  "an annotation of the span of a call": ({ secret, shown }) =>
    pipeline(Effect.annotateCurrentSpan({ note: shown, client_secret: secret })),
  "the name of an event": ({ secret, shown }) =>
    Effect.withSpan(
      Effect.flatMap(Effect.currentSpan, (span) =>
        Effect.sync(() => span.event(`${shown} postgres://app:${secret}@db`, 1n))),
      "x"
    ),
  "an attribute of an event": ({ secret, shown }) =>
    Effect.withSpan(
      Effect.flatMap(Effect.currentSpan, (span) =>
        Effect.sync(() => span.event("e", 1n, { note: `${shown} Basic ${secret}`, cookie: secret }))),
      "x"
    ),
  "an attribute of a link": ({ secret, shown }) =>
    Effect.withSpan(Effect.void, "x", {
      links: [{
        span: Tracer.externalSpan({ traceId: "1".repeat(32), spanId: "2".repeat(16) }),
        attributes: { note: shown, token: secret }
      }]
    }),
  "a failure": ({ secret, shown }) =>
    Effect.exit(Effect.withSpan(Effect.fail(new Error(`${shown} Bearer ${secret}`)), "x")),
  "the cause of a failure": ({ secret, shown }) =>
    Effect.exit(
      Effect.withSpan(Effect.fail(new Error("outer", { cause: new Error(`${shown} apiKey=${secret}`) })), "x")
    ),
  "a defect": ({ secret, shown }) =>
    Effect.exit(Effect.withSpan(Effect.die(new Error(`${shown} {"password":"${secret}"}`)), "x")),
  "the failure of a tool": ({ secret, shown }) => pipeline(Effect.fail(new Error(`${shown} Bearer ${secret}`))),
  "what a call brings along": ({ secret, shown }) =>
    pipeline(Effect.void, {
      input: { note: secret, text: `${shown} Bearer ${secret}`, extra: secret },
      headers: { authorization: `Bearer ${secret}`, cookie: secret, "x-api-key": secret },
      idempotencyKey: secret
    }),
  "the answer of a tool": ({ secret, shown }) => pipeline(Effect.succeed({ answer: shown, password: secret })),
  "raw parameters of a toolkit that nothing guards": ({ secret, shown }) =>
    Effect.gen(function*() {
      const tools = yield* Raw
      yield* Stream.runDrain(yield* tools.handle("echo", { text: secret }))
    }).pipe(
      Effect.provide(Raw.toLayer({ echo: ({ text }) => Effect.succeed(text) })),
      Effect.withSpan("model", { attributes: { note: shown } })
    ),
  "parameters of a guarded toolkit": ({ secret, shown }) =>
    Effect.gen(function*() {
      const tools = yield* Guarded
      yield* Stream.runDrain(yield* tools.handle("echo", { text: secret }))
    }).pipe(
      Effect.provide(
        ToolkitOps.layer(Guarded, { echo: ({ text }) => Effect.succeed(text) }).pipe(
          Layer.provide(guards({ observe: ObserveMiddleware.layer({ log: false }) }))
        )
      ),
      Effect.withSpan("model", { attributes: { note: shown } })
    ),
  "a request that is served": ({ secret, shown }) =>
    served(`http://localhost/${shown}?api_key=${secret}`, {
      authorization: `Bearer ${secret}`,
      cookie: `sid=${secret}`,
      "x-api-key": secret,
      "x-auth-token": secret
    }),
  "a request that is made": ({ secret, shown }) =>
    Effect.flatMap(
      HttpClient.HttpClient,
      (client) =>
        client.get(`http://app:${secret}@localhost/${shown}?token=${secret}`, {
          headers: { authorization: `Bearer ${secret}`, "x-api-key": secret }
        })
    ).pipe(
      Effect.provide(FetchHttpClient.layer),
      Effect.provideService(FetchHttpClient.Fetch, () => Promise.resolve(new Response(""))),
      Effect.provideService(HttpClient.TracerHeaderFilter, () => true)
    ),
  "a label of a metric": ({ secret, shown }) =>
    Metric.update(Metric.counter("c", { attributes: { note: shown, session_token: secret } }), 1),
  "text in a label of a metric": ({ secret, shown }) =>
    Metric.update(Metric.counter("c", { attributes: { note: `${shown} Bearer ${secret}` } }), 1)
}

describe("Telemetry and secrets", () => {
  it("sends none of 50 secrets, wherever they come in, whatever the collector says", async () => {
    for (const behaviour of [accept, answer(400)]) {
      const collector = await startCollector(behaviour)
      const pairs: Array<Pair & { readonly entry: string }> = []
      const telemetry = startTelemetry({
        endpoint: collector.url,
        resource: { team: "shown-resource", "vault.token": "canary-resource" },
        headers: { authorization: "Bearer canary-header" },
        tracing: { exporter: "otlp" },
        metrics: { exporter: "otlp", interval: "1 hour" }
      })
      for (let round = 0; pairs.length < 50; round++) {
        for (const [entry, enter] of Object.entries(entries)) {
          const id = `${round}q${Object.keys(entries).indexOf(entry)}z`
          const pair = { entry, shown: `shown${id}`, secret: `canary${id}` }
          pairs.push(pair)
          await telemetry.runtime.runPromise(enter(pair))
        }
      }
      await telemetry.close()
      const bytes = collector.bytes().toString("latin1")
      assert.isAtLeast(pairs.length, 50)
      assert.isAtLeast(Object.keys(entries).length, 20)
      assert.deepStrictEqual(pairs.filter(({ shown }) => !bytes.includes(shown)).map(({ entry }) => entry), [])
      assert.deepStrictEqual(pairs.filter(({ secret }) => bytes.includes(secret)).map(({ entry }) => entry), [])
      assert.include(bytes, "shown-resource")
      assert.notInclude(bytes, "canary")
      await collector.close()
    }
  })
})
