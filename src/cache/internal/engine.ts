import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { anonymous, CurrentIdentity, type Identity } from "../../auth/Identity.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { CacheError } from "../CacheError.ts"
import * as CacheKey from "../CacheKey.ts"
import type { Entry, Store } from "../CacheStore.ts"
import { Flights } from "./flights.ts"
import type { Flight } from "./flights.ts"
import * as Labels from "./labels.ts"
import { RecentAnswers } from "./recentAnswers.ts"
import { type ResultCodec, resultCodec } from "./resultCodec.ts"

/** What the cache needs to know of one tool, computed once. */
export interface ToolEntry {
  readonly keyOf: CacheKey.KeyOf
  readonly codec: ResultCodec
  readonly labelsOf: ReturnType<typeof Labels.forTool>
}

/** Documented as `ToolCache.Stats`. */
export class Counters {
  hits = 0
  misses = 0
  stale = 0
  coalesced = 0
  bypassed = 0
  refreshes = 0
  failedRefreshes = 0
  uncacheable = 0
  unstored = 0
  corrupt = 0
  errors = 0
}

/** The state that the cache stage and the `ToolCache` service share. */
export class Engine {
  readonly store: Store
  readonly counters = new Counters()
  readonly flights = new Flights()
  readonly recent = new RecentAnswers()
  /** An entry is the same object each time it is read. */
  readonly keepsObjects: boolean
  /** How many answers have been stored. A caller that finds it changed since it looked for an answer looks again. */
  landings = 0
  readonly #tools = new WeakMap<ToolMeta, ToolEntry>()
  readonly clear: Effect.Effect<void, CacheError>

  constructor(store: Store) {
    this.store = store
    this.keepsObjects = store["~peek"] !== undefined
    this.clear = Effect.suspend(() => {
      this.flights.detach(() => true)
      this.recent.clear()
      return store.clear
    })
  }

  forTool(tool: ToolMeta): ToolEntry {
    let entry = this.#tools.get(tool)
    if (entry === undefined) {
      entry = { keyOf: CacheKey.forTool(tool), codec: resultCodec(tool), labelsOf: Labels.forTool(tool) }
      this.#tools.set(tool, entry)
    }
    return entry
  }

  /** The entry if it is what was asked for and its time is not over. `now` is the monotonic clock's. */
  check(entry: Entry | undefined, key: string, now: number): Entry | undefined {
    if (entry === undefined) return undefined
    if (entry.key !== key || typeof entry.text !== "string" || !(entry.freshUntil <= entry.keepUntil)) {
      this.counters.corrupt++
      return undefined
    }
    return entry.keepUntil > now ? entry : undefined
  }

  /** The store's failure as a call sees it: nothing was found, and it is counted. */
  failed(_cause: Cause.Cause<unknown>): Effect.Effect<undefined> {
    this.counters.errors++
    return nothing
  }

  remove(key: string): Effect.Effect<void, CacheError> {
    return Effect.suspend(() => {
      this.flights.detach((flight) => flight.key === key)
      this.recent.clear()
      return this.store.remove(key)
    })
  }

  invalidate(labels: ReadonlyArray<string>): Effect.Effect<void, CacheError> {
    return Effect.suspend(() => {
      if (labels.length === 0) return Effect.void
      // The tags of an answer are known when the answer is, so a flight that may get tags has to be taken for affected.
      const hasTag = labels.some((label) => label.startsWith("tag:"))
      const isAffected = (flight: Flight): boolean =>
        (hasTag && flight.hasTags) || flight.labels.some((label) => labels.includes(label))
      this.flights.detach(isAffected)
      this.recent.clear()
      return this.store.invalidate(labels)
    })
  }
}

/** The caller of the call that a fiber is running. */
export const callerOf = (fiber: Fiber.Fiber<unknown, unknown>): Identity =>
  Context.getOrUndefined(fiber.context, CurrentIdentity) ?? anonymous

const nothing: Effect.Effect<undefined> = Effect.succeed(undefined)
