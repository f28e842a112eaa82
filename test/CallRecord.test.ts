import { assert, describe, it } from "@effect/vitest"
import { Cause, Exit } from "effect"
import { CallRecord } from "effect-toolops"

const refusal = { _tag: "ResilienceError", reason: { _tag: "TimedOut" } }
const other = { _tag: "Boom" }

const settled = (exit: Exit.Exit<unknown, unknown>, before?: (record: CallRecord.CallRecord) => void) => {
  const record = new CallRecord.CallRecord()
  before?.(record)
  assert.strictEqual(record.settle(exit), record.outcome)
  return [record.outcome, record.errorType]
}

describe("CallRecord", () => {
  it("tells an answer by where it came from", () => {
    const outcomes = ([undefined, "miss", "bypass", "hit", "stale", "coalesced"] as const).map((cache) =>
      settled(Exit.void, (record) => {
        record.cache = cache
      })[0]
    )
    assert.deepStrictEqual(outcomes, ["ok", "ok", "ok", "cached", "stale", "coalesced"])
  })

  it("tells a refusal of its own by what the stage said", () => {
    for (const outcome of ["denied", "unauthenticated", "limited", "rejected", "timed_out"] as const) {
      assert.deepStrictEqual(settled(Exit.fail(refusal), (record) => record.refuse(outcome, refusal)), [
        outcome,
        "TimedOut"
      ])
    }
  })

  it("tells a failure where an attempt was refused before and the call then failed of something else", () => {
    const refusedBefore = (record: CallRecord.CallRecord) => record.refuse("timed_out", refusal)
    assert.deepStrictEqual(settled(Exit.fail(other), refusedBefore), ["failed", "Boom"])
    assert.deepStrictEqual(settled(Exit.fail({ ...refusal }), refusedBefore), ["failed", "TimedOut"])
    assert.deepStrictEqual(settled(Exit.void, refusedBefore), ["ok", undefined])
    assert.deepStrictEqual(settled(Exit.die("bug"), refusedBefore), ["defect", "defect"])
  })

  it("tells a defect although parts of the call were interrupted with it", () => {
    const cause = Cause.combine(Cause.interrupt(1), Cause.die("bug"))
    assert.deepStrictEqual(settled(Exit.failCause(cause)), ["defect", "defect"])
    assert.deepStrictEqual(settled(Exit.failCause(Cause.interrupt(1))), ["interrupted", "interrupted"])
  })

  it("names errors by their tags, and nothing else by what it says", () => {
    const names = [{ _tag: "Boom" }, refusal, new Error("secret"), "secret", null, { _tag: "x".repeat(500) }, {
      _tag: 1
    }]
      .map((error) => settled(Exit.fail(error))[1])
    assert.deepStrictEqual(names, ["Boom", "TimedOut", "error", "error", "error", "x".repeat(128), "error"])
  })

  it("lays only refusals of the caller at the caller's door", () => {
    const faults = (["denied", "unauthenticated", "limited", "rejected", "timed_out"] as const).map((outcome) => {
      const record = new CallRecord.CallRecord()
      record.refuse(outcome, refusal)
      return [record.isCallersFault(Cause.fail(refusal)), record.isCallersFault(Cause.fail(other))]
    })
    const no = [false, false]
    assert.deepStrictEqual(faults, [[true, false], [true, false], no, no, no])
  })
})
