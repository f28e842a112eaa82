/**
 * The names under which a call is told: OpenTelemetry's for GenAI and MCP, and toolops's beside them.
 *
 * Spans, metrics and dashboards take their names from here, so a name is written once.
 *
 * @since 0.1.0
 */

/** Always `execute_tool`: what OpenTelemetry calls running a tool. @category OpenTelemetry @since 0.1.0 */
export const genAiOperationName = "gen_ai.operation.name"

/** The tool's name as models and clients know it, without its namespace. @category OpenTelemetry @since 0.1.0 */
export const genAiToolName = "gen_ai.tool.name"

/** Names one call. @category OpenTelemetry @since 0.1.0 */
export const genAiToolCallId = "gen_ai.tool.call.id"

/** The tool's description, cut at 256 characters. @category OpenTelemetry @since 0.1.0 */
export const genAiToolDescription = "gen_ai.tool.description"

/** Always `function`. @category OpenTelemetry @since 0.1.0 */
export const genAiToolType = "gen_ai.tool.type"

/** What the tool was called with. Only when `capture` asks for it. @category OpenTelemetry @since 0.1.0 */
export const genAiToolCallArguments = "gen_ai.tool.call.arguments"

/** What the tool answered. Only when `capture` asks for it. @category OpenTelemetry @since 0.1.0 */
export const genAiToolCallResult = "gen_ai.tool.call.result"

/**
 * The kind of error: a tag, never a message. Absent when the call went well. Of a call over MCP, the root span and
 * `mcp.server.operation.duration` have what MCP's conventions ask for: the code of a JSON-RPC error, or `tool_error`.
 *
 * @category OpenTelemetry
 * @since 0.1.0
 */
export const errorType = "error.type"

/** The method of an MCP request, `tools/call` here. @category OpenTelemetry @since 0.1.0 */
export const mcpMethodName = "mcp.method.name"

/** The protocol revision of an MCP request. @category OpenTelemetry @since 0.1.0 */
export const mcpProtocolVersion = "mcp.protocol.version"

/** The id of a JSON-RPC request. @category OpenTelemetry @since 0.1.0 */
export const jsonRpcRequestId = "jsonrpc.request.id"

/** `pipe` for stdio, `tcp` or `quic` for HTTP. @category OpenTelemetry @since 0.1.0 */
export const networkTransport = "network.transport"

/** `namespace:name`, or `name` alone. @category toolops @since 0.1.0 */
export const toolId = "tool.id"

/** The tool's name without its namespace. @category toolops @since 0.1.0 */
export const toolName = "tool.name"

/** The tool's namespace. @category toolops @since 0.1.0 */
export const toolNamespace = "tool.namespace"

/** The tool's version. @category toolops @since 0.1.0 */
export const toolVersion = "tool.version"

/** The tool's category. @category toolops @since 0.1.0 */
export const toolCategory = "tool.category"

/** The tool's tags, a list. @category toolops @since 0.1.0 */
export const toolTags = "tool.tags"

/** Whether the call, or the execution, went wrong: `true` or `false`. @category toolops @since 0.1.0 */
export const toolError = "tool.error"

/** The tag of the error, also where `error.type` is what MCP has for it. @category toolops @since 0.1.0 */
export const toolErrorType = "tool.error.type"

/** What became of the call: an `Outcome`. @category toolops @since 0.1.0 */
export const toolOutcome = "tool.outcome"

/** How many times the handler was started. @category toolops @since 0.1.0 */
export const toolAttempts = "tool.attempts"

/** Which start of the handler an execution is, from 1. @category toolops @since 0.1.0 */
export const toolAttempt = "tool.attempt"

/** Where the answer came from: a `CacheStatus`. @category toolops @since 0.1.0 */
export const toolCache = "tool.cache"
