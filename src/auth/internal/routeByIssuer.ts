import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Check from "../../internal/options.ts"
import type { RequestHeadersInput } from "../../ToolCall.ts"
import type { Service } from "../Authenticator.ts"
import type { ByIssuer } from "../AuthenticatorIssuers.ts"
import * as AuthError from "../AuthError.ts"
import { ambiguous, authorization, rawAuthorization } from "./credentials.ts"
import { claimedIssuer } from "./jwtClaims.ts"
import { type Now, nowOf } from "./now.ts"

// Choosing among authenticators that read the same header. The choice is made before anything is verified, so it must
// not matter who makes it: each authenticator takes its own tokens alone, whichever it is handed.

const maxToken = 16_384

const bad = (): Effect.Effect<never, AuthError.AuthError> => Effect.fail(AuthError.refused("InvalidCredentials"))

/** Hands each bearer token to the authenticator of the issuer that it claims. */
export const routeByIssuer = (where: string, options: ByIssuer<Service>): Pick<Service, "authenticate" | "~now"> => {
  Check.known(where, options, ["issuers", "opaque"])
  const issuers = new Map(Object.entries(options.issuers))
  const { opaque } = options
  if (issuers.size === 0) throw new TypeError(`${where}: issuers must hold at least one issuer`)
  if (issuers.has("")) throw new TypeError(`${where}: an issuer must have a name`)
  const all = [...issuers.values(), ...opaque === undefined ? [] : [opaque]]
  for (const { anonymous, schemes } of all) {
    if (!schemes.some((scheme) => scheme.toLowerCase() === "bearer")) {
      throw new TypeError(`${where}: each authenticator must have Bearer among its schemes`)
    }
    if (Option.isSome(anonymous)) {
      throw new TypeError(`${where}: the anonymous authenticator belongs beside this one, into firstOf`)
    }
  }

  const authenticate = (headers: RequestHeadersInput): ReturnType<Service["authenticate"]> => {
    const token = authorization(headers, "bearer")
    if (token === undefined) return Effect.succeedNone
    if (token === ambiguous) return bad()
    if (token.length > maxToken) return Effect.fail(AuthError.refused("TokenMalformed"))
    const issuer = claimedIssuer(token)
    const chosen = issuer === undefined ? opaque : issuers.get(issuer)
    if (chosen === undefined) return bad()
    // One that does not read bearer tokens at all has not looked at this one.
    return Effect.flatMap(chosen.authenticate(headers), (found) => Option.isNone(found) ? bad() : Effect.succeed(found))
  }

  const nows = all.map(nowOf)
  // A token that one of them has verified before need not be read to find out which.
  const answer: Now["answer"] = (headers, fiber) => {
    if (rawAuthorization(headers, "bearer") === undefined) return Option.none()
    for (const now of nows) {
      const answer = now?.(headers, fiber)
      if (answer instanceof AuthError.AuthError || answer?._tag === "Some") return answer
    }
    return undefined
  }
  const suspended: Service["authenticate"] = (headers) => Effect.suspend(() => authenticate(headers))
  return { authenticate: suspended, "~now": { of: suspended, answer } }
}
