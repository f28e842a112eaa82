import * as Console from "effect/Console"
import type * as Fiber from "effect/Fiber"
import { type Definition, series } from "../../internal/metricSeries.ts"

/** How many characters may wait for a reader of standard error. */
const maxHeld = 2 ** 20

/** Lines that were left out because nobody read standard error. */
export const dropped: Definition<"counter"> = {
  type: "counter",
  name: "log.dropped",
  description: "Log lines left out because standard error was not read",
  unit: "{line}",
  labels: []
}

const count = series(dropped, {})

/** What Node's streams have. A console elsewhere has none. */
interface Stream {
  readonly writableLength?: number
  readonly on?: (event: "error", listener: () => void) => unknown
  readonly once?: (event: "drain", listener: () => void) => unknown
}

const guarded = new WeakSet<Stream>()
const awaited = new WeakSet<Stream>()
let left = 0

const standardError = (): Stream | undefined => {
  const { process } = globalThis as { readonly process?: { readonly stderr?: Stream } }
  const stream = process?.stderr
  if (stream !== undefined && !guarded.has(stream)) {
    guarded.add(stream)
    // Without a listener the end of whoever reads our errors would be the end of the program.
    stream.on?.("error", () => {})
  }
  return stream
}

const tell = (console: Console.Console, time: string): void => {
  if (left === 0) return
  const notice = `{"time":"${time}","level":"WARN","message":"log lines dropped","dropped":${left}}`
  left = 0
  console.error(notice)
}

/** Tells when all that waits has been read. A reader that is slow for ever never gets there, so this waits once. */
const tellAtDrain = (stream: Stream, console: Console.Console): void => {
  if (awaited.has(stream)) return
  awaited.add(stream)
  stream.once?.("drain", () => {
    awaited.delete(stream)
    tell(console, new Date().toISOString())
  })
}

/**
 * Writes a line to the console's standard error, or leaves it out while a reader is far behind: what such a stream holds
 * has no bound of its own.
 */
export const writeError = (fiber: Fiber.Fiber<unknown, unknown>, line: string, time: string): void => {
  const console = fiber.getRef(Console.Console)
  // A console of the program's own writes to who knows where.
  const stream = console === globalThis.console ? standardError() : undefined
  if (stream === undefined) return console.error(line)
  if ((stream.writableLength ?? 0) > maxHeld) {
    // Told as soon as there is room, by the next line or, where none comes, when all that waits has been read.
    left += 1
    tellAtDrain(stream, console)
    return count(1, fiber.context)
  }
  tell(console, time)
  console.error(line)
}
