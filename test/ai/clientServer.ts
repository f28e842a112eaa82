/** A guarded MCP server for the official client, over HTTP or (when it is run as a program) over stdio. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Effect, Layer, Schema } from "effect"
import { ToolPipeline } from "effect-toolops"
import { McpOps, ToolkitOps, ToolPolicy } from "effect-toolops/ai"
import { Authenticator, AuthMiddleware, Identity, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { McpProtocol, McpServer, Tool, Toolkit } from "effect/ai"

const Who = Schema.Struct({ principal: Schema.String, word: Schema.String })
const Word = Schema.Struct({ word: Schema.String })

const Tools = ToolkitOps.guard(Toolkit.make(
  // Cached for each caller, which shows if one is given what is another's.
  Tool.make("who_cached", { parameters: Word, success: Who }).annotate(Tool.Readonly, true),
  Tool.make("who_fresh", { parameters: Word, success: Who }),
  Tool.make("count_up", { parameters: Schema.Struct({ to: Schema.Int }), success: Schema.Int }),
  Tool.make("slow_late").annotate(ToolPolicy.ToolPolicy, { policy: { timeout: { timeout: "50 millis" } } }),
  Tool.make("slow_hang"),
  Tool.make("rare_call", { success: Schema.String }),
  Tool.make("admin_purge", { success: Schema.String })
))

const callers = Layer.succeed(
  Authenticator.Authenticator,
  Authenticator.make({
    authenticate: (headers) => {
      const user = headers["x-user"]
      return typeof user === "string"
        ? Effect.succeedSome(Identity.make({ principal: user, roles: ["user"] }))
        : Effect.succeedNone
    }
  })
)

const rules = Rbac.layer({
  roles: { user: { allowedTools: ["who:*", "count:*", "slow:*", "rare:*"], allowedActions: ["call"] } }
})

/** `limit` is how many calls of `who_*` each caller has, `event` is told what happens to `slow_hang`. */
export const registrations = (event: (text: string) => void, limit = 1_000_000) => {
  const who = ({ word }: typeof Word.Type) =>
    Effect.gen(function*() {
      yield* Effect.yieldNow
      const identity = yield* Identity.CurrentIdentity
      yield* Effect.sleep(word.length % 3)
      return { principal: identity.principal, word }
    })
  const handlers = ToolkitOps.layer(Tools, {
    who_cached: who,
    who_fresh: who,
    count_up: ({ to }) =>
      Effect.gen(function*() {
        for (let progress = 1; progress <= to; progress++) yield* McpOps.progress({ progress, total: to })
        return to
      }),
    slow_late: () => Effect.never,
    slow_hang: () =>
      Effect.sync(() => event("started")).pipe(
        Effect.andThen(Effect.never),
        Effect.onInterrupt(() => Effect.sync(() => event("interrupted")))
      ),
    rare_call: () => Effect.succeed("done"),
    admin_purge: () => Effect.sync(() => event("purged")).pipe(Effect.as("purged"))
  })
  const stages = ToolPipeline.layer.pipe(Layer.provide([
    ObserveMiddleware.layer({ log: false }),
    AuthMiddleware.layer,
    RateLimitMiddleware.layer.pipe(Layer.provide(
      RateLimit.layer({
        limits: [
          { name: "rare", per: "identity", tools: ["rare:call"], limit: 1, window: "1 hour" },
          { name: "who", per: "identity", tools: ["who:*"], limit, window: "1 hour" }
        ]
      }).pipe(Layer.provide(RateLimitStore.layerMemory()))
    )),
    CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())),
    ResilienceMiddleware.layer({ defaults: { bulkhead: { maxConcurrent: 2_000 } } })
  ]))
  const middleware = McpOps.headers
    .combine(McpOps.visibility(Tools))
    .combine(McpOps.stdioConfig({ credentials: { "x-user": Config.Redacted("TEST_USER") } }))
  return McpServer.toolkit(Tools).pipe(
    Layer.provide(middleware.layer),
    Layer.provide(handlers),
    Layer.provide(stages),
    Layer.provide([callers, rules]),
    Layer.orDie
  )
}

if (import.meta.main) {
  const server = McpServer.layerStdio({
    name: "test",
    version: "0.0.0",
    protocols: [McpProtocol.v2026_07_28, McpProtocol.v2025_11_25],
    registrations: registrations((text) => console.error(text))
  })
  NodeRuntime.runMain(Layer.launch(server).pipe(Effect.provide(NodeServices.layer)))
}
