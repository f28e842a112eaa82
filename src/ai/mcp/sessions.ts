import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import { appendPreResponseHandlerUnsafe } from "effect/http/HttpEffect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { CurrentIdentity } from "../../auth/Identity.ts"
import { equalText, hmacSha256Hex, randomBytes } from "../../internal/hash.ts"

// The server keeps sessions by their id alone. So that an id is of use to nobody but whom it was given to, clients get it
// with a proof of the two behind it. That takes no memory, and nobody's session has to make room for another's.

const header = "mcp-session-id"
const separator = "."
const noSession = "-"

// The server keeps its sessions no longer than the process lives. Made late, because some hosts have no random numbers while
// modules load.
let secret: string | undefined = undefined
const secretOf = (): string =>
  secret ??= Array.from(randomBytes(32), (byte) => byte.toString(16).padStart(2, "0")).join("")

// Whoever is the same to caches and limits. Roles and scopes may change within a session: that is what a step-up is for.
// JSON escapes halves of characters, which UTF-8 would make one and the same.
const callerOf = (context: Context.Context<never>): string => {
  const identity = Context.getOrUndefined(context as Context.Context<CurrentIdentity>, CurrentIdentity)
  return identity === undefined
    ? "nobody"
    : JSON.stringify([identity.method, identity.issuer ?? null, identity.tenant ?? null, identity.principal])
}

const bind = (session: string, caller: string): string =>
  session + separator + hmacSha256Hex(secretOf(), JSON.stringify([session, caller]))

const sessionOf = (given: string, caller: string): string | undefined => {
  const session = given.slice(0, Math.max(0, given.lastIndexOf(separator)))
  return equalText(bind(session, caller), given) ? session : undefined
}

/** Gives sessions to the callers who open them, and takes those of others for sessions that are not there. */
export const boundSessions = HttpRouter.middleware((handled) =>
  Effect.withFiber((fiber) => {
    const caller = callerOf(fiber.context)
    const request = Context.getUnsafe(
      fiber.context as Context.Context<HttpServerRequest.HttpServerRequest>,
      HttpServerRequest.HttpServerRequest
    )
    const given = request.headers[header]
    // The server answers for another's session as it does for one that it does not have, in every method and revision.
    const inner = given === undefined
      ? request
      : request.modify({ headers: Headers.set(request.headers, header, sessionOf(given, caller) ?? noSession) })
    return Effect.map(
      Effect.provideService(handled, HttpServerRequest.HttpServerRequest, inner),
      (response) => {
        // After the server's own, which names the session.
        appendPreResponseHandlerUnsafe(fiber.context, (_, response) => {
          const opened = response.headers[header]
          return Effect.succeed(
            opened === undefined ? response : HttpServerResponse.setHeader(response, header, bind(opened, caller))
          )
        })
        return response
      }
    )
  })
)
