import * as Effect from "effect/Effect"
import { monotonicMillis } from "../../internal/monotonic.ts"
import type { CacheError } from "../CacheError.ts"
import type { Change, Entry, Flight, NewEntry, Store, StoreStats } from "../CacheStore.ts"
import { makeMemoryStore, type MemoryOptions } from "./memoryStore.ts"

/** How soon a lost subscription is begun again. */
const relistenMillis = 100

// Entries that came from a store which did not say how they are labelled. Any invalidation may be about them.
const unlabelled = "unlabelled"

/** Both stores' marks. Without `back`, the back store was not there when the execution began. */
interface Mark {
  readonly front: unknown
  readonly back: { readonly mark: unknown } | undefined
}

export class TieredStore implements Store {
  readonly name = "tiered"
  readonly #front: Store
  readonly #back: Store
  readonly #l1Millis: number
  readonly flight: Store["flight"]

  constructor(where: string, back: Store, bounds: MemoryOptions, l1Millis: number) {
    this.#front = makeMemoryStore(where, bounds)
    this.#back = back
    this.#l1Millis = l1Millis
    this.flight = back.flight === undefined ? undefined : (key, onLead) => this.#flight(key, onLead)
  }

  /** Forgets in memory what others make the back store forget. What was missed between two subscriptions is unknown. */
  get listen(): Effect.Effect<void> {
    const back = this.#back
    if (back.changes === undefined) return Effect.void
    const listening = Effect.andThen(
      Effect.ignoreCause(this.#front.clear),
      Effect.suspend(() => back.changes!((change) => this.#changed(change)))
    )
    return Effect.forever(Effect.andThen(Effect.ignoreCause(listening), Effect.sleep(relistenMillis)))
  }

  get(key: string): Effect.Effect<Entry | undefined, CacheError> {
    return Effect.flatMap(
      this.#front.get(key),
      (found) => found === undefined ? this.#fetch(key) : Effect.succeed(found)
    )
  }

  set(key: string, entry: NewEntry): Effect.Effect<void, CacheError> {
    const mark = isMark(entry.mark) ? entry.mark : { front: undefined, back: { mark: undefined } }
    const front = this.#front.set(key, {
      ...entry,
      keepMillis: Math.min(entry.keepMillis, this.#l1Millis),
      freshMillis: Math.min(entry.freshMillis, this.#l1Millis),
      mark: mark.front
    })
    return mark.back === undefined
      ? front
      : Effect.andThen(front, this.#back.set(key, { ...entry, mark: mark.back.mark }))
  }

  remove(key: string): Effect.Effect<void, CacheError> {
    return Effect.andThen(this.#front.remove(key), this.#back.remove(key))
  }

  invalidate(labels: ReadonlyArray<string>): Effect.Effect<void, CacheError> {
    return Effect.andThen(this.#front.invalidate([...labels, unlabelled]), this.#back.invalidate(labels))
  }

  get clear(): Effect.Effect<void, CacheError> {
    return Effect.andThen(this.#front.clear, this.#back.clear)
  }

  get mark(): Effect.Effect<Mark, CacheError> {
    const back: Effect.Effect<Mark["back"]> = this.#back.mark === undefined
      ? Effect.succeed({ mark: undefined })
      : Effect.catchCause(Effect.map(this.#back.mark, (mark) => ({ mark })), () => Effect.undefined)
    return Effect.flatMap(this.#frontMark, (front) => Effect.map(back, (taken) => ({ front, back: taken })))
  }

  get stats(): Effect.Effect<StoreStats, CacheError> {
    return Effect.flatMap(this.#front.stats, (front) =>
      Effect.map(
        Effect.orElseSucceed(this.#back.stats, (): StoreStats => ({
          store: this.#back.name,
          entries: undefined,
          bytes: undefined,
          evictions: 0,
          errors: 1
        })),
        (back): StoreStats => ({
          store: this.name,
          entries: undefined,
          bytes: undefined,
          evictions: front.evictions + back.evictions,
          errors: front.errors + back.errors,
          tiers: [front, back]
        })
      ))
  }

  get #frontMark(): Effect.Effect<unknown, CacheError> {
    return this.#front.mark ?? Effect.undefined
  }

  #flight(key: string, onLead: (release: Effect.Effect<void>) => void): Effect.Effect<Flight, CacheError> {
    return Effect.flatMap(this.#frontMark, (front) =>
      Effect.map(
        this.#back.flight!(key, onLead),
        (flight): Flight =>
          flight._tag === "landed"
            ? flight
            : { _tag: "lead", mark: { front, back: { mark: flight.mark } } satisfies Mark }
      ))
  }

  // The mark is from before the read: what is invalidated while the answer travels is not put into memory.
  #fetch(key: string): Effect.Effect<Entry | undefined, CacheError> {
    return Effect.flatMap(
      this.#frontMark,
      (mark) =>
        Effect.flatMap(
          this.#back.get(key),
          (found) =>
            found === undefined ? Effect.undefined : Effect.withFiber((fiber) => {
              const now = monotonicMillis(fiber)
              const kept = this.#front.set(key, {
                text: found.text,
                freshMillis: Math.min(found.freshUntil - now, this.#l1Millis),
                keepMillis: Math.min(found.keepUntil - now, this.#l1Millis),
                labels: found.labels ?? [unlabelled],
                mark
              })
              return found.key === key ? Effect.as(kept, found) : Effect.succeed(found)
            })
        )
    )
  }

  #changed(change: Change): void {
    const forgotten = change._tag === "labels"
      ? this.#front.invalidate([...change.labels, unlabelled])
      : change._tag === "key"
      ? this.#front.remove(change.key)
      : this.#front.clear
    // Memory does it at once and cannot fail.
    Effect.runSync(Effect.ignoreCause(forgotten))
  }
}

const isMark = (mark: unknown): mark is Mark => typeof mark === "object" && mark !== null && "front" in mark
