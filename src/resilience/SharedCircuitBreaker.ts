/**
 * A circuit whose state several processes share through Redis.
 *
 * The one file that touches `effect/persistence` `CircuitBreaker`, which keeps the state by the server's clock, with a lease
 * on the probe. What it leaves open is closed here: a command that is not answered is given up, a Redis that keeps failing
 * is left alone for a second at a time, and meanwhile this process decides by a circuit of its own, or refuses.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Persisted from "effect/persistence/CircuitBreaker"
import * as Redis from "effect/persistence/Redis"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Check from "../internal/options.ts"
import type { CircuitBreaker, Snapshot, Transition } from "./CircuitBreaker.ts"
import { isInterruption } from "./Classify.ts"
import { CircuitBreakerImpl } from "./internal/circuitBreaker.ts"
import * as CircuitOptions from "./internal/circuitOptions.ts"
import type { Status } from "./internal/circuitState.ts"
import type { TimeoutImpl } from "./internal/timeout.ts"
import { circuitOpen, type ResilienceError, resilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver } from "./ResilienceObserver.ts"
import * as Timeout from "./Timeout.ts"

/**
 * What a shared circuit breaker is made of.
 *
 * - `name`: names the circuit in Redis too: breakers with one name, and one `prefix`, are one circuit. Give them the same
 *   options.
 * - `maxFailures`, `resetTimeout`, `maxResetTimeout`, `probeLease`, `classify`: as in `Options`. There is one probe at a
 *   time, and its success closes the circuit.
 * - `window`: a count window without `slowCall`.
 * - `prefix`: of the keys in Redis. Default `effect-toolops:circuit:`.
 * - `commandTimeout`: how long a call waits for Redis before it starts, and after it has ended. Default 100 ms.
 * - `onStoreError`: while Redis does not answer, `local` lets each process go by a circuit of its own, `refuse` refuses
 *   every call. Default `local`.
 *
 * @category options
 * @since 0.1.0
 */
export interface SharedOptions {
  readonly name: string
  readonly maxFailures?: number | undefined
  readonly window?: Omit<CircuitOptions.CountWindowOptions, "slowCall"> | undefined
  readonly resetTimeout?: CircuitOptions.Options["resetTimeout"]
  readonly maxResetTimeout?: Duration.Input | undefined
  readonly probeLease?: Duration.Input | undefined
  readonly classify?: CircuitOptions.Options["classify"]
  readonly prefix?: string | undefined
  readonly commandTimeout?: Duration.Input | undefined
  readonly onStoreError?: "local" | "refuse" | undefined
}

const optionNames: { readonly [K in keyof Required<SharedOptions>]: true } = {
  name: true,
  maxFailures: true,
  window: true,
  resetTimeout: true,
  maxResetTimeout: true,
  probeLease: true,
  classify: true,
  prefix: true,
  commandTimeout: true,
  onStoreError: true
}

// How long a Redis that keeps failing is left alone.
const storePause = Duration.seconds(1)

/** @internal */
export const make = (
  options: SharedOptions,
  where: string
): Effect.Effect<CircuitBreaker["Service"], never, Redis.Redis | Scope.Scope> => {
  const { commandTimeout = "100 millis", onStoreError = "local", prefix = "effect-toolops:circuit:", ...circuit } =
    options
  Check.known(where, options, Object.keys(optionNames))
  const settings = CircuitOptions.resolve(circuit, where)
  if (typeof options.name !== "string" || options.name === "") throw new TypeError(`${where}: name must not be empty`)
  if (typeof prefix !== "string") throw new TypeError(`${where}: prefix must be a string`)
  if (options.window !== undefined && (options.window.type !== "count" || "slowCall" in options.window)) {
    throw new TypeError(`${where}: window must be a count window without slowCall`)
  }
  Check.oneOf(where, "onStoreError", onStoreError, ["local", "refuse"])
  Check.millis(where, "commandTimeout", commandTimeout)
  const timeout = Timeout.makeUnsafe({ timeout: commandTimeout, grace: 0 }, where)
  return Effect.gen(function*() {
    const redis = yield* Redis.Redis
    const observer = yield* CurrentResilienceObserver
    const shared = yield* Persisted.make({
      tripPolicy: tripPolicyOf(options),
      openDuration: openingsOf(settings.openMillis),
      onStoreError: "fail"
    }).pipe(Effect.provide(storeOf(prefix, settings.probeLeaseMillis, timeout)))
    const local = new CircuitBreakerImpl(settings, observer)
    return new SharedCircuitBreaker(
      settings,
      shared,
      local,
      onStoreError,
      redis.send("DEL", `${prefix}${settings.name}`)
    )
  })
}

const tripPolicyOf = ({ maxFailures, window }: SharedOptions): Persisted.TripPolicy =>
  window === undefined
    ? Persisted.consecutive(maxFailures ?? 5)
    : Persisted.rate({
      size: window.size,
      threshold: window.failureRate ?? 0.5,
      minimumCalls: window.minimumCalls ?? window.size
    })

const openingsOf = (millis: ReadonlyArray<number>): Schedule.Schedule<number, number> =>
  Schedule.fromStep(Effect.sync(() => {
    let openings = 0
    return () => {
      openings += 1
      return Effect.succeed([openings, Duration.millis(millis[Math.min(openings, millis.length) - 1]!)])
    }
  }))

const storeError = (message: string): Persisted.CircuitBreakerError =>
  new Persisted.CircuitBreakerError({ reason: new Persisted.CircuitBreakerStoreError({ message }) })

const isStoreError = (error: unknown): boolean =>
  error instanceof Persisted.CircuitBreakerError && error.reason._tag === "CircuitBreakerStoreError"

/** The store in Redis, with an end to every command and a pause when they fail. */
const storeOf = (
  prefix: string,
  probeLeaseMillis: number,
  timeout: TimeoutImpl
): Layer.Layer<Persisted.CircuitBreakerStore, never, Redis.Redis> =>
  Layer.effect(
    Persisted.CircuitBreakerStore,
    Effect.map(Persisted.CircuitBreakerStore, (store) => {
      const pause = new CircuitBreakerImpl(
        CircuitOptions.resolve({
          maxFailures: 3,
          resetTimeout: storePause,
          // What the store says of the circuit is an answer like any other.
          classify: (exit) =>
            exit._tag === "Failure" &&
              exit.cause.reasons.some((reason) => reason._tag !== "Fail" || !isAnswer(reason.error))
              ? "failure"
              : "success"
        }, "CircuitBreaker.layerShared"),
        undefined
      )
      // The call waits uninterruptibly, so that the result of a call that was interrupted arrives too. The timeout runs the
      // command in a fiber of its own and answers in any case.
      const within = <A, R>(command: Effect.Effect<A, Persisted.CircuitBreakerError, R>) =>
        Effect.mapError(pause.execute(timeout.execute(command)), (error) =>
          error._tag === "ResilienceError" ? storeError("Redis does not answer") : error)
      // The probes of this process, by generation, and when the lease of each is over.
      const probes = new Map<number, number>()
      return Persisted.CircuitBreakerStore.of({
        admit: (key) =>
          Effect.withFiber((fiber) => {
            const leaseEnd = monotonicMillis(fiber) + probeLeaseMillis
            // The scope's end is the end of the renewals, which would keep the place of a probe that never settles.
            return Effect.map(within(Effect.scoped(store.admit(key))), (admission) => {
              if (admission.probe) {
                probes.set(admission.generation, leaseEnd)
              }
              return admission
            })
          }),
        record: (result) =>
          Effect.withFiber((fiber) => {
            const leaseEnd = probes.get(result.generation) ?? Infinity
            probes.delete(result.generation)
            if (leaseEnd <= monotonicMillis(fiber)) {
              return Effect.undefined
            }
            // A result that does not arrive is lost: the call has its answer, and the store its lease.
            return Effect.catchIf(within(store.record(result)), isStoreError, () =>
              Effect.undefined)
          }),
        state: (key) => within(store.state(key))
      })
    })
  ).pipe(Layer.provide(Persisted.layerStoreRedis({ prefix, probeLease: probeLeaseMillis })))

const isAnswer = (error: unknown): boolean => error instanceof Persisted.CircuitBreakerError && !isStoreError(error)

const statuses: { readonly [T in Persisted.State["_tag"]]: Status } = {
  Closed: "closed",
  Open: "open",
  HalfOpen: "half-open"
}

class SharedCircuitBreaker {
  readonly name: string
  readonly state: Effect.Effect<Status>
  readonly snapshot: Effect.Effect<Snapshot>
  readonly transitions: Stream.Stream<Transition>
  readonly forceOpen: Effect.Effect<void>
  readonly disable: Effect.Effect<void>
  readonly metricsOnly: Effect.Effect<void>
  readonly reset: Effect.Effect<void>
  private readonly settings: CircuitOptions.Settings
  private readonly shared: Persisted.CircuitBreaker
  private readonly local: CircuitBreakerImpl
  private readonly onStoreError: "local" | "refuse"

  constructor(
    settings: CircuitOptions.Settings,
    shared: Persisted.CircuitBreaker,
    local: CircuitBreakerImpl,
    onStoreError: "local" | "refuse",
    forget: Effect.Effect<unknown, unknown>
  ) {
    this.name = settings.name
    this.settings = settings
    this.shared = shared
    this.local = local
    this.onStoreError = onStoreError
    this.snapshot = Effect.suspend(() => this.look())
    this.state = Effect.map(this.snapshot, ({ status }) => status)
    this.transitions = Stream.merge(local.transitions, Stream.map(shared.transitions, transitionOf))
    // An operator's word goes for this process.
    this.forceOpen = local.forceOpen
    this.disable = local.disable
    this.metricsOnly = local.metricsOnly
    this.reset = Effect.andThen(local.reset, Effect.ignore(forget))
  }

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | ResilienceError, R> {
    // Inside, the work's result is a value, so that every error out there is the breaker's.
    const guarded = Effect.matchEffect(
      this.shared.execute(Effect.exit(effect), {
        key: this.name,
        classify: (exit) => exit._tag === "Success" ? this.classify(exit.value) : Persisted.ignored
      }),
      { onFailure: ({ reason }) => this.refuse(reason, effect), onSuccess: (exit) => exit }
    )
    return Effect.suspend(() => this.local.isForced() ? this.local.execute(effect) : guarded)
  }

  private classify(exit: Exit.Exit<unknown, unknown>): Persisted.Outcome {
    if (isInterruption(exit)) return Persisted.ignored
    const outcome = this.settings.classify(exit)
    return outcome === "failure" ? failure : outcome === "success" ? Persisted.success : Persisted.ignored
  }

  private refuse<A, E, R>(
    reason: Persisted.CircuitBreakerErrorReason,
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | ResilienceError, R> {
    if (reason._tag === "CircuitBreakerStoreError" && this.onStoreError === "local") return this.local.execute(effect)
    const retryAfter = reason._tag === "CircuitOpen" ? reason.retryAfter : storePause
    return Effect.fail(resilienceError(circuitOpen(this.name, retryAfter)))
  }

  private look(): Effect.Effect<Snapshot> {
    if (this.local.isForced()) return this.local.snapshot
    return Effect.matchEffect(this.shared.state(this.name), {
      onFailure: () => this.local.snapshot,
      onSuccess: (state) =>
        Effect.succeed<Snapshot>({
          name: this.name,
          status: statuses[state._tag],
          generation: 0,
          retryAfter: state._tag === "Open" ? state.retryAfter : Duration.zero,
          calls: 0,
          failures: 0,
          slow: 0,
          openings: state._tag === "Closed" ? 0 : state.consecutiveOpenings,
          probes: state._tag === "HalfOpen" && state.probing ? 1 : 0,
          successes: 0
        })
    })
  }
}

const failure = Persisted.failure()

const transitionOf = (transition: Persisted.Transition): Transition => ({
  name: transition.key,
  from: statuses[transition.from],
  to: statuses[transition.to],
  generation: 0,
  openings: transition.to === "Open" ? transition.consecutiveOpenings : 0
})
