/**
 * Whether a SQLite database can be read.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { DatabaseSync } from "node:sqlite"
import * as HealthCheck from "../health/HealthCheck.ts"
import type { HealthError } from "../health/HealthError.ts"
import { type HealthRegistry, layerCheck } from "../health/HealthRegistry.ts"
import { checkOptionNames, type CheckOptions, checkOptionsOf } from "../health/internal/checkOptions.ts"
import * as Check from "../internal/options.ts"

/**
 * What `make` and `layer` take besides what `HealthCheck.make` takes.
 *
 * - `path`: the file. Opened for reading only, for each run, and never made. Never shown.
 * - `name`: default `sqlite`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends CheckOptions {
  readonly path: string
}

const busyCode = 5 // SQLITE_BUSY
const busyPauseMillis = 10

// A writer holds the lock for the time of a commit. Waited for here and not by SQLite, which would stop the event loop.
const isBusy = (error: unknown): boolean =>
  typeof error === "object" && error !== null && "errcode" in error && error.errcode === busyCode

/**
 * Makes a check that opens the file and reads its schema. A file that is missing or no database fails; one that is locked is
 * tried again until the check's `timeout`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): HealthCheck.HealthCheck => {
  const where = "SqliteCheck.make"
  Check.known(where, options, [...checkOptionNames, "path"])
  const path = Check.text(where, "path", options.path)
  return HealthCheck.make({
    name: "sqlite",
    ...checkOptionsOf(options),
    check: Effect.retry(
      Effect.try({
        try: () => {
          // A new handle each time: an old one goes on reading a file that has been removed or replaced.
          const database = new DatabaseSync(path, { readOnly: true })
          try {
            database.prepare("SELECT count(*) FROM sqlite_schema").get()
          } finally {
            database.close()
          }
        },
        catch: (error) => error
      }),
      { while: isBusy, schedule: Schedule.spaced(busyPauseMillis) }
    )
  })
}

/**
 * Registers the check.
 *
 * **Example** (Looking for a database before the program counts as started)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { HealthRegistry } from "effect-toolops/health"
 * import { SqliteCheck } from "effect-toolops/node"
 *
 * const Health = SqliteCheck.layer({ path: "/no/such/file.db", groups: ["startup"] }).pipe(
 *   Layer.provideMerge(HealthRegistry.layer)
 * )
 * const program = Effect.gen(function*() {
 *   const registry = yield* HealthRegistry.HealthRegistry
 *   const { checks, status } = yield* registry.report("startup")
 *   return [status, checks[0]?.reason]
 * })
 * await Effect.runPromise(Effect.provide(program, Health)) // => ["unhealthy", "failed"]
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
