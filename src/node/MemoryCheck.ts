/**
 * Whether memory is running out: V8's heap against its limit, and the container's memory against that of its cgroup.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { getHeapStatistics } from "node:v8"
import * as HealthCheck from "../health/HealthCheck.ts"
import type { HealthError } from "../health/HealthError.ts"
import { type HealthRegistry, layerCheck } from "../health/HealthRegistry.ts"
import { checkOptionNames, type CheckOptions, checkOptionsOf } from "../health/internal/checkOptions.ts"
import * as Check from "../internal/options.ts"
import { byRatio, thresholds } from "./internal/thresholds.ts"

/**
 * What `make` and `layer` take besides what `HealthCheck.make` takes.
 *
 * - `warn`: the used share from which it is degraded, above 0 and at most 1. Default 0.80.
 * - `critical`: the used share from which it is unhealthy, from `warn` to 1. Default 0.95.
 * - `isCritical`: what `HealthCheck.make` calls `critical`. Default true.
 * - `cgroup`: where the files of the cgroup are. Default `/sys/fs/cgroup`; without a limit there the heap alone counts.
 * - `name`: default `memory`. `failAfter`: default 3, so that one full heap before a collection refuses no traffic.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Omit<CheckOptions, "critical"> {
  readonly warn?: number | undefined
  readonly critical?: number | undefined
  readonly isCritical?: boolean | undefined
  readonly cgroup?: string | undefined
}

const read = (...path: ReadonlyArray<string>): string | undefined => {
  try {
    return readFileSync(join(...path), "utf8").trim()
  } catch {
    return undefined
  }
}

const numberIn = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined

interface Usage {
  readonly used: number
  readonly limit: number
}

/** An unlimited cgroup of version 1 has a limit near 2^63. */
const unlimited = 2 ** 60

// What the kernel can drop at once (the file cache that nobody uses) is not counted, as the kubelet does not either.
const cgroupUsage = (root: string): Usage | undefined => {
  const [limit, current, stat, inactive] = read(root, "memory.max") !== undefined
    ? [read(root, "memory.max"), read(root, "memory.current"), read(root, "memory.stat"), /^inactive_file (\d+)$/m]
    : [
      read(root, "memory", "memory.limit_in_bytes"),
      read(root, "memory", "memory.usage_in_bytes"),
      read(root, "memory", "memory.stat"),
      /^total_inactive_file (\d+)$/m
    ]
  const most = numberIn(limit)
  const used = numberIn(current)
  if (most === undefined || used === undefined || most === 0 || most > unlimited) return undefined
  return { limit: most, used: Math.max(0, used - (numberIn(inactive.exec(stat ?? "")?.[1]) ?? 0)) }
}

const share = ({ limit, used }: Usage): number => Math.round((used / limit) * 1000) / 1000

/**
 * Makes the check. The larger of both shares decides.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): HealthCheck.HealthCheck => {
  const where = "MemoryCheck.make"
  Check.known(where, options, [...checkOptionNames, "warn", "isCritical", "cgroup"])
  const { critical, warn } = thresholds(where, options)
  const root = Check.text(where, "cgroup", options.cgroup ?? "/sys/fs/cgroup")
  const { critical: _, ...rest } = options
  return HealthCheck.make({
    name: "memory",
    failAfter: 3,
    ...checkOptionsOf(rest),
    critical: options.isCritical ?? true,
    check: Effect.sync((): HealthCheck.CheckAnswer => {
      const { heap_size_limit, used_heap_size } = getHeapStatistics()
      const heap = share({ used: used_heap_size, limit: heap_size_limit })
      const cgroup = cgroupUsage(root)
      return {
        status: byRatio(Math.max(heap, cgroup === undefined ? 0 : share(cgroup)), warn, critical),
        details: {
          heapUsedBytes: used_heap_size,
          heapLimitBytes: heap_size_limit,
          heapShare: heap,
          ...(cgroup === undefined ? {} : {
            cgroupUsedBytes: cgroup.used,
            cgroupLimitBytes: cgroup.limit,
            cgroupShare: share(cgroup)
          })
        }
      }
    })
  })
}

/**
 * Registers the check.
 *
 * **Example** (Watching memory)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { HealthRegistry } from "effect-toolops/health"
 * import { MemoryCheck } from "effect-toolops/node"
 *
 * const Health = MemoryCheck.layer({ warn: 0.7, critical: 0.9 }).pipe(Layer.provideMerge(HealthRegistry.layer))
 * const program = Effect.gen(function*() {
 *   const registry = yield* HealthRegistry.HealthRegistry
 *   return yield* registry.check("memory")
 * })
 * const { details } = await Effect.runPromise(Effect.provide(program, Health))
 * Number(details?.["heapUsedBytes"]) < Number(details?.["heapLimitBytes"]) // => true
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, HealthError, HealthRegistry> =>
  layerCheck(make(options))

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
