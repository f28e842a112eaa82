/**
 * Joins an `effect/ai` MCP server to the pipeline.
 *
 * `headers` is the edge: it lets the pipeline see the credentials of the request that is being answered, and says that
 * the call came over MCP. `visibility` filters lists, `errors` says in which form refusals go out, `stdio` who speaks
 * where there are no headers, and `resourceServer` guards the HTTP endpoint. Of two middlewares that are combined the
 * second is around the first; the usual order is `headers.combine(visibility(Tools)).combine(errors(...))`. All work for
 * every protocol revision. Provide what you have combined in one piece, `layer` to a registration or `layerGlobal` beside
 * all: a part that is global answers for tools that another part hides, and not for those that are not there.
 *
 * @since 0.1.0
 */
export * from "./mcp/client.ts"
export * from "./mcp/identity.ts"
export { type Progress, progress } from "./mcp/progress.ts"
export { type ErrorCodes, errorCodes, type ErrorOptions, errors, toMcpError } from "./mcp/refusals.ts"
export { headers, type Middleware } from "./mcp/request.ts"
export * from "./mcp/resourceServer.ts"
export * from "./mcp/visibility.ts"
