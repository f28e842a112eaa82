/**
 * Whether a file system is running full, of bytes or of files.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { statfs } from "node:fs/promises"
import * as HealthCheck from "../health/HealthCheck.ts"
import type { HealthError } from "../health/HealthError.ts"
import { type HealthRegistry, layerCheck } from "../health/HealthRegistry.ts"
import { checkOptionNames, type CheckOptions, checkOptionsOf } from "../health/internal/checkOptions.ts"
import * as Check from "../internal/options.ts"
import { byRatio, thresholds } from "./internal/thresholds.ts"

/**
 * What `make` and `layer` take besides what `HealthCheck.make` takes.
 *
 * - `path`: a path on the file system. Never shown.
 * - `warn`: the used share from which it is degraded, above 0 and at most 1. Default 0.80.
 * - `critical`: the used share from which it is unhealthy, from `warn` to 1. Default 0.95.
 * - `isCritical`: what `HealthCheck.make` calls `critical`. Default true.
 * - `name`: default `disk`. `interval`: default 30 seconds.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Omit<CheckOptions, "critical"> {
  readonly path: string
  readonly warn?: number | undefined
  readonly critical?: number | undefined
  readonly isCritical?: boolean | undefined
}

// Some file systems have no fixed number of files and say 0.
const usedShare = (total: number, free: number): number => total > 0 ? Math.round((1 - free / total) * 1000) / 1000 : 0

/**
 * Makes the check. The larger of both shares decides; what only root may use counts as used. A path that is not there fails.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): HealthCheck.HealthCheck => {
  const where = "DiskCheck.make"
  Check.known(where, options, [...checkOptionNames, "path", "warn", "isCritical"])
  const { critical, warn } = thresholds(where, options)
  const path = Check.text(where, "path", options.path)
  const { critical: _, ...rest } = options
  return HealthCheck.make({
    name: "disk",
    interval: "30 seconds",
    ...checkOptionsOf(rest),
    critical: options.isCritical ?? true,
    // A file system that hangs holds the thread that asks it, whoever still waits, and there are only a few of those. So the
    // run lasts as long as the question, and no second one is asked meanwhile.
    check: Effect.map(
      Effect.uninterruptible(Effect.tryPromise(() => statfs(path))),
      (stats): HealthCheck.CheckAnswer => {
        const bytes = usedShare(stats.blocks, stats.bavail)
        const files = usedShare(stats.files, stats.ffree)
        return {
          status: byRatio(Math.max(bytes, files), warn, critical),
          details: {
            availableBytes: stats.bavail * stats.bsize,
            totalBytes: stats.blocks * stats.bsize,
            usedShare: bytes,
            usedFilesShare: files
          }
        }
      }
    )
  })
}

/**
 * Registers the check.
 *
 * **Example** (Watching a disk that the program can do without)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { HealthRegistry } from "effect-toolops/health"
 * import { DiskCheck } from "effect-toolops/node"
 *
 * const Health = DiskCheck.layer({ path: "/no/such/mount", isCritical: false }).pipe(
 *   Layer.provideMerge(HealthRegistry.layer)
 * )
 * const program = Effect.gen(function*() {
 *   const registry = yield* HealthRegistry.HealthRegistry
 *   const { reason, status } = yield* registry.check("disk")
 *   return [status, reason, (yield* registry.report("readiness")).status]
 * })
 * await Effect.runPromise(Effect.provide(program, Health)) // => ["unhealthy", "failed", "degraded"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<never, HealthError, HealthRegistry> => layerCheck(make(options))

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
