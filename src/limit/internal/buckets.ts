import type { BucketKey, BucketShape, Take } from "../RateLimitStore.ts"
import type { Owed } from "./owed.ts"

// All buckets of one process. A bucket is one number, the moment at which it is full again, in a dense array; a map
// leads from its key to its place. Nothing here waits, so one call of `consume` is one atomic step.

/** What stands for a refusal where a wait is expected. */
export const refused = -1

// Sums of floating point milliseconds are a little off. What is off by less than this counts as equal; a real clock
// does not tell such moments apart.
const tolerance = 1e-4

// How many buckets are looked at per take, and how many more when there is no room. Two per new bucket keep the full
// ones below the number of those in use.
const sweepSteps = 2
const sweepStepsWhenFull = 64

const smallest = 64

/** What is noted in a take whose tokens came from a bucket that callers share. */
export const shared = "shared"

/** A bucket that callers share who came when there was no room. */
interface Shared {
  fullAt: number
  refunded: number
}

/** What is common to the buckets of one limit. */
interface Space {
  readonly index: number
  spanMillis: number
  /** For callers who are known. */
  readonly overflow: Shared
  /** For callers who are anonymous: anybody may be as many of them as they like. */
  readonly anonymous: Shared
  /** The most that any of its buckets has been given back, with which new ones begin. */
  refunded: number
}

// Time pays for takes in the order in which they came, so a take is paid for when the bucket is full again for the first
// time after it, `spentUntil`. Refunds of takes before it bring that moment forward. So that a take need not be told,
// `spentUntil` is noted with everything added that its bucket has ever been given back, and read with everything
// subtracted that it has been given back by then. A bucket that has been forgotten has been full since, and begins anew
// with so much given back that nothing is left of takes from before.
//
// Which of two takes came first is not kept. A take that nothing came after shortens nobody's time; any other refund is
// taken to concern all other takes, and at worst these are given back less than they might.

export class Buckets {
  readonly #maxKeys: number
  readonly #places = new Map<string, number>()
  readonly #keys: Array<string> = []
  readonly #spaces = new Map<string, Space>()
  #fullAt = new Float64Array(smallest)
  #refunded = new Float64Array(smallest)
  #spaceOf = new Uint32Array(smallest)
  #hand = 0

  constructor(maxKeys: number) {
    this.#maxKeys = maxKeys
  }

  /** How many buckets are kept. */
  get size(): number {
    return this.#keys.length
  }

  /** Decides all takes and spends them, or none. */
  consume(takes: ReadonlyArray<Take>, maxWaitMillis: number, now: number): number {
    this.#sweep(now, sweepSteps * takes.length)
    if (this.#keys.length + takes.length > this.#maxKeys) this.#sweep(now, sweepStepsWhenFull)
    const wait = this.#check(takes, maxWaitMillis, now)
    for (let i = 0; i < takes.length; i++) {
      const take = takes[i]!
      // A take that a limit in shadow mode would have refused is not counted, just as if it had been.
      if (wait === refused || take.cost === 0 || (!take.allowed && take.shape.shadow)) {
        report(take, take.resetAfterMillis)
      } else this.#spend(take, now)
    }
    return wait
  }

  /** Decides all takes and spends none. */
  decide(takes: ReadonlyArray<Take>, maxWaitMillis: number, now: number): number {
    const wait = this.#check(takes, maxWaitMillis, now)
    for (let i = 0; i < takes.length; i++) report(takes[i]!, takes[i]!.resetAfterMillis)
    return wait
  }

  // Leaves in each take how long its bucket needs to be full, and in its key where it is.
  #check(takes: ReadonlyArray<Take>, maxWaitMillis: number, now: number): number {
    let wait = 0
    for (let i = 0; i < takes.length; i++) {
      const take = takes[i]!
      const shape = take.shape
      const space = this.#spaceFor(shape, now)
      const place = this.#find(take.key)
      // A bucket that is not there is full, unless callers without one have been sharing: then it is as full as theirs.
      const debt = Math.max(0, (place < 0 ? overflowOf(space, take.key).fullAt : this.#fullAt[place]!) - now)
      const late = take.cost > shape.burst ? Infinity : debt + take.cost * shape.intervalMillis - shape.spanMillis
      take.resetAfterMillis = debt
      take.allowed = late <= tolerance
      if (take.allowed) continue
      take.retryAfterMillis = Math.ceil(late - tolerance)
      if (!shape.shadow && take.retryAfterMillis > wait) wait = take.retryAfterMillis
    }
    return wait > maxWaitMillis ? refused : wait
  }

  #spend(take: Take, now: number): void {
    const debt = take.resetAfterMillis + take.cost * take.shape.intervalMillis
    const fullAt = now + debt
    const place = take.key.place
    let refunded: number
    if (place >= 0) {
      this.#fullAt[place] = fullAt
      refunded = this.#refunded[place]!
    } else {
      const space = this.#spaceFor(take.shape, now)
      if (this.#keys.length < this.#maxKeys) {
        this.#insert(take.key, space, fullAt)
        refunded = space.refunded
      } else {
        const overflow = overflowOf(space, take.key)
        overflow.fullAt = fullAt
        refunded = overflow.refunded
        take.spentFrom = shared
      }
    }
    take.allowed = true
    take.retryAfterMillis = 0
    take.spentUntil = fullAt + refunded
    report(take, debt)
  }

  /**
   * Notes what another store knows, so that these buckets can take over from it, and what it does not know yet. A bucket
   * is never made fuller: answers do not come in the order in which they were given.
   */
  learn(takes: ReadonlyArray<Take>, now: number, unknown: Owed): void {
    this.#sweep(now, sweepSteps * takes.length)
    for (const take of takes) {
      const space = this.#spaceFor(take.shape, now)
      const place = this.#find(take.key)
      const debt = take.resetAfterMillis + unknown.of(take, now)
      if (place >= 0) this.#fullAt[place] = Math.max(this.#fullAt[place]!, now + debt)
      else if (debt > 0 && this.#keys.length < this.#maxKeys) this.#insert(take.key, space, now + debt)
    }
  }

  /** Gives back what the takes have spent here, as far as time has not. */
  refund(takes: ReadonlyArray<Take>, now: number): void {
    for (let i = 0; i < takes.length; i++) this.giveBack(takes[i]!, now)
  }

  /** `refund` of one take. Returns how many milliseconds sooner its own bucket is full. */
  giveBack(take: Take, now: number): number {
    const spentUntil = take.spentUntil
    take.spentUntil = 0
    const space = this.#spaces.get(take.shape.name)
    // Tokens of another shape are not worth the same.
    if (spentUntil === 0 || space === undefined || space.spanMillis !== take.shape.spanMillis) return 0
    const place = take.spentFrom === shared ? -1 : this.#find(take.key)
    if (place < 0 && take.spentFrom !== shared) return 0
    const overflow = overflowOf(space, take.key)
    const fullAt = place < 0 ? overflow.fullAt : this.#fullAt[place]!
    const refunded = place < 0 ? overflow.refunded : this.#refunded[place]!
    const paidAt = spentUntil - refunded
    // What time has given back already is not given back again, or a late refund would exceed the limit.
    const amount = Math.min(take.cost * take.shape.intervalMillis, paidAt - now)
    if (amount <= 0) return 0
    const isLast = paidAt >= fullAt - tolerance
    const total = isLast ? refunded : refunded + amount
    space.refunded = Math.max(space.refunded, total)
    if (place < 0) {
      overflow.fullAt = fullAt - amount
      overflow.refunded = total
      return 0
    }
    this.#fullAt[place] = fullAt - amount
    this.#refunded[place] = total
    return amount
  }

  // Comparing one key is much cheaper than looking it up, and mostly the bucket is where it was.
  #find(key: BucketKey): number {
    const hint = key.place
    if (hint >= 0 && this.#keys[hint] === key.text) return hint
    return key.place = this.#places.get(key.text) ?? -1
  }

  #spaceFor(shape: BucketShape, now: number): Space {
    const space = this.#spaces.get(shape.name)
    if (space === undefined) {
      const made: Space = {
        index: this.#spaces.size,
        spanMillis: shape.spanMillis,
        overflow: { fullAt: -Infinity, refunded: 0 },
        anonymous: { fullAt: -Infinity, refunded: 0 },
        refunded: 0
      }
      this.#spaces.set(shape.name, made)
      return made
    }
    if (space.spanMillis !== shape.spanMillis) this.#rescale(space, shape.spanMillis, now)
    return space
  }

  // The limit has changed: every bucket stays as full as it is, in proportion, so who is throttled stays throttled.
  #rescale(space: Space, spanMillis: number, now: number): void {
    const factor = spanMillis / space.spanMillis
    const rescaled = (fullAt: number): number => fullAt > now ? now + (fullAt - now) * factor : fullAt
    for (let place = 0; place < this.#keys.length; place++) {
      if (this.#spaceOf[place] === space.index) this.#fullAt[place] = rescaled(this.#fullAt[place]!)
    }
    space.overflow.fullAt = rescaled(space.overflow.fullAt)
    space.anonymous.fullAt = rescaled(space.anonymous.fullAt)
    space.spanMillis = spanMillis
  }

  #sweep(now: number, steps: number): void {
    for (let step = 0; step < steps && this.#keys.length > 0; step++) {
      if (this.#hand >= this.#keys.length) this.#hand = 0
      if (this.#fullAt[this.#hand]! <= now) this.#remove(this.#hand)
      else this.#hand += 1
    }
  }

  #insert(key: BucketKey, space: Space, fullAt: number): void {
    const place = key.place = this.#keys.length
    if (place === this.#fullAt.length) this.#resize(Math.min(place * 2, Math.max(this.#maxKeys, smallest)))
    this.#keys.push(key.text)
    this.#places.set(key.text, place)
    this.#fullAt[place] = fullAt
    this.#refunded[place] = space.refunded
    this.#spaceOf[place] = space.index
  }

  // The last bucket moves into the gap, so that the arrays stay dense and can shrink.
  #remove(place: number): void {
    this.#places.delete(this.#keys[place]!)
    const last = this.#keys.length - 1
    const moved = this.#keys.pop()!
    if (place !== last) {
      this.#keys[place] = moved
      this.#places.set(moved, place)
      this.#fullAt[place] = this.#fullAt[last]!
      this.#refunded[place] = this.#refunded[last]!
      this.#spaceOf[place] = this.#spaceOf[last]!
    }
    if (this.#fullAt.length > smallest && last * 4 < this.#fullAt.length) this.#resize(this.#fullAt.length >> 1)
  }

  #resize(capacity: number): void {
    const kept = Math.min(capacity, this.#keys.length)
    const fullAt = new Float64Array(capacity)
    const refunded = new Float64Array(capacity)
    const spaceOf = new Uint32Array(capacity)
    fullAt.set(this.#fullAt.subarray(0, kept))
    refunded.set(this.#refunded.subarray(0, kept))
    spaceOf.set(this.#spaceOf.subarray(0, kept))
    this.#fullAt = fullAt
    this.#refunded = refunded
    this.#spaceOf = spaceOf
  }
}

const overflowOf = (space: Space, key: BucketKey): Shared => key.isAnonymous ? space.anonymous : space.overflow

/** Writes into a take how full its bucket is. `debt` is how many milliseconds it is from being full. */
export const report = (take: Take, debt: number): void => {
  const { intervalMillis, spanMillis } = take.shape
  take.remaining = Math.max(0, Math.floor((spanMillis - debt + tolerance) / intervalMillis))
  take.resetAfterMillis = debt <= tolerance ? 0 : Math.ceil(debt - tolerance)
}
