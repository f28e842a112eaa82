/**
 * Ends a program without losing calls, and within a time that is known.
 *
 * On SIGTERM, SIGINT or when its scope closes: readiness answers 503 at once; `delay` passes, in which load balancers learn
 * of it while calls are still answered; new calls are refused as `Draining`; calls in flight have `grace` to finish and are
 * interrupted after it; then the layers below close, the server first, exporters and audit log last. A second signal
 * ends the process at once.
 *
 * Exit codes: with `teardown`, 0 after a shutdown in order and 1 after an error, unless the error carries a code of its own;
 * without it, the runtime's 130. After a second signal 128 and the signal's number: 143 for SIGTERM, 130 for SIGINT.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { constants } from "node:os"
import { HealthRegistry } from "../health/HealthRegistry.ts"
import * as Check from "../internal/options.ts"

/**
 * What `layer` takes. Together with what the server and the exporters need to close, `delay` and `grace` must stay below the
 * time after which the process is killed: Kubernetes' `terminationGracePeriodSeconds`, 30 seconds unless it is set.
 *
 * The server waits for connections that are open, event streams too, up to its own `gracefulShutdownTimeout`: 20 seconds unless
 * `NodeHttpServer.layer` is given less. Calls have ended by then, so 2 seconds are plenty. With the defaults here that
 * is 5 + 20 + 1 (finalizers of interrupted calls) + 2, and then what the audit log and exporters take.
 *
 * - `delay`: how long calls are still taken after readiness has failed. Default 5 seconds; 0 is allowed.
 * - `grace`: how long calls in flight may go on after that. Default 20 seconds; 0 is allowed.
 * - `signals`: which signals begin it. Default SIGTERM and SIGINT; none leaves signals alone. `NodeRuntime.runMain` ends a
 *   program at SIGTERM and SIGINT only: at SIGHUP or SIGQUIT the steps are gone through, and the program goes on, refusing
 *   calls, until it ends itself: run what waits for `requested` in place of `Layer.launch`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly delay?: Duration.Input | undefined
  readonly grace?: Duration.Input | undefined
  readonly signals?: ReadonlyArray<Signal> | undefined
}

/**
 * The signals that can begin a shutdown.
 *
 * @category models
 * @since 0.1.0
 */
export type Signal = "SIGTERM" | "SIGINT" | "SIGHUP" | "SIGQUIT"

const signalNames: ReadonlyArray<Signal> = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]

/**
 * What the options are without being given, in milliseconds.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaults = { delayMillis: 5000, graceMillis: 20_000 } as const

/**
 * The shutdown of a program.
 *
 * - `requested`: waits for the first signal and says which it was. For programs that nothing else ends at a signal; those
 *   that are run by `NodeRuntime.runMain` are.
 * - `stop`: goes through the steps up to where calls in flight have ended, once for all who ask. Says how many calls
 *   were interrupted.
 *
 * @category services
 * @since 0.1.0
 */
export class Graceful extends Context.Service<Graceful, {
  readonly requested: Effect.Effect<Signal>
  readonly stop: Effect.Effect<number>
}>()("effect-toolops/node/Graceful") {}

const resolve = (where: string, options: Options) => {
  Check.known(where, options, ["delay", "grace", "signals"])
  const signals = options.signals ?? ["SIGTERM", "SIGINT"]
  if (!Array.isArray(signals)) throw new TypeError(`${where}: signals must be an array`)
  return {
    delayMillis: Check.millis(where, "delay", options.delay ?? defaults.delayMillis, { allowZero: true }),
    graceMillis: Check.millis(where, "grace", options.grace ?? defaults.graceMillis, { allowZero: true }),
    signals: signals.map((signal) => Check.oneOf(where, "signals", signal, signalNames))
  }
}

// A logger that throws must not cost calls in flight their grace time.
const quietly = (log: Effect.Effect<void>): Effect.Effect<void> => Effect.catchCause(log, () => Effect.void)

const fromSettings = (
  { delayMillis, graceMillis, signals }: ReturnType<typeof resolve>
): Effect.Effect<Graceful["Service"], never, HealthRegistry | Scope.Scope> =>
  Effect.gen(function*() {
    const registry = yield* HealthRegistry
    const context = yield* Effect.context<never>()
    const requested = Deferred.makeUnsafe<Signal>()
    let stopping: Deferred.Deferred<number> | undefined = undefined

    const steps = Effect.gen(function*() {
      yield* registry.drain
      const inFlight = yield* registry.inFlight
      yield* quietly(Effect.logDebug(`effect-toolops: shutting down, ${inFlight} calls in flight`))
      yield* Effect.sleep(delayMillis)
      const interrupted = yield* registry.quiesce(graceMillis)
      if (interrupted > 0) {
        yield* quietly(
          Effect.logWarning(
            `effect-toolops: ${interrupted} calls took longer than the grace time and were interrupted`
          )
        )
      }
      return interrupted
    })
    // In a fiber of its own: neither a signal nor an interrupted caller has one in which it could go on.
    const stop = Effect.suspend(() => {
      if (stopping === undefined) {
        const done = stopping = Deferred.makeUnsafe<number>()
        Effect.runForkWith(context)(steps).addObserver((exit) => void Deferred.doneUnsafe(done, exit))
      }
      return Deferred.await(stopping)
    })

    let isSignalled = false
    const onSignal = (signal: NodeJS.Signals): void => {
      if (isSignalled) process.exit(128 + constants.signals[signal])
      isSignalled = true
      Effect.runForkWith(context)(stop)
      Deferred.doneUnsafe(requested, Effect.succeed(signal as Signal))
    }
    yield* Effect.addFinalizer(() =>
      Effect.ensuring(
        Effect.asVoid(stop),
        Effect.sync(() => {
          // What closes after this layer may hang, and a second signal must end that as well.
          if (!isSignalled) { for (const signal of signals) process.off(signal, onSignal) }
        })
      )
    )
    for (const signal of signals) process.on(signal, onSignal)
    return Graceful.of({ requested: Deferred.await(requested), stop })
  })

/**
 * Provides the shutdown and installs it.
 *
 * **Details**
 *
 * Layers close in the reverse order of their making, so this one goes outermost, around the server: it then closes first,
 * while the server still answers. Its `HealthRegistry` must be the one that `HealthRoutes` and the pipeline were given;
 * `HealthRegistry.layer` is shared within one program.
 *
 * `NodeRuntime.runMain` interrupts the program at a signal, which closes its layers. A program that is run otherwise waits
 * for `requested` and then closes its scope or disposes of its runtime.
 *
 * **Gotchas**
 *
 * Work of the main fiber itself is interrupted by `runMain` at once; calls that a server answers run in fibers of their own.
 *
 * **Example** (A server that ends in order)
 *
 * ```ts no-run
 * import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { HealthRegistry, HealthRoutes } from "effect-toolops/health"
 * import { Graceful } from "effect-toolops/node"
 * import { HttpRouter } from "effect/http"
 * import { createServer } from "node:http"
 *
 * const Server = HttpRouter.serve(HealthRoutes.layer()).pipe(
 *   // How long connections may stay open after the calls have ended: 20 seconds unless it is set.
 *   Layer.provide(NodeHttpServer.layer(() => createServer(), { port: 8080, gracefulShutdownTimeout: "2 seconds" }))
 * )
 * const Program = Graceful.layer().pipe(Layer.provideMerge(Server), Layer.provide(HealthRegistry.layer))
 *
 * NodeRuntime.runMain(Layer.launch(Program), { teardown: Graceful.teardown })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Graceful, never, HealthRegistry> =>
  Layer.effect(Graceful, fromSettings(resolve("Graceful.layer", options)))

/**
 * Provides `layer` with options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<Graceful, Config.ConfigError, HealthRegistry> =>
  Layer.effect(
    Graceful,
    Effect.flatMap(Config.unwrap(options), (given) => fromSettings(resolve("Graceful.layerConfig", given)))
  )

/**
 * The exit codes of a program that ends in order: 0 when it was interrupted or has succeeded, else those of Effect's own
 * teardown. For `NodeRuntime.runMain`.
 *
 * @category constants
 * @since 0.1.0
 */
export const teardown: Runtime.Teardown = (exit, onExit) =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? onExit(0) : Runtime.defaultTeardown(exit, onExit)
