/**
 * Serves the program's metrics to Prometheus: `GET /metrics` on any `HttpRouter`.
 *
 * All Effect metrics of the program are served, not ours alone. Dotted names get underscores, units become base units
 * (`_seconds`, `_bytes`), counters end in `_total`. Whatever metrics and labels are called and hold, the answer is valid, and what looks
 * like a secret goes through `Redaction`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Check from "../internal/options.ts"
import { type Format, makeRenderer } from "./internal/prometheusText.ts"
import * as Redaction from "./Redaction.ts"

/**
 * What `layer` takes.
 *
 * - `path`: where. Default `/metrics`.
 * - `prefix`: put before every name. Default none.
 * - `maxSeries`: most series of one metric; the others are added up in a series `otel_metric_overflow="true"`. Default
 *   1000. Of a frequency each word counts.
 * - `redact`: more sensitive names of labels, beside those of `Redaction`.
 * - `guard`: who may read. What is not let in, also when the guard itself breaks, gets 403. Default: everybody.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly path?: `/${string}` | undefined
  readonly prefix?: string | undefined
  readonly maxSeries?: number | undefined
  readonly redact?: ReadonlyArray<string> | undefined
  readonly guard?: ((request: HttpServerRequest.HttpServerRequest) => Effect.Effect<boolean>) | undefined
}

/**
 * What `layerConfig` takes: the options that can be written in a configuration.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConfigOptions {
  readonly path?: `/${string}` | undefined
  readonly prefix?: string | undefined
  readonly maxSeries?: number | undefined
  readonly redact?: ReadonlyArray<string> | undefined
}

const contentTypes: Readonly<Record<Format, string>> = {
  prometheus: "text/plain; version=0.0.4; charset=utf-8",
  openmetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
}

const rendererOf = (where: string, options: Pick<Options, "prefix" | "maxSeries" | "redact">) =>
  makeRenderer({
    prefix: options.prefix ?? "",
    maxSeries: Check.integer(where, "maxSeries", options.maxSeries ?? 1000, 1),
    redaction: options.redact === undefined || options.redact.length === 0
      ? Redaction.standard
      : Redaction.make({ keys: options.redact })
  })

/**
 * Makes an effect that writes the metrics of the fiber's registry out.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options?: Pick<Options, "prefix" | "maxSeries" | "redact">
): (format?: "prometheus" | "openmetrics") => Effect.Effect<string> => {
  const render = rendererOf("PrometheusRoutes.make", options ?? {})
  return (format = "prometheus") => Effect.withFiber((fiber) => Effect.succeed(render(fiber.context, format)))
}

// Prometheus sends a list with weights; whoever names OpenMetrics at all understands it.
const formatFor = (request: HttpServerRequest.HttpServerRequest): Format =>
  /application\/openmetrics-text(?!\s*;[^,]*q=0(?:\.0*)?(?:\s*[;,]|$))/i.test(request.headers["accept"] ?? "")
    ? "openmetrics"
    : "prometheus"

/**
 * Adds the route.
 *
 * **Details**
 *
 * Served is the metric registry of the context that the layer is built in. Scrapes that arrive together share one
 * rendering. The route is left out of the request log.
 *
 * **Example** (Serving metrics)
 *
 * ```ts
 * import { HttpRouter } from "effect/http"
 * import { PrometheusRoutes } from "effect-toolops/observe"
 *
 * const { handler, dispose } = HttpRouter.toWebHandler(PrometheusRoutes.layer())
 * const response = await handler(new Request("http://localhost/metrics"))
 * response.status // => 200
 * await dispose()
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, never, HttpRouter.HttpRouter> => {
  const where = "PrometheusRoutes.layer"
  Check.known(where, options, ["path", "prefix", "maxSeries", "redact", "guard"])
  const render = rendererOf(where, options)
  const guard = options.guard
  return HttpRouter.use((router) =>
    Effect.withFiber((fiber) => {
      const context = Context.make(Metric.MetricRegistry, fiber.getRef(Metric.MetricRegistry))
      // Rendered after one turn of the event loop, for all who asked meanwhile: nobody gets anything older than the
      // question.
      const shared = new Map<Format, Promise<string>>()
      const text = (format: Format): Promise<string> => {
        let rendering = shared.get(format)
        if (rendering === undefined) {
          rendering = new Promise<void>((resolve) => setTimeout(resolve, 0)).then(() => {
            shared.delete(format)
            return render(context, format)
          })
          shared.set(format, rendering)
        }
        return rendering
      }
      const answer = (request: HttpServerRequest.HttpServerRequest) => {
        const format = formatFor(request)
        return Effect.map(
          Effect.promise(() => text(format)),
          (body) =>
            HttpServerResponse.text(body, {
              contentType: contentTypes[format],
              headers: { "cache-control": "no-store" }
            })
        )
      }
      const forbidden = HttpServerResponse.text("forbidden\n", { status: 403 })
      const guarded = (request: HttpServerRequest.HttpServerRequest) =>
        guard === undefined
          ? answer(request)
          : Effect.flatMap(
            Effect.catchDefect(Effect.suspend(() => guard(request)), () => Effect.succeed(false)),
            (isAllowed) => isAllowed === true ? answer(request) : Effect.succeed(forbidden)
          )
      return router.add(
        "GET",
        options.path ?? "/metrics",
        (request) => HttpMiddleware.withLoggerDisabled(guarded(request))
      )
    })
  )
}

/**
 * Adds the route with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<ConfigOptions>
): Layer.Layer<never, Config.ConfigError, HttpRouter.HttpRouter> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))
