import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { type Redaction, replacement } from "../Redaction.ts"

/** Any fiber: a stage does not know what it runs. */
export type AnyFiber = Fiber.Fiber<unknown, unknown>

/** The nearest span from `span` upwards that is not hidden from its children. */
export const visible = (span: Tracer.AnySpan | undefined): Tracer.AnySpan | undefined => {
  let current = span
  while (current !== undefined && Context.get(current.annotations, Tracer.DisablePropagation)) {
    current = current._tag === "Span" ? Option.getOrUndefined(current.parent) : undefined
  }
  return current
}

/**
 * The tracer for spans below `parent`, or undefined when none are made: without a tracer of the program's own nobody
 * could read one, and below an unsampled parent what is inside inherits that parent instead.
 */
export const tracerBelow = (fiber: AnyFiber, parent: Tracer.AnySpan | undefined): Tracer.Tracer | undefined => {
  const tracer = fiber.cache.tracerEnabled ? fiber.cache.tracer : undefined
  if (tracer === undefined || tracer === Tracer.nativeTracer || parent?.sampled === false) return undefined
  const minimum = fiber.getRef(Tracer.MinimumTraceLevel)
  return minimum !== "All" && LogLevel.isGreaterThan(minimum, fiber.getRef(Tracer.CurrentTraceLevel))
    ? undefined
    : tracer
}

/** What a span starts with. */
export interface NewSpan {
  readonly name: string
  readonly kind: Tracer.SpanKind
  readonly parent: Tracer.AnySpan | undefined
  readonly link: Tracer.AnySpan | undefined
  readonly startTime: bigint
}

/** Links and annotations that the caller's context has for all spans. */
export interface Ambient {
  readonly links: ReadonlyArray<Tracer.SpanLink>
  readonly annotations: Readonly<Record<string, unknown>>
}

/** What `context` has for all spans. */
export const ambientOf = (context: Context.Context<never>): Ambient => ({
  links: Context.get(context, References.TracerSpanLinks),
  annotations: Context.get(context, References.TracerSpanAnnotations)
})

/** A span as `Effect.makeSpan` makes it, still without its annotations. */
export const makeSpan = (ambient: Ambient, tracer: Tracer.Tracer, options: NewSpan): Tracer.Span => {
  const links = [...ambient.links]
  if (options.link !== undefined) links.push({ span: options.link, attributes: {} })
  return tracer.span({
    name: options.name,
    parent: Option.fromUndefinedOr(options.parent),
    annotations: Context.empty(),
    links,
    startTime: options.startTime,
    kind: options.kind,
    root: false,
    sampled: true
  })
}

/** Gives a span the annotations that the caller's context has for all spans. */
export const annotateSpan = (span: Tracer.Span, ambient: Ambient, redaction: Redaction): void => {
  for (const name of Object.keys(ambient.annotations)) {
    if (redaction.isSensitiveKey(name)) {
      span.attribute(name, replacement)
      continue
    }
    // With its name: what a value may hold depends on it.
    const told = redaction.value({ [name]: ambient.annotations[name] })
    if (typeof told === "object" && told !== null) span.attribute(name, Object.values(told)[0])
  }
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
  readonly context: Context.Context<never>
  readonly metrics: Context.Context<never>
  readonly tracer: Tracer.Tracer | undefined
  readonly ambient: Ambient | undefined
  span: Tracer.Span | undefined = undefined

  constructor(
    stopwatch: Stopwatch,
    context: Context.Context<never>,
    metrics: Context.Context<never>,
    tracer: Tracer.Tracer | undefined
  ) {
    this.stopwatch = stopwatch
    this.context = context
    this.metrics = metrics
    this.tracer = tracer
    this.ambient = tracer === undefined ? undefined : ambientOf(context)
  }
}

/**
 * Reduces contexts to what metrics read from them. One call updates several metrics, each of which looks both up again,
 * and most calls of a program share them.
 */
export const makeMetricContext = (): (context: Context.Context<never>) => Context.Context<never> => {
  let registry: Metric.MetricRegistry | undefined
  let attributes: Metric.Metric.AttributeSet | undefined
  let reduced: Context.Context<never> = Context.empty()
  return (context) => {
    const nowRegistry = Context.get(context, Metric.MetricRegistry)
    const nowAttributes = Context.get(context, Metric.CurrentMetricAttributes)
    if (nowRegistry !== registry || nowAttributes !== attributes) {
      registry = nowRegistry
      attributes = nowAttributes
      reduced = Context.mergeAll(
        Context.make(Metric.MetricRegistry, nowRegistry),
        Context.make(Metric.CurrentMetricAttributes, nowAttributes)
      )
    }
    return reduced
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
