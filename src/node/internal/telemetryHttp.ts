import * as http from "node:http"
import * as https from "node:https"
import type { Answer, Target } from "./telemetryDelivery.ts"

// An answer holds a count and a sentence.
const maxAnswerBytes = 64 * 1024

// A collector that asks for more is asked again after this time.
const maxRetryAfterMillis = 5 * 60_000

const later: Answer = { _tag: "Later", afterMillis: undefined }
const refused: Answer = { _tag: "Refused" }

/** RFC 9110, 10.2.3: a number of seconds, or a date. */
const retryAfter = (header: string | undefined): number | undefined => {
  if (header === undefined) return undefined
  const millis = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now()
  return Number.isNaN(millis) ? undefined : Math.min(Math.max(millis, 0), maxRetryAfterMillis)
}

// The statuses that the OTLP specification calls retryable; all others mean that the batch is lost.
const retryable = new Set([429, 502, 503, 504])

const judge = (response: http.IncomingMessage, body: Uint8Array, rejectedOf: (body: Uint8Array) => number): Answer => {
  const status = response.statusCode ?? 0
  if (status >= 200 && status < 300) {
    let rejected = 0
    try {
      rejected = body.length === 0 ? 0 : rejectedOf(body)
    } catch {
      // What cannot be read does not say that anything was refused.
    }
    return { _tag: "Accepted", rejected: Number.isSafeInteger(rejected) ? Math.max(rejected, 0) : 0 }
  }
  if (!retryable.has(status)) return refused
  return { _tag: "Later", afterMillis: retryAfter(response.headers["retry-after"]) }
}

/**
 * A collector that takes OTLP over HTTP.
 *
 * It uses Node's own client, which neither Effect's tracer nor its metrics see. `timeoutMillis` is for the whole of one
 * request, however slowly an answer trickles in.
 */
export const httpTarget = (options: {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly timeoutMillis: number
  readonly rejectedOf: (body: Uint8Array) => number
}): Target => {
  const url = new URL(options.url)
  const { Agent, request: open } = url.protocol === "https:" ? https : http
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const post = (body: Uint8Array, signal: AbortSignal): Promise<Answer> =>
    new Promise((resolve) => {
      let head: http.IncomingMessage | undefined
      const request = open(url, {
        method: "POST",
        agent,
        headers: { ...options.headers, "content-type": "application/x-protobuf", "content-length": body.byteLength }
      })
      const done = (answer: Answer) => {
        clearTimeout(timer)
        signal.removeEventListener("abort", stop)
        resolve(answer)
        request.destroy()
      }
      // Whether the batch was taken is known with the status, and not only when the last byte of the answer has come.
      const stop = () => done(head === undefined ? later : judge(head, new Uint8Array(), options.rejectedOf))
      // Without this a collector that does not answer would keep a finished program alive.
      const timer = setTimeout(stop, options.timeoutMillis)
      timer.unref()
      signal.addEventListener("abort", stop, { once: true })
      if (signal.aborted) stop()
      request.on("socket", (socket) => socket.unref())
      // Stays after the end: a connection that is reset later must not end the program.
      request.on("error", stop)
      request.on("response", (response) => {
        head = response
        const chunks: Array<Buffer> = []
        let size = 0
        response.on("data", (chunk: Buffer) => {
          size += chunk.byteLength
          if (size <= maxAnswerBytes) chunks.push(chunk)
          else stop()
        })
        response.on("end", () => {
          clearTimeout(timer)
          signal.removeEventListener("abort", stop)
          // Not destroyed, so that the connection serves the next batch.
          resolve(judge(response, Buffer.concat(chunks), options.rejectedOf))
        })
        response.on("error", stop)
      })
      request.end(body)
    })
  return { post, close: () => agent.destroy() }
}
