import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Tracer from "effect/Tracer"
import type { Outcome } from "../../CallRecord.ts"
import type { ToolCall } from "../../ToolCall.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Around } from "../../ToolMiddleware.ts"
import { CallLine } from "../CallLine.ts"
import { CurrentCall } from "../CurrentCall.ts"
import { CurrentMcpRequest, type McpRequest } from "../McpRequest.ts"
import { callIdText } from "./callIdText.ts"
import { describeSpan, endSpan, type ObservedCall } from "./callSpan.ts"
import { errorText } from "./errorText.ts"
import { isRefusal, ObservedTool, type Settings } from "./observedTool.ts"
import {
  type Ambient,
  annotateSpan,
  type AnyFiber,
  attempt,
  makeSpan,
  Observation,
  Stopwatch,
  tracerBelow,
  visible
} from "./spans.ts"

const levels: Readonly<Record<Outcome, LogLevel.Severity>> = {
  ok: "Info",
  cached: "Info",
  stale: "Info",
  coalesced: "Info",
  interrupted: "Info",
  denied: "Warn",
  unauthenticated: "Warn",
  limited: "Warn",
  rejected: "Warn",
  timed_out: "Warn",
  failed: "Error",
  defect: "Error"
}

/** The request over MCP that is being answered by a call already: what its handler calls is no answer to it. */
const AnsweredMcpRequest = Context.Reference<McpRequest | undefined>(
  "effect-toolops/observe/internal/AnsweredMcpRequest",
  { defaultValue: () => undefined }
)

const unansweredMcpRequest = (fiber: AnyFiber): McpRequest | undefined => {
  const mcp = fiber.getRef(CurrentMcpRequest)
  return mcp === undefined || mcp === fiber.getRef(AnsweredMcpRequest) ? undefined : mcp
}

/** One call in the outer seat. */
class Call implements ObservedCall {
  readonly tool: ObservedTool
  readonly call: ToolCall
  fiber: AnyFiber | undefined = undefined
  observation: Observation | undefined = undefined
  mcp: McpRequest | undefined = undefined
  tag: string | undefined = undefined
  isContextSet = false
  #callId: string | undefined = undefined

  constructor(tool: ObservedTool, call: ToolCall) {
    this.tool = tool
    this.call = call
  }

  start(fiber: AnyFiber): Observation {
    const { log, metricContext, spans } = this.tool.settings
    const mcp = unansweredMcpRequest(fiber)
    const ambient = spans ? visible(fiber.cache.span) : undefined
    const parent = mcp?.parent ?? ambient
    const tracer = spans ? tracerBelow(fiber, parent) : undefined
    const stopwatch = Stopwatch.start(fiber, tracer !== undefined)
    const before = fiber.context
    const metrics = this.tool.series === undefined ? before : metricContext(before)
    const observation = new Observation(stopwatch, before, metrics, tracer)
    this.fiber = fiber
    this.mcp = mcp
    this.observation = observation
    const record = this.call.record
    record.observation = observation
    record.startedAtMonotonic = Number(stopwatch.monotonic) / 1_000_000
    record.startedAt = stopwatch.isTimed
      ? Math.floor(Number(stopwatch.wall) / 1_000_000)
      : stopwatch.clock.currentTimeMillisUnsafe()
    let context = before
    if (log) context = Context.add(context, CurrentCall, this.call)
    if (mcp !== undefined) context = Context.add(context, AnsweredMcpRequest, mcp)
    if (tracer !== undefined && observation.ambient !== undefined) {
      this.startSpan(observation, observation.ambient, tracer, parent, ambient)
    }
    // A parent that the client sent is the parent also where this call makes no span.
    const inner = observation.span ?? mcp?.parent
    if (spans && inner !== undefined) context = Context.add(context, Tracer.ParentSpan, inner)
    if (context !== before) {
      this.isContextSet = true
      fiber.setContext(context)
    }
    return observation
  }

  startSpan(
    observation: Observation,
    shared: Ambient,
    tracer: Tracer.Tracer,
    parent: Tracer.AnySpan | undefined,
    ambient: Tracer.AnySpan | undefined
  ): void {
    const { mcp, tool } = this
    attempt(() => {
      const span = makeSpan(shared, tracer, {
        name: mcp === undefined ? tool.spanName : tool.mcpSpanName,
        kind: mcp === undefined ? "internal" : "server",
        parent,
        link: mcp?.parent === undefined ? undefined : ambient,
        startTime: observation.stopwatch.wall
      })
      // Before anything else, so that it is ended whatever it does not take.
      observation.span = span
      annotateSpan(span, shared, tool.settings.redaction)
      if (span.sampled) describeSpan(span, this)
    })
  }

  end(exit: Exit.Exit<unknown, unknown>): undefined {
    // An interruption between the two primitives of the seat ends a call that has not started.
    const fiber = this.fiber ?? Fiber.getCurrent()
    if (fiber === undefined) return undefined
    const { context, metrics, span, stopwatch } = this.observation ?? this.start(fiber)
    const elapsed = stopwatch.elapsed()
    const record = this.call.record
    record.durationMillis = Number(elapsed) / 1_000_000
    record.observation = undefined
    const outcome = this.settle(exit)
    if (span !== undefined) attempt(() => endSpan(span, this, exit, outcome, stopwatch.wallAfter(elapsed)))
    if (this.tool.series !== undefined) attempt(() => this.count(metrics, outcome))
    if (this.tool.settings.log) attempt(() => this.log(fiber, context, exit, outcome))
    if (this.isContextSet) fiber.setContext(context)
    // What is still running knows the record, and nothing else of this call need be kept for it.
    if (this.tool.series !== undefined) record.observeLate(this.tool.lateObserver(this.tool.series, metrics))
    this.fiber = undefined
    this.observation = undefined
    return undefined
  }

  settle(exit: Exit.Exit<unknown, unknown>): Outcome {
    const record = this.call.record
    let outcome: Outcome
    try {
      outcome = record.settle(exit)
    } catch {
      // An error whose members throw when read.
      record.errorType = "error"
      outcome = record.outcome = "failed"
    }
    if (record.errorType !== undefined) this.tag = this.tool.settings.tagText(record.errorType)
    return outcome
  }

  /** The call's name as it is told. */
  get callId(): string {
    return this.#callId ??= callIdText(this.call.callId, this.tool.settings.redaction)
  }

  get errorType(): string | undefined {
    const { mcp, tag } = this
    const { outcome } = this.call.record
    if (mcp === undefined || tag === undefined || outcome === undefined || outcome === "interrupted") return tag
    const code = isRefusal(outcome) || outcome === "timed_out" ? mcp.errorType?.(tag) : undefined
    return code ?? "tool_error"
  }

  count(context: Context.Context<never>, outcome: Outcome): void {
    const series = this.tool.series
    if (series === undefined) return
    const record = this.call.record
    const seconds = record.durationMillis / 1000
    series.total(outcome)(1, context)
    series.duration(this.tag)(seconds, context)
    if (this.mcp !== undefined) series.mcp(this.errorType)(seconds, context)
    if (record.attempts > 1) series.retries(record.attempts - 1, context)
    if (record.lateResults > 0) series.late(record.lateResults, context)
    if (record.cache !== undefined) series.cache(record.cache)(1, context)
    if (outcome === "denied" || outcome === "unauthenticated") series.auth(outcome)(1, context)
    else if (record.identity !== undefined) series.auth("allowed")(1, context)
    if (record.limits !== undefined) {
      for (const limit of record.limits) {
        const said = limit.allowed
          ? series.limitAllowed
          : limit.shadow === true
          ? series.limitShadowed
          : series.limitLimited
        said(limit.name)(1, context)
      }
    }
  }

  log(fiber: AnyFiber, context: Context.Context<never>, exit: Exit.Exit<unknown, unknown>, outcome: Outcome): void {
    const { settings } = this.tool
    const level = levels[outcome]
    if (LogLevel.getOrdinal(fiber.cache.minimumLogLevel) > LogLevel.getOrdinal(level)) return
    const loggers = Context.get(context, Logger.CurrentLoggers)
    if (loggers.size === 0) return
    const record = this.call.record
    const suppressed = isRefusal(outcome)
      ? this.tool.refusals.suppressed(outcome, record.startedAtMonotonic + record.durationMillis)
      : 0
    if (suppressed < 0) {
      this.tool.series?.suppressed(1, context)
      return
    }
    const line = new CallLine({
      tool: this.tool.meta.id,
      callId: this.callId,
      outcome,
      durationMs: record.durationMillis,
      attempts: record.attempts,
      cache: record.cache,
      rule: record.rule === undefined ? undefined : settings.redaction.text(record.rule),
      errorType: this.tag,
      error: errorText(exit, settings.redaction),
      suppressed
    })
    const date = new Date(record.startedAt + record.durationMillis)
    for (const logger of loggers) {
      // The span tells the same already.
      if (logger === Logger.tracerLogger) continue
      attempt(() => logger.log({ message: [line], logLevel: level, cause: Cause.empty, fiber, date }))
    }
  }
}

/** The outer seat: every call, whatever becomes of it. */
export const callSeat = (settings: Settings, meta: ToolMeta): Around<never> => {
  const tool = new ObservedTool(settings, meta)
  const isSpansOnly = tool.series === undefined && !settings.log
  return (call, next) =>
    Effect.withFiber((caller) => {
      if (isSpansOnly && isUntraced(caller)) return next
      const current = new Call(tool, call)
      return Effect.onExitPrimitive(
        Effect.withFiber((fiber) => {
          current.start(fiber)
          return next
        }),
        (exit) => current.end(exit)
      )
    })
}

// No span is made and none has to be put around what is inside.
const isUntraced = (fiber: AnyFiber): boolean =>
  unansweredMcpRequest(fiber)?.parent === undefined && tracerBelow(fiber, visible(fiber.cache.span)) === undefined
