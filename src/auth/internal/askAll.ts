import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { RequestHeadersInput } from "../../ToolCall.ts"
import type { Service } from "../Authenticator.ts"
import * as AuthError from "../AuthError.ts"
import type * as Identity from "../Identity.ts"
import { type Now, nowOf } from "./now.ts"
import { settled } from "./settled.ts"

type Found = Option.Option<Identity.Identity>

// Whoever proves to be two callers may not choose which of them it is. An issuer is compared where both have one: a key of
// our own and a token may well belong to the same caller.
const isOther = (one: Identity.Identity, other: Identity.Identity): boolean =>
  one !== other &&
  (one.principal !== other.principal || one.tenant !== other.tenant ||
    (one.issuer !== undefined && other.issuer !== undefined && one.issuer !== other.issuer))

const join = (found: Found, next: Found): Found | undefined => {
  if (next._tag === "None") return found
  return found._tag === "None" ? next : isOther(found.value, next.value) ? undefined : found
}

/** Asks each authenticator in order: the first caller that is found counts, and the first failure. */
export const askAll = (authenticators: ReadonlyArray<Service>): Pick<Service, "authenticate" | "~now"> => {
  const ask = (headers: RequestHeadersInput, from: number, found: Found): Effect.Effect<Found, AuthError.AuthError> => {
    for (let i = from; i < authenticators.length; i++) {
      const answer = authenticators[i]!.authenticate(headers)
      // Most answers are there already, and then no fiber has to be asked.
      if (!settled(answer)) {
        if (!Effect.isEffect(answer)) return Effect.die(new TypeError("an authenticator must answer with an Effect"))
        return Effect.flatMap(answer, (next) => {
          const joined = join(found, next)
          return joined === undefined
            ? Effect.fail(AuthError.refused("InvalidCredentials"))
            : ask(headers, i + 1, joined)
        })
      }
      if (answer._tag === "Failure") return answer
      const joined = join(found, answer.value)
      if (joined === undefined) return Effect.fail(AuthError.refused("InvalidCredentials"))
      found = joined
    }
    return Effect.succeed(found)
  }
  const nows = authenticators.map(nowOf)
  const now: Now["answer"] = (headers, fiber) => {
    let found: Found = Option.none()
    for (let i = 0; i < nows.length; i++) {
      const answer = nows[i]!(headers, fiber)
      // One that has to think about it: then all are asked the long way.
      if (answer === undefined) return undefined
      if (answer instanceof AuthError.AuthError) return answer
      const joined = join(found, answer)
      if (joined === undefined) return AuthError.refused("InvalidCredentials")
      found = joined
    }
    return found
  }
  const authenticate: Service["authenticate"] = (headers) => ask(headers, 0, Option.none())
  return { authenticate, "~now": nows.includes(undefined) ? undefined : { of: authenticate, answer: now } }
}
