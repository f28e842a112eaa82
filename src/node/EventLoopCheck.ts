/**
 * Whether the event loop turns: how long anything that was ready had to wait, at worst.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { setTimeout as wait } from "node:timers/promises"
import * as HealthCheck from "../health/HealthCheck.ts"
import type { HealthError } from "../health/HealthError.ts"
import { HealthRegistry } from "../health/HealthRegistry.ts"
import { checkOptionNames, type CheckOptions, checkOptionsOf } from "../health/internal/checkOptions.ts"
import * as Check from "../internal/options.ts"
import { byRatio } from "./internal/thresholds.ts"

/**
 * What `layer` takes besides what `HealthCheck.make` takes.
 *
 * - `warn`: the longest delay from which it is degraded. Default 250 milliseconds.
 * - `critical`: the longest delay from which it is unhealthy, at least `warn`. Default 2 seconds.
 * - `isCritical`: what `HealthCheck.make` calls `critical`. Default true.
 * - `name`: default `event-loop`. `failAfter`: default 3: one long pause says nothing of the next call.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Omit<CheckOptions, "critical"> {
  readonly warn?: Duration.Input | undefined
  readonly critical?: Duration.Input | undefined
  readonly isCritical?: boolean | undefined
}

const resolutionMillis = 20
const maxTicks = 40

type Histogram = ReturnType<typeof monitorEventLoopDelay>

// A histogram that is emptied misses the turn that is under way. Of two that are emptied in turns one always sees it.
const monitor = () => {
  const start = (): Histogram => {
    const histogram = monitorEventLoopDelay({ resolution: resolutionMillis })
    histogram.enable()
    return histogram
  }
  const histograms: [older: Histogram, newer: Histogram] = [start(), start()]
  return {
    /** Waits until what went on before is counted: a pause that is just over is in no histogram before its next ticks. */
    settled: async (): Promise<void> => {
      const [older, newer] = histograms
      const [before, beside] = [older.count, newer.count]
      for (let tick = 0; tick < maxTicks && (older.count === before || newer.count === beside); tick++) {
        await wait(resolutionMillis)
      }
    },
    /** The longest delay in milliseconds since the look before the last. */
    worst: (): number => {
      const [older, newer] = histograms
      const worst = Math.max(older.max, newer.max) / 1_000_000 - resolutionMillis
      older.reset()
      histograms[0] = newer
      histograms[1] = older
      return Math.max(0, worst)
    },
    stop: (): void => {
      for (const histogram of histograms) histogram.disable()
    }
  }
}

/**
 * Measures the event loop as long as the layer lives, and registers the check.
 *
 * **Details**
 *
 * The check tells the longest delay since the run before the last, so each pause is told once or twice. Readiness that goes
 * by it takes a program out of the traffic that would wait; liveness does not look at it, since a program that answers is
 * alive.
 *
 * **Example** (Watching the event loop)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { HealthRegistry } from "effect-toolops/health"
 * import { EventLoopCheck } from "effect-toolops/node"
 *
 * const Health = EventLoopCheck.layer({ warn: "1 minute", critical: "1 hour" }).pipe(
 *   Layer.provideMerge(HealthRegistry.layer)
 * )
 * const program = Effect.gen(function*() {
 *   const registry = yield* HealthRegistry.HealthRegistry
 *   const { details, status } = yield* registry.check("event-loop")
 *   return [status, typeof details?.["worstDelayMillis"]]
 * })
 * await Effect.runPromise(Effect.provide(program, Health)) // => ["healthy", "number"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, HealthError, HealthRegistry> => {
  const where = "EventLoopCheck.layer"
  Check.known(where, options, [...checkOptionNames, "warn", "isCritical"])
  const warn = Check.millis(where, "warn", options.warn ?? 250)
  const critical = Check.millis(where, "critical", options.critical ?? Math.max(2000, warn))
  if (critical < warn) {
    throw new RangeError(`${where}: critical must be at least warn, got ${critical} ms and ${warn} ms`)
  }
  const { critical: _, ...rest } = options
  return Layer.effectDiscard(Effect.gen(function*() {
    const registry = yield* HealthRegistry
    const { settled, worst } = yield* Effect.acquireRelease(Effect.sync(monitor), ({ stop }) => Effect.sync(stop))
    yield* registry.register(HealthCheck.make({
      name: "event-loop",
      failAfter: 3,
      ...checkOptionsOf(rest),
      critical: options.isCritical ?? true,
      check: Effect.map(Effect.promise(settled), (): HealthCheck.CheckAnswer => {
        const delay = worst()
        return {
          status: byRatio(delay, warn, critical),
          details: { worstDelayMillis: Math.round(delay) }
        }
      })
    }))
  }))
}

/**
 * Registers the check with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<never, HealthError | Config.ConfigError, HealthRegistry> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))
