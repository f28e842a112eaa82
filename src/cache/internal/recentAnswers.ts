import type { Entry } from "../CacheStore.ts"

// Answers that are asked for often are copied from a value that was parsed once, which takes a third of the time of
// parsing their text. There are few of them and they are small, so that what they take beside their texts is little.

const slots = 64
const maxText = 2048

/** An entry that stays the same object for as long as it is stored. */
export interface KeptEntry extends Entry {
  /** Whether it was asked for before, and when it was asked for twice, its copies. */
  "~asked"?: 1 | Copy | undefined
}

/** Makes a value of its own for each caller. */
type Copy = () => unknown

export class RecentAnswers {
  readonly #recent: Array<KeptEntry | undefined> = []
  #next = 0

  get size(): number {
    return this.#recent.length
  }

  /** Keeps nothing of answers that were forgotten. */
  clear(): void {
    for (const entry of this.#recent) if (entry !== undefined) entry["~asked"] = undefined
    this.#recent.length = 0
    this.#next = 0
  }

  /** The value of an entry, where `decode` gives what is in its text. */
  valueOf(entry: KeptEntry, decode: (text: string) => unknown): unknown {
    const asked = entry["~asked"]
    if (typeof asked === "function") return asked()
    const value = decode(entry.text)
    if (asked === undefined) entry["~asked"] = 1
    else if (entry.text.length <= maxText && isJson(value)) this.#keep(entry, decode(entry.text))
    return value
  }

  #keep(entry: KeptEntry, value: unknown): void {
    const slot = this.#next++ % slots
    const other = this.#recent[slot]
    // It may come back, after others.
    if (other !== undefined) other["~asked"] = undefined
    this.#recent[slot] = entry
    entry["~asked"] = copyOf(value)
  }
}

// Bytes are not, nor is the sign that a text is corrupt.
const isJson = (value: unknown): boolean =>
  typeof value === "object" && value !== null &&
  (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype)

// Nobody else has the value that is copied. A spread copies a member called `__proto__` like any other.
const copyOf = (value: unknown): Copy => {
  if (typeof value !== "object" || value === null) return () => value
  const nested: Array<readonly [name: string, copy: Copy]> = []
  for (const [name, member] of Object.entries(value)) {
    if (typeof member === "object" && member !== null) nested.push([name, copyOf(member)])
  }
  if (Array.isArray(value)) {
    return nested.length === 0 ? () => value.slice() : () => filled(value.slice(), nested)
  }
  return nested.length === 0 ? () => ({ ...value }) : () => filled({ ...value }, nested)
}

const filled = (
  copy: { [name: string]: unknown } | Array<unknown>,
  nested: ReadonlyArray<readonly [name: string, copy: Copy]>
): unknown => {
  const members = copy as { [name: string]: unknown }
  for (let i = 0; i < nested.length; i++) {
    const one = nested[i]!
    members[one[0]] = one[1]()
  }
  return copy
}
