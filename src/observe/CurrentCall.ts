/**
 * The call that a handler is running for.
 *
 * The observe stage sets it, so that what a handler logs carries the names of its tool and call.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type { ToolCall } from "../ToolCall.ts"

/**
 * What a call is known by. Who calls, and with what, is not part of it.
 *
 * @category models
 * @since 0.1.0
 */
export type CallName = Pick<ToolCall, "tool" | "action" | "callId">

/**
 * The call that is being answered, or undefined outside of a call. Of nested calls, the innermost.
 *
 * @category references
 * @since 0.1.0
 */
export const CurrentCall: Context.Reference<CallName | undefined> = Context.Reference<CallName | undefined>(
  "effect-toolops/observe/CurrentCall",
  { defaultValue: () => undefined }
)
