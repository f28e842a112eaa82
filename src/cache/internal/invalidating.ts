import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { ToolCall } from "../../ToolCall.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import { isCacheKey } from "../CacheKey.ts"
import type { ToolCachePolicy } from "../CachePolicy.ts"
import type { Engine } from "./engine.ts"
import * as Labels from "./labels.ts"

/**
 * Forgets what a write has changed, before its caller is told. Also when it failed, timed out, died or was interrupted:
 * it may have happened all the same. Only a call that never started changed nothing.
 */
export const invalidating = <A, E, R>(
  engine: Engine,
  tool: ToolMeta,
  write: NonNullable<ToolCachePolicy["invalidates"]>,
  call: ToolCall,
  next: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.onExit(next, (exit) => {
    if (Exit.isFailure(exit) && call.record.attempts === 0 && call.record.refusedBy !== undefined) return Effect.void
    const labels = labelsOf(engine, tool, write, call, Exit.isSuccess(exit) ? exit.value : undefined)
    return Effect.catchCause(labels === undefined ? engine.clear : engine.invalidate(labels), (cause) =>
      engine.failed(cause))
  })

// A function that throws does not say what has changed, so everything that it could have meant is forgotten.
const labelsOf = (
  engine: Engine,
  tool: ToolMeta,
  write: NonNullable<ToolCachePolicy["invalidates"]>,
  call: ToolCall,
  result: unknown
): ReadonlyArray<string> | undefined => {
  try {
    const tags = write(call, result)
    if (tags.every(isCacheKey)) return tags.map(Labels.tag)
  } catch {
    // Treated like tags that cannot be used.
  }
  engine.counters.errors++
  return tool.namespace === undefined ? undefined : [Labels.namespace(tool.namespace)]
}
