/** A tracer that keeps its spans in memory, and a way to print the tree that one of them is in. */
import { Cause, Option, Tracer } from "effect"

export const recorder = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return {
    spans,
    tracer,
    /** The root spans of tool calls that have ended, in the order in which they began. */
    calls: () => spans.filter((span) => span.attributes.has("tool.outcome") && span.status._tag === "Ended"),
    /** Everything an exporter would see, as text. */
    printed: () =>
      JSON.stringify(spans.map((span) => [span.name, span.attributes, span.events, reason(span)]), readable)
  }
}

/** JSON leaves out what is in a map, and refuses integers that are big. */
const readable = (_name: string, value: unknown): unknown => {
  if (typeof value === "bigint") return String(value)
  return value instanceof Map || value instanceof Set ? [...value] : value
}

/** Why a span failed, with every message and stack. */
const reason = ({ status }: Tracer.Span): string =>
  status._tag === "Ended" && status.exit._tag === "Failure" ? Cause.pretty(status.exit.cause) : ""

export const attribute = (span: Tracer.Span | undefined, name: string): string => String(span?.attributes.get(name))

const parentOf = (span: Tracer.Span): string | undefined => Option.getOrUndefined(span.parent)?.spanId

/** The trace of a span, one line per span, children below their parents. */
export const tree = (
  spans: ReadonlyArray<Tracer.Span>,
  member: Tracer.Span | undefined
): ReadonlyArray<string> => {
  const trace = spans.filter((span) => span.traceId === member?.traceId)
  const known = new Set(trace.map((span) => span.spanId))
  const lines: Array<string> = []
  const visit = (span: Tracer.Span, depth: number): void => {
    lines.push("   ".repeat(depth) + describe(span))
    for (const child of trace) if (parentOf(child) === span.spanId) visit(child, depth + 1)
  }
  for (const span of trace) if (!known.has(parentOf(span) ?? "")) visit(span, 0)
  return lines
}

const shown = ["tool.outcome", "tool.attempts", "error.type"]

const describe = (span: Tracer.Span): string => {
  const millis = span.status._tag === "Ended" ? Number(span.status.endTime - span.status.startTime) / 1e6 : NaN
  const attributes = shown.flatMap((name) => span.attributes.has(name) ? [`${name}=${attribute(span, name)}`] : [])
  return [span.name, `${millis.toFixed(1)} ms`, ...attributes].join("  ")
}
