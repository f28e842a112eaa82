/** A seeded source of random numbers (mulberry32), so that a failing sequence can be run again. */
export interface Random {
  /** A number from 0 up to 1. */
  readonly next: () => number
  /** A whole number from 0 up to `bound`. */
  readonly below: (bound: number) => number
  readonly pick: <A>(values: ReadonlyArray<A>) => A
}

export const make = (seed: number): Random => {
  let state = seed | 0
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = (bound: number) => Math.floor(next() * bound)
  return { next, below, pick: (values) => values[below(values.length)]! }
}
