/**
 * How a circuit breaker works: the state in its `Ref`, and the calls that read and change it.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import type { CallRecord } from "../../CallRecord.ts"
import { monotonicMillis } from "../../internal/monotonic.ts"
import * as Check from "../../internal/options.ts"
import type { Snapshot, Transition } from "../CircuitBreaker.ts"
import { isCancelled, type Outcome, outcomes } from "../Classify.ts"
import { type CircuitOpen, circuitOpen, type ResilienceError, resilienceError } from "../ResilienceError.ts"
import type { ResilienceObserver } from "../ResilienceObserver.ts"
import type { Settings } from "./circuitOptions.ts"
import * as CircuitState from "./circuitState.ts"
import { ConsecutiveWindow } from "./circuitWindow.ts"
import { harmless } from "./observer.ts"

/** A call that came while the circuit was not closed. */
class Admission {
  generation = -1
  probe: CircuitState.Probe | undefined = undefined
  startedAt = 0
}

/**
 * What `execute` gives: an effect that is an object of its own, which is lighter than a closure in another. Every part has
 * a class of its own, too: shared, it would be slower, since what it calls would differ from part to part.
 */
class Guarded extends Effectable.Class<any, any, any> {
  readonly breaker: CircuitBreakerImpl
  readonly effect: Effect.Effect<any, any, any>
  readonly record: CallRecord | undefined

  constructor(breaker: CircuitBreakerImpl, effect: Effect.Effect<any, any, any>, record: CallRecord | undefined) {
    super()
    this.breaker = breaker
    this.effect = effect
    this.record = record
  }

  asEffect(): Effect.Effect<any, any, any> {
    return this.breaker.run(this.effect, this.record)
  }
}

/** @internal */
export class CircuitBreakerImpl {
  readonly name: string
  readonly settings: Settings
  readonly state: Effect.Effect<CircuitState.Status>
  readonly snapshot: Effect.Effect<Snapshot>
  readonly transitions: Stream.Stream<Transition>
  readonly forceOpen: Effect.Effect<void>
  readonly disable: Effect.Effect<void>
  readonly metricsOnly: Effect.Effect<void>
  readonly reset: Effect.Effect<void>
  readonly ref: Ref.Ref<CircuitState.CircuitState>
  private readonly listeners = new Set<(transition: Transition) => void>()
  /** What listeners are being told, and are yet to be. */
  private readonly untold: Array<Transition> = []
  /** Why callers were refused last, and for how long. */
  private reason: CircuitOpen
  private refusedMillis = 0
  /** Whether a closed circuit without failures can skip a success. */
  private readonly skipsSuccess: boolean

  constructor(settings: Settings, observer: ResilienceObserver | undefined) {
    this.name = settings.name
    this.settings = settings
    this.reason = circuitOpen(settings.name, Duration.zero)
    this.ref = Ref.makeUnsafe(CircuitState.initial(settings))
    this.skipsSuccess = settings.emptyWindow instanceof ConsecutiveWindow
    const onTransition = harmless(observer, "onTransition")
    if (onTransition !== undefined) this.listeners.add(onTransition)
    this.state = Effect.map(Ref.get(this.ref), (state) => state.status)
    this.snapshot = Effect.withFiber((fiber) => Effect.succeed(this.snapshotAt(monotonicMillis(fiber))))
    this.transitions = Stream.callback<Transition>((queue) => {
      const listener = (transition: Transition) => void Queue.offerUnsafe(queue, transition)
      return Effect.acquireRelease(
        Effect.sync(() => this.listeners.add(listener)),
        () => Effect.sync(() => this.listeners.delete(listener))
      )
    }, { bufferSize: 128, strategy: "sliding" })
    this.forceOpen = this.changing((state, now) => CircuitState.force(settings, state, "forced-open", now))
    this.disable = this.changing((state, now) => CircuitState.force(settings, state, "disabled", now))
    this.metricsOnly = this.changing((state, now) => CircuitState.force(settings, state, "metrics-only", now))
    this.reset = this.changing((state, now) => CircuitState.reset(settings, state, now))
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    return this.executeFor(effect, undefined)
  }

  /** `execute` for a tool call: a refusal is noted in its record. */
  executeFor<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    return new Guarded(this, effect, record)
  }

  /** What a guarded effect does when it is run. */
  run<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    const fiber = Fiber.getCurrent()!
    const { generation, status } = this.ref.ref.current
    switch (status) {
      case "closed":
      case "metrics-only": {
        const startedAt = this.startedAt(fiber)
        return Effect.onExitPrimitive(
          effect,
          (exit) => this.settle(fiber, generation, undefined, startedAt, exit, record)
        )
      }
      case "disabled":
        return effect
      case "forced-open":
        return this.refuse(this.settings.openMillis[0]!, record)
      default:
        return this.executeGuarded(fiber, effect, record)
    }
  }

  /** Says whether the circuit is closed: nothing would be lost by forgetting it but failures of the past. */
  isClosed(): boolean {
    return this.ref.ref.current.status === "closed"
  }

  /** Says whether an operator decides. */
  isForced(): boolean {
    const { status } = this.ref.ref.current
    return status === "forced-open" || status === "disabled" || status === "metrics-only"
  }

  private executeGuarded<A, E, R>(
    fiber: Fiber.Fiber<unknown, unknown>,
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    const wait = CircuitState.waitMillis(this.settings, this.ref.ref.current, monotonicMillis(fiber))
    if (wait > 0) return this.refuse(wait, record)
    const admission = new Admission()
    // The probe's place is taken inside, when its way back is already there: a fiber may be interrupted between any two
    // steps. It may also yield, so everything is looked at again.
    return Effect.onExitPrimitive(
      Effect.suspend(() => this.admit(fiber, admission, effect, record)),
      (exit) =>
        admission.generation === -1
          ? undefined
          : this.settle(fiber, admission.generation, admission.probe, admission.startedAt, exit, record)
    )
  }

  private admit<A, E, R>(
    fiber: Fiber.Fiber<unknown, unknown>,
    admission: Admission,
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | ResilienceError, R> {
    const now = monotonicMillis(fiber)
    const state = this.ref.ref.current
    const wait = CircuitState.waitMillis(this.settings, state, now)
    if (wait > 0) return this.refuse(wait, record)
    let next = state
    if (CircuitState.isProbing(state)) {
      admission.probe = { until: now + this.settings.probeLeaseMillis }
      next = CircuitState.admitProbe(this.settings, state, admission.probe, now)
    }
    admission.generation = next.generation
    admission.startedAt = now
    this.change(next)
    return effect
  }

  // Of those that are not interested in slow calls nobody pays for the time.
  startedAt(fiber: Fiber.Fiber<unknown, unknown>): number {
    return this.settings.slowMillis === Infinity ? 0 : monotonicMillis(fiber)
  }

  settle(
    fiber: Fiber.Fiber<unknown, unknown>,
    generation: number,
    probe: CircuitState.Probe | undefined,
    startedAt: number,
    exit: Exit.Exit<unknown, unknown>,
    call: CallRecord | undefined
  ): undefined {
    let outcome: Outcome = "ignored"
    try {
      // A caller whose credential ran out on the way says nothing about the dependency.
      const isCallersFault = call !== undefined && exit._tag === "Failure" && call.isCallersFault(exit.cause)
      if (!isCallersFault && !isCancelled(fiber, exit)) outcome = this.settings.classify(exit)
    } finally {
      // Also when the rule throws: a probe must give its place back.
      this.record(fiber, generation, probe, startedAt, outcome)
    }
  }

  private record(
    fiber: Fiber.Fiber<unknown, unknown>,
    generation: number,
    probe: CircuitState.Probe | undefined,
    startedAt: number,
    outcome: Outcome
  ): void {
    const { settings } = this
    const state = this.ref.ref.current
    if (
      this.skipsSuccess && outcome === "success" && state.window === settings.emptyWindow &&
      state.status !== "half-open"
    ) return
    const now = monotonicMillis(fiber)
    const isSlow = settings.slowMillis !== Infinity && now - startedAt >= settings.slowMillis
    const isKnown = outcomes.includes(outcome)
    this.change(CircuitState.settle(settings, state, generation, probe, isKnown ? outcome : "ignored", isSlow, now))
    // A circuit with such a rule would never open, so the call says so.
    if (!isKnown) Check.oneOf(`CircuitBreaker ${this.name}`, "the result of classify", outcome, outcomes)
  }

  private refuse(millis: number, record: CallRecord | undefined): Effect.Effect<never, ResilienceError> {
    // Whole milliseconds, and never too few of them: callers that are refused within one share their reason.
    const whole = Math.ceil(millis)
    if (whole !== this.refusedMillis) {
      this.refusedMillis = whole
      this.reason = circuitOpen(this.name, Duration.millis(whole))
    }
    const error = resilienceError(this.reason)
    return Effect.fail(record === undefined ? error : record.refuse("rejected", error))
  }

  private changing(
    f: (state: CircuitState.CircuitState, now: number) => CircuitState.CircuitState
  ): Effect.Effect<void> {
    return Effect.withFiber((fiber) => {
      this.change(f(this.ref.ref.current, monotonicMillis(fiber)))
      return Effect.void
    })
  }

  private change(next: CircuitState.CircuitState): void {
    const before = this.ref.ref.current
    if (next === before) return
    this.ref.ref.current = next
    if (next.status === before.status || this.listeners.size === 0) return
    const transition: Transition = {
      name: this.name,
      from: before.status,
      to: next.status,
      generation: next.generation,
      openings: next.openings
    }
    // A listener may change the circuit again. All hear of that after they have heard of this.
    this.untold.push(transition)
    if (this.untold.length > 1) return
    for (let i = 0; i < this.untold.length; i++) {
      for (const listener of this.listeners) listener(this.untold[i]!)
    }
    this.untold.length = 0
  }

  private snapshotAt(now: number): Snapshot {
    const state = this.ref.ref.current
    return {
      name: this.name,
      status: state.status,
      generation: state.generation,
      retryAfter: Duration.millis(CircuitState.waitMillis(this.settings, state, now)),
      ...state.window.counts(now),
      openings: state.openings,
      probes: state.probes.length,
      successes: state.successes
    }
  }
}
