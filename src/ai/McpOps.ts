/**
 * Joins an `effect/ai` MCP server to the pipeline.
 *
 * `headers` is the edge: it lets the pipeline see the credentials of the request that is being answered, and says that
 * the call came over MCP. Everything else is the pipeline's. Both middlewares work for every protocol revision.
 *
 * @since 0.1.0
 */
import * as McpSchema from "effect/ai/McpSchema"
import * as McpServer from "effect/ai/McpServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import { Authenticator, identify } from "../auth/Authenticator.ts"
import { CurrentIdentity } from "../auth/Identity.ts"
import { CurrentPeer } from "../limit/RateLimit.ts"
import { CurrentMcpRequest, type McpRequest } from "../observe/McpRequest.ts"
import { RequestHeaders } from "../ToolCall.ts"
import type { PipelineError } from "../ToolPipeline.ts"
import * as ToolRefusal from "./ToolRefusal.ts"

/**
 * MCP middleware that needs nothing and gives nothing to handlers.
 *
 * @category models
 * @since 0.1.0
 */
export type Middleware = McpServer.Middleware<{
  provides: never
  error: McpSchema.McpErrorBase
  requires: never
  layerError: never
  layerRequires: never
}>

/**
 * Lets the pipeline see the request around a tool call: its headers (`ToolCall.RequestHeaders`), the address that it came
 * from (`RateLimit.CurrentPeer`), its protocol revision, and the trace that the client is in (`traceparent` in `_meta`).
 *
 * **Details**
 *
 * Provide `headers.layer` to the registrations, or `headers.layerGlobal` beside them for the whole server. Over stdio
 * there are no headers, so whatever has been set around the server stays.
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
export const headers: Middleware = McpServer.middleware((effect, options) =>
  Effect.updateContext(effect, (context: Context.Context<never>) => {
    const http = Context.getOrUndefined(context as AnyContext, HttpServerRequest.HttpServerRequest)
    const request: McpRequest = {
      protocolVersion: options.requestContext.protocolVersion,
      transport: http === undefined ? "pipe" : "tcp",
      parent: traceOf(options.requestContext.requestMetadata)
    }
    const marked = Context.add(context, CurrentMcpRequest, request)
    return http === undefined ? marked : marked.pipe(
      Context.add(RequestHeaders, options.headers),
      Context.add(CurrentPeer, Option.getOrUndefined(http.remoteAddress))
    )
  })
)

type AnyContext = Context.Context<HttpServerRequest.HttpServerRequest>

const traceOf = (metadata: object | undefined): Tracer.AnySpan | undefined => {
  if (metadata === undefined || !("traceparent" in metadata)) return undefined
  const { traceparent } = metadata
  if (typeof traceparent !== "string") return undefined
  return Option.getOrUndefined(HttpTraceContext.w3c(Headers.fromRecordUnsafe({ traceparent })))
}

/**
 * Authenticates every request before anything else happens, and provides `CurrentIdentity` to what runs.
 *
 * **When to use**
 *
 * Use it for servers whose resources and prompts need to know the caller too. Where only tools do, `headers` is enough:
 * the pipeline authenticates, and a refused call is counted and recorded like any other.
 *
 * **Details**
 *
 * A request that cannot be authenticated gets a JSON-RPC error (see `toMcpError`). For the pipeline the caller is then
 * known, so that its auth stage only authorizes. Combine it with `headers`: `McpOps.headers.combine(McpOps.authenticate)`.
 *
 * @category middleware
 * @since 0.1.0
 */
export const authenticate: McpServer.Middleware<{
  provides: CurrentIdentity
  error: McpSchema.McpErrorBase
  requires: never
  layerError: never
  layerRequires: Authenticator
}> = McpServer.middleware<{ provides: CurrentIdentity }>()(
  Effect.map(
    Authenticator,
    (authenticator) => (effect, options) =>
      Effect.matchEffect(identify(authenticator, options.headers), {
        onFailure: (error) => Effect.fail(toMcpError(error)),
        onSuccess: (identity) => Effect.provideService(effect, CurrentIdentity, identity)
      })
  )
)

/**
 * The JSON-RPC codes of refusals, from the range that the protocol leaves to implementations (-32000 to -32019) and
 * clear of those that clients make up themselves.
 *
 * @category models
 * @since 0.1.0
 */
export const errorCodes = {
  unauthenticated: -32010,
  denied: -32011,
  limited: -32012,
  unavailable: -32013,
  timedOut: -32014
} as const

const codeOf = (reason: ToolRefusal.Reason): number => {
  switch (reason) {
    case "Forbidden":
    case "InsufficientScope":
      return errorCodes.denied
    case "RateLimited":
      return errorCodes.limited
    case "AuthUnavailable":
    case "LimitStoreUnavailable":
    case "CircuitOpen":
    case "BulkheadFull":
    case "RetriesExhausted":
      return errorCodes.unavailable
    case "TimedOut":
      return errorCodes.timedOut
    case "MissingCredentials":
    case "InvalidCredentials":
    case "TokenExpired":
    case "TokenMalformed":
    case "TokenInactive":
    case "KeyNotFound":
      return errorCodes.unauthenticated
  }
}

/**
 * Turns a refusal into a JSON-RPC error, for MCP middleware of your own: only such errors leave it as they are. `data`
 * is the refusal.
 *
 * @category errors
 * @since 0.1.0
 */
export const toMcpError = (error: PipelineError): McpSchema.McpErrorBase => {
  // Outside a tool nothing is known about repeating it, so the cautious advice is given.
  const refusal = ToolRefusal.fromError(error, { readOnly: false, idempotent: false })
  return new McpSchema.McpErrorBase({ code: codeOf(refusal.reason), message: refusal.message, data: { ...refusal } })
}
