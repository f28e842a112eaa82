import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { monotonicMillisOf } from "../../internal/monotonic.ts"
import * as Check from "../../internal/options.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import { type AuditRecord, version } from "../AuditRecord.ts"
import { type InputOf, makeInputOf } from "./auditInput.ts"
import { Repeats } from "./auditRepeats.ts"
import type { RecordingOptions } from "./auditService.ts"

/** Checks what concerns the records of a log. Throws for a nonsense option. */
export const resolveRecording = (where: string, options: RecordingOptions) => ({
  inputOf: makeInputOf(where, options),
  intervalMillis: Check.millis(where, "repeatInterval", options.repeatInterval ?? "1 minute"),
  maxRepeats: Check.integer(where, "maxRepeats", options.maxRepeats ?? 1000, 1, 1_000_000)
})

/** How the records of a log are made, whatever it writes to: its clock, what it tells of inputs, what it only counts. */
export class Recording {
  /** The monotonic clock when the log was opened. */
  readonly originMillis: number
  /** What is told of the inputs of one tool. */
  readonly inputOf: (tool: ToolMeta) => InputOf | undefined
  repeated = 0
  readonly #context: Context.Context<never>
  readonly #repeats: Repeats
  readonly #intervalMillis: number
  #emit: (record: AuditRecord) => void = () => {}
  #stopTimer: (() => void) | undefined = undefined
  #isStopped = false

  constructor(settings: ReturnType<typeof resolveRecording>, context: Context.Context<never>) {
    this.inputOf = settings.inputOf
    this.#intervalMillis = settings.intervalMillis
    this.#repeats = new Repeats(settings.maxRepeats)
    this.#context = context
    this.originMillis = monotonicMillisOf(this.clock)
  }

  get clock(): Clock.Clock {
    return Context.get(this.#context, Clock.Clock)
  }

  /** Milliseconds since the log was opened. */
  get offsetMillis(): number {
    return monotonicMillisOf(this.clock) - this.originMillis
  }

  /** Says where counts go when their interval is over. */
  onRepeats(emit: (record: AuditRecord) => void): this {
    this.#emit = emit
    return this
  }

  /** Whether a refusal is to be told in full. If not, it has been counted and will be told with others like it. */
  isFirst(refusal: AuditRecord): boolean {
    const isFirst = this.#repeats.isFirst(refusal)
    if (!isFirst) this.repeated += 1
    this.start()
    return isFirst
  }

  /** Notes a refusal that has been told in full, so that those after it are counted. */
  open(refusal: AuditRecord): void {
    this.#repeats.open(refusal)
    this.start()
  }

  /** Whether this caller of this tool has been refused of late after having been let in. */
  isRepeating(call: AuditRecord): boolean {
    return this.#repeats.isOpen(call)
  }

  /** A record that is about the log itself. */
  note(count: number): AuditRecord {
    return {
      version,
      kind: "lost",
      callId: "",
      time: this.clock.currentTimeMillisUnsafe(),
      offsetMillis: this.offsetMillis,
      tool: { id: "_other", action: "" },
      count
    }
  }

  /** Tells what has been counted, and counts no more by itself. */
  stop(): void {
    this.#isStopped = true
    this.#stopTimer?.()
    this.tell()
  }

  tell(): void {
    for (const record of this.#repeats.take(this.offsetMillis)) this.#emit(record)
  }

  // Runs only while something is being counted, so a program without refusals has no timer.
  start(): void {
    if (this.#stopTimer !== undefined || this.#isStopped) return
    const timer = Effect.runForkWith(this.#context)(Effect.suspend(() => {
      const again: Effect.Effect<void> = Effect.flatMap(Effect.sleep(this.#intervalMillis), () => {
        this.tell()
        if (!this.#repeats.isEmpty) return again
        this.#stopTimer = undefined
        return Effect.void
      })
      return again
    }))
    this.#stopTimer = () => timer.interruptUnsafe()
  }
}
