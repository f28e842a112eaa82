import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Authenticator from "../../auth/Authenticator.ts"
import * as Authorizer from "../../auth/Authorizer.ts"
import { CurrentIdentity, type Identity, isAnonymous } from "../../auth/Identity.ts"
import { sentHeaders } from "../../auth/internal/sentHeaders.ts"
import * as ToolMeta from "../../ToolMeta.ts"

/** What rules about the details of health are written for. */
export const healthTool: ToolMeta.ToolMeta = ToolMeta.make({ namespace: "toolops", name: "health", readOnly: true })

/** What callers do who look at them. */
export const healthAction = "read"

type Guard = (request: HttpServerRequest.HttpServerRequest) => Effect.Effect<boolean>

/**
 * Lets those see details who may `read` the tool `toolops:health`. Anonymous callers never may, whatever the rules say, and
 * in shadow mode what would be refused is refused: neither rule was written with this route in mind.
 */
export const authorizedGuard: Effect.Effect<Guard, never, Authenticator.Authenticator | Authorizer.Authorizer> = Effect
  .gen(function*() {
    const authenticator = yield* Authenticator.Authenticator
    const authorizer = yield* Authorizer.Authorizer
    const callerOf = (request: HttpServerRequest.HttpServerRequest) =>
      Effect.contextWith((context: Context.Context<never>) => {
        // Where an edge has authenticated, it has looked at more than the headers.
        const known = Context.getOrUndefined(context as Context.Context<CurrentIdentity>, CurrentIdentity)
        return known === undefined ? Authenticator.identify(authenticator, sentHeaders(request)) : Effect.succeed(known)
      })
    const mayRead = (identity: Identity): Effect.Effect<boolean> => {
      if (isAnonymous(identity)) return Effect.succeed(false)
      const request = { identity, tool: healthTool, action: healthAction, input: undefined }
      const decided = Authorizer.decide(authorizer, request)
      return Effect.isEffect(decided)
        ? Effect.match(decided, {
          onFailure: () => false,
          onSuccess: ({ allow, wouldRefuse }) => allow && !wouldRefuse
        })
        : Effect.succeed(decided.allow && !decided.wouldRefuse)
    }
    return (request) =>
      Effect.matchEffect(callerOf(request), { onFailure: () => Effect.succeed(false), onSuccess: mayRead })
  })
