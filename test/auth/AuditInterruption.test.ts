import { afterAll, assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Option, Scope } from "effect"
import { CallRecord, ToolMeta, ToolMiddleware, ToolPipeline } from "effect-toolops"
import {
  AuditLog,
  type AuditRecord,
  Authenticator,
  AuthError,
  AuthMiddleware,
  Authorizer,
  Identity
} from "effect-toolops/auth"
import { RateLimit } from "effect-toolops/limit"
import { positions, SweepScheduler } from "../support/interruptSweep.ts"
import * as Random from "../support/random.ts"
import { filesOf, layer, linesOf, makeFolders, verify } from "./auditFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

const tool = ToolMeta.make({ name: "t" })

/** Stands for the stages behind auth: its input says how a call of a test ends. */
class Ending extends Context.Service<Ending, ToolMiddleware.ToolMiddleware<unknown>>()("test/Ending") {}

const refused = (outcome: CallRecord.Outcome) => (record: CallRecord.CallRecord) =>
  Effect.fail(record.refuse(outcome, { _tag: "Refusal", reason: { _tag: outcome } }))

const endings: Partial<Record<CallRecord.Outcome, (record: CallRecord.CallRecord) => Effect.Effect<never, unknown>>> = {
  limited: refused("limited"),
  rejected: refused("rejected"),
  timed_out: refused("timed_out"),
  failed: () => Effect.fail("failed"),
  defect: () => Effect.die("defect")
}

const hits: Partial<Record<CallRecord.Outcome, CallRecord.CacheStatus>> = {
  cached: "hit",
  stale: "stale",
  coalesced: "coalesced"
}

const ending = ToolMiddleware.of<unknown>({
  name: "ending",
  forTool: () => (call, next) =>
    Effect.suspend(() => {
      const outcome = call.input as CallRecord.Outcome
      call.record.cache = hits[outcome]
      return Effect.andThen(Effect.yieldNow, endings[outcome]?.(call.record) ?? next)
    })
})

const invalid = new AuthError.AuthError({ reason: new AuthError.InvalidCredentials() })

/** The names of all calls that the auth stage has begun with. */
const stagesWith = (begun: Array<string>) => {
  const authenticator = Authenticator.make({
    authenticate: (headers) =>
      Effect.suspend(() => {
        const callId = String(headers["x-call"])
        begun.push(callId)
        if (headers["x-bad"] !== undefined) return Effect.andThen(Effect.yieldNow, Effect.fail(invalid))
        // Callers differ, so that no refusal is a repeat.
        return Effect.as(Effect.yieldNow, Option.some(Identity.make({ principal: callId })))
      })
  })
  const authorizer = Authorizer.make(({ input }) => Effect.as(Effect.yieldNow, input !== "denied"))
  return AuthMiddleware.layer.pipe(
    Layer.provide([
      Layer.succeed(Authenticator.Authenticator, authenticator),
      Layer.succeed(Authorizer.Authorizer, authorizer)
    ])
  )
}

const open = async <R, E>(log: Layer.Layer<AuditLog.AuditLog | R, E>, begun: Array<string>) => {
  const scope = Scope.makeUnsafe()
  const context = await Effect.runPromise(Effect.provideService(
    Layer.build(Layer.mergeAll(
      Layer.provideMerge(stagesWith(begun), log),
      Layer.succeed(Ending, ending)
    )),
    Scope.Scope,
    scope
  ))
  const pipeline = Effect.runSync(
    Effect.provideContext(ToolPipeline.make(AuthMiddleware.AuthMiddleware, Ending), context)
  )
  return { close: () => Effect.runPromise(Scope.close(scope, Exit.void)), context, pipeline }
}

/** The records of each call. */
const byCall = (records: ReadonlyArray<AuditRecord.AuditRecord>) => {
  const calls = new Map<string, Array<AuditRecord.AuditRecord>>()
  for (const record of records) {
    const known = calls.get(record.callId)
    if (known === undefined) calls.set(record.callId, [record])
    else known.push(record)
  }
  return calls
}

for (const mode of ["best-effort", "required"] as const) {
  describe(`audit under interruption, ${mode}`, () => {
    it("writes a call once, wherever the interruption comes", async () => {
      const begun: Array<string> = []
      const { close, context, pipeline } = await open(AuditLog.layerMemory({ mode, maxRepeats: 100_000 }), begun)
      const memory = Context.get(context, AuditLog.AuditMemory)
      const seen = { ok: 0, interrupted: 0, unrecorded: 0 }
      for (const [i, position] of positions.entries()) {
        const where = JSON.stringify(position)
        let ran = 0
        const handler = Effect.andThen(Effect.yieldNow, Effect.sync(() => ran++))
        const scheduler = new SweepScheduler(position)
        begun.length = 0
        Effect.runSync(memory.clear)
        const fiber = scheduler.aim(
          pipeline.run({ tool, input: "ok", callId: `c${i}`, headers: { "x-call": `c${i}` } }, handler)
        )
        scheduler.drain()
        assert.isDefined(fiber.pollUnsafe(), where)
        const records = Effect.runSync(memory.records)
        const told = records.map(({ kind, outcome }) => `${kind} ${outcome ?? ""}`)
        const last = records.at(-1)
        if (last === undefined) {
          // Nothing was asked of anybody yet.
          assert.deepStrictEqual(begun, [], where)
          seen.unrecorded += 1
          continue
        }
        if (mode === "best-effort") assert.strictEqual(told.length, 1, where)
        else {
          // Without a decision there is only what became of the call.
          assert.deepStrictEqual(
            told.slice(0, -1),
            last.decision === undefined ? [] : ["decision "],
            `${where} ${told.join()}`
          )
        }
        if (ran > 0) assert.deepStrictEqual(last.decision?.allow, true, where)
        const outcome = last.outcome
        if (outcome !== "ok" && outcome !== "interrupted") return assert.fail(`${where} ${outcome}`)
        // An interruption may still come between the end of the call and that of its fiber.
        if (fiber.pollUnsafe()?._tag === "Success") assert.strictEqual(outcome, "ok", where)
        else assert.isTrue(outcome === "interrupted" || ran > 0, where)
        seen[outcome] += 1
      }
      await close()
      for (const [what, times] of Object.entries(seen)) assert.isAbove(times, 100, what)
    })

    it("writes 100,000 calls of 1,000 fibers, interrupted at random, once each", async () => {
      const begun: Array<string> = []
      const path = folders.freshPath()
      const { close, pipeline } = await open(
        layer(path, {
          mode,
          maxQueued: 1_000_000,
          maxRepeats: 1_000_000,
          // A busy machine may take long for what is left.
          writeTimeout: "1 minute",
          closeTimeout: "1 minute"
        }),
        begun
      )
      const random = Random.make(20_261_120)
      const outcomes = CallRecord.outcomes.filter((outcome) => outcome !== "interrupted")
      const exits = new Map<string, Exit.Exit<unknown, unknown>>()
      const call = (callId: string) => {
        const input = random.pick(outcomes)
        const work = random.next() < 0.5 ? Effect.yieldNow : Effect.andThen(Effect.yieldNow, Effect.yieldNow)
        const headers = { "x-call": callId, "x-bad": input === "unauthenticated" ? "1" : undefined }
        return Effect.onExit(
          // Those who are not known differ as well, in where they come from.
          Effect.provideService(pipeline.run({ tool, input, callId, headers }, work), RateLimit.CurrentPeer, callId),
          (exit) => Effect.sync(() => exits.set(callId, exit))
        )
      }
      const caller = (n: number) =>
        Effect.gen(function*() {
          for (let i = 0; i < 100; i++) {
            const fiber = yield* Effect.forkChild(call(`${n}-${i}`), { startImmediately: true })
            if (random.next() < 0.3) {
              for (let turns = random.below(12); turns > 0; turns--) yield* Effect.yieldNow
              yield* Fiber.interrupt(fiber)
            } else yield* Fiber.await(fiber)
          }
        })
      await Effect.runPromise(
        Effect.forEach(Array.from({ length: 1000 }, (_, n) => n), caller, { concurrency: "unbounded", discard: true })
      )
      await close()
      const written = filesOf(path).flatMap(linesOf).map((line) => JSON.parse(line) as AuditRecord.AuditRecord)
      const report = await Effect.runPromise(verify(path))
      assert.deepStrictEqual([report.bad, report.records], [undefined, written.length])
      const calls = byCall(written)

      assert.strictEqual(new Set(begun).size, begun.length)
      assert.isAbove(begun.length, 99_000)
      const told = new Map<string, number>()
      for (const callId of begun) {
        const records = calls.get(callId) ?? []
        const last = records.at(-1)
        const outcome = last?.outcome ?? "none"
        told.set(outcome, (told.get(outcome) ?? 0) + 1)
        const expected = mode === "best-effort"
          ? ["call"]
          : last?.decision === undefined
          ? ["outcome"]
          : ["decision", "outcome"]
        if (records.map((record) => record.kind).join() !== expected.join()) {
          assert.fail(`${callId}: ${JSON.stringify(records)}`)
        }
        const exit = exits.get(callId)
        const isAnswer = outcome === "ok" || hits[last?.outcome ?? "ok"] !== undefined
        if (exit === undefined) return assert.fail(`${callId} has not ended`)
        // An interruption may still come between the end of the call and that of its fiber.
        const isLate = isAnswer && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
        if (Exit.isSuccess(exit) !== isAnswer && !isLate) assert.fail(`${callId}: ${outcome}`)
      }
      // None that never began, and each outcome many times.
      assert.strictEqual(calls.size, begun.length)
      for (const outcome of [...outcomes, "interrupted"]) assert.isAbove(told.get(outcome) ?? 0, 1000, outcome)
    }, 120_000)
  })
}
