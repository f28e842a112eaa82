import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { checkUrl } from "../../internal/boundedFetch.ts"
import * as Check from "../../internal/options.ts"
import type * as Authenticator from "../Authenticator.ts"
import * as AuthError from "../AuthError.ts"
import type { Metadata, Options } from "../HttpAuth.ts"
import { type MissingScopes, missingScopes } from "./scopes.ts"

// What clients are told when they are refused: status, challenge (RFC 6750, 3) and where the metadata is (RFC 9728, 5).

/** The checked options. */
export interface Settings {
  readonly metadataUrl: string | undefined
  readonly requiredScopes: ReadonlyArray<string>
  readonly missingScopes: MissingScopes
}

/** Where the document of RFC 9728 is, for a resource without a path. */
export const wellKnown = "/.well-known/oauth-protected-resource"

// The characters of a scope (RFC 6749, 3.3), which are also safe between quotes in a header.
const isScope = (scope: unknown): scope is string =>
  typeof scope === "string" && /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope)

const checkScopes = (where: string, name: string, scopes: ReadonlyArray<string> | undefined): ReadonlyArray<string> => {
  if (scopes === undefined) return []
  if (!Array.isArray(scopes) || !scopes.every(isScope)) {
    throw new TypeError(`${where}: ${name} must be a list of scopes, which are visible ASCII without " and \\`)
  }
  return [...scopes]
}

/** Where the document of a resource is: its path is put behind the well-known one (RFC 9728, 3.1). */
export const pathOf = (resource: URL): string => wellKnown + (resource.pathname === "/" ? "" : resource.pathname)

/**
 * The same as a router knows it: decoded, and without what it would take for parameters, of which `undefined` tells.
 */
export const routeOf = (resource: URL): string | undefined => {
  try {
    const path = decodeURI(pathOf(resource))
    return /[:*%]/.test(path) ? undefined : path
  } catch {
    return undefined
  }
}

/** Checks what the server says of itself, and reads its URL. */
export const checkMetadata = (where: string, metadata: Metadata): URL => {
  Check.known(`${where}: metadata`, metadata, [
    "resource",
    "authorizationServers",
    "scopesSupported",
    "resourceName",
    "resourceDocumentation"
  ])
  const resource = checkUrl(`${where}: metadata.resource`, metadata.resource, false)
  if (resource.hash !== "" || resource.search !== "") {
    throw new TypeError(`${where}: metadata.resource must have no query and no fragment`)
  }
  if (routeOf(resource) === undefined) {
    throw new TypeError(`${where}: metadata.resource must have no :, no * and no encoded delimiter in its path`)
  }
  const servers = metadata.authorizationServers
  if (!Array.isArray(servers) || servers.length === 0) {
    throw new TypeError(`${where}: metadata.authorizationServers must hold at least one URL`)
  }
  for (const server of servers) checkUrl(`${where}: metadata.authorizationServers`, server, false)
  if (checkScopes(where, "metadata.scopesSupported", metadata.scopesSupported).includes("offline_access")) {
    throw new TypeError(
      `${where}: metadata.scopesSupported must not hold offline_access, which is no scope of a resource`
    )
  }
  return resource
}

/** Checks the options. */
export const check = (where: string, options: Options): Settings => {
  Check.known(where, options, ["metadata", "requiredScopes", "scopeHierarchy"])
  const resource = options.metadata === undefined ? undefined : checkMetadata(where, options.metadata)
  return {
    metadataUrl: resource === undefined ? undefined : resource.origin + pathOf(resource),
    requiredScopes: checkScopes(where, "requiredScopes", options.requiredScopes),
    missingScopes: missingScopes(where, options.scopeHierarchy)
  }
}

const statusOf = (error: AuthError.AuthError): 401 | 403 | 503 =>
  error.reason._tag === "AuthUnavailable" ? 503 : AuthError.isAboutIdentity(error.reason) ? 401 : 403

// Everything between the quotes is ours or has been checked: fixed messages, scopes, and a URL as `URL` prints it.
const challenge = (
  { message, reason }: AuthError.AuthError,
  schemes: ReadonlyArray<string>,
  scopes: ReadonlyArray<string>,
  settings: Settings
): string => {
  const code = reason._tag === "InsufficientScope"
    ? "insufficient_scope"
    : reason._tag === "MissingCredentials"
    ? undefined
    : "invalid_token"
  const parameters = [
    ...code === undefined ? [] : [`error="${code}"`, `error_description="${message}"`],
    ...scopes.length === 0 ? [] : [`scope="${scopes.join(" ")}"`],
    ...settings.metadataUrl === undefined ? [] : [`resource_metadata="${settings.metadataUrl}"`]
  ]
  return schemes.map((scheme) =>
    scheme.toLowerCase() === "basic"
      ? "Basic realm=\"tools\", charset=\"UTF-8\""
      : scheme + (parameters.length === 0 ? "" : ` ${parameters.join(", ")}`)
  ).join(", ")
}

/** The response to a refusal of a caller. One who has shown nothing lacks a credential first, whatever scope it must have. */
export const answer = (
  refusal: AuthError.AuthError,
  authenticator: Authenticator.Service,
  settings: Settings,
  isAnonymous = false
): HttpServerResponse.HttpServerResponse => {
  const { reason } = refusal
  // What the server asks of everybody as well: a client that gets a token for the tool alone would be back here with it.
  const scopes = reason._tag === "InsufficientScope"
    ? [...new Set([...settings.requiredScopes, ...reason.requiredScopes.filter(isScope)])]
    : settings.requiredScopes
  const error = isAnonymous && reason._tag === "InsufficientScope" ? AuthError.refused("MissingCredentials") : refusal
  const status = statusOf(error)
  // A 401 must name a scheme (RFC 9110, 15.5.2), also where callers show nothing but a key of their own kind.
  const schemes = authenticator.schemes.length === 0
    ? [settings.metadataUrl === undefined ? "ApiKey" : "Bearer"]
    : authenticator.schemes
  const isChallenge = status === 401 || error.reason._tag === "InsufficientScope"
  return HttpServerResponse.jsonUnsafe({ error: error.reason._tag, message: error.message }, {
    status,
    headers: {
      "cache-control": "no-store",
      ...isChallenge ? { "www-authenticate": challenge(error, schemes, scopes, settings) } : {}
    }
  })
}
