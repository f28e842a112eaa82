/**
 * Which resilience parts guard a tool, and how.
 *
 * A policy is put together from the general to the special: what the layer says for all tools, its rules for `*`, for
 * `namespace:*` and for the exact tool, and the tool's own `policy`. Each may set single options of a part, turn the part
 * off with `false`, or turn it on again.
 *
 * @since 0.1.0
 */
import * as Schedule from "effect/Schedule"
import * as Check from "../internal/options.ts"
import { checkToolPatterns, matchToolPattern } from "../internal/toolPattern.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import type * as Bulkhead from "./Bulkhead.ts"
import type * as CircuitBreaker from "./CircuitBreaker.ts"
import type * as Hedge from "./Hedge.ts"
import type * as Retry from "./Retry.ts"
import type * as Timeout from "./Timeout.ts"

/**
 * The resilience settings of one tool.
 *
 * - `dependency`: what the tool depends on. Tools that name the same one share its circuit, bulkhead and retry budget;
 *   they must want the same of them. Default: the tool's id, so nothing is shared with tools that do not name it.
 * - `circuitBreaker`, `retry`, `timeout`, `bulkhead`: options of the parts, `false` for none. On by default.
 * - `hedge`: options of the part, of which one of the policies must give the `delay`. Off by default, and only for tools that
 *   are `readOnly`.
 * - `acceptsIdempotencyKey`: the tool recognises a repeated call by its idempotency key, so that a call that brings one may
 *   be retried although the tool is not idempotent by itself. Default false.
 *
 * @category models
 * @since 0.1.0
 */
export interface ResiliencePolicy {
  readonly dependency?: string | undefined
  readonly circuitBreaker?: CircuitBreaker.Options | false | undefined
  readonly retry?: Retry.Options | false | undefined
  readonly timeout?: Timeout.Options | false | undefined
  readonly bulkhead?: Bulkhead.Options | false | undefined
  readonly hedge?: Partial<Hedge.Options> | false | undefined
  readonly acceptsIdempotencyKey?: boolean | undefined
}

/**
 * A policy for some tools. `tools` holds exact ids, `namespace:*` or `*`; the closest pattern decides how special the
 * rule is, and of equally special rules the later wins.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rule {
  readonly tools: string | ReadonlyArray<string>
  readonly policy: ResiliencePolicy
}

const partNames = ["circuitBreaker", "retry", "timeout", "bulkhead", "hedge"] as const

const policyNames: { readonly [K in keyof Required<ResiliencePolicy>]: true } = {
  dependency: true,
  circuitBreaker: true,
  retry: true,
  timeout: true,
  bulkhead: true,
  hedge: true,
  acceptsIdempotencyKey: true
}

interface Alternative {
  readonly option: string
  readonly replaces: ReadonlyArray<string>
  /** For which values of the option. Default: all. */
  readonly when?: (value: unknown) => boolean
}

// Options that stand for each other: who sets one of them does not want the other from a more general policy.
const alternatives: { readonly [part: string]: ReadonlyArray<Alternative> } = {
  circuitBreaker: [
    { option: "maxFailures", replaces: ["window"] },
    { option: "window", replaces: ["maxFailures"] },
    { option: "resetTimeout", replaces: ["maxResetTimeout"], when: (value) => !Schedule.isSchedule(value) }
  ],
  retry: [
    { option: "schedule", replaces: ["initialDelay", "multiplier", "strategy", "jitter"] },
    { option: "initialDelay", replaces: ["schedule"] },
    { option: "multiplier", replaces: ["schedule"] },
    { option: "strategy", replaces: ["schedule"] },
    { option: "jitter", replaces: ["schedule"] }
  ],
  bulkhead: [{ option: "maxQueue", replaces: ["maxWait"], when: (value) => value === 0 }]
}

const mergePart = (part: string, general: object | false | undefined, special: object | false | undefined) => {
  if (special === undefined) return general
  if (special === false || general === undefined || general === false) return special
  const merged: Record<string, unknown> = { ...general }
  for (const { option, replaces, when } of alternatives[part] ?? []) {
    const value: unknown = Reflect.get(special, option)
    if (value !== undefined && when?.(value) !== false) { for (const name of replaces) delete merged[name] }
  }
  for (const [name, value] of Object.entries(special)) {
    if (value !== undefined) merged[name] = value
  }
  return merged
}

/** @internal The policy that says what `special` says, and what `general` says where `special` is silent. */
export const merge = (general: ResiliencePolicy, special: ResiliencePolicy): ResiliencePolicy => {
  const merged: Record<string, unknown> = {
    dependency: special.dependency ?? general.dependency,
    acceptsIdempotencyKey: special.acceptsIdempotencyKey ?? general.acceptsIdempotencyKey
  }
  for (const part of partNames) merged[part] = mergePart(part, general[part], special[part])
  return merged
}

/** @internal Throws where a policy is no policy. What its parts hold is for the parts to check. */
export const check = (where: string, policy: ResiliencePolicy): void => {
  if (typeof policy !== "object" || policy === null) throw new TypeError(`${where} must be an object`)
  Check.known(where, policy, Object.keys(policyNames))
  const { acceptsIdempotencyKey, dependency } = policy
  if (
    dependency !== undefined && (typeof dependency !== "string" || dependency.length === 0 || dependency.length > 256)
  ) {
    throw new TypeError(`${where}: dependency must be a string of 1 to 256 characters`)
  }
  if (acceptsIdempotencyKey !== undefined && typeof acceptsIdempotencyKey !== "boolean") {
    throw new TypeError(`${where}: acceptsIdempotencyKey must be true or false, got ${typeof acceptsIdempotencyKey}`)
  }
  for (const part of partNames) {
    const options: unknown = policy[part]
    if (options !== undefined && options !== false && (typeof options !== "object" || options === null)) {
      throw new TypeError(
        `${where}: ${part} must be options or false, got ${options === null ? "null" : typeof options}`
      )
    }
  }
}

/** @internal */
export const checkRule = (where: string, rule: Rule): void => {
  if (typeof rule !== "object" || rule === null) throw new TypeError(`${where} must be an object`)
  Check.known(where, rule, ["tools", "policy"])
  const patterns = typeof rule.tools === "string" ? [rule.tools] : rule.tools
  if (!Array.isArray(patterns)) throw new TypeError(`${where}: tools must be a pattern or an array of them`)
  if (patterns.length === 0) throw new TypeError(`${where}: tools must name at least one tool`)
  checkToolPatterns(where, "tools", patterns)
  check(`${where}: policy`, rule.policy)
}

/** @internal What goes for a tool. */
export const forTool = (
  defaults: ResiliencePolicy,
  rules: ReadonlyArray<Rule>,
  tool: ToolMeta
): ResiliencePolicy => {
  let policy = defaults
  for (const specificity of [0, 1, 2]) {
    for (const rule of rules) {
      if (specificityOf(rule, tool) === specificity) policy = merge(policy, rule.policy)
    }
  }
  return merge(policy, tool.policy)
}

const specificityOf = (rule: Rule, tool: ToolMeta): number => {
  const patterns = typeof rule.tools === "string" ? [rule.tools] : rule.tools
  return Math.max(-1, ...patterns.map((pattern) => matchToolPattern(pattern, tool) ?? -1))
}
