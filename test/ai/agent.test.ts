import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Layer, Schema, Stream, Tracer } from "effect"
import { ToolPipeline } from "effect-toolops"
import { ToolkitOps, ToolPolicy } from "effect-toolops/ai"
import { AuditLog, Authenticator, AuthMiddleware, Identity, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { Chat, LanguageModel, Tool, Toolkit } from "effect/ai"

const secret = "canary-3d90"

class Broken extends Schema.TaggedError<Broken>("test/Broken")("Broken", { part: Schema.String }) {}

const Text = Schema.Struct({ text: Schema.String })
const retry = { policy: { retry: { maxAttempts: 5, initialDelay: "1 millis" } } } as const
const failing = { parameters: Text, success: Schema.String, failure: Broken, failureMode: "return" } as const

const Tools = ToolkitOps.guard(Toolkit.make(
  Tool.make("docs_search", failing)
    .annotate(Tool.Readonly, true)
    .annotate(ToolPolicy.ToolPolicy, retry),
  Tool.make("notes_delete", failing).annotate(ToolPolicy.ToolPolicy, retry),
  Tool.make("notes_slow", failing)
    .annotate(ToolPolicy.ToolPolicy, { policy: { timeout: { timeout: "20 millis" }, retry: retry.policy.retry } }),
  Tool.make("admin_purge", failing),
  Tool.make("docs_export", failing).annotate(ToolPolicy.ToolPolicy, { scopes: ["docs:export", "docs:read"] }),
  Tool.make("mail_send", failing)
))

/** A model that calls the tools of each turn and then says that it is done; it remembers what it was told. */
const scripted = (turns: ReadonlyArray<ReadonlyArray<{ readonly id: string; readonly name: string }>>) => {
  const results = new Map<string, { readonly isFailure: boolean; readonly result: any }>()
  let turn = 0
  const model = LanguageModel.make({
    generateText: ({ prompt }) =>
      Effect.sync(() => {
        for (const message of prompt.content) {
          if (message.role !== "tool") continue
          for (const part of message.content) if (part.type === "tool-result") results.set(part.id, part)
        }
        const calls = turns[turn++] ?? []
        return [
          ...calls.length === 0 ? [{ type: "text", text: "done" }] : [],
          ...calls.map(({ id, name }) => ({ type: "tool-call", id, name, params: { text: secret } })),
          {
            type: "finish",
            reason: calls.length === 0 ? "stop" : "tool-calls",
            usage: {
              inputTokens: { uncached: 1, total: 1, cacheRead: 0, cacheWrite: 0 },
              outputTokens: { total: 1, text: 1, reasoning: 0 }
            }
          }
        ] as never
      }),
    streamText: () => Stream.empty
  })
  return { model, results }
}

/** Talks to the model until it calls no more tools. */
const agent = Effect.gen(function*() {
  const chat = yield* Chat.empty
  let response = yield* chat.generateText({ prompt: "tidy up", toolkit: Tools })
  while (response.toolCalls.length > 0) response = yield* chat.generateText({ prompt: [], toolkit: Tools })
  return response.text
})

describe("an agent whose tools are guarded", () => {
  it.live("is told what to do about each refusal, and repeats no write", () => {
    const ran: Array<string> = []
    let searches = 0
    const handlers = ToolkitOps.layer(Tools, {
      docs_search: () =>
        Effect.suspend(() => {
          ran.push("docs_search")
          return ++searches < 3 ? Effect.fail(new Broken({ part: "index" })) : Effect.succeed("found")
        }),
      notes_delete: () =>
        Effect.suspend(() => {
          ran.push("notes_delete")
          return Effect.fail(new Broken({ part: "disk" }))
        }),
      notes_slow: () => Effect.andThen(Effect.sync(() => ran.push("notes_slow")), Effect.never),
      admin_purge: () => Effect.sync(() => `${ran.push("admin_purge")}`),
      docs_export: () => Effect.sync(() => `${ran.push("docs_export")}`),
      mail_send: () => Effect.sync(() => `sent ${ran.push("mail_send")}`)
    })
    const audit = AuditLog.layerMemory()
    const stages = ToolPipeline.layer.pipe(Layer.provide([
      ObserveMiddleware.layer({ log: false }),
      AuthMiddleware.layerAudited.pipe(Layer.provide([
        Authenticator.layerAnonymous,
        Rbac.layer({
          roles: { agent: { allowedTools: ["docs:*", "notes:*", "mail:*"], allowedActions: ["call"] } }
        }),
        audit
      ])),
      RateLimitMiddleware.layer.pipe(Layer.provide(
        RateLimit.layer({
          limits: [{ name: "mails", per: "identity", tools: ["mail:*"], limit: 1, window: "1 hour" }]
        }).pipe(Layer.provide(RateLimitStore.layerMemory()))
      )),
      CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())),
      ResilienceMiddleware.layer()
    ]))
    const turns = [
      [{ id: "t-search", name: "docs_search" }],
      [{ id: "t-delete", name: "notes_delete" }, { id: "t-slow", name: "notes_slow" }],
      [{ id: "t-purge", name: "admin_purge" }, { id: "t-export", name: "docs_export" }],
      [{ id: "t-mail", name: "mail_send" }],
      [{ id: "t-mail-2", name: "mail_send" }]
    ]
    const { model, results } = scripted(turns)
    const spans: Array<Tracer.NativeSpan> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    return Effect.gen(function*() {
      assert.strictEqual(yield* agent, "done")

      // A read may be repeated, a write may not, whatever its policy says of retries.
      assert.deepStrictEqual(ran.toSorted(), [
        "docs_search",
        "docs_search",
        "docs_search",
        "mail_send",
        "notes_delete",
        "notes_slow"
      ])
      const told = (id: string) => ({ ...results.get(id)?.result, isFailure: results.get(id)?.isFailure })
      assert.deepInclude(results.get("t-search"), { isFailure: false, result: "found" })
      assert.include(told("t-delete"), { isFailure: true, part: "disk" })
      assert.include(told("t-slow"), { isFailure: true, reason: "TimedOut", retryable: false })
      assert.include(told("t-slow").message, "It may have taken effect: check before you try again.")
      assert.include(told("t-purge"), { isFailure: true, reason: "Forbidden", retryable: false })
      assert.include(told("t-purge").message, "Do not try again.")
      assert.include(told("t-export"), { isFailure: true, reason: "InsufficientScope" })
      assert.include(told("t-export").message, "Ask for these scopes: docs:export docs:read.")
      assert.deepInclude(results.get("t-mail"), { isFailure: false, result: "sent 6" })
      assert.include(told("t-mail-2"), { isFailure: true, reason: "RateLimited", retryable: true })
      assert.match(told("t-mail-2").message, /Try again in 3\d{3} seconds\./)

      // The model's names of its calls are those of spans and of the audit log.
      const ids = turns.flat().map(({ id }) => id).toSorted()
      const roots = spans.filter((span) => span.name.startsWith("execute_tool"))
      assert.deepStrictEqual(roots.map((span) => span.attributes.get("gen_ai.tool.call.id")).toSorted(), ids)
      const { records } = yield* AuditLog.AuditMemory
      const written = yield* records
      assert.deepStrictEqual(written.map((record) => record.callId).toSorted(), ids)
      assert.deepStrictEqual(
        written.filter((record) => record.decision?.allow === false).map((record) => record.tool.id).toSorted(),
        ["admin:purge", "docs:export"]
      )

      // What the model said to its tools is in no span and in no record.
      while (spans.some((span) => span.status._tag !== "Ended" && span.name.includes("tool"))) {
        yield* Effect.sleep("1 millis")
      }
      const exported = spans.map(({ attributes, events, name, status }) => [
        name,
        [...attributes],
        events.map(String),
        status._tag === "Ended" && status.exit._tag === "Failure" ? Cause.pretty(status.exit.cause) : ""
      ])
      assert.notInclude(JSON.stringify([exported, written]), secret)
    }).pipe(
      Effect.provideServiceEffect(LanguageModel.LanguageModel, model),
      Effect.provideService(
        Identity.CurrentIdentity,
        Identity.make({ principal: "agent-1", roles: ["agent"], scopes: ["docs:read"] })
      ),
      Effect.provide(Layer.mergeAll(handlers.pipe(Layer.provide(stages)), audit)),
      Effect.withTracer(tracer)
    )
  })
})
