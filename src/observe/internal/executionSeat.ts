import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Tracer from "effect/Tracer"
import { CallRecord, type Outcome } from "../../CallRecord.ts"
import { originOf, type ToolCall } from "../../ToolCall.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Around } from "../../ToolMiddleware.ts"
import * as Names from "../ToolAttributes.ts"
import type { ToolSeries } from "../ToolMetrics.ts"
import { errorText, exitForSpan } from "./errorText.ts"
import type { Settings } from "./observedTool.ts"
import { annotateSpan, type AnyFiber, attempt, makeSpan, Observation, type Stopwatch, visible } from "./spans.ts"

interface Tool {
  readonly settings: Settings
  readonly meta: ToolMeta
  readonly series: ToolSeries | undefined
}

/** One execution of the handler, inside of the call that `outer` observes. */
class Execution {
  readonly tool: Tool
  readonly call: ToolCall
  readonly outer: Observation
  fiber: AnyFiber | undefined = undefined
  before: Context.Context<never> | undefined = undefined
  stopwatch: Stopwatch | undefined = undefined
  span: Tracer.Span | undefined = undefined

  constructor(tool: Tool, call: ToolCall, outer: Observation) {
    this.tool = tool
    this.call = call
    this.outer = outer
  }

  start(fiber: AnyFiber): void {
    const { outer, tool: { meta, settings } } = this
    const stopwatch = outer.stopwatch.again()
    this.fiber = fiber
    this.stopwatch = stopwatch
    const { ambient, tracer } = outer
    if (tracer === undefined || ambient === undefined) return
    const parent = visible(fiber.cache.span)
    if (parent?.sampled === false) return
    attempt(() => {
      const span = makeSpan(ambient, tracer, {
        name: meta.spanName,
        kind: "internal",
        parent,
        link: undefined,
        startTime: stopwatch.wall
      })
      this.span = span
      this.before = fiber.context
      fiber.setContext(Context.add(fiber.context, Tracer.ParentSpan, span))
      annotateSpan(span, ambient, settings.redaction)
      // The span of a call whose answer is being fetched anew has ended.
      this.describe(span, originOf(this.call) === this.call ? outer.span : undefined, stopwatch.wall)
    })
  }

  describe(span: Tracer.Span, root: Tracer.Span | undefined, now: bigint): void {
    const { meta } = this.tool
    // The pipeline counts an attempt when the handler starts, which is just after this.
    const start = this.call.record.attempts + 1
    if (start > 1) root?.event("tool.retry", now, { [Names.toolAttempt]: start })
    if (!span.sampled) return
    span.attribute(Names.toolId, meta.id)
    span.attribute(Names.toolName, meta.name)
    if (meta.namespace !== undefined) span.attribute(Names.toolNamespace, meta.namespace)
    if (meta.version !== undefined) span.attribute(Names.toolVersion, meta.version)
    span.attribute(Names.toolAttempt, start)
  }

  end(exit: Exit.Exit<unknown, unknown>): undefined {
    const { fiber, outer, span, stopwatch, tool: { series, settings } } = this
    // Interrupted before it started: nothing was executed.
    if (fiber === undefined || stopwatch === undefined) return undefined
    const elapsed = stopwatch.elapsed()
    const { outcome, tag } = ended(exit)
    const errorType = tag === undefined ? undefined : settings.tagText(tag)
    if (span !== undefined) {
      attempt(() => {
        try {
          span.attribute(Names.toolError, errorType !== undefined)
          if (errorType !== undefined) span.attribute(Names.errorType, errorType)
        } finally {
          span.end(stopwatch.wallAfter(elapsed), exitForSpan(exit, errorType, errorText(exit, settings.redaction)))
        }
      })
    }
    if (series !== undefined) {
      attempt(() => {
        series.execTotal(1, outer.metrics)
        series.execDuration(Number(elapsed) / 1_000_000, outer.metrics)
        if (errorType !== undefined && outcome !== "interrupted") series.execErrors(errorType)(1, outer.metrics)
      })
    }
    if (this.before !== undefined) fiber.setContext(this.before)
    return undefined
  }
}

interface End {
  readonly outcome: Outcome
  readonly tag: string | undefined
}

const wentWell: End = { outcome: "ok", tag: undefined }

const ended = (exit: Exit.Exit<unknown, unknown>): End => {
  if (exit._tag === "Success") return wentWell
  try {
    const record = new CallRecord()
    return { outcome: record.settle(exit), tag: record.errorType }
  } catch {
    // An error whose members throw when read.
    return { outcome: "failed", tag: "error" }
  }
}

/** The inner seat: every execution of the handler, so each attempt of a retried call and nothing of a cached one. */
export const executionSeat = (settings: Settings, meta: ToolMeta): Around<never> => {
  const tool: Tool = { settings, meta, series: settings.metrics ? settings.seriesOf(meta) : undefined }
  return (call, next) =>
    Effect.suspend(() => {
      const outer = call.record.observation
      // Nothing to tell, or a call whose record is not the one that the outer seat knows.
      if (!(outer instanceof Observation) || (tool.series === undefined && outer.tracer === undefined)) return next
      const current = new Execution(tool, call, outer)
      return Effect.onExitPrimitive(
        Effect.withFiber((fiber) => {
          current.start(fiber)
          return next
        }),
        (exit) => current.end(exit)
      )
    })
}
