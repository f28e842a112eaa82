import { assert, describe, it } from "@effect/vitest"
import { Cause, Exit } from "effect"
import { Classify } from "effect-toolops/resilience"

describe("Classify", () => {
  it("takes every error and every defect for a failure by default", () => {
    assert.strictEqual(Classify.all(Exit.succeed(1)), "success")
    assert.strictEqual(Classify.all(Exit.fail("no")), "failure")
    assert.strictEqual(Classify.all(Exit.die("bug")), "failure")
  })

  it("knows from an HTTP status whether the server is to blame", () => {
    const failures = [408, 429, 500, 502, 503, 599]
    const successes = [200, 301, 400, 401, 403, 404, 409, 410, 422, 499]
    const shapes = [
      (status: number) => ({ status }),
      (statusCode: number) => ({ statusCode }),
      (status: number) => ({ response: { status } }),
      (statusCode: number) => ({ response: { statusCode } }),
      (status: number) => ({ reason: { _tag: "StatusCodeError", response: { status } } }),
      (status: number) => ({ cause: { status } })
    ]
    for (const shape of shapes) {
      for (const status of failures) assert.strictEqual(Classify.http(Exit.fail(shape(status))), "failure", `${status}`)
      for (const status of successes) {
        assert.strictEqual(Classify.http(Exit.fail(shape(status))), "success", `${status}`)
      }
    }
    assert.strictEqual(Classify.http(Exit.succeed({ status: 503 })), "failure")
    assert.strictEqual(Classify.http(Exit.succeed({ status: 404 })), "success")
  })

  it("judges what has no HTTP status like everything else", () => {
    assert.strictEqual(Classify.http(Exit.succeed("text")), "success")
    assert.strictEqual(Classify.http(Exit.succeed({ status: "active" })), "success")
    assert.strictEqual(Classify.http(Exit.fail({ status: 7 })), "failure")
    assert.strictEqual(Classify.http(Exit.fail(null)), "failure")
    assert.strictEqual(Classify.http(Exit.die({ status: 404 })), "failure")
  })

  it("ignores an error that says that it is not retryable", () => {
    for (
      const error of [
        { retryable: false },
        { isRetryable: false },
        { reason: { retryable: false } },
        { reason: { isRetryable: false } },
        { retryable: false, reason: { retryable: true } }
      ]
    ) {
      assert.strictEqual(Classify.retryable(Exit.fail(error)), "ignored")
    }
    const worthAnother = [
      { retryable: true },
      { retryable: "false" },
      { retryable: true, reason: { retryable: false } },
      {},
      "no",
      undefined
    ]
    for (const error of worthAnother) {
      assert.strictEqual(Classify.retryable(Exit.fail(error)), "failure")
    }
    assert.strictEqual(Classify.retryable(Exit.succeed({ retryable: false })), "success")
    assert.strictEqual(Classify.retryable(Exit.die({ retryable: false })), "failure")
  })

  it("looks at the error of a cause that was interrupted as well", () => {
    const cause = Cause.combine(Cause.interrupt(1), Cause.fail({ status: 404 }))
    assert.strictEqual(Classify.http(Exit.failCause(cause)), "success")
  })
})
