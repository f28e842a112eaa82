/**
 * Stops calling a dependency that fails, and finds out by itself when it is well again.
 *
 * Closed, open, half-open: after enough failures calls are refused at once, after a pause a few probes are let through,
 * and their results decide. The breaker sees one outcome per execution, so put retry and timeout inside it.
 *
 * The state is one immutable value in a `Ref`. Reading it changes nothing, and every change of it starts a new generation:
 * the result of a call that was admitted in an earlier one changes nothing either.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import type { CallRecord } from "../CallRecord.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import { refusal } from "../internal/refusal.ts"
import { type Options, resolve, type Settings } from "./CircuitOptions.ts"
import * as CircuitState from "./CircuitState.ts"
import { ConsecutiveWindow } from "./CircuitWindow.ts"
import { isInterruption, type Outcome } from "./Classify.ts"
import { CircuitOpen, type ResilienceError, resilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"

export type { CountWindowOptions, Options, SlowCall, TimeWindowOptions } from "./CircuitOptions.ts"
export type { Status } from "./CircuitState.ts"

/**
 * A change of a circuit's status. `openings` is how often it has opened in a row.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transition {
  readonly name: string
  readonly from: CircuitState.Status
  readonly to: CircuitState.Status
  readonly generation: number
  readonly openings: number
}

/**
 * A circuit at one instant.
 *
 * - `status`, `generation`: an open circuit stays open until a call comes, even when its time is up.
 * - `retryAfter`: how long a call that comes now would have to wait. Zero where it would be admitted.
 * - `calls`, `failures`, `slow`: what the window holds. With `maxFailures` that is the failures in a row.
 * - `openings`: how often it has opened in a row. `probes`, `successes`: how far a half-open circuit is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly name: string
  readonly status: CircuitState.Status
  readonly generation: number
  readonly retryAfter: Duration.Duration
  readonly calls: number
  readonly failures: number
  readonly slow: number
  readonly openings: number
  readonly probes: number
  readonly successes: number
}

/**
 * One circuit.
 *
 * **Gotchas**
 *
 * `transitions` tells what happens from the moment it is run, and forgets the oldest of more than 128 that nobody took.
 *
 * **Example** (Refusing calls once a dependency is down)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { CircuitBreaker } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const breaker = yield* CircuitBreaker.make({ name: "github", maxFailures: 2 })
 *   const call = breaker.execute(Effect.fail("down"))
 *   yield* Effect.ignore(call)
 *   yield* Effect.ignore(call)
 *   return yield* call.pipe(
 *     Effect.catchReason("ResilienceError", "CircuitOpen", (reason) => Effect.succeed(`${reason.name} is down`))
 *   )
 * })
 *
 * await Effect.runPromise(program) // => "github is down"
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class CircuitBreaker extends Context.Service<CircuitBreaker, {
  readonly name: string
  /** Runs `effect`, or fails with `CircuitOpen`. */
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  readonly state: Effect.Effect<CircuitState.Status>
  readonly snapshot: Effect.Effect<Snapshot>
  readonly transitions: Stream.Stream<Transition>
  /** Refuses every call until `reset`. */
  readonly forceOpen: Effect.Effect<void>
  /** Lets every call pass, unwatched, until `reset`. */
  readonly disable: Effect.Effect<void>
  /** Lets every call pass and keeps counting, until `reset`. */
  readonly metricsOnly: Effect.Effect<void>
  /** Closes the circuit and forgets what it has seen. */
  readonly reset: Effect.Effect<void>
}>()("effect-toolops/resilience/CircuitBreaker") {}

/** A call that came while the circuit was not closed. */
class Admission {
  generation = -1
  probe: CircuitState.Probe | undefined = undefined
  startedAt = 0
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
  private readonly ref: Ref.Ref<CircuitState.CircuitState>
  private readonly listeners = new Set<(transition: Transition) => void>()
  /** Whether a closed circuit without failures can skip a success. */
  private readonly skipsSuccess: boolean

  constructor(settings: Settings, observer: ResilienceObserver | undefined) {
    this.name = settings.name
    this.settings = settings
    this.ref = Ref.makeUnsafe(CircuitState.initial(settings))
    this.skipsSuccess = settings.emptyWindow instanceof ConsecutiveWindow
    if (observer?.onTransition !== undefined) this.listeners.add(observer.onTransition)
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
    return Effect.withFiber((fiber) => {
      const { generation, status } = this.ref.ref.current
      switch (status) {
        case "closed":
        case "metrics-only": {
          const startedAt = this.startedAt(fiber)
          return Effect.onExitPrimitive(effect, (exit) => this.settle(fiber, generation, undefined, startedAt, exit))
        }
        case "disabled":
          return effect
        default:
          return this.executeGuarded(fiber, effect, record)
      }
    })
  }

  /** Says whether the circuit is closed: nothing would be lost by forgetting it but failures of the past. */
  isClosed(): boolean {
    return this.ref.ref.current.status === "closed"
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
          : this.settle(fiber, admission.generation, admission.probe, admission.startedAt, exit)
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
  private startedAt(fiber: Fiber.Fiber<unknown, unknown>): number {
    return this.settings.slowMillis === Infinity ? 0 : monotonicMillis(fiber)
  }

  private settle(
    fiber: Fiber.Fiber<unknown, unknown>,
    generation: number,
    probe: CircuitState.Probe | undefined,
    startedAt: number,
    exit: Exit.Exit<unknown, unknown>
  ): undefined {
    let outcome: Outcome = "ignored"
    try {
      if (!isInterruption(exit)) outcome = this.settings.classify(exit)
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
    this.change(CircuitState.settle(settings, state, generation, probe, outcome, isSlow, now))
  }

  private refuse(millis: number, record: CallRecord | undefined): Effect.Effect<never, ResilienceError> {
    const error = resilienceError(refusal(CircuitOpen, {
      _tag: "CircuitOpen",
      name: this.name,
      retryAfter: Duration.millis(millis)
    }))
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
    for (const listener of this.listeners) listener(transition)
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

/** @internal */
export const makeUnsafe = (
  options?: Options,
  where = "CircuitBreaker.make",
  observer?: ResilienceObserver
): CircuitBreakerImpl => new CircuitBreakerImpl(resolve(options, where), observer)

// Options are checked at once; a `Schedule` is read again by the fiber that makes the breaker, for its random numbers.
const fromOptions = (options: Options | undefined, where: string): Effect.Effect<CircuitBreaker["Service"]> => {
  resolve(options, where)
  return Effect.withFiber((fiber) =>
    Effect.succeed(
      new CircuitBreakerImpl(resolve(options, where, fiber.context), fiber.getRef(CurrentResilienceObserver))
    )
  )
}

/**
 * Makes a circuit breaker. Options that make no sense throw here, before the effect is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<CircuitBreaker["Service"]> =>
  fromOptions(options, "CircuitBreaker.make")

/**
 * Provides a circuit breaker. Two calls are two breakers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<CircuitBreaker> =>
  Layer.effect(CircuitBreaker, fromOptions(options, "CircuitBreaker.layer"))

/**
 * Provides a circuit breaker whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<CircuitBreaker, Config.ConfigError> =>
  Layer.effect(
    CircuitBreaker,
    Effect.flatMap(Config.unwrap(options), (options) => fromOptions(options, "CircuitBreaker.layerConfig"))
  )
