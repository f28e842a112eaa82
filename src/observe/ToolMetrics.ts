/**
 * The metrics of a program that guards tools: their names, units and labels, and the way to update them cheaply.
 *
 * A `Definition` is written once and asked for its series (one per set of attributes) when a tool is first seen. What
 * comes back is an Effect `Metric` of its own, so an update builds no labels. A stage of your own defines its metrics in
 * the same way. Labels come from registered tools only, never from callers.
 *
 * @since 0.1.0
 */
import { type Outcome, outcomes } from "../CallRecord.ts"
import { type Attributes, type Definition, secondsBoundaries, type Series, series } from "../internal/metricSeries.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import * as Names from "./ToolAttributes.ts"

export type { Attributes, Definition, Series } from "../internal/metricSeries.ts"
export { metric, secondsBoundaries, series } from "../internal/metricSeries.ts"

const millisBoundaries: ReadonlyArray<number> = [
  0.1,
  0.5,
  1,
  2.5,
  5,
  10,
  25,
  50,
  100,
  250,
  500,
  1000,
  2500,
  5000,
  10_000,
  30_000
]

const toolLabels = [Names.toolId, Names.toolName, Names.toolNamespace, Names.toolVersion]

/** Calls of tools by outcome, refusals and cached answers included. @category metrics @since 0.1.0 */
export const callTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.call.total",
  description: "Calls of tools by outcome, refused and cached ones included",
  unit: "{call}",
  labels: [...toolLabels, "outcome"]
}

/** How long calls took, from the first stage to the answer. @category metrics @since 0.1.0 */
export const callDuration: Definition<"histogram"> = {
  type: "histogram",
  name: "gen_ai.execute_tool.duration",
  description: "Duration of tool calls, from the first stage to the answer",
  unit: "s",
  labels: [Names.genAiOperationName, Names.genAiToolName, Names.toolId, Names.errorType],
  boundaries: secondsBoundaries
}

/** How long calls took that came over MCP. @category metrics @since 0.1.0 */
export const mcpDuration: Definition<"histogram"> = {
  type: "histogram",
  name: "mcp.server.operation.duration",
  description: "Duration of MCP tools/call requests, from the first stage to the answer",
  unit: "s",
  labels: [Names.mcpMethodName, Names.genAiOperationName, Names.genAiToolName, Names.toolId, Names.errorType],
  boundaries: secondsBoundaries
}

/** Executions of handlers: one per attempt, none for an answer from the cache. @category metrics @since 0.1.0 */
export const execTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.exec.total",
  description: "Executions of tool handlers, one per attempt",
  unit: "{call}",
  labels: toolLabels
}

/** Executions that failed or died. An interrupted one is not an error of the tool. @category metrics @since 0.1.0 */
export const execErrors: Definition<"counter"> = {
  type: "counter",
  name: "tool.exec.errors",
  description: "Executions of tool handlers that failed or died",
  unit: "{error}",
  labels: [...toolLabels, Names.errorType]
}

/** How long executions took, in milliseconds as toolops has it. @category metrics @since 0.1.0 */
export const execDuration: Definition<"histogram"> = {
  type: "histogram",
  name: "tool.exec.duration",
  description: "Duration of executions of tool handlers",
  unit: "ms",
  labels: toolLabels,
  boundaries: millisBoundaries
}

/** Executions beyond the first of their call. @category metrics @since 0.1.0 */
export const retryTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.retry.total",
  description: "Executions of tool handlers beyond the first of their call",
  unit: "{retry}",
  labels: toolLabels
}

/** Answers that came after their timeout and were dropped. @category metrics @since 0.1.0 */
export const lateTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.late.total",
  description: "Answers of tool handlers that came after their timeout and were dropped",
  unit: "{answer}",
  labels: toolLabels
}

/** What the cache said of calls: hit, miss, stale, coalesced, bypass. @category metrics @since 0.1.0 */
export const cacheTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.cache.total",
  description: "What the cache said of calls",
  unit: "{call}",
  labels: [...toolLabels, "result"]
}

/** What the auth stage decided: allowed, denied, unauthenticated. @category metrics @since 0.1.0 */
export const authTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.auth.total",
  description: "What the auth stage decided",
  unit: "{decision}",
  labels: [...toolLabels, "decision"]
}

/** What each limit said of calls: allowed, limited, or shadowed where it would have been limited. @category metrics @since 0.1.0 */
export const limitTotal: Definition<"counter"> = {
  type: "counter",
  name: "tool.limit.total",
  description: "What each rate limit said of calls",
  unit: "{decision}",
  labels: [...toolLabels, "limit", "decision"]
}

/** Log lines of calls that were left out because the same refusal was repeated. @category metrics @since 0.1.0 */
export const logSuppressed: Definition<"counter"> = {
  type: "counter",
  name: "tool.log.suppressed",
  description: "Log lines left out because the same refusal was repeated",
  unit: "{line}",
  labels: toolLabels
}

/**
 * Every metric that the observe stage updates.
 *
 * @category metrics
 * @since 0.1.0
 */
export const all: ReadonlyArray<Definition> = [
  callTotal,
  callDuration,
  mcpDuration,
  execTotal,
  execErrors,
  execDuration,
  retryTotal,
  lateTotal,
  cacheTotal,
  authTotal,
  limitTotal,
  logSuppressed
]

/**
 * The attributes by which metrics tell tools apart.
 *
 * @category constructors
 * @since 0.1.0
 */
export const toolAttributes = (tool: ToolMeta): Attributes => ({
  [Names.toolId]: tool.id,
  [Names.toolName]: tool.name,
  [Names.toolNamespace]: tool.namespace,
  [Names.toolVersion]: tool.version
})

/** What stands for every tool beyond the bound. @category constants @since 0.1.0 */
export const overflowName = "_other"

/** What stands for every error tag beyond the bound. OpenTelemetry's word. @category constants @since 0.1.0 */
export const otherErrorType = "_OTHER"

const maxErrorTypes = 32
const maxLimits = 32

const keyed = <K, V>(make: (key: K) => V): (key: K) => V => {
  const made = new Map<K, V>()
  return (key) => {
    let value = made.get(key)
    if (value === undefined) made.set(key, value = make(key))
    return value
  }
}

// The tags of errors and names of limits are written by programmers, but nothing makes sure of that.
const bounded = <V>(most: number, other: string, make: (key: string) => V): (key: string) => V => {
  const made = new Map<string, V>()
  let rest: V | undefined
  return (key) => {
    const value = made.get(key)
    if (value !== undefined) return value
    if (made.size >= most) return rest ??= make(other)
    const fresh = make(key)
    made.set(key, fresh)
    return fresh
  }
}

/** @internal The series of one tool, each made when it is first needed. */
export class ToolSeries {
  readonly total: (outcome: Outcome) => Series
  readonly duration: (errorType: string | undefined) => Series
  readonly mcp: (errorType: string | undefined) => Series
  readonly cache: (result: string) => Series
  readonly auth: (decision: string) => Series
  readonly limitAllowed: (limit: string) => Series
  readonly limitLimited: (limit: string) => Series
  readonly limitShadowed: (limit: string) => Series
  readonly execTotal: Series
  readonly execDuration: Series
  readonly execErrors: (errorType: string) => Series
  readonly retries: Series
  readonly late: Series
  readonly suppressed: Series

  constructor(tool: Attributes) {
    const duration = {
      [Names.genAiOperationName]: "execute_tool",
      [Names.genAiToolName]: tool[Names.toolName],
      [Names.toolId]: tool[Names.toolId]
    }
    const went = series(callDuration, duration)
    const failed = bounded(
      maxErrorTypes,
      otherErrorType,
      (type) => series(callDuration, { ...duration, [Names.errorType]: type })
    )
    const mcpDurations = { ...duration, [Names.mcpMethodName]: "tools/call" }
    const mcpWent = series(mcpDuration, mcpDurations)
    const mcpFailed = bounded(
      maxErrorTypes,
      otherErrorType,
      (type) => series(mcpDuration, { ...mcpDurations, [Names.errorType]: type })
    )
    // One series per outcome, looked up by a member of an object with a fixed shape: quicker than a map.
    const totals = Object.fromEntries(
      outcomes.map((outcome) => [outcome, series(callTotal, { ...tool, outcome })])
    ) as Record<Outcome, Series>
    this.total = (outcome) => totals[outcome]
    this.duration = (type) => type === undefined ? went : failed(type)
    this.mcp = (type) => type === undefined ? mcpWent : mcpFailed(type)
    this.cache = keyed((result) => series(cacheTotal, { ...tool, result }))
    this.auth = keyed((decision) => series(authTotal, { ...tool, decision }))
    const limit = (decision: string) =>
      bounded(maxLimits, overflowName, (name) => series(limitTotal, { ...tool, limit: name, decision }))
    this.limitAllowed = limit("allowed")
    this.limitLimited = limit("limited")
    this.limitShadowed = limit("shadowed")
    this.execTotal = series(execTotal, tool)
    this.execDuration = series(execDuration, tool)
    this.execErrors = bounded(
      maxErrorTypes,
      otherErrorType,
      (type) => series(execErrors, { ...tool, [Names.errorType]: type })
    )
    this.retries = series(retryTotal, tool)
    this.late = series(lateTotal, tool)
    this.suppressed = series(logSuppressed, tool)
  }
}

/** @internal Hands out series per tool; from the `maxTools`th tool on all share one set. */
export const makeToolSeries = (maxTools: number): (tool: ToolMeta) => ToolSeries => {
  const made = new Map<string, ToolSeries>()
  let rest: ToolSeries | undefined
  return (tool) => {
    const key = `${tool.id}@${tool.version ?? ""}`
    let found = made.get(key)
    if (found === undefined) {
      if (made.size >= maxTools) {
        return rest ??= new ToolSeries({ [Names.toolId]: overflowName, [Names.toolName]: overflowName })
      }
      found = new ToolSeries(toolAttributes(tool))
      made.set(key, found)
    }
    return found
  }
}
