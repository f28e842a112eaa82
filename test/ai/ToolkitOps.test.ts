import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Layer, Schema, Stream, Tracer } from "effect"
import { type ToolCall, type ToolMeta, type ToolPipeline } from "effect-toolops"
import { ToolkitOps, ToolPolicy, ToolRefusal } from "effect-toolops/ai"
import { AuthMiddleware, Identity } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimitError, RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { LanguageModel, Tool, Toolkit } from "effect/ai"
import { pipeline } from "./mcp.ts"

const secret = "canary-5f1e"

class Broken extends Schema.TaggedError<Broken>("test/Broken")("Broken", { part: Schema.String }) {}

const Echo = Tool.make("text_echo", {
  description: "Says it again",
  parameters: Schema.Struct({ text: Schema.String }),
  success: Schema.Struct({ text: Schema.String }),
  failure: Broken
}).annotate(Tool.Readonly, true)

const Tools = ToolkitOps.guard(Toolkit.make(Echo))

const echo = ToolkitOps.layer(Tools, { text_echo: ({ text }) => Effect.succeed({ text }) })

const tooMany = new RateLimitError.RateLimitError({
  reason: new RateLimitError.RateLimited({ limit: "x", per: "identity", retryAfter: Duration.seconds(1) })
})

const limited = Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, {
  name: "limit",
  forTool: () => () =>
    Effect.fail(
      new RateLimitError.RateLimitError({
        reason: new RateLimitError.RateLimited({
          limit: "per-minute",
          per: "identity",
          retryAfter: Duration.millis(11_500)
        })
      })
    )
} as never)

const handleLast = (text: unknown) =>
  Effect.gen(function*() {
    const tools = yield* Tools
    const results = yield* Stream.runCollect(yield* tools.handle("text_echo", { text } as never))
    return results[results.length - 1]!
  })

const recordingTracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const printed = () => JSON.stringify(spans.map((span) => [span.name, [...span.attributes], span.events]))
  return { tracer, spans, printed }
}

describe("ToolkitOps", () => {
  it.effect("answers with what the handler answers", () =>
    Effect.gen(function*() {
      const result = yield* handleLast("hi")
      assert.isFalse(result.isFailure)
      assert.deepStrictEqual(result.result, { text: "hi" })
    }).pipe(Effect.provide(echo.pipe(Layer.provide(pipeline())))))

  it.effect("runs one tool's every call under one ToolMeta with decoded input and the call id", () => {
    const seen: Array<readonly [ToolMeta.ToolMeta, unknown, string]> = []
    const watching = Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, {
      name: "limit",
      forTool: (tool) => (call, next) => {
        seen.push([tool, call.input, call.callId])
        return next
      }
    })
    return Effect.gen(function*() {
      const tools = yield* Tools
      yield* Stream.runDrain(yield* tools.handle("text_echo", { text: "a" }, "call-a"))
      yield* Stream.runDrain(yield* tools.handle("text_echo", { text: "b" }, "call-b"))
      assert.strictEqual(seen[0]![0], seen[1]![0])
      assert.strictEqual(seen[0]![0].id, "text:echo")
      assert.deepStrictEqual(seen.map((one) => one.slice(1)), [
        [{ text: "a" }, "call-a"],
        [{ text: "b" }, "call-b"]
      ])
    }).pipe(Effect.provide(echo.pipe(Layer.provide(pipeline({ limit: watching })))))
  })

  it.effect("gives a refusal as a failed result, also where failures are errors", () =>
    Effect.gen(function*() {
      const result = yield* handleLast("hi")
      assert.isTrue(result.isFailure)
      assert.strictEqual(result.failureOrigin, "handler")
      assert.instanceOf(result.result, ToolRefusal.ToolRefusal)
      assert.deepStrictEqual(result.encodedResult, {
        _tag: "ToolRefused",
        reason: "RateLimited",
        message: "The rate limit is used up. Try again in 12 seconds.",
        retryable: true,
        retryAfterMillis: 11_500
      })
    }).pipe(Effect.provide(echo.pipe(Layer.provide(pipeline({ limit: limited }))))))

  it.effect("keeps the handler's own failures in the tool's failure mode", () => {
    const failing = ToolkitOps.layer(Tools, { text_echo: () => Effect.fail(new Broken({ part: "wheel" })) })
    return Effect.gen(function*() {
      const exit = yield* Effect.exit(handleLast("hi"))
      assert(Exit.isFailure(exit))
      const [reason] = exit.cause.reasons
      assert(reason !== undefined && Cause.isFailReason(reason))
      assert.instanceOf(reason.error, Broken)
      // McpServer tells a handler's failure from an internal one by this.
      assert.strictEqual(Context.get(Cause.reasonAnnotations(reason), Toolkit.FailureOrigin), "handler")
    }).pipe(Effect.provide(failing.pipe(Layer.provide(pipeline()))))
  })

  describe("parameters that do not fit", () => {
    const failing = {
      parameters: Schema.Struct({ text: Schema.String }),
      success: Schema.Struct({ text: Schema.String })
    }
    const policy = { policy: { circuitBreaker: { maxFailures: 1 }, retry: { maxAttempts: 5 } } } as const
    const Both = ToolkitOps.guard(Toolkit.make(
      Tool.make("as_error", { ...failing, failureMode: "error" })
        .annotate(Tool.Readonly, true)
        .annotate(ToolPolicy.ToolPolicy, policy),
      Tool.make("as_result", { ...failing, failureMode: "return" })
        .annotate(Tool.Readonly, true)
        .annotate(ToolPolicy.ToolPolicy, policy)
    ))
    const both = ToolkitOps.layer(Both, {
      as_error: ({ text }) => Effect.succeed({ text }),
      as_result: ({ text }) => Effect.succeed({ text })
    })
    const reasonOf = (error: any): string => error.reason._tag ?? error.reason
    const ask = (name: "as_error" | "as_result", text: unknown) =>
      Effect.gen(function*() {
        const tools = yield* Both
        const handled = tools.handle(name, { text } as never, "call-1")
        return yield* Effect.match(Effect.flatMap(handled, Stream.runCollect), {
          onFailure: (error) => `failed ${reasonOf(error)}`,
          onSuccess: ([result]) => result?.isFailure === true ? `refused ${reasonOf(result.encodedResult)}` : text
        })
      })

    for (const name of ["as_error", "as_result"] as const) {
      const problem = `${name === "as_error" ? "failed" : "refused"} ToolParameterValidationError`

      it.effect(`pass the stages before they are told of, ${name}`, () => {
        const seen: Array<readonly [unknown, string]> = []
        const twice = Layer.succeed(RateLimitMiddleware.RateLimitMiddleware, {
          name: "limit",
          forTool: () => <A, E, R>(call: ToolCall.ToolCall, next: Effect.Effect<A, E, R>) =>
            Effect.suspend((): Effect.Effect<A, E | RateLimitError.RateLimitError, R> => {
              seen.push([call.input, call.callId])
              return seen.length <= 2 ? next : Effect.fail(tooMany)
            })
        })
        return Effect.gen(function*() {
          assert.strictEqual(yield* ask(name, 7), problem)
          assert.strictEqual(yield* ask(name, [secret]), problem)
          assert.strictEqual(yield* ask(name, 8), "refused RateLimited")
          assert.strictEqual(yield* ask(name, "fits"), "refused RateLimited")
          assert.deepStrictEqual(seen[0], [{ text: 7 }, "call-1"])
        }).pipe(Effect.provide(both.pipe(Layer.provide(pipeline({ limit: twice })))))
      })

      it.effect(`speak against nobody and are not kept, ${name}`, () => {
        const stages = pipeline({
          cache: CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())),
          resilience: ResilienceMiddleware.layer()
        })
        return Effect.gen(function*() {
          for (let i = 0; i < 3; i++) assert.strictEqual(yield* ask(name, 7), problem)
          assert.strictEqual(yield* ask(name, "fits"), "fits")
          assert.strictEqual(yield* ask(name, 7), problem)
        }).pipe(Effect.provide(both.pipe(Layer.provide(stages))))
      })
    }
  })

  it.effect("takes parameters that do not fit for no hit, though they look like what was kept", () => {
    const exits: Array<string> = []
    const watching = Layer.succeed(ObserveMiddleware.ObserveMiddleware, {
      name: "observe",
      forTool: () => <A, E, R>(_call: ToolCall.ToolCall, next: Effect.Effect<A, E, R>) =>
        Effect.onExit(next, (exit) => Effect.sync(() => exits.push(exit._tag)))
    })
    const Numbers = ToolkitOps.guard(Toolkit.make(
      Tool.make("number", { parameters: Schema.Struct({ n: Schema.NumberFromString }), success: Schema.Number })
        .annotate(Tool.Readonly, true)
        .annotate(ToolPolicy.ToolPolicy, { policy: { ttl: "1 hour" } })
    ))
    let runs = 0
    const numbers = ToolkitOps.layer(Numbers, { number: () => Effect.sync(() => ++runs) })
    const ask = (n: unknown) =>
      Effect.flatMap(Numbers, ({ handle }) => Effect.flatMap(handle("number", { n } as never), Stream.runDrain))
    return Effect.gen(function*() {
      yield* ask("5")
      yield* ask("5")
      yield* Effect.flip(ask(5))
      assert.strictEqual(runs, 1)
      assert.deepStrictEqual(exits, ["Success", "Success", "Failure"])
    }).pipe(
      Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal: "ada" })),
      Effect.provide(numbers.pipe(Layer.provide(pipeline({
        observe: watching,
        cache: CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory()))
      }))))
    )
  })

  it.effect("takes a refusal for an answer only where it stands alone", () => {
    const refusal = ToolRefusal.fromError(tooMany, { readOnly: true, idempotent: true })
    const both = ToolkitOps.layer(Tools, {
      text_echo: () => Effect.failCause(Cause.fromReasons([Cause.makeFailReason(refusal), Cause.makeDieReason("bug")]))
    })
    return Effect.gen(function*() {
      const exit = yield* Effect.exit(handleLast("hi"))
      assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    }).pipe(Effect.provide(both.pipe(Layer.provide(pipeline()))))
  })

  it.effect("lets a defect of the handler out as a defect", () => {
    const dying = ToolkitOps.layer(Tools, { text_echo: () => Effect.die("bug") })
    return Effect.gen(function*() {
      const exit = yield* Effect.exit(handleLast("hi"))
      assert(Exit.isFailure(exit))
      assert.strictEqual(Cause.squash(exit.cause), "bug")
    }).pipe(Effect.provide(dying.pipe(Layer.provide(pipeline()))))
  })

  it.effect("passes preliminary results on, and the handlers' own dependencies", () => {
    class Suffix extends Context.Service<Suffix, string>()("test/Suffix") {}
    const handlers = ToolkitOps.layer(
      Tools,
      Effect.gen(function*() {
        const suffix = yield* Suffix
        return {
          text_echo: Effect.fnUntraced(function*({ text }, context) {
            yield* context.preliminary({ text: "half" })
            return { text: text + suffix }
          })
        }
      })
    )
    return Effect.gen(function*() {
      const tools = yield* Tools
      const results = yield* Stream.runCollect(yield* tools.handle("text_echo", { text: "hi" }))
      assert.deepStrictEqual(results.map((one) => [one.preliminary, one.result]), [
        [true, { text: "half" }],
        [false, { text: "hi!" }]
      ])
    }).pipe(Effect.provide(
      handlers.pipe(Layer.provide([pipeline(), Layer.succeed(Suffix, "!")]))
    ))
  })

  it.effect("takes what a tool declares to need from whoever calls it", () => {
    class Tenant extends Context.Service<Tenant, string>()("test/Tenant") {}
    const Where = ToolkitOps.guard(Toolkit.make(Tool.make("where", { success: Schema.String, dependencies: [Tenant] })))
    const layer = ToolkitOps.layer(Where, { where: () => Effect.map(Tenant, (tenant) => tenant) })
    return Effect.gen(function*() {
      const tools = yield* Where
      for (const tenant of ["acme", "umbrella"]) {
        const results = yield* tools.handle("where", {}).pipe(
          Effect.flatMap(Stream.runCollect),
          Effect.provideService(Tenant, tenant)
        )
        assert.strictEqual(results[0]!.result, tenant)
      }
    }).pipe(Effect.provide(layer.pipe(Layer.provide(pipeline()))))
  })

  it.effect("takes a policy that speaks to several stages, and refuses a bad one when the layer is built", () => {
    const stages = pipeline({
      cache: CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())),
      resilience: ResilienceMiddleware.layer()
    })
    const build = (policy: ToolMeta.ToolPolicy) => {
      const One = ToolkitOps.guard(Toolkit.make(Tool.make("one").annotate(ToolPolicy.ToolPolicy, { policy })))
      const layer = ToolkitOps.layer(One, { one: () => Effect.void })
      return Effect.exit(Effect.scoped(Layer.build(layer.pipe(Layer.provide(stages)))))
    }
    return Effect.gen(function*() {
      const good = yield* build({ ttl: 0, timeout: { timeout: "1 second" }, invalidates: () => ["x"] })
      assert.isTrue(Exit.isSuccess(good))
      const bad = yield* build({ timeout: { timeout: 0 } })
      assert(Exit.isFailure(bad))
      assert.match(String(Cause.squash(bad.cause)), /policy of one: timeout/)
    })
  })

  it.effect("provides the caller to a handler, and hides it from one whose tool is for everyone", () => {
    const Mine = Tool.make("who_mine", { success: Schema.String })
    const Ours = Tool.make("who_ours", { success: Schema.String })
      .annotate(ToolPolicy.ToolPolicy, { varies: "everyone" })
    const Both = ToolkitOps.guard(Toolkit.make(Mine, Ours))
    const principal = () => Effect.map(Identity.CurrentIdentity, (identity) => identity.principal)
    const layer = ToolkitOps.layer(Both, { who_mine: principal, who_ours: principal })
    return Effect.gen(function*() {
      const tools = yield* Both
      const mine = yield* Stream.runCollect(yield* tools.handle("who_mine", {}))
      assert.strictEqual(mine[0]!.result, "ada")
      const ours = yield* Effect.exit(Effect.flatMap(tools.handle("who_ours", {}), Stream.runDrain))
      assert(Exit.isFailure(ours) && Cause.hasDies(ours.cause))
    }).pipe(
      Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal: "ada" })),
      Effect.provide(layer.pipe(Layer.provide(pipeline({ auth: AuthMiddleware.layerPassthrough }))))
    )
  })

  it.effect("dies rather than run a handler that is not behind a pipeline", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(handleLast("hi"))
      assert(Exit.isFailure(exit))
      assert.match(String(Cause.squash(exit.cause)), /text_echo is not from ToolkitOps\.layer/)
    }).pipe(Effect.provide(Tools.toLayer({ text_echo: ({ text }) => Effect.succeed({ text }) }))))

  it.effect("refuses a toolkit one of whose tools has no handler", () => {
    const layer = ToolkitOps.layer(Tools, {} as { readonly text_echo: () => Effect.Effect<{ readonly text: string }> })
    return Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(layer.pipe(Layer.provide(pipeline())))))
      assert(Exit.isFailure(exit))
      assert.match(String(Cause.squash(exit.cause)), /text_echo has no handler/)
    })
  })

  it("takes only toolkits and handlers that fit", () => {
    const hand = Toolkit.make(Tool.make("hand", { failure: ToolRefusal.ToolRefusal }))
    const unguarded = /ToolkitOps\.layer: pass the toolkit through ToolkitOps\.guard first/
    assert.throws(
      // @ts-expect-error: it was not guarded
      () => ToolkitOps.layer(Toolkit.make(Echo), { text_echo: ({ text }) => Effect.succeed({ text }) }),
      unguarded
    )
    // @ts-expect-error: nor was this, though its tool says that it may be refused
    assert.throws(() => ToolkitOps.layer(hand, { hand: () => Effect.void }), unguarded)
    assert.throws(
      // @ts-expect-error: nor what was merged after
      () => ToolkitOps.layer(Toolkit.merge(Tools, hand), { text_echo: Effect.succeed, hand: () => Effect.void }),
      unguarded
    )
    // @ts-expect-error: the tool does not declare this failure
    ToolkitOps.layer(Tools, { text_echo: () => Effect.fail("a string") })
    class Database extends Context.Service<Database, string>()("test/Database") {}
    // @ts-expect-error: a handler may need the caller, and what its tool declares, but nothing else
    ToolkitOps.layer(Tools, { text_echo: () => Effect.map(Database, (text) => ({ text })) })
    const live = ToolkitOps.layer(Tools, {
      text_echo: () => Effect.map(Identity.CurrentIdentity, ({ principal }) => ({ text: principal }))
    })
    const needs: Layer.Layer<Tool.HandlersFor<typeof Tools.tools>, never, ToolPipeline.ToolPipeline> = live
    assert.isDefined(needs)
  })

  it.effect("refuses two tools that come out with one name", () => {
    const Twins = ToolkitOps.guard(Toolkit.make(Tool.make("docs_read"), Tool.make("docs.read")))
    const layer = ToolkitOps.layer(Twins, { docs_read: () => Effect.void, "docs.read": () => Effect.void })
    return Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(layer.pipe(Layer.provide(pipeline())))))
      assert(Exit.isFailure(exit))
      assert.match(String(Cause.squash(exit.cause)), /docs_read and docs\.read are both named docs:read/)
    })
  })

  it.effect("refuses a second tool of a name behind the same pipeline, while the first is there", () => {
    const Mine = ToolkitOps.guard(Toolkit.make(Tool.make("docs_read", { success: Schema.String })))
    const Other = ToolkitOps.guard(Toolkit.make(Tool.make("read", { success: Schema.String })))
    const mine = ToolkitOps.layer(Mine, { docs_read: () => Effect.succeed("mine") })
    const other = ToolkitOps.layer(Other, { read: () => Effect.succeed("other") }, { namespace: "docs" })
    return Effect.gen(function*() {
      const services = yield* Layer.build(pipeline())
      const build = <A, R>(layer: Layer.Layer<A, never, R | ToolPipeline.ToolPipeline>) =>
        Effect.exit(Effect.provide(Layer.build(Layer.fresh(layer)), services))
      yield* Effect.scoped(Effect.gen(function*() {
        assert.isTrue(Exit.isSuccess(yield* build(mine)))
        // The same tool again, as for a second server.
        assert.isTrue(Exit.isSuccess(yield* Effect.scoped(build(mine))))
        const exit = yield* build(other)
        assert(Exit.isFailure(exit))
        assert.match(String(Cause.squash(exit.cause)), /docs_read and read are both named docs:read/)
      }))
      assert.isTrue(Exit.isSuccess(yield* Effect.scoped(build(other))))
      yield* Effect.scoped(Effect.gen(function*() {
        assert.isTrue(Exit.isSuccess(yield* build(mine)))
        const elsewhere = yield* Layer.build(pipeline())
        const built = yield* Effect.exit(Effect.provide(Layer.build(other), elsewhere))
        assert.isTrue(Exit.isSuccess(built))
      }))
    }).pipe(Effect.scoped)
  })

  it.effect("leaves a tool that its provider runs as it is", () => {
    const Search = Tool.providerDefined({
      id: "vendor.search",
      customName: "VendorSearch",
      providerName: "search",
      args: Schema.Struct({}),
      success: Schema.String
    })({})
    const Mixed = ToolkitOps.guard(Toolkit.make(Search, Echo))
    assert.strictEqual(Mixed.tools.VendorSearch, Search)
    const layer = ToolkitOps.layer(Mixed, { text_echo: ({ text }) => Effect.succeed({ text }) })
    return Effect.gen(function*() {
      const tools = yield* Mixed
      const results = yield* Stream.runCollect(yield* tools.handle("text_echo", { text: "hi" }))
      assert.deepStrictEqual(results[0]!.result, { text: "hi" })
    }).pipe(Effect.provide(layer.pipe(Layer.provide(pipeline({ limit: RateLimitMiddleware.layerPassthrough })))))
  })

  it.effect("guards a dynamic tool, whose parameters come as they are", () => {
    const Any = Tool.dynamic("any_thing", {
      parameters: { type: "object", properties: { a: { type: "number" } } },
      success: Schema.String
    })
    const Dynamic = ToolkitOps.guard(Toolkit.make(Any))
    const layer = ToolkitOps.layer(Dynamic, { any_thing: (params) => Effect.succeed(JSON.stringify(params)) })
    return Effect.gen(function*() {
      const tools = yield* Dynamic
      const results = yield* Stream.runCollect(yield* tools.handle("any_thing", { a: 1 } as never))
      assert.strictEqual(results[0]!.result, `{"a":1}`)
    }).pipe(Effect.provide(layer.pipe(Layer.provide(pipeline()))))
  })

  it.effect("keeps parameters off the caller's span, whatever becomes of the call", () => {
    const { printed, spans, tracer } = recordingTracer()
    return Effect.gen(function*() {
      yield* handleLast(secret)
      yield* Effect.exit(handleLast({ not: "a string", secret }))
      const tools = yield* Tools
      yield* Effect.exit(tools.handle("no_such_tool" as never, { text: secret } as never))
    }).pipe(
      Effect.withSpan("request"),
      Effect.withTracer(tracer),
      Effect.provide(echo.pipe(Layer.provide(pipeline()))),
      Effect.tap(() =>
        Effect.sync(() => {
          assert.deepStrictEqual(spans.map((span) => span.name), ["request"])
          assert.notInclude(printed(), secret)
        })
      )
    )
  })

  it.effect("dies rather than run a handler for a toolkit that was merged after it was guarded, and keeps its span clean", () => {
    const { printed, tracer } = recordingTracer()
    const ran: Array<string> = []
    const counting = ToolkitOps.layer(Tools, {
      text_echo: ({ text }) =>
        Effect.sync(() => {
          ran.push(text)
          return { text }
        })
    })
    const Merged = Toolkit.merge(Tools, Toolkit.make(Tool.make("plain", { success: Schema.String })))
    const last = (tools: typeof Tools | typeof Merged) =>
      Effect.gen(function*() {
        const { handle } = yield* tools as typeof Tools
        return yield* Stream.runDrain(yield* handle("text_echo", { text: secret }))
      })
    return Effect.gen(function*() {
      for (const traced of [true, false]) {
        const exit = yield* Effect.exit(traced ? Effect.withSpan(last(Merged), "request") : last(Merged))
        assert(Exit.isFailure(exit))
        assert.match(String(Cause.squash(exit.cause)), /text_echo was called through a toolkit that is not guarded/)
      }
      assert.deepStrictEqual(ran, [])
      yield* last(Tools)
      assert.deepStrictEqual(ran, [secret])
    }).pipe(
      Effect.withTracer(tracer),
      Effect.provide(counting.pipe(Layer.provide(pipeline()))),
      Effect.tap(() => Effect.sync(() => assert.notInclude(printed(), secret)))
    )
  })

  it.effect("tells a handler's own call through such a toolkit from the guarded call that it runs for", () => {
    const Outer = ToolkitOps.guard(Toolkit.make(Tool.make("outer", { success: Schema.String })))
    const Merged = Toolkit.merge(Tools, Toolkit.empty)
    return Effect.gen(function*() {
      const inner = yield* Merged
      const outer = ToolkitOps.layer(Outer, {
        outer: () =>
          Effect.flatMap(inner.handle("text_echo", { text: "hi" }), Stream.runDrain).pipe(
            Effect.catchCause((cause) => Effect.succeed(String(Cause.squash(cause)))),
            Effect.map((said) => said ?? "ran")
          )
      })
      const results = yield* Outer.pipe(
        Effect.flatMap(({ handle }) => handle("outer", {})),
        Effect.flatMap(Stream.runCollect),
        Effect.provide(outer.pipe(Layer.provide(pipeline())))
      )
      assert.match(results[0]!.result as string, /not guarded/)
    }).pipe(Effect.provide(echo.pipe(Layer.provide(pipeline()))))
  })

  it.effect("gives the handler the caller's span, to annotate and to be the parent of its own", () => {
    const { spans, tracer } = recordingTracer()
    const handlers = ToolkitOps.layer(Tools, {
      text_echo: ({ text }) =>
        Effect.annotateCurrentSpan("seen", true).pipe(
          Effect.andThen(Effect.withSpan(Effect.succeed({ text }), "inside"))
        )
    })
    return handleLast("hi").pipe(
      Effect.withSpan("request"),
      Effect.withTracer(tracer),
      Effect.provide(handlers.pipe(Layer.provide(pipeline()))),
      Effect.tap(() =>
        Effect.sync(() => {
          const [request, inside] = spans
          assert.isTrue(request!.attributes.get("seen"))
          assert.strictEqual(inside!.parent._tag === "Some" ? inside!.parent.value : undefined, request)
        })
      )
    )
  })

  it.effect("lets a model read what to do about a refusal", () => {
    const turns: Array<unknown> = []
    const model = LanguageModel.make({
      generateText: (options) => {
        turns.push(options)
        return Effect.succeed([
          { type: "tool-call", id: "call-1", name: "text_echo", params: { text: "hi" } },
          {
            type: "finish",
            reason: "tool-calls",
            usage: {
              inputTokens: { uncached: 1, total: 1, cacheRead: 0, cacheWrite: 0 },
              outputTokens: { total: 1, text: 1, reasoning: 0 }
            }
          }
        ] as never)
      },
      streamText: () => Stream.empty
    })
    return Effect.gen(function*() {
      const response = yield* LanguageModel.generateText({ prompt: "echo hi", toolkit: Tools })
      const [result] = response.toolResults
      assert.isTrue(result!.isFailure)
      assert.include(result!.encodedResult, { reason: "RateLimited", retryAfterMillis: 11_500 })
    }).pipe(
      Effect.provideServiceEffect(LanguageModel.LanguageModel, model),
      Effect.provide(echo.pipe(Layer.provide(pipeline({ limit: limited }))))
    )
  })
})
