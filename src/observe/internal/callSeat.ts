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
import type { Redaction } from "../Redaction.ts"
import * as Names from "../ToolAttributes.ts"
import type { ToolSeries } from "../ToolMetrics.ts"
import { type Fields, makeCapture } from "./capture.ts"
import { errorText, exitForSpan } from "./errorText.ts"
import {
  type Ambient,
  type AnyFiber,
  attempt,
  makeSpan,
  Observation,
  Stopwatch,
  tracerBelow,
  visible
} from "./spans.ts"

/** The options of the stage, with their defaults filled in. */
export interface Settings {
  readonly capture: { readonly arguments?: Fields; readonly result?: Fields }
  readonly spans: boolean
  readonly metrics: boolean
  readonly log: boolean
  readonly repeatedRefusals: number
  readonly redaction: Redaction
  readonly seriesOf: (tool: ToolMeta) => ToolSeries
  readonly metricContext: (context: Context.Context<never>) => Context.Context<never>
}

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

const maxCallId = 256

const isRefusal = (outcome: Outcome): boolean =>
  outcome === "denied" || outcome === "unauthenticated" || outcome === "limited" || outcome === "rejected"

interface Attribute {
  readonly name: string
  readonly value: unknown
}

const staticAttributes = (tool: ToolMeta): ReadonlyArray<Attribute> => {
  const all: ReadonlyArray<Attribute> = [
    { name: Names.genAiOperationName, value: "execute_tool" },
    { name: Names.genAiToolName, value: tool.name },
    { name: Names.genAiToolType, value: "function" },
    { name: Names.genAiToolDescription, value: tool.description?.slice(0, 256) },
    { name: Names.toolId, value: tool.id },
    { name: Names.toolName, value: tool.name },
    { name: Names.toolNamespace, value: tool.namespace },
    { name: Names.toolVersion, value: tool.version },
    { name: Names.toolCategory, value: tool.category },
    { name: Names.toolTags, value: tool.tags.length === 0 ? undefined : tool.tags }
  ]
  return all.filter((attribute) => attribute.value !== undefined)
}

/** What the outer seat knows of a tool before its first call. */
class Tool {
  readonly settings: Settings
  readonly meta: ToolMeta
  readonly series: ToolSeries | undefined
  readonly attributes: ReadonlyArray<Attribute>
  readonly spanName: string
  readonly mcpSpanName: string
  readonly captureArguments: ((value: unknown) => string | undefined) | undefined
  readonly captureResult: ((value: unknown) => string | undefined) | undefined
  readonly refusals = new Map<Outcome, { since: number; logged: number; suppressed: number }>()

  constructor(settings: Settings, meta: ToolMeta) {
    this.settings = settings
    this.meta = meta
    this.series = settings.metrics ? settings.seriesOf(meta) : undefined
    this.attributes = staticAttributes(meta)
    const { capture, redaction } = settings
    this.captureArguments = makeCapture(meta.input, capture.arguments, redaction)
    this.captureResult = makeCapture(meta.success, capture.result, redaction)
    this.spanName = `execute_tool ${meta.name}`
    this.mcpSpanName = `tools/call ${meta.name}`
  }

  /** How many lines were left out before this one, or -1 when this one is to be left out too. */
  suppressed(outcome: Outcome, nowMillis: number): number {
    let window = this.refusals.get(outcome)
    if (window === undefined) this.refusals.set(outcome, window = { since: nowMillis, logged: 0, suppressed: 0 })
    if (nowMillis - window.since >= 1000) {
      window.since = nowMillis
      window.logged = 0
    }
    if (window.logged >= this.settings.repeatedRefusals) {
      window.suppressed += 1
      return -1
    }
    window.logged += 1
    const left = window.suppressed
    window.suppressed = 0
    return left
  }
}

/** One call in the outer seat. */
class Call {
  readonly tool: Tool
  readonly call: ToolCall
  fiber: AnyFiber | undefined = undefined
  observation: Observation | undefined = undefined
  mcp: McpRequest | undefined = undefined
  isContextSet = false

  constructor(tool: Tool, call: ToolCall) {
    this.tool = tool
    this.call = call
  }

  start(fiber: AnyFiber): Observation {
    const { log, metricContext, spans } = this.tool.settings
    const mcp = fiber.getRef(CurrentMcpRequest)
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
      const span = makeSpan(shared, tracer, tool.settings.redaction, {
        name: mcp === undefined ? tool.spanName : tool.mcpSpanName,
        kind: mcp === undefined ? "internal" : "server",
        parent,
        link: mcp?.parent === undefined ? undefined : ambient,
        startTime: observation.stopwatch.wall
      })
      observation.span = span
      if (span.sampled) this.describe(span)
    })
  }

  describe(span: Tracer.Span): void {
    const { attributes } = this.tool
    // By index, and not by the iterators of an array of pairs, which cost as much as the attributes.
    for (let i = 0; i < attributes.length; i++) span.attribute(attributes[i]!.name, attributes[i]!.value)
    span.attribute(Names.genAiToolCallId, this.callId)
    const { captureArguments } = this.tool
    if (captureArguments !== undefined) {
      attempt(() => tell(span, Names.genAiToolCallArguments, captureArguments(this.call.input)))
    }
    if (this.mcp === undefined) return
    span.attribute(Names.mcpMethodName, "tools/call")
    const { protocolVersion, requestId, transport } = this.mcp
    if (protocolVersion !== undefined) span.attribute(Names.mcpProtocolVersion, protocolVersion.slice(0, 64))
    if (requestId !== undefined) span.attribute(Names.jsonRpcRequestId, String(requestId).slice(0, 128))
    if (transport !== undefined) span.attribute(Names.networkTransport, transport)
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
    if (span !== undefined) attempt(() => this.endSpan(span, exit, outcome, stopwatch.wallAfter(elapsed)))
    if (this.tool.series !== undefined) attempt(() => this.count(metrics, outcome))
    if (this.tool.settings.log) attempt(() => this.log(fiber, context, exit, outcome))
    if (this.isContextSet) fiber.setContext(context)
    return undefined
  }

  settle(exit: Exit.Exit<unknown, unknown>): Outcome {
    const record = this.call.record
    try {
      return record.settle(exit)
    } catch {
      // An error whose members throw when read.
      record.errorType = "error"
      return record.outcome = "failed"
    }
  }

  /** The call's name, cut short: it may be the caller's own. */
  get callId(): string {
    const { callId } = this.call
    return callId.length > maxCallId ? callId.slice(0, maxCallId) : callId
  }

  /** `error.type` as the conventions have it: MCP clients see one kind of tool error. */
  get errorType(): string | undefined {
    const errorType = this.call.record.errorType
    return errorType === undefined || this.mcp === undefined ? errorType : "tool_error"
  }

  endSpan(span: Tracer.Span, exit: Exit.Exit<unknown, unknown>, outcome: Outcome, now: bigint): void {
    const record = this.call.record
    if (span.sampled) {
      span.attribute(Names.toolOutcome, outcome)
      span.attribute(Names.toolAttempts, record.attempts)
      span.attribute(Names.toolError, record.errorType !== undefined)
      if (record.cache !== undefined) span.attribute(Names.toolCache, record.cache)
      const { captureResult } = this.tool
      if (captureResult !== undefined && exit._tag === "Success") {
        attempt(() => tell(span, Names.genAiToolCallResult, captureResult(exit.value)))
      }
      if (record.errorType !== undefined) {
        span.attribute(Names.errorType, this.errorType)
        span.attribute(Names.toolErrorType, record.errorType)
      }
      if (outcome === "cached" || outcome === "stale" || outcome === "coalesced") {
        span.event("tool.cache.hit", now, { [Names.toolCache]: record.cache })
      } else if (isRefusal(outcome)) {
        span.event("tool.refused", now, { [Names.toolOutcome]: outcome, [Names.toolErrorType]: record.errorType })
      }
    }
    span.end(now, exitForSpan(exit, record.errorType, errorText(exit, this.tool.settings.redaction)))
  }

  count(context: Context.Context<never>, outcome: Outcome): void {
    const series = this.tool.series
    if (series === undefined) return
    const record = this.call.record
    const seconds = record.durationMillis / 1000
    series.total(outcome)(1, context)
    series.duration(record.errorType)(seconds, context)
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
      ? this.tool.suppressed(outcome, record.startedAtMonotonic + record.durationMillis)
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
      rule: record.rule,
      errorType: record.errorType,
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

const tell = (span: Tracer.Span, name: string, value: string | undefined): void => {
  if (value !== undefined) span.attribute(name, value)
}

/** The outer seat: every call, whatever becomes of it. */
export const callSeat = (settings: Settings, meta: ToolMeta): Around<never> => {
  const tool = new Tool(settings, meta)
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
  fiber.getRef(CurrentMcpRequest)?.parent === undefined && tracerBelow(fiber, visible(fiber.cache.span)) === undefined
