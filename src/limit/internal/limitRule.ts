import type * as Fiber from "effect/Fiber"
import type { Identity } from "../../auth/Identity.ts"
import { CurrentPeer } from "../../internal/currentPeer.ts"
import { sha256Hex } from "../../internal/hash.ts"
import * as Check from "../../internal/options.ts"
import { checkToolPatterns, matchToolPattern } from "../../internal/toolPattern.ts"
import type { ToolCall } from "../../ToolCall.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Limit, Per } from "../RateLimit.ts"
import { BucketKey, type BucketShape } from "../RateLimitStore.ts"
import { peerNetwork } from "./peerNetwork.ts"

// From what an option says to what is worked with: a `LimitRule` per limit, a `ToolRule` per limit and tool.

/** A limit whose numbers have been checked. */
export interface LimitRule extends BucketShape {
  readonly per: Per
  readonly tools: ReadonlyArray<string> | undefined
  readonly roles: ReadonlySet<string> | undefined
  readonly cost: number | ((call: ToolCall) => number)
}

/** A limit that concerns a tool, and whose bucket a call of it takes from. */
export interface ToolRule {
  readonly rule: LimitRule
  readonly keyOf: (identity: Identity, fiber: Fiber.Fiber<unknown, unknown>) => BucketKey
}

const names = ["name", "per", "limit", "window", "burst", "tools", "roles", "cost", "mode"]
const pers: ReadonlyArray<Per> = ["identity", "tenant", "tool", "identity+tool", "global"]
const kinds: Readonly<Record<Per, string>> = {
  identity: "i",
  tenant: "t",
  tool: "f",
  "identity+tool": "c",
  global: "g"
}

const maxTokens = 1_000_000_000
// Beyond these, sums of milliseconds in floating point are no longer exact enough to limit anything.
const maxTokensPerMilli = 1_000
const maxSpanMillis = 1_000_000_000_000

const resolveLimit = (where: string, limit: Limit): LimitRule => {
  Check.known(where, limit, names)
  if (typeof limit.name !== "string" || !/^[A-Za-z0-9_.-]{1,64}$/.test(limit.name)) {
    throw new TypeError(`${where}: name must be 1 to 64 of the characters A-Z a-z 0-9 _ - .`)
  }
  const tokens = Check.integer(where, "limit", limit.limit, 1, maxTokens)
  const windowMillis = Check.millis(where, "window", limit.window)
  if (tokens / windowMillis > maxTokensPerMilli) {
    throw new RangeError(
      `${where}: limit must be at most ${maxTokensPerMilli} per millisecond of window, got ${tokens}`
    )
  }
  const burst = Check.integer(where, "burst", limit.burst === undefined ? tokens : limit.burst, 1, maxTokens)
  const intervalMillis = windowMillis / tokens
  if (burst * intervalMillis > maxSpanMillis) {
    throw new RangeError(`${where}: burst must come back within ${maxSpanMillis} ms, got ${burst}`)
  }
  if (limit.tools !== undefined) checkToolPatterns(where, "tools", strings(where, "tools", limit.tools))
  if (limit.roles !== undefined) strings(where, "roles", limit.roles)
  const cost = limit.cost === undefined ? 1 : limit.cost
  return {
    name: limit.name,
    per: Check.oneOf(where, "per", limit.per, pers),
    intervalMillis,
    burst,
    spanMillis: burst * intervalMillis,
    shadow:
      Check.oneOf(where, "mode", limit.mode === undefined ? "enforce" : limit.mode, ["enforce", "shadow"]) === "shadow",
    tools: limit.tools === undefined ? undefined : [...limit.tools],
    roles: limit.roles === undefined ? undefined : new Set(limit.roles),
    // A cost above what a full bucket holds would refuse every call for ever.
    cost: typeof cost === "function" ? cost : Check.integer(where, "cost", cost, 0, burst)
  }
}

// An empty list would make a limit of nothing, and a string would be read letter by letter.
const strings = (where: string, name: string, values: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (!Array.isArray(values) || values.length === 0 || !values.every((value) => typeof value === "string")) {
    throw new TypeError(`${where}: ${name} must be a list of one or more strings`)
  }
  return values
}

/** Checks the limits of a layer or of an update. */
export const resolveLimits = (
  where: string,
  limits: ReadonlyArray<Limit>,
  shadow: boolean
): ReadonlyArray<LimitRule> => {
  if (!Array.isArray(limits) || limits.length === 0) {
    throw new TypeError(`${where}: limits must hold at least one limit`)
  }
  const seen = new Set<string>()
  return limits.map((limit, i) => {
    const rule = resolveLimit(`${where}: limits[${i}]`, limit)
    if (seen.has(rule.name)) throw new TypeError(`${where}: two limits are called ${JSON.stringify(rule.name)}`)
    seen.add(rule.name)
    return shadow ? { ...rule, shadow } : rule
  })
}

/** The limits that concern a tool, with everything of their keys that does not depend on the caller. */
export const rulesForTool = (rules: ReadonlyArray<LimitRule>, tool: ToolMeta): ReadonlyArray<ToolRule> =>
  rules
    .filter((rule) => rule.tools?.some((pattern) => matchToolPattern(pattern, tool) !== undefined) ?? true)
    .map((rule) => ({ rule, keyOf: keyOfRule(rule, tool) }))

// Where the tool does not matter, callers are remembered once for all tools.
const shared = new WeakMap<LimitRule, ToolRule["keyOf"]>()

const keyOfRule = (rule: LimitRule, tool: ToolMeta): ToolRule["keyOf"] => {
  // Names and tool ids hold no `|`, so a key can be taken apart in one way only.
  const start = `${rule.name}|${kinds[rule.per]}|`
  switch (rule.per) {
    case "identity":
    case "tenant": {
      let keyOf = shared.get(rule)
      if (keyOf === undefined) {
        keyOf = rule.per === "identity" ? keyOfCaller(start) : remembered(start, tenantSubject)
        shared.set(rule, keyOf)
      }
      return keyOf
    }
    case "identity+tool":
      return keyOfCaller(`${start}${tool.id}|`)
    case "tool":
    case "global": {
      const key = new BucketKey(rule.per === "tool" ? `${start}${tool.id}` : start)
      return () => key
    }
  }
}

const keyOfCaller = (start: string): ToolRule["keyOf"] => {
  const known = remembered(start, callerSubject)
  return (identity, fiber) =>
    identity.method === "anonymous"
      ? new BucketKey(start + anonymousSubject(fiber.getRef(CurrentPeer)), true)
      : known(identity)
}

// Authenticators hand out the same identity for the same credential, and putting a key together and hashing it takes
// longer than all the rest. Weak, so that identities that are made for one call are forgotten with it.
const remembered = (start: string, subjectOf: (identity: Identity) => string) => {
  const keys = new WeakMap<Identity, BucketKey>()
  return (identity: Identity): BucketKey => {
    let key = keys.get(identity)
    if (key === undefined) {
      // Joined and not added, because that makes one flat string instead of a tree of its parts.
      key = new BucketKey([start, subjectOf(identity)].join(""))
      // What can still change may be somebody else by the next call.
      if (Object.isFrozen(identity)) keys.set(identity, key)
    }
    return key
  }
}

/** Says whether a limit concerns a caller. */
export const concerns = (rule: LimitRule, identity: Identity): boolean => {
  const wanted = rule.roles
  if (wanted === undefined) return true
  for (const role of identity.roles) {
    if (wanted.has(role)) return true
  }
  return false
}

/** What a call costs. A cost that makes no sense throws: nothing has been spent by then. */
export const costOf = (rule: LimitRule, call: ToolCall): number =>
  typeof rule.cost === "number"
    ? rule.cost
    : Check.integer(`RateLimit: limit ${rule.name}`, "cost", rule.cost(call), 0, maxTokens)

/**
 * Names a caller who has been authenticated. The tenant's length comes first, so `a` of tenant `b:c` is not `c:a` of
 * tenant `b`, and so with issuers. The first letter keeps a principal called "anonymous" apart from callers who are, and
 * callers with an issuer from those without.
 */
const callerSubject = ({ issuer, principal, tenant }: Identity): string => {
  const name = tenant === undefined ? `-${principal}` : `${tenant.length}:${tenant}${principal}`
  return bounded(issuer === undefined ? `i${name}` : `j${issuer.length}:${issuer}${name}`)
}

/** Names a caller who has not been authenticated: their peer, or all of them when there is none. */
const anonymousSubject = (peer: string | undefined): string =>
  peer === undefined || peer === "" ? "a" : bounded(`p${peerNetwork(peer)}`)

/** Names a tenant. Callers without one count as one tenant. */
const tenantSubject = (identity: Identity): string =>
  identity.tenant === undefined ? "-" : bounded(`t${identity.tenant}`)

// Long names would make the bound on the number of keys worthless. Half a surrogate pair has no UTF-8 form and would
// become the same replacement character as any other; JSON spells it out.
const bounded = (subject: string): string =>
  subject.length <= 200 && subject.isWellFormed() ? subject : `h${sha256Hex(JSON.stringify(subject))}`
