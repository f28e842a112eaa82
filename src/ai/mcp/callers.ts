import type * as McpServer from "effect/ai/McpServer"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import { identify, type Service } from "../../auth/Authenticator.ts"
import * as AuthError from "../../auth/AuthError.ts"
import { CurrentIdentity, type Identity } from "../../auth/Identity.ts"
import { sentHeaders } from "../../auth/internal/sentHeaders.ts"
import { RequestHeaders } from "../../ToolCall.ts"
import { httpRequest } from "./request.ts"

/** The caller of a request, as the auth stage will find it: whom an edge has put there, else whom credentials prove. */
export const callerOf = (
  authenticator: Service,
  options: McpServer.MiddlewareOptions
): Effect.Effect<Identity, AuthError.AuthError> =>
  Effect.withFiber((fiber) => {
    const known = Context.getOrUndefined(fiber.context as Context.Context<CurrentIdentity>, CurrentIdentity)
    if (known !== undefined) return unexpired(known)
    const http = httpRequest(fiber.context)
    const headers = http === undefined ? fiber.getRef(RequestHeaders) ?? {} : sentHeaders(http, options.headers)
    return Effect.flatMap(identify(authenticator, headers), unexpired)
  })

const unexpired = (identity: Identity): Effect.Effect<Identity, AuthError.AuthError> =>
  Effect.withFiber((fiber) =>
    identity.expiresAt === undefined ||
      fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() < DateTime.toEpochMillis(identity.expiresAt)
      ? Effect.succeed(identity)
      : Effect.fail(AuthError.refused("TokenExpired"))
  )

/** The same, found out once per HTTP request: a list asks for every tool. */
export const rememberingCallers = (authenticator: Service): typeof find => {
  const known = new WeakMap<HttpServerRequest.HttpServerRequest, Exit.Exit<Identity, AuthError.AuthError>>()
  const find = (options: McpServer.MiddlewareOptions): Effect.Effect<Identity, AuthError.AuthError> =>
    Effect.withFiber((fiber) => {
      const http = httpRequest(fiber.context)
      const found = http === undefined ? undefined : known.get(http)
      if (found !== undefined) return found
      return Effect.flatMap(Effect.exit(callerOf(authenticator, options)), (exit) => {
        if (http !== undefined && (Exit.isSuccess(exit) || Cause.hasFails(exit.cause))) known.set(http, exit)
        return exit
      })
    })
  return find
}
