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
export const identity = (caller: Pick<Identity, "principal" | "tenant">): string =>
  `identity:${
    digest(
      caller.tenant === undefined
        ? `-${caller.principal}`
        : `${caller.tenant.length}:${caller.tenant}${caller.principal}`
    )
  }`

/** The labels that an answer of `owner` to a caller always has. */
export const forTool = (owner: ToolMeta): (caller: Identity) => ReadonlyArray<string> => {
  const own = owner.namespace === undefined ? [tool(owner.id)] : [tool(owner.id), namespace(owner.namespace)]
  if (owner.varies === "everyone") return () => own
  return (caller) =>
    caller.tenant === undefined
      ? [...own, identity(caller)]
      : owner.varies === "tenant"
      ? [...own, tenant(caller.tenant)]
      : [...own, tenant(caller.tenant), identity(caller)]
}
