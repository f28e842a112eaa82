import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Option } from "effect"
import { ToolCall, ToolMeta, ToolPipeline } from "effect-toolops"
import { AuthError } from "effect-toolops/auth"
import {
  CircuitBreaker,
  ResilienceError,
  ResilienceMiddleware,
  RetryBudget,
  ToolGuards
} from "effect-toolops/resilience"
import { TestClock } from "effect/testing"

const pipelineOf = (options?: ResilienceMiddleware.Options) =>
  ToolPipeline.layerOf(ResilienceMiddleware.ResilienceMiddleware).pipe(
    Layer.provideMerge(ResilienceMiddleware.layer(options))
  )

const Pipeline = ToolPipeline.of<ResilienceError.ResilienceError>()

const search = ToolMeta.make({ namespace: "github", name: "search", readOnly: true })
const create = ToolMeta.make({ namespace: "github", name: "create" })

/** A handler that always fails, and how often it was started. */
const failing = () => {
  const state = { runs: 0, handler: Effect.fail("down") as Effect.Effect<string, string> }
  state.handler = Effect.suspend(() => {
    state.runs += 1
    return Effect.fail("down")
  })
  return state
}

/** How often the handler of a failing call is started, under a clock that passes a minute. */
const runsOf = (call: ToolCall.Options) =>
  Effect.gen(function*() {
    const pipeline = yield* Pipeline
    const state = failing()
    const fiber = yield* Effect.forkChild(Effect.exit(pipeline.run(call, state.handler)))
    yield* TestClock.adjust("10 minutes")
    assert.isTrue(Exit.isFailure(yield* Fiber.join(fiber)))
    return state.runs
  })

const statusOf = (key: string) =>
  Effect.gen(function*() {
    const guards = yield* ToolGuards.ToolGuards
    const circuit = yield* guards.circuitBreaker(key)
    return Option.isNone(circuit) ? "none" : yield* circuit.value.state
  })

describe("ResilienceMiddleware", () => {
  it.effect("repeats read-only and idempotent tools, and never a tool that may write", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* runsOf({ tool: search }), 3)
      assert.strictEqual(yield* runsOf({ tool: ToolMeta.make({ name: "put", idempotent: true }) }), 3)
      assert.strictEqual(yield* runsOf({ tool: create }), 1)
      assert.strictEqual(yield* runsOf({ tool: create, idempotencyKey: "k1" }), 1)
    }).pipe(Effect.provide(pipelineOf())))

  it.effect("repeats a write that accepts idempotency keys only where the call brings one", () =>
    Effect.gen(function*() {
      const pay = ToolMeta.make({ name: "pay", policy: { acceptsIdempotencyKey: true } })
      assert.strictEqual(yield* runsOf({ tool: pay }), 1)
      assert.strictEqual(yield* runsOf({ tool: pay, idempotencyKey: "" }), 1)
      assert.strictEqual(yield* runsOf({ tool: pay, idempotencyKey: "k1" }), 3)
    }).pipe(Effect.provide(pipelineOf())))

  it.effect("hedges only tools that are read-only", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const startsOf = (tool: ToolMeta.ToolMeta) =>
        Effect.gen(function*() {
          let starts = 0
          const handler = Effect.suspend(() => {
            starts += 1
            return Effect.sleep("10 seconds")
          })
          const fiber = yield* Effect.forkChild(pipeline.run({ tool }, handler))
          yield* TestClock.adjust("20 seconds")
          yield* Fiber.join(fiber)
          return starts
        })
      assert.strictEqual(yield* startsOf(search), 2)
      assert.strictEqual(yield* startsOf(ToolMeta.make({ name: "put", idempotent: true })), 1)
      assert.strictEqual(yield* startsOf(create), 1)
    }).pipe(Effect.provide(pipelineOf({ defaults: { hedge: { delay: "1 second" } } }))))

  it.effect("lets the most specific say win: the tool, its exact rule, its namespace, everything, the defaults", () =>
    Effect.gen(function*() {
      const own = ToolMeta.make({
        namespace: "github",
        name: "own",
        readOnly: true,
        policy: { retry: { maxAttempts: 6 } }
      })
      assert.strictEqual(yield* runsOf({ tool: ToolMeta.make({ name: "a", readOnly: true }) }), 2)
      assert.strictEqual(yield* runsOf({ tool: ToolMeta.make({ namespace: "github", name: "b", readOnly: true }) }), 4)
      assert.strictEqual(yield* runsOf({ tool: search }), 5)
      assert.strictEqual(yield* runsOf({ tool: own }), 6)
      const off = ToolMeta.make({ namespace: "github", name: "off", readOnly: true, policy: { retry: false } })
      assert.strictEqual(yield* runsOf({ tool: off }), 1)
    }).pipe(Effect.provide(pipelineOf({
      defaults: { circuitBreaker: false, retry: false },
      rules: [
        { tools: ["github:search", "github:own"], policy: { retry: { maxAttempts: 5 } } },
        { tools: "github:*", policy: { retry: { maxAttempts: 4 } } },
        { tools: "*", policy: { retry: { maxAttempts: 2 } } }
      ]
    }))))

  it.effect("keeps the options that a more specific say does not mention", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const tool = ToolMeta.make({ name: "a", readOnly: true, policy: { retry: { maxAttempts: 2 } } })
      const state = failing()
      const fiber = yield* Effect.forkChild(Effect.exit(pipeline.run({ tool }, state.handler)))
      yield* TestClock.adjust("6 seconds")
      assert.strictEqual(state.runs, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(state.runs, 2)
      yield* Fiber.join(fiber)
    }).pipe(
      Effect.provide(pipelineOf({ defaults: { retry: { initialDelay: "7 seconds", jitter: "none", maxAttempts: 4 } } }))
    ))

  it.effect("gives each tool a circuit of its own, and tools of one dependency one", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const down = (tool: ToolMeta.ToolMeta) => Effect.exit(pipeline.run({ tool }, Effect.fail("down")))
      const policy = { dependency: "github-api", retry: false } as const
      const first = ToolMeta.make({ name: "first", policy })
      const second = ToolMeta.make({ name: "second", policy })
      const alone = ToolMeta.make({ name: "alone" })
      for (let i = 0; i < 3; i++) yield* down(first)
      assert.strictEqual(yield* statusOf("github-api"), "closed")
      for (let i = 0; i < 2; i++) yield* down(second)
      assert.strictEqual(yield* statusOf("github-api"), "open")
      assert.strictEqual(yield* statusOf("first"), "none")
      yield* down(alone)
      assert.strictEqual(yield* statusOf("alone"), "closed")
      const refused = yield* Effect.flip(pipeline.run({ tool: first }, Effect.void))
      assert.strictEqual(refused.reason._tag, "CircuitOpen")
      assert.strictEqual(refused.reason._tag === "CircuitOpen" ? refused.reason.name : "", "github-api")
      assert.deepStrictEqual(refused.retryAfter, Duration.seconds(30))
    }).pipe(Effect.provide(pipelineOf())))

  it.effect("does not open a circuit for callers who were refused on the way", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const expired = new AuthError.AuthError({ reason: new AuthError.TokenExpired() })
      const refusing = pipeline.wrap(
        create,
        (_, call) => Effect.suspend(() => Effect.fail(call.record.refuse("unauthenticated", expired)))
      )
      for (let i = 0; i < 20; i++) assert.strictEqual(yield* Effect.flip(refusing(i)), expired)
      assert.strictEqual(yield* statusOf("github:create"), "closed")
      // The same error from the handler is the dependency's.
      for (let i = 0; i < 5; i++) yield* Effect.exit(pipeline.run({ tool: create }, Effect.fail(expired)))
      assert.strictEqual(yield* statusOf("github:create"), "open")
    }).pipe(Effect.provide(pipelineOf())))

  it.effect("refuses tools of one dependency that want different things of its circuit", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const toolOf = (name: string, maxFailures: number) =>
        ToolMeta.make({ name, policy: { dependency: "d", circuitBreaker: { maxFailures } } })
      pipeline.wrap(toolOf("a", 3), () => Effect.void)
      pipeline.wrap(toolOf("b", 3), () => Effect.void)
      assert.throws(
        () => pipeline.wrap(toolOf("c", 4), () => Effect.void),
        /policy of c: circuitBreaker: another tool of the dependency "d" sets other options/
      )
    }).pipe(Effect.provide(pipelineOf())))

  it.effect("says in the record what became of the call, how often it ran and what it depends on", () =>
    Effect.gen(function*() {
      const stage = yield* ResilienceMiddleware.ResilienceMiddleware
      const tool = ToolMeta.make({
        name: "echo",
        policy: { dependency: "d", circuitBreaker: { maxFailures: 1 }, bulkhead: { maxConcurrent: 1 } }
      })
      const around = stage.forTool(tool)
      const settled = <A, E>(handler: Effect.Effect<A, E>) =>
        Effect.gen(function*() {
          const call = ToolCall.make({ tool })
          call.record.settle(yield* Effect.exit(around(call, handler)))
          return call.record
        })
      assert.strictEqual((yield* settled(Effect.void)).outcome, "ok")
      const busy = yield* Effect.forkChild(around(ToolCall.make({ tool }), Effect.never))
      yield* Effect.yieldNow
      const full = yield* settled(Effect.void)
      assert.deepStrictEqual([full.outcome, full.errorType, full.dependency], ["rejected", "BulkheadFull", "d"])
      yield* Fiber.interrupt(busy)
      const slow = yield* Effect.forkChild(settled(Effect.never))
      yield* TestClock.adjust("30 seconds")
      const timedOut = yield* Fiber.join(slow)
      assert.deepStrictEqual([timedOut.outcome, timedOut.errorType], ["timed_out", "TimedOut"])
      const open = yield* settled(Effect.void)
      assert.deepStrictEqual([open.outcome, open.errorType], ["rejected", "CircuitOpen"])
      const nested = yield* Effect.flip(around(ToolCall.make({ tool }), Effect.void))
      const other = ToolCall.make({ tool })
      assert.strictEqual(other.record.settle(Exit.fail(nested)), "failed")
    }).pipe(Effect.provide(ResilienceMiddleware.layer())))

  it.effect("explains what a call would meet, and spends nothing", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const plan = () => Effect.map(pipeline.explain({ tool: search }), (plans) => plans[0]!)
      assert.deepStrictEqual(yield* plan(), {
        stage: "resilience",
        verdict: "pass",
        detail: {
          dependency: "github:search",
          circuitBreaker: "closed",
          bulkhead: { active: 0, queued: 0 },
          retry: "on",
          timeout: "on"
        }
      })
      assert.deepStrictEqual(yield* (yield* ToolGuards.ToolGuards).snapshots, [])
      for (let i = 0; i < 2; i++) yield* runsOf({ tool: ToolMeta.make({ namespace: "github", name: "search" }) })
      assert.strictEqual((yield* plan()).verdict, "refuse")
      assert.strictEqual((yield* plan()).detail["circuitBreaker"], "open")
    }).pipe(Effect.provide(pipelineOf({ defaults: { circuitBreaker: { maxFailures: 2, resetTimeout: "1 hour" } } }))))

  it.effect("keeps no more keys than maxKeys, and forgets none that is open or busy", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const guards = yield* ToolGuards.ToolGuards
      const open = ToolMeta.make({ name: "open" })
      yield* Effect.exit(pipeline.run({ tool: open }, Effect.fail("down")))
      const busy = ToolMeta.make({ name: "busy" })
      const running = yield* Effect.forkChild(pipeline.run({ tool: busy }, Effect.never))
      yield* Effect.yieldNow
      for (let i = 0; i < 100; i++) yield* pipeline.run({ tool: ToolMeta.make({ name: `t${i}` }) }, Effect.void)
      const keys = (yield* guards.snapshots).map(({ key }) => key)
      assert.strictEqual(keys.length, 4)
      assert.includeMembers(keys, ["open", "busy"])
      // A tool that was forgotten and is called again has a circuit that works.
      yield* Effect.exit(pipeline.run({ tool: ToolMeta.make({ name: "t0" }) }, Effect.fail("down")))
      assert.strictEqual(yield* statusOf("t0"), "open")
      yield* Fiber.interrupt(running)
    }).pipe(Effect.provide(pipelineOf({ maxKeys: 4, defaults: { circuitBreaker: { maxFailures: 1 } } }))))

  it.effect("finds a forgotten tool's new circuit through the function that was wrapped before", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const down = pipeline.wrap(ToolMeta.make({ name: "down" }), () => Effect.fail("down"))
      yield* pipeline.run({ tool: ToolMeta.make({ name: "other" }) }, Effect.void)
      assert.strictEqual(yield* statusOf("down"), "none")
      yield* Effect.exit(down(undefined))
      assert.strictEqual(yield* statusOf("down"), "open")
    }).pipe(Effect.provide(pipelineOf({ maxKeys: 1, defaults: { circuitBreaker: { maxFailures: 1 } } }))))

  it.effect("tells what guards each tool: a retry budget only where the tool is repeated, none of what is off", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const budget = yield* RetryBudget.make({ minPerSecond: 7 })
      const hedged = ToolMeta.make({
        name: "hedged",
        readOnly: true,
        policy: { retry: false, circuitBreaker: false, bulkhead: false, hedge: { delay: "1 second", budget } }
      })
      yield* pipeline.run({ tool: search }, Effect.void)
      yield* pipeline.run({ tool: create }, Effect.void)
      yield* pipeline.run({ tool: hedged }, Effect.void)
      const guards = yield* (yield* ToolGuards.ToolGuards).snapshots
      assert.deepStrictEqual(
        guards.map((guard) => [
          guard.key,
          guard.circuitBreaker?.status,
          guard.bulkhead?.highWaterMark,
          guard.retryBudget !== undefined
        ]),
        [
          ["github:search", "closed", 1, true],
          ["github:create", "closed", 1, false],
          ["hedged", undefined, undefined, true]
        ]
      )
      // The hedge counts its calls in the budget that it was given.
      assert.strictEqual((yield* budget.snapshot).calls, 1)
    }).pipe(Effect.provide(pipelineOf())))

  it.effect("lets an operator force a tool's circuit", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const guards = yield* ToolGuards.ToolGuards
      yield* pipeline.run({ tool: search }, Effect.void)
      const circuit: CircuitBreaker.CircuitBreaker["Service"] = Option.getOrThrow(
        yield* guards.circuitBreaker("github:search")
      )
      yield* circuit.forceOpen
      assert.isTrue(Exit.isFailure(yield* Effect.exit(pipeline.run({ tool: search }, Effect.void))))
      yield* circuit.reset
      yield* pipeline.run({ tool: search }, Effect.void)
    }).pipe(Effect.provide(pipelineOf())))

  it("throws on nonsense when the layer is made, and says where", () => {
    const nonsense: ReadonlyArray<readonly [ResilienceMiddleware.Options, RegExp]> = [
      [{ maxKeys: 0 }, /layer: maxKeys must be an integer >= 1, got 0/],
      [{ defaults: { timeout: { timeout: -1 } } }, /layer: defaults: timeout: timeout must be a duration/],
      [{ defaults: { bulkhead: { maxConcurrent: 1.5 } } }, /defaults: bulkhead: maxConcurrent must be an integer/],
      [{ rules: [{ tools: "git*", policy: {} }] }, /rules\[0\]: tools must hold exact tool ids/],
      [{ rules: [{ tools: [], policy: {} }] }, /rules\[0\]: tools must name at least one tool/],
      [
        { rules: [{ tools: "*", policy: { circuitBreaker: { maxFailures: NaN } } }] },
        /rules\[0\]: circuitBreaker: max/
      ],
      [{ defaults: { dependency: "" } }, /dependency must be a string of 1 to 256/],
      // Misspelt, as it may come from a configuration file.
      [{ defaults: { retires: {} } as {} }, /unknown option "retires"/],
      [{ rule: [] } as {}, /unknown option "rule"/],
      [{ defaults: { retry: true as unknown as false } }, /retry must be options or false, got boolean/],
      [{ defaults: null } as {}, /layer: defaults must be an object/],
      [{ rules: {} } as {}, /layer: rules must be an array/],
      [{ rules: [null] } as {}, /rules\[0\] must be an object/],
      [{ rules: [{ tools: "*" }] } as {}, /rules\[0\]: policy must be an object/],
      [{ rules: [{ tools: 5, policy: {} }] } as {}, /rules\[0\]: tools must be a pattern or an array of them/]
    ]
    for (const [options, message] of nonsense) assert.throws(() => ResilienceMiddleware.layer(options), message)
  })

  it.effect("throws on a tool's own nonsense where the tool is wrapped", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const tool = ToolMeta.make({ name: "t", policy: { circuitBreaker: { halfOpenSuccesses: 2 } } })
      assert.throws(
        () => pipeline.wrap(tool, () => Effect.void),
        /policy of t: circuitBreaker: halfOpenSuccesses must be at most halfOpenMaxRequests \(1\), got 2/
      )
    }).pipe(Effect.provide(pipelineOf())))
})
