/** One of the servers that the mcp group compares, as a process of its own: `bare`, `guarded` or `sdk`. */
import { NodeHttpServer } from "@effect/platform-node"
import { McpServer as SdkServer } from "@modelcontextprotocol/sdk/server/mcp.js"
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js"
import { Context, Effect, Layer, Redacted, Schema } from "effect"
import { ToolPipeline } from "effect-toolops"
import { McpOps, ToolkitOps, ToolPolicy } from "effect-toolops/ai"
import { ApiKey, AuthMiddleware, Rbac } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { McpProtocol, McpServer, Tool, Toolkit } from "effect/ai"
import { HttpRouter, HttpServer } from "effect/http"
import { randomUUID } from "node:crypto"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { z } from "zod"
import { key } from "./key.ts"

const Text = Schema.Struct({ text: Schema.String })
const Echo = Tool.make("echo", { parameters: Text, success: Text })
  .annotate(Tool.Readonly, true)
  .annotate(ToolPolicy.ToolPolicy, { policy: { bulkhead: { maxConcurrent: 1_000 } } })
// Its answer is not there yet when it has begun, as with any tool that asks somebody.
const Later = Tool.make("later", { parameters: Text, success: Text })
  .annotate(Tool.Readonly, true)
  .annotate(ToolPolicy.ToolPolicy, { policy: { bulkhead: { maxConcurrent: 1_000 } } })
const Slow = Tool.make("slow", { parameters: Text, success: Text })
  .annotate(Tool.Readonly, true)
  .annotate(ToolPolicy.ToolPolicy, { policy: { bulkhead: { maxConcurrent: 1_000 } } })

const work = {
  echo: ({ text }: typeof Text.Type) => Effect.succeed({ text }),
  later: ({ text }: typeof Text.Type) => Effect.as(Effect.yieldNow, { text }),
  slow: ({ text }: typeof Text.Type) => Effect.as(Effect.sleep("5 millis"), { text })
}

const bare = () => {
  const Tools = Toolkit.make(Echo, Later, Slow)
  return McpServer.toolkit(Tools).pipe(Layer.provide(Tools.toLayer(work)))
}

const guarded = () => {
  const Tools = ToolkitOps.guard(Toolkit.make(Echo, Later, Slow))
  const auth = Layer.mergeAll(
    ApiKey.layer().pipe(Layer.provide(
      ApiKey.layerMemory({ keys: [{ id: "b", key: Redacted.make(key), principal: "bench", roles: ["user"] }] })
    )),
    Rbac.layer({ roles: { user: { allowedTools: ["*"], allowedActions: ["call"] } } })
  )
  const stages = ToolPipeline.layer.pipe(Layer.provide([
    ObserveMiddleware.layer({ log: false }),
    AuthMiddleware.layer,
    RateLimitMiddleware.layer.pipe(Layer.provide(
      RateLimit.layer({ limits: [{ name: "all", per: "identity", limit: 1_000_000_000, window: "1 hour" }] }).pipe(
        Layer.provide(RateLimitStore.layerMemory())
      )
    )),
    CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory({ maxEntries: 1_000 }))),
    ResilienceMiddleware.layer()
  ]))
  return McpServer.toolkit(Tools).pipe(
    Layer.provide(McpOps.headers.combine(McpOps.visibility(Tools)).layer),
    Layer.provide(ToolkitOps.layer(Tools, work)),
    Layer.provide(stages),
    Layer.provide(auth),
    Layer.orDie
  )
}

const serveEffect = async (registrations: Layer.Layer<never, never, McpServer.McpServer>): Promise<string> => {
  const app = McpServer.layerHttp({
    name: "bench",
    version: "0.0.0",
    path: "/mcp",
    protocols: [McpProtocol.v2025_11_25],
    registrations
  })
  const listening = HttpRouter.serve(app, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layer(() => createServer(), { port: 0, host: "127.0.0.1" }))
  )
  const address = Effect.map(
    Layer.build(listening),
    (context) => HttpServer.formatAddress(Context.get(context, HttpServer.HttpServer).address)
  )
  return new Promise((resolve, reject) => {
    Effect.runFork(
      Effect.scoped(Effect.andThen(
        Effect.map(address, (url) => resolve(`${url}/mcp`)),
        Effect.never
      )).pipe(Effect.catchCause((cause) => Effect.sync(() => reject(new Error(String(cause))))))
    )
  })
}

const serveSdk = async (): Promise<string> => {
  const sessions = new Map<string, StreamableHTTPServerTransport>()
  const open = async () => {
    const server = new SdkServer({ name: "bench", version: "0.0.0" })
    const echo = async ({ text }: { readonly text: string }) => ({
      content: [{ type: "text" as const, text: JSON.stringify({ text }) }],
      structuredContent: { text }
    })
    const config = {
      description: "",
      inputSchema: { text: z.string() },
      outputSchema: { text: z.string() },
      annotations: { readOnlyHint: true }
    }
    server.registerTool("echo", config, echo)
    server.registerTool("slow", config, async (args) => {
      await new Promise((resolve) => setTimeout(resolve, 5))
      return echo(args)
    })
    const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      enableJsonResponse: true,
      onsessioninitialized: (id) => {
        sessions.set(id, transport)
      }
    })
    await server.connect(transport as never)
    return transport
  }
  const server = createServer((request, response) => {
    const session = sessions.get(String(request.headers["mcp-session-id"]))
    const handled = session === undefined
      ? open().then((transport) => transport.handleRequest(request, response))
      : session.handleRequest(request, response)
    handled.catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`
}

const which = process.argv[2]
const url = which === "sdk" ? await serveSdk() : await serveEffect(which === "guarded" ? guarded() : bare())
process.on("message", () => process.send!(process.cpuUsage()))
// Nobody is left to be served.
process.on("disconnect", () => process.exit(0))
process.send!(url)
