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
  registrations: Layer.Layer<never, never, McpServer.McpServer>,
  around: <A, E, R>(server: Layer.Layer<A, E, R>) => Layer.Layer<A, E, R | HttpRouter.HttpRouter> = (server) => server
): Effect.Effect<string, never, Scope.Scope> => {
  const app = McpServer.layerHttp({
    name: "test",
    version: "0.0.0",
    path: "/mcp",
    allowSessionTermination: true,
    protocols: [McpProtocol.v2026_07_28, McpProtocol.v2025_11_25, McpProtocol.v2025_03_26],
    registrations
  }).pipe(around)
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

/** An answer as it comes over the wire, without what differs from one answer to the next. */
export interface Raw {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: string
}

/** A client that knows nothing but how to write a request. */
export interface Speaker {
  (
    method: string,
    params: Record<string, unknown>,
    headers?: Record<string, string | undefined>
  ): Effect.Effect<Raw>
  readonly batch: (
    requests: ReadonlyArray<{ readonly method: string; readonly params: Record<string, unknown> }>
  ) => Effect.Effect<Raw>
}

/** Speaks JSON-RPC to an endpoint by hand, with the same id in every request that is not part of a batch. */
export const rpc = (
  url: string,
  revision: "2026-07-28" | "2025-11-25" | "2025-03-26",
  headers: Record<string, string> = {}
): Effect.Effect<Speaker> => {
  const post = (body: unknown, more: Record<string, string | undefined>): Effect.Effect<Raw> =>
    Effect.promise(async () => {
      const sent = {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        ...headers,
        ...more
      }
      const response = await fetch(url, {
        method: "POST",
        headers: Object.entries(sent).filter((entry): entry is [string, string] => entry[1] !== undefined),
        body: JSON.stringify(body)
      })
      const seen = Object.fromEntries([...response.headers].filter(([name]) => name !== "date"))
      return { status: response.status, headers: seen, body: await response.text() }
    })
  const clientInfo = { name: "by-hand", version: "0.0.0" }
  const speaker = (speak: (...args: Parameters<Speaker>) => Effect.Effect<Raw>, more: Record<string, string>) =>
    Object.assign(speak, {
      batch: (requests: Parameters<Speaker["batch"]>[0]) =>
        post(requests.map((request, index) => ({ jsonrpc: "2.0", id: index + 1, ...request })), more)
    })
  if (revision === "2026-07-28") {
    return Effect.succeed(speaker((method, params, more) =>
      post({
        jsonrpc: "2.0",
        id: 1,
        method,
        params: {
          ...params,
          _meta: {
            "io.modelcontextprotocol/protocolVersion": revision,
            "io.modelcontextprotocol/clientInfo": clientInfo,
            "io.modelcontextprotocol/clientCapabilities": {},
            ...(params["_meta"] as object | undefined)
          }
        }
      }, {
        "mcp-protocol-version": revision,
        "mcp-method": method,
        ...(typeof params["name"] === "string" ? { "mcp-name": params["name"] } : {}),
        ...more
      }), { "mcp-protocol-version": revision }))
  }
  return Effect.map(
    post({
      jsonrpc: "2.0",
      id: 0,
      method: "initialize",
      params: { protocolVersion: revision, capabilities: {}, clientInfo }
    }, {}),
    (hello) => {
      const session = { "mcp-session-id": hello.headers["mcp-session-id"] ?? "", "mcp-protocol-version": revision }
      return speaker(
        (method, params, more) => post({ jsonrpc: "2.0", id: 1, method, params }, { ...session, ...more }),
        session
      )
    }
  )
}
