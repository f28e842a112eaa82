import { type Chain, isNext, type Parsed, type Start } from "./auditChain.ts"

/**
 * What is wrong with the first bad line of a log.
 *
 * - `changed`: the log wrote a line here, and not this one.
 * - `missing`: lines that the log wrote are not there.
 * - `duplicated`: the log wrote the line once, at another place.
 * - `reordered`: the log wrote the line, and this one's place is further on.
 * - `truncated`: the log ends before the last line that its checkpoints speak of.
 * - `forged`: the line was not made with the key, and the log wrote none in its place. With a wrong key every line is.
 * - `spliced`: the line was made with the key, but follows other lines than those before it, or is not the one that a
 *   checkpoint speaks of: it comes from another course of this log, or from another log.
 * - `torn`: the last line has no end. A crash leaves that, and the next start puts it right.
 * - `empty`: there is no line at all. Nothing was ever recorded, or everything is gone.
 *
 * @category models
 * @since 0.1.0
 */
export type Problem =
  | "changed"
  | "missing"
  | "duplicated"
  | "reordered"
  | "truncated"
  | "forged"
  | "spliced"
  | "torn"
  | "empty"

/** Where a line is: lines are counted from 1 in each file. */
export interface Place {
  readonly path: string
  readonly line: number
}

interface Bad {
  readonly place: Place
  readonly parsed: Parsed | undefined
  readonly isGenuine: boolean
}

/**
 * Follows a chain, and from its first bad line on looks for what tells how that came about. To do so it holds that line's
 * numbers and a few answers, nothing of the lines in between.
 */
export class Diagnosis {
  readonly #chain: Chain
  readonly #onGood: (head: Parsed, place: Place, line: Uint8Array) => void
  #head: Start
  #bad: Bad | undefined
  // What has come after the bad line.
  #isExpectedLater = false
  #isSameLater = false
  #firstGenuine: Parsed | undefined
  #isFollowedByFake = false
  #after = 0
  lines = 0

  constructor(
    chain: Chain,
    after: Start,
    onGood: (head: Parsed, place: Place, line: Uint8Array) => void
  ) {
    this.#chain = chain
    this.#head = after
    this.#onGood = onGood
  }

  /** The number of the last good line. */
  get seq(): number {
    return this.#head.seq
  }

  get badPlace(): Place | undefined {
    return this.#bad?.place
  }

  push(line: Uint8Array, isWhole: boolean, place: Place): void {
    const parsed = isWhole ? this.#chain.parse(line) : undefined
    const isGenuine = parsed !== undefined && this.#chain.isGenuine(line, parsed)
    if (this.#bad !== undefined) return this.#lookOn(this.#bad, parsed, isGenuine)
    if (isGenuine && this.#isNext(parsed)) {
      this.#head = { seq: parsed.seq, mac: parsed.mac }
      this.lines++
      this.#onGood(parsed, place, line)
    } else this.#bad = { place, parsed, isGenuine }
  }

  /** What is wrong with the first bad line, when there is one. `spokenOf` is the last line that is known to have been written. */
  problem(spokenOf: number): Problem | undefined {
    if (this.#bad === undefined) return undefined
    const { isGenuine, parsed } = this.#bad
    const expected = this.#head.seq + 1
    if (isGenuine && parsed !== undefined) {
      if (parsed.seq < expected) return "duplicated"
      if (parsed.seq === expected) return "spliced"
      if (!this.#isExpectedLater) return "missing"
      return this.#isSameLater ? "duplicated" : "reordered"
    }
    const wasInserted = this.#firstGenuine !== undefined && this.#isNext(this.#firstGenuine)
    if (wasInserted || this.#isFollowedByFake) return "forged"
    const wasWritten = this.#firstGenuine !== undefined || spokenOf >= expected
    return wasWritten || parsed === undefined ? "changed" : "forged"
  }

  #isNext(parsed: Parsed): boolean {
    return isNext(this.#head, parsed)
  }

  #lookOn(bad: Bad, parsed: Parsed | undefined, isGenuine: boolean): void {
    this.#after++
    if (parsed === undefined) return
    if (isGenuine) {
      this.#firstGenuine ??= parsed
      if (this.#isNext(parsed)) this.#isExpectedLater = true
      if (parsed.seq === bad.parsed?.seq) this.#isSameLater = true
    } else if (this.#after === 1 && bad.parsed !== undefined) {
      // Who changes a line leaves the next one as it is. Who goes on to fit the next one to it does not have the key.
      this.#isFollowedByFake = parsed.prev === bad.parsed.mac && parsed.seq === bad.parsed.seq + 1
    }
  }
}
