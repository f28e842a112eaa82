// Random policies and requests, decided by `Rbac` and by Cedar.
import * as Cedar from "@cedar-policy/cedar-wasm/nodejs"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ToolMeta } from "effect-toolops"
import { Identity, Rbac } from "effect-toolops/auth"

const policies = 1000
const requestsPerPolicy = 100

const generator = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let value = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value
  return ((value ^ (value >>> 14)) >>> 0) / 4294967296
}

const roleNames = ["a", "b", "c", "d", "e", "A"]
const actions = ["call", "list", "read"]
const tools = [
  ToolMeta.make({ name: "echo" }),
  ToolMeta.make({ name: "github" }),
  ToolMeta.make({ namespace: "github", name: "search" }),
  ToolMeta.make({ namespace: "github", name: "delete" }),
  ToolMeta.make({ namespace: "github.com", name: "search" }),
  ToolMeta.make({ namespace: "tool", name: "echo" })
]
const patterns = ["*", "github:*", "github.com:*", "tool:*", ...tools.map((tool) => tool.id)]

interface Role {
  readonly inherits: Array<string>
  readonly allowedTools: Array<string>
  readonly deniedTools: Array<string>
  readonly allowedActions: Array<string>
  readonly permissions: Array<string>
}

const uid = (type: string, id: string) => ({ type, id })

// The same policy in Cedar, put together from the documentation of both.
const toCedar = (roles: Readonly<Record<string, Role>>): string => {
  const resource = (pattern: string) =>
    pattern === "*"
      ? "resource"
      : pattern.endsWith(":*")
      ? `resource in Namespace::"${pattern.slice(0, -2)}"`
      : `resource == Tool::"${pattern}"`
  const action = (name: string) => name === "*" ? "action" : `action == Action::"${name}"`
  const statements: Array<string> = []
  for (const [name, role] of Object.entries(roles)) {
    const who = `principal in Role::"${name}"`
    for (const pattern of role.deniedTools) statements.push(`forbid(${who}, action, ${resource(pattern)});`)
    for (const pattern of role.allowedTools) {
      for (const one of role.allowedActions) statements.push(`permit(${who}, ${action(one)}, ${resource(pattern)});`)
    }
    for (const permission of role.permissions) {
      const end = permission.lastIndexOf(":")
      const pattern = permission.slice(permission.startsWith("tool:") ? 5 : 0, end)
      statements.push(`permit(${who}, ${action(permission.slice(end + 1))}, ${resource(pattern)});`)
    }
  }
  return statements.join("\n")
}

const randomRoles = (random: () => number): Record<string, Role> => {
  const some = <A>(list: ReadonlyArray<A>, chance: number) => list.filter(() => random() < chance)
  const roles: Record<string, Role> = {}
  roleNames.forEach((name, i) => {
    roles[name] = {
      // From later ones alone, so that there is no circle.
      inherits: some(roleNames.slice(i + 1), 0.3),
      allowedTools: some(patterns, 0.08),
      deniedTools: some(patterns.slice(1), 0.04),
      allowedActions: some([...actions, "*"], 0.3),
      permissions: some(patterns, 0.06).map((pattern) =>
        `${random() < 0.5 || pattern.startsWith("tool:") ? "tool:" : ""}${pattern}:${
          [...actions, "*"][Math.floor(random() * 4)]
        }`
      )
    }
  })
  return roles
}

// Cedar reads all entities anew for each request, which takes most of its time, so it gets those that have parents and
// matter.
const reachable = (roles: Readonly<Record<string, Role>>, held: ReadonlyArray<string>): ReadonlyArray<string> => {
  const found = new Set(held.filter((name) => name in roles))
  for (const name of found) for (const parent of roles[name]!.inherits) found.add(parent)
  return [...found]
}

const cedarDecides = (
  roles: Readonly<Record<string, Role>>,
  held: ReadonlyArray<string>,
  tool: ToolMeta.ToolMeta,
  action: string
): boolean => {
  const answer = Cedar.statefulIsAuthorized({
    principal: uid("User", "u"),
    action: uid("Action", action),
    resource: uid("Tool", tool.id),
    context: {},
    preparsedPolicySetId: "policy",
    entities: [
      { uid: uid("User", "u"), attrs: {}, parents: held.map((name) => uid("Role", name)) },
      ...tool.namespace === undefined
        ? []
        : [{ uid: uid("Tool", tool.id), attrs: {}, parents: [uid("Namespace", tool.namespace)] }],
      ...reachable(roles, held).filter((name) => roles[name]!.inherits.length > 0).map((name) => ({
        uid: uid("Role", name),
        attrs: {},
        parents: roles[name]!.inherits.map((one) => uid("Role", one))
      }))
    ]
  })
  if (answer.type === "failure") throw new Error(JSON.stringify(answer.errors))
  return answer.response.decision === "allow"
}

describe("Rbac beside Cedar", () => {
  it(`decides ${policies * requestsPerPolicy} random requests alike`, () => {
    const random = generator(7)
    let allowed = 0
    let deniedByRule = 0
    for (let i = 0; i < policies; i++) {
      const roles = randomRoles(random)
      const rbac = Rbac.make({ roles })
      const parsed = Cedar.preparsePolicySet("policy", { staticPolicies: toCedar(roles) })
      assert.strictEqual(parsed.type, "success")
      for (let j = 0; j < requestsPerPolicy; j++) {
        const held = [...roleNames, "unknown"].filter(() => random() < 0.25)
        const tool = tools[Math.floor(random() * tools.length)]!
        const action = [...actions, "other"][Math.floor(random() * 4)]!
        const identity = Identity.make({ principal: "u", roles: held })
        const decision = Effect.runSync(rbac.authorize({ identity, tool, action, input: undefined }))
        const expected = cedarDecides(roles, held, tool, action)
        if (decision.allow !== expected) {
          assert.fail(`Cedar says ${expected}: ${JSON.stringify({ roles, held, tool: tool.id, action, decision })}`)
        }
        if (decision.allow) allowed++
        else if (decision.rule.includes("denied tool")) deniedByRule++
      }
    }
    // All three answers must have been given often, or the comparison says little.
    const total = policies * requestsPerPolicy
    assert.isAbove(allowed, total / 10)
    assert.isAbove(deniedByRule, total / 20)
    assert.isBelow(allowed, total * 0.9)
  }, 120_000)
})
