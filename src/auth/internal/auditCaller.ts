import { sha256Hex } from "../../internal/hash.ts"
import type { Caller } from "../AuditRecord.ts"
import type { Identity } from "../Identity.ts"

const maxText = 256

/** A text that somebody else has chosen, at most 256 characters long. What is cut off still tells two texts apart. */
export const cut: {
  (text: string): string
  (text: string | undefined): string | undefined
} = (text: any): any =>
  typeof text !== "string"
    ? undefined
    : text.length <= maxText
    ? text
    : `${text.slice(0, maxText - 17)}~${sha256Hex(text).slice(0, 16)}`

const unreadable: Caller = { principal: "_unreadable", method: "_unreadable" }

/** Who called, without what the credential said of them. */
export const callerOf = (identity: Identity | undefined): Caller | undefined => {
  if (identity === undefined) return undefined
  try {
    const { claims, issuer, method, principal, tenant } = identity
    const keyId: unknown = claims["keyId"] ?? claims["jti"]
    return {
      ...(issuer === undefined ? undefined : { issuer: cut(issuer) }),
      tenant: cut(tenant),
      principal: cut(principal) ?? "",
      method: cut(method) ?? "",
      keyId: typeof keyId === "string" ? cut(keyId) : undefined
    }
  } catch {
    // Somebody's own kind of identity. That it cannot be read must not break the call.
    return unreadable
  }
}
