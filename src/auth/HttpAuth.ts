/**
 * Authentication at the edge of an HTTP server.
 *
 * A middleware for `HttpRouter` that finds out who calls, gives handlers `CurrentIdentity`, and answers what is refused as
 * RFC 6750 and the authorization chapter of the Model Context Protocol ask for. It reads the headers of credentials and
 * nothing else: no token in the query, no identity that a proxy claims to have found. The pipeline behind it authorizes.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { CurrentPeer } from "../internal/currentPeer.ts"
import { RequestHeaders, type RequestHeadersInput } from "../ToolCall.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import { CurrentIdentity, type Identity, isAnonymous } from "./Identity.ts"
import { answer, check, checkMetadata, routeOf, type Settings, wellKnown } from "./internal/httpChallenge.ts"
import { sentHeaders } from "./internal/sentHeaders.ts"

/**
 * What the server says of itself (RFC 9728).
 *
 * - `resource`: the URL that tokens for this server name as their audience: https, or http on loopback, no query, no fragment,
 *   and no `:`, `*` or encoded delimiter in its path.
 * - `authorizationServers`: the issuers whose tokens are taken, one at least.
 * - `scopesSupported`: the scopes that clients may ask for; not `offline_access`. Default none.
 * - `resourceName`, `resourceDocumentation`: for people.
 *
 * @category options
 * @since 0.1.0
 */
export interface Metadata {
  readonly resource: string
  readonly authorizationServers: ReadonlyArray<string>
  readonly scopesSupported?: ReadonlyArray<string> | undefined
  readonly resourceName?: string | undefined
  readonly resourceDocumentation?: string | undefined
}

/**
 * What the middleware takes.
 *
 * - `metadata`: names the document in every challenge. `layerMetadata` serves it. Default none.
 * - `requiredScopes`: what every caller must hold. A caller without is told all of them in one challenge. Default none.
 * - `scopeHierarchy`: scopes that a scope stands for as well, as in `Authorizer.Options`. Default none.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly metadata?: Metadata | undefined
  readonly requiredScopes?: ReadonlyArray<string> | undefined
  readonly scopeHierarchy?: Readonly<Record<string, ReadonlyArray<string>>> | undefined
}

const authenticate = (
  authenticator: Authenticator.Service,
  settings: Settings,
  headers: RequestHeadersInput
): Effect.Effect<Identity, AuthError.AuthError> =>
  Effect.flatMap(
    Authenticator.identify(authenticator, headers),
    (identity) =>
      settings.missingScopes(settings.requiredScopes, identity.scopes).length === 0
        ? Effect.succeed(identity)
        : Effect.fail(
          // Who has shown nothing lacks a credential and not a scope of it (RFC 6750, 3.1).
          isAnonymous(identity)
            ? AuthError.refused("MissingCredentials")
            : AuthError.insufficientScope("", settings.requiredScopes)
        )
  )

const around = (authenticator: Authenticator.Service, settings: Settings) =>
<E, R>(
  effect: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Exclude<E, Extract<E, AuthError.AuthError>>,
  Exclude<R, CurrentIdentity> | HttpServerRequest.HttpServerRequest
> =>
  Effect.flatMap(
    HttpServerRequest.HttpServerRequest,
    (request) => {
      const headers = sentHeaders(request)
      return Effect.matchEffect(authenticate(authenticator, settings, headers), {
        onFailure: (error) => Effect.succeed(answer(error, authenticator, settings)),
        onSuccess: (identity) =>
          effect.pipe(
            Effect.catchIf(
              (error): error is Extract<E, AuthError.AuthError> => error instanceof AuthError.AuthError,
              (error) => Effect.succeed(answer(error, authenticator, settings, isAnonymous(identity)))
            ),
            Effect.provideService(CurrentIdentity, identity),
            Effect.provideService(RequestHeaders, headers),
            // Where the connection comes from, unless somebody who knows the proxies in between has said it before.
            Effect.updateService(CurrentPeer, (peer) => peer ?? Option.getOrUndefined(request.remoteAddress))
          )
      })
    }
  )

/**
 * The middleware for routes of an `HttpRouter`: provide its `layer` to them, or `combine` it with others.
 *
 * **Details**
 *
 * Missing and bad credentials are answered with 401 and a challenge, scopes that are missing with 403 and one challenge
 * that names all that are needed here and there, other refusals with 403, and what cannot be checked with 503. Handlers
 * may fail with the `AuthError` of a pipeline; it is answered the same way. An anonymous caller without a scope is asked
 * for a credential, with 401. Two `Authorization` headers are a bad credential.
 *
 * **Example** (Guarding a route)
 *
 * ```ts
 * import { Effect, Layer, Redacted } from "effect"
 * import { ApiKey, HttpAuth, Identity } from "effect-toolops/auth"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 *
 * const key = "no key but an example"
 * const Keys = ApiKey.layer().pipe(
 *   Layer.provide(ApiKey.layerMemory({ keys: [{ id: "k1", key: Redacted.make(key), principal: "ada" }] }))
 * )
 * const WhoAmI = HttpRouter.add(
 *   "GET",
 *   "/me",
 *   Effect.map(Identity.CurrentIdentity, (who) => HttpServerResponse.text(who.principal))
 * )
 * const App = WhoAmI.pipe(Layer.provide(HttpAuth.middleware().layer), Layer.provide(Keys))
 *
 * const { handler, dispose } = HttpRouter.toWebHandler(App, { disableLogger: true })
 * const me = await handler(new Request("http://localhost/me", { headers: { "X-API-Key": key } }))
 * await me.text() // => "ada"
 * const nobody = await handler(new Request("http://localhost/me"))
 * nobody.status // => 401
 * await dispose()
 * ```
 *
 * @category middleware
 * @since 0.1.0
 */
export const middleware = (options: Options = {}): HttpRouter.Middleware<{
  provides: CurrentIdentity
  handles: AuthError.AuthError
  error: never
  requires: never
  layerError: never
  layerRequires: Authenticator.Authenticator
}> => {
  const settings = check("HttpAuth.middleware", options)
  return HttpRouter.middleware<{ provides: CurrentIdentity; handles: AuthError.AuthError }>()(
    Effect.map(Authenticator.Authenticator, (authenticator) => around(authenticator, settings))
  )
}

/**
 * The same with options from configuration.
 *
 * @category middleware
 * @since 0.1.0
 */
export const middlewareConfig = (options: Config.Wrap<Options>): HttpRouter.Middleware<{
  provides: CurrentIdentity
  handles: AuthError.AuthError
  error: never
  requires: never
  layerError: Config.ConfigError
  layerRequires: Authenticator.Authenticator
}> =>
  HttpRouter.middleware<{ provides: CurrentIdentity; handles: AuthError.AuthError }>()(
    Effect.gen(function*() {
      const settings = check("HttpAuth.middlewareConfig", yield* Config.unwrap(options))
      return around(yield* Authenticator.Authenticator, settings)
    })
  )

/**
 * The same for the endpoints of an `HttpApi`: `HttpApiEndpoint.get(...).middleware(HttpAuth.HttpApiAuth)`.
 *
 * @category middleware
 * @since 0.1.0
 */
export class HttpApiAuth extends HttpApiMiddleware.Service<HttpApiAuth, { provides: CurrentIdentity }>()(
  "effect-toolops/auth/HttpAuth/HttpApiAuth"
) {}

/**
 * Provides `HttpApiAuth`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerHttpApi = (options: Options = {}): Layer.Layer<HttpApiAuth, never, Authenticator.Authenticator> => {
  const settings = check("HttpAuth.layerHttpApi", options)
  return Layer.effect(
    HttpApiAuth,
    Effect.map(Authenticator.Authenticator, (authenticator) => around(authenticator, settings))
  )
}

/**
 * Provides `layerHttpApi` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerHttpApiConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<HttpApiAuth, Config.ConfigError, Authenticator.Authenticator> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layerHttpApi))

/**
 * Serves the document of RFC 9728, which tells clients where to get a token: at the well-known path with the path of the
 * resource behind it, and at the bare well-known path, where clients look next.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMetadata = (metadata: Metadata): Layer.Layer<never, never, HttpRouter.HttpRouter> => {
  const resource = checkMetadata("HttpAuth.layerMetadata", metadata)
  const document = HttpServerResponse.jsonUnsafe({
    resource: metadata.resource,
    authorization_servers: metadata.authorizationServers,
    bearer_methods_supported: ["header"],
    scopes_supported: metadata.scopesSupported,
    resource_name: metadata.resourceName,
    resource_documentation: metadata.resourceDocumentation
  }, { headers: { "cache-control": "public, max-age=300", "access-control-allow-origin": "*" } })
  const paths = new Set([wellKnown, routeOf(resource) ?? wellKnown])
  return HttpRouter.use((router) =>
    Effect.forEach(paths, (path) => router.add("GET", path as HttpRouter.PathInput, document), { discard: true })
  )
}

/**
 * Provides `layerMetadata` with the document from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMetadataConfig = (
  metadata: Config.Wrap<Metadata>
): Layer.Layer<never, Config.ConfigError, HttpRouter.HttpRouter> =>
  Layer.unwrap(Effect.map(Config.unwrap(metadata), layerMetadata))
