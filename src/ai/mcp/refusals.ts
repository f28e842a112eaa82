import * as McpSchema from "effect/ai/McpSchema"
import * as McpServer from "effect/ai/McpServer"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Check from "../../internal/options.ts"
import type { PipelineError } from "../../ToolPipeline.ts"
import * as ToolRefusal from "../ToolRefusal.ts"
import { RefusalSlot, type Slot } from "./refusalSlot.ts"
import type { Middleware } from "./request.ts"

/**
 * The JSON-RPC codes of refusals, from the range that the protocol leaves to implementations (-32000 to -32019) and
 * clear of those that clients make up themselves.
 *
 * @category models
 * @since 0.1.0
 */
export const errorCodes = {
  unauthenticated: -32010,
  denied: -32011,
  limited: -32012,
  unavailable: -32013,
  timedOut: -32014
} as const

/**
 * Codes of your own, each from -32019 to -32000. What is left out keeps the code of `errorCodes`.
 *
 * @category options
 * @since 0.1.0
 */
export type ErrorCodes = { readonly [Kind in keyof typeof errorCodes]?: number | undefined }

const kindOf = (reason: ToolRefusal.Reason): keyof typeof errorCodes => {
  switch (reason) {
    case "Forbidden":
    case "InsufficientScope":
      return "denied"
    case "RateLimited":
      return "limited"
    case "AuthUnavailable":
    case "LimitStoreUnavailable":
    case "CircuitOpen":
    case "BulkheadFull":
    case "RetriesExhausted":
    case "Draining":
      return "unavailable"
    case "TimedOut":
      return "timedOut"
    case "MissingCredentials":
    case "InvalidCredentials":
    case "TokenExpired":
    case "TokenMalformed":
    case "TokenInactive":
    case "KeyNotFound":
      return "unauthenticated"
  }
}

const codeOf = (tag: string, codes: ErrorCodes): string | undefined => {
  // Of a tag that is no reason there is no kind.
  const kind: keyof typeof errorCodes | undefined = kindOf(tag as ToolRefusal.Reason)
  return kind === undefined ? undefined : String(codes[kind] ?? errorCodes[kind])
}

// So that an error can be given the codes of the server that it leaves.
const refusalOf = new WeakMap<object, ToolRefusal.ToolRefusal>()

const fromRefusal = (refusal: ToolRefusal.ToolRefusal, codes: ErrorCodes): McpSchema.McpErrorBase => {
  const kind = kindOf(refusal.reason)
  const error = new McpSchema.McpErrorBase({
    code: codes[kind] ?? errorCodes[kind],
    message: refusal.message,
    data: { ...refusal }
  })
  refusalOf.set(error, refusal)
  return error
}

/**
 * Turns a refusal into a JSON-RPC error, for MCP middleware of your own: only such errors leave it as they are. `data`
 * is the refusal.
 *
 * @category errors
 * @since 0.1.0
 */
export const toMcpError = (error: PipelineError): McpSchema.McpErrorBase =>
  // Outside a tool nothing is known about repeating it, so the cautious advice is given.
  fromRefusal(ToolRefusal.fromError(error, { readOnly: false, idempotent: false }), {})

/**
 * What `errors` takes.
 *
 * - `style`: `result` leaves a refusal what it is, a tool result with `isError` whose text is a `ToolRefusal` as JSON;
 *   models read it. `json-rpc` makes it an error of the protocol with the refusal as its `data`; programs catch it.
 *   Default `result`.
 * - `codes`: for `json-rpc`, and for what has no other form: a list that is refused, a request that `authenticate` turns
 *   away.
 *
 * @category options
 * @since 0.1.0
 */
export interface ErrorOptions {
  readonly style?: "result" | "json-rpc" | undefined
  readonly codes?: ErrorCodes | undefined
}

/**
 * Says in which form MCP clients are told that the pipeline has refused a call of a guarded tool. Without it they get
 * tool results.
 *
 * **Details**
 *
 * What a handler itself fails with keeps its form. Put it outside of the others, so that what they refuse has its codes
 * too: `McpOps.headers.combine(McpOps.visibility(Tools)).combine(McpOps.errors(...))`. The same goes for middleware of your
 * own that fails with `toMcpError`.
 *
 * @category middleware
 * @since 0.1.0
 */
export const errors = (options: ErrorOptions = {}): Middleware => {
  const where = "McpOps.errors"
  Check.known(where, options, ["style", "codes"])
  const style = Check.oneOf(where, "style", options.style ?? "result", ["result", "json-rpc"])
  const codes = options.codes ?? {}
  Check.known(`${where}: codes`, codes, Object.keys(errorCodes))
  for (const [kind, code] of Object.entries(codes)) {
    if (code !== undefined) Check.integer(`${where}: codes`, kind, code, -32_019, -32_000)
  }
  return McpServer.middleware((effect, { method }) =>
    recoded(style === "result" || method !== "tools/call" ? effect : refusalsAsErrors(effect, codes), codes)
  )
}

// Any other cause goes on as it is, with the marks by which the server knows a handler's failures.
const recoded = <A, R>(
  effect: Effect.Effect<A, McpSchema.McpErrorBase, R>,
  codes: ErrorCodes
): Effect.Effect<A, McpSchema.McpErrorBase, R> =>
  Effect.catchCause(effect, (cause) => {
    const failure = cause.reasons.length === 1 ? cause.reasons.find(Cause.isFailReason) : undefined
    const refusal = failure === undefined ? undefined : refusalOf.get(failure.error)
    return refusal === undefined ? Effect.failCause(cause) : Effect.fail(fromRefusal(refusal, codes))
  })

const refusalsAsErrors = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  codes: ErrorCodes
): Effect.Effect<A, E | McpSchema.McpErrorBase, R> =>
  Effect.withFiber((fiber) => {
    const outer = fiber.getRef(RefusalSlot)
    // Of its own, because the calls of a batch share what is around them.
    const slot: Slot = { refused: undefined, errorType: (tag) => codeOf(tag, codes) }
    return Effect.flatMap(
      Effect.provideService(effect, RefusalSlot, slot),
      (result) => {
        if (slot.refused === undefined) return Effect.succeed(result)
        if (outer !== undefined) outer.refused = slot.refused
        return Effect.fail(fromRefusal(slot.refused.refusal, codes))
      }
    )
  })
