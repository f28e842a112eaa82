import { assert, describe, it } from "@effect/vitest"
import {
  Config,
  ConfigProvider,
  Console,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Redacted,
  Schema,
  Scope
} from "effect"
import { ToolMeta } from "effect-toolops"
import {
  AuditError,
  AuditLog,
  AuditRecord,
  Authenticator,
  AuthError,
  AuthMiddleware,
  Authorizer
} from "effect-toolops/auth"
import { TestClock } from "effect/testing"
import { spawn } from "node:child_process"
import { audited, pipelineWith, told, write } from "./audited.ts"

type Records = ReadonlyArray<AuditRecord.AuditRecord>

const found = Effect.succeed("found")

/** A sink that can be told how to behave while a test goes on. */
const sink = (initial: (records: Records) => Effect.Effect<void, unknown>) => {
  const state = {
    behave: initial,
    written: [] as Array<AuditRecord.AuditRecord>,
    batches: [] as Array<number>,
    running: 0,
    most: 0
  }
  const write = (records: Records): Effect.Effect<void, unknown> => {
    const behaviour = state.behave(records)
    if (!Effect.isEffect(behaviour)) return behaviour
    state.running += 1
    state.most = Math.max(state.most, state.running)
    return Effect.onExit(behaviour, (exit) =>
      Effect.sync(() => {
        state.running -= 1
        if (Exit.isFailure(exit)) return
        state.batches.push(records.length)
        state.written.push(...records)
      }))
  }
  return { state, write }
}

const works = () => Effect.void
const quiet = Logger.layer([])

const record: AuditRecord.AuditRecord = {
  version: 1,
  kind: "call",
  callId: "c",
  time: 0,
  offsetMillis: 0,
  tool: { id: "t", action: "call" },
  outcome: "ok"
}

/** Ways in which a sink does not do what it should. None of them waits. */
const broken: Readonly<Record<string, (records: Records) => Effect.Effect<void, unknown>>> = {
  fails: () => Effect.fail("disk full"),
  dies: () => Effect.die(new Error("disk full")),
  throws: () => {
    throw new Error("disk full")
  },
  "answers with nothing": () => undefined as unknown as Effect.Effect<void>,
  "interrupts itself": () => Effect.interrupt
}

describe("AuditLog, when records were lost", () => {
  const lose = (log: AuditLog.AuditLog["Service"], n: number) =>
    Effect.sync(() => {
      for (let i = 0; i < n; i++) log.recordUnsafe(record)
    })

  it.effect("says so as soon as it has nothing else to write", () =>
    Effect.gen(function*() {
      const { state, write: writes } = sink(() => Effect.sleep("1 second"))
      const log = yield* AuditLog.make({ maxQueued: 10, write: writes })
      yield* lose(log, 10)
      yield* TestClock.adjust(1)
      yield* lose(log, 5)
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(told(state.written).slice(10), ["lost 5"])
      // Once.
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(state.written.length, 11)
      assert.deepStrictEqual([(yield* log.stats).written, (yield* log.stats).lost], [10, 5])
    }))

  it.effect("says so when it closes, and not again and again to a sink that fails", () =>
    Effect.gen(function*() {
      let tried = 0
      const { state, write: writes } = sink(() =>
        Effect.suspend(() => {
          tried += 1
          return Effect.fail("disk full")
        })
      )
      const scope = yield* Scope.make()
      const log = yield* Scope.provide(AuditLog.make({ write: writes }), scope)
      yield* lose(log, 3)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(tried, 1)
      state.behave = works
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(told(state.written), ["lost 3"])
    }).pipe(Effect.provide(quiet)))

  it.effect("closes although the sink fails to the end", () =>
    Effect.gen(function*() {
      let tried = 0
      const { write: writes } = sink(() =>
        Effect.suspend(() => {
          tried += 1
          return Effect.fail("disk full")
        })
      )
      const scope = yield* Scope.make()
      const log = yield* Scope.provide(AuditLog.make({ write: writes }), scope)
      yield* lose(log, 3)
      yield* log.flush
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(tried, 2)
    }).pipe(Effect.provide(quiet)))

  it.effect("counts what is lost while it says so for the next time", () =>
    Effect.gen(function*() {
      const { state, write: writes } = sink(() => Effect.sleep("1 second"))
      const log = yield* AuditLog.make({ maxQueued: 2, write: writes })
      yield* lose(log, 2)
      yield* TestClock.adjust(1)
      yield* lose(log, 5)
      // The note of the five is being written together with nothing; meanwhile there is room for two again.
      yield* TestClock.adjust("1 second")
      yield* lose(log, 2 + 7)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(told(state.written), ["call ok", "call ok", "lost 5", "lost 7", "call ok", "call ok"])
    }))
})

describe("AuditLog, required", () => {
  it.effect("starts no handler before the decision is acknowledged", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { state, write: writes } = sink(() => Deferred.await(gate))
      const { run } = yield* pipelineWith(AuditLog.layer({ mode: "required", write: writes }))
      let ran = 0
      const fiber = yield* Effect.forkChild(run(write, Effect.sync(() => ++ran)))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(ran, 0)
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* Fiber.join(fiber), 1)
      assert.deepStrictEqual(told(state.written), ["decision", "outcome ok"])
      assert.strictEqual(state.written[0]?.input?.digest?.length, 64)
      assert.deepStrictEqual([state.written[0]?.outcome, state.written[1]?.input], [undefined, undefined])
    }).pipe(Effect.provide(quiet)))

  for (const [how, behave] of Object.entries(broken)) {
    it.effect(`refuses calls while its sink ${how}, and lets them run again after that`, () =>
      Effect.gen(function*() {
        const { state, write: writes } = sink(behave)
        const { log, run, seen } = yield* pipelineWith(AuditLog.layer({ mode: "required", write: writes }))
        let ran = 0
        const call = run(write, Effect.sync(() => ++ran))
        const error = yield* Effect.flip(call)
        if (!(error instanceof AuthError.AuthError)) return assert.fail(String(error))
        assert.strictEqual(error.reason._tag, "AuthUnavailable")
        if (!(error.cause instanceof AuditError.AuditError)) return assert.fail("no cause")
        assert.strictEqual(error.cause.reason._tag, "SinkFailed")
        // What the sink failed with is not for the caller.
        assert.notInclude(JSON.stringify(yield* Schema.encodeEffect(AuthError.AuthError)(error)), "disk full")
        assert.strictEqual(seen[0]?.record.outcome, "denied")
        assert.strictEqual(ran, 0)
        yield* log.flush
        assert.strictEqual((yield* log.stats).lost, 2)

        state.behave = works
        assert.strictEqual(yield* call, 1)
        yield* log.flush
        assert.deepStrictEqual(told(state.written), ["lost 2", "decision", "outcome ok"])
      }).pipe(Effect.provide(quiet)))
  }

  it.effect("gives up on a sink that hangs, refuses at once from then on, and goes on when it has come back", () =>
    Effect.gen(function*() {
      const back = yield* Deferred.make<void>()
      // It cannot be interrupted either.
      const { state, write: writes } = sink(() => Effect.uninterruptible(Deferred.await(back)))
      const { log, run } = yield* pipelineWith(
        AuditLog.layer({ mode: "required", writeTimeout: "3 seconds", write: writes })
      )
      let ran = 0
      const call = Effect.flip(run(write, Effect.sync(() => ++ran)))
      const first = yield* Effect.forkChild(call)
      yield* TestClock.adjust("1 second")
      // Waits behind the write that hangs.
      const second = yield* Effect.forkChild(call)
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      for (const fiber of [first, second, yield* Effect.forkChild(call)]) {
        const error = yield* Fiber.join(fiber)
        assert.deepInclude((error as AuthError.AuthError).cause, { reason: new AuditError.SinkTimedOut() })
      }
      assert.strictEqual(ran, 0)

      state.behave = works
      yield* Deferred.succeed(back, undefined)
      yield* log.flush
      assert.strictEqual(yield* run(write, found), "found")
      // Not even one that does not end was overtaken.
      assert.strictEqual(state.most, 1)
    }).pipe(Effect.provide(quiet)))

  it.effect("answers a call although its outcome cannot be written", () =>
    Effect.gen(function*() {
      const { state, write: writes } = sink(works)
      const { log, run } = yield* pipelineWith(AuditLog.layer({ mode: "required", write: writes }))
      const handler = Effect.sync(() => {
        state.behave = () => Effect.never
        return "found"
      })
      assert.strictEqual(yield* run(write, handler), "found")
      yield* TestClock.adjust("5 seconds")
      yield* log.flush
      assert.deepStrictEqual(told(state.written), ["decision"])
      assert.strictEqual((yield* log.stats).lost, 1)
    }).pipe(Effect.provide(quiet)))

  it.effect("records the interruption of a call that waits for its acknowledgement", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { state, write: writes } = sink(() => Deferred.await(gate))
      const { log, run } = yield* pipelineWith(AuditLog.layer({ mode: "required", write: writes }))
      let ran = 0
      const fiber = yield* Effect.forkChild(run(write, Effect.sync(() => ++ran)))
      yield* TestClock.adjust("1 millis")
      yield* Fiber.interrupt(fiber)
      yield* Deferred.succeed(gate, undefined)
      yield* log.flush
      assert.deepStrictEqual(told(state.written), ["decision", "outcome interrupted"])
      assert.strictEqual(ran, 0)
    }))

  it.effect("writes what many calls wait for at once", () =>
    Effect.gen(function*() {
      const { state, write: writes } = sink(() => Effect.sleep("10 millis"))
      const { mode, record: hand, stats } = yield* AuditLog.make({ mode: "required", maxBatch: 50, write: writes })
      assert.strictEqual(mode, "required")
      const fibers = yield* Effect.forEach(Array.from({ length: 101 }), () => Effect.forkChild(hand(record)))
      yield* TestClock.adjust("40 millis")
      for (const fiber of fibers) yield* Fiber.join(fiber)
      assert.isAtMost(state.batches.length, 4)
      assert.isAtMost(Math.max(...state.batches), 50)
      assert.deepInclude(yield* stats, { written: 101, lost: 0, queued: 0 })
      assert.isAtLeast((yield* stats).lagMillis, 10)
    }))

  it.effect("refuses when as many records wait as may wait", () =>
    Effect.gen(function*() {
      const { write: writes } = sink(() => Effect.never)
      const log = yield* AuditLog.make({ mode: "required", maxQueued: 2, closeTimeout: 0, write: writes })
      yield* Effect.forkChild(log.record(record))
      yield* Effect.forkChild(log.record(record))
      yield* TestClock.adjust("1 millis")
      const error = yield* Effect.flip(log.record(record))
      assert.strictEqual(error.reason._tag, "QueueFull")
      // What became of calls that have been let in finds room a while longer.
      const outcome = { ...record, kind: "outcome" } as const
      assert.deepStrictEqual([log.recordUnsafe(record), log.recordUnsafe(outcome)], [false, true])
      assert.deepStrictEqual([log.recordUnsafe(outcome), log.recordUnsafe(outcome)], [true, false])
    }).pipe(Effect.provide(quiet)))
})

describe("AuditLog, best-effort", () => {
  for (const [how, behave] of Object.entries({ ...broken, hangs: () => Effect.never })) {
    it.effect(`breaks and delays no call when its sink ${how}`, () =>
      Effect.gen(function*() {
        const { state, write: writes } = sink(behave)
        const { log, run } = yield* pipelineWith(AuditLog.layer({ write: writes }))
        const before = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        for (let i = 0; i < 10; i++) assert.strictEqual(yield* run(write, found), "found")
        assert.strictEqual(yield* Effect.clockWith((clock) => clock.currentTimeMillis), before)
        for (let i = 0; i < 10; i++) yield* TestClock.adjust("5 seconds")
        yield* log.flush
        const { lost, written } = yield* log.stats
        assert.deepStrictEqual([lost, written], [10, 0])

        state.behave = works
        yield* run(write, found)
        yield* log.flush
        assert.deepStrictEqual(told(state.written), ["lost 10", "call ok"])
        assert.deepInclude(yield* log.stats, { lost: 10, written: 1 })
      }).pipe(Effect.provide(quiet)))
  }

  it.effect("holds so many records and no more while the sink hangs", () =>
    Effect.gen(function*() {
      const { write: writes } = sink(() => Effect.never)
      const { log, run } = yield* pipelineWith(AuditLog.layer({ maxQueued: 10, closeTimeout: 0, write: writes }))
      for (let i = 0; i < 100; i++) assert.strictEqual(yield* run(write, found), "found")
      assert.deepInclude(yield* log.stats, { queued: 10, lost: 90, written: 0 })
    }).pipe(Effect.provide(quiet)))

  it.effect("tells the operator when it begins to lose records and when that is over, not each time", () => {
    const lines: Array<unknown> = []
    const logger = Logger.make(({ logLevel, message }) => {
      lines.push([logLevel, Array.isArray(message) ? message[0] : message])
    })
    return Effect.gen(function*() {
      const { state, write: writes } = sink(() => Effect.fail("secret of the sink"))
      const log = yield* AuditLog.make({ write: writes })
      for (let i = 0; i < 5; i++) {
        if (i === 3) state.behave = works
        log.recordUnsafe(record)
        yield* log.flush
        yield* Effect.yieldNow
      }
      assert.deepStrictEqual(lines, [
        ["Error", "effect-toolops: the audit log cannot be written, records are lost"],
        ["Info", "effect-toolops: the audit log is written again"]
      ])
      assert.deepStrictEqual(told(state.written), ["lost 3", "call ok", "call ok"])
    }).pipe(Effect.provide(Logger.layer([logger])))
  })

  it.live("closes when what was handed over is written, and takes nothing afterwards", () =>
    Effect.gen(function*() {
      const { state, write: writes } = sink(() => Effect.sleep("20 millis"))
      const scope = Scope.makeUnsafe()
      const log = yield* Effect.provideService(AuditLog.make({ write: writes }), Scope.Scope, scope)
      for (let i = 0; i < 3; i++) log.recordUnsafe(record)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(state.written.length, 3)
      assert.isFalse(log.recordUnsafe(record))
      assert.deepInclude(yield* log.stats, { lost: 1, queued: 0 })
    }))

  it.live("closes in time although the sink hangs, and counts what is lost by that", () =>
    Effect.gen(function*() {
      const { write: writes } = sink(() => Effect.uninterruptible(Effect.never))
      const scope = Scope.makeUnsafe()
      const options = { mode: "required", closeTimeout: "50 millis", write: writes } as const
      const log = yield* Effect.provideService(AuditLog.make(options), Scope.Scope, scope)
      const first = yield* Effect.forkChild(Effect.flip(log.record(record)))
      yield* Effect.sleep("5 millis")
      const second = yield* Effect.forkChild(Effect.flip(log.record(record)))
      yield* Effect.sleep("5 millis")
      yield* Effect.timeout(Scope.close(scope, Exit.void), "2 seconds")
      for (const fiber of [first, second]) assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "LogClosed")
      assert.strictEqual((yield* Effect.flip(log.record(record))).reason._tag, "LogClosed")
      assert.deepInclude(yield* log.stats, { lost: 3, queued: 0 })
    }).pipe(Effect.provide(quiet)))
})

describe("AuditLog", () => {
  it.effect("counts what is written and lost, and how long it took", () => {
    const registry: Metric.MetricRegistry = new Map()
    return Effect.gen(function*() {
      const { state, write: writes } = sink(() => Effect.sleep("30 millis"))
      const log = yield* AuditLog.make({ write: writes })
      log.recordUnsafe(record)
      yield* TestClock.adjust("30 millis")
      state.behave = () => Effect.fail("no")
      log.recordUnsafe(record)
      log.recordUnsafe(record)
      yield* log.flush
      const figures = [...registry.values()].map((metric) => {
        const state = metric.hooks.get(Context.empty()) as { count?: number; sum?: number; value?: number }
        return [metric.id, metric.attributes?.["result"], state.sum ?? state.value ?? state.count]
      })
      assert.sameDeepMembers(figures, [
        ["tool.audit.total", "written", 1],
        ["tool.audit.total", "lost", 2],
        ["tool.audit.lag", undefined, 0.03],
        ["tool.audit.queued", undefined, 0]
      ])
    }).pipe(Effect.provide(Layer.merge(quiet, Layer.succeed(Metric.MetricRegistry, registry))))
  })

  it.effect("keeps the last records in memory", () =>
    Effect.gen(function*() {
      const { clear, log, records } = yield* audited({ maxRecords: 3 })
      for (let i = 0; i < 10; i++) log.recordUnsafe({ ...record, callId: String(i) })
      assert.deepStrictEqual((yield* records).map((each) => each.callId), ["7", "8", "9"])
      yield* clear
      assert.deepStrictEqual(yield* records, [])
    }))

  it.effect("costs the auth stage nothing where there is none", () =>
    Effect.gen(function*() {
      const stageWith = (log: Layer.Layer<AuditLog.AuditLog> | Layer.Layer<never>) =>
        Effect.map(
          Layer.build(AuthMiddleware.layer.pipe(
            Layer.provide([Authenticator.layerAnonymous, Authorizer.layerAllowAll, log])
          )),
          Context.get(AuthMiddleware.AuthMiddleware)
        )
      const [one, two] = [ToolMeta.make({ name: "one" }), ToolMeta.make({ name: "two" })]
      for (const log of [Layer.empty, AuditLog.layerNone]) {
        const { forTool } = yield* stageWith(log)
        // The stage itself, with nothing around it.
        assert.strictEqual(forTool(one), forTool(two))
      }
      const { forTool } = yield* stageWith(AuditLog.layerMemory())
      assert.notStrictEqual(forTool(one), forTool(two))
    }))

  const consoleOf = (lines: Array<string>, isDead = false): Console.Console => {
    const take = (stream: string) => (text: string) => {
      if (isDead) throw new Error("EPIPE")
      lines.push(...text.split("\n").map((line) => `${stream} ${line}`))
    }
    return { ...globalThis.console, log: take("stdout"), error: take("stderr") }
  }

  for (const stream of [undefined, "stderr", "stdout"] as const) {
    it.effect(`writes JSON lines to ${stream ?? "standard error by default"}`, () => {
      const lines: Array<string> = []
      return Effect.gen(function*() {
        const { log, run } = yield* pipelineWith(AuditLog.layerConsole({ stream }))
        yield* run(write, found)
        yield* run(write, found)
        yield* log.flush
        assert.strictEqual(lines.length, 2)
        const name = stream ?? "stderr"
        for (const line of lines) {
          assert.isTrue(line.startsWith(`${name} {`), line)
          const read = yield* AuditRecord.fromLine(line.slice(name.length + 1))
          assert.deepInclude(read, { kind: "call", outcome: "ok" })
        }
      }).pipe(Effect.provideService(Console.Console, consoleOf(lines)))
    })
  }

  it.effect("breaks no call when the console throws", () =>
    Effect.gen(function*() {
      const { log, run } = yield* pipelineWith(AuditLog.layerConsole())
      assert.strictEqual(yield* run(write, found), "found")
      yield* log.flush
      assert.strictEqual((yield* log.stats).lost, 1)
    }).pipe(Effect.provide(quiet), Effect.provideService(Console.Console, consoleOf([], true))))

  it.live("goes on in a process whose standard output nobody reads any more", () =>
    Effect.gen(function*() {
      const program = `
        import { Effect } from "effect"
        import { AuditLog } from "effect-toolops/auth"
        const record = ${JSON.stringify(record)}
        const program = Effect.gen(function*() {
          const log = yield* AuditLog.AuditLog
          let given = 0
          while ((yield* log.stats).lost === 0) {
            given += 1
            log.recordUnsafe(record)
            yield* Effect.sleep(2)
          }
          yield* log.flush
          const { lost, written } = yield* log.stats
          console.error("given " + (given - lost - written))
        })
        await Effect.runPromise(Effect.provide(program, AuditLog.layerConsole({ stream: "stdout" })))
      `
      const child = spawn(process.execPath, ["-C", "@effect-toolops/source", "--input-type=module", "-e", program])
      let heard = ""
      child.stderr.on("data", (chunk: Buffer) => {
        heard += chunk.toString()
      })
      child.stdout.once("data", () => child.stdout.destroy())
      const code = yield* Effect.callback<number | null>((resume) => {
        child.on("close", (code) => resume(Effect.succeed(code)))
        return Effect.sync(() => child.kill())
      })
      assert.strictEqual(heard.trim(), "given 0")
      assert.strictEqual(code, 0)
    }))

  for (const mode of ["required", "best-effort"] as const) {
    it.live(
      `holds little of what nobody reads who could, and goes on when it is read again, ${mode}`,
      () =>
        Effect.gen(function*() {
          const program = `
          import { Effect } from "effect"
          import { AuditLog } from "effect-toolops/auth"
          const record = ${JSON.stringify({ ...record, callId: "x".repeat(200) })}
          const program = Effect.gen(function*() {
            const log = yield* AuditLog.AuditLog
            let most = 0
            for (let i = 0; i < 40; i++) {
              yield* Effect.forEach(
                Array.from({ length: 1000 }),
                () => Effect.result(log.record(record)),
                { concurrency: "unbounded", discard: true }
              )
              yield* Effect.sleep(5)
              most = Math.max(most, process.stderr.writableLength)
            }
            yield* log.flush
            const { lost, written } = yield* log.stats
            console.log("told " + JSON.stringify({ lost, written, most }))
            yield* Effect.promise(() => new Promise((resolve) => process.stdin.once("data", resolve)))
            // The reader is back.
            yield* Effect.eventually(Effect.filterOrFail(
              Effect.delay(log.stats, 5), () => process.stderr.writableLength === 0
            ))
            yield* log.record(record)
            yield* log.flush
            console.log("told " + JSON.stringify({ more: (yield* log.stats).written - written }))
            process.stdin.destroy()
          })
          await Effect.runPromise(Effect.provide(
            program,
            AuditLog.layerConsole({ mode: ${JSON.stringify(mode)}, writeTimeout: 40, closeTimeout: 1000 })
          ))
        `
          const child = spawn(process.execPath, ["-C", "@effect-toolops/source", "--input-type=module", "-e", program])
          let out = ""
          // What the program logs of the sink goes there as well.
          const heard = () =>
            Array.from(out.matchAll(/^told (.*)\n/gm), ([, json = ""]) => JSON.parse(json) as Record<string, number>)
          child.stdout.on("data", (chunk: Buffer) => {
            out += chunk.toString()
            if (heard().length !== 1) return
            child.stderr.resume()
            child.stdin.write("go\n")
          })
          yield* Effect.callback<void>((resume) => {
            child.on("close", () => resume(Effect.void))
            return Effect.sync(() => child.kill())
          })
          const [stalled, after] = heard()
          assert.isBelow(stalled?.["most"] ?? Infinity, 3_000_000)
          assert.isAbove(stalled?.["lost"] ?? 0, 10_000)
          assert.strictEqual((stalled?.["lost"] ?? 0) + (stalled?.["written"] ?? 0), 40_000)
          assert.strictEqual(after?.["more"], 1)
        }),
      60_000
    )
  }

  const withOptions = (options: Record<string, unknown>) => ({ ...options, write: works })
  const nonsense: ReadonlyArray<readonly [Record<string, unknown>, RegExp]> = [
    [{ mode: "maybe" }, /^AuditLog\.layer: mode must be one of required, best-effort, got a string$/],
    [{ maxQueued: 0 }, /^AuditLog\.layer: maxQueued must be an integer from 1 to 10000000, got 0$/],
    [{ maxBatch: 1.5 }, /^AuditLog\.layer: maxBatch must be an integer >= 1, got 1\.5$/],
    [{ writeTimeout: 0 }, /^AuditLog\.layer: writeTimeout must be a duration > 0/],
    [{ closeTimeout: -1 }, /^AuditLog\.layer: closeTimeout must be a duration >= 0/],
    [{ input: "all" }, /^AuditLog\.layer: input must be one of digest, none/],
    [{ inputKey: "not redacted, but long" }, /^AuditLog\.layer: inputKey must be Redacted/],
    [{ inputKey: Redacted.make("short") }, /^AuditLog\.layer: inputKey must be Redacted and have at least 16/],
    [{ fields: { "docs*": ["q"] } }, /^AuditLog\.layer: fields must hold exact tool ids/],
    [{ fields: { docs: "q" } }, /^AuditLog\.layer: fields of "docs" must be a list of names$/],
    [{ repeatInterval: "Infinity" }, /^AuditLog\.layer: repeatInterval must be a duration/],
    [{ maxRepeats: 0 }, /^AuditLog\.layer: maxRepeats must be an integer from 1/],
    [{ mod: "required" }, /^AuditLog\.layer: unknown option "mod"/],
    [{ write: undefined }, /^AuditLog\.layer: write must be a function$/]
  ]
  for (const [options, message] of nonsense) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      const given = { ...withOptions(options), ...options } as unknown as AuditLog.SinkOptions
      assert.throws(() => AuditLog.layer(given), message)
    })
  }

  it.effect("takes its options from the configuration", () =>
    Effect.gen(function*() {
      const options = {
        mode: Config.Literals(["required", "best-effort"], "AUDIT_MODE"),
        maxQueued: Config.Int("AUDIT_QUEUE")
      }
      const given = ConfigProvider.layer(ConfigProvider.fromUnknown({ AUDIT_MODE: "required", AUDIT_QUEUE: 0 }))
      const exit = yield* Effect.exit(
        Effect.provide(Layer.build(AuditLog.layerConfig({ write: works }, options)), given)
      )
      assert.match(String(exit), /AuditLog\.layerConfig: maxQueued must be an integer/)
      const modes = yield* Effect.forEach(
        [
          AuditLog.layerConfig({ write: works }, { mode: options.mode }),
          AuditLog.layerMemoryConfig({ mode: options.mode }),
          AuditLog.layerConsoleConfig({ mode: options.mode })
        ],
        (layer) =>
          Effect.map(
            Effect.provide(Layer.build(layer), given),
            (context) => Context.get(context, AuditLog.AuditLog).mode
          )
      )
      assert.deepStrictEqual(modes, ["required", "required", "required"])
    }))

  it.effect("has errors that encode to JSON", () =>
    Effect.gen(function*() {
      for (
        const reason of [
          new AuditError.SinkFailed({ cause: new Error("disk full") }),
          new AuditError.SinkTimedOut(),
          new AuditError.QueueFull(),
          new AuditError.LogClosed(),
          new AuditError.Unusable({ problem: "locked" })
        ]
      ) {
        const error = new AuditError.AuditError({ reason })
        const json = JSON.stringify(yield* Schema.encodeEffect(AuditError.AuditError)(error))
        const back = yield* Schema.decodeUnknownEffect(AuditError.AuditError)(JSON.parse(json))
        assert.strictEqual(back.reason._tag, reason._tag)
        assert.strictEqual(back.message, reason.message)
      }
    }))
})
