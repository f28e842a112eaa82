import * as Effect from "effect/Effect"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Decision, Request } from "../Authorizer.ts"
import { decision } from "../Authorizer.ts"

// The compiled form of roles. What a role says of one tool and one action is worked out the first time that it is asked
// for, for all roles at once, and is from then on one array index per role that a caller holds.

/** A grant or a denial: a tool pattern, an action or `*`, and how an operator is told of it. */
export interface Rule {
  readonly tool: string
  readonly action: string
  readonly text: string
}

/** What one role says by itself. */
export interface RoleRules {
  readonly name: string
  readonly inherits: ReadonlyArray<string>
  readonly denials: ReadonlyArray<Rule>
  readonly grants: ReadonlyArray<Rule>
}

type Answer = Effect.Effect<Decision>

interface Entry {
  readonly role: number
  readonly action: string
  readonly answer: Answer
}

/** What each role, by its number, says of one tool and one action. `deny` wins. */
interface Verdicts {
  readonly deny: ReadonlyArray<Answer | undefined>
  readonly grant: ReadonlyArray<Answer | undefined>
}

const noRule: Answer = Effect.succeed(decision(false, "no rule grants it"))

// Rules by their pattern, so that a tool finds its own with three lookups however many rules there are.
const index = (
  roles: ReadonlyArray<RoleRules>,
  rulesOf: (role: RoleRules) => ReadonlyArray<Rule>,
  allow: boolean
): ReadonlyMap<string, ReadonlyArray<Entry>> => {
  const byPattern = new Map<string, Array<Entry>>()
  roles.forEach((role, number) => {
    for (const rule of rulesOf(role)) {
      const answer = Effect.succeed(decision(allow, `role ${role.name}: ${rule.text}`))
      const entries = byPattern.get(rule.tool)
      const entry = { role: number, action: rule.action, answer }
      if (entries === undefined) byPattern.set(rule.tool, [entry])
      else entries.push(entry)
    }
  })
  return byPattern
}

const noEntries: ReadonlyArray<Entry> = []

/** Ancestors before their heirs. The roles hold no circle. */
const ancestorsFirst = (roles: ReadonlyMap<string, RoleRules>): ReadonlyArray<RoleRules> => {
  const heirs = new Map<string, Array<string>>()
  const waiting = new Map<string, number>()
  for (const role of roles.values()) {
    waiting.set(role.name, role.inherits.length)
    for (const parent of role.inherits) {
      const list = heirs.get(parent)
      if (list === undefined) heirs.set(parent, [role.name])
      else list.push(role.name)
    }
  }
  const ordered = [...roles.values()].filter((role) => role.inherits.length === 0)
  // Grows while it is walked.
  for (const role of ordered) {
    for (const heir of heirs.get(role.name) ?? []) {
      const left = waiting.get(heir)! - 1
      waiting.set(heir, left)
      if (left === 0) ordered.push(roles.get(heir)!)
    }
  }
  return ordered
}

/** Turns roles, which have been checked, into a decision procedure. */
export const compile = (
  roles: ReadonlyMap<string, RoleRules>,
  defaultRole: string | undefined
): (request: Request) => Answer => {
  const ordered = ancestorsFirst(roles)
  const numbers = new Map(ordered.map((role, number) => [role.name, number]))
  const parents = ordered.map((role) => role.inherits.map((name) => numbers.get(name)!))
  const denials = index(ordered, (role) => role.denials, false)
  const grants = index(ordered, (role) => role.grants, true)
  // Actions that no rule names are all alike: only `*` matches them. So the verdicts of a tool are bounded in number.
  const named = new Set(ordered.flatMap((role) => role.grants.map((rule) => rule.action)))
  named.delete("*")
  const byTool = new WeakMap<ToolMeta, Map<string, Verdicts>>()

  const collect = (
    rules: ReadonlyMap<string, ReadonlyArray<Entry>>,
    tool: ToolMeta,
    action: string
  ): ReadonlyArray<Answer | undefined> => {
    const own: Array<Answer | undefined> = Array.from({ length: ordered.length }, () => undefined)
    const patterns = [tool.id, ...tool.namespace === undefined ? [] : [`${tool.namespace}:*`], "*"]
    for (const pattern of patterns) {
      for (const entry of rules.get(pattern) ?? noEntries) {
        if (entry.action === "*" || entry.action === action) own[entry.role] ??= entry.answer
      }
    }
    // Ancestors come first, so theirs is settled when an heir asks.
    for (let role = 0; role < own.length; role++) {
      for (const parent of parents[role]!) own[role] ??= own[parent]
    }
    return own
  }

  const verdictsOf = (tool: ToolMeta, action: string): Verdicts => {
    const key = named.has(action) ? action : ""
    let byAction = byTool.get(tool)
    if (byAction === undefined) {
      byAction = new Map()
      byTool.set(tool, byAction)
    }
    let verdicts = byAction.get(key)
    if (verdicts === undefined) {
      verdicts = { deny: collect(denials, tool, key), grant: collect(grants, tool, key) }
      byAction.set(key, verdicts)
    }
    return verdicts
  }

  const defaultRoles = defaultRole === undefined ? [] : [defaultRole]
  return ({ action, identity, tool }) => {
    const { deny, grant } = verdictsOf(tool, action)
    const held = identity.roles.length === 0 ? defaultRoles : identity.roles
    let granted: Answer | undefined = undefined
    for (let i = 0; i < held.length; i++) {
      const role = numbers.get(held[i]!)
      if (role === undefined) continue
      const denied = deny[role]
      if (denied !== undefined) return denied
      granted ??= grant[role]
    }
    return granted ?? noRule
  }
}
