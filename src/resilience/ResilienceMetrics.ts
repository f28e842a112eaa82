/**
 * Metrics of the parts, for what the records of calls cannot tell: the state of circuits and bulkheads between calls.
 *
 * Provide the layer to `ResilienceMiddleware.layer`, or to whatever makes parts. Without it nobody looks and the parts pay
 * nothing. The label is the name of the part: for tools their id, or the dependency that they share.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type { Definition } from "../internal/metricSeries.ts"
import * as Check from "../internal/options.ts"
import type * as CircuitBreaker from "./CircuitBreaker.ts"
import { CurrentResilienceObserver, type ResilienceObserver } from "./ResilienceObserver.ts"

/**
 * - `maxDependencies`: names with series of their own, a whole number from 1. Default 1,000; those beyond are told together
 *   as `_other`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly maxDependencies?: number | undefined
}

type Series = Metric.Metric<number, unknown>

const labels = ["dependency"]

const definitions = {
  transitions: {
    type: "counter",
    name: "tool.circuit.transitions",
    unit: "{transition}",
    description: "Changes of a circuit's status",
    labels: [...labels, "from", "to"]
  },
  state: {
    type: "gauge",
    name: "tool.circuit.state",
    unit: "1",
    description: "0 for a circuit that lets calls pass, 1 for a half-open one, 2 for one that refuses them",
    labels
  },
  active: {
    type: "gauge",
    name: "tool.bulkhead.active",
    unit: "{call}",
    description: "Slots of a bulkhead in use",
    labels
  },
  queued: {
    type: "gauge",
    name: "tool.bulkhead.queued",
    unit: "{call}",
    description: "Calls that wait for a slot",
    labels
  },
  timeouts: {
    type: "counter",
    name: "tool.timeout.total",
    unit: "{attempt}",
    description: "Attempts that were not done in time",
    labels
  },
  late: {
    type: "counter",
    name: "tool.timeout.late",
    unit: "{attempt}",
    description: "Attempts that ended after their caller had been answered",
    labels
  },
  retries: {
    type: "counter",
    name: "tool.retry.attempts",
    unit: "{attempt}",
    description: "Attempts that were made because one before had failed",
    labels
  },
  hedges: {
    type: "counter",
    name: "tool.hedge.total",
    unit: "{attempt}",
    description: "Attempts that were started beside one that took long",
    labels
  }
} as const satisfies Record<string, Definition>

/**
 * Every metric that is updated here, for those who draw or export them.
 *
 * @category metrics
 * @since 0.1.0
 */
export const metrics: ReadonlyArray<Definition> = Object.values(definitions)

const make = ({ description, name, type, unit }: Definition, attributes: Readonly<Record<string, string>>): Series => {
  const options = { description, attributes: { unit, ...attributes } }
  return type === "gauge" ? Metric.gauge(name, options) : Metric.counter(name, { ...options, incremental: true })
}

/** The series of one name. */
class Dependency {
  readonly active: Series
  readonly queued: Series
  readonly state: Series
  readonly timeouts: Series
  readonly late: Series
  readonly retries: Series
  readonly hedges: Series
  private readonly dependency: string
  private readonly transitions = new Map<string, Series>()

  constructor(dependency: string) {
    this.dependency = dependency
    this.active = make(definitions.active, { dependency })
    this.queued = make(definitions.queued, { dependency })
    this.state = make(definitions.state, { dependency })
    this.timeouts = make(definitions.timeouts, { dependency })
    this.late = make(definitions.late, { dependency })
    this.retries = make(definitions.retries, { dependency })
    this.hedges = make(definitions.hedges, { dependency })
  }

  transition(from: CircuitBreaker.Status, to: CircuitBreaker.Status): Series {
    const key = `${from} ${to}`
    let series = this.transitions.get(key)
    if (series === undefined) {
      series = make(definitions.transitions, { dependency: this.dependency, from, to })
      this.transitions.set(key, series)
    }
    return series
  }
}

const valueOf: { readonly [S in CircuitBreaker.Status]: number } = {
  closed: 0,
  "half-open": 1,
  open: 2,
  "forced-open": 2,
  disabled: 0,
  "metrics-only": 0
}

const observerOf = (maxDependencies: number, context: Context.Context<never>): ResilienceObserver => {
  const known = new Map<string, Dependency>()
  let others: Dependency | undefined = undefined
  const of = (name: string): Dependency => {
    const found = known.get(name)
    if (found !== undefined) return found
    if (known.size >= maxDependencies) return others ??= new Dependency("_other")
    const dependency = new Dependency(name)
    known.set(name, dependency)
    return dependency
  }
  return {
    onTransition: ({ from, name, to }) => {
      const dependency = of(name)
      dependency.transition(from, to).updateUnsafe(1, context)
      dependency.state.updateUnsafe(valueOf[to], context)
    },
    onBulkhead: (name, { active, queued }) => {
      const dependency = of(name)
      dependency.active.updateUnsafe(active, context)
      dependency.queued.updateUnsafe(queued, context)
    },
    onTimeout: (name) => of(name).timeouts.updateUnsafe(1, context),
    onLateResult: (name) => of(name).late.updateUnsafe(1, context),
    onRetry: (name) => of(name).retries.updateUnsafe(1, context),
    onHedge: (name) => of(name).hedges.updateUnsafe(1, context)
  }
}

const fromOptions = (options: Options | undefined, where: string): Effect.Effect<ResilienceObserver> => {
  Check.known(where, options ?? {}, ["maxDependencies"])
  const maxDependencies = Check.integer(where, "maxDependencies", options?.maxDependencies ?? 1000, 1)
  return Effect.contextWith((context: Context.Context<never>) => Effect.succeed(observerOf(maxDependencies, context)))
}

/**
 * Updates Effect's metrics from what the parts tell.
 *
 * **Example** (Metrics of the resilience stage)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { ResilienceMetrics, ResilienceMiddleware } from "effect-toolops/resilience"
 *
 * const Resilience = ResilienceMiddleware.layer().pipe(Layer.provide(ResilienceMetrics.layer()))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<never> =>
  Layer.effect(CurrentResilienceObserver, fromOptions(options, "ResilienceMetrics.layer"))

/**
 * The same with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<never, Config.ConfigError> =>
  Layer.effect(
    CurrentResilienceObserver,
    Effect.flatMap(Config.unwrap(options), (options) => fromOptions(options, "ResilienceMetrics.layerConfig"))
  )
