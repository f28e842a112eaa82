import type * as Exit from "effect/Exit"
import type * as Tracer from "effect/Tracer"
import type { Outcome } from "../../CallRecord.ts"
import { cut } from "../../internal/cut.ts"
import type { ToolCall } from "../../ToolCall.ts"
import type { McpRequest } from "../McpRequest.ts"
import * as Names from "../ToolAttributes.ts"
import { errorText, exitForSpan } from "./errorText.ts"
import { isRefusal, type ObservedTool } from "./observedTool.ts"
import { attempt } from "./spans.ts"

/** What a root span tells of. */
export interface ObservedCall {
  readonly tool: ObservedTool
  readonly call: ToolCall
  readonly mcp: McpRequest | undefined
  readonly callId: string
  /** The tag of the error as it is told, and `error.type` where the conventions have another word for it. */
  readonly tag: string | undefined
  readonly errorType: string | undefined
}

const maxProtocolVersion = 64
const maxRequestId = 128

/** What is known of a call when it starts. */
export const describeSpan = (span: Tracer.Span, { call, callId, mcp, tool }: ObservedCall): void => {
  const { attributes, captureArguments } = tool
  // By index, and not by the iterators of an array of pairs, which cost as much as the attributes.
  for (let i = 0; i < attributes.length; i++) span.attribute(attributes[i]!.name, attributes[i]!.value)
  span.attribute(Names.genAiToolCallId, callId)
  if (captureArguments !== undefined) {
    attempt(() => tell(span, Names.genAiToolCallArguments, captureArguments(call.input)))
  }
  if (mcp === undefined) return
  span.attribute(Names.mcpMethodName, "tools/call")
  const { protocolVersion, requestId, transport } = mcp
  if (protocolVersion !== undefined) span.attribute(Names.mcpProtocolVersion, cut(protocolVersion, maxProtocolVersion))
  if (requestId !== undefined) span.attribute(Names.jsonRpcRequestId, cut(String(requestId), maxRequestId))
  if (transport !== undefined) span.attribute(Names.networkTransport, transport)
}

/** Tells a span what became of its call, and ends it. */
export const endSpan = (
  span: Tracer.Span,
  observed: ObservedCall,
  exit: Exit.Exit<unknown, unknown>,
  outcome: Outcome,
  now: bigint
): void => {
  try {
    if (span.sampled) describeEnd(span, observed, exit, outcome, now)
  } finally {
    // Also where the span did not take what it was told: one that never ends is never exported.
    const { tag, tool } = observed
    span.end(now, exitForSpan(exit, tag, errorText(exit, tool.settings.redaction)))
  }
}

const describeEnd = (
  span: Tracer.Span,
  { call: { record }, errorType, tag, tool }: ObservedCall,
  exit: Exit.Exit<unknown, unknown>,
  outcome: Outcome,
  now: bigint
): void => {
  span.attribute(Names.toolOutcome, outcome)
  span.attribute(Names.toolAttempts, record.attempts)
  span.attribute(Names.toolError, tag !== undefined)
  if (record.cache !== undefined) span.attribute(Names.toolCache, record.cache)
  const { captureResult } = tool
  if (captureResult !== undefined && exit._tag === "Success") {
    attempt(() => tell(span, Names.genAiToolCallResult, captureResult(exit.value)))
  }
  if (tag !== undefined) {
    span.attribute(Names.errorType, errorType)
    span.attribute(Names.toolErrorType, tag)
  }
  if (outcome === "cached" || outcome === "stale" || outcome === "coalesced") {
    span.event("tool.cache.hit", now, { [Names.toolCache]: record.cache })
  } else if (isRefusal(outcome)) {
    span.event("tool.refused", now, { [Names.toolOutcome]: outcome, [Names.toolErrorType]: tag })
  }
}

const tell = (span: Tracer.Span, name: string, value: string | undefined): void => {
  if (value !== undefined) span.attribute(name, value)
}
