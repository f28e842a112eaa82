/**
 * Says that a call came over the Model Context Protocol.
 *
 * The edge that speaks MCP sets `CurrentMcpRequest` around a call; the observe stage then names the root span
 * `tools/call {tool}`, makes it a server span and counts `mcp.server.operation.duration`. The session id is left out on
 * purpose: whoever holds it can speak in the session.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Tracer from "effect/Tracer"
import { visible } from "./internal/spans.ts"

/**
 * What is told of the MCP request that is being answered.
 *
 * - `protocolVersion`: the protocol revision, such as `2026-07-28`.
 * - `requestId`: the id of the JSON-RPC request.
 * - `transport`: `pipe` for stdio, `tcp` or `quic` for HTTP.
 * - `parent`: the span that the client sent in `params._meta`. It becomes the parent of the root span, and the ambient
 *   span (the HTTP request, say) a link.
 * - `errorType`: what `error.type` is for a refusal or a timeout with this tag: the code, as a string, of the JSON-RPC
 *   error that answers it. Where it is absent or gives nothing, the client sees a tool error, and it is `tool_error`.
 *
 * @category models
 * @since 0.1.0
 */
export interface McpRequest {
  readonly protocolVersion?: string | undefined
  readonly requestId?: string | number | undefined
  readonly transport?: "pipe" | "tcp" | "quic" | undefined
  readonly parent?: Tracer.AnySpan | undefined
  readonly errorType?: ((tag: string) => string | undefined) | undefined
}

/**
 * The MCP request that is being answered, or undefined when the call came by another way.
 *
 * @category references
 * @since 0.1.0
 */
export const CurrentMcpRequest: Context.Reference<McpRequest | undefined> = Context.Reference<McpRequest | undefined>(
  "effect-toolops/observe/McpRequest",
  { defaultValue: () => undefined }
)

/**
 * What goes into `params._meta` of a request to an MCP server, so that it continues the trace that it is sent in: the
 * `traceparent` of W3C Trace Context, as the protocol asks for it without a prefix. Nothing outside of a span.
 *
 * **Gotchas**
 *
 * `tracestate` and `baggage` are neither read nor sent: Effect's spans have no place for them.
 *
 * For clients that let you write `_meta`. `McpClient` of `effect/ai` does not, and over HTTP sends the header instead.
 *
 * **Example** (Calling a server with another client)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { McpRequest } from "effect-toolops/observe"
 *
 * const params = Effect.map(McpRequest.traceMetadata, (meta) => ({ name: "search", arguments: {}, _meta: meta }))
 * const { _meta } = await Effect.runPromise(Effect.withSpan(params, "agent"))
 * _meta.traceparent?.length // => 55
 * ```
 *
 * @category propagation
 * @since 0.1.0
 */
export const traceMetadata: Effect.Effect<{ readonly traceparent?: string }> = Effect.withFiber((fiber) => {
  const span = visible(fiber.cache.span)
  return Effect.succeed(
    span === undefined ? {} : { traceparent: `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}` }
  )
})
