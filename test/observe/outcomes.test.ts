import { assert, describe, it, vi } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Random } from "effect"
import { CallRecord, type ToolCall, ToolMeta, type ToolMiddleware, type ToolPipeline } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { McpRequest } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { attributes, observed, search } from "./observed.ts"

setFlagsFromString("--expose-gc")
const gc = runInNewContext("gc") as () => void

type Outcome = CallRecord.Outcome

/** What a stage or a handler does so that a call ends in each of the ways there are. */
const endings: Readonly<
  Record<Outcome, {
    readonly stage?: (call: ToolCall.ToolCall) => Effect.Effect<string, unknown> | undefined
    readonly handler?: Effect.Effect<string, unknown>
    readonly errorType?: string
    readonly level: string
    readonly executions: number
  }>
> = {
  ok: { level: "Info", executions: 1 },
  cached: { stage: answered("hit"), level: "Info", executions: 0 },
  stale: { stage: answered("stale"), level: "Info", executions: 0 },
  coalesced: { stage: answered("coalesced"), level: "Info", executions: 0 },
  denied: refused("denied", "Forbidden"),
  unauthenticated: refused("unauthenticated", "TokenExpired"),
  limited: refused("limited", "RateLimited"),
  rejected: refused("rejected", "CircuitOpen"),
  timed_out: refused("timed_out", "TimedOut"),
  failed: {
    handler: Effect.fail({ _tag: "NotThere", message: "no such page, token=canary" }),
    errorType: "NotThere",
    level: "Error",
    executions: 1
  },
  defect: { handler: Effect.die(new Error("secret: canary")), errorType: "defect", level: "Error", executions: 1 },
  interrupted: { handler: Effect.interrupt, errorType: "interrupted", level: "Info", executions: 1 }
}

function answered(cache: CallRecord.CacheStatus) {
  return (call: ToolCall.ToolCall) => {
    call.record.cache = cache
    return Effect.succeed("known")
  }
}

function refused(outcome: Outcome, reason: string) {
  return {
    stage: (call: ToolCall.ToolCall) =>
      Effect.fail(call.record.refuse(outcome, { _tag: "Refusal", reason: { _tag: reason }, message: "not now" })),
    errorType: reason,
    level: "Warn",
    executions: 0
  }
}

const acting: ToolMiddleware.Around<unknown> = (call, next) =>
  // The answers of this stage are the strings that the handlers of these tests answer.
  (endings[call.input as Outcome].stage?.(call) as typeof next | undefined) ?? next

describe("outcomes", () => {
  for (const outcome of CallRecord.outcomes) {
    const { errorType, executions, handler, level } = endings[outcome]
    it.effect(`tells a call that is ${outcome} as span, metrics and log line`, () => {
      const { lines, metrics, records, run, spans } = observed({ inner: acting })
      return Effect.gen(function*() {
        const work = Effect.andThen(Effect.sleep("20 millis"), handler ?? Effect.succeed("found"))
        const fiber = yield* Effect.forkChild(run((pipeline) => pipeline.run({ tool: search, input: outcome }, work)))
        yield* TestClock.adjust("20 millis")
        yield* Fiber.await(fiber)
        const seconds = executions * 0.02

        const root = spans[0]
        assert.deepStrictEqual(
          spans.map((span) => span.name),
          ["execute_tool search", ...Array<string>(executions).fill("tool.exec.docs.search")]
        )
        const told = attributes(root)
        assert.deepStrictEqual(
          [told["tool.outcome"], told["tool.error"], told["error.type"], told["tool.attempts"]],
          [outcome, errorType !== undefined, errorType, executions]
        )
        for (const { status } of spans) {
          if (status._tag !== "Ended") throw new Error("not ended")
          assert.strictEqual(Exit.isFailure(status.exit), errorType !== undefined)
          if (Exit.isFailure(status.exit)) {
            assert.strictEqual(Cause.hasInterruptsOnly(status.exit.cause), outcome === "interrupted")
            assert.notInclude(Cause.pretty(status.exit.cause), "canary")
          }
        }
        const event = ["cached", "stale", "coalesced"].includes(outcome)
          ? ["tool.cache.hit"]
          : ["denied", "unauthenticated", "limited", "rejected"].includes(outcome)
          ? ["tool.refused"]
          : []
        assert.deepStrictEqual(root?.events.map(([name]) => name), event)

        const suffix = errorType === undefined ? "" : ` error.type=${errorType}`
        assert.deepStrictEqual(metrics(), {
          [`tool.call.total outcome=${outcome}`]: 1,
          [`gen_ai.execute_tool.duration${suffix}`]: [1, seconds],
          ...(executions === 0 ? {} : { "tool.exec.total": 1, "tool.exec.duration": [1, seconds * 1000] }),
          ...(outcome === "failed" || outcome === "defect" ? { [`tool.exec.errors${suffix}`]: 1 } : {}),
          ...(records[0]?.cache === undefined ? {} : { [`tool.cache.total result=${records[0].cache}`]: 1 }),
          ...(outcome === "denied" || outcome === "unauthenticated"
            ? { [`tool.auth.total decision=${outcome}`]: 1 }
            : {})
        })

        assert.strictEqual(lines.length, 1)
        const { line } = lines[0]!
        assert.deepStrictEqual(
          [lines[0]?.level, line.outcome, line.errorType, line.attempts, line.durationMs],
          [level, outcome, errorType, executions, seconds * 1000]
        )
        assert.notInclude(JSON.stringify(line), "canary")
      })
    })
  }

  it.effect("tells each attempt of a retried call as an execution and a retry", () => {
    const twice: ToolMiddleware.Around<unknown> = (_call, next) => Effect.retry(next, { times: 2 })
    const { lines, metrics, run, spans } = observed({ inner: twice })
    let starts = 0
    return Effect.gen(function*() {
      yield* run((pipeline) =>
        pipeline.run({ tool: search }, Effect.suspend(() => ++starts < 3 ? Effect.fail("again") : Effect.succeed(1)))
      )
      assert.deepStrictEqual(spans.slice(1).map((span) => attributes(span)["tool.attempt"]), [1, 2, 3])
      assert.deepStrictEqual(spans[0]?.events.map(([name, , told]) => [name, told]), [
        ["tool.retry", { "tool.attempt": 2 }],
        ["tool.retry", { "tool.attempt": 3 }]
      ])
      assert.deepInclude(metrics(), {
        "tool.call.total outcome=ok": 1,
        "tool.exec.total": 3,
        "tool.exec.errors error.type=error": 2,
        "tool.retry.total": 2
      })
      assert.strictEqual(lines[0]?.line.attempts, 3)
    })
  })

  it.effect("tells each execution as a part of the call, and not of the execution before it", () => {
    const { run, spans } = observed({ inner: (_call, next) => Effect.catchCause(next, () => next) })
    return Effect.gen(function*() {
      yield* Effect.exit(run((pipeline) => pipeline.run({ tool: search }, Effect.fail("again"))))
      assert.deepStrictEqual(spans.slice(1).map((span) => Option.getOrUndefined(span.parent)), [spans[0], spans[0]])
    })
  })

  it.effect("ends each span exactly once", () => {
    const twice: ToolMiddleware.Around<unknown> = (call, next) => Effect.retry(acting(call, next), { times: 1 })
    const { run, spans } = observed({ inner: twice })
    return run((pipeline) =>
      Effect.forEach(
        CallRecord.outcomes,
        (outcome) =>
          Effect.exit(
            pipeline.run({ tool: search, input: outcome }, endings[outcome].handler ?? Effect.succeed("found"))
          )
      )
    ).pipe(
      Effect.map(() => {
        for (const span of spans) assert.strictEqual(span.ends, 1, span.name)
        assert.isAbove(spans.length, CallRecord.outcomes.length)
      })
    )
  })

  it.effect("counts a failure whose tag is a word of the stage's own as what it is", () => {
    const { lines, metrics, run } = observed()
    return Effect.gen(function*() {
      yield* run((pipeline) => Effect.exit(pipeline.run({ tool: search }, Effect.fail({ _tag: "interrupted" }))))
      assert.deepInclude(metrics(), {
        "tool.exec.errors error.type=interrupted": 1,
        "tool.call.total outcome=failed": 1
      })
      assert.deepStrictEqual([lines[0]?.level, lines[0]?.line.outcome], ["Error", "failed"])
    })
  })

  it.effect("tells no secret behind what looks like a name that was made up", () => {
    const { lines, run } = observed()
    return Effect.gen(function*() {
      yield* run((pipeline) => pipeline.run({ tool: search }, Effect.void))
      const madeUp = lines[0]?.line.callId ?? ""
      assert.match(madeUp, /^[0-9a-f]{16}-[0-9a-z]+$/)
      const callId = `${madeUp} Bearer canary-token-1234`
      yield* run((pipeline) => pipeline.run({ tool: search, callId }, Effect.void))
      assert.strictEqual(lines[1]?.line.callId, `${madeUp} Bearer <redacted>`)
    })
  })

  it.effect("tells no secret that stands where a tag or a name is expected", () => {
    const ruled: ToolMiddleware.Around<unknown> = (call, next) => {
      call.record.rule = String(call.input)
      return next
    }
    const { lines, registry, run, spans } = observed({ inner: ruled })
    const secret = "Bearer canary-token-1234"
    return Effect.gen(function*() {
      const tags = [secret, "two words", "ghp_0123456789abcdefghijABCDEFGHIJ", "@app/NotThere", ""]
      for (const _tag of tags) {
        yield* run((pipeline) =>
          Effect.exit(
            pipeline.run({ tool: search, callId: secret, input: secret }, Effect.fail({ _tag, message: "m" }))
          )
        )
      }
      assert.deepStrictEqual(lines.map(({ line }) => [line.callId, line.rule, line.errorType]), [
        ...Array.from({ length: 3 }, () => ["Bearer <redacted>", "Bearer <redacted>", "error"]),
        ["Bearer <redacted>", "Bearer <redacted>", "@app/NotThere"],
        ["Bearer <redacted>", "Bearer <redacted>", "error"]
      ])
      const told = JSON.stringify([
        lines,
        [...registry.values()].map(({ attributes }) => attributes),
        spans.map(({ attributes, events, name, status }) => [
          name,
          [...attributes],
          events.map(([name, , told]) => [name, told]),
          status._tag === "Ended" && Exit.isFailure(status.exit) ? Cause.pretty(status.exit.cause) : ""
        ])
      ])
      assert.include(told, "@app/NotThere")
      assert.notInclude(told, "canary")
      assert.notInclude(told, "ghp_")
    })
  })

  it.effect("tells a call over MCP by the code of its error, and an interruption as one", () => {
    const { metrics, run, spans } = observed({ inner: acting })
    const call = (outcome: Outcome, request: McpRequest.McpRequest) =>
      Effect.exit(
        run((pipeline) =>
          pipeline.run({ tool: search, input: outcome }, endings[outcome].handler ?? Effect.succeed(""))
        )
      ).pipe(Effect.provideService(McpRequest.CurrentMcpRequest, request))
    const errorType = (tag: string) =>
      tag === "RateLimited" || tag === "TimedOut" || tag === "NotThere" ? "-32012" : undefined
    return Effect.gen(function*() {
      const told: Array<ReadonlyArray<unknown>> = []
      for (const outcome of ["limited", "timed_out", "denied", "failed", "interrupted", "ok"] as const) {
        const types: Array<unknown> = []
        for (const request of [{}, { errorType }]) {
          spans.length = 0
          yield* call(outcome, request)
          types.push(attributes(spans[0])["error.type"])
        }
        told.push([outcome, ...types])
      }
      assert.deepStrictEqual(told, [
        ["limited", "tool_error", "-32012"],
        ["timed_out", "tool_error", "-32012"],
        ["denied", "tool_error", "tool_error"],
        ["failed", "tool_error", "tool_error"],
        ["interrupted", "interrupted", "interrupted"],
        ["ok", undefined, undefined]
      ])
      const prefix = "mcp.server.operation.duration mcp.method.name=tools/call"
      assert.deepInclude(metrics(), {
        [`${prefix} error.type=tool_error`]: [6, 0],
        [`${prefix} error.type=-32012`]: [2, 0],
        [`${prefix} error.type=interrupted`]: [2, 0],
        [prefix]: [2, 0]
      })
    })
  })

  it.effect("counts an answer that comes after the end of its call, and leaves the record as it was told", () => {
    let resilient: ToolMiddleware.Around<unknown> = (_call, next) => next
    const { metrics, records, run } = observed({ inner: (call, next) => resilient(call, next) })
    return Effect.gen(function*() {
      const stage = yield* ResilienceMiddleware.ResilienceMiddleware.pipe(
        Effect.provide(ResilienceMiddleware.layer({ defaults: { timeout: { timeout: "50 millis" } } }))
      )
      resilient = stage.forTool(search)
      const answer = yield* Deferred.make<string>()
      const fiber = yield* Effect.forkChild(
        run((pipeline) => Effect.exit(pipeline.run({ tool: search }, Effect.uninterruptible(Deferred.await(answer)))))
      )
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(fiber)))
      assert.strictEqual(metrics()["tool.call.total outcome=timed_out"], 1)
      assert.isUndefined(metrics()["tool.late.total"])
      yield* Deferred.succeed(answer, "late")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(metrics()["tool.late.total"], 1)
      assert.deepStrictEqual([records[0]?.outcome, records[0]?.lateResults], ["timed_out", 0])
    })
  })

  it.live("leaves nothing of the call in a record that is kept, and nothing that cannot be copied", () => {
    const { records, run } = observed()
    const inputs: Array<WeakRef<object>> = []
    const call = (pipeline: ToolPipeline.Pipeline<unknown>) =>
      Effect.suspend(() => {
        const input = { text: "canary" }
        inputs.push(new WeakRef(input))
        return pipeline.run({ tool: search, input }, Effect.void)
      })
    return Effect.gen(function*() {
      yield* run((pipeline) => Effect.replicateEffect(call(pipeline), 20))
      yield* Effect.promise(() =>
        vi.waitFor(() => {
          gc()
          // One may still be on the stack of what ran last.
          assert.isAtMost(inputs.filter((input) => input.deref() !== undefined).length, 1)
        }, 5000)
      )
      assert.strictEqual(records.length, 20)
      for (const record of records) assert.strictEqual(structuredClone(record).outcome, "ok")
    })
  })

  it.effect("tells what limits and auth said", () => {
    const limited: ToolMiddleware.Around<unknown> = (call, next) => {
      const limit = { remaining: 1, resetAfterMillis: 0 }
      call.record.limits = [
        { name: "tool", allowed: true, ...limit },
        { name: "caller", allowed: false, ...limit },
        { name: "planned", allowed: false, shadow: true, ...limit }
      ]
      call.record.lateResults = 2
      call.record.identity = Identity.make({ principal: "p" })
      return next
    }
    const { metrics, run } = observed({ inner: limited })
    return Effect.gen(function*() {
      yield* run((pipeline) => pipeline.run({ tool: search }, Effect.void))
      assert.deepInclude(metrics(), {
        "tool.limit.total limit=tool decision=allowed": 1,
        "tool.limit.total limit=caller decision=limited": 1,
        "tool.limit.total limit=planned decision=shadowed": 1,
        "tool.late.total": 2,
        "tool.auth.total decision=allowed": 1
      })
    })
  })

  it.effect("logs a repeated refusal a few times a second, and says how many lines it left out", () => {
    const { lines, metrics, run } = observed({ inner: acting, observe: { repeatedRefusals: 3 } })
    return run((pipeline) =>
      Effect.gen(function*() {
        const call = (outcome: Outcome) =>
          Effect.exit(pipeline.run({ tool: search, input: outcome }, Effect.succeed("")))
        yield* Effect.repeat(call("denied"), { times: 9 })
        yield* Effect.repeat(call("limited"), { times: 1 })
        yield* Effect.repeat(call("ok"), { times: 9 })
        yield* TestClock.adjust("1 second")
        yield* call("denied")
        yield* call("denied")
        const told = (outcome: Outcome) =>
          lines.filter(({ line }) => line.outcome === outcome).map(({ line }) => line.suppressed)
        assert.deepStrictEqual([told("denied"), told("limited")], [[0, 0, 0, 7, 0], [0, 0]])
        assert.strictEqual(told("ok").length, 10)
        assert.deepInclude(metrics(), { "tool.call.total outcome=denied": 12, "tool.log.suppressed": 7 })
      })
    )
  })

  it.effect("limits the lines of a refusal also where a tool is described anew for each call", () => {
    const { lines, run } = observed({ inner: acting, observe: { repeatedRefusals: 3 } })
    return run((pipeline) =>
      Effect.repeat(
        Effect.suspend(() =>
          Effect.exit(pipeline.run({ tool: ToolMeta.make({ name: "t" }), input: "denied" }, Effect.succeed("")))
        ),
        { times: 99 }
      )
    ).pipe(Effect.map(() => assert.strictEqual(lines.length, 3)))
  })

  it.effect("shares the limit among the tools beyond the most that it knows", () => {
    const { lines, run } = observed({ inner: acting, observe: { repeatedRefusals: 3, maxTools: 2 } })
    return run((pipeline) =>
      Effect.forEach(
        Array.from({ length: 10 }, (_, i) => ToolMeta.make({ name: `t${i}` })),
        (tool) => Effect.exit(pipeline.run({ tool, input: "denied" }, Effect.succeed("")))
      )
    ).pipe(Effect.map(() => assert.strictEqual(lines.length, 1 + 1 + 3)))
  })

  it.effect("tells the same of 10,000 random calls as span, metric, log line and record", () => {
    const flaky: ToolMiddleware.Around<unknown> = (call, next) => Effect.retry(acting(call, next), { times: 1 })
    const { lines, metrics, records, run, spans } = observed({ inner: flaky, observe: { repeatedRefusals: Infinity } })
    return Effect.gen(function*() {
      yield* run((pipeline) =>
        Effect.gen(function*() {
          const calls = yield* Effect.forEach(Array.from({ length: 10_000 }), () =>
            Effect.gen(function*() {
              const outcome = CallRecord.outcomes[yield* Random.nextIntBetween(0, CallRecord.outcomes.length - 1)] ??
                "ok"
              return { outcome, delay: yield* Random.nextIntBetween(0, 50) }
            }))
          yield* Effect.forEach(calls, ({ delay, outcome }) => {
            const handler = endings[outcome].handler ?? Effect.succeed("found")
            // The clock is everybody's: a call lasts as long as its own handler and those that run meanwhile.
            const work = Effect.andThen(Effect.andThen(Effect.yieldNow, TestClock.adjust(delay)), handler)
            return Effect.exit(pipeline.run({ tool: search, input: outcome }, work))
          }, { concurrency: 8 })
        })
      )
      const roots = new Map(
        spans.filter((span) => span.name === "execute_tool search").map((span) => {
          const { "gen_ai.tool.call.id": id, "error.type": type, "tool.attempts": attempts, "tool.outcome": outcome } =
            attributes(span)
          if (span.status._tag !== "Ended") throw new Error("not ended")
          const millis = Number(span.status.endTime - span.status.startTime) / 1e6
          return [id, JSON.stringify([outcome, type ?? null, attempts, millis])]
        })
      )
      const said = lines.map(({ line }) =>
        [line.callId, JSON.stringify([line.outcome, line.errorType ?? null, line.attempts, line.durationMs])] as const
      )
      assert.deepStrictEqual([roots.size, said.length, records.length], [10_000, 10_000, 10_000])
      for (const [id, line] of said) assert.strictEqual(line, roots.get(id))
      assert.deepStrictEqual(
        records.map((record) =>
          JSON.stringify([record.outcome, record.errorType ?? null, record.attempts, record.durationMillis])
        ).toSorted(),
        said.map(([, line]) => line).toSorted()
      )
      const counted = metrics()
      for (const outcome of CallRecord.outcomes) {
        assert.strictEqual(
          counted[`tool.call.total outcome=${outcome}`],
          records.filter((record) => record.outcome === outcome).length
        )
      }
      const sum = (values: ReadonlyArray<number>) => values.reduce((a, b) => a + b, 0)
      assert.strictEqual(counted["tool.exec.total"], sum(records.map((record) => record.attempts)))
      const durations = Object.entries(counted).filter(([name]) => name.startsWith("gen_ai.execute_tool.duration"))
        .map(([, value]) => value as [number, number])
      assert.strictEqual(sum(durations.map(([count]) => count)), 10_000)
      assert.closeTo(
        sum(durations.map(([, total]) => total)),
        sum(records.map((record) => record.durationMillis)) / 1000,
        1e-6
      )
    })
  })
})
