import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import type * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Stream from "effect/Stream"

// Requests to the servers that access and secrets depend on: https, a time limit, a size limit, and no error that says
// more than that it did not work. What a client knows of a failed request includes its credentials. The host's `fetch`
// is told to follow no redirects, and other clients follow none of themselves. One that is wrapped in
// `HttpClient.followRedirects` does, credentials and all, and nothing here can keep it from that: only its answer is
// refused.

/** What came back. */
export interface Reply {
  readonly status: number
  readonly headers: Headers.Headers
  readonly body: Uint8Array
}

/** Nothing usable came back. `why` is one of our own words. */
export class FetchFailure {
  readonly why: string
  constructor(why: string) {
    this.why = why
  }
}

/** Checks the URL of such a server. */
export const checkUrl = (where: string, url: string | URL, allowInsecureHttp: boolean): URL => {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    throw new TypeError(`${where}: url must be an absolute URL`)
  }
  const isLoopback = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(parsed.hostname)
  if (parsed.protocol !== "https:" && !(parsed.protocol === "http:" && (isLoopback || allowInsecureHttp))) {
    throw new TypeError(`${where}: url must be https, or http on loopback; allowInsecureHttp: true allows it elsewhere`)
  }
  if (parsed.username !== "" || parsed.password !== "") {
    throw new TypeError(`${where}: url must not hold credentials`)
  }
  return parsed
}

/** Sends a request to `url` and reads the answer, at most `maxBytes` of it, within `timeout` milliseconds. */
export const boundedFetch = (options: {
  readonly client: HttpClient.HttpClient
  readonly request: HttpClientRequest.HttpClientRequest
  readonly url: URL
  readonly timeout: number
  readonly maxBytes: number
}): Effect.Effect<Reply, FetchFailure> =>
  Effect.scoped(Effect.gen(function*() {
    const response = yield* options.client.execute(options.request)
    // A client of the user's may follow redirects by itself; then the answer is not from where it should be.
    if (response.url !== "" && new URL(response.url).href !== options.url.href) {
      return yield* Effect.fail(new FetchFailure("redirected"))
    }
    if (Number(response.headers["content-length"] ?? 0) > options.maxBytes) {
      return yield* Effect.fail(new FetchFailure("too large"))
    }
    const chunks: Array<Uint8Array> = []
    let size = 0
    yield* Stream.runForEach(response.stream, (chunk) => {
      size += chunk.length
      chunks.push(chunk)
      return size > options.maxBytes ? Effect.fail(new FetchFailure("too large")) : Effect.void
    })
    const body = new Uint8Array(size)
    let at = 0
    for (const chunk of chunks) {
      body.set(chunk, at)
      at += chunk.length
    }
    return { status: response.status, headers: response.headers, body }
  })).pipe(
    Effect.updateContext((context: Context.Context<never>) =>
      Context.add(context, FetchHttpClient.RequestInit, {
        ...Context.getOrUndefined(context as Context.Context<FetchHttpClient.RequestInit>, FetchHttpClient.RequestInit),
        redirect: "manual"
      })
    ),
    // The span of a client tells the error of a failed request, and with it what the client knows.
    Effect.provideService(HttpClient.TracerDisabledWhen, () => true),
    Effect.timeoutOrElse({
      duration: options.timeout,
      orElse: () => Effect.fail(new FetchFailure("timed out"))
    }),
    Effect.mapError((error) => error instanceof FetchFailure ? error : new FetchFailure("unreachable")),
    Effect.catchDefect(() => Effect.fail(new FetchFailure("unreachable")))
  )
