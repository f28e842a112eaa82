import type { Identity } from "../../auth/Identity.ts"
import { sha256Hex } from "../../internal/hash.ts"
import type { ToolMeta } from "../../ToolMeta.ts"

// Labels are what entries are invalidated by. Tenants and principals appear in them as digests only, because labels are
// written to stores.

const digest = (text: string): string => sha256Hex(text).slice(0, 32)

export const tool = (id: string): string => `tool:${id}`
export const namespace = (name: string): string => `namespace:${name}`
export const tag = (name: string): string => `tag:${name}`
export const tenant = (name: string): string => `tenant:${digest(name)}`

const nameOf = (caller: Pick<Identity, "principal" | "tenant">): string =>
  caller.tenant === undefined ? `-${caller.principal}` : `${caller.tenant.length}:${caller.tenant}${caller.principal}`

/** The caller of one issuer; without an issuer, every caller of that name. */
export const identity = ({ issuer, ...caller }: Pick<Identity, "issuer" | "principal" | "tenant">): string =>
  `identity:${digest(issuer === undefined ? nameOf(caller) : `@${issuer.length}:${issuer}${nameOf(caller)}`)}`

// Under its name alone too, since whoever invalidates may not know who vouches for the caller.
const identities = ({ issuer, principal, tenant }: Identity): ReadonlyArray<string> => {
  const named = identity({ principal, tenant })
  return issuer === undefined ? [named] : [named, identity({ issuer, principal, tenant })]
}

/** The labels that an answer of `owner` to a caller always has. */
export const forTool = (owner: ToolMeta): (caller: Identity) => ReadonlyArray<string> => {
  const own = owner.namespace === undefined ? [tool(owner.id)] : [tool(owner.id), namespace(owner.namespace)]
  if (owner.varies === "everyone") return () => own
  return (caller) =>
    caller.tenant === undefined
      ? [...own, ...identities(caller)]
      : owner.varies === "tenant"
      ? [...own, tenant(caller.tenant)]
      : [...own, tenant(caller.tenant), ...identities(caller)]
}
