/**
 * Role-based access: which roles may do what with which tools.
 *
 * A role grants what is in its `permissions`, and every action of `allowedActions` on every tool of `allowedTools`: a
 * grant needs a tool and an action. What `deniedTools` of any held or inherited role names is denied, whatever another
 * role grants. What nothing grants is denied. Names are compared exactly.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import { checkToolPatterns, isToolPattern, namePart } from "../internal/toolPattern.ts"
import * as Authorizer from "./Authorizer.ts"
import { compile, type RoleRules, type Rule } from "./internal/rbac.ts"

/**
 * One role.
 *
 * - `inherits`: roles whose grants and denials this one has as well.
 * - `allowedTools`, `allowedActions`: each of these actions on each of these tools. One list without the other grants
 *   nothing.
 * - `deniedTools`: tools that holders of the role may do nothing with.
 * - `permissions`: single grants, written `[tool:]<tool>:<action>`, for example `github:*:list` or `tool:echo:call`. A
 *   first part `tool` is always the prefix, so `tool:*:<action>` is about every tool; for those of a namespace called `tool`
 *   it is `tool:tool:*:<action>`.
 *
 * Tools are an exact id (`github:search`), a namespace (`github:*`) or `*`; actions an exact name or `*`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Role {
  readonly inherits?: ReadonlyArray<string> | undefined
  readonly allowedTools?: ReadonlyArray<string> | undefined
  readonly deniedTools?: ReadonlyArray<string> | undefined
  readonly allowedActions?: ReadonlyArray<string> | undefined
  readonly permissions?: ReadonlyArray<string> | undefined
}

const roleNames: { readonly [K in keyof Required<Role>]: true } = {
  inherits: true,
  allowedTools: true,
  deniedTools: true,
  allowedActions: true,
  permissions: true
}

/**
 * What `make` and `layer` take, beside `mode` and `scopeHierarchy` (see `Authorizer.Options`).
 *
 * - `roles`: by name. A role that an identity holds and that is not here grants nothing.
 * - `defaultRole`: what identities without any role are taken to hold, the anonymous one included. Default none.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Authorizer.Options {
  readonly roles: Readonly<Record<string, Role>>
  readonly defaultRole?: string | undefined
}

const where = "Rbac.layer"

const strings = (field: string, values: ReadonlyArray<string> | undefined): ReadonlyArray<string> => {
  if (values === undefined) return []
  if (!Array.isArray(values) || !values.every((value) => typeof value === "string")) {
    throw new TypeError(`${where}: ${field} must be an array of strings`)
  }
  return values
}

const checkAction = (field: string, action: string): string => {
  if (action !== "*" && !namePart.test(action)) {
    throw new TypeError(`${where}: ${field} must hold action names or "*", got ${JSON.stringify(action)}`)
  }
  return action
}

const parsePermission = (field: string, permission: string): Rule => {
  const parts = permission.split(":")
  if (parts[0] === "tool") parts.shift()
  const action = parts.pop() ?? ""
  const tool = parts.join(":")
  if (parts.length < 1 || parts.length > 2 || !isToolPattern(tool)) {
    throw new TypeError(
      `${where}: ${field} must hold permissions of the form [tool:]<tool>:<action>, got ${JSON.stringify(permission)}`
    )
  }
  return { tool, action: checkAction(field, action), text: `permission ${permission}` }
}

// What stands behind an object is nobody's policy: `{ __proto__: ... }` would hide a role, or bring members along.
const isPlain = (value: unknown): value is object => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

const parseRole = (name: string, given: Role): RoleRules => {
  const field = (member: string) => `${member} of role ${JSON.stringify(name)}`
  if (name.length === 0) throw new TypeError(`${where}: a role must have a name`)
  if (!isPlain(given)) throw new TypeError(`${where}: role ${JSON.stringify(name)} must be an object, and a plain one`)
  Check.known(`${where}: role ${JSON.stringify(name)}`, given, Object.keys(roleNames))
  // Own members only.
  const role: Role = Object.assign(Object.create(null) as object, given)
  const allowedTools = strings(field("allowedTools"), role.allowedTools)
  const deniedTools = strings(field("deniedTools"), role.deniedTools)
  const allowedActions = strings(field("allowedActions"), role.allowedActions)
  checkToolPatterns(where, field("allowedTools"), allowedTools)
  checkToolPatterns(where, field("deniedTools"), deniedTools)
  for (const action of allowedActions) checkAction(field("allowedActions"), action)
  return {
    name,
    inherits: strings(field("inherits"), role.inherits),
    denials: deniedTools.map((tool) => ({ tool, action: "*", text: `denied tool ${tool}` })),
    grants: [
      ...allowedTools.flatMap((tool) =>
        allowedActions.map((action) => ({ tool, action, text: `allowed tool ${tool}, action ${action}` }))
      ),
      ...strings(field("permissions"), role.permissions).map((one) => parsePermission(field("permissions"), one))
    ]
  }
}

// Walks up from every role once, without recursion: policies may be deep.
const checkInheritance = (roles: ReadonlyMap<string, RoleRules>): void => {
  const state = new Map<string, "open" | "done">()
  for (const start of roles.keys()) {
    const path: Array<{ readonly role: RoleRules; next: number }> = []
    const enter = (name: string, from: string | undefined): void => {
      const role = roles.get(name)
      if (role === undefined) {
        throw new TypeError(
          `${where}: role ${JSON.stringify(from)} inherits from ${JSON.stringify(name)}, which is not a role`
        )
      }
      if (state.get(name) === "done") return
      if (state.get(name) === "open") {
        throw new TypeError(`${where}: role ${JSON.stringify(name)} inherits from itself`)
      }
      state.set(name, "open")
      path.push({ role, next: 0 })
    }
    enter(start, undefined)
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      if (top.next < top.role.inherits.length) {
        enter(top.role.inherits[top.next++]!, top.role.name)
      } else {
        state.set(top.role.name, "done")
        path.pop()
      }
    }
  }
}

/**
 * Makes an authorizer of roles. Throws for an unknown member, a bad pattern, an unknown inherited role and a circle.
 *
 * **Example** (Listing is not calling)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { ToolMeta } from "effect-toolops"
 * import { Identity, Rbac } from "effect-toolops/auth"
 *
 * const rbac = Rbac.make({
 *   roles: {
 *     reader: { allowedTools: ["github:*"], allowedActions: ["list"] },
 *     writer: { inherits: ["reader"], permissions: ["github:*:call"], deniedTools: ["github:delete_repo"] }
 *   }
 * })
 *
 * const tool = ToolMeta.make({ namespace: "github", name: "search" })
 * const identity = Identity.make({ principal: "ada", roles: ["reader"] })
 * const list = await Effect.runPromise(rbac.authorize({ identity, tool, action: "list", input: undefined }))
 * list.allow // => true
 * list.rule // => "role reader: allowed tool github:*, action list"
 * const call = await Effect.runPromise(rbac.authorize({ identity, tool, action: "call", input: undefined }))
 * call.allow // => false
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Authorizer.Service => {
  Check.known(where, options, ["roles", "defaultRole", "mode", "scopeHierarchy"])
  if (!isPlain(options.roles)) throw new TypeError(`${where}: roles must be an object, and a plain one`)
  const roles = new Map(Object.entries(options.roles).map(([name, role]) => [name, parseRole(name, role)]))
  checkInheritance(roles)
  const { defaultRole } = options
  if (defaultRole !== undefined && !roles.has(defaultRole)) {
    throw new TypeError(`${where}: defaultRole ${JSON.stringify(defaultRole)} is not a role`)
  }
  const decide = compile(roles, defaultRole)
  return Authorizer.fromDecisions(where, decide, options)
}

/**
 * Provides an authorizer of roles. See `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Authorizer.Authorizer> => {
  const service = make(options)
  return Layer.succeed(Authorizer.Authorizer, service)
}

/**
 * Provides `layer` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<Authorizer.Authorizer, Config.ConfigError> =>
  Layer.effect(Authorizer.Authorizer, Effect.map(Config.unwrap(options), make))
