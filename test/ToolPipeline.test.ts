import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Formatter, Layer, Redacted } from "effect"
import { type CallRecord, ToolCall, ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import { ApiKey, AuthError, AuthMiddleware, Authorizer, Identity } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { inspect } from "node:util"

const echo = ToolMeta.make({ name: "echo", readOnly: true })

const AllPassThrough = Layer.mergeAll(
  ObserveMiddleware.layerPassthrough,
  AuthMiddleware.layerPassthrough,
  RateLimitMiddleware.layerPassthrough,
  CacheMiddleware.layerPassthrough,
  ResilienceMiddleware.layerPassthrough
)

const refusal = new AuthError.AuthError({ reason: new AuthError.MissingCredentials() })

/** A stage of its own tag that writes down when a call enters and leaves it, and refuses when told. */
const tracing = (log: Array<string>, name: string, options?: { readonly refuses?: boolean }) =>
  ToolMiddleware.of<AuthError.AuthError>({
    name,
    forTool: (tool) => {
      log.push(`${name} forTool ${tool.id}`)
      const enter = Effect.sync(() => log.push(`${name} in`))
      if (options?.refuses === true) {
        return (call) => Effect.andThen(enter, Effect.fail(call.record.refuse("unauthenticated", refusal)))
      }
      return (_call, next) =>
        Effect.andThen(enter, Effect.onExit(next, (exit) => Effect.sync(() => log.push(`${name} out ${exit._tag}`))))
    },
    forExecution: () => (_call, next) =>
      Effect.suspend(() => {
        log.push(`${name} execution`)
        return next
      })
  })

class Outer extends Context.Service<Outer, ToolMiddleware.ToolMiddleware<AuthError.AuthError>>()("test/Outer") {}
class Middle extends Context.Service<Middle, ToolMiddleware.ToolMiddleware<AuthError.AuthError>>()("test/Middle") {}
class Inner extends Context.Service<Inner, ToolMiddleware.ToolMiddleware<AuthError.AuthError>>()("test/Inner") {}

const traced = (log: Array<string>, refusing?: "outer" | "middle" | "inner") =>
  Effect.provide(
    ToolPipeline.make(Outer, Middle, Inner),
    Layer.mergeAll(
      Layer.succeed(Outer, tracing(log, "outer", { refuses: refusing === "outer" })),
      Layer.succeed(Middle, tracing(log, "middle", { refuses: refusing === "middle" })),
      Layer.succeed(Inner, tracing(log, "inner", { refuses: refusing === "inner" }))
    )
  )

/** A stage that keeps the record of every call it sees settle. */
const recording = (records: Array<CallRecord.CallRecord>) =>
  ToolMiddleware.of<never>({
    name: "recording",
    forTool: () => (call, next) =>
      Effect.onExit(next, (exit) =>
        Effect.sync(() => {
          call.record.settle(exit)
          records.push(call.record)
        }))
  })
class Recording extends Context.Service<Recording, ToolMiddleware.ToolMiddleware<never>>()("test/Recording") {}

const recorded = (records: Array<CallRecord.CallRecord>) =>
  Effect.provide(ToolPipeline.make(Recording), Layer.succeed(Recording, recording(records)))

describe("ToolPipeline", () => {
  describe("order", () => {
    it.effect("passes a call through the stages from the outside in, and the answer back", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const pipeline = yield* traced(log)
        const answer = yield* pipeline.run(
          { tool: echo },
          Effect.sync(() => {
            log.push("handler")
            return 1
          })
        )
        assert.strictEqual(answer, 1)
        assert.deepStrictEqual(log.filter((line) => !line.includes("forTool")), [
          "outer in",
          "middle in",
          "inner in",
          "outer execution",
          "middle execution",
          "inner execution",
          "handler",
          "inner out Success",
          "middle out Success",
          "outer out Success"
        ])
        assert.deepStrictEqual(pipeline.stages, ["outer", "middle", "inner"])
      }))

    for (const refusing of ["outer", "middle", "inner"] as const) {
      it.effect(`stops a call at the ${refusing} stage when that one refuses`, () =>
        Effect.gen(function*() {
          const log: Array<string> = []
          const pipeline = yield* traced(log, refusing)
          const error = yield* Effect.flip(pipeline.run({ tool: echo }, Effect.sync(() => log.push("handler"))))
          assert.strictEqual(error, refusal)
          const order = ["outer", "middle", "inner"]
          const entered = order.slice(0, order.indexOf(refusing) + 1).map((name) => `${name} in`)
          const left = order.slice(0, order.indexOf(refusing)).toReversed().map((name) => `${name} out Failure`)
          assert.deepStrictEqual(log.filter((line) => !line.includes("forTool")), [...entered, ...left])
        }))
    }

    it.effect("has the five stages in the documented order", () =>
      Effect.gen(function*() {
        const pipeline = yield* ToolPipeline.ToolPipeline
        assert.deepStrictEqual(pipeline.stages, ["observe", "auth", "limit", "cache", "resilience"])
      }).pipe(Effect.provide(Layer.provide(ToolPipeline.layer, AllPassThrough))))
  })

  describe("once per tool", () => {
    it.effect("asks each stage about a tool once, however often and by whichever way it is called", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const pipeline = yield* traced(log)
        const wrapped = pipeline.wrap(echo, (input: number) => Effect.succeed(input))
        for (let i = 0; i < 50; i++) {
          yield* pipeline.run({ tool: echo, input: i }, Effect.void)
          yield* wrapped(i)
        }
        yield* Effect.forEach([1, 2, 3], (i) => wrapped(i), { concurrency: "unbounded" })
        assert.deepStrictEqual(log.filter((line) => line.includes("forTool")).toSorted(), [
          "inner forTool echo",
          "middle forTool echo",
          "outer forTool echo"
        ])
      }))

    it.effect("keeps two tools of the same name apart", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const pipeline = yield* traced(log)
        yield* pipeline.run({ tool: ToolMeta.make({ name: "twin" }) }, Effect.void)
        yield* pipeline.run({ tool: ToolMeta.make({ name: "twin" }) }, Effect.void)
        assert.strictEqual(log.filter((line) => line === "outer forTool twin").length, 2)
      }))
  })

  describe("outcomes", () => {
    it.effect("tells an answer", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* recorded(records)
        yield* pipeline.run({ tool: echo }, Effect.void)
        assert.deepStrictEqual([records[0]?.outcome, records[0]?.attempts], ["ok", 1])
      }))

    it.effect("lets the handler's own error out unchanged and tells it", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* recorded(records)
        const boom = { _tag: "Boom", secret: "s3cret" } as const
        assert.strictEqual(yield* Effect.flip(pipeline.run({ tool: echo }, Effect.fail(boom))), boom)
        assert.deepStrictEqual([records[0]?.outcome, records[0]?.errorType], ["failed", "Boom"])
      }))

    it.effect("lets a defect out unchanged and tells it", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* recorded(records)
        const defect = new Error("bug")
        const exit = yield* Effect.exit(pipeline.run({ tool: echo }, Effect.die(defect)))
        assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) === defect)
        assert.deepStrictEqual([records[0]?.outcome, records[0]?.errorType], ["defect", "defect"])
      }))

    it.effect("turns a throwing handler into a defect inside the stages", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* recorded(records)
        const throwing = pipeline.wrap(echo, (): Effect.Effect<void> => {
          throw new Error("bug")
        })
        assert.isTrue(Exit.hasDies(yield* Effect.exit(throwing(undefined))))
        assert.strictEqual(records[0]?.outcome, "defect")
      }))

    it.effect("interrupts the handler with the caller and tells it", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* recorded(records)
        const started = yield* Deferred.make<void>()
        let isInterrupted = false
        const fiber = yield* Effect.forkChild(pipeline.run(
          { tool: echo },
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Effect.sync(() => void (isInterrupted = true)))
          )
        ))
        yield* Deferred.await(started)
        yield* Fiber.interrupt(fiber)
        assert.isTrue(isInterrupted)
        assert.strictEqual(records[0]?.outcome, "interrupted")
      }))

    it.effect("counts a refusal of a nested tool call as a failure of the outer tool", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const outer = yield* recorded(records)
        const nested = yield* traced([], "inner")
        const nestedTool = ToolMeta.make({ name: "nested" })
        yield* Effect.exit(outer.run({ tool: echo }, nested.run({ tool: nestedTool }, Effect.void)))
        assert.deepStrictEqual([records[0]?.outcome, records[0]?.errorType], ["failed", "MissingCredentials"])
      }))
  })

  describe("records", () => {
    it.effect("keeps the record of each of 10,000 concurrent calls to itself", () =>
      Effect.gen(function*() {
        const seen = new Map<string, string>()
        class Marking extends Context.Service<Marking, ToolMiddleware.ToolMiddleware<never>>()("test/Marking") {}
        const pipeline = yield* Effect.provideService(ToolPipeline.make(Marking), Marking, {
          name: "marking",
          forTool: () => (call, next) =>
            Effect.suspend(() => {
              call.record.rule = String(call.input)
              return Effect.onExit(Effect.andThen(Effect.yieldNow, next), () =>
                Effect.sync(() => {
                  seen.set(call.callId, `${String(call.input)} ${call.record.rule} ${call.record.attempts}`)
                }))
            })
        })
        const guarded = pipeline.wrap(echo, (input: number) => Effect.as(Effect.yieldNow, input))
        const inputs = Array.from({ length: 10_000 }, (_, i) => i)
        const answers = yield* Effect.forEach(inputs, (i) => guarded(i), { concurrency: "unbounded" })
        assert.deepStrictEqual(answers, inputs)
        assert.strictEqual(seen.size, 10_000)
        for (const line of seen.values()) {
          const [input, rule, attempts] = line.split(" ")
          assert.strictEqual(rule, input)
          assert.strictEqual(attempts, "1")
        }
      }))

    it.effect("starts a new record each time the same effect runs", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* recorded(records)
        const call = ToolCall.make({ tool: echo, input: 1, callId: "given" })
        const effect = pipeline.run(call, Effect.void)
        yield* effect
        yield* effect
        assert.strictEqual(records.length, 2)
        assert.notStrictEqual(records[0], records[1])
        assert.deepStrictEqual(records.map((record) => record.attempts), [1, 1])
        assert.strictEqual(call.record.attempts, 0)
      }))

    it.effect("names each call differently unless a name is given", () =>
      Effect.gen(function*() {
        const names: Array<string> = []
        const pipeline = yield* Effect.provideService(ToolPipeline.make(Recording), Recording, {
          name: "naming",
          forTool: () => (call, next) =>
            Effect.suspend(() => {
              names.push(call.callId)
              return next
            })
        })
        const guarded = pipeline.wrap(echo, () => Effect.void)
        yield* guarded(1)
        yield* guarded(1)
        yield* guarded(1, { callId: "mine" })
        assert.strictEqual(new Set(names).size, 3)
        assert.strictEqual(names[2], "mine")
      }))
  })

  it.effect("passes options of the call on to the stages", () =>
    Effect.gen(function*() {
      const calls: Array<ToolCall.ToolCall> = []
      const pipeline = yield* Effect.provideService(ToolPipeline.make(Recording), Recording, {
        name: "keeping",
        forTool: () => (call, next) =>
          Effect.suspend(() => {
            calls.push(call)
            return next
          })
      })
      const headers = { "X-Api-Key": "k" }
      const options = { action: "list", headers, callId: "c", idempotencyKey: "i" }
      yield* pipeline.wrap(echo, () => Effect.void)(1, options)
      yield* pipeline.run({ tool: echo, input: 1, ...options }, Effect.void)
      yield* pipeline.run(ToolCall.make({ tool: echo, input: 1, ...options }), Effect.void)
      for (const call of calls) {
        assert.deepStrictEqual(
          [call.tool, call.input, call.action, call.headers, call.callId, call.idempotencyKey],
          [echo, 1, "list", headers, "c", "i"]
        )
      }
      assert.strictEqual(calls.length, 3)
    }))

  it.effect("gives handlers an anonymous caller when auth is passed through, or the one of the edge", () =>
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      const whoami = pipeline.run({ tool: echo }, Effect.map(Identity.CurrentIdentity, (who) => who.principal))
      assert.strictEqual(yield* whoami, "anonymous")
      const edge = Identity.make({ principal: "ada" })
      assert.strictEqual(yield* Effect.provideService(whoami, Identity.CurrentIdentity, edge), "ada")
    }).pipe(Effect.provide(Layer.provide(ToolPipeline.layer, AllPassThrough))))

  it.effect("explains a call stage by stage without running it", () =>
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      const plan = yield* pipeline.explain({ tool: echo })
      assert.deepStrictEqual(plan.map((line) => [line.stage, line.verdict]), [
        ["observe", "pass"],
        ["auth", "pass"],
        ["limit", "pass"],
        ["cache", "pass"],
        ["resilience", "pass"]
      ])
    }).pipe(Effect.provide(Layer.provide(ToolPipeline.layer, AllPassThrough))))

  describe("a tool for everyone", () => {
    const shared = ToolMeta.make({ name: "shared", readOnly: true, varies: "everyone" })
    // What the compiler sees of a tool that is in a list.
    const [widened] = [shared] as ReadonlyArray<ToolMeta.ToolMeta>
    const inner = ToolMeta.make({ name: "inner" })
    const keys = ["ada", "bob"].map((name) => ({
      id: name,
      key: Redacted.make(`a-key-of-${name}-that-is-long`),
      principal: name
    }))
    const Live = ToolPipeline.layer.pipe(
      Layer.provide([
        ObserveMiddleware.layer(),
        AuthMiddleware.layer,
        RateLimitMiddleware.layerPassthrough,
        CacheMiddleware.layer,
        ResilienceMiddleware.layer()
      ]),
      Layer.provide([ApiKey.layer(), Authorizer.layerAllowAll, ToolCache.layerMemory()]),
      Layer.provide(ApiKey.layerMemory({ keys }))
    )
    const whoami = Effect.map(Identity.CurrentIdentity, (who) => who.principal)
    const asBoth = <E>(run: (headers: ToolCall.RequestHeadersInput) => Effect.Effect<unknown, E>) =>
      Effect.forEach(keys, ({ key }) => {
        const headers = { "X-API-Key": Redacted.value(key) }
        return Effect.provideService(Effect.exit(run(headers)), ToolCall.RequestHeaders, headers)
      })

    const ways: Record<
      string,
      (p: ToolPipeline.Pipeline<ToolPipeline.PipelineError, Identity.CurrentIdentity>) => (
        headers: ToolCall.RequestHeadersInput
      ) => Effect.Effect<unknown, unknown>
    > = {
      "through a tool that its handler calls": (p) => {
        const nested = p.wrap(inner, () => whoami)
        const outer = p.wrap(shared, () => nested(1))
        return (headers) => outer(1, { headers })
      },
      "through a tool whose type does not say that it is for everyone": (p) => (headers) =>
        p.run({ tool: widened!, input: 1, headers }, whoami),
      "through the context": (p) => (headers) =>
        p.run({ tool: shared, input: 1, headers }, Effect.serviceOption(Identity.CurrentIdentity)),
      "through the record or the headers of the call": (p) => {
        const outer = p.wrap(
          shared,
          (_, call) => Effect.sync(() => [call.record.identity?.principal ?? "nobody", call.headers ?? "no headers"])
        )
        return (headers) => outer(1, { headers })
      }
    }

    for (const [name, way] of Object.entries(ways)) {
      it.effect(`never finds out who calls ${name}`, () =>
        Effect.gen(function*() {
          const pipeline = yield* ToolPipeline.ToolPipeline
          const [ada, bob] = yield* asBoth(way(pipeline))
          const told = inspect([ada, bob], { depth: 20 })
          assert.notInclude(told, "ada")
          assert.notInclude(told, "bob")
        }).pipe(Effect.provide(Live)))
    }

    it.effect("does not show the request's headers", () =>
      Effect.gen(function*() {
        const pipeline = yield* ToolPipeline.ToolPipeline
        const [ada] = yield* asBoth((headers) =>
          pipeline.run(
            { tool: shared, input: 2, headers },
            Effect.map(ToolCall.RequestHeaders, (seen) => seen === undefined)
          )
        )
        assert.deepStrictEqual(ada, Exit.succeed(true))
      }).pipe(Effect.provide(Live)))

    it.effect("while a tool that varies by caller keeps the caller for what it calls", () =>
      Effect.gen(function*() {
        const pipeline = yield* ToolPipeline.ToolPipeline
        const nested = pipeline.wrap(inner, () => whoami)
        const outer = pipeline.wrap(echo, () => nested(1))
        const exits = yield* asBoth((headers) => outer(1, { headers }))
        assert.deepStrictEqual(exits, [Exit.succeed("ada"), Exit.succeed("bob")])
      }).pipe(Effect.provide(Live)))

    it.effect("is explained to each caller as that caller's", () =>
      Effect.gen(function*() {
        const pipeline = yield* ToolPipeline.ToolPipeline
        const guarded = pipeline.wrap(echo, () => Effect.succeed(1))
        const [ada, bob] = keys.map(({ key }) => ({ "X-API-Key": Redacted.value(key) }))
        yield* guarded(1, { headers: ada })
        const verdicts = (headers: ToolCall.RequestHeadersInput | undefined) =>
          Effect.map(
            pipeline.explain({ tool: echo, input: 1, headers }),
            (plan) => plan.map((line) => `${line.stage} ${line.verdict}`)
          )
        const passes = ["observe pass", "auth pass", "limit pass"]
        assert.deepStrictEqual(yield* verdicts(ada), [...passes, "cache answer", "resilience pass"])
        assert.deepStrictEqual(yield* verdicts(bob), [...passes, "cache pass", "resilience pass"])
        assert.include(yield* verdicts({}), "auth refuse")
      }).pipe(Effect.provide(Live)))
  })

  describe("a stage that throws", () => {
    class Outside extends Context.Service<Outside, ToolMiddleware.ToolMiddleware<never>>()("test/Outside") {}
    class Faulty extends Context.Service<Faulty, ToolMiddleware.ToolMiddleware<never>>()("test/Faulty") {}
    const bug = new Error("bug")
    const around = (faulty: ToolMiddleware.ToolMiddleware<never>, records: Array<CallRecord.CallRecord>) =>
      Effect.provide(
        ToolPipeline.make(Outside, Faulty),
        Layer.merge(Layer.succeed(Outside, recording(records)), Layer.succeed(Faulty, faulty))
      )
    const dies = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) && Cause.squash(exit.cause) === bug
    const throwing = (): never => {
      throw bug
    }

    it.effect("about a call is a defect that the stages around it see", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* around({ name: "faulty", forTool: () => throwing }, records)
        assert.isTrue(dies(yield* Effect.exit(pipeline.run({ tool: echo }, Effect.void))))
        assert.deepStrictEqual(records.map((record) => record.outcome), ["defect"])
      }))

    it.effect("about a tool throws where the tool is wrapped, and is a defect of each call where it is run", () =>
      Effect.gen(function*() {
        const records: Array<CallRecord.CallRecord> = []
        const pipeline = yield* around({ name: "faulty", forTool: throwing }, records)
        assert.throws(() => pipeline.wrap(echo, () => Effect.void), "bug")
        assert.isTrue(dies(yield* Effect.exit(pipeline.run({ tool: echo }, Effect.void))))
        assert.deepStrictEqual(records.map((record) => record.outcome), ["defect"])
      }))
  })

  it.effect("refuses a tool that ToolMeta.make has not made", () =>
    Effect.gen(function*() {
      const pipeline = yield* recorded([])
      const exit = yield* Effect.exit(pipeline.run({ tool: { ...echo } }, Effect.void))
      assert.include(inspect(exit, { depth: 9 }), "must be made by ToolMeta.make")
    }))

  it("prints neither headers nor input nor caller of a call", () => {
    const call = ToolCall.make({
      tool: echo,
      input: { secret: "canary-1" },
      headers: { authorization: "canary-2" },
      idempotencyKey: "key"
    })
    call.record.identity = Identity.make({ principal: "canary-3", claims: { email: "canary-4" } })
    call.record.cacheKey = "canary-5"
    const texts = [
      JSON.stringify([call, call.record]),
      inspect({ call, record: call.record }, { depth: 9 }),
      inspect({ ...call }, { depth: 9 }),
      `${String(call)} ${String(call.record)}`,
      Formatter.format([call, call.record]),
      Formatter.format([call, call.record], { ignoreToString: true }),
      Formatter.formatJson([call, call.record])
    ]
    for (const text of texts.slice(0, 5)) assert.notInclude(text, "canary")
    for (const text of texts) {
      assert.notInclude(text, "canary-1")
      assert.notInclude(text, "canary-2")
    }
  })
})
