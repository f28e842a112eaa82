import type * as McpSchema from "effect/ai/McpSchema"
import { HEADER_MISMATCH_ERROR_CODE, McpErrorBase } from "effect/ai/McpSchema"
import * as McpServer from "effect/ai/McpServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import { sentHeaders } from "../../auth/internal/sentHeaders.ts"
import { CacheMode } from "../../cache/CacheMiddleware.ts"
import { CurrentPeer } from "../../limit/RateLimit.ts"
import { CurrentMcpRequest, type McpRequest } from "../../observe/McpRequest.ts"
import { RequestHeaders } from "../../ToolCall.ts"
import { ProgressReporter, reporterOf } from "./progress.ts"
import { RefusalSlot, type Slot } from "./refusalSlot.ts"

/**
 * MCP middleware that gives nothing to handlers. `Requires` is what its layer needs.
 *
 * @category models
 * @since 0.1.0
 */
export type Middleware<Requires = never> = McpServer.Middleware<{
  provides: never
  error: McpSchema.McpErrorBase
  requires: never
  layerError: never
  layerRequires: Requires
}>

/**
 * Lets the pipeline see the request around a tool call: its headers (`ToolCall.RequestHeaders`), the address that it came
 * from (`RateLimit.CurrentPeer`), its protocol revision and JSON-RPC id, and the trace that the client is in
 * (`traceparent` in `_meta`). Handlers can report `progress`.
 *
 * **Details**
 *
 * Provide `headers.layer` to the registrations, or `headers.layerGlobal` beside them for the whole server. Over stdio
 * there are no headers, so whatever has been set around the server stays (see `stdio`).
 *
 * Where a call of a tool, a resource or a prompt has the headers `Mcp-Name` and `Mcp-Method`, they must say what its body
 * says, in every revision: what stands before the server may have decided by them. Otherwise it fails with the code -32020
 * of the protocol. Lists are not looked at; the server does that in revision 2026-07-28.
 *
 * A request that brings input which a tool has asked for (`inputResponses`, `requestState`) bypasses the cache.
 *
 * **Gotchas**
 *
 * Together with `visibility` provide both in one piece (`headers.combine(visibility(Tools))`, its `layer` or its
 * `layerGlobal`). `headers.layerGlobal` around a `visibility` of some registrations tells a hidden tool from an absent one:
 * it answers for the one that there is when `Mcp-Name` does not match.
 *
 * Of the client's trace only `traceparent` counts; its `tracestate` is dropped, because a parent span of `effect` has no
 * place for it. A sampler or backend that goes by vendor entries does not see them.
 *
 * The JSON-RPC id goes to the root span as `jsonrpc.request.id`, over HTTP only. It is not the id of the call: every
 * connection counts from the same number.
 *
 * **Example** (Guarding an MCP server)
 *
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { McpServer, Tool, Toolkit } from "effect/ai"
 * import { McpOps, ToolkitOps } from "effect-toolops/ai"
 *
 * const Echo = Tool.make("echo", { parameters: Schema.Struct({ text: Schema.String }), success: Schema.String })
 * const Tools = ToolkitOps.guard(Toolkit.make(Echo))
 *
 * // Needs a ToolPipeline. Goes to `McpServer.layerHttp({ registrations, ... })`.
 * const registrations = McpServer.toolkit(Tools).pipe(
 *   Layer.provide(McpOps.headers.layer),
 *   Layer.provide(ToolkitOps.layer(Tools, { echo: ({ text }) => Effect.succeed(text) }))
 * )
 * ```
 *
 * @category middleware
 * @since 0.1.0
 */
export const headers: Middleware<McpServer.McpServer> = McpServer.middleware(
  Effect.map(
    McpServer.McpServer,
    (server): McpServer.middleware.Fn<never, McpErrorBase, never> => (effect, options) =>
      Effect.withFiber((fiber) => {
        const http = httpRequest(fiber.context)
        return http !== undefined && isCall(options) && !agrees(options)
          ? Effect.fail(headerMismatch)
          : reporting(server, options, Effect.updateContext(effect, (context) => withRequest(context, options, http)))
      })
  )
)

/** What stands in the context of everything that happens for a request. */
export const withRequest = <R>(
  context: Context.Context<R>,
  options: McpServer.MiddlewareOptions,
  http: HttpServerRequest.HttpServerRequest | undefined
): Context.Context<R> => {
  const { inputResponses, requestState } = options.requestContext
  let seen = Context.add(context, CurrentMcpRequest, new SeenRequest(options, http, Context.get(context, RefusalSlot)))
  if (inputResponses !== undefined || requestState !== undefined) seen = Context.add(seen, CacheMode, "bypass")
  return http === undefined ? seen : seen.pipe(
    Context.add(RequestHeaders, sentHeaders(http, options.headers)),
    // Unless somebody who knows the proxies in between has said it before.
    Context.add(CurrentPeer, Context.get(context, CurrentPeer) ?? Option.getOrUndefined(http.remoteAddress))
  )
}

// No report may follow the answer, and a run that renews what is in the cache goes on behind it.
const reporting = <A, E, R>(
  server: McpServer.McpServer["Service"],
  { requestContext }: McpServer.MiddlewareOptions,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const reports = reporterOf(server, requestContext.requestMetadata)
  return reports === undefined
    ? effect
    : Effect.flatMap(
      Effect.ensuring(Effect.provideService(effect, ProgressReporter, reports.report), reports.close),
      (answer) => Effect.as(reports.sent, answer)
    )
}

export const httpRequest = (
  context: Context.Context<never>
): HttpServerRequest.HttpServerRequest | undefined =>
  Context.getOrUndefined(
    context as Context.Context<HttpServerRequest.HttpServerRequest>,
    HttpServerRequest.HttpServerRequest
  )

export const isCall = ({ method }: McpServer.MiddlewareOptions): boolean => !method.endsWith("/list")

const headerMismatch = new McpErrorBase({
  code: HEADER_MISMATCH_ERROR_CODE,
  message: "The headers Mcp-Name and Mcp-Method do not match the request"
})

// Revisions before 2026-07-28 know nothing of the two headers, so a server would not look at them.
const agrees = ({ headers, method, target }: McpServer.MiddlewareOptions): boolean => {
  const name = headers["mcp-name"]
  const said = headers["mcp-method"]
  return (said === undefined || said === method) &&
    (name === undefined || method === "completion/complete" || McpServer.decodeNameHeader(name) === target)
}

class SeenRequest implements McpRequest {
  readonly protocolVersion: string
  readonly transport: "pipe" | "tcp"
  readonly parent: Tracer.AnySpan | undefined
  readonly errorType: McpRequest["errorType"]
  readonly #http: HttpServerRequest.HttpServerRequest | undefined

  constructor(
    { requestContext }: McpServer.MiddlewareOptions,
    http: HttpServerRequest.HttpServerRequest | undefined,
    slot: Slot | undefined
  ) {
    this.errorType = slot?.errorType
    this.protocolVersion = requestContext.protocolVersion
    this.transport = http === undefined ? "pipe" : "tcp"
    this.parent = traceOf(requestContext.requestMetadata)
    this.#http = http
  }

  // Read when a span is written, so that a call that is not traced does not pay for it.
  get requestId(): string | number | undefined {
    return this.#http === undefined ? undefined : idOf(this.#http)
  }
}

// Big bodies are not parsed a second time for the sake of an attribute.
const maxBody = 65_536

// `effect/ai` does not tell middleware the id, and the server has read the body already, so it is there at once.
const idOf = (http: HttpServerRequest.HttpServerRequest): string | number | undefined => {
  try {
    const text = Effect.runSync(http.text)
    if (text.length > maxBody) return undefined
    const body: unknown = JSON.parse(text)
    // A batch has several ids, and nothing says which is this one's.
    const id = typeof body === "object" && body !== null && "id" in body ? body.id : undefined
    return typeof id === "string" || typeof id === "number" ? id : undefined
  } catch {
    return undefined
  }
}

const traceOf = (metadata: object | undefined): Tracer.AnySpan | undefined => {
  if (metadata === undefined || !("traceparent" in metadata)) return undefined
  const { traceparent } = metadata
  if (typeof traceparent !== "string") return undefined
  return Option.getOrUndefined(HttpTraceContext.w3c(Headers.fromRecordUnsafe({ traceparent })))
}
