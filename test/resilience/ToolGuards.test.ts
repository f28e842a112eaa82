import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option, Schedule } from "effect"
import { ToolMeta } from "effect-toolops"
import { Classify, type ResiliencePolicy, ToolGuards } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { Pipeline, pipelineOf } from "./pipeline.ts"

const onGithub = (name: string, policy: ResiliencePolicy.ResiliencePolicy = {}) =>
  ToolMeta.make({ name, policy: { dependency: "github-api", ...policy } })

const keys = Effect.map(
  Effect.flatMap(ToolGuards.ToolGuards, (guards) => guards.snapshots),
  (snapshots) => snapshots.map(({ key }) => key)
)

describe("ToolGuards", () => {
  it.effect("lets tools of one dependency share its slots, and says in a plan that none is free", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const planOf = (tool: ToolMeta.ToolMeta) =>
        Effect.map(
          pipeline.explain({ tool }),
          ([plan]) => ({ verdict: plan!.verdict, bulkhead: plan!.detail["bulkhead"] })
        )
      const running = yield* Effect.forkChild(pipeline.run({ tool: onGithub("search") }, Effect.never), {
        startImmediately: true
      })
      const refused = yield* Effect.flip(pipeline.run({ tool: onGithub("create") }, Effect.void))
      assert.strictEqual(refused.reason._tag, "BulkheadFull")
      assert.deepStrictEqual(yield* planOf(onGithub("create")), {
        verdict: "refuse",
        bulkhead: { active: 1, queued: 0 }
      })
      assert.strictEqual(yield* pipeline.run({ tool: ToolMeta.make({ name: "other" }) }, Effect.succeed(1)), 1)
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(yield* planOf(onGithub("create")), { verdict: "pass", bulkhead: { active: 0, queued: 0 } })
      assert.strictEqual(yield* pipeline.run({ tool: onGithub("create") }, Effect.succeed(1)), 1)
    }).pipe(Effect.provide(pipelineOf({ defaults: { bulkhead: { maxConcurrent: 1 } } }))))

  it.effect("takes options of one dependency for equal that come to the same", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const openings = Schedule.exponential("1 second").pipe(Schedule.jittered)
      const window = { type: "time", duration: "10 seconds" } as const
      const equal: ReadonlyArray<readonly [ResiliencePolicy.ResiliencePolicy, ResiliencePolicy.ResiliencePolicy]> = [
        [{ circuitBreaker: { resetTimeout: "30 seconds" } }, { circuitBreaker: { resetTimeout: 30_000 } }],
        [{ circuitBreaker: { maxFailures: 5 } }, {}],
        [{ circuitBreaker: { classify: Classify.all } }, {}],
        [{ circuitBreaker: { window } }, { circuitBreaker: { window: { ...window, duration: Duration.seconds(10) } } }],
        [{ circuitBreaker: { resetTimeout: openings } }, { circuitBreaker: { resetTimeout: openings } }],
        [{ bulkhead: { maxConcurrent: undefined } }, {}],
        [{ retry: { budget: { share: 0.2 } } }, { retry: { budget: {} } }]
      ]
      equal.forEach(([a, b], index) => {
        const tool = (name: string, policy: ResiliencePolicy.ResiliencePolicy) =>
          ToolMeta.make({ name, idempotent: true, policy: { ...policy, dependency: `d${index}` } })
        pipeline.wrap(tool("a", a), () => Effect.void)
        pipeline.wrap(tool("b", b), () => Effect.void)
      })
      pipeline.wrap(onGithub("a", { circuitBreaker: { window } }), () => Effect.void)
      const others: ReadonlyArray<ResiliencePolicy.ResiliencePolicy> = [
        { circuitBreaker: { window: { ...window, duration: "11 seconds" } } },
        { circuitBreaker: { window: { ...window, minimumCalls: 9 } } },
        { circuitBreaker: { window, classify: () => "success" } },
        { circuitBreaker: { window }, bulkhead: { maxConcurrent: 9 } }
      ]
      for (const policy of others) {
        assert.throws(
          () => pipeline.wrap(onGithub("b", policy), () => Effect.void),
          /another tool of the dependency "github-api" sets other options/
        )
      }
    }).pipe(Effect.provide(pipelineOf())))

  it.effect("guards a tool for which there is no place as long as a tool of its key is there", () =>
    Effect.gen(function*() {
      const pipeline = yield* Pipeline
      const guards = yield* ToolGuards.ToolGuards
      const first = ToolMeta.make({ name: "first" })
      yield* Effect.exit(pipeline.run({ tool: first }, Effect.fail("down")))
      const search = onGithub("search")
      yield* Effect.exit(pipeline.run({ tool: search }, Effect.fail("down")))
      // One dependency has one circuit, also where it is not kept.
      const create = onGithub("create")
      const refused = yield* Effect.flip(pipeline.run({ tool: create }, Effect.void))
      assert.strictEqual(refused.reason._tag, "CircuitOpen")
      assert.strictEqual((yield* pipeline.explain({ tool: create }))[0]!.verdict, "refuse")
      assert.deepStrictEqual(yield* keys, ["first", "github-api"])
      // It finds a place when there is one, and stays what it is.
      yield* Option.getOrThrow(yield* guards.circuitBreaker("first")).reset
      assert.strictEqual(
        yield* Effect.flip(pipeline.run({ tool: onGithub("third") }, Effect.void)).pipe(
          Effect.map((error) => error.reason._tag)
        ),
        "CircuitOpen"
      )
      assert.deepStrictEqual(yield* keys, ["github-api"])
      yield* Option.getOrThrow(yield* guards.circuitBreaker("github-api")).forceOpen
      yield* TestClock.adjust("1 hour")
      for (const tool of [search, create]) {
        const { reason } = yield* Effect.flip(pipeline.run({ tool }, Effect.void))
        assert.strictEqual(reason._tag, "CircuitOpen")
      }
    }).pipe(Effect.provide(pipelineOf({ maxKeys: 1, defaults: { circuitBreaker: { maxFailures: 1 } } }))))
})
