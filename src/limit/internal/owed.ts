import type { Take } from "../RateLimitStore.ts"

// What this process has granted while Redis did not answer, and Redis does not know yet. It is sent along with the next
// call of the same caller. What time has given back by then is owed no more.

/** What is owed of one bucket: no more than `amount`, and nothing any more at `until`, both in milliseconds. */
export interface Debt {
  amount: number
  until: number
  readonly spanMillis: number
}

// How many debts are looked at per new one, so that those nobody asks for again go away.
const sweepSteps = 2

export class Owed {
  readonly #debts = new Map<string, Debt>()
  readonly #maxKeys: number

  constructor(maxKeys: number) {
    this.#maxKeys = maxKeys
  }

  /** Notes what a take has just spent here. */
  add({ cost, key, resetAfterMillis, shape }: Take, now: number): void {
    this.#sweep(now)
    this.#add(key.text, {
      amount: cost * shape.intervalMillis,
      until: now + resetAfterMillis,
      spanMillis: shape.spanMillis
    })
  }

  /** Notes that `amount` of it has been given back. */
  giveBack(take: Take, amount: number): void {
    const debt = this.#debts.get(take.key.text)
    if (debt === undefined) return
    debt.amount -= amount
    debt.until -= amount
    if (debt.amount <= 0) this.#debts.delete(take.key.text)
  }

  /** For how many milliseconds more a bucket would not be full if what is owed of it were known. */
  of({ key }: Take, now: number): number {
    const debt = this.#debts.size === 0 ? undefined : this.#debts.get(key.text)
    return debt === undefined ? 0 : Math.max(0, Math.min(debt.amount, debt.until - now))
  }

  /** Takes out what is owed of the buckets of one call, in their order, for as long as it is on its way. */
  collect(takes: ReadonlyArray<Take>, now: number): ReadonlyArray<Debt | undefined> | undefined {
    if (this.#debts.size === 0) return undefined
    let found: Array<Debt | undefined> | undefined
    for (let i = 0; i < takes.length; i++) {
      const { key, shape } = takes[i]!
      const debt = this.#debts.get(key.text)
      if (debt === undefined) continue
      this.#debts.delete(key.text)
      if (debt.until <= now) continue
      found ??= takes.map(() => undefined)
      found[i] = rescaled(debt, shape.spanMillis, now)
    }
    return found
  }

  /** Notes that what was collected has not arrived. */
  putBack(takes: ReadonlyArray<Take>, debts: ReadonlyArray<Debt | undefined>): void {
    for (let i = 0; i < takes.length; i++) {
      const debt = debts[i]
      if (debt !== undefined) this.#add(takes[i]!.key.text, debt)
    }
  }

  #add(key: string, debt: Debt): void {
    const known = this.#debts.get(key)
    if (known !== undefined && known.spanMillis === debt.spanMillis) {
      known.amount += debt.amount
      known.until = Math.max(known.until, debt.until)
    } else if (known !== undefined || this.#debts.size < this.#maxKeys) this.#debts.set(key, debt)
  }

  #sweep(now: number): void {
    let left = sweepSteps
    for (const [key, debt] of this.#debts) {
      if (left-- === 0) return
      this.#debts.delete(key)
      // To the end, so that the next ones are looked at next time.
      if (debt.until > now) this.#debts.set(key, debt)
    }
  }
}

// The limit has changed in between: what is owed stays the same part of it.
const rescaled = (debt: Debt, spanMillis: number, now: number): Debt => {
  const factor = spanMillis / debt.spanMillis
  return factor === 1
    ? debt
    : { amount: debt.amount * factor, until: now + (debt.until - now) * factor, spanMillis }
}
