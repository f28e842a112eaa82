import { assert, describe, it } from "@effect/vitest"
import { run } from "./run.ts"

/** What each program must have shown: that something passes, and that something is refused. */
const programs: ReadonlyArray<readonly [file: string, shown: ReadonlyArray<RegExp>]> = [
  ["auth.ts", [
    /^no key +refused: MissingCredentials$/m,
    /^ada searches +done for ada$/m,
    /^ada removes +refused: Forbidden$/m
  ]],
  ["audit.ts", [
    /^ada of acme: docs:search ok .*\n +of its input: \{"query":"effect"\}/m,
    /^ada of acme: hr:salaries denied .*\n +of its input: \{\}/m,
    /^999 more refusals are told as a count$/m,
    /^CEF:0\|effect-toolops\|effect-toolops\|1\|call:denied\|/m,
    /^refused: it cannot be recorded$/m
  ]],
  ["limit.ts", [
    /^(ada docs:search +passes\n){3}ada docs:search +refused by per-caller, come back within 1 s\nbob docs:search +passes$/m,
    /^bob models:train +refused by training/m
  ]],
  ["observe.ts", [
    /^log .*"outcome":"ok"/m,
    /^log .*"outcome":"failed"/m,
    /^span +tool\.exec\.docs\.read: NotFound$/m,
    /^metric +tool_call_total\{outcome="failed"/m
  ]],
  ["health.ts", [
    /^\/readyz +200 \{"status":"degraded"\}$/m,
    /^\/readyz +503 \{"status":"unhealthy"\}$/m,
    /told to end\n\/readyz +503 .*\n\/healthz +200 .*\na call at once +done\n/m,
    /^a call later +refused: Draining\na call in flight +done$/m
  ]],
  [
    "cache.ts",
    [
      /^ada asks +milk +runs: 1\nada asks again +milk +runs: 1\nbob does not get ada's answer +milk +runs: 2\nada asks after a write +milk, bread +runs: 3$/m,
      /^two calls of a tool that fails +ran 2 times$/m
    ]
  ],
  [
    "resilience.ts",
    [
      /^a read that fails twice +a page +asked 3 times$/m,
      /^a write that fails +failed: busy +asked 1 times$/m,
      /^its circuit is open +refused: CircuitOpen +asked 0 times$/m,
      /^the upstream is back +a page +asked 1 times$/m,
      /^work that takes too long +refused: TimedOut +asked 1 times$/m,
      /refused: BulkheadFull +asked 0 times$/m
    ]
  ],
  ["host-http.ts", [
    /^Turin +401 No credentials were presented\nTurin +200 Sun in Turin\nTurin +200 Sun in Turin\nLisbon +200/m,
    /^Lisbon +429 The rate limit is used up \(retry-after is set\)\nthe handler ran 2 times$/m
  ]],
  ["host-mcp-sdk.ts", [
    /^nobody +refused: MissingCredentials\n(ada +Sun in Turin\n){2}ada +Sun in Lisbon\nada +refused: RateLimited$/m,
    /^the handler ran 2 times$/m
  ]],
  ["host-ai-sdk.ts", [
    /^call-2 Sun in Turin\ncall-3 Sun in Lisbon\ncall-4 The rate limit is used up\nThat is all I can find out\.$/m,
    /^the handler ran 2 times$/m
  ]],
  [
    "secret.ts",
    [
      /^API_KEY prints as <redacted> and has 6 characters$/m,
      /^DATABASE_URL still has its reference: false$/m,
      /^what a secret holds is not expanded: true$/m,
      /^FORGOTTEN is an error: .*no secret no-such-secret/m,
      /^BROKEN is an error: /m
    ]
  ],
  [
    "secret-rotation.ts",
    [
      /^pool 5 opens\npool 12 opens\na new call has rows from pool 12$/m,
      /^the call in flight had rows from pool 5$/m,
      /^pool 5 closes$/m
    ]
  ]
]

describe.concurrent("the example programs", () => {
  for (const [file, shown] of programs) {
    it(`${file} shows what it says`, async () => {
      const { code, stderr, stdout } = await run(file)
      assert.deepStrictEqual([code, stderr], [0, ""])
      for (const pattern of shown) assert.match(stdout, pattern)
      assert.notInclude(stdout, "a-private-page")
    })
  }
})
