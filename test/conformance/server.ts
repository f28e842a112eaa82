/**
 * The server that the protocol's conformance suite asks for, as far as `effect/ai` can be it: with the layer, and without.
 * Its tools return content of every kind, so they are registered by hand and not through a toolkit.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer, Schema, type Scope } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { McpOps, ToolkitOps, ToolRefusal } from "effect-toolops/ai"
import { Authenticator, AuthMiddleware, Authorizer } from "effect-toolops/auth"
import { CacheMiddleware, ToolCache } from "effect-toolops/cache"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { McpProtocol, McpSchema, McpServer, Tool, Toolkit } from "effect/ai"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer } from "node:http"

type Registration = Parameters<McpServer.McpServer["Service"]["addTool"]>[0]

type Handle = Registration["handle"]

const png = Uint8Array.from(
  atob("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="),
  (char) => char.charCodeAt(0)
)
const wav = Uint8Array.from(
  atob("UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="),
  (char) => char.charCodeAt(0)
)

const text = (text: string) => ({ type: "text", text }) as const
const image = { type: "image", data: png, mimeType: "image/png" } as const
const resource = (uri: string, mimeType: string, text: string) =>
  ({ type: "resource", resource: { uri, mimeType, text } }) as const

const result = (...content: McpSchema.CallToolResult["content"]) => new McpSchema.CallToolResult({ content })

const askName = (requestState?: string) =>
  new McpSchema.InputRequired({
    inputRequests: {
      user_name: {
        method: "elicitation/create",
        params: {
          mode: "form",
          message: "What is your name?",
          requestedSchema: { type: "object", properties: { name: { type: "string" } }, required: ["name"] }
        }
      }
    },
    requestState
  })

// Asks once, and answers what has been answered.
const asking = (requestState?: string): Handle => () =>
  Effect.map(McpSchema.McpRequestContext, ({ inputResponses }) => {
    const answer = inputResponses?.["user_name"]
    return answer === undefined ? askName(requestState) : result(text(`Hello: ${JSON.stringify(answer)}`))
  })

const report = (server: McpServer.McpServer["Service"], progress: number) =>
  Effect.flatMap(McpSchema.McpRequestContext, ({ requestMetadata }) => {
    const token: unknown = requestMetadata === undefined ? undefined : Reflect.get(requestMetadata, "progressToken")
    return typeof token !== "string" && typeof token !== "number"
      ? Effect.void
      : Effect.ignore(server.notifications["notifications/progress"]({ progressToken: token, progress, total: 100 }))
  })

const log = (server: McpServer.McpServer["Service"], data: string) =>
  Effect.ignore(server.notifications["notifications/message"]({ level: "info", data }))

const toolsOf = (
  server: McpServer.McpServer["Service"]
): Readonly<Record<string, Handle | { readonly properties: object; readonly handle: Handle }>> => ({
  test_simple_text: () => Effect.succeed(result(text("This is a simple text response for testing."))),
  test_image_content: () => Effect.succeed(result(image)),
  test_audio_content: () => Effect.succeed(result({ type: "audio", data: wav, mimeType: "audio/wav" })),
  test_embedded_resource: () =>
    Effect.succeed(result(resource("test://embedded-resource", "text/plain", "This is an embedded resource content."))),
  test_multiple_content_types: () =>
    Effect.succeed(result(
      text("Multiple content types test:"),
      image,
      resource("test://mixed-content-resource", "application/json", "{\"test\":\"data\",\"value\":123}")
    )),
  test_error_handling: () =>
    Effect.succeed(
      new McpSchema.CallToolResult({
        isError: true,
        content: [text("This tool intentionally returns an error for testing")]
      })
    ),
  test_tool_with_logging: () =>
    Effect.gen(function*() {
      for (const line of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
        yield* log(server, line)
        yield* Effect.sleep("50 millis")
      }
      return result(text("logged"))
    }),
  test_logging_tool: () => Effect.as(log(server, "logged"), result(text("logged"))),
  test_tool_with_progress: () =>
    Effect.gen(function*() {
      for (const progress of [0, 50, 100]) {
        yield* report(server, progress)
        yield* Effect.sleep("50 millis")
      }
      return result(text("done"))
    }),
  test_input_required_result_elicitation: asking(),
  test_input_required_result_request_state: asking("state-1"),
  test_custom_headers: {
    properties: { region: { type: "string", "x-mcp-header": "Region" } },
    handle: (args) => Effect.succeed(result(text(JSON.stringify(args))))
  }
})

const registerTools = (guard: (name: string, handle: Handle) => Handle) =>
  Effect.gen(function*() {
    const server = yield* McpServer.McpServer
    const services = yield* Effect.context<never>()
    for (const [name, tool] of Object.entries(toolsOf(server))) {
      const { handle, properties } = typeof tool === "function" ? { handle: tool, properties: {} } : tool
      yield* server.addTool({
        tool: new McpSchema.Tool({ name, description: `${name}.`, inputSchema: { type: "object", properties } }),
        annotations: Context.empty(),
        services,
        handle: guard(name, handle)
      })
    }
  })

const Id = McpSchema.param("id", Schema.String)

const others = Layer.mergeAll(
  McpServer.resource({
    uri: "test://static-text",
    name: "Static Text Resource",
    description: "A static text.",
    mimeType: "text/plain",
    content: Effect.succeed("This is the content of the static text resource.")
  }),
  McpServer.resource({
    uri: "test://static-binary",
    name: "Static Binary Resource",
    description: "A static image.",
    mimeType: "image/png",
    content: Effect.succeed(png)
  }),
  McpServer.resource`test://template/${Id}/data`({
    name: "Template Resource",
    description: "A template.",
    mimeType: "application/json",
    content: (_uri, id) => Effect.succeed(JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }))
  }),
  McpServer.prompt({
    name: "test_simple_prompt",
    description: "A simple prompt.",
    content: () => Effect.succeed("This is a simple prompt for testing.")
  }),
  McpServer.prompt({
    name: "test_prompt_with_arguments",
    description: "A prompt with arguments.",
    parameters: { arg1: Schema.String, arg2: Schema.String },
    completion: { arg1: () => Effect.succeed(["paris", "park", "party"]) },
    content: ({ arg1, arg2 }) => Effect.succeed(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)
  })
)

const bare = Layer.effectDiscard(registerTools((_name, handle) => handle))

const guarded = Layer.effectDiscard(Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.ToolPipeline
  yield* registerTools((name, handle) => {
    const tool = ToolMeta.make({ name })
    return (args) =>
      Effect.catchIf(
        pipeline.run({ tool, input: args }, handle(args)),
        ToolRefusal.isPipelineError,
        (error) =>
          Effect.succeed(
            new McpSchema.CallToolResult({
              isError: true,
              content: [text(JSON.stringify(ToolRefusal.fromError(error, tool)))]
            })
          )
      )
  })
}))

const stages = ToolPipeline.layer.pipe(
  Layer.provide([
    ObserveMiddleware.layer({ log: false }),
    AuthMiddleware.layer,
    RateLimitMiddleware.layer.pipe(Layer.provide(
      RateLimit.layer({ limits: [{ name: "all", per: "global", limit: 100_000, window: "1 minute" }] }).pipe(
        Layer.provide(RateLimitStore.layerMemory())
      )
    )),
    CacheMiddleware.layer.pipe(Layer.provide(ToolCache.layerMemory())),
    ResilienceMiddleware.layer()
  ])
)

// The same tools as a toolkit, for what goes by one. Nothing runs for their names, so nothing is asked of the server.
const Named = ToolkitOps.guard(Toolkit.make(
  ...Object.keys(toolsOf({} as McpServer.McpServer["Service"])).map((name) => Tool.make(name))
))

const withLayer = Layer.mergeAll(guarded, others).pipe(
  Layer.provide(
    McpOps.headers
      .combine(McpOps.authenticate)
      .combine(McpOps.visibility(Named, { namespace: false }))
      .combine(McpOps.errors({ style: "json-rpc" })).layer
  ),
  Layer.provide(stages),
  Layer.provide([Authenticator.layerAnonymous, Authorizer.layerAllowAll])
)

/** Serves one of the two on a free port and gives the address of its endpoint. */
export const serve = (which: "with" | "without"): Effect.Effect<string, never, Scope.Scope> => {
  const app = McpServer.layerHttp({
    name: "conformance",
    version: "0.0.0",
    path: "/mcp",
    protocols: [McpProtocol.v2026_07_28, McpProtocol.v2025_11_25],
    registrations: which === "with" ? withLayer : Layer.mergeAll(bare, others)
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
