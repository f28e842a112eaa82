import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { anonymous, CurrentIdentity } from "../../auth/Identity.ts"
import { monotonicMillis } from "../../internal/monotonic.ts"
import type { ToolCall } from "../../ToolCall.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Around } from "../../ToolMiddleware.ts"
import type { Limit, RateLimit } from "../RateLimit.ts"
import { rateLimited, type RateLimitError, rateLimitError } from "../RateLimitError.ts"
import { type RateLimitStore, refused, Take } from "../RateLimitStore.ts"
import * as Rule from "./limitRule.ts"

// What a call meets in the limit stage: which tokens it needs, the store's decision, the wait, the refund.

/** Options that have been checked. `maxWaitMillis` is 0 when calls do not wait. */
export interface Settings {
  readonly limits: ReadonlyArray<Limit>
  readonly rules: ReadonlyArray<Rule.LimitRule>
  readonly shadow: boolean
  readonly maxWaitMillis: number
  readonly refundHits: boolean
}

/** The limits of a program, kept in `store`. */
export const fromSettings = (settings: Settings, store: RateLimitStore["Service"]): RateLimit["Service"] => {
  const { maxWaitMillis, refundHits } = settings
  const { consumeUnsafe } = store
  let limits = settings.limits
  let rules = settings.rules

  // Recomputed when the limits have been replaced, hence the function.
  const planFor = (tool: ToolMeta): () => ReadonlyArray<Rule.ToolRule> => {
    let from = rules
    let plan = Rule.rulesForTool(from, tool)
    return () => {
      if (from !== rules) {
        from = rules
        plan = Rule.rulesForTool(from, tool)
      }
      return plan
    }
  }

  const settle = (call: ToolCall, takes: ReadonlyArray<Take>, wait: number): RateLimitError | undefined => {
    call.record.limits = takes
    return wait === refused ? call.record.refuse("limited", tooMany(takes)) : undefined
  }

  // The path of most programs: the store answers at once and whoever is late is refused, so nothing is held.
  const atOnce = (
    consume: NonNullable<typeof consumeUnsafe>,
    plan: () => ReadonlyArray<Rule.ToolRule>
  ): Around<RateLimitError> =>
  <A, E1, R>(call: ToolCall, next: Effect.Effect<A, E1, R>) =>
    Effect.withFiber((fiber): Effect.Effect<A, E1 | RateLimitError, R> => {
      const takes = takesOf(plan(), call, fiber)
      if (takes.length === 0) return next
      const error = settle(call, takes, consume(takes, 0, monotonicMillis(fiber)))
      return error === undefined ? next : Effect.fail(error)
    })

  // The finalizer is there before anything is spent, so no interruption falls between the two.
  const held = (plan: () => ReadonlyArray<Rule.ToolRule>): Around<RateLimitError> =>
  <A, E1, R>(
    call: ToolCall,
    next: Effect.Effect<A, E1, R>
  ): Effect.Effect<A, E1 | RateLimitError, R> =>
    Effect.withFiber((fiber): Effect.Effect<A, E1 | RateLimitError, R> => {
      const takes = takesOf(plan(), call, fiber)
      if (takes.length === 0) return next
      let isHeld = false
      let isStarted = false
      const start = Effect.suspend(() => {
        isStarted = true
        return next
      })
      const admit = (wait: number): Effect.Effect<A, E1 | RateLimitError, R> => {
        const error = settle(call, takes, wait)
        if (error !== undefined) return Effect.fail(error)
        isHeld = true
        return wait === 0 ? start : Effect.flatMap(sleepUntil(monotonicMillis(fiber) + wait), () => start)
      }
      const decided = consumeUnsafe !== undefined
        ? Effect.suspend(() => admit(consumeUnsafe(takes, maxWaitMillis, monotonicMillis(fiber))))
        : Effect.flatMap(
          // A step that has begun is finished, or its tokens could not be given back.
          Effect.uninterruptible(Effect.matchEffect(store.consume(takes, maxWaitMillis), {
            onFailure: (error) => Effect.fail(call.record.refuse("limited", error)),
            onSuccess: (wait) => {
              isHeld = wait !== refused
              return Effect.succeed(wait)
            }
          })),
          admit
        )
      return Effect.onExitPrimitive(
        decided,
        () => isHeld && (!isStarted || (refundHits && isHit(call))) ? store.refund(takes) : undefined
      )
    })

  return {
    forTool: (tool) =>
      consumeUnsafe !== undefined && maxWaitMillis === 0 && !refundHits
        ? atOnce(consumeUnsafe, planFor(tool))
        : held(planFor(tool)),
    explain: (tool) => {
      const plan = planFor(tool)
      return (call) =>
        Effect.withFiber((fiber) => {
          const takes = takesOf(plan(), call, fiber)
          return Effect.match(store.peek(takes, maxWaitMillis), {
            onFailure: (error) => ({ verdict: "refuse", detail: { error: error.reason._tag } }),
            onSuccess: (wait) => ({
              verdict: wait === refused ? "refuse" : "pass",
              detail: { waitMillis: Math.max(0, wait), limits: takes.map(describe) }
            })
          })
        })
    },
    limits: Effect.sync(() => limits),
    update: (next) =>
      Effect.sync(() => {
        rules = Rule.resolveLimits("RateLimit.update", next, settings.shadow)
        limits = [...next]
      })
  }
}

const takesOf = (
  plan: ReadonlyArray<Rule.ToolRule>,
  call: ToolCall,
  fiber: Fiber.Fiber<unknown, unknown>
): ReadonlyArray<Take> => {
  const identity = call.record.identity ??
    // Asking a context for what may not be in it is sound whatever it is typed to hold.
    Context.getOrUndefined(fiber.context as Context.Context<CurrentIdentity>, CurrentIdentity) ?? anonymous
  const takes: Array<Take> = []
  for (let i = 0; i < plan.length; i++) {
    const { keyOf, rule } = plan[i]!
    if (Rule.concerns(rule, identity)) takes.push(new Take(rule, keyOf(identity, fiber), Rule.costOf(rule, call)))
  }
  return takes
}

const tooMany = (takes: ReadonlyArray<Take>): RateLimitError => {
  let worst: Take | undefined = undefined
  for (const take of takes) {
    if (take.allowed || take.shape.shadow) continue
    if (worst === undefined || take.retryAfterMillis > worst.retryAfterMillis) worst = take
  }
  return rateLimitError(
    rateLimited(worst?.name ?? "", worst?.shape.per ?? "", Duration.millis(worst?.retryAfterMillis ?? 0))
  )
}

const isHit = ({ record: { cache } }: ToolCall): boolean =>
  cache === "hit" || cache === "stale" || cache === "coalesced"

const describe = (take: Take) => ({
  name: take.name,
  per: take.shape.per,
  mode: take.shape.shadow ? "shadow" : "enforce",
  allowed: take.allowed,
  remaining: take.remaining,
  resetAfterMillis: take.resetAfterMillis,
  retryAfterMillis: take.retryAfterMillis
})

// A timer may fire a little before its time by the monotonic clock.
const sleepUntil = (moment: number): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const left = moment - monotonicMillis(fiber)
    return left <= 0 ? Effect.void : Effect.flatMap(Effect.sleep(Math.ceil(left)), () => sleepUntil(moment))
  })
