/**
 * Stage 2 of 5. Finds out who calls and whether they may.
 *
 * The caller is whom the call's own headers prove; if they hold no credential, whom an edge or the calling tool has put
 * into `CurrentIdentity`; else whom the headers of the request prove. A presented credential that is bad always fails.
 * Nothing is let through because something broke: a defect in an authenticator or authorizer is `AuthUnavailable`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as ToolCall from "../ToolCall.ts"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import * as Authorizer from "./Authorizer.ts"
import { anonymous, CurrentIdentity, type Identity } from "./Identity.ts"

/**
 * The auth stage.
 *
 * @category services
 * @since 0.1.0
 */
export class AuthMiddleware extends Context.Service<
  AuthMiddleware,
  ToolMiddleware.ToolMiddleware<AuthError.AuthError, CurrentIdentity>
>()("effect-toolops/auth/AuthMiddleware") {}

type Running = Fiber.Fiber<unknown, unknown>

const knownIdentity = (fiber: Running): Identity | undefined =>
  Context.getOrUndefined(fiber.context as Context.Context<CurrentIdentity>, CurrentIdentity)

// An identity is valid before `expiresAt`, not at it.
const isExpired = (fiber: Running, identity: Identity): boolean =>
  identity.expiresAt !== undefined &&
  fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() >= DateTime.toEpochMillis(identity.expiresAt)

const make = (
  authenticator: Authenticator.Service,
  authorizer: Authorizer.Service
): ToolMiddleware.ToolMiddleware<AuthError.AuthError, CurrentIdentity> => {
  const fromContext = (fiber: Running): Effect.Effect<Identity, AuthError.AuthError> => {
    const known = knownIdentity(fiber)
    if (known !== undefined) return Effect.succeed(known)
    return Authenticator.identify(authenticator, fiber.getRef(ToolCall.RequestHeaders) ?? {})
  }

  const identify = (call: ToolCall.ToolCall, fiber: Running): Effect.Effect<Identity, AuthError.AuthError> => {
    const found = call.headers === undefined
      ? fromContext(fiber)
      : Effect.flatMapEager(
        Authenticator.find(authenticator, call.headers),
        (option) => option._tag === "Some" ? Effect.succeed(option.value) : fromContext(fiber)
      )
    return Effect.flatMapEager(
      found,
      (identity) =>
        isExpired(fiber, identity) ? Effect.fail(AuthError.refused("TokenExpired")) : Effect.succeed(identity)
    )
  }

  const authorize = (
    call: ToolCall.ToolCall,
    identity: Identity
  ): Effect.Effect<Authorizer.Decision, AuthError.AuthError> =>
    Authorizer.decide(authorizer, { identity, tool: call.tool, action: call.action, input: call.input })

  return ToolMiddleware.of<AuthError.AuthError, CurrentIdentity>({
    name: "auth",
    forTool: () => <A, E1, R>(call: ToolCall.ToolCall, next: Effect.Effect<A, E1, R>) =>
      Effect.withFiber((fiber): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
        const known = knownIdentity(fiber)
        return Effect.matchCauseEffectEager(identify(call, fiber), {
          onFailure: (cause) => refuse(call, "unauthenticated", cause),
          onSuccess: (identity): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
            call.record.identity = identity
            return Effect.matchCauseEffectEager(authorize(call, identity), {
              onFailure: (cause) => refuse(call, "denied", cause),
              onSuccess: (decision): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
                call.record.rule = decision.rule
                if (!decision.allow) return Effect.fail(call.record.refuse("denied", refusalOf(call, decision)))
                return identity === known ? next : Effect.provideService(next, CurrentIdentity, identity)
              }
            })
          }
        })
      }),
    // A call may have waited for a slot, a permit or a retry since it was let in.
    forExecution: () => <A, E1, R>(call: ToolCall.ToolCall, next: Effect.Effect<A, E1, R>) =>
      Effect.withFiber((fiber): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
        const identity = call.record.identity
        return identity === undefined || !isExpired(fiber, identity)
          ? next
          : Effect.fail(call.record.refuse("unauthenticated", AuthError.refused("TokenExpired")))
      }),
    explain: () => (call) =>
      Effect.withFiber((fiber) =>
        Effect.matchEffect(identify(call, fiber), {
          onFailure: (error) => Effect.succeed(refusal(error, {})),
          onSuccess: (identity) => {
            const { method, principal, roles, tenant } = identity
            const who = { principal, tenant, method, roles }
            return Effect.match(authorize(call, identity), {
              onFailure: (error) => refusal(error, who),
              onSuccess: (decision): ToolMiddleware.Explanation => {
                const { missingScopes, rule, wouldRefuse } = decision
                const detail = { ...who, rule, missingScopes, wouldRefuse }
                return decision.allow ? { verdict: "pass", detail } : refusal(refusalOf(call, decision), detail)
              }
            })
          }
        })
      )
  })
}

const refuse = (
  call: ToolCall.ToolCall,
  outcome: "unauthenticated" | "denied",
  cause: Cause.Cause<AuthError.AuthError>
): Effect.Effect<never, AuthError.AuthError> => {
  const failure = cause.reasons.find(Cause.isFailReason)
  return failure === undefined ? Effect.failCause(cause) : Effect.fail(call.record.refuse(outcome, failure.error))
}

const refusal = (
  error: AuthError.AuthError,
  detail: Readonly<Record<string, unknown>>
): ToolMiddleware.Explanation => ({
  verdict: "refuse",
  detail: { ...detail, error: error.reason._tag }
})

// All scopes of the operation, not only those that are missing: a client asks for them in one go.
const refusalOf = (call: ToolCall.ToolCall, decision: Authorizer.Decision): AuthError.AuthError =>
  decision.missingScopes.length > 0
    ? AuthError.insufficientScope(call.tool.id, call.tool.scopes)
    : AuthError.forbidden(call.tool.id, call.action)

/**
 * Provides the auth stage.
 *
 * **Details**
 *
 * Refuses with `MissingCredentials` when nothing is presented and no anonymous authenticator is installed. An identity
 * that expires while its call waits is refused right before the tool would run.
 *
 * **Example** (An API key, and roles)
 *
 * ```ts
 * import { Effect, Layer, Redacted } from "effect"
 * import { ToolMeta, ToolPipeline } from "effect-toolops"
 * import { ApiKey, AuthMiddleware, Rbac } from "effect-toolops/auth"
 *
 * const key = Redacted.make("no key but an example")
 * const Auth = AuthMiddleware.layer.pipe(Layer.provide([
 *   ApiKey.layer().pipe(Layer.provide(
 *     ApiKey.layerMemory({ keys: [{ id: "k1", key, principal: "ada", roles: ["reader"] }] })
 *   )),
 *   Rbac.layer({ roles: { reader: { allowedTools: ["docs:*"], allowedActions: ["call"] } } })
 * ]))
 *
 * const search = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })
 *
 * const program = Effect.gen(function*() {
 *   const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
 *   const call = { tool: search, headers: { "x-api-key": Redacted.value(key) } }
 *   return yield* pipeline.run(call, Effect.succeed("found"))
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Auth)) // => "found"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<
  AuthMiddleware,
  never,
  Authenticator.Authenticator | Authorizer.Authorizer
> = Layer.effect(
  AuthMiddleware,
  Effect.flatMap(
    Authenticator.Authenticator,
    (authenticator) => Effect.map(Authorizer.Authorizer, (authorizer) => make(authenticator, authorizer))
  )
)

/**
 * Leaves the stage out: nobody is asked who they are. The caller is whom the edge has authenticated, else anonymous.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<AuthMiddleware> = Layer.succeed(AuthMiddleware, {
  name: "auth",
  forTool: () => (call, next) =>
    Effect.withFiber((fiber) => {
      const known = knownIdentity(fiber)
      call.record.identity = known ?? anonymous
      return known === undefined ? Effect.provideService(next, CurrentIdentity, anonymous) : next
    })
})
