import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Metric, Redacted, Schema } from "effect"
import { ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { ObserveMiddleware, PrometheusRoutes, Redaction, StructuredLogger } from "effect-toolops/observe"
import { FetchHttpClient } from "effect/http"
import { OtlpMetrics, OtlpSerialization, OtlpTracer } from "effect/observability"

const canary = (n: number) => `canary${String(n).padStart(4, "0")}`

/** Ways in which a secret stands in free text. */
const phrases: ReadonlyArray<(secret: string) => string> = [
  (secret) => `Bearer ${secret}`,
  (secret) => `authorization: Basic ${secret}`,
  (secret) => `connect postgres://app:${secret}@db:5432/x failed`,
  (secret) => `{"password":"${secret}","x":1}`,
  (secret) => `GET /cb?code=1&access_token=${secret}&state=2`,
  (secret) => `-----BEGIN PRIVATE KEY-----\n${secret}\n-----END PRIVATE KEY-----`,
  (secret) => `apiKey=${secret}; next`,
  (secret) => `client_secret: '${secret} with blanks'`,
  (secret) => `Set-Cookie: sid=${secret}; Path=/`,
  (secret) => `{\\"token\\":\\"${secret}\\"}`
]

class Acting extends Context.Service<Acting, ToolMiddleware.ToolMiddleware<unknown>>()("test/Acting") {}

/** What a handler does with a secret, and what the stages know of one. */
const handlers: ReadonlyArray<(text: string) => Effect.Effect<unknown, unknown>> = [
  (text) => Effect.fail(new Error(text)),
  (text) => Effect.fail(text),
  (text) => Effect.fail({ _tag: "Tagged", message: text, detail: text }),
  (text) => Effect.fail(new Error("outer", { cause: new Error(text) })),
  (text) => Effect.die(new Error(text)),
  (text) => Effect.die(text),
  (text) => Effect.succeed({ answer: text }),
  (text) => Effect.log(text),
  (text) => Effect.logError("failed", new Error(text)),
  (text) => Effect.log("data", { deep: [{ note: text }] }),
  (text) => Effect.annotateLogs(Effect.log("annotated"), { note: text }),
  (text) => Effect.log("map", new Map([["note", text]]), new Set([text])),
  (text) => Effect.withLogSpan(Effect.log("span"), text)
]
const fields: ReadonlyArray<(secret: string) => Effect.Effect<unknown, unknown>> = [
  (secret) => Effect.log("data", { Authorization: secret, nested: { "api-key": secret } }),
  (secret) => Effect.annotateLogs(Effect.log("annotated"), { refresh_token: secret }),
  (secret) => Effect.log("redacted", Redacted.make(secret)),
  (secret) => Effect.succeed({ answer: "x", password: secret })
]

describe("canaries", () => {
  it.effect("no secret leaves in a log line, a span or a metric, wherever it comes in", () => {
    const bodies: Array<string> = []
    let isTraced = false
    const fetch: typeof globalThis.fetch = async (input, init) => {
      const url = input instanceof Request ? input.url : String(input)
      isTraced ||= url.endsWith("traces")
      bodies.push(await new Response(init?.body ?? null).text())
      return new Response("{}", { headers: { "content-type": "application/json" } })
    }
    const Exporters = Layer.mergeAll(
      OtlpTracer.layer({ url: "http://c/traces", compression: "none", resource: { serviceName: "t" } }),
      OtlpMetrics.layer({ url: "http://c/metrics", compression: "none", resource: { serviceName: "t" } })
    ).pipe(
      Layer.provide(OtlpSerialization.layerJson),
      Layer.provide(FetchHttpClient.layer),
      Layer.provide(Layer.succeed(FetchHttpClient.Fetch, fetch))
    )
    const Input = Schema.Struct({
      note: Redaction.sensitive(Schema.String),
      password: Schema.String,
      text: Schema.String
    })
    const Answer = Schema.Unknown
    const stage = ToolMiddleware.of<unknown>({
      name: "acting",
      forTool: () => (call, next) =>
        Effect.suspend(() => {
          call.record.identity = Identity.make({ principal: String(call.headers?.["x-who"]), claims: { email: "x" } })
          return next
        })
    })
    const secrets: Array<string> = []
    const secret = () => {
      const made = canary(secrets.length)
      secrets.push(made)
      return made
    }
    return Effect.gen(function*() {
      const lines: Array<string> = []
      yield* Effect.gen(function*() {
        const pipeline = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware, Acting)
        const tool = ToolMeta.make({ name: "t", input: Input, success: Answer })
        const call = (handler: Effect.Effect<unknown, unknown>, text: string) =>
          Effect.exit(pipeline.run({
            tool,
            // What a call brings along: arguments, credentials, who calls.
            input: { note: secret(), password: secret(), text, extra: secret() },
            headers: { authorization: `Bearer ${secret()}`, cookie: secret(), "x-who": secret() },
            idempotencyKey: secret()
          }, handler)).pipe(Effect.annotateSpans({ token: secret(), note: text }))
        for (const phrase of phrases) {
          for (const handler of handlers) {
            const text = phrase(secret())
            yield* call(handler(text), text)
          }
        }
        for (const field of fields) yield* call(field(secret()), "x")
        lines.push(yield* PrometheusRoutes.make()("prometheus"), yield* PrometheusRoutes.make()("openmetrics"))
      }).pipe(
        Effect.provide(Layer.mergeAll(
          ObserveMiddleware.layer({ capture: { arguments: true, result: true } }),
          StructuredLogger.layer({ write: (line) => lines.push(line) }),
          Layer.succeed(Acting, stage)
        )),
        Effect.provide(Exporters),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
      assert.isTrue(isTraced)
      const told = [...lines, ...bodies].join("\n")
      // The calls were told at all, and as often as they were made.
      assert.strictEqual(
        lines.filter((line) => line.includes("\"message\":\"tool call\"")).length,
        phrases.length * handlers.length + fields.length
      )
      assert.include(told, "gen_ai.tool.call.arguments")
      assert.isAbove(secrets.length, 1000)
      assert.deepStrictEqual(secrets.filter((each) => told.includes(each)), [])
    })
  })
})
