/**
 * A circuit whose state several processes share through Redis.
 *
 * The one file that touches `effect/persistence` `CircuitBreaker`, which keeps the state by the server's clock, with a lease
 * on the probe that it renews for as long as the probe runs. What that leaves open is closed here: a lease is not renewed,
 * a command that is not answered is given up, so many are under way at once, a Redis that keeps failing is left alone for a
 * second at a time, and meanwhile this process decides by a circuit of its own, or refuses.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
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
import { StoreCommands, storePause } from "./internal/storeCommands.ts"
import { circuitOpen, ResilienceError, resilienceError } from "./ResilienceError.ts"
import { CurrentResilienceObserver } from "./ResilienceObserver.ts"

/**
 * What a shared circuit breaker is made of.
 *
 * - `name`: names the circuit in Redis too: breakers with one name, and one `prefix`, are one circuit. Give them the same
 *   options.
 * - `maxFailures`, `resetTimeout`, `maxResetTimeout`, `classify`: as in `Options`. There is one probe at a time, and its
 *   success closes the circuit.
 * - `probeLease`: how long a probe keeps its place without an answer. Default 30 seconds. Then the next call is the probe,
 *   and what the former one comes to changes nothing. Give it more than a call takes.
 * - `window`: a count window without `slowCall`.
 * - `prefix`: of the keys in Redis. Default `effect-toolops:circuit:`.
 * - `commandTimeout`: how long a call waits for Redis before it starts, and after it has ended; and `reset`, which goes for
 *   this process only where Redis does not answer. Default 100 ms. After three waits in vain nobody waits for a second.
 * - `maxCommands`: how many calls wait for Redis at once, a whole number from 1. Default 1,000. For one more it is as if
 *   Redis did not answer: `onStoreError` decides, and the result of a call that has run is not counted, save a probe's.
 * - `onStoreError`: while Redis does not answer, `local` lets each process go by a circuit of its own, `refuse` refuses
 *   every call. Default `local`.
 *
 * While a probe is out, `retryAfter` of a refusal and of a snapshot is what is left of its lease, for which Redis is asked
 * once more, and the whole `probeLease` where it does not answer that.
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
  readonly maxCommands?: number | undefined
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
  maxCommands: true,
  onStoreError: true
}

// How long Redis keeps a circuit that nobody asks for, beyond its open time or its probe's lease.
const idleMillis = 3_600_000

/** @internal */
export const make = (
  options: SharedOptions,
  where: string
): Effect.Effect<CircuitBreaker["Service"], never, Redis.Redis | Scope.Scope> => {
  const { commandTimeout = "100 millis", maxCommands = 1000, onStoreError = "local", ...others } = options
  const { prefix = "effect-toolops:circuit:", ...circuit } = others
  Check.known(where, options, Object.keys(optionNames))
  // A local circuit has a default name. Here it would make one circuit of all that were given none.
  if (options.name === undefined) throw new TypeError(`${where}: name is missing: it names the circuit in Redis`)
  const settings = CircuitOptions.resolve(circuit, where)
  if (typeof prefix !== "string") throw new TypeError(`${where}: prefix must be a string`)
  if (options.window !== undefined && (options.window.type !== "count" || "slowCall" in options.window)) {
    throw new TypeError(`${where}: window must be a count window without slowCall`)
  }
  Check.oneOf(where, "onStoreError", onStoreError, ["local", "refuse"])
  const limits = {
    timeout: Check.millis(where, "commandTimeout", commandTimeout),
    maxCommands: Check.integer(where, "maxCommands", maxCommands, 1),
    isAnswer
  }
  return Effect.gen(function*() {
    const commands = new StoreCommands(limits, where)
    const redis = yield* Redis.Redis
    const probeLease = settings.probeLeaseMillis
    const stores = yield* Layer.build(Persisted.layerStoreRedis({ prefix, probeLease, idleTimeToLive: idleMillis }))
    const openDuration = openingsOf(settings.openMillis)
    const shared = yield* Effect.provideService(
      Persisted.make({ tripPolicy: tripPolicyOf(options), openDuration, onStoreError: "fail" }),
      Persisted.CircuitBreakerStore,
      bounded(Context.get(stores, Persisted.CircuitBreakerStore), probeLease, commands)
    )
    const local = new CircuitBreakerImpl(settings, yield* CurrentResilienceObserver)
    const key = `${prefix}${settings.name}`
    // The store does not tell what is left of a lease, but it keeps the key for so much longer.
    const leaseLeft = Effect.match(commands.send(redis.send<number>("PTTL", key)), {
      onFailure: () => Duration.millis(probeLease),
      onSuccess: (millis) => Duration.millis(Math.max(1, millis - idleMillis))
    })
    const forget = commands.sendAlways(redis.send("DEL", key))
    return new SharedCircuitBreaker(settings, shared, local, onStoreError, leaseLeft, forget)
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

const isStoreError = (error: unknown): boolean =>
  error instanceof Persisted.CircuitBreakerError && error.reason._tag === "CircuitBreakerStoreError"

const silence = new Persisted.CircuitBreakerStoreError({ message: "Redis does not answer" })

const answering = <A, E>(command: Effect.Effect<A, E | ResilienceError>) =>
  Effect.mapError(
    command,
    (error) => error instanceof ResilienceError ? new Persisted.CircuitBreakerError({ reason: silence }) : error
  )

/** The store with a bound on what waits for it, and with leases that end. */
const bounded = (
  store: Persisted.CircuitBreakerStore["Service"],
  probeLeaseMillis: number,
  commands: StoreCommands
): Persisted.CircuitBreakerStore["Service"] => {
  // The probes of this process, by generation, and when the lease of each is over.
  const probes = new Map<number, number>()
  return {
    // The breaker waits uninterruptibly, so that the result of a call that was interrupted arrives too. The timeout runs
    // the command in a fiber of its own and answers in any case.
    admit: (key) =>
      Effect.withFiber((fiber) => {
        const leaseEnd = monotonicMillis(fiber) + probeLeaseMillis
        // The scope's end is the end of the renewals, which would keep the place of a probe that never settles.
        return Effect.map(answering(commands.send(Effect.scoped(store.admit(key)))), (admission) => {
          if (admission.probe) probes.set(admission.generation, leaseEnd)
          return admission
        })
      }),
    record: (result) =>
      Effect.withFiber((fiber) => {
        const leaseEnd = probes.get(result.generation)
        probes.delete(result.generation)
        if (leaseEnd !== undefined && leaseEnd <= monotonicMillis(fiber)) return Effect.undefined
        const command = store.record(result)
        const sent = leaseEnd === undefined ? commands.send(command) : commands.sendAlways(command)
        // A result that does not arrive is lost: the call has its answer, and the store its lease.
        return Effect.catchIf(answering(sent), isStoreError, () => Effect.undefined)
      }),
    state: (key) => answering(commands.send(store.state(key)))
  }
}

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
  /** How long until the next call is admitted, while another one is the probe. */
  private readonly leaseLeft: Effect.Effect<Duration.Duration>

  constructor(
    settings: CircuitOptions.Settings,
    shared: Persisted.CircuitBreaker,
    local: CircuitBreakerImpl,
    onStoreError: "local" | "refuse",
    leaseLeft: Effect.Effect<Duration.Duration>,
    forget: Effect.Effect<unknown, unknown>
  ) {
    this.name = settings.name
    this.settings = settings
    this.shared = shared
    this.local = local
    this.onStoreError = onStoreError
    this.leaseLeft = leaseLeft
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
    const outcome = isInterruption(exit) ? "ignored" : this.settings.classify(exit)
    return outcome === "failure" ? Persisted.failure() : outcome === "success" ? Persisted.success : Persisted.ignored
  }

  private refuse<A, E, R>(
    reason: Persisted.CircuitBreakerErrorReason,
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | ResilienceError, R> {
    if (reason._tag === "CircuitBreakerStoreError" && this.onStoreError === "local") return this.local.execute(effect)
    const refused = (retryAfter: Duration.Duration) => Effect.fail(resilienceError(circuitOpen(this.name, retryAfter)))
    if (reason._tag === "CircuitHalfOpen") return Effect.flatMap(this.leaseLeft, refused)
    return refused(reason._tag === "CircuitOpen" ? reason.retryAfter : storePause)
  }

  private look(): Effect.Effect<Snapshot> {
    if (this.local.isForced()) return this.local.snapshot
    return Effect.matchEffect(this.shared.state(this.name), {
      onFailure: () => this.local.snapshot,
      onSuccess: (state) => {
        const isProbing = state._tag === "HalfOpen" && state.probing
        const openFor = state._tag === "Open" ? state.retryAfter : Duration.zero
        return Effect.map(isProbing ? this.leaseLeft : Effect.succeed(openFor), (retryAfter): Snapshot => ({
          name: this.name,
          status: statuses[state._tag],
          generation: 0,
          retryAfter,
          calls: 0,
          failures: 0,
          slow: 0,
          openings: state._tag === "Closed" ? 0 : state.consecutiveOpenings,
          probes: isProbing ? 1 : 0,
          successes: 0
        }))
      }
    })
  }
}

const transitionOf = (transition: Persisted.Transition): Transition => ({
  name: transition.key,
  from: statuses[transition.from],
  to: statuses[transition.to],
  generation: 0,
  openings: transition.to === "Open" ? transition.consecutiveOpenings : 0
})
