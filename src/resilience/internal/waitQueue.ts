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
import { monotonicMillisOf } from "../../internal/monotonic.ts"

/** @internal What can stand in one queue, once. */
export interface Waiter {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  place: "none" | "queued" | "served" | "gone"
  deadline: number
  previous: Waiter | undefined
  next: Waiter | undefined
  /** Called once, some time after the place was left: with true for a turn, with false for waiting too long. */
  wake(isServed: boolean): void
}

// Timers may fire a little early. A waiter whose time is up but for this much has waited long enough.
const toleranceMillis = 1

/** @internal */
export class WaitQueue {
  length = 0
  readonly #maxWait: number
  /** Called with those that have waited too long, after they have left. */
  readonly #onExpired: (waiters: ReadonlyArray<Waiter>) => void
  #first: Waiter | undefined = undefined
  #last: Waiter | undefined = undefined
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(maxWait: number, onExpired: (waiters: ReadonlyArray<Waiter>) => void) {
    this.#maxWait = maxWait
    this.#onExpired = onExpired
  }

  /** Queues a waiter at the end. */
  push(waiter: Waiter): void {
    waiter.place = "queued"
    waiter.previous = this.#last
    if (this.#last === undefined) this.#first = waiter
    else this.#last.next = waiter
    this.#last = waiter
    this.length += 1
    if (this.#maxWait === Infinity) return
    const clock = waiter.fiber.getRef(Clock.Clock)
    waiter.deadline = monotonicMillisOf(clock) + this.#maxWait
    if (this.#timer === undefined) this.#arm(waiter.fiber, clock, this.#maxWait)
  }

  /** Takes a waiter out, wherever it is. */
  remove(waiter: Waiter): void {
    this.#leave(waiter, "gone")
  }

  /** Takes the first waiter out because it is its turn. */
  serve(): Waiter | undefined {
    const first = this.#first
    if (first !== undefined) this.#leave(first, "served")
    return first
  }

  #leave(waiter: Waiter, place: "served" | "gone"): void {
    waiter.place = place
    if (waiter.previous === undefined) this.#first = waiter.next
    else waiter.previous.next = waiter.next
    if (waiter.next === undefined) this.#last = waiter.previous
    else waiter.next.previous = waiter.previous
    waiter.previous = undefined
    waiter.next = undefined
    this.length -= 1
    if (this.length === 0) this.#disarm()
  }

  // The clock is looked up while its fiber runs: one that has ended knows only the host's.
  #arm(fiber: Fiber.Fiber<unknown, unknown>, clock: Clock.Clock, millis: number): void {
    const timer = Effect.runForkWith(fiber.context)(clock.sleep(Duration.millis(millis)))
    this.#timer = timer
    timer.addObserver(() => {
      // A timer that was put down does nothing, and another may have taken its place.
      if (this.#timer !== timer) return
      this.#timer = undefined
      this.#expire(clock)
    })
  }

  #disarm(): void {
    const timer = this.#timer
    this.#timer = undefined
    timer?.interruptUnsafe()
  }

  #expire(clock: Clock.Clock): void {
    const now = monotonicMillisOf(clock)
    const expired: Array<Waiter> = []
    let first = this.#first
    while (first !== undefined && first.deadline <= now + toleranceMillis) {
      this.remove(first)
      expired.push(first)
      first = this.#first
    }
    if (first !== undefined) this.#arm(first.fiber, clock, first.deadline - now)
    if (expired.length > 0) this.#onExpired(expired)
  }
}
