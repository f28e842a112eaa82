import * as Context from "effect/Context"
import type { PipelineError } from "../../ToolPipeline.ts"
import type { ToolRefusal } from "../ToolRefusal.ts"

/**
 * Where a guarded tool leaves its refusal for the edge that has asked for it: MCP middleware may not look at results.
 * Only the tool that the edge called sees the slot; those that its handler calls do not.
 */
export interface Slot {
  refused: { readonly refusal: ToolRefusal; readonly error: PipelineError } | undefined
  /** The code, as text, of the error of the protocol that a refusal with this tag becomes. */
  readonly errorType?: (tag: string) => string | undefined
}

export const RefusalSlot: Context.Reference<Slot | undefined> = Context.Reference<Slot | undefined>(
  "effect-toolops/ai/McpOps/RefusalSlot",
  { defaultValue: () => undefined }
)
