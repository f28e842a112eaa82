/**
 * Answers probes over HTTP: `/healthz`, `/readyz`, `/startupz`, `/health` and `/health/<name>` on any `HttpRouter`.
 *
 * Liveness looks at nothing: a program that answers is alive, and restarting it mends no database. Anonymous callers see
 * the status only. Answers are 200 for healthy and degraded, 503 for unhealthy.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import type { HealthStatus } from "./HealthCheck.ts"
import type { HealthError } from "./HealthError.ts"
import { type CheckReport, HealthRegistry, type Report } from "./HealthRegistry.ts"

/**
 * What `layer` takes.
 *
 * - `livePath`, `readyPath`, `startupPath`, `healthPath`: where. Defaults `/healthz`, `/readyz`, `/startupz`, `/health`.
 * - `details`: who may see names, reasons, times and details of checks. What is not let in, also when this itself
 *   breaks, sees the status only. Default: nobody.
 * - `allowNoChecks`: whether a program without a readiness check is ready. Default false.
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

type Shape = "toolops" | "health+json"

// draft-inadarei-api-health-check-06 has words of its own.
const words: Readonly<Record<HealthStatus, string>> = { healthy: "pass", degraded: "warn", unhealthy: "fail" }

const respond = (shape: Shape, status: HealthStatus, body: object): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(`${JSON.stringify(body)}\n`, {
    status: status === "unhealthy" ? 503 : 200,
    contentType: shape === "toolops" ? "application/json" : "application/health+json",
    headers: { "cache-control": "no-store" }
  })

const statusOnly = (shape: Shape): Readonly<Record<HealthStatus, HttpServerResponse.HttpServerResponse>> => {
  const one = (status: HealthStatus) => respond(shape, status, { status: shape === "toolops" ? status : words[status] })
  return { healthy: one("healthy"), degraded: one("degraded"), unhealthy: one("unhealthy") }
}
// Made once: a probe asks often and the answer is one of a few.
const plain: Readonly<Record<Shape, Readonly<Record<HealthStatus, HttpServerResponse.HttpServerResponse>>>> = {
  toolops: statusOnly("toolops"),
  "health+json": statusOnly("health+json")
}
const notFound = HttpServerResponse.text(`${JSON.stringify({ error: "not found" })}\n`, {
  status: 404,
  contentType: "application/json"
})

const shapeFor = (request: HttpServerRequest.HttpServerRequest): Shape =>
  (request.headers["accept"] ?? "").toLowerCase().includes("application/health+json") ? "health+json" : "toolops"

const checkBody = (shape: Shape, report: CheckReport): Record<string, unknown> => {
  const time = new Date(report.checkedAt).toISOString()
  return shape === "toolops"
    ? {
      status: report.status,
      critical: report.critical,
      reason: report.reason,
      details: report.details,
      durationMs: report.durationMillis,
      checkedAt: time
    }
    : {
      status: words[report.status],
      time,
      observedValue: report.durationMillis,
      observedUnit: "ms",
      output: report.reason
    }
}

const reportBody = (shape: Shape, report: Report): Record<string, unknown> => ({
  status: shape === "toolops" ? report.status : words[report.status],
  ...(shape === "toolops" ? { draining: report.isDraining } : {}),
  // Own keys only: a check may be called `__proto__`.
  checks: Object.fromEntries(
    report.checks.map((each) => [each.name, shape === "toolops" ? checkBody(shape, each) : [checkBody(shape, each)]])
  )
})

/**
 * Adds the routes.
 *
 * **Details**
 *
 * - `/healthz`: 200 while the program answers at all.
 * - `/readyz`: the checks of the group `readiness`. Without any it is 503, unless `allowNoChecks`. 503 while draining.
 * - `/startupz`: the checks of the group `startup`, until they have passed once; from then on 200.
 * - `/health`: all checks, with details for those who may see them. `application/health+json` when asked for.
 * - `/health/<name>`: one check; 404 when there is none of that name.
 *
 * The routes are left out of the request log.
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
  Check.known("HealthRoutes.layer", options, [
    "livePath",
    "readyPath",
    "startupPath",
    "healthPath",
    "details",
    "allowNoChecks"
  ])
  const whenEmpty: Report = {
    status: options.allowNoChecks === true ? "healthy" : "unhealthy",
    isDraining: false,
    checks: []
  }
  const healthPath = options.healthPath ?? "/health"
  return HttpRouter.use((router) =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry
      const maySeeDetails = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<boolean> =>
        options.details === undefined
          ? Effect.succeed(false)
          : Effect.suspend(() => options.details!(request)).pipe(
            Effect.map((isAllowed) => isAllowed === true),
            Effect.catchDefect(() => Effect.succeed(false))
          )

      const live = Effect.succeed(plain.toolops.healthy)

      const ready = Effect.catchReason(
        registry.report("readiness"),
        "HealthError",
        "NoCheckers",
        () =>
          Effect.map(registry.isDraining, (isDraining) =>
            isDraining ? { ...whenEmpty, status: "unhealthy" as const } : whenEmpty)
      )

      let hasStarted = false
      const startup = Effect.suspend(() => {
        if (hasStarted) {
          return Effect.succeed<HealthStatus>("healthy")
        }
        return Effect.map(
          Effect.catchReason(registry.report("startup"), "HealthError", "NoCheckers", () =>
            Effect.succeed(undefined)),
          (report): HealthStatus => {
            // Draining is the end of a program and not its start.
            const isUp = report === undefined ||
              !report.checks.some((each) => each.critical && each.status === "unhealthy")
            hasStarted = isUp
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
            ? respond(shape, report.status, reportBody(shape, report))
            : plain[shape][report.status]
        })

      const single = (request: HttpServerRequest.HttpServerRequest) =>
        Effect.gen(function*() {
          const shape = shapeFor(request)
          const { params } = yield* HttpRouter.RouteContext
          const report = yield* registry.check(params["name"] ?? "")
          return (yield* maySeeDetails(request))
            ? respond(shape, report.status, checkBody(shape, report))
            : plain[shape][report.status]
        }).pipe(Effect.catchTag("HealthError", () => Effect.succeed(notFound)))

      const quiet = HttpMiddleware.withLoggerDisabled
      yield* router.add("GET", options.livePath ?? "/healthz", quiet(live))
      yield* router.add("GET", options.readyPath ?? "/readyz", (request) =>
        quiet(
          statusOf(Effect.map(ready, (report) => report.status))(request)
        ))
      yield* router.add("GET", options.startupPath ?? "/startupz", (request) => quiet(statusOf(startup)(request)))
      yield* router.add("GET", healthPath, (request) => quiet(health(request)))
      yield* router.add("GET", `${healthPath}/:name`, (request) => quiet(single(request)))
    })
  )
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
