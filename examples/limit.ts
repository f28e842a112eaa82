/**
 * How often: three calls at once and one more per second for each caller, and ten per minute for a dear tool, whoever
 * calls it.
 *
 * Run it: node -C @effect-toolops/source examples/limit.ts
 */
import { Duration, Effect, Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"

const search = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })
const train = ToolMeta.make({ namespace: "models", name: "train" })

const Limits = RateLimitMiddleware.layer.pipe(
  Layer.provide(RateLimit.layer({
    limits: [
      { name: "per-caller", per: "identity", limit: 1, window: "1 second", burst: 3 },
      { name: "training", per: "tool", tools: ["models:*"], limit: 10, window: "1 minute", burst: 1 }
    ]
  })),
  Layer.provide(RateLimitStore.layerMemory({ maxKeys: 10_000 }))
)

const program = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(RateLimitMiddleware.RateLimitMiddleware)
  const attempt = (principal: string, tool: ToolMeta.ToolMeta) =>
    pipeline.run({ tool }, Effect.succeed("passes")).pipe(
      Effect.catchReason("RateLimitError", "RateLimited", ({ limit, retryAfter }) =>
        Effect.succeed(`refused by ${limit}, come back within ${Math.ceil(Duration.toSeconds(retryAfter))} s`)),
      Effect.map((answer) =>
        console.log(`${principal} ${tool.id.padEnd(14)} ${answer}`)
      ),
      Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal }))
    )
  for (let call = 1; call <= 4; call++) yield* attempt("ada", search)
  yield* attempt("bob", search)
  yield* attempt("bob", train)
  // Refused by one limit, a call takes nothing from the others.
  yield* attempt("bob", train)
})

await Effect.runPromise(Effect.provide(program, Limits))
