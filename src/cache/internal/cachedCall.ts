import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type { Identity } from "../../auth/Identity.ts"
import type { CallRecord } from "../../CallRecord.ts"
import { monotonicMillis } from "../../internal/monotonic.ts"
import * as Check from "../../internal/options.ts"
import type { ToolCall } from "../../ToolCall.ts"
import { isCacheKey } from "../CacheKey.ts"
import type { Flight as SharedFlight } from "../CacheStore.ts"
import type { CachedPath } from "./cachedPath.ts"
import { type Caller, CurrentFlight, type Flight } from "./flights.ts"
import * as Labels from "./labels.ts"
import { corrupt, utf8Bytes } from "./resultCodec.ts"

/** Most tags of one answer. */
const maxTags = 64

/** One call that was not answered from the store. */
export class CachedCall implements Caller {
  readonly path: CachedPath
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly call: ToolCall
  readonly next: Effect.Effect<unknown, unknown, unknown>
  readonly identity: Identity
  readonly landings: number | undefined
  readonly isForced: boolean

  constructor(
    path: CachedPath,
    fiber: Fiber.Fiber<unknown, unknown>,
    call: ToolCall,
    next: Effect.Effect<unknown, unknown, unknown>,
    identity: Identity,
    landings: number | undefined,
    isForced = false
  ) {
    this.path = path
    this.fiber = fiber
    this.call = call
    this.next = next
    this.identity = identity
    this.landings = landings
    this.isForced = isForced
  }

  get record(): CallRecord {
    return this.call.record
  }

  get labels(): ReadonlyArray<string> {
    return this.path.tool.labelsOf(this.identity)
  }

  get hasTags(): boolean {
    return this.path.policy.tags !== undefined
  }

  get within(): Flight | undefined {
    return this.fiber.getRef(CurrentFlight)
  }

  lead(flight: Flight): Effect.Effect<unknown, unknown, unknown> {
    const { engine } = this.path
    // Between the look-up and the lead somebody may have stored the answer.
    return this.landings === undefined || this.landings === engine.landings
      ? this.#acrossProcesses(flight)
      : this.#lookAgain(flight, () => this.#acrossProcesses(flight))
  }

  share(text: string): Effect.Effect<unknown, unknown, unknown> {
    const value = this.path.decode(text)
    if (value === corrupt) return this.alone
    this.path.engine.counters.coalesced++
    this.record.cache = "coalesced"
    return Effect.succeed(value)
  }

  fail(cause: Cause.Cause<unknown>, leader: CallRecord | undefined): Effect.Effect<never, unknown> {
    this.path.engine.counters.coalesced++
    this.record.cache = "coalesced"
    // The refusal is this call's as much as the leader's.
    if (leader !== undefined) {
      this.record.refusedBy = leader.refusedBy
      this.record.refusedAs = leader.refusedAs
      this.record.dependency = leader.dependency
    }
    return Effect.failCause(cause)
  }

  get alone(): Effect.Effect<unknown, unknown, unknown> {
    return Effect.suspend(() => {
      this.#missed()
      return this.next
    })
  }

  #missed(): void {
    this.path.engine.counters.misses++
    this.record.cache = "miss"
  }

  #lookAgain(flight: Flight, otherwise: () => Effect.Effect<unknown, unknown, unknown>) {
    const { engine } = this.path
    return Effect.flatMap(
      Effect.catchCause(engine.store.get(flight.key), (cause) => engine.failed(cause)),
      (found) => {
        const now = monotonicMillis(this.fiber)
        const entry = engine.check(found, flight.key, now)
        if (entry === undefined || entry.freshUntil <= now) return otherwise()
        const value = this.path.decode(entry.text)
        if (value === corrupt) return otherwise()
        engine.flights.publish(flight, entry.text)
        engine.counters.hits++
        this.record.cache = "hit"
        return Effect.succeed(value)
      }
    )
  }

  #acrossProcesses(flight: Flight): Effect.Effect<unknown, unknown, unknown> {
    const { engine } = this.path
    const { store } = engine
    // Who forces a new answer would be told that there is one.
    if (store.flight === undefined || this.isForced) return this.#mark(flight)
    return Effect.suspend(() => {
      let release: Effect.Effect<void> | undefined = undefined
      const joined: Effect.Effect<SharedFlight | undefined> = Effect.catchCause(
        store.flight!(flight.key, (giveBack) => {
          release = giveBack
        }),
        (cause) => engine.failed(cause)
      )
      const led = Effect.flatMap(joined, (answer) => {
        if (answer === undefined) return this.#mark(flight)
        return answer._tag === "lead"
          ? this.#run(flight, answer.mark, true)
          : this.#lookAgain(flight, () => this.#mark(flight))
      })
      return Effect.onExitPrimitive(led, () => release)
    })
  }

  #mark(flight: Flight): Effect.Effect<unknown, unknown, unknown> {
    const { engine } = this.path
    if (engine.store.mark === undefined) return this.#run(flight, undefined, true)
    return Effect.matchCauseEffect(engine.store.mark, {
      onSuccess: (mark) => this.#run(flight, mark, true),
      // Without a mark nobody knows whether the answer is older than an invalidation.
      onFailure: (cause) => Effect.flatMap(engine.failed(cause), () => this.#run(flight, undefined, false))
    })
  }

  #run(flight: Flight, mark: unknown, mayStore: boolean): Effect.Effect<unknown, unknown, unknown> {
    this.#missed()
    const run = Effect.provideService(this.next, CurrentFlight, flight)
    return Effect.flatMap(run, (value) => this.#answered(flight, value, mark, mayStore))
  }

  #answered(flight: Flight, value: unknown, mark: unknown, mayStore: boolean): Effect.Effect<unknown> {
    const { engine, plan, tool } = this.path
    const text = tool.codec.encode(value)
    const ttl = text === undefined || has(value, "resultType", "input_required") ? 0 : this.#ttlOf(value)
    if (text === undefined || ttl === 0) {
      engine.counters.unstored++
      return Effect.succeed(value)
    }
    engine.flights.publish(flight, text)
    const tags = this.#tagsOf(value)
    // A tool that reports an error as its result (MCP `isError`) has failed.
    const isKept = mayStore && ttl !== undefined && tags !== undefined && !has(value, "isError", true) &&
      utf8Bytes(text, plan.maxEntryBytes) <= plan.maxEntryBytes
    if (!isKept) engine.counters.unstored++
    if (!isKept || flight.detached) return Effect.succeed(value)
    const freshMillis = ttl * (1 - plan.jitter * this.fiber.getRef(Random.Random).nextDoubleUnsafe())
    const keepMillis = freshMillis + Math.max(plan.revalidateMillis, plan.errorMillis)
    const labels = tags.length === 0 ? flight.labels : [...flight.labels, ...tags]
    return Effect.matchCauseEffect(engine.store.set(flight.key, { text, freshMillis, keepMillis, labels, mark }), {
      onSuccess: () => {
        engine.landings++
        return Effect.succeed(value)
      },
      onFailure: (cause) => Effect.as(engine.failed(cause), value)
    })
  }

  /** How long the answer is fresh. 0: it is for this call alone. `undefined`: the tool's policy made no sense. */
  #ttlOf(value: unknown): number | undefined {
    const { engine, plan, policy } = this.path
    if (policy.ttlOf === undefined) return plan.ttlMillis
    try {
      const own = policy.ttlOf(value)
      if (own === undefined) return plan.ttlMillis
      const millis = Check.millis("ttlOf", "result", own, { allowZero: true, allowInfinite: true })
      return Math.min(millis, plan.maxTtlMillis)
    } catch {
      engine.counters.errors++
      return undefined
    }
  }

  /** The labels of the answer's tags, or `undefined` when there are tags that it could not be invalidated by. */
  #tagsOf(value: unknown): ReadonlyArray<string> | undefined {
    const { engine, policy } = this.path
    if (policy.tags === undefined) return noLabels
    try {
      const tags = policy.tags(this.call, value)
      if (tags.length <= maxTags && tags.every(isCacheKey)) return tags.map(Labels.tag)
    } catch {
      // Counted below like tags that cannot be used.
    }
    engine.counters.errors++
    return undefined
  }
}

const noLabels: ReadonlyArray<string> = []

const has = (value: unknown, name: string, expected: unknown): boolean => {
  try {
    return typeof value === "object" && value !== null &&
      (value as { readonly [name: string]: unknown })[name] === expected
  } catch {
    // An accessor that throws says nothing.
    return false
  }
}
