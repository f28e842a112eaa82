/**
 * Stops calling a dependency that fails, and finds out by itself when it is well again.
 *
 * Closed, open, half-open: after enough failures calls are refused at once, after a pause a few probes are let through,
 * and their results decide. The breaker sees one outcome per execution, so put retry and timeout inside it.
 *
 * The state is one immutable value in a `Ref`. Reading it changes nothing, and every change of its status, and every reset,
 * starts a new generation: the result of a call that was admitted in an earlier one changes nothing either.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import type * as Stream from "effect/Stream"
import { breakerCheck } from "../health/internal/partChecks.ts"
import { CircuitBreakerImpl } from "./internal/circuitBreaker.ts"
import { type Options, resolve } from "./internal/circuitOptions.ts"
import type { Status } from "./internal/circuitState.ts"
import type { ResilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver } from "./ResilienceObserver.ts"
import * as Shared from "./SharedCircuitBreaker.ts"
import type { SharedOptions } from "./SharedCircuitBreaker.ts"

export type { CountWindowOptions, Options, SlowCall, TimeWindowOptions } from "./internal/circuitOptions.ts"
export type { Status } from "./internal/circuitState.ts"
export type { SharedOptions } from "./SharedCircuitBreaker.ts"

/**
 * A change of a circuit's status. `openings` is how often it has opened in a row.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transition {
  readonly name: string
  readonly from: Status
  readonly to: Status
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
  readonly status: Status
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
  readonly state: Effect.Effect<Status>
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
  Layer.effect(CircuitBreaker, Effect.tap(fromOptions(options, "CircuitBreaker.layer"), breakerCheck))

/**
 * Provides a circuit breaker whose options come from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<CircuitBreaker, Config.ConfigError> =>
  Layer.effect(
    CircuitBreaker,
    Effect.flatMap(
      Config.unwrap(options),
      (options) => Effect.tap(fromOptions(options, "CircuitBreaker.layerConfig"), breakerCheck)
    )
  )

/**
 * Provides a circuit breaker whose state is in Redis, shared with every process that provides one of the same name.
 *
 * **Details**
 *
 * Costs two round trips a call. While Redis does not answer, this process goes by a circuit of its own, or refuses, as
 * `onStoreError` says. `forceOpen`, `disable` and `metricsOnly` go for this process; `reset`
 * closes the circuit for all while Redis answers, and for this process in any case.
 * A snapshot tells the status and when to retry; the counts stay in Redis and read 0.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerShared = (options: SharedOptions): Layer.Layer<CircuitBreaker, never, Redis.Redis> =>
  Layer.effect(CircuitBreaker, Effect.tap(Shared.make(options, "CircuitBreaker.layerShared"), breakerCheck))

/**
 * The same with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSharedConfig = (
  options: Config.Wrap<SharedOptions>
): Layer.Layer<CircuitBreaker, Config.ConfigError, Redis.Redis> =>
  Layer.effect(
    CircuitBreaker,
    Effect.flatMap(
      Config.unwrap(options),
      (options) => Effect.tap(Shared.make(options, "CircuitBreaker.layerSharedConfig"), breakerCheck)
    )
  )
