import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { toLine } from "../AuditRecord.ts"
import type { Sink } from "./auditService.ts"

/** As much of Node's standard streams as is looked at. Other hosts may have none. */
interface StandardStream {
  readonly on: (event: "error", listener: () => void) => unknown
}

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
  return typeof stream === "object" && stream !== null && "on" in stream && typeof stream.on === "function"
    ? stream as StandardStream
    : undefined
}

/** Lines of JSON on the console. */
export const consoleSink = (name: "stdout" | "stderr"): Sink => ({
  write: (records) =>
    Console.consoleWith((console) =>
      Effect.suspend((): Effect.Effect<void, string> => {
        const stream = console === globalThis.console ? standardStream(name) : undefined
        if (stream !== undefined && isBroken(stream)) return Effect.fail(`${name} is closed`)
        const lines = records.map(toLine).join("\n")
        if (name === "stdout") console.log(lines)
        else console.error(lines)
        return Effect.void
      })
    )
})
