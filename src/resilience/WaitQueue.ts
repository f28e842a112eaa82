/**
 * The callers that wait for a bulkhead's slot, first come first served.
 *
 * A linked list, so that a caller that goes away is taken out at once whatever its place. All waiters have the same
 * patience, so the first one's turn to give up always comes first and one timer serves them all; an empty queue has none.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { monotonicMillis } from "../internal/monotonic.ts"

/** @internal What can stand in a queue, in one at a time. */
export class Waiter<W extends Waiter<W>> {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  isQueued = false
  deadline = Infinity
  previous: W | undefined = undefined
  next: W | undefined = undefined

  constructor(fiber: Fiber.Fiber<unknown, unknown>) {
    this.fiber = fiber
  }
}

// Timers may fire a little early. A waiter whose time is up but for this much has waited long enough.
const toleranceMillis = 1

/** @internal */
export class WaitQueue<W extends Waiter<W>> {
  length = 0
  readonly #maxWait: number
  /** Called with those that have waited too long, after they have left. */
  readonly #onExpired: (waiters: ReadonlyArray<W>) => void
  #first: W | undefined = undefined
  #last: W | undefined = undefined
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(maxWait: number, onExpired: (waiters: ReadonlyArray<W>) => void) {
    this.#maxWait = maxWait
    this.#onExpired = onExpired
  }

  /** Queues a waiter at the end. */
  push(waiter: W): void {
    waiter.isQueued = true
    waiter.previous = this.#last
    if (this.#last === undefined) this.#first = waiter
    else this.#last.next = waiter
    this.#last = waiter
    this.length += 1
    if (this.#maxWait === Infinity) return
    waiter.deadline = monotonicMillis(waiter.fiber) + this.#maxWait
    if (this.#timer === undefined) this.#arm(waiter.fiber, this.#maxWait)
  }

  /** Takes a waiter out, wherever it is. Says whether it was there. */
  remove(waiter: W): boolean {
    if (!waiter.isQueued) return false
    waiter.isQueued = false
    if (waiter.previous === undefined) this.#first = waiter.next
    else waiter.previous.next = waiter.next
    if (waiter.next === undefined) this.#last = waiter.previous
    else waiter.next.previous = waiter.previous
    waiter.previous = undefined
    waiter.next = undefined
    this.length -= 1
    if (this.length === 0) this.#disarm()
    return true
  }

  /** Takes the first waiter out. */
  shift(): W | undefined {
    const first = this.#first
    if (first !== undefined) this.remove(first)
    return first
  }

  #arm(fiber: Fiber.Fiber<unknown, unknown>, millis: number): void {
    const clock = fiber.getRef(Clock.Clock)
    const timer = Effect.runForkWith(fiber.context)(clock.sleep(Duration.millis(millis)))
    this.#timer = timer
    timer.addObserver(() => {
      // A timer that was put down does nothing, and another may have taken its place.
      if (this.#timer !== timer) return
      this.#timer = undefined
      this.#expire(fiber)
    })
  }

  #disarm(): void {
    const timer = this.#timer
    this.#timer = undefined
    timer?.interruptUnsafe()
  }

  #expire(fiber: Fiber.Fiber<unknown, unknown>): void {
    const now = monotonicMillis(fiber)
    const expired: Array<W> = []
    let first = this.#first
    while (first !== undefined && first.deadline <= now + toleranceMillis) {
      this.remove(first)
      expired.push(first)
      first = this.#first
    }
    if (first !== undefined) this.#arm(first.fiber, first.deadline - now)
    if (expired.length > 0) this.#onExpired(expired)
  }
}
