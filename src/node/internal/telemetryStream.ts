import type { Writable } from "node:stream"
import { toLine } from "../../internal/jsonLine.ts"
import type { Answer, Target } from "./telemetryDelivery.ts"

const guarded = new WeakSet<Writable>()
const decoder = new TextDecoder()

// A stream with `emitClose: false` that is destroyed says nothing, and forgets the callback of its write.
const lookMillis = 1000

/**
 * A stream of lines. What cannot be written is lost: a reader who has gone does not come back, and a line that was half
 * written must not be written again.
 *
 * However slow the stream is, it is waited for: what it was given stays in its buffer, so whoever gives it more has no
 * bound, and whoever calls it lost counts wrongly. Only the end does not wait: the batch in flight is then counted as lost,
 * and goes out after all if the program lives on and the stream takes it.
 */
export const streamTarget = (stream: Writable): Target => {
  // Without a listener the end of whoever reads our output would be the end of the program.
  if (!guarded.has(stream)) {
    guarded.add(stream)
    stream.on("error", () => {})
  }
  const post = (body: Uint8Array, signal: AbortSignal): Promise<Answer> =>
    new Promise((resolve) => {
      const done = (isWritten: boolean) => {
        clearInterval(look)
        stream.off("close", stop)
        signal.removeEventListener("abort", stop)
        resolve(isWritten ? { _tag: "Accepted", rejected: 0 } : { _tag: "Refused" })
      }
      const stop = () => done(false)
      const look = setInterval(() => {
        if (stream.destroyed) stop()
      }, lookMillis)
      look.unref()
      signal.addEventListener("abort", stop, { once: true })
      if (signal.aborted || stream.destroyed || stream.writableEnded) return stop()
      // The callback of a write that had begun is not called when the stream is destroyed.
      stream.once("close", stop)
      stream.write(`${toLine(decoder.decode(body))}\n`, (error) => done(error == null))
    })
  return { post, close: () => {} }
}
