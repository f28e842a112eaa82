/**
 * What a circuit breaker should do, said as simply as possible: it keeps every result it has seen and counts anew at each
 * question. Slow, and easy to check by reading.
 */
import type { CircuitBreaker } from "effect-toolops/resilience"

export interface Config {
  readonly maxFailures: number | undefined
  readonly count: { readonly size: number } | undefined
  readonly time: { readonly millis: number; readonly buckets: number } | undefined
  readonly minimumCalls: number
  readonly failureRate: number
  readonly slow: { readonly millis: number; readonly rate: number } | undefined
  readonly openMillis: ReadonlyArray<number>
  readonly probes: number
  readonly successes: number
  readonly lease: number
}

interface Seen {
  readonly at: number
  readonly failed: boolean
  readonly slow: boolean
}

export interface Admitted {
  readonly generation: number
  readonly at: number
  readonly probe: boolean
}

export class CircuitModel {
  status: CircuitBreaker.Status = "closed"
  generation = 0
  since = 0
  openings = 0
  openFor = 0
  successes = 0
  probes: Array<{ readonly call: Admitted; readonly until: number }> = []
  seen: Array<Seen> = []
  transitions: Array<string> = []
  readonly config: Config

  constructor(config: Config) {
    this.config = config
  }

  /** The call that is admitted at `now`, or how long it has to wait. */
  call(now: number): Admitted | number {
    const wait = this.wait(now)
    if (wait > 0) return wait
    if (this.status === "open") this.become("half-open", now)
    const probe = this.status === "half-open"
    const call: Admitted = { generation: this.status === "disabled" ? -1 : this.generation, at: now, probe }
    if (probe) {
      this.probes = this.probes.filter(({ until }) => until > now)
      this.probes.push({ call, until: now + this.config.lease })
    }
    return call
  }

  wait(now: number): number {
    if (this.status === "forced-open") return this.config.openMillis[0]!
    if (this.status === "open") return Math.max(0, this.since + this.openFor - now)
    if (this.status !== "half-open") return 0
    const held = this.probes.filter(({ until }) => until > now)
    if (held.length + this.successes < this.config.probes) return 0
    return Math.min(...held.map(({ until }) => until - now))
  }

  result(call: Admitted, outcome: "success" | "failure" | "ignored", now: number): void {
    if (call.generation !== this.generation) return
    const slow = this.config.slow !== undefined && now - call.at >= this.config.slow.millis
    if (this.status === "half-open") {
      if (outcome === "failure" || (outcome === "success" && slow)) return this.open(now)
      this.probes = this.probes.filter((probe) => probe.call !== call)
      if (outcome === "success") this.successes += 1
      if (this.successes >= this.config.successes) this.become("closed", now)
    } else if (outcome !== "ignored") {
      this.seen.push({ at: now, failed: outcome === "failure", slow })
      if (this.status === "closed" && this.trips(now)) this.open(now)
    }
  }

  force(status: "forced-open" | "disabled" | "metrics-only", now: number): void {
    if (this.status !== status) this.become(status, now)
  }

  reset(now: number): void {
    this.become("closed", now)
    this.openings = 0
    this.openFor = 0
  }

  counts(now: number): { readonly calls: number; readonly failures: number; readonly slow: number } {
    const { count, time } = this.config
    if (count === undefined && time === undefined) {
      const last = this.seen.findLastIndex(({ failed }) => !failed)
      const failures = this.seen.length - last - 1
      return { calls: failures, failures, slow: 0 }
    }
    let counted = this.seen
    if (count !== undefined) counted = counted.slice(-count.size)
    if (time !== undefined) {
      const width = time.millis / time.buckets
      const oldest = Math.floor(now / width) - time.buckets + 1
      counted = counted.filter(({ at }) => Math.floor(at / width) >= oldest)
    }
    return {
      calls: counted.length,
      failures: counted.filter(({ failed }) => failed).length,
      slow: counted.filter(({ slow }) => slow).length
    }
  }

  private trips(now: number): boolean {
    const { failureRate, maxFailures, minimumCalls, slow: slowCall } = this.config
    const { calls, failures, slow } = this.counts(now)
    if (maxFailures !== undefined) return failures >= maxFailures
    if (calls < minimumCalls) return false
    return failures / calls >= failureRate || (slowCall !== undefined && slow / calls >= slowCall.rate)
  }

  private open(now: number): void {
    const isRested = this.status === "closed" && now - this.since >= this.openFor
    this.openings = isRested ? 1 : this.openings + 1
    this.openFor = this.config.openMillis[Math.min(this.openings, this.config.openMillis.length) - 1]!
    this.become("open", now)
  }

  private become(status: CircuitBreaker.Status, now: number): void {
    if (status !== this.status) this.transitions.push(`${this.status} -> ${status}`)
    this.status = status
    this.generation += 1
    this.since = now
    this.seen = []
    this.probes = []
    this.successes = 0
  }
}
