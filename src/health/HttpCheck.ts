/**
 * Whether an HTTP server answers as it should.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Check from "../internal/options.ts"
import * as HealthCheck from "./HealthCheck.ts"
import type { HealthError } from "./HealthError.ts"
import { type HealthRegistry, layerCheck } from "./HealthRegistry.ts"
import { checkOptionNames, type CheckOptions, checkOptionsOf } from "./internal/checkOptions.ts"

/**
 * What `make` and `layer` take besides what `HealthCheck.make` takes.
 *
 * - `url`: what is asked. http or https. Never shown.
 * - `method`: `GET` or `HEAD`. Default `GET`. The body is not read.
 * - `statuses`: the lowest and the highest status that mean well. Default 200 to 299. Redirects are not followed.
 * - `name`: default `http`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends CheckOptions {
  readonly url: string
  readonly method?: "GET" | "HEAD" | undefined
  readonly statuses?: readonly [lowest: number, highest: number] | undefined
}

const checkedUrl = (where: string, url: string): string => {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined || (parsed.protocol !== "https:" && parsed.protocol !== "http:")) {
    throw new TypeError(`${where}: url must be an absolute http or https URL`)
  }
  return parsed.href
}

/**
 * Makes a check that sends a request and looks at the status. Another status is told in the details as `httpStatus`; no
 * answer within the check's `timeout` is `timeout`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): HealthCheck.HealthCheck<HttpClient.HttpClient> => {
  const where = "HttpCheck.make"
  Check.known(where, options, [...checkOptionNames, "url", "method", "statuses"])
  const [lowest, highest] = options.statuses ?? [200, 299]
  Check.integer(where, "statuses[0]", lowest, 100, 599)
  Check.integer(where, "statuses[1]", highest, lowest, 599)
  const method = Check.oneOf(where, "method", options.method ?? "GET", ["GET", "HEAD"])
  const request = HttpClientRequest.make(method)(checkedUrl(where, options.url))
  const ask = Effect.scoped(Effect.flatMap(HttpClient.HttpClient, (client) =>
    Effect.map(
      HttpClient.withScope(client).execute(request),
      ({ status }): HealthCheck.CheckAnswer => ({
        status: status >= lowest && status <= highest ? "healthy" : "unhealthy",
        details: { httpStatus: status }
      })
    )))
  return HealthCheck.make({
    name: "http",
    ...checkOptionsOf(options),
    check: Effect.provideService(ask, FetchHttpClient.RequestInit, { redirect: "manual" })
  })
}

/**
 * Registers the check.
 *
 * **Example** (Asking a server whether it is ready)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { FetchHttpClient } from "effect/http"
 * import { HealthRegistry, HttpCheck } from "effect-toolops/health"
 *
 * // What would go over the network.
 * const Network = Layer.succeed(FetchHttpClient.Fetch, () => Promise.resolve(new Response(null, { status: 503 })))
 *
 * const Health = HttpCheck.layer({ name: "search", url: "https://search.internal/readyz", method: "HEAD" }).pipe(
 *   Layer.provide(FetchHttpClient.layer),
 *   Layer.provide(Network),
 *   Layer.provideMerge(HealthRegistry.layer)
 * )
 * const program = Effect.gen(function*() {
 *   const registry = yield* HealthRegistry.HealthRegistry
 *   const { details, status } = yield* registry.check("search")
 *   return [status, details]
 * })
 * await Effect.runPromise(Effect.provide(program, Health)) // => ["unhealthy", { httpStatus: 503 }]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<never, HealthError, HealthRegistry | HttpClient.HttpClient> =>
  layerCheck(make(options))

/**
 * Registers the check with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<never, HealthError | Config.ConfigError, HealthRegistry | HttpClient.HttpClient> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))
