import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { CallRecord } from "effect-toolops"
import { AuditRecord } from "effect-toolops/auth"
import { TestClock } from "effect/testing"
import { audited, dear, read, secret, type Seen, told, write } from "./audited.ts"

type Audited = Effect.Success<ReturnType<typeof audited>>

const found = Effect.succeed("found")

/** Makes one more call that ends so, after others that it may take to get there. */
const endings: Readonly<
  Record<CallRecord.Outcome, {
    readonly before?: (audited: Audited) => Effect.Effect<unknown, unknown>
    readonly run: (audited: Audited) => Effect.Effect<unknown, unknown>
    /** What is told of the decision: the call was let in, or why it was not. */
    readonly reason?: string
  }>
> = {
  ok: { run: ({ run }) => run(write, found) },
  cached: { before: ({ run }) => run(read, found), run: ({ run }) => run(read, Effect.die("not asked")) },
  stale: {
    before: ({ run }) => Effect.andThen(run(read, found), TestClock.adjust("2 seconds")),
    run: ({ run }) => run(read, found)
  },
  coalesced: {
    before: ({ run }) =>
      Effect.andThen(
        Effect.forkDetach(run(read, Effect.as(Effect.sleep("500 millis"), "found"))),
        TestClock.adjust("1 millis")
      ),
    run: ({ run }) => run(read, Effect.die("not asked"))
  },
  denied: { run: ({ run }) => run(secret, found), reason: "Forbidden" },
  unauthenticated: {
    run: ({ run }) => run(write, found, { headers: { "x-api-key": "wrong" } }),
    reason: "InvalidCredentials"
  },
  limited: { before: ({ run }) => run(dear, found), run: ({ run }) => run(dear, found) },
  rejected: {
    before: ({ run }) =>
      Effect.andThen(Effect.forkDetach(run(write, Effect.sleep("500 millis"))), TestClock.adjust("1 millis")),
    run: ({ run }) => run(write, found)
  },
  timed_out: { run: ({ run }) => run(write, Effect.never) },
  failed: { run: ({ run }) => run(write, Effect.fail({ _tag: "NotThere" })) },
  defect: { run: ({ run }) => run(write, Effect.die(new Error("canary"))) },
  interrupted: { run: ({ run }) => run(write, Effect.interrupt) }
}

/** The record must say what the record of the call says, and be one by its Schema. */
const agrees = (told: AuditRecord.AuditRecord, { call, record }: Seen) => {
  assert.deepStrictEqual(
    [told.callId, told.outcome, told.errorType, told.attempts, told.time, told.durationMillis],
    [call.callId, record.outcome, record.errorType, record.attempts, record.startedAt, record.durationMillis]
  )
  assert.deepStrictEqual(told.tool, { id: call.tool.id, digest: call.tool.digest, action: "call" })
}

const isRecord = Schema.is(AuditRecord.AuditRecord)

for (const mode of ["best-effort", "required"] as const) {
  describe(`audit, ${mode}`, () => {
    for (const outcome of CallRecord.outcomes) {
      const { before, reason, run } = endings[outcome]
      it.effect(`writes a call that is ${outcome} once`, () =>
        Effect.gen(function*() {
          const it = yield* audited({ mode })
          if (before !== undefined) yield* before(it)
          const fiber = yield* Effect.forkChild(run(it))
          yield* TestClock.adjust("2 seconds")
          yield* Fiber.await(fiber)

          const seen = it.seen.findLast(({ record }) => record.outcome === outcome)
          if (seen === undefined) return assert.fail("no call")
          const records = (yield* it.records).filter((record) => record.callId === seen.call.callId)
          assert.deepStrictEqual(
            told(records),
            mode === "required" ? ["decision", `outcome ${outcome}`] : [`call ${outcome}`]
          )
          const last = records.at(-1)
          if (last === undefined) return assert.fail("no record")
          agrees(last, seen)
          const isKnown = outcome !== "unauthenticated"
          for (const record of records) {
            assert.isTrue(isRecord(record), JSON.stringify(record))
            assert.deepStrictEqual(
              yield* AuditRecord.fromLine(AuditRecord.toLine(record)),
              JSON.parse(JSON.stringify(record))
            )
            assert.deepStrictEqual(
              record.caller,
              isKnown ? { tenant: "acme", principal: "alice", method: "api_key", keyId: "k1" } : undefined
            )
            assert.match(record.traceId ?? "", /^[0-9a-f]{32}$/)
            assert.strictEqual(record.decision?.allow, reason === undefined)
            assert.strictEqual(record.decision?.reason, reason)
            assert.strictEqual(typeof record.decision?.rule, isKnown ? "string" : "undefined")
            assert.strictEqual(record.callId, last.callId)
          }
          assert.match(records[0]?.input?.digest ?? "", /^[0-9a-f]{64}$/)
        }))
    }

    it.effect("writes as many records as there are calls, and none beside them", () =>
      Effect.gen(function*() {
        const it = yield* audited({ mode })
        yield* it.run(write, found)
        yield* Effect.exit(it.run(secret, found))
        yield* Effect.exit(it.run(write, Effect.fail("x")))
        const records = yield* it.records
        const kinds = mode === "required" ? 2 : 1
        assert.strictEqual(records.length, 3 * kinds)
        assert.strictEqual(new Set(records.map((record) => record.callId)).size, 3)
      }))
  })
}
