import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

// `Toolkit.handle` of `effect/ai` writes the raw parameters of a call on the span that happens to be around it. Behind a
// shield there is no span to write on, only the place of one in its trace.

class ShieldedSpan implements Tracer.ExternalSpan {
  readonly _tag = "ExternalSpan"
  readonly original: Tracer.Span

  constructor(original: Tracer.Span) {
    this.original = original
  }

  get spanId(): string {
    return this.original.spanId
  }

  get traceId(): string {
    return this.original.traceId
  }

  get sampled(): boolean {
    return this.original.sampled
  }

  get annotations(): Context.Context<never> {
    return this.original.annotations
  }
}

/** Runs an effect so that it cannot annotate the span around it. Spans that it starts have the same parent as before. */
export const shield = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const span = fiber.cache.span
    return span?._tag !== "Span" ? self : provideSpan(self, new ShieldedSpan(span))
  })

/** Gives an effect behind a shield its span back. */
export const restore = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const span = fiber.cache.span
    if (span instanceof ShieldedSpan) return provideSpan(self, span.original)
    // Called without a shield, so the parameters are there already. Nothing is exported before the span ends.
    if (span?._tag === "Span" && span.attributes.has("parameters")) span.attribute("parameters", "not recorded")
    return self
  })

const provideSpan = <A, E, R>(self: Effect.Effect<A, E, R>, span: Tracer.AnySpan): Effect.Effect<A, E, R> =>
  // Whoever needs a parent span still gets one, so nothing is taken from what `self` requires.
  Effect.provideService(self, Tracer.ParentSpan, span) as Effect.Effect<A, E, R>
