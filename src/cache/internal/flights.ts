import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { CallRecord } from "../../CallRecord.ts"

// Single flight: of the calls that miss one key together, one runs (the leader), the others wait for what it finds.

/**
 * One execution that others may be waiting for.
 *
 * - `text`: the answer, from the moment it is known until it can be read from the store.
 * - `detached`: something was invalidated that the answer may have been computed from. Nobody new joins the flight, and
 *   its answer is not stored.
 * - `within`: the flight whose handler made the call that leads this one.
 */
export class Flight {
  readonly key: string
  readonly labels: ReadonlyArray<string>
  readonly hasTags: boolean
  readonly waiters = new Set<Seat>()
  record: CallRecord | undefined = undefined
  text: string | undefined = undefined
  detached = false
  within: Flight | undefined = undefined
  hasEnded = false

  constructor(key: string, labels: ReadonlyArray<string>, hasTags: boolean) {
    this.key = key
    this.labels = labels
    this.hasTags = hasTags
  }
}

/** The flight that a handler runs for. Calls that it makes must not wait for that one. */
export const CurrentFlight: Context.Reference<Flight | undefined> = Context.Reference<Flight | undefined>(
  "effect-toolops/cache/CurrentFlight",
  { defaultValue: () => undefined }
)

/** What one caller does, depending on where it finds itself. `A`, `E` and `R` of its call are its own business. */
export interface Caller {
  readonly record: CallRecord
  readonly labels: ReadonlyArray<string>
  readonly hasTags: boolean
  /** The flight whose handler makes the call. */
  readonly within: Flight | undefined
  /** Runs the call for everybody, its handler with the flight as `CurrentFlight`. */
  readonly lead: (flight: Flight) => Effect.Effect<any, any, any>
  /** Takes the leader's answer. */
  readonly share: (text: string) => Effect.Effect<any, any, any>
  /** Takes the leader's failure. */
  readonly fail: (cause: Cause.Cause<any>, leader: CallRecord | undefined) => Effect.Effect<any, any, any>
  /** Runs the call for itself: the leader's answer was for the leader alone, or would never come. */
  readonly alone: Effect.Effect<any, any, any>
}

/** One caller's place in a flight. Its finalizer is installed before the place is taken. */
class Seat {
  readonly caller: Caller
  readonly within: Flight | undefined
  flight: Flight | undefined = undefined
  leads = false
  resume: (effect: Effect.Effect<any, any, any>) => void = ignore

  constructor(caller: Caller) {
    this.caller = caller
    let within = caller.within
    // What a handler has left behind is inside of nothing that could still wait for it, nor may it keep it in memory.
    while (within?.hasEnded === true) within = within.within
    this.within = within
  }
}

const ignore = (): void => {}

export class Flights {
  readonly byKey = new Map<string, Flight>()

  /** Runs `caller` as the leader of a new flight, or lets it wait for the one that is under way. */
  join(key: string, caller: Caller): Effect.Effect<any, any, any> {
    return Effect.suspend(() => {
      const seat = new Seat(caller)
      return Effect.onExitPrimitive(
        // Most callers find nobody, and lead without what it costs to be able to wait.
        Effect.suspend(() =>
          this.byKey.has(key)
            ? Effect.callback<any, any, any>((resume) => this.#takeSeat(seat, key, resume))
            : this.#takeOff(seat, key)
        ),
        (exit) => {
          this.#leave(seat, exit)
          return undefined
        }
      )
    })
  }

  /** Gives the leader's answer to everybody who waits, and to whoever comes before the flight has ended. */
  publish(flight: Flight, text: string): void {
    flight.text = text
    for (const seat of takeAll(flight)) seat.resume(seat.caller.share(text))
  }

  /** Takes flights off the board that began before something changed. */
  detach(isAffected: (flight: Flight) => boolean): void {
    for (const [key, flight] of this.byKey) {
      if (!isAffected(flight)) continue
      flight.detached = true
      this.byKey.delete(key)
    }
  }

  #takeOff(seat: Seat, key: string): Effect.Effect<any, any, any> {
    const started = new Flight(key, seat.caller.labels, seat.caller.hasTags)
    this.byKey.set(key, started)
    return this.#seatLeader(seat, started)
  }

  // Looking for the flight and taking the seat is one synchronous step, with no place for an interruption, nor for the
  // flight to end in between.
  #takeSeat(seat: Seat, key: string, resume: Seat["resume"]): void {
    const flight = this.byKey.get(key)
    if (flight === undefined) {
      resume(this.#takeOff(seat, key))
    } else if (flight.text !== undefined) {
      resume(seat.caller.share(flight.text))
    } else if (seat.within !== undefined && waitsFor(flight, seat.within)) {
      resume(seat.caller.alone)
    } else {
      seat.flight = flight
      seat.resume = resume
      flight.waiters.add(seat)
    }
  }

  #seatLeader(seat: Seat, flight: Flight): Effect.Effect<any, any, any> {
    seat.flight = flight
    seat.leads = true
    flight.record = seat.caller.record
    flight.within = seat.within
    return seat.caller.lead(flight)
  }

  #leave(seat: Seat, exit: Exit.Exit<any, any>): void {
    const flight = seat.flight
    if (flight === undefined) return
    seat.flight = undefined
    if (!seat.leads) {
      flight.waiters.delete(seat)
      return
    }
    // An interrupted leader knows nothing, and one that was refused for what it is knows nothing of the others, so
    // somebody else finds out. Before it is resumed it has the lead, so that its own interruption hands over in turn. It
    // begins on a turn of its own: resuming runs it at once, on our stack.
    if (
      Exit.isFailure(exit) && flight.text === undefined &&
      (isInterruption(exit.cause) || seat.caller.record.isCallersFault(exit.cause))
    ) {
      for (const next of flight.waiters) {
        flight.waiters.delete(next)
        const lead = this.#seatLeader(next, flight)
        next.resume(Effect.andThen(Effect.yieldNow, lead))
        return
      }
    }
    flight.hasEnded = true
    if (this.byKey.get(flight.key) === flight) this.byKey.delete(flight.key)
    for (const waiting of takeAll(flight)) {
      waiting.resume(Exit.isFailure(exit) ? waiting.caller.fail(exit.cause, flight.record) : waiting.caller.alone)
    }
  }
}

// A handler whose parallel parts interrupt each other when one fails has failed.
const isInterruption = (cause: Cause.Cause<unknown>): boolean => Cause.hasInterrupts(cause) && !Cause.hasFails(cause)

// Whether a flight cannot end before a call that is made within another one has its answer. That other one cannot, nor can
// those that it is within; nor those whose handlers wait for one of them.
const waitsFor = (flight: Flight, within: Flight): boolean => {
  const held = new Set<Flight>()
  const hold = (inner: Flight | undefined): void => {
    for (let one = inner; one !== undefined && !held.has(one); one = one.within) held.add(one)
  }
  hold(within)
  for (const one of held) for (const seat of one.waiters) hold(seat.within)
  return held.has(flight)
}

// Resumed fibers run on our stack and may come back to this flight, so they find it empty.
const takeAll = (flight: Flight): ReadonlyArray<Seat> => {
  if (flight.waiters.size === 0) return noSeats
  const seats = Array.from(flight.waiters)
  flight.waiters.clear()
  for (const seat of seats) seat.flight = undefined
  return seats
}

const noSeats: ReadonlyArray<Seat> = []
