import { assert, describe, it } from "@effect/vitest"
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { run } from "./run.ts"

// What the tour promises to show, in this order: the step, and what a client must have seen.
const story: ReadonlyArray<readonly [step: string, came: string]> = [
  ["the tools for nobody", "refused, MissingCredentials"],
  ["the tools for a reader", "docs_search docs_read notes_list quotes_latest"],
  ["the tools for a writer", "docs_search docs_read notes_add notes_list quotes_latest"],
  ["a search without a key finds no tool", "failed, -32602 Tool 'docs_search' not found"],
  ["a search by a reader", "ok, 3 matches"],
  ["a path that leads out of the folder", "failed, DocumentNotFound"],
  ["the same search again", "the same answer, cached"],
  ["a note by a reader, for whom there is no such tool", "failed, -32602 Tool 'notes_add' not found"],
  ["a tool that there is for nobody", "failed, -32602 Tool 'notes_del' not found"],
  ["a note by a writer", "ok"],
  ["21 calls of one reader", "20 pass, 1 refused"],
  ["the refusal says when to come back", "RateLimited, within 3 seconds"],
  ["the upstream fails, so it is asked again", "failed, QuotesUnavailable, asked twice"],
  ["the circuit is open now, and the upstream left alone", "refused, CircuitOpen, not asked"],
  ["it has recovered, a probe passes", "ok, asked once"],
  ["and the circuit is closed", "ok, asked once"],
  ["the upstream hangs", "refused, TimedOut, in under 4 seconds"],
  ["metrics by outcome", "ok failed rejected timed_out"],
  ["one call as spans", "tool.exec.quotes.latest"],
  ["arguments of calls in spans", "none"]
]

describe("the tour", () => {
  // A busy machine may need longer, so one run of three has to make it.
  it("tells the whole story within 15 seconds and leaves nothing behind", { retry: 2 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), "effect-toolops-test-"))
    try {
      // A process that something keeps running would be killed, and then has no exit code.
      const { code, millis, stderr, stdout } = await run("tour.ts", { TMPDIR: folder })
      assert.strictEqual(code, 0, stdout + stderr)
      assert.strictEqual(stderr, "")
      assert.isBelow(millis, 15_000)
      let from = 0
      for (const [step, came] of story) {
        const at = stdout.indexOf(` ok   ${step}\n`, from)
        assert.isAtLeast(at, from, `the step "${step}" is missing or out of order`)
        const [, result] = stdout.slice(at).split("\n")
        assert.match(result!, new RegExp(`expected: ${came} +came: ${came}$`))
        from = at + 1
      }
      assert.notInclude(stdout, "FAIL")
      assert.match(stdout, /The rate limit is used up\. Try again in \d seconds?\./)
      assert.match(stdout, /The circuit is open\. Try again in 1 second\./)
      assert.match(stdout, /(\d+) of \1 steps went as expected\n$/)
      assert.deepStrictEqual(await readdir(folder), [])
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
