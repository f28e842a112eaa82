import type * as Exit from "effect/Exit"
import type { RequestHeadersInput } from "../../ToolCall.ts"
import type { Service } from "../Authenticator.ts"
import type { AuthError } from "../AuthError.ts"
import type { Identity } from "../Identity.ts"

// An edge that has to know the caller before the pipeline does finds it out for the auth stage too. By the object that one
// request's headers are, so what is found is forgotten with the request.

interface Found {
  readonly authenticator: Service
  readonly exit: Exit.Exit<Identity, AuthError>
}

const found = new WeakMap<RequestHeadersInput, Found>()

export const remember = (
  authenticator: Service,
  headers: RequestHeadersInput,
  exit: Exit.Exit<Identity, AuthError>
): void => {
  found.set(headers, { authenticator, exit })
}

/** What `authenticator` has said of the request that has these headers, if somebody has asked already. */
export const recall = (
  authenticator: Service,
  headers: RequestHeadersInput
): Exit.Exit<Identity, AuthError> | undefined => {
  const known = found.get(headers)
  return known?.authenticator === authenticator ? known.exit : undefined
}
