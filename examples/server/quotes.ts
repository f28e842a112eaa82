/**
 * Quotes from an HTTP upstream, and an upstream to play with: it listens on loopback and can be told to fail, to hang, or
 * to be slow.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientResponse } from "effect/http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

export class QuotesUnavailable extends Schema.TaggedError<QuotesUnavailable>("examples/QuotesUnavailable")(
  "QuotesUnavailable",
  { message: Schema.String }
) {}

export const Quote = Schema.Struct({ symbol: Schema.String, price: Schema.Number, serial: Schema.Int })

export class Quotes extends Context.Service<Quotes, {
  readonly latest: (symbol: string) => Effect.Effect<typeof Quote.Type, QuotesUnavailable>
}>()("examples/Quotes") {}

export const layer: Layer.Layer<Quotes, never, Upstream> = Layer.effect(
  Quotes,
  Effect.gen(function*() {
    const client = HttpClient.filterStatusOk(yield* HttpClient.HttpClient)
    const { url } = yield* Upstream
    return {
      latest: (symbol) =>
        client.get(new URL(`/quotes/${encodeURIComponent(symbol)}`, url)).pipe(
          Effect.flatMap(HttpClientResponse.schemaBodyJson(Quote)),
          // What went wrong there is not for our callers.
          Effect.mapError(() => new QuotesUnavailable({ message: "The quotes cannot be read at the moment." }))
        )
    }
  })
).pipe(Layer.provide(FetchHttpClient.layer))

/** What an upstream does with a request. */
export type Mode = "ok" | "fail" | "hang" | "slow"

/** Where quotes come from. `control` is there when the upstream is our own. */
export class Upstream extends Context.Service<Upstream, {
  readonly url: string
  readonly control?: {
    readonly setMode: (mode: Mode) => Effect.Effect<void>
    /** How many quotes it has been asked for. */
    readonly requests: Effect.Effect<number>
  } | undefined
}>()("examples/Upstream") {}

export const upstreamAt = (url: string): Layer.Layer<Upstream> => Layer.succeed(Upstream, { url })

/** Starts an upstream on a free port of loopback. `POST /mode/<mode>` switches it, as `control.setMode` does. */
export const upstreamLocal: Layer.Layer<Upstream> = Layer.effect(
  Upstream,
  Effect.gen(function*() {
    let mode: Mode = "ok"
    let serial = 0
    let requests = 0
    const server = createServer((request, response) => {
      const [, action, argument = ""] = (request.url ?? "/").split("/")
      if (request.method === "POST" && action === "mode" && isMode(argument)) {
        mode = argument
        response.end(`${mode}\n`)
        return
      }
      if (action !== "quotes" || !/^[A-Z]{1,8}$/.test(argument)) {
        response.statusCode = 404
        response.end()
        return
      }
      requests += 1
      const answer = () => {
        serial += 1
        response.setHeader("content-type", "application/json")
        response.end(JSON.stringify({ symbol: argument, price: 100 + serial, serial }))
      }
      switch (mode) {
        case "ok":
          return answer()
        case "fail":
          response.statusCode = 503
          response.end()
          return
        case "slow":
          setTimeout(answer, 300).unref()
          return
        case "hang":
          return
      }
    })
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )
    const { port } = server.address() as AddressInfo
    return {
      url: `http://127.0.0.1:${port}`,
      control: {
        setMode: (next) =>
          Effect.sync(() => {
            mode = next
          }),
        requests: Effect.sync(() => requests)
      }
    }
  })
)

const isMode = (text: string): text is Mode => text === "ok" || text === "fail" || text === "hang" || text === "slow"
