/**
 * An MCP server whose tools are guarded.
 *
 * `npm run serve` starts it with new API keys and prints what to try; with `-- --stdio` it speaks over standard input and
 * output, to whoever has started it. Every setting has a default (see server/settings.ts); nothing else has to run. The tools know nothing of what is around them: who may call them, how
 * often, what is cached and what happens when the upstream misbehaves is said here, in `guards`.
 */
import { NodeHttpServer, NodeRuntime, NodeServices } from "@effect/platform-node"
import { Cause, Effect, Exit, Layer, Redacted } from "effect"
import { ToolPipeline } from "effect-toolops"
import { McpOps } from "effect-toolops/ai"
import { ApiKey, AuthMiddleware, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { Graceful } from "effect-toolops/node"
import { ObserveMiddleware, PrometheusRoutes, StructuredLogger } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { McpProtocol, McpServer } from "effect/ai"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer } from "node:http"
import * as Docs from "./server/docs.ts"
import * as Notes from "./server/notes.ts"
import * as Quotes from "./server/quotes.ts"
import { load, type Settings, SettingsError, variables } from "./server/settings.ts"
import { handlers, Tools } from "./server/tools.ts"

/** Who may do what: readers read, writers write as well. Nobody else may do anything. */
const rules = Rbac.layer({
  roles: {
    reader: { allowedTools: ["docs:*", "notes:list", "quotes:*"], allowedActions: ["call"] },
    writer: { inherits: ["reader"], allowedTools: ["notes:add"], allowedActions: ["call"] }
  }
})

/** Who calls, and what they may do. The pipeline decides by it, and so does the list of tools. */
const auth = (settings: Settings) =>
  Layer.merge(
    ApiKey.layer().pipe(Layer.provide(
      ApiKey.layerMemory({ keys: settings.keys.map((key, index) => ({ id: `key-${index + 1}`, ...key })) })
    )),
    rules
  )

const limits = (settings: Settings) =>
  RateLimit.layer({
    limits: [{ name: "calls", per: "identity", limit: settings.callsPerMinute, window: "1 minute" }]
  }).pipe(Layer.provide(RateLimitStore.layerMemory()))

/** What stands between a caller and a tool, outermost first. */
const guards = (settings: Settings) =>
  ToolPipeline.layer.pipe(Layer.provide([
    ObserveMiddleware.layer(),
    AuthMiddleware.layer,
    RateLimitMiddleware.layer.pipe(Layer.provide(limits(settings))),
    CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory({ maxEntries: 1_000 }))),
    ResilienceMiddleware.layer()
  ]))

const partsOf = (settings: Settings) => Layer.mergeAll(Docs.layer, Notes.layer(settings.notesPath), Quotes.layer)

/** The tools as MCP clients get them: each sees those that they may call. Over stdio, whoever has started it calls. */
const registrations = (settings: Settings, parts: ReturnType<typeof partsOf>) => {
  const middleware = McpOps.headers
    .combine(McpOps.visibility(Tools))
    .combine(McpOps.stdio({ identity: { principal: "stdio", roles: [settings.stdioRole] } }))
  return McpServer.toolkit(Tools).pipe(
    Layer.provide(middleware.layer),
    Layer.provide(handlers),
    Layer.provide([guards(settings), parts]),
    Layer.provide(auth(settings))
  )
}

const server = {
  name: "effect-toolops-example",
  version: "0.1.0",
  protocols: [McpProtocol.v2026_07_28, McpProtocol.v2025_11_25, McpProtocol.v2025_06_18]
} as const

const routes = (settings: Settings) => {
  const parts = partsOf(settings)
  const checks = HealthRegistry.layerCheck(HealthCheck.make({
    name: "notes",
    check: Effect.flatMap(Notes.Notes, (notes) => Effect.asVoid(notes.list))
  }))
  return Layer.mergeAll(
    McpServer.layerHttp({ ...server, path: "/mcp", registrations: registrations(settings, parts) }),
    PrometheusRoutes.layer(),
    HealthRoutes.layer().pipe(Layer.provideMerge(checks), Layer.provide([HealthRegistry.layer, parts]))
  )
}

const listen = (settings: Settings) =>
  NodeHttpServer.layerServer(() => createServer(), {
    host: settings.host,
    port: settings.port,
    gracefulShutdownTimeout: "2 seconds"
  }).pipe(
    Layer.catchTag("ServeError", (error) =>
      Layer.effect(HttpServer.HttpServer, Effect.fail(listenProblem(settings, error.cause))))
  )

const listenProblem = (settings: Settings, cause: unknown): SettingsError => {
  const code = typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined
  return code === "EADDRINUSE"
    ? new SettingsError({ field: "TOOLOPS_PORT", problem: `port ${settings.port} is taken` })
    : code === "EACCES"
    ? new SettingsError({ field: "TOOLOPS_PORT", problem: `port ${settings.port} needs more rights` })
    : new SettingsError({ field: "TOOLOPS_HOST", problem: `cannot listen on ${settings.host}` })
}

const upstream = (settings: Settings) =>
  settings.quotesUrl === undefined ? Quotes.upstreamLocal : Quotes.upstreamAt(settings.quotesUrl)

/** The whole server. It also gives the upstream, so that whoever starts it can make the upstream fail. */
export const layer = (settings: Settings) =>
  // Nobody balances the load of a server that only this machine reaches, so there it need not wait.
  Graceful.layer({ delay: settings.host === "127.0.0.1" ? 0 : "5 seconds" }).pipe(
    Layer.provideMerge(HttpRouter.serve(routes(settings), { disableLogger: true, disableListenLog: true })),
    Layer.provideMerge(listen(settings)),
    Layer.provideMerge(upstream(settings)),
    // The one that the guards tell how they are, that probes ask, and by which calls are refused at the end.
    Layer.provide([NodeServices.layer, HealthRegistry.layer])
  )

/** The same tools behind the same guards, for one client at the other end of standard input and output. */
export const layerStdio = (settings: Settings) =>
  McpServer.layerStdio({ ...server, registrations: registrations(settings, partsOf(settings)) }).pipe(
    Layer.provide(upstream(settings)),
    Layer.provide(NodeServices.layer)
  )

const instructions = (settings: Settings, server: string, upstream: Quotes.Upstream["Service"]): string => {
  const keyOf = (role: string) => {
    const found = settings.keys.find((key) => key.roles.includes(role))
    return found === undefined ? `"a key of a ${role}"` : Redacted.value(found.key)
  }
  return `Listening on ${server}/mcp. Ctrl-C stops the server. Try, in another shell:

reader=${keyOf("reader")}
writer=${keyOf("writer")}
call() {
  curl -s ${server}/mcp -H "x-api-key: $1" -H "mcp-name: $2" -H 'mcp-method: tools/call' \\
    -H 'mcp-protocol-version: 2026-07-28' -H 'content-type: application/json' \\
    -H 'accept: application/json, text/event-stream' -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":
    {"name":"'$2'","arguments":'"$3"',"_meta":${JSON.stringify(meta)}}}'
}
# a reader may search, and the second time the answer comes from the cache; for a reader there is no tool that writes
call $reader docs_search '{"query":"Layer.provide","limit":2}'
call $reader notes_add '{"text":"hello"}'
call $writer notes_add '{"text":"hello"}'
# quotes come from an upstream${
    upstream.control === undefined ? "" : `, which can be told to ok, fail, hang or be slow`
  }
call $reader quotes_latest '{"symbol":"ACME"}'
${upstream.control === undefined ? "" : `curl -s -X POST ${upstream.url}/mode/fail\n`}curl -s ${server}/metrics
curl -s ${server}/readyz
`
}

const meta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientInfo": { name: "curl", version: "1" },
  "io.modelcontextprotocol/clientCapabilities": {}
}

const serve = Effect.gen(function*() {
  const given = process.argv.slice(2)
  const unknown = given.find((argument) => argument !== "--stdio")
  if (unknown !== undefined) {
    const known = Object.keys(variables).join(", ")
    return yield* new SettingsError({ field: unknown, problem: `unknown argument, set one of ${known} instead` })
  }
  const settings = yield* load(process.env)
  if (given.length > 0) {
    // Ends with its input. What is logged goes to standard error.
    return yield* Layer.launch(layerStdio(settings)).pipe(Effect.provide(StructuredLogger.layer()))
  }
  const running = Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    console.log(instructions(settings, HttpServer.formatAddress(address), yield* Quotes.Upstream))
    return yield* Effect.never
  })
  return yield* Effect.provide(running, layer(settings)).pipe(Effect.provide(StructuredLogger.layer()))
})

if (import.meta.main) {
  NodeRuntime.runMain(serve, {
    // A mistake of the user's is told in one line. Anything else is ours and keeps its stack.
    disableErrorReporting: true,
    teardown: (exit, done) => {
      if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return done(0)
      const error = Cause.squash(exit.cause)
      console.error(error instanceof SettingsError ? error.message : Cause.pretty(exit.cause))
      done(1)
    }
  })
}
