import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { toLine } from "../AuditRecord.ts"
import type { Sink } from "./auditService.ts"

/** As much of Node's standard streams as is looked at. Other hosts may have none. */
interface StandardStream {
  readonly on: (event: "error" | "drain" | "close", listener: () => void) => unknown
  readonly off: (event: "error" | "drain" | "close", listener: () => void) => unknown
  readonly writableLength?: number
}

/** How much of what the console has taken may wait in memory for a reader, in bytes. One write may exceed it. */
const maxBuffered = 1024 * 1024

// A reader that has stopped reading without going away: the console would go on to take everything.
const untilDrained = (stream: StandardStream): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if ((stream.writableLength ?? 0) <= maxBuffered) return resume(Effect.void)
    const events = ["drain", "error", "close"] as const
    const end = (): void => {
      for (const event of events) stream.off(event, end)
      resume(Effect.void)
    }
    for (const event of events) stream.on(event, end)
    return Effect.sync(() => {
      for (const event of events) stream.off(event, end)
    })
  })

const broken = new WeakSet<StandardStream>()
const watched = new WeakSet<StandardStream>()

// Node reports a pipe that nobody reads any more as an event of the stream, and ends the process when nobody listens. The
// listener stays: the event may come after the log is closed.
const isBroken = (stream: StandardStream): boolean => {
  if (!watched.has(stream)) {
    watched.add(stream)
    stream.on("error", () => broken.add(stream))
  }
  return broken.has(stream)
}

const standardStream = (name: "stdout" | "stderr"): StandardStream | undefined => {
  const process: unknown = Reflect.get(globalThis, "process")
  const stream: unknown = typeof process === "object" && process !== null ? Reflect.get(process, name) : undefined
  return typeof stream === "object" && stream !== null && "on" in stream && typeof stream.on === "function" &&
      "off" in stream && typeof stream.off === "function"
    ? stream as StandardStream
    : undefined
}

/** Lines of JSON on the console. */
export const consoleSink = (name: "stdout" | "stderr"): Sink => ({
  write: (records) =>
    Console.consoleWith((console) =>
      Effect.suspend((): Effect.Effect<void, string> => {
        const stream = console === globalThis.console ? standardStream(name) : undefined
        const write = Effect.suspend((): Effect.Effect<void, string> => {
          if (stream !== undefined && isBroken(stream)) return Effect.fail(`${name} is closed`)
          const lines = records.map(toLine).join("\n")
          if (name === "stdout") console.log(lines)
          else console.error(lines)
          return Effect.void
        })
        return stream === undefined || isBroken(stream) ? write : Effect.andThen(untilDrained(stream), write)
      })
    )
})
