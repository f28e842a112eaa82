import type { Losses, LossReason } from "./telemetryLosses.ts"

/**
 * What became of one attempt.
 *
 * - `Accepted`: delivered but for `rejected` items, which the receiver has refused and will always refuse.
 * - `Refused`: will always be refused.
 * - `Later`: may go through another time, at the earliest after `afterMillis` where the receiver has said so.
 */
export type Answer =
  | { readonly _tag: "Accepted"; readonly rejected: number }
  | { readonly _tag: "Refused" }
  | { readonly _tag: "Later"; readonly afterMillis: number | undefined }

/** Where batches go. `post` never rejects, and answers soon after `signal` has been given. */
export interface Target {
  readonly post: (body: Uint8Array, signal: AbortSignal) => Promise<Answer>
  readonly close: () => void
}

interface Parcel {
  readonly body: Uint8Array
  readonly items: number
  readonly settle: () => void
}

// After this time no further attempt is begun. A receiver that is being restarted is back by then, and a batch that breaks
// it must not hold up all that follow.
const giveUpMillis = 60_000
const firstBackoffMillis = 500
const maxBackoffMillis = 10_000

// Between half of it and all of it, so that the instances of a service do not come back in step.
const backoff = (attempt: number): number =>
  Math.min(firstBackoffMillis * 2 ** Math.min(attempt, 16), maxBackoffMillis) * (0.5 + Math.random() / 2)

/**
 * Delivers batches of one signal, one after the other: there is never more than one request in flight. Who sends bounds
 * what is held.
 *
 * It lives outside of Effect, as the SDK that feeds it does: its timers are real ones, and do not keep the process alive.
 */
export class Delivery {
  readonly #target: Target
  readonly #losses: Losses
  readonly #waiting: Array<Parcel> = []
  readonly #abort = new AbortController()
  #running: Promise<void> | undefined
  #closeBy = Infinity
  #notBefore = 0
  #wake: (() => void) | undefined

  constructor(target: Target, losses: Losses) {
    this.#target = target
    this.#losses = losses
  }

  /** How many batches are not delivered yet, with the one that is being sent. */
  get held(): number {
    return this.#waiting.length
  }

  /** Whether everything that comes now is lost. */
  get isAborted(): boolean {
    return this.#abort.signal.aborted
  }

  /** Takes a batch. `settle` is called once, when it is delivered or lost. */
  send(body: Uint8Array, items: number, settle: () => void): void {
    if (this.isAborted) {
      this.#losses.lost("shutdown", items)
      settle()
      return
    }
    this.#waiting.push({ body, items, settle })
    this.#running ??= this.#run()
  }

  /** Waits until nothing is left to deliver. */
  async idle(): Promise<void> {
    await this.#running
  }

  /** From now on, what cannot be delivered by then (in `performance.now()`) is given up without waiting for it. */
  hurry(closeBy: number): void {
    this.#closeBy = closeBy
    this.#wake?.()
  }

  /** Ends the request in flight and counts everything that is left as lost. */
  abort(): void {
    this.#abort.abort()
    this.#wake?.()
    this.#target.close()
  }

  async #run(): Promise<void> {
    for (let parcel = this.#waiting[0]; parcel !== undefined; parcel = this.#waiting[0]) {
      const reason = await this.#deliver(parcel)
      this.#waiting.shift()
      if (reason !== undefined) this.#losses.lost(reason, parcel.items)
      parcel.settle()
    }
    this.#running = undefined
  }

  async #deliver(parcel: Parcel): Promise<LossReason | undefined> {
    const begun = performance.now()
    for (let attempt = 0;; attempt++) {
      if (!await this.#mayPost()) return "shutdown"
      const answer = await this.#target.post(parcel.body, this.#abort.signal)
      if (answer._tag === "Accepted") {
        const rejected = Math.min(answer.rejected, parcel.items)
        this.#losses.sent(parcel.items - rejected)
        this.#losses.lost("rejected", rejected)
        return undefined
      }
      if (answer._tag === "Refused") return this.#abort.signal.aborted ? "shutdown" : "rejected"
      const now = performance.now()
      this.#notBefore = now + Math.max(backoff(attempt), answer.afterMillis ?? 0)
      if (now - begun >= giveUpMillis) return this.#abort.signal.aborted ? "shutdown" : "unreachable"
    }
  }

  /** Waits until the receiver wants to hear from us. False when the program ends before that. */
  async #mayPost(): Promise<boolean> {
    for (;;) {
      const now = performance.now()
      if (this.#abort.signal.aborted || this.#notBefore > this.#closeBy) return false
      if (now >= this.#notBefore) return true
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.ceil(this.#notBefore - now))
        timer.unref()
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = undefined
    }
  }
}
