import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import type { Authenticator } from "../../auth/Authenticator.ts"
import * as AuthError from "../../auth/AuthError.ts"
import * as HttpAuth from "../../auth/HttpAuth.ts"
import type { CurrentIdentity } from "../../auth/Identity.ts"
import { RefusalSlot, type Slot } from "./refusalSlot.ts"
import { boundSessions } from "./sessions.ts"

/**
 * What `resourceServer` takes: that of `HttpAuth`, with the document that tells clients where to get a token.
 *
 * @category options
 * @since 0.1.0
 */
export interface ResourceServerOptions extends HttpAuth.Options {
  readonly metadata: HttpAuth.Metadata
}

// A batch has answers that a challenge would drop.
const isBatch = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<boolean> =>
  Effect.match(request.text, { onFailure: () => false, onSuccess: (text) => text.trimStart().startsWith("[") })

// What the client can do something about: bring a token, or one with more scopes.
const isForClient = (error: unknown): error is AuthError.AuthError =>
  error instanceof AuthError.AuthError &&
  (error.reason._tag === "InsufficientScope" || AuthError.isAboutIdentity(error.reason))

// The pipeline decides by what is in the body, and this turns its decision into an answer of HTTP.
const stepUp = HttpRouter.middleware((handled) =>
  Effect.suspend(() => {
    const slot: Slot = { refused: undefined }
    return Effect.flatMap(
      Effect.provideService(handled, RefusalSlot, slot),
      (response): Effect.Effect<
        HttpServerResponse.HttpServerResponse,
        AuthError.AuthError,
        HttpServerRequest.HttpServerRequest
      > => {
        const error = slot.refused?.error
        if (!isForClient(error)) return Effect.succeed(response)
        return Effect.flatMap(
          Effect.flatMap(HttpServerRequest.HttpServerRequest, isBatch),
          (batch) => batch ? Effect.succeed(response) : Effect.fail(error)
        )
      }
    )
  })
)

/**
 * Makes an MCP server over HTTP an OAuth 2.1 resource server, as the authorization chapter of the Model Context Protocol
 * asks: put it around `McpServer.layerHttp`.
 *
 * **Details**
 *
 * - A request without a valid token is answered with 401 and a `WWW-Authenticate` that names the metadata document,
 *   before the server sees it.
 * - A call of a tool whose `scopes` the caller lacks is answered with 403 and `insufficient_scope`, all scopes of the
 *   tool in one challenge. The pipeline decides, by the name in the body, so the call is recorded like any other.
 * - The document (RFC 9728) is served at the well-known path with the path of the resource behind it, and at the bare one.
 *
 * The caller is `CurrentIdentity` for all that runs. Calls of a JSON-RPC batch get their refusals as `errors` says.
 *
 * **Gotchas**
 *
 * A session of revision 2025-11-25 and before is the session of whoever has opened it: to other callers its id is that of
 * none, and answered with 404. The same caller is one with the same method, issuer, tenant and principal, whatever roles and
 * scopes the next token has. Without this guard a session is of use to whoever knows its id, since the server does not know
 * callers: every call is still authorized by itself, but another could cancel the session's calls and end it.
 * Revision 2026-07-28 has no sessions.
 *
 * `McpServer` keeps sessions in its process. Several instances behind one address need a balancer that sends all requests of
 * a session (`mcp-session-id`) to the same one.
 *
 * Tools that `visibility` hides are not there; let it show those whose scopes are missing (`missingScopes: "show"`).
 *
 * **Example** (A protected MCP server)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { McpProtocol, McpServer } from "effect/ai"
 * import { McpOps } from "effect-toolops/ai"
 *
 * // Needs an Authenticator, for example `Jwt.layer` with the resource as its audience.
 * const app = McpServer.layerHttp({
 *   name: "files",
 *   version: "1.0.0",
 *   path: "/mcp",
 *   protocols: [McpProtocol.v2026_07_28, McpProtocol.v2025_11_25],
 *   registrations: Layer.empty
 * }).pipe(McpOps.resourceServer({
 *   metadata: {
 *     resource: "https://tools.example.com/mcp",
 *     authorizationServers: ["https://login.example.com"],
 *     scopesSupported: ["files:read", "files:write"]
 *   }
 * }))
 * ```
 *
 * @category http
 * @since 0.1.0
 */
export const resourceServer = (options: ResourceServerOptions): <A, E, R>(
  server: Layer.Layer<A, E, R>
) => Layer.Layer<
  A,
  E,
  | Exclude<
    R,
    HttpRouter.Request.From<"Requires", CurrentIdentity> | HttpRouter.Request.From<"Error", AuthError.AuthError>
  >
  | Authenticator
  | HttpRouter.HttpRouter
> => {
  const guard = stepUp.combine(boundSessions).combine(HttpAuth.middleware(options)).layer
  const document = HttpAuth.layerMetadata(options.metadata)
  return (server) => Layer.merge(Layer.provide(server, guard), document)
}
