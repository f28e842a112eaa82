/**
 * What a breaker remembers of the calls that it has seen: failures in a row, the last so many calls, or the calls of the
 * last so much time.
 *
 * A window is an immutable value. Recording a call makes another, which shares what it can with the one before: a count
 * window copies its ring once in 32 calls, a time window its buckets once in a bucket's time.
 *
 * @since 0.1.0
 */

/** @internal What a window holds at one instant. */
export interface Counts {
  readonly calls: number
  readonly failures: number
  readonly slow: number
}

/** @internal `now` is in milliseconds of a monotonic clock. */
export interface Window {
  /** Whether what is recorded speaks for opening the circuit. */
  readonly trips: boolean
  readonly record: (isFailure: boolean, isSlow: boolean, now: number) => Window
  readonly counts: (now: number) => Counts
}

/** @internal When a rate is too high. A rate above 1 is never reached. */
export interface Rates {
  readonly failureRate: number
  readonly slowRate: number
  readonly minimumCalls: number
}

const exceeds = (rates: Rates, calls: number, failures: number, slow: number): boolean =>
  calls >= rates.minimumCalls && (failures / calls >= rates.failureRate || slow / calls >= rates.slowRate)

/** @internal Failures in a row. */
export class ConsecutiveWindow implements Window {
  private readonly maxFailures: number
  private readonly failures: number
  private readonly empty: ConsecutiveWindow

  constructor(maxFailures: number, failures = 0, empty?: ConsecutiveWindow) {
    this.maxFailures = maxFailures
    this.failures = failures
    this.empty = empty ?? this
  }

  get trips(): boolean {
    return this.failures >= this.maxFailures
  }

  record(isFailure: boolean): Window {
    return isFailure ? new ConsecutiveWindow(this.maxFailures, this.failures + 1, this.empty) : this.empty
  }

  counts(): Counts {
    return { calls: this.failures, failures: this.failures, slow: 0 }
  }
}

/** One bit for each call of the ring, 32 in a word. The word at the cursor is kept aside until the cursor leaves it. */
interface Ring {
  readonly words: ReadonlyArray<number>
  readonly word: number
  readonly set: number
}

const bitOf = (ring: Ring, cursor: number): number => (ring.word >>> (cursor & 31)) & 1

const write = (ring: Ring, cursor: number, next: number, isSet: boolean): Ring => {
  const mask = 1 << (cursor & 31)
  const word = isSet ? ring.word | mask : ring.word & ~mask
  const set = ring.set - bitOf(ring, cursor) + (isSet ? 1 : 0)
  if (next === cursor + 1 && (next & 31) !== 0) return { words: ring.words, word, set }
  const words = ring.words.slice()
  words[cursor >>> 5] = word
  return { words, word: words[next >>> 5]!, set }
}

/** @internal The last `size` calls. */
export class CountWindow implements Window {
  private readonly rates: Rates
  private readonly size: number
  private readonly calls: number
  private readonly cursor: number
  private readonly failures: Ring
  private readonly slow: Ring

  constructor(rates: Rates, size: number, calls: number, cursor: number, failures: Ring, slow: Ring) {
    this.rates = rates
    this.size = size
    this.calls = calls
    this.cursor = cursor
    this.failures = failures
    this.slow = slow
  }

  static empty(rates: Rates, size: number): CountWindow {
    const ring: Ring = { words: Array.from({ length: (size + 31) >>> 5 }, () => 0), word: 0, set: 0 }
    return new CountWindow(rates, size, 0, 0, ring, ring)
  }

  get trips(): boolean {
    return exceeds(this.rates, this.calls, this.failures.set, this.slow.set)
  }

  record(isFailure: boolean, isSlow: boolean): Window {
    const cursor = this.cursor
    const next = cursor + 1 === this.size ? 0 : cursor + 1
    const failures = write(this.failures, cursor, next, isFailure)
    // A ring without slow calls that gets none stays as it is, which spares those who do not look for them.
    const slow = !isSlow && this.slow.set === 0 ? this.slow : write(this.slow, cursor, next, isSlow)
    const calls = this.calls === this.size ? this.size : this.calls + 1
    return new CountWindow(this.rates, this.size, calls, next, failures, slow)
  }

  counts(): Counts {
    return { calls: this.calls, failures: this.failures.set, slow: this.slow.set }
  }
}

/** The calls of one stretch of time. `index` numbers the stretches since the clock's origin. */
interface Bucket extends Counts {
  readonly index: number
}

/** @internal How time is cut. The window is `buckets` stretches long, the running one included. */
export interface Stretches {
  readonly bucketMillis: number
  readonly buckets: number
}

const none: Counts = { calls: 0, failures: 0, slow: 0 }

const sum = (buckets: ReadonlyArray<Bucket>): Counts => {
  let calls = 0
  let failures = 0
  let slow = 0
  for (const bucket of buckets) {
    calls += bucket.calls
    failures += bucket.failures
    slow += bucket.slow
  }
  return { calls, failures, slow }
}

/** @internal The calls of the last so much time. */
export class TimeWindow implements Window {
  private readonly rates: Rates
  private readonly stretches: Stretches
  private readonly past: ReadonlyArray<Bucket>
  /** The sum of `past`. */
  private readonly before: Counts
  private readonly current: Bucket

  constructor(rates: Rates, stretches: Stretches, past: ReadonlyArray<Bucket>, before: Counts, current: Bucket) {
    this.rates = rates
    this.stretches = stretches
    this.past = past
    this.before = before
    this.current = current
  }

  static empty(rates: Rates, stretches: Stretches): TimeWindow {
    return new TimeWindow(rates, stretches, [], none, { index: -Infinity, ...none })
  }

  get trips(): boolean {
    const { before, current } = this
    return exceeds(
      this.rates,
      before.calls + current.calls,
      before.failures + current.failures,
      before.slow + current.slow
    )
  }

  record(isFailure: boolean, isSlow: boolean, now: number): Window {
    const at = this.at(now)
    const { calls, failures, index, slow } = at.current
    return new TimeWindow(at.rates, at.stretches, at.past, at.before, {
      index,
      calls: calls + 1,
      failures: isFailure ? failures + 1 : failures,
      slow: isSlow ? slow + 1 : slow
    })
  }

  counts(now: number): Counts {
    const { before, current } = this.at(now)
    return {
      calls: before.calls + current.calls,
      failures: before.failures + current.failures,
      slow: before.slow + current.slow
    }
  }

  /** The window as it is at `now`: a new stretch begun, and what has become too old left out. */
  private at(now: number): TimeWindow {
    const index = Math.floor(now / this.stretches.bucketMillis)
    if (index <= this.current.index) return this
    const oldest = index - this.stretches.buckets + 1
    const past = [...this.past, this.current].filter((bucket) => bucket.index >= oldest)
    return new TimeWindow(this.rates, this.stretches, past, sum(past), { index, ...none })
  }
}
