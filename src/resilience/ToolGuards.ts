/**
 * The circuits, bulkheads and retry budgets that guard tools, one set per tool or per dependency.
 *
 * The resilience stage makes them as tools are called. Health checks, metrics and operators find them here.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Bulkhead from "./Bulkhead.ts"
import type * as CircuitBreaker from "./CircuitBreaker.ts"
import { BulkheadImpl } from "./internal/bulkhead.ts"
import { CircuitBreakerImpl } from "./internal/circuitBreaker.ts"
import * as CircuitOptions from "./internal/circuitOptions.ts"
import { type Entry, KeyedRegistry } from "./internal/keyedRegistry.ts"
import type { ResilienceObserver } from "./ResilienceObserver.ts"
import * as RetryBudget from "./RetryBudget.ts"

/**
 * One set of parts at one instant. `key` is the tool's id, or the dependency that several tools share. Parts that no tool
 * wants are missing.
 *
 * @category models
 * @since 0.1.0
 */
export interface GuardSnapshot {
  readonly key: string
  readonly circuitBreaker: CircuitBreaker.Snapshot | undefined
  readonly bulkhead: Bulkhead.Snapshot | undefined
  readonly retryBudget: RetryBudget.Snapshot | undefined
}

/**
 * What guards the tools that have been wrapped or called so far.
 *
 * @category services
 * @since 0.1.0
 */
export class ToolGuards extends Context.Service<ToolGuards, {
  readonly snapshots: Effect.Effect<ReadonlyArray<GuardSnapshot>>
  /** The circuit of a tool or dependency, to look at or to force. None before the tool is wrapped or called. */
  readonly circuitBreaker: (key: string) => Effect.Effect<Option.Option<CircuitBreaker.CircuitBreaker["Service"]>>
}>()("effect-toolops/resilience/ToolGuards") {}

/** @internal The parts of one key. Each is made for the first tool that wants it. */
export class Guard implements Entry {
  readonly key: string
  isUsed = false
  isForgotten = false
  bulkhead: BulkheadImpl | undefined = undefined
  breaker: CircuitBreakerImpl | undefined = undefined
  budget: RetryBudget.RetryBudgetImpl | undefined = undefined
  readonly observer: ResilienceObserver | undefined
  private readonly context: Context.Context<never>
  /** What the parts were made of, by the name of the part. */
  private readonly wanted = new Map<string, unknown>()

  constructor(key: string, observer: ResilienceObserver | undefined, context: Context.Context<never>) {
    this.key = key
    this.observer = observer
    this.context = context
  }

  isIdle(): boolean {
    return (this.bulkhead === undefined || this.bulkhead.isIdle()) &&
      (this.breaker === undefined || this.breaker.isClosed())
  }

  bulkheadOf(options: Bulkhead.Options, where: string): BulkheadImpl {
    const settings = Bulkhead.resolve({ name: this.key, ...options }, where)
    this.agree("bulkhead", settings, where)
    return this.bulkhead ??= new BulkheadImpl(settings, this.observer)
  }

  breakerOf(options: CircuitBreaker.Options, where: string): CircuitBreakerImpl {
    const settings = CircuitOptions.resolve({ name: this.key, ...options }, where, this.context)
    // A `Schedule` may give other lengths each time that it is read.
    const openings = Schedule.isSchedule(options.resetTimeout) ? options.resetTimeout : settings.openMillis
    this.agree("circuitBreaker", { ...settings, openMillis: openings }, where)
    return this.breaker ??= new CircuitBreakerImpl(settings, this.observer)
  }

  /** The budget for repetitions, unless nobody limits them. */
  budgetOf(option: RetryBudget.BudgetOption | undefined, where: string): RetryBudget.RetryBudgetImpl | undefined {
    const budget = RetryBudget.fromOption(option, where)
    if (budget === undefined) return undefined
    const { minPerSecond, share, sliceMillis } = budget
    this.agree("budget", budget === option ? budget : { minPerSecond, share, sliceMillis }, where)
    return this.budget ??= budget
  }

  snapshot(): Effect.Effect<GuardSnapshot> {
    const absent = Effect.undefined
    return Effect.all({
      key: Effect.succeed(this.key),
      circuitBreaker: this.breaker?.snapshot ?? absent,
      bulkhead: this.bulkhead?.snapshot ?? absent,
      retryBudget: this.budget?.snapshot ?? absent
    })
  }

  // Tools that share a dependency share its parts, and a part has one set of options. Which tool is called first must not
  // decide whose.
  private agree(part: string, settings: unknown, where: string): void {
    if (!this.wanted.has(part)) this.wanted.set(part, settings)
    else if (!Equal.equals(this.wanted.get(part), settings)) {
      throw new TypeError(`${where}: another tool of the dependency ${JSON.stringify(this.key)} sets other options`)
    }
  }
}

/** @internal */
export class Guards {
  readonly snapshots: Effect.Effect<ReadonlyArray<GuardSnapshot>>
  private readonly registry: KeyedRegistry<Guard>
  /** Those that found no place. They last as long as a tool that uses them. */
  private readonly others = new Map<string, WeakRef<Guard>>()
  private readonly collected = new FinalizationRegistry<string>((key) => {
    if (this.others.get(key)?.deref() === undefined) this.others.delete(key)
  })

  constructor(maxKeys: number, observer: ResilienceObserver | undefined, context: Context.Context<never>) {
    this.registry = new KeyedRegistry(maxKeys, (key) => this.takeOther(key) ?? new Guard(key, observer, context))
    this.snapshots = Effect.suspend(() => Effect.all(Array.from(this.all(), (guard) => guard.snapshot())))
  }

  /** The parts of `key`, made if need be. */
  get(key: string): Guard {
    const kept = this.registry.keep(key)
    if (kept !== undefined) return kept
    const guard = this.registry.make(key)
    this.others.set(key, new WeakRef(guard))
    this.collected.register(guard, key)
    return guard
  }

  peek(key: string): Guard | undefined {
    return this.registry.peek(key) ?? this.others.get(key)?.deref()
  }

  circuitBreaker(key: string): Effect.Effect<Option.Option<CircuitBreaker.CircuitBreaker["Service"]>> {
    return Effect.sync(() => Option.fromUndefinedOr(this.peek(key)?.breaker))
  }

  private *all(): Iterable<Guard> {
    yield* this.registry.values()
    for (const other of this.others.values()) {
      const guard = other.deref()
      if (guard !== undefined) yield guard
    }
  }

  private takeOther(key: string): Guard | undefined {
    const guard = this.others.get(key)?.deref()
    this.others.delete(key)
    return guard
  }
}
