/** A token bucket in whole numbers: tokens are counted in `1 / windowMillis`, so nothing is ever rounded. */
export class IdealBucket {
  private level: bigint
  private at = 0
  private readonly limit: bigint
  private readonly window: bigint
  private readonly full: bigint

  constructor(limit: number, windowMillis: number, burst: number) {
    this.limit = BigInt(limit)
    this.window = BigInt(windowMillis)
    this.full = BigInt(burst) * this.window
    this.level = this.full
  }

  take(now: number, cost: number): boolean {
    this.level += BigInt(now - this.at) * this.limit
    this.at = now
    if (this.level > this.full) this.level = this.full
    const price = BigInt(cost) * this.window
    if (price > this.level) return false
    this.level -= price
    return true
  }
}
