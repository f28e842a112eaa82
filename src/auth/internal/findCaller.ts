import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Option from "effect/Option"
import type { RequestHeadersInput } from "../../ToolCall.ts"
import type { Service } from "../Authenticator.ts"
import * as AuthError from "../AuthError.ts"
import * as Identity from "../Identity.ts"
import { type Found, header } from "./credentials.ts"
import { nowOf } from "./now.ts"

// Asking code that may be anybody's, so that nothing it does lets a caller in.

type Running = Fiber.Fiber<unknown, unknown>

/** What an authenticator can say. */
export type Answer = Option.Option<Identity.Identity> | AuthError.AuthError

/** The caller that an answer means, the anonymous one included. */
export const callerOf = (authenticator: Service, answer: Answer): Identity.Identity | AuthError.AuthError => {
  if (answer instanceof AuthError.AuthError) return answer
  const found = answer._tag === "Some" ? answer : authenticator.anonymous
  return found._tag === "Some" ? found.value : AuthError.refused("MissingCredentials")
}

// Says whether one of the authenticators has read the `Authorization` header, if there is one.
const isRead = (schemes: ReadonlyArray<string>, value: Found): boolean => {
  if (typeof value !== "string") return value === undefined
  for (let i = 0; i < schemes.length; i++) {
    const scheme = schemes[i]!
    // Most clients write the scheme as it is registered.
    if (value.startsWith(scheme) && value.charCodeAt(scheme.length) === 32) return true
  }
  const said = /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+/.exec(value)?.[0].toLowerCase()
  return schemes.some((scheme) => scheme.toLowerCase() === said)
}

// An answer that can be used, or `undefined` for what is none. A credential that nobody has looked at is a bad one, also
// beside a good one of another kind.
const checked = (
  { schemes }: Service,
  answer: Option.Option<Identity.Identity>,
  headers: RequestHeadersInput
): Answer | undefined => {
  if (answer._tag !== "Some" && answer._tag !== "None") return undefined
  return isRead(answer._tag === "Some" ? schemes : [], header(headers, "authorization"))
    ? answer
    : AuthError.refused("InvalidCredentials")
}

/** The answer of an authenticator where it is there already; `undefined` sends the caller to `find`. */
export const findNow = (
  authenticator: Service,
  headers: RequestHeadersInput,
  fiber: Running
): Answer | undefined => {
  const now = nowOf(authenticator)
  if (now === undefined) return undefined
  try {
    // Only our own authenticators have it, whose identities need not be looked at again.
    const answer = now(headers, fiber)
    return answer === undefined || answer instanceof AuthError.AuthError
      ? answer
      : checked(authenticator, answer, headers)
  } catch {
    // It will be thrown again where it is told to the operator.
    return undefined
  }
}

/** What `authenticate` says, with everything that it must not do turned into a refusal. */
export const find = (
  authenticator: Service,
  headers: RequestHeadersInput
): Effect.Effect<Option.Option<Identity.Identity>, AuthError.AuthError> =>
  failClosed("authenticator", () => authenticator.authenticate(headers), (found) => {
    if (found._tag === "Some" && !Identity.isIdentity(found.value)) return undefined
    const answer = checked(authenticator, found, headers)
    return answer === undefined
      ? undefined
      : answer instanceof AuthError.AuthError
      ? Effect.fail(answer)
      : Effect.succeed(answer)
  })

/**
 * Runs a decision of somebody else's code. What throws, dies or answers with what is not an answer (`check`
 * says `undefined`) becomes `AuthUnavailable`; the operator is told of it without what was thrown, which may hold the
 * credential.
 */
export const failClosed = <A, B>(
  who: "authenticator" | "authorizer",
  run: () => Effect.Effect<A, AuthError.AuthError>,
  check: (value: A) => Effect.Effect<B, AuthError.AuthError> | undefined
): Effect.Effect<B, AuthError.AuthError> => {
  const unavailable = (thrown: unknown): Effect.Effect<never, AuthError.AuthError> =>
    Effect.andThen(
      Effect.annotateLogs(
        Effect.logError(`effect-toolops: the ${who} died, the call was refused`),
        "error.type",
        thrown instanceof Error ? thrown.constructor.name : typeof thrown
      ),
      Effect.fail(AuthError.refused("AuthUnavailable"))
    )
  try {
    const answer = run()
    if (!Effect.isEffect(answer)) return unavailable(answer)
    return Effect.matchCauseEffectEager(answer, {
      onFailure: (cause): Effect.Effect<never, AuthError.AuthError> => {
        for (const reason of cause.reasons) {
          if (Cause.isFailReason(reason)) {
            return reason.error instanceof AuthError.AuthError ? Effect.fail(reason.error) : unavailable(reason.error)
          }
          if (Cause.isDieReason(reason)) return unavailable(reason.defect)
        }
        return Effect.failCause(Cause.fromReasons(cause.reasons.filter(Cause.isInterruptReason)))
      },
      onSuccess: (value) => {
        try {
          return check(value) ?? unavailable(value)
        } catch (error) {
          return unavailable(error)
        }
      }
    })
  } catch (error) {
    return unavailable(error)
  }
}
