/**
 * What is said of one call in the log.
 *
 * The observe stage hands a `CallLine` to every installed logger as the message. `StructuredLogger` writes it as one flat
 * JSON object; other loggers print it through `toJSON`.
 *
 * @since 0.1.0
 */
import type { CacheStatus, Outcome } from "../CallRecord.ts"

/**
 * The facts of one call, all of them free of arguments, results and credentials.
 *
 * - `error`: the redacted text of the error.
 * - `suppressed`: how many lines of the same refusal were left out before this one.
 *
 * @category models
 * @since 0.1.0
 */
export class CallLine {
  readonly tool: string
  readonly callId: string
  readonly outcome: Outcome
  readonly durationMs: number
  readonly attempts: number
  readonly cache: CacheStatus | undefined
  readonly rule: string | undefined
  readonly errorType: string | undefined
  readonly error: string | undefined
  readonly suppressed: number

  constructor(facts: {
    readonly tool: string
    readonly callId: string
    readonly outcome: Outcome
    readonly durationMs: number
    readonly attempts: number
    readonly cache: CacheStatus | undefined
    readonly rule: string | undefined
    readonly errorType: string | undefined
    readonly error: string | undefined
    readonly suppressed: number
  }) {
    this.tool = facts.tool
    this.callId = facts.callId
    this.outcome = facts.outcome
    this.durationMs = facts.durationMs
    this.attempts = facts.attempts
    this.cache = facts.cache
    this.rule = facts.rule
    this.errorType = facts.errorType
    this.error = facts.error
    this.suppressed = facts.suppressed
  }

  toJSON(): Record<string, unknown> {
    const { suppressed, ...facts } = this
    return { message: "tool call", ...facts, ...(suppressed > 0 ? { suppressed } : {}) }
  }
}
