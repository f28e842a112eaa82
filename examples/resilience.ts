/**
 * When a tool misbehaves: it is asked again, given up in time, left alone while it is down, and kept from taking every
 * slot. A write is asked once.
 *
 * Run it: node -C @effect-toolops/source examples/resilience.ts
 */
import { Effect } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ResilienceMiddleware } from "effect-toolops/resilience"

const read = ToolMeta.make({ namespace: "pages", name: "read", readOnly: true })
const send = ToolMeta.make({ namespace: "mail", name: "send" })
const crunch = ToolMeta.make({
  name: "crunch",
  readOnly: true,
  policy: { timeout: { timeout: "50 millis" }, retry: false, bulkhead: { maxConcurrent: 2 } }
})

const Resilience = ResilienceMiddleware.layer({
  defaults: {
    retry: { maxAttempts: 3, initialDelay: "5 millis" },
    circuitBreaker: { maxFailures: 2, resetTimeout: "100 millis" }
  },
  // The breaker of this one is not what its example is about.
  rules: [{ tools: "crunch", policy: { circuitBreaker: false } }]
})

const program = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(ResilienceMiddleware.ResilienceMiddleware)
  const attempt = (title: string, tool: ToolMeta.ToolMeta, work: Effect.Effect<string, string>) => {
    let asked = 0
    const counted = Effect.suspend(() => {
      asked += 1
      return work
    })
    return pipeline.run({ tool }, counted).pipe(
      Effect.catch((error) =>
        Effect.succeed(typeof error === "string" ? `failed: ${error}` : `refused: ${error.reason._tag}`)
      ),
      Effect.map((answer) => console.log(`${title.padEnd(34)} ${answer.padEnd(24)} asked ${asked} times`))
    )
  }

  let failures = 0
  const flaky = Effect.suspend(() => ++failures < 3 ? Effect.fail("busy") : Effect.succeed("a page"))
  yield* attempt("a read that fails twice", read, flaky)
  yield* attempt("a write that fails", send, Effect.fail("busy"))

  const broken = Effect.fail("down")
  yield* attempt("a read of a broken upstream", read, broken)
  yield* attempt("and once more", read, broken)
  yield* attempt("its circuit is open", read, broken)
  yield* attempt("another tool is not concerned", send, Effect.succeed("sent"))
  yield* Effect.sleep("120 millis")
  yield* attempt("the upstream is back", read, Effect.succeed("a page"))

  yield* attempt("work that takes too long", crunch, Effect.never)
  yield* Effect.all(
    Array.from(
      { length: 3 },
      (_, index) =>
        attempt(`three at once, two slots: ${index + 1}`, crunch, Effect.delay(Effect.succeed("done"), "10 millis"))
    ),
    { concurrency: "unbounded" }
  )
})

await Effect.runPromise(Effect.provide(program, Resilience))
