import type * as McpServer from "effect/ai/McpServer"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { identify, type Service } from "../../auth/Authenticator.ts"
import * as AuthError from "../../auth/AuthError.ts"
import { CurrentIdentity, type Identity } from "../../auth/Identity.ts"
import { callerOf as answered, findNow } from "../../auth/internal/findCaller.ts"
import { recall, remember } from "../../auth/internal/foundCallers.ts"
import { sentHeaders } from "../../auth/internal/sentHeaders.ts"
import { settled } from "../../auth/internal/settled.ts"
import { RequestHeaders, type RequestHeadersInput } from "../../ToolCall.ts"
import { httpRequest } from "./request.ts"

/** The caller of a request, as the auth stage will find it: whom an edge has put there, else whom credentials prove. */
export const callerOf = (
  authenticator: Service,
  options: McpServer.MiddlewareOptions
): Effect.Effect<Identity, AuthError.AuthError> =>
  Effect.withFiber((fiber) => {
    const known = knownIn(fiber)
    return known === undefined ? prove(authenticator, headersOf(fiber, options), fiber) : unexpired(fiber, known)
  })

/** The same, found out once per HTTP request: a list asks for every tool, and the auth stage asks again. */
export const rememberingCallers =
  (authenticator: Service): (options: McpServer.MiddlewareOptions) => Effect.Effect<Identity, AuthError.AuthError> =>
  (options) =>
    Effect.withFiber((fiber) => {
      const known = knownIn(fiber)
      if (known !== undefined) return unexpired(fiber, known)
      const headers = headersOf(fiber, options)
      // Elsewhere than over HTTP the headers are those of a program and not of a request.
      if (httpRequest(fiber.context) === undefined) return prove(authenticator, headers, fiber)
      const before = recall(authenticator, headers)
      if (before !== undefined) return Exit.isSuccess(before) ? unexpired(fiber, before.value) : before
      const proven = prove(authenticator, headers, fiber)
      const keep = (exit: Exit.Exit<Identity, AuthError.AuthError>) => {
        if (Exit.isSuccess(exit) || Cause.hasFails(exit.cause)) remember(authenticator, headers, exit)
        return exit
      }
      return settled(proven) ? keep(proven) : Effect.flatMap(Effect.exit(proven), keep)
    })

type Running = Fiber.Fiber<unknown, unknown>

const knownIn = (fiber: Running): Identity | undefined =>
  Context.getOrUndefined(fiber.context as Context.Context<CurrentIdentity>, CurrentIdentity)

const headersOf = (fiber: Running, options: McpServer.MiddlewareOptions): RequestHeadersInput => {
  const http = httpRequest(fiber.context)
  return http === undefined ? fiber.getRef(RequestHeaders) ?? {} : sentHeaders(http, options.headers)
}

const prove = (
  authenticator: Service,
  headers: RequestHeadersInput,
  fiber: Running
): Effect.Effect<Identity, AuthError.AuthError> => {
  // Most answers are there already, and effects cost more than they do.
  const found = findNow(authenticator, headers, fiber)
  if (found === undefined) {
    return Effect.flatMap(identify(authenticator, headers), (identity) => unexpired(fiber, identity))
  }
  const caller = answered(authenticator, found)
  return caller instanceof AuthError.AuthError ? Exit.fail(caller) : unexpired(fiber, caller)
}

const unexpired = (fiber: Running, identity: Identity): Exit.Exit<Identity, AuthError.AuthError> =>
  identity.expiresAt === undefined ||
    fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() < DateTime.toEpochMillis(identity.expiresAt)
    ? Exit.succeed(identity)
    : Exit.fail(AuthError.refused("TokenExpired"))
