/**
 * Writes log entries as JSON, one line each.
 *
 * An Effect `Logger`: `Effect.log` anywhere in the program goes through it, and inside a handler carries the names of the
 * tool and the call. Keys and free text are redacted, control characters escaped, and what callers and handlers say
 * stands in members of its own (`message`, `data`, `annotations`), so they cannot overwrite the others.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import { toLine } from "../internal/jsonLine.ts"
import type { Definition } from "../internal/metricSeries.ts"
import * as Check from "../internal/options.ts"
import { CallLine } from "./CallLine.ts"
import { CurrentCall } from "./CurrentCall.ts"
import { callIdText } from "./internal/callIdText.ts"
import * as StandardError from "./internal/standardError.ts"
import * as Redaction from "./Redaction.ts"

/**
 * Lines that the default sink left out, because more than 1 MiB waited for whoever reads standard error.
 *
 * @category metrics
 * @since 0.1.0
 */
export const dropped: Definition<"counter"> = StandardError.dropped

/**
 * What `make` takes.
 *
 * - `write`: takes a line without its line break. Default: the `error` of the `Console` service, so standard output
 *   stays free for protocols that use it. When it throws, the line is lost and nothing else happens. A standard error that
 *   nobody reads or that is closed breaks nothing: beyond 1 MiB lines are left out, counted in `dropped`, and the next
 *   line that is written says how many.
 * - `redact`: more sensitive keys, beside those of `Redaction`.
 * - `redaction`: a redaction of your own, instead of `redact`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly write?: ((line: string) => void) | undefined
  readonly redact?: ReadonlyArray<string> | undefined
  readonly redaction?: Redaction.Redaction | undefined
}

/**
 * What `layerConfig` takes: the options that can be written in a configuration.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConfigOptions {
  readonly redact?: ReadonlyArray<string> | undefined
}

/**
 * Makes the logger.
 *
 * **Details**
 *
 * Members of a line: `time`, `level`, `message`, then for a call `tool`, `callId`, `outcome`, `durationMs`, `attempts`,
 * `cache`, `rule`, `errorType`, `error`, `suppressed`; for other entries `data` (what was logged beside the first text),
 * `cause`, `tool` and `callId` of the call they were logged in, `annotations`, `spans`; then `traceId` and `spanId`.
 *
 * No line is longer than some hundred thousand characters: of each member the redaction bounds texts and their sum.
 *
 * **Gotchas**
 *
 * What waits in standard error when a program ends (1 MiB at most) keeps its process until somebody reads or closes the
 * other end, as all does that a program writes there.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Logger.Logger<unknown, void> => {
  const where = "StructuredLogger.make"
  Check.known(where, options, ["write", "redact", "redaction"])
  if (options.redaction !== undefined && options.redact !== undefined) {
    throw new TypeError(`${where}: redact and redaction exclude each other`)
  }
  const redaction = options.redaction ??
    (options.redact === undefined ? Redaction.standard : Redaction.make({ keys: options.redact }))
  const { write } = options
  return Logger.make((entry) => {
    const time = isoTime(entry.date)
    const line = render(entry, time, redaction)
    try {
      if (write === undefined) StandardError.writeError(entry.fiber, line, time)
      else write(line)
    } catch {
      // A sink that throws must not end a call.
    }
  })
}

const render = (entry: Logger.Options<unknown>, time: string, redaction: Redaction.Redaction): string => {
  const head = `{"time":"${time}","level":"${entry.logLevel.toUpperCase()}",`
  try {
    const messages = Array.isArray(entry.message) ? entry.message : [entry.message]
    const only: unknown = messages.length === 1 ? messages[0] : undefined
    const body = isCallLine(only) ? callMembers(only) : entryMembers(entry, messages, redaction)
    return head + body + traceMembers(entry.fiber) + annotationMembers(entry, redaction) + "}"
  } catch {
    // Only a redaction of the program's own gets here.
    return `${head}"message":"[unreadable]"}`
  }
}

const isCallLine = (value: unknown): value is CallLine => {
  try {
    return value instanceof CallLine
  } catch {
    // A proxy that does not say what it is.
    return false
  }
}

// `Date.toISOString` takes longer than the rest of a line, and many lines are written within one second.
let second = NaN
let secondText = ""
const isoTime = (date: Date): string => {
  const millis = date.getTime()
  const now = Math.floor(millis / 1000)
  if (!Number.isFinite(now)) return "invalid"
  if (now !== second) {
    second = now
    secondText = date.toISOString().slice(0, -4)
  }
  const rest = Math.floor(millis - now * 1000)
  return `${secondText}${rest < 10 ? "00" : rest < 100 ? "0" : ""}${rest}Z`
}

const json = (value: unknown): string => toLine(JSON.stringify(value) ?? "null")

// Names and ids are made of these, and then there is nothing to escape.
const harmless = /^[\w .:/-]*$/
const quote = (text: string): string => harmless.test(text) ? `"${text}"` : json(text)

const callMembers = (line: CallLine): string => {
  let out = `"message":"tool call","tool":${quote(line.tool)},"callId":${
    quote(line.callId)
  },"outcome":"${line.outcome}"`
  out += `,"durationMs":${line.durationMs},"attempts":${line.attempts}`
  if (line.cache !== undefined) out += `,"cache":"${line.cache}"`
  if (line.rule !== undefined) out += `,"rule":${quote(line.rule)}`
  if (line.errorType !== undefined) out += `,"errorType":${quote(line.errorType)}`
  if (line.error !== undefined) out += `,"error":${quote(line.error)}`
  if (line.suppressed > 0) out += `,"suppressed":${line.suppressed}`
  return out
}

const entryMembers = (
  entry: Logger.Options<unknown>,
  messages: ReadonlyArray<unknown>,
  redaction: Redaction.Redaction
): string => {
  const [first, ...rest] = messages
  const isText = typeof first === "string"
  let out = `"message":${quote(isText ? redaction.text(first) : "")}`
  const data = isText ? rest : messages
  if (data.length > 0) out += `,"data":${json(redaction.value(data.length === 1 ? data[0] : data))}`
  if (entry.cause.reasons.length > 0) out += `,"cause":${quote(redaction.text(prettyCause(entry.cause)))}`
  const call = entry.fiber.getRef(CurrentCall)
  if (call !== undefined) out += `,"tool":${quote(call.tool.id)},"callId":${quote(callIdText(call.callId, redaction))}`
  const spans = entry.fiber.getRef(References.CurrentLogSpans)
  if (spans.length > 0) {
    const now = entry.date.getTime()
    out += `,"spans":${json(redaction.value(new Map(spans.map(([label, since]) => [label, now - since]))))}`
  }
  return out
}

const prettyCause = (cause: Cause.Cause<unknown>): string => {
  try {
    return Cause.pretty(cause)
  } catch {
    // An error whose members throw when read.
    return "[unreadable]"
  }
}

const annotationMembers = (entry: Logger.Options<unknown>, redaction: Redaction.Redaction): string => {
  const annotations = entry.fiber.getRef(References.CurrentLogAnnotations)
  for (const _ in annotations) return `,"annotations":${json(redaction.value(annotations))}`
  return ""
}

const traceMembers = (fiber: Fiber.Fiber<unknown, unknown>): string => {
  const span = fiber.cache.span
  return span === undefined ? "" : `,"traceId":${quote(span.traceId)},"spanId":${quote(span.spanId)}`
}

/**
 * Replaces the program's loggers with this one.
 *
 * **Gotchas**
 *
 * All of them, and with them `Logger.tracerLogger`, which writes entries on spans as they are. Where you put it back,
 * exporters other than `Telemetry`'s get what was logged without redaction.
 *
 * **Example** (Logging JSON lines)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { StructuredLogger } from "effect-toolops/observe"
 *
 * const lines: Array<string> = []
 * const Log = StructuredLogger.layer({ write: (line) => lines.push(line) })
 * await Effect.runPromise(Effect.log("hello", { password: "x" }).pipe(Effect.provide(Log)))
 * const { data, message } = JSON.parse(lines[0] ?? "")
 * message // => "hello"
 * data // => { password: "<redacted>" }
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<never> => Logger.layer([make(options)])

/**
 * Replaces the program's loggers with this one, with options from the program's configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<ConfigOptions>): Layer.Layer<never, Config.ConfigError> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), layer))
