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
 * The call that is being answered, or undefined outside of a call. Of nested calls, the innermost.
 *
 * @category references
 * @since 0.1.0
 */
export const CurrentCall: Context.Reference<ToolCall | undefined> = Context.Reference<ToolCall | undefined>(
  "effect-toolops/observe/CurrentCall",
  { defaultValue: () => undefined }
)
