/**
 * Stage 5 of 5. Keeps a misbehaving tool from taking the program with it: bulkhead, breaker, retry, timeout.
 *
 * As a formula, outermost first: `Bulkhead(Breaker(Total(Retry(Hedge(Timeout(handler))))))`, where `Total` is the time
 * limit for all attempts together. A tool is only ever run twice for one call when it is `readOnly` or `idempotent`, or
 * when it accepts idempotency keys and the call has one.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { guardsCheck } from "../health/internal/partChecks.ts"
import * as Check from "../internal/options.ts"
import type { ToolCall } from "../ToolCall.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import * as ToolMiddleware from "../ToolMiddleware.ts"
import * as Bulkhead from "./Bulkhead.ts"
import * as Hedge from "./Hedge.ts"
import * as CircuitOptions from "./internal/circuitOptions.ts"
import { compose } from "./internal/composite.ts"
import type { ResilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver } from "./ResilienceObserver.ts"
import * as ResiliencePolicy from "./ResiliencePolicy.ts"
import * as Retry from "./Retry.ts"
import * as Timeout from "./Timeout.ts"
import { type Guard, Guards, ToolGuards } from "./ToolGuards.ts"

/**
 * The resilience stage.
 *
 * @category services
 * @since 0.1.0
 */
export class ResilienceMiddleware
  extends Context.Service<ResilienceMiddleware, ToolMiddleware.ToolMiddleware<ResilienceError>>()(
    "effect-toolops/resilience/ResilienceMiddleware"
  )
{}

/**
 * How tools are guarded. What a rule holds must make sense by itself; what does not go together, or is missing, is found
 * where a tool is wrapped or first called, since it may come from several rules.
 *
 * - `defaults`: what goes for every tool. Where it is silent: a breaker that opens for 30 seconds after 5 failures, 3
 *   attempts, 30 seconds for each, 10 calls at once and none waiting.
 * - `rules`: what goes for some tools. See `ResiliencePolicy.Rule`.
 * - `maxKeys`: tools and dependencies whose state is kept, a whole number from 1. Default 10,000. A key beyond it replaces
 *   one that is idle and closed; while none is found, its state lives only as long as a `ToolMeta` that uses it.
 *
 * A tool's own `policy` wins over both.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly defaults?: ResiliencePolicy.ResiliencePolicy | undefined
  readonly rules?: ReadonlyArray<ResiliencePolicy.Rule> | undefined
  readonly maxKeys?: number | undefined
}

/** Options that have been checked. */
interface Settings {
  readonly defaults: ResiliencePolicy.ResiliencePolicy
  readonly rules: ReadonlyArray<ResiliencePolicy.Rule>
  readonly maxKeys: number
}

const resolve = (options: Options | undefined, where: string): Settings => {
  const { defaults = {}, maxKeys = 10_000, rules = [], ...rest } = options ?? {}
  Check.known(where, rest, ["defaults", "rules", "maxKeys"])
  if (!Array.isArray(rules)) throw new TypeError(`${where}: rules must be an array`)
  ResiliencePolicy.check(`${where}: defaults`, defaults)
  checkParts(`${where}: defaults`, defaults)
  rules.forEach((rule, index) => {
    const whereRule = `${where}: rules[${index}]`
    ResiliencePolicy.checkRule(whereRule, rule)
    // Options that need one another may come from several rules: only a tool knows all that go for it.
    checkParts(whereRule, ResiliencePolicy.merge(defaults, rule.policy), Check.incomplete)
  })
  return { defaults, rules, maxKeys: Check.integer(where, "maxKeys", maxKeys, 1) }
}

/** Throws where the options of a part make no sense. */
const checkParts = (
  where: string,
  policy: ResiliencePolicy.ResiliencePolicy,
  run = (check: () => void) => check()
): void => {
  const { bulkhead, circuitBreaker, hedge, retry, timeout } = policy
  if (bulkhead !== false) run(() => Bulkhead.resolve(bulkhead, `${where}: bulkhead`))
  if (circuitBreaker !== false) run(() => CircuitOptions.resolve(circuitBreaker, `${where}: circuitBreaker`))
  if (retry !== false) run(() => Retry.makeUnsafe(retry, `${where}: retry`))
  if (timeout !== false) run(() => Timeout.resolve(timeout, `${where}: timeout`))
  if (hedge !== undefined && hedge !== false) run(() => Hedge.resolve(hedge, `${where}: hedge`))
}

/** How one tool is guarded. */
interface Plan {
  readonly where: string
  readonly key: string
  readonly policy: ResiliencePolicy.ResiliencePolicy
  /** Whether a call may be run more than once. */
  readonly mayRepeat: (call: ToolCall) => boolean
  readonly hedges: boolean
}

const always = () => true
const never = () => false
const withIdempotencyKey = (call: ToolCall): boolean => call.idempotencyKey !== undefined && call.idempotencyKey !== ""

const planOf = (settings: Settings, tool: ToolMeta): Plan => {
  const where = `ResilienceMiddleware: policy of ${tool.id}`
  // A tool's policy also holds what other stages read; `ToolMeta.make` has checked its names.
  ResiliencePolicy.check(where, ResiliencePolicy.merge({}, tool.policy))
  const policy = ResiliencePolicy.forTool(settings.defaults, settings.rules, tool)
  checkParts(where, policy)
  return {
    where,
    key: policy.dependency ?? tool.id,
    policy,
    mayRepeat: tool.readOnly || tool.idempotent
      ? always
      : policy.acceptsIdempotencyKey === true
      ? withIdempotencyKey
      : never,
    hedges: tool.readOnly && policy.hedge !== undefined && policy.hedge !== false
  }
}

/** The budgets of retries and hedges: one and the same, whoever names it, but none for who wants none. */
const budgetsOf = ({ hedges, mayRepeat, policy, where }: Plan, guard: Guard) => {
  const retry = policy.retry === false || mayRepeat === never ? false : policy.retry?.budget
  const hedge = hedges && policy.hedge !== undefined && policy.hedge !== false ? policy.hedge.budget : false
  const named = retry === false || retry === undefined ? hedge : retry
  const budget = retry === false && hedge === false
    ? undefined
    : guard.budgetOf(named === false ? undefined : named, `${where}: retry.budget`)
  return { retry: retry === false ? undefined : budget, hedge: hedge === false ? undefined : budget }
}

const compile = (plan: Plan, guard: Guard): ToolMiddleware.Around<ResilienceError> => {
  const { hedges, mayRepeat, policy, where } = plan
  const { observer } = guard
  const budgets = budgetsOf(plan, guard)
  const once = {
    bulkhead: policy.bulkhead === false ? undefined : guard.bulkheadOf(policy.bulkhead ?? {}, `${where}: bulkhead`),
    breaker: policy.circuitBreaker === false
      ? undefined
      : guard.breakerOf(policy.circuitBreaker ?? {}, `${where}: circuitBreaker`),
    timeout: policy.timeout === false
      ? undefined
      : Timeout.makeUnsafe({ name: guard.key, ...policy.timeout }, `${where}: timeout`, { observer })
  }
  const repeatedly = {
    ...once,
    retry: policy.retry === false
      ? undefined
      : Retry.makeUnsafe({ name: guard.key, ...policy.retry, budget: budgets.retry ?? false }, `${where}: retry`, {
        observer
      }),
    hedge: hedges && policy.hedge !== undefined && policy.hedge !== false
      ? Hedge.makeUnsafe({ name: guard.key, ...policy.hedge, budget: budgets.hedge ?? false }, `${where}: hedge`, {
        observer
      })
      : undefined
  }
  const runOnce = compose(once)
  const runRepeatedly = compose(repeatedly)
  return (call, next) => {
    call.record.dependency = guard.key
    return mayRepeat(call) ? runRepeatedly(next, call.record) : runOnce(next, call.record)
  }
}

const explain = (plan: Plan, guards: Guards) => (call: ToolCall): Effect.Effect<ToolMiddleware.Explanation> =>
  Effect.gen(function*() {
    const { policy } = plan
    // A key that was never called is not made known by asking about it.
    const guard = guards.peek(plan.key)
    const circuit = policy.circuitBreaker === false ? undefined : yield* guard?.breaker?.snapshot ?? Effect.undefined
    const bulkhead = policy.bulkhead === false ? undefined : yield* guard?.bulkhead?.snapshot ?? Effect.undefined
    const isOpen = circuit !== undefined && !Duration.isZero(circuit.retryAfter)
    const isFull = policy.bulkhead !== false && guard?.bulkhead?.isFull() === true
    return {
      verdict: isOpen || isFull ? "refuse" : "pass",
      detail: {
        dependency: plan.key,
        circuitBreaker: policy.circuitBreaker === false ? "off" : circuit?.status ?? "closed",
        ...(isOpen ? { retryAfterMillis: Duration.toMillis(circuit.retryAfter) } : {}),
        bulkhead: policy.bulkhead === false ? "off" : { active: bulkhead?.active ?? 0, queued: bulkhead?.queued ?? 0 },
        retry: policy.retry !== false && plan.mayRepeat(call) ? "on" : "off",
        timeout: policy.timeout === false ? "off" : "on"
      }
    }
  })

const make = (
  settings: Settings,
  guards: Guards
): ToolMiddleware.ToolMiddleware<ResilienceError> => ({
  name: "resilience",
  forTool: (tool) => {
    const plan = planOf(settings, tool)
    let guard = guards.get(plan.key)
    let around = compile(plan, guard)
    // Now, and not when the call is run: a mark is good for a whole round of the registry, which no call waits for.
    return (call, next) => {
      if (guard.isForgotten) {
        guard = guards.get(plan.key)
        around = compile(plan, guard)
      }
      guard.isUsed = true
      return around(call, next)
    }
  },
  explain: (tool) => explain(planOf(settings, tool), guards)
})

const fromSettings = (
  settings: Settings
): Effect.Effect<Context.Context<ResilienceMiddleware | ToolGuards>, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const guards = new Guards(settings.maxKeys, fiber.getRef(CurrentResilienceObserver), fiber.context)
    return Effect.as(
      guardsCheck(guards, (key) => guards.peek(key)?.bulkhead?.isFull() === true),
      Context.make(ResilienceMiddleware, make(settings, guards)).pipe(Context.add(ToolGuards, ToolGuards.of(guards)))
    )
  })

/**
 * Guards every tool with toolops's defaults, or as the options say.
 *
 * **Details**
 *
 * Options that make no sense throw here; a tool's own `policy` that makes none throws where the tool is wrapped or first
 * called. Two calls of `layer` are two stages with circuits of their own.
 *
 * **Example** (Sharing a circuit between tools, and trusting one tool with more)
 *
 * ```ts
 * import { ResilienceMiddleware } from "effect-toolops/resilience"
 *
 * const Resilience = ResilienceMiddleware.layer({
 *   defaults: { timeout: { timeout: "5 seconds" } },
 *   rules: [
 *     { tools: "github:*", policy: { dependency: "github-api" } },
 *     { tools: "github:search", policy: { retry: { maxAttempts: 5 } } }
 *   ]
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<ResilienceMiddleware | ToolGuards> =>
  Layer.effectContext(fromSettings(resolve(options, "ResilienceMiddleware.layer")))

/**
 * The same with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<ResilienceMiddleware | ToolGuards, Config.ConfigError> =>
  Layer.effectContext(
    Effect.flatMap(Config.unwrap(options), (options) =>
      fromSettings(resolve(options, "ResilienceMiddleware.layerConfig")))
  )

/**
 * Leaves the stage out: no bulkhead, breaker, retry or timeout.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPassthrough: Layer.Layer<ResilienceMiddleware> = Layer.succeed(
  ResilienceMiddleware,
  ToolMiddleware.passthrough("resilience")
)
