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
 * What guards the tools that have been called so far.
 *
 * @category services
 * @since 0.1.0
 */
export class ToolGuards extends Context.Service<ToolGuards, {
  readonly snapshots: Effect.Effect<ReadonlyArray<GuardSnapshot>>
  /** The circuit of a tool or dependency, to look at or to force. None before its first call. */
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
    this.agree("bulkhead", options, where)
    return this.bulkhead ??= new BulkheadImpl(
      Bulkhead.resolve({ name: this.key, ...options }, where),
      this.observer
    )
  }

  breakerOf(options: CircuitBreaker.Options, where: string): CircuitBreakerImpl {
    this.agree("circuitBreaker", options, where)
    return this.breaker ??= new CircuitBreakerImpl(
      CircuitOptions.resolve({ name: this.key, ...options }, where, this.context),
      this.observer
    )
  }

  /** The budget for repetitions, unless nobody limits them. */
  budgetOf(option: RetryBudget.BudgetOption | undefined, where: string): RetryBudget.RetryBudgetImpl | undefined {
    this.agree("retry.budget", option, where)
    return this.budget ??= RetryBudget.fromOption(option, where)
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
  private agree(part: string, options: unknown, where: string): void {
    if (!this.wanted.has(part)) this.wanted.set(part, options)
    else if (!Equal.equals(this.wanted.get(part), options)) {
      throw new TypeError(`${where}: another tool of the dependency ${JSON.stringify(this.key)} sets other options`)
    }
  }
}

/** @internal */
export class Guards {
  readonly registry: KeyedRegistry<Guard>
  readonly snapshots: Effect.Effect<ReadonlyArray<GuardSnapshot>>

  constructor(maxKeys: number, observer: ResilienceObserver | undefined, context: Context.Context<never>) {
    this.registry = new KeyedRegistry(maxKeys, (key) => new Guard(key, observer, context))
    this.snapshots = Effect.suspend(() => Effect.all(Array.from(this.registry.values(), (guard) => guard.snapshot())))
  }

  /** The parts of `key`. Where there is no place for them they are the caller's alone, to be kept by it. */
  get(key: string): Guard {
    return this.registry.keep(key) ?? this.registry.make(key)
  }

  circuitBreaker(key: string): Effect.Effect<Option.Option<CircuitBreaker.CircuitBreaker["Service"]>> {
    return Effect.sync(() => Option.fromUndefinedOr(this.registry.peek(key)?.breaker))
  }
}
