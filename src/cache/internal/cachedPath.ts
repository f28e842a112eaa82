import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Identity } from "../../auth/Identity.ts"
import type { CallRecord } from "../../CallRecord.ts"
import { monotonicMillis } from "../../internal/monotonic.ts"
import * as ToolCall from "../../ToolCall.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { ToolCachePolicy, ToolPlan } from "../CachePolicy.ts"
import type { Entry } from "../CacheStore.ts"
import { CachedCall } from "./cachedCall.ts"
import { callerOf, type Engine, type ToolEntry } from "./engine.ts"
import { CurrentFlight } from "./flights.ts"
import { corrupt } from "./resultCodec.ts"
import { isUnavailable } from "./unavailable.ts"

/** Where `CacheMiddleware.withStatus` finds the record of the call that it runs. */
export const StatusCell: Context.Reference<{ record: CallRecord | undefined } | undefined> = Context.Reference<
  { record: CallRecord | undefined } | undefined
>("effect-toolops/cache/CacheMiddleware/StatusCell", { defaultValue: () => undefined })

/** The way of the calls of one cacheable tool through the cache. */
export class CachedPath {
  readonly engine: Engine
  readonly plan: ToolPlan
  readonly policy: ToolCachePolicy
  readonly tool: ToolEntry
  readonly scope: Scope.Scope
  readonly mode: Context.Reference<"use" | "bypass" | "refresh">

  constructor(
    engine: Engine,
    plan: ToolPlan,
    tool: ToolMeta,
    scope: Scope.Scope,
    mode: Context.Reference<"use" | "bypass" | "refresh">
  ) {
    this.engine = engine
    this.plan = plan
    this.policy = tool.policy
    this.tool = engine.forTool(tool)
    this.scope = scope
    this.mode = mode
  }

  around<A, E, R>(
    call: ToolCall.ToolCall,
    next: Effect.Effect<A, E, R>,
    again: ((call: ToolCall.ToolCall) => Effect.Effect<A, E, R>) | undefined
  ): Effect.Effect<A, E, R> {
    return Effect.withFiber((fiber) => {
      const { counters, store } = this.engine
      const record = call.record
      const cell = fiber.getRef(StatusCell)
      if (cell !== undefined) cell.record ??= record
      const mode = fiber.getRef(this.mode)
      if (mode === "bypass") {
        counters.bypassed++
        record.cache = "bypass"
        return next
      }
      const identity = record.identity ?? callerOf(fiber)
      const key = this.tool.keyOf(call.input, call.action, identity)
      if (key === undefined) {
        counters.uncacheable++
        record.cache = "bypass"
        return next
      }
      record.cacheKey = key
      if (mode === "refresh") {
        // Who asks for a new answer must not be given, nor have stored over it, one that was begun before.
        this.engine.flights.detach((flight) => flight.key === key)
        return this.#fly(key, new CachedCall(this, fiber, call, next, identity, undefined, true))
      }
      const landings = this.engine.landings
      const peek = store["~peek"]
      if (peek !== undefined) {
        const now = monotonicMillis(fiber)
        return this.#found(fiber, call, next, again, key, identity, landings, peek(key, now), now)
      }
      const found = (entry: Entry | undefined) =>
        this.#found(fiber, call, next, again, key, identity, landings, entry, monotonicMillis(fiber))
      return Effect.matchCauseEffect(store.get(key), {
        onSuccess: found,
        onFailure: (cause) => Effect.flatMap(this.engine.failed(cause), found)
      })
    })
  }

  #found<A, E, R>(
    fiber: Fiber.Fiber<unknown, unknown>,
    call: ToolCall.ToolCall,
    next: Effect.Effect<A, E, R>,
    again: ((call: ToolCall.ToolCall) => Effect.Effect<A, E, R>) | undefined,
    key: string,
    identity: Identity,
    landings: number,
    found: Entry | undefined,
    now: number
  ): Effect.Effect<A, E, R> {
    const { counters } = this.engine
    const entry = this.engine.check(found, key, now)
    if (entry === undefined) return this.#fly(key, new CachedCall(this, fiber, call, next, identity, landings))
    const late = now - entry.freshUntil
    if (late < 0) {
      const value = this.tool.codec.isPlain && this.engine.keepsObjects
        ? this.engine.recent.valueOf(entry, this.decode)
        : this.decode(entry.text)
      if (value === corrupt) return this.#fly(key, new CachedCall(this, fiber, call, next, identity, landings))
      counters.hits++
      call.record.cache = "hit"
      return Effect.succeed(value as A)
    }
    if (late < this.plan.revalidateMillis) {
      const value = this.decode(entry.text)
      if (value === corrupt) return this.#fly(key, new CachedCall(this, fiber, call, next, identity, landings))
      counters.stale++
      call.record.cache = "stale"
      return this.#revalidate(key, call, next, again, identity, value as A)
    }
    const flown = this.#fly<A, E, R>(key, new CachedCall(this, fiber, call, next, identity, landings))
    return this.plan.errorMillis === 0
      ? flown
      : Effect.catch(
        flown,
        (error) =>
          isUnavailable(error, this.policy.staleIf) ? this.#staleOr<A, E>(fiber, call, key, error) : Effect.fail(error)
      )
  }

  // Read again, long after the call began: the answer may be too old by now, or invalidated.
  #staleOr<A, E>(
    fiber: Fiber.Fiber<unknown, unknown>,
    call: ToolCall.ToolCall,
    key: string,
    error: E
  ): Effect.Effect<A, E> {
    const { engine } = this
    const read = Effect.catchCause(engine.store.get(key), (cause) => engine.failed(cause))
    return Effect.flatMap(read, (found) => {
      const now = monotonicMillis(fiber)
      const entry = engine.check(found, key, now)
      if (entry === undefined || now - entry.freshUntil >= this.plan.errorMillis) {
        return Effect.fail(error)
      }
      const value = this.decode(entry.text)
      if (value === corrupt) return Effect.fail(error)
      engine.counters.stale++
      call.record.cache = "stale"
      return Effect.succeed(value as A)
    })
  }

  #fly<A, E, R>(key: string, caller: CachedCall): Effect.Effect<A, E, R> {
    // Calls with one key have one tool and so one type of answer and of error, which the flights do not know.
    return this.engine.flights.join(key, caller)
  }

  // The fiber inherits the caller's context, so the refresh runs as the caller whose answer was past its time. It is a
  // call of its own: what becomes of it is not part of what that caller was told.
  #revalidate<A, E, R>(
    key: string,
    call: ToolCall.ToolCall,
    next: Effect.Effect<A, E, R>,
    again: ((call: ToolCall.ToolCall) => Effect.Effect<A, E, R>) | undefined,
    identity: Identity,
    value: A
  ): Effect.Effect<A, never, R> {
    const { counters, flights } = this.engine
    if (flights.byKey.has(key)) return Effect.succeed(value)
    const other = ToolCall.again(call)
    const refresh = Effect.withFiber((fiber) => {
      if (flights.byKey.has(key)) return Effect.void
      counters.refreshes++
      const run = again === undefined ? next : again(other)
      return this.#fly<A, E, R>(key, new CachedCall(this, fiber, other, run, identity, undefined))
    })
    // Nobody waits for it, so it may wait for everybody.
    const apart = Effect.provideService(Effect.catchCause(refresh, this.#refreshFailed), CurrentFlight, undefined)
    return Effect.as(Effect.forkIn(apart, this.scope), value)
  }

  // Nobody is told, so it is counted. A refresh that ends with the layer has not failed.
  readonly #refreshFailed = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
    Effect.sync(() => {
      if (!Cause.hasInterruptsOnly(cause)) this.engine.counters.failedRefreshes++
    })

  readonly decode = (text: string): unknown => {
    const value = this.tool.codec.decode(text)
    if (value === corrupt) this.engine.counters.corrupt++
    return value
  }
}
