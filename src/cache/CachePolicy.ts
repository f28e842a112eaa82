/**
 * Which answers are kept, and for how long.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type { ToolCall } from "../ToolCall.ts"

/**
 * The cache settings of one tool.
 *
 * @category models
 * @since 0.1.0
 */
export interface ToolCachePolicy {
  readonly ttl?: Duration.Input | undefined
  readonly ttlOf?: ((result: unknown) => Duration.Input | undefined) | undefined
  readonly jitter?: number | undefined
  readonly staleWhileRevalidate?: Duration.Input | undefined
  readonly staleIfError?: Duration.Input | undefined
  readonly maxEntryBytes?: number | undefined
  readonly tags?: ((call: ToolCall, result: unknown) => ReadonlyArray<string>) | undefined
  readonly invalidates?: ((call: ToolCall, result: unknown) => ReadonlyArray<string>) | undefined
}
