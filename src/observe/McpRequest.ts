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
import type * as Tracer from "effect/Tracer"

/**
 * What is told of the MCP request that is being answered.
 *
 * - `protocolVersion`: the protocol revision, such as `2026-07-28`.
 * - `requestId`: the id of the JSON-RPC request.
 * - `transport`: `pipe` for stdio, `tcp` or `quic` for HTTP.
 * - `parent`: the span that the client sent in `params._meta`. It becomes the parent of the root span, and the ambient
 *   span (the HTTP request, say) a link.
 *
 * @category models
 * @since 0.1.0
 */
export interface McpRequest {
  readonly protocolVersion?: string | undefined
  readonly requestId?: string | number | undefined
  readonly transport?: "pipe" | "tcp" | "quic" | undefined
  readonly parent?: Tracer.AnySpan | undefined
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
