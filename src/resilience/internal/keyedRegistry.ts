/**
 * Parts by key, a bounded number of them.
 *
 * When the registry is full, one that is idle and has not been used for a while makes place. Those that are not idle stay:
 * an open circuit that was forgotten would be a closed one. A look for one to forget is short, and the next goes on where it
 * stopped: keys may come from callers, who must not make a full registry dear.
 *
 * @since 0.1.0
 */

/** @internal What a registry keeps. */
export interface Entry {
  readonly key: string
  /** Set at every use, cleared by a registry that looks for an entry to forget. */
  isUsed: boolean
  /** Set when the registry has forgotten the entry: whoever kept it must ask again. */
  isForgotten: boolean
  readonly isIdle: () => boolean
}

const stepsPerLook = 64

/** @internal */
export class KeyedRegistry<E extends Entry> {
  private readonly maxKeys: number
  readonly make: (key: string) => E
  private readonly entries = new Map<string, E>()
  private hand: Iterator<E> = this.entries.values()

  constructor(maxKeys: number, make: (key: string) => E) {
    this.maxKeys = maxKeys
    this.make = make
  }

  values(): Iterable<E> {
    return this.entries.values()
  }

  peek(key: string): E | undefined {
    return this.entries.get(key)
  }

  /** The entry of `key`, made if need be. None where the registry is full and no other was found that is idle. */
  keep(key: string): E | undefined {
    const known = this.entries.get(key)
    if (known !== undefined) return known
    if (this.entries.size >= this.maxKeys && !this.forgetOne()) return undefined
    const entry = this.make(key)
    this.entries.set(key, entry)
    return entry
  }

  // A hand goes round the entries. It clears the mark of those that were used since it last came by and takes the first
  // that is idle and unmarked, so twice round is always enough.
  private forgetOne(): boolean {
    for (let left = Math.min(stepsPerLook, 2 * this.entries.size); left > 0;) {
      const step = this.hand.next()
      if (step.done === true) {
        this.hand = this.entries.values()
        continue
      }
      left -= 1
      const entry = step.value
      if (entry.isUsed) entry.isUsed = false
      else if (entry.isIdle()) {
        entry.isForgotten = true
        this.entries.delete(entry.key)
        return true
      }
    }
    return false
  }
}
