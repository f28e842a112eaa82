import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { monotonicMillis } from "../../internal/monotonic.ts"

/** The ids that go by each name. More than one is for the caller to refuse. */
export type Ids = ReadonlyMap<string, ReadonlyArray<string>>

interface Kept {
  readonly ids: Ids
  readonly loadedAt: number
  /** How many loads had ended with this one. */
  readonly turn: number
}

/** Lists of names, by what they are lists of. */
export interface Catalogue<E> {
  /** How many loads have ended so far. */
  readonly turn: () => number
  /** The ids of a name in a list. With `since`, a turn, what was loaded after it counts and nothing else. */
  readonly find: (list: string, name: string, since?: number) => Effect.Effect<ReadonlyArray<string>, E>
}

const maxLists = 1000

/**
 * Remembers lists for a while. They are loaded one after the other, and whoever waited for one uses it. A name that is not
 * in a list that was remembered is looked for once more.
 */
export const makeCatalogue = <E>(
  ttlMillis: number,
  load: (list: string) => Effect.Effect<Ids, E>
): Catalogue<E> => {
  const kept = new Map<string, Kept>()
  const one = Semaphore.makeUnsafe(1)
  let turn = 0

  const reload = (list: string, since: number): Effect.Effect<Ids, E> =>
    Semaphore.withPermit(
      one,
      Effect.withFiber((fiber) => {
        const other = kept.get(list)
        if (other !== undefined && other.turn > since) return Effect.succeed(other.ids)
        return Effect.map(load(list), (ids) => {
          kept.delete(list)
          const oldest = kept.keys().next()
          if (kept.size >= maxLists && oldest.done !== true) kept.delete(oldest.value)
          kept.set(list, { ids, loadedAt: monotonicMillis(fiber), turn: ++turn })
          return ids
        })
      })
    )

  return {
    turn: () => turn,
    find: (list, name, since) =>
      Effect.withFiber((fiber) => {
        const known = kept.get(list)
        const counts = known !== undefined &&
          (since === undefined ? monotonicMillis(fiber) < known.loadedAt + ttlMillis : known.turn > since)
        const ids = counts ? known.ids.get(name) : undefined
        if (ids !== undefined) return Effect.succeed(ids)
        if (counts && since !== undefined) return Effect.succeed([])
        return Effect.map(reload(list, turn), (all) => all.get(name) ?? [])
      })
  }
}
