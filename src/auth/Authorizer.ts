/**
 * Decides whether a caller may do something with a tool.
 *
 * The scopes that a tool asks for are checked here, whatever the policy says; `Rbac` is the policy that comes with the
 * package and `make` the way to one of your own. An authorizer that dies refuses the call as `AuthUnavailable`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as Check from "../internal/options.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import type { AuthError } from "./AuthError.ts"
import type { Identity } from "./Identity.ts"
import { failClosed } from "./internal/findCaller.ts"
import { missingScopes } from "./internal/scopes.ts"
import { settled } from "./internal/settled.ts"

/**
 * What is asked: may `identity` do `action` with `tool`, and with this input. Where a list is filtered there is no
 * input.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly identity: Identity
  readonly tool: ToolMeta
  readonly action: string
  readonly input: unknown
}

/**
 * What was decided.
 *
 * - `allow`: whether the call may go on.
 * - `rule`: the rule that decided, in words for an operator.
 * - `missingScopes`: the scopes of the tool that the caller lacks.
 * - `wouldRefuse`: true for a call that is let through only because the authorizer is in shadow mode.
 *
 * @category models
 * @since 0.1.0
 */
export interface Decision {
  readonly allow: boolean
  readonly rule: string
  readonly missingScopes: ReadonlyArray<string>
  readonly wouldRefuse: boolean
}

/**
 * What an authorizer is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  readonly authorize: (request: Request) => Effect.Effect<Decision, AuthError>
}

/**
 * The authorizer of a program.
 *
 * @category services
 * @since 0.1.0
 */
export class Authorizer extends Context.Service<Authorizer, Service>()("effect-toolops/auth/Authorizer") {}

/**
 * What a policy answers: yes or no, and the rule if there is a name for it. Only `true` allows.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = boolean | { readonly allow: boolean; readonly rule?: string | undefined }

/**
 * A policy of your own. It may look at the input of the call, and fail with an `AuthError` where it cannot tell.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy = (request: Request) => Verdict | Effect.Effect<Verdict, AuthError>

/**
 * How decisions are put to use.
 *
 * - `mode`: `enforce` refuses what the policy refuses. `shadow` lets it through and writes it down, in the rule of the
 *   call's record and as `wouldRefuse`: for trying a policy out. Default `enforce`.
 * - `scopeHierarchy`: scopes that a scope stands for as well, directly or through others, for example
 *   `{ "files:admin": ["files:write"], "files:write": ["files:read"] }`. Default none.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly mode?: "enforce" | "shadow" | undefined
  readonly scopeHierarchy?: Readonly<Record<string, ReadonlyArray<string>>> | undefined
}

const noScopes: ReadonlyArray<string> = Object.freeze([])

/** @internal The decision on what a policy and the scopes say. Shared, because policies answer the same all day. */
export const decision = (allow: boolean, rule: string, missingScopes = noScopes): Decision =>
  Object.freeze({ allow, rule, missingScopes, wouldRefuse: false })

/** @internal Puts the check of scopes and the mode around a policy that answers with decisions. */
export const fromDecisions = (
  where: string,
  decide: (request: Request) => Effect.Effect<Decision, AuthError>,
  options: Options | undefined
): Service => {
  const shadow = Check.oneOf(where, "mode", options?.mode ?? "enforce", ["enforce", "shadow"]) === "shadow"
  const missing = missingScopes(where, options?.scopeHierarchy)
  const settle = (request: Request, decided: Decision): Decision => {
    const { identity, tool } = request
    if (decided.allow && tool.scopes.length > 0) {
      const lacking = missing(tool.scopes, identity.scopes)
      if (lacking.length > 0) decided = decision(false, "scopes of the tool", lacking)
    }
    return shadow && !decided.allow
      ? { ...decided, allow: true, rule: `shadow: ${decided.rule}`, wouldRefuse: true }
      : decided
  }
  return {
    authorize: (request) => {
      const decided = decide(request)
      // The common answer is there already, and where nothing changes it is handed on as it is.
      if (!settled(decided) || decided._tag === "Failure") return Effect.map(decided, (value) => settle(request, value))
      const value = settle(request, decided.value)
      return value === decided.value ? decided : Effect.succeed(value)
    }
  }
}

const allowed = decision(true, "allow all")
const denied = decision(false, "deny all")
const byPolicy = { yes: decision(true, "policy"), no: decision(false, "policy") }

const toDecision = (verdict: Verdict): Decision => {
  if (typeof verdict === "boolean") return verdict ? byPolicy.yes : byPolicy.no
  if (typeof verdict !== "object" || verdict === null || typeof verdict.allow !== "boolean") {
    throw new TypeError("Authorizer.make: a policy must answer with a boolean or with { allow, rule }")
  }
  return decision(verdict.allow, verdict.rule ?? "policy")
}

/**
 * Makes an authorizer of a policy of your own.
 *
 * **Example** (Deciding on the arguments of a call)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { ToolMeta } from "effect-toolops"
 * import { Authorizer, Identity } from "effect-toolops/auth"
 *
 * const ownFiles = Authorizer.make(({ identity, input }) => input === `/home/${identity.principal}`)
 *
 * const list = ToolMeta.make({ name: "list", readOnly: true })
 * const identity = Identity.make({ principal: "ada" })
 * const own = await Effect.runPromise(ownFiles.authorize({ identity, tool: list, action: "call", input: "/home/ada" }))
 * own.allow // => true
 * const root = await Effect.runPromise(ownFiles.authorize({ identity, tool: list, action: "call", input: "/root" }))
 * root.allow // => false
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (policy: Policy, options: Options = {}): Service => {
  Check.known("Authorizer.make", options, ["mode", "scopeHierarchy"])
  return fromDecisions(
    "Authorizer.make",
    (request) =>
      Effect.suspend(() => {
        const verdict = policy(request)
        return Effect.isEffect(verdict) ? Effect.map(verdict, toDecision) : Effect.succeed(toDecision(verdict))
      }),
    options
  )
}

/**
 * An authorizer that can be exchanged while calls run: each check sees one whole policy, the one that the reference
 * holds at that moment.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromRef = (ref: Ref.Ref<Service>): Service => ({
  authorize: (request) => Effect.flatMap(Ref.get(ref), (current) => current.authorize(request))
})

/**
 * Provides an authorizer of a policy of your own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (policy: Policy, options?: Options): Layer.Layer<Authorizer> =>
  Layer.sync(Authorizer, () => make(policy, options))

/**
 * Provides `layer` with options from configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  policy: Policy,
  options: Config.Wrap<Options>
): Layer.Layer<Authorizer, Config.ConfigError> =>
  Layer.effect(Authorizer, Effect.map(Config.unwrap(options), (value) => make(policy, value)))

/**
 * Provides the authorizer that a reference holds. See `fromRef`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRef = (ref: Ref.Ref<Service>): Layer.Layer<Authorizer> => Layer.succeed(Authorizer, fromRef(ref))

/**
 * Provides the authorizer that allows everything to everybody who holds the scopes of the tool.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerAllowAll: Layer.Layer<Authorizer> = Layer.sync(
  Authorizer,
  () => fromDecisions("Authorizer.layerAllowAll", () => Effect.succeed(allowed), undefined)
)

/**
 * Provides the authorizer that allows nothing.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDenyAll: Layer.Layer<Authorizer> = Layer.sync(
  Authorizer,
  () => fromDecisions("Authorizer.layerDenyAll", () => Effect.succeed(denied), undefined)
)

const isDecision = (decided: Decision): boolean =>
  typeof decided.allow === "boolean" && typeof decided.rule === "string" && Array.isArray(decided.missingScopes)

/**
 * @internal What `authorize` says, with everything that it must not do turned into a refusal. A decision that is there
 * already is handed back as it is.
 */
export const decide = (authorizer: Service, request: Request): Decision | Effect.Effect<Decision, AuthError> => {
  let decided: Effect.Effect<Decision, AuthError>
  try {
    decided = authorizer.authorize(request)
    if (settled(decided) && decided._tag === "Success" && isDecision(decided.value)) return decided.value
  } catch (error) {
    decided = Effect.die(error)
  }
  return failClosed("authorizer", () => decided, (value) => isDecision(value) ? Effect.succeed(value) : undefined)
}
