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
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as ToolCall from "../ToolCall.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import * as Authenticator from "./Authenticator.ts"
import * as AuthError from "./AuthError.ts"
import * as Authorizer from "./Authorizer.ts"
import { anonymous, CurrentIdentity, type Identity, isExpired as isOver } from "./Identity.ts"
import { auditSeat, type Seat } from "./internal/auditSeat.ts"
import { AuditLog } from "./internal/auditService.ts"
import { callerOf, find, findNow } from "./internal/findCaller.ts"
import { recall } from "./internal/foundCallers.ts"

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

const requestHeaders = (fiber: Running): ToolCall.RequestHeadersInput => fiber.getRef(ToolCall.RequestHeaders) ?? {}

const isExpired = (fiber: Running, identity: Identity): boolean =>
  identity.expiresAt !== undefined && isOver(identity, fiber.getRef(Clock.Clock).currentTimeMillisUnsafe())

const make = (
  authenticator: Authenticator.Service,
  authorizer: Authorizer.Service,
  audit: AuditLog["Service"] | undefined
): ToolMiddleware.ToolMiddleware<AuthError.AuthError, CurrentIdentity> => {
  // Most callers are known without a detour through effects; `undefined` when this one is not.
  const identifyNow = (
    call: ToolCall.ToolCall,
    known: Identity | undefined,
    fiber: Running
  ): Identity | AuthError.AuthError | undefined => {
    if (call.headers !== undefined) {
      const found = findNow(authenticator, call.headers, fiber)
      if (found === undefined || found instanceof AuthError.AuthError) return found
      if (found._tag === "Some") return found.value
    }
    if (known !== undefined) return known
    const headers = requestHeaders(fiber)
    const before = recall(authenticator, headers)
    if (before?._tag === "Success") return before.value
    const found = findNow(authenticator, headers, fiber)
    return found === undefined ? undefined : callerOf(authenticator, found)
  }

  const identifyLater = (
    call: ToolCall.ToolCall,
    known: Identity | undefined,
    fiber: Running
  ): Effect.Effect<Identity, AuthError.AuthError> => {
    const fromContext = () =>
      known === undefined ? Authenticator.identify(authenticator, requestHeaders(fiber)) : Effect.succeed(known)
    return call.headers === undefined
      ? fromContext()
      : Effect.flatMap(
        find(authenticator, call.headers),
        (found) => found._tag === "Some" ? Effect.succeed(found.value) : fromContext()
      )
  }

  const decide = (call: ToolCall.ToolCall, identity: Identity) =>
    Authorizer.decide(authorizer, { identity, tool: call.tool, action: call.action, input: call.input })

  const settle = <A, E, R>(
    call: ToolCall.ToolCall,
    next: Effect.Effect<A, E, R>,
    known: Identity | undefined,
    identity: Identity,
    decision: Authorizer.Decision
  ): Effect.Effect<A, E | AuthError.AuthError, R> => {
    call.record.rule = decision.rule
    if (!decision.allow) return Effect.fail(call.record.refuse("denied", refusalOf(call, decision)))
    return identity === known ? next : Effect.provideService(next, CurrentIdentity, identity)
  }

  const admit = <A, E, R>(
    call: ToolCall.ToolCall,
    next: Effect.Effect<A, E, R>,
    known: Identity | undefined,
    identity: Identity,
    fiber: Running
  ): Effect.Effect<A, E | AuthError.AuthError, R> => {
    if (isExpired(fiber, identity)) {
      return Effect.fail(call.record.refuse("unauthenticated", AuthError.refused("TokenExpired")))
    }
    call.record.identity = identity
    const decision = decide(call, identity)
    return Effect.isEffect(decision)
      ? Effect.matchCauseEffect(decision, {
        onFailure: (cause): Effect.Effect<A, E | AuthError.AuthError, R> => refuse(call, "denied", cause),
        onSuccess: (decided) => settle(call, next, known, identity, decided)
      })
      : settle(call, next, known, identity, decision)
  }

  const around: ToolMiddleware.Around<AuthError.AuthError> = <A, E1, R>(
    call: ToolCall.ToolCall,
    next: Effect.Effect<A, E1, R>
  ) =>
    Effect.withFiber((fiber): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
      const known = knownIdentity(fiber)
      const identity = identifyNow(call, known, fiber)
      if (identity === undefined) {
        return Effect.matchCauseEffect(identifyLater(call, known, fiber), {
          onFailure: (cause): Effect.Effect<A, E1 | AuthError.AuthError, R> => refuse(call, "unauthenticated", cause),
          onSuccess: (identity) => admit(call, next, known, identity, fiber)
        })
      }
      return identity instanceof AuthError.AuthError
        ? Effect.fail(call.record.refuse("unauthenticated", identity))
        : admit(call, next, known, identity, fiber)
    })

  // A call may have waited for a slot, a permit or a retry since it was let in.
  const beforeExecution: ToolMiddleware.Around<AuthError.AuthError> = <A, E1, R>(
    call: ToolCall.ToolCall,
    next: Effect.Effect<A, E1, R>
  ) =>
    Effect.withFiber((fiber): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
      const identity = call.record.identity
      return identity === undefined || !isExpired(fiber, identity)
        ? next
        : Effect.fail(call.record.refuse("unauthenticated", AuthError.refused("TokenExpired")))
    })

  const seats = new WeakMap<ToolMeta, Seat>()
  const seatOf = (tool: ToolMeta): Seat | undefined => {
    if (audit === undefined) return undefined
    // Both ends of a tool's path belong to one seat, whichever is asked for first.
    const seat = seats.get(tool) ?? auditSeat(audit, tool)
    if (seat !== undefined) seats.set(tool, seat)
    return seat
  }

  return ToolMiddleware.of<AuthError.AuthError, CurrentIdentity>({
    name: "auth",
    forTool: (tool) => seatOf(tool)?.around(around) ?? around,
    forExecution: (tool) => {
      const recorded = seatOf(tool)?.beforeExecution
      // Recorded last, after whatever may still refuse.
      return recorded === undefined
        ? beforeExecution
        : (call, next) => beforeExecution(call, recorded(call, next))
    },
    explain: () => (call) =>
      Effect.withFiber((fiber) =>
        Effect.matchEffect(identifyLater(call, knownIdentity(fiber), fiber), {
          onFailure: (error) => Effect.succeed(refusal(error, {})),
          onSuccess: (identity) => {
            // The stages behind this one go by it.
            call.record.identity = identity
            const { method, principal, roles, tenant } = identity
            const who = { principal, tenant, method, roles }
            if (isExpired(fiber, identity)) return Effect.succeed(refusal(AuthError.refused("TokenExpired"), who))
            const decision = decide(call, identity)
            return Effect.match(Effect.isEffect(decision) ? decision : Effect.succeed(decision), {
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
 * Where an `AuditLog` is provided to this layer, every call is recorded in it; `layerAudited` does not compile without one.
 * A call that the log requires to be recorded and that cannot be is refused as `AuthUnavailable`, with the `AuditError` as
 * the error's `cause`.
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
  Effect.gen(function*() {
    const audit = yield* Effect.serviceOption(AuditLog)
    return make(yield* Authenticator.Authenticator, yield* Authorizer.Authorizer, Option.getOrUndefined(audit))
  })
)

/**
 * Provides the auth stage and asks for an audit log, so that it cannot be forgotten. Otherwise as `layer`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerAudited: Layer.Layer<
  AuthMiddleware,
  never,
  Authenticator.Authenticator | Authorizer.Authorizer | AuditLog
> = layer

/**
 * Leaves the stage out: nobody is asked who they are. The caller is whom the edge has authenticated, else anonymous.
 * Nothing is written to an audit log.
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
