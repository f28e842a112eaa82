import { NodeHttpServer } from "@effect/platform-node"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { Context, Effect, Layer, type Scope } from "effect"
import { ToolPipeline } from "effect-toolops"
import { AuthMiddleware } from "effect-toolops/auth"
import { CacheMiddleware } from "effect-toolops/cache"
import { RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { McpProtocol, McpServer } from "effect/ai"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer } from "node:http"

/** A pipeline whose stages do nothing but what the test says. */
export const pipeline = (stages: {
  readonly observe?: typeof ObserveMiddleware.layerPassthrough
  readonly auth?: typeof AuthMiddleware.layerPassthrough
  readonly limit?: typeof RateLimitMiddleware.layerPassthrough
  readonly cache?: typeof CacheMiddleware.layerPassthrough
  readonly resilience?: typeof ResilienceMiddleware.layerPassthrough
} = {}): Layer.Layer<ToolPipeline.ToolPipeline> =>
  ToolPipeline.layer.pipe(Layer.provide([
    stages.observe ?? ObserveMiddleware.layerPassthrough,
    stages.auth ?? AuthMiddleware.layerPassthrough,
    stages.limit ?? RateLimitMiddleware.layerPassthrough,
    stages.cache ?? CacheMiddleware.layerPassthrough,
    stages.resilience ?? ResilienceMiddleware.layerPassthrough
  ]))

/** Serves registrations over HTTP on a free port and gives the address of the endpoint. */
export const serve = (
  registrations: Layer.Layer<never, never, McpServer.McpServer>
): Effect.Effect<string, never, Scope.Scope> => {
  const app = McpServer.layerHttp({
    name: "test",
    version: "0.0.0",
    path: "/mcp",
    protocols: [McpProtocol.v2026_07_28, McpProtocol.v2025_11_25],
    registrations
  })
  const listening = HttpRouter.serve(app, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layer(() => createServer(), { port: 0, host: "127.0.0.1" })),
    Layer.orDie
  )
  return Effect.map(
    Layer.build(listening),
    (context) => `${HttpServer.formatAddress(Context.get(context, HttpServer.HttpServer).address)}/mcp`
  )
}

/** The official client, connected to an endpoint. */
export const connect = (
  url: string,
  headers: Record<string, string> = {}
): Effect.Effect<Client, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Client({ name: "test-client", version: "0.0.0" })
      await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }))
      return client
    }),
    (client) => Effect.promise(() => client.close())
  )

export interface Answer {
  readonly isError: boolean
  readonly structured: unknown
  readonly text: string
}

/** Calls a tool with the official client. */
export const call = (client: Client, name: string, input: Record<string, unknown> = {}): Effect.Effect<Answer> =>
  Effect.promise(async () => {
    const result = await client.callTool({ name, arguments: input })
    const content = result.content as ReadonlyArray<{ readonly type: string; readonly text?: string }>
    return {
      isError: result.isError === true,
      structured: result.structuredContent,
      text: content.map((part) => part.text ?? "").join("")
    }
  })
