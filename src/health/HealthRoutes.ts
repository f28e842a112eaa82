/**
 * Answers probes over HTTP: `/healthz`, `/readyz`, `/startupz`, `/health` and `/health/<name>` on any `HttpRouter`.
 *
 * Liveness looks at nothing: a program that answers is alive, and restarting it mends no database. Anonymous callers see
 * the status only. Answers are 200 for healthy and degraded, 503 for unhealthy.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Layer from "effect/Layer"
import type { Authenticator } from "../auth/Authenticator.ts"
import type { Authorizer } from "../auth/Authorizer.ts"
import { boundedRun } from "../internal/boundedRun.ts"
import * as Check from "../internal/options.ts"
import type { HealthStatus } from "./HealthCheck.ts"
import type { HealthError } from "./HealthError.ts"
import { HealthRegistry } from "./HealthRegistry.ts"
import { authorizedGuard } from "./internal/detailsGuard.ts"
import { detailed, detailedCheck, notFound, plain, type Shape } from "./internal/healthBody.ts"

/**
 * What `layer` takes.
 *
 * - `livePath`, `readyPath`, `startupPath`, `healthPath`: where. Defaults `/healthz`, `/readyz`, `/startupz`, `/health`.
 * - `details`: who may see names, reasons, times and details of checks. What is not let in, also when this itself
 *   breaks or takes longer than 2 seconds, sees the status only. Default: nobody. `layerAuthorized` asks the `Authorizer` of the
 *   tools instead.
 * - `allowNoChecks`: whether a program without a readiness check of its own is ready. Default false.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly livePath?: `/${string}` | undefined
  readonly readyPath?: `/${string}` | undefined
  readonly startupPath?: `/${string}` | undefined
  readonly healthPath?: `/${string}` | undefined
  readonly details?: ((request: HttpServerRequest.HttpServerRequest) => Effect.Effect<boolean>) | undefined
  readonly allowNoChecks?: boolean | undefined
}

/**
 * What `layerConfig` takes: the options that can be written in a configuration.
 *
 * @category options
 * @since 0.1.0
 */
export type ConfigOptions = Omit<Options, "details">

const pathOptions = [
  "livePath",
  "readyPath",
  "startupPath",
  "healthPath",
  "allowNoChecks"
]

/** How long the question who may see details may take. */
const guardMillis = 2000

/** Asks it in a fiber of its own: whatever it does wrong (fail, die, hang, ignore its interruption), the answer is no. */
const safely = (guard: NonNullable<Options["details"]>) => (request: HttpServerRequest.HttpServerRequest) =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.callback<boolean>((resume) => {
      const stop = boundedRun(context, Effect.suspend(() => guard(request)), guardMillis, {
        settle: (exit) => resume(Effect.succeed(exit?._tag === "Success" && exit.value === true)),
        end: () => {}
      })
      return Effect.sync(stop)
    })
  )

const shapeFor = (request: HttpServerRequest.HttpServerRequest): Shape =>
  (request.headers["accept"] ?? "").toLowerCase().includes("application/health+json") ? "health+json" : "toolops"

/**
 * Adds the routes.
 *
 * **Details**
 *
 * - `/healthz`: 200 while the program answers at all.
 * - `/readyz`: the checks of the group `readiness`. Without any of the program's own it is 503, unless `allowNoChecks`: those
 *   that parts of this library register of themselves never make it 503. While draining it is 503 at once, without running
 *   them.
 * - `/startupz`: the checks of the group `startup`, until they have passed once; from then on 200. While there are none: 200.
 * - `/health`: all checks, with details for those who may see them. `application/health+json` when asked for.
 * - `/health/<name>`: one check; 404 when there is none of that name.
 *
 * The routes are left out of the request log. A server that traces its requests leaves them out of its traces with
 * `HttpMiddleware.layerTracerDisabledForUrls(["/healthz", "/readyz"])`.
 *
 * **Example** (Answering probes)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { HealthRegistry, HealthRoutes } from "effect-toolops/health"
 *
 * const { dispose, handler } = HttpRouter.toWebHandler(
 *   HealthRoutes.layer().pipe(Layer.provide(HealthRegistry.layer))
 * )
 * const live = await handler(new Request("http://localhost/healthz"))
 * live.status // => 200
 * const ready = await handler(new Request("http://localhost/readyz"))
 * ready.status // => 503
 * await dispose()
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, never, HttpRouter.HttpRouter | HealthRegistry> => {
  Check.known("HealthRoutes.layer", options, [...pathOptions, "details"])
  const { allowNoChecks } = options
  const healthPath = options.healthPath ?? "/health"
  return HttpRouter.use((router) =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry
      const maySeeDetails = options.details === undefined ? () => Effect.succeed(false) : safely(options.details)

      const live = Effect.succeed(plain.toolops.healthy)

      const ready = Effect.map(registry.report("readiness", { allowNoChecks }), ({ status }) => status)

      let hasStarted = false
      const startup = Effect.suspend(() => {
        if (hasStarted) {
          return Effect.succeed<HealthStatus>("healthy")
        }
        return Effect.map(
          Effect.catchReason(registry.report("startup"), "HealthError", "NoCheckers", () => Effect.succeed(undefined)),
          (report): HealthStatus => {
            // Draining is the end of a program and not its start.
            const isUp = report === undefined ||
              !report.checks.some((each) => each.critical && each.status === "unhealthy")
            // Not where there is no check yet: a part that is still being made may register one.
            if (isUp && report !== undefined) hasStarted = true
            return isUp ? "healthy" : "unhealthy"
          }
        )
      })

      const statusOf =
        (status: Effect.Effect<HealthStatus, HealthError>) => (request: HttpServerRequest.HttpServerRequest) =>
          Effect.match(status, {
            onSuccess: (found) => plain[shapeFor(request)][found],
            onFailure: () => plain[shapeFor(request)].unhealthy
          })

      const health = (request: HttpServerRequest.HttpServerRequest) =>
        Effect.gen(function*() {
          const shape = shapeFor(request)
          const report = yield* registry.reportAll
          return (yield* maySeeDetails(request))
            ? detailed(shape, report, yield* Clock.currentTimeMillis)
            : plain[shape][report.status]
        })

      const single = (request: HttpServerRequest.HttpServerRequest) =>
        Effect.gen(function*() {
          const shape = shapeFor(request)
          const { params } = yield* HttpRouter.RouteContext
          const report = yield* registry.check(params["name"] ?? "")
          return (yield* maySeeDetails(request))
            ? detailedCheck(shape, report)
            : plain[shape][report.status]
        }).pipe(Effect.catchTag("HealthError", () => Effect.succeed(notFound)))

      const quiet = HttpMiddleware.withLoggerDisabled
      yield* router.add("GET", options.livePath ?? "/healthz", quiet(live))
      yield* router.add("GET", options.readyPath ?? "/readyz", (request) =>
        quiet(
          statusOf(ready)(request)
        ))
      yield* router.add("GET", options.startupPath ?? "/startupz", (request) => quiet(statusOf(startup)(request)))
      yield* router.add("GET", healthPath, (request) => quiet(health(request)))
      yield* router.add("GET", `${healthPath}/:name`, (request) => quiet(single(request)))
    })
  )
}

/**
 * Adds the routes, with details for those whom the `Authorizer` of the tools allows the action `read` on the tool
 * `toolops:health`: by the role-based rules, with `permissions: ["tool:toolops:health:read"]`.
 *
 * **Details**
 *
 * Who asks is found out as for a tool call: from the request's headers by the `Authenticator`, or by `HttpAuth` where that
 * stands in front. Anonymous callers see the status only, whatever the rules say, and shadow mode lets nobody in whom the
 * rules would not.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerAuthorized = (
  options: ConfigOptions = {}
): Layer.Layer<never, never, HttpRouter.HttpRouter | HealthRegistry | Authenticator | Authorizer> => {
  Check.known("HealthRoutes.layerAuthorized", options, pathOptions)
  return Layer.unwrap(Effect.map(authorizedGuard, (details) => layer({ ...options, details })))
}

/**
 * Adds the routes with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<ConfigOptions>
): Layer.Layer<never, Config.ConfigError, HttpRouter.HttpRouter | HealthRegistry> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))
