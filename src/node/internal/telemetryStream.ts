import type { Writable } from "node:stream"
import { toLine } from "../../internal/jsonLine.ts"
import type { Answer, Target } from "./telemetryDelivery.ts"

const guarded = new WeakSet<Writable>()
const decoder = new TextDecoder()

/**
 * A stream of lines. What cannot be written is lost: a reader who has gone does not come back, and a line that was half
 * written must not be written again.
 */
export const streamTarget = (stream: Writable, timeoutMillis: number): Target => {
  // Without a listener the end of whoever reads our output would be the end of the program.
  if (!guarded.has(stream)) {
    guarded.add(stream)
    stream.on("error", () => {})
  }
  const post = (body: Uint8Array, signal: AbortSignal): Promise<Answer> =>
    new Promise((resolve) => {
      const done = (isWritten: boolean) => {
        clearTimeout(timer)
        signal.removeEventListener("abort", stop)
        resolve(isWritten ? { _tag: "Accepted", rejected: 0 } : { _tag: "Refused" })
      }
      const stop = () => done(false)
      const timer = setTimeout(stop, timeoutMillis)
      timer.unref()
      signal.addEventListener("abort", stop, { once: true })
      if (signal.aborted || stream.destroyed || stream.writableEnded) return stop()
      stream.write(`${toLine(decoder.decode(body))}\n`, (error) => done(error == null))
    })
  return { post, close: () => {} }
}
