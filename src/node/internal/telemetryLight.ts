import * as Tracer from "effect/Tracer"

// `Toolkit` of `effect/ai` writes the raw parameters of a call on the span around it, under these two names.
const hide = (span: Tracer.Span): void => {
  if (span.attributes.has("tool") && span.attributes.has("parameters")) span.attribute("parameters", "not recorded")
}

/** The same tracer, whose spans end without the raw parameters of tools. */
export const withoutParameters = (tracer: Tracer.Tracer): Tracer.Tracer =>
  Tracer.make({
    ...tracer,
    span: (options) => {
      const span = tracer.span(options)
      const end = span.end.bind(span)
      span.end = (endTime, exit) => {
        hide(span)
        end(endTime, exit)
      }
      return span
    }
  })
