import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { type Redaction, replacement } from "../Redaction.ts"

/** Any fiber: a stage does not know what it runs. */
export type AnyFiber = Fiber.Fiber<unknown, unknown>

/** The program's tracer. Without one of its own nobody could read a span, so none is made. */
export const tracerOf = (fiber: AnyFiber): Tracer.Tracer | undefined => {
  const tracer = fiber.cache.tracerEnabled ? fiber.cache.tracer : undefined
  return tracer === Tracer.nativeTracer ? undefined : tracer
}

/** The nearest span from `span` upwards that is not hidden from its children. */
export const visible = (span: Tracer.AnySpan | undefined): Tracer.AnySpan | undefined => {
  let current = span
  while (current !== undefined && Context.get(current.annotations, Tracer.DisablePropagation)) {
    current = current._tag === "Span" ? Option.getOrUndefined(current.parent) : undefined
  }
  return current
}

/** What a span starts with. */
export interface NewSpan {
  readonly name: string
  readonly kind: Tracer.SpanKind
  readonly parent: Tracer.AnySpan | undefined
  readonly link: Tracer.AnySpan | undefined
  readonly startTime: bigint
}

/** A span as `Effect.makeSpan` makes it. None below an unsampled parent: whatever is below inherits that one instead. */
export const makeSpan = (
  fiber: AnyFiber,
  tracer: Tracer.Tracer,
  redaction: Redaction,
  options: NewSpan
): Tracer.Span | undefined => {
  if (options.parent?.sampled === false) return undefined
  const minimum = fiber.getRef(Tracer.MinimumTraceLevel)
  if (minimum !== "All" && LogLevel.isGreaterThan(minimum, fiber.getRef(Tracer.CurrentTraceLevel))) return undefined
  const links = [...fiber.getRef(References.TracerSpanLinks)]
  if (options.link !== undefined) links.push({ span: options.link, attributes: {} })
  const span = tracer.span({
    name: options.name,
    parent: Option.fromUndefinedOr(options.parent),
    annotations: Context.empty(),
    links,
    startTime: options.startTime,
    kind: options.kind,
    root: false,
    sampled: true
  })
  const ambient = fiber.getRef(References.TracerSpanAnnotations)
  for (const name of Object.keys(ambient)) {
    span.attribute(name, redaction.isSensitiveKey(name) ? replacement : redaction.value(ambient[name]))
  }
  return span
}

/**
 * When something started, on both clocks. Its end is read from the monotonic one alone, so that span, metrics and record
 * have the same duration, whatever the wall clock does meanwhile.
 */
export class Stopwatch {
  readonly clock: Clock.Clock
  readonly isTimed: boolean
  readonly monotonic: bigint
  readonly wall: bigint

  private constructor(clock: Clock.Clock, isTimed: boolean, monotonic: bigint, wall: bigint) {
    this.clock = clock
    this.isTimed = isTimed
    this.monotonic = monotonic
    this.wall = wall
  }

  static start(fiber: AnyFiber, isTraced: boolean): Stopwatch {
    const clock = fiber.getRef(Clock.Clock)
    const isTimed = isTraced && fiber.getRef(References.TracerTimingEnabled)
    const wall = isTimed ? clock.currentTimeNanosUnsafe() : 0n
    return new Stopwatch(clock, isTimed, clock.monotonicTimeNanosUnsafe(), wall)
  }

  /** A later start, told by the same clocks: what is inside of a span lies within it to the nanosecond. */
  again(): Stopwatch {
    const monotonic = this.clock.monotonicTimeNanosUnsafe()
    return new Stopwatch(this.clock, this.isTimed, monotonic, this.wallAfter(monotonic - this.monotonic))
  }

  elapsed(): bigint {
    return this.clock.monotonicTimeNanosUnsafe() - this.monotonic
  }

  wallAfter(elapsed: bigint): bigint {
    return this.isTimed ? this.wall + elapsed : 0n
  }
}

/** What the outer seat leaves in the record for the inner one. */
export class Observation {
  readonly stopwatch: Stopwatch
  readonly tracer: Tracer.Tracer | undefined
  span: Tracer.Span | undefined = undefined

  constructor(stopwatch: Stopwatch, tracer: Tracer.Tracer | undefined) {
    this.stopwatch = stopwatch
    this.tracer = tracer
  }
}

/** Runs what must not change the call it observes. */
export const attempt = (tell: () => void): void => {
  try {
    tell()
  } catch {
    // There is nobody left to tell.
  }
}
