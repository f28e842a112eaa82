import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { boundedRun } from "../../internal/boundedRun.ts"
import { AuditError, LogClosed, QueueFull, SinkFailed, SinkTimedOut } from "../AuditError.ts"
import type { AuditRecord } from "../AuditRecord.ts"
import type { AuditMeter } from "./auditMeter.ts"
import type { Recording } from "./auditRecording.ts"
import type { Sink } from "./auditService.ts"

// Records on their way to a sink that may be slow, fail, die or hang. One fiber writes them in batches, in the order in
// which they were handed over; nobody else ever waits for the sink but those who ask for an acknowledgement.

/** Told once: nothing when the record is safe, else why it is lost. */
export type Acknowledge = (error: AuditError | undefined) => void

/** Options that have been checked. */
export interface Bounds {
  readonly maxQueued: number
  readonly maxBatch: number
  readonly writeTimeoutMillis: number
  readonly closeTimeoutMillis: number
}

interface Waiting {
  readonly until: number
  readonly resume: () => void
}

const errors = {
  full: () => new AuditError({ reason: new QueueFull() }),
  closed: () => new AuditError({ reason: new LogClosed() }),
  late: () => new AuditError({ reason: new SinkTimedOut() })
}

const errorOf = (cause: Cause.Cause<unknown>): AuditError => {
  const reason = cause.reasons.find((reason) => !Cause.isInterruptReason(reason))
  const thrown = reason === undefined ? undefined : Cause.isFailReason(reason) ? reason.error : reason.defect
  return thrown instanceof AuditError ? thrown : new AuditError({ reason: new SinkFailed({ cause: thrown }) })
}

export class AuditQueue {
  readonly #bounds: Bounds
  readonly #sink: Sink
  readonly #recording: Recording
  readonly #meter: AuditMeter
  readonly #context: Context.Context<never>
  readonly #writer: Fiber.Fiber<never>
  #records: Array<AuditRecord> = []
  #acknowledgements: Array<Acknowledge | undefined> = []
  #wake: (() => void) | undefined = undefined
  #isClosed = false
  // A write has taken too long and has not ended yet.
  #isStuck = false
  // The last write failed, which has been told to the operator.
  #isFailing = false
  // It took too long, so another is not waited for in closing.
  #wasLate = false
  // Lost, and not yet told in the log itself.
  #untold = 0
  // Somebody waits, in closing, for the writer to have nothing left to do.
  #onIdle: (() => void) | undefined = undefined
  // Records handed over and records done with, each in the order of the queue.
  #entered = 0
  #left = 0
  #waiting: Array<Waiting> = []

  constructor(
    bounds: Bounds,
    sink: Sink,
    recording: Recording,
    meter: AuditMeter,
    context: Context.Context<never>
  ) {
    this.#bounds = bounds
    this.#sink = sink
    this.#recording = recording
    this.#meter = meter
    this.#context = context
    this.#writer = Effect.runForkWith(context)(Effect.forever(
      Effect.suspend(() => this.#records.length === 0 && !this.hasToTell ? this.untilWoken() : this.writeNext()),
      { disableYield: true }
    ))
  }

  get queued(): number {
    return this.#entered - this.#left
  }

  /**
   * Takes a record in. Returns what makes the error when it cannot, after which `acknowledge` is not called: most are lost
   * without anybody asking why, and an error with its stack costs more than all the rest.
   */
  push(record: AuditRecord, acknowledge: Acknowledge | undefined): (() => AuditError) | undefined {
    const { maxQueued } = this.#bounds
    const error = this.#isClosed
      ? errors.closed
      // What follows on a decision that has been acknowledged finds room a while longer.
      : this.queued >= (record.kind === "outcome" ? 2 * maxQueued : maxQueued)
      ? errors.full
      : this.#isStuck && acknowledge !== undefined
      ? errors.late
      : undefined
    if (error !== undefined) {
      this.lose(1)
      return error
    }
    this.#entered += 1
    this.#records.push(record)
    this.#acknowledgements.push(acknowledge)
    if (this.#wake !== undefined) this.#wake()
    return undefined
  }

  /** Waits until everything that has been taken in so far is written or lost. */
  get flush(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const waiting = { until: this.#entered, resume: () => resume(Effect.void) }
      if (this.#left >= waiting.until) return waiting.resume()
      this.#waiting.push(waiting)
      return Effect.sync(() => {
        this.#waiting = this.#waiting.filter((each) => each !== waiting)
      })
    })
  }

  /** Takes nothing in any more, and waits for the rest as long as it may. */
  get close(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      this.#isClosed = true
      boundedRun(this.#context, Effect.andThen(this.flush, this.untilIdle), this.#bounds.closeTimeoutMillis, {
        settle: () => {
          // Stops a write that is still running as well.
          this.#writer.interruptUnsafe()
          this.drop(() => true, errors.closed)
          resume(Effect.void)
        },
        end: () => {}
      })
    })
  }

  /** Whether to say now that records were lost. A sink that fails is told with the next record, or once more in closing. */
  get hasToTell(): boolean {
    return this.#untold > 0 && (!this.#isFailing || (this.#onIdle !== undefined && !this.#wasLate))
  }

  get untilIdle(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const isIdle = this.#wake !== undefined
      this.#onIdle = () => resume(Effect.void)
      if (isIdle && !this.hasToTell) return this.#onIdle()
      this.#wake?.()
    })
  }

  #giveUpTelling(): void {
    this.#onIdle?.()
    this.#onIdle = undefined
  }

  untilWoken(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      this.#onIdle?.()
      this.#wake = () => {
        this.#wake = undefined
        // Not at once: who wakes it is in the middle of a call, and more records may follow.
        resume(Effect.yieldNow)
      }
    })
  }

  writeNext(): Effect.Effect<void> {
    const count = Math.min(this.#records.length, this.#bounds.maxBatch)
    const records = this.#records.splice(0, count)
    const acknowledgements = this.#acknowledgements.splice(0, count)
    const noted = this.#untold
    const batch = noted === 0 ? records : [this.#recording.note(noted), ...records]
    return Effect.callback<void>((resume) => {
      const stop = boundedRun(
        this.#context,
        Effect.suspend(() => {
          const writing = this.#sink.write(batch)
          // Somebody else's code: what is no effect would end the fiber without a trace.
          return Effect.isEffect(writing) ? writing : Effect.die(new TypeError("write must return an Effect"))
        }),
        this.#bounds.writeTimeoutMillis,
        {
          settle: (exit, isLate) => {
            const error = this.settle(records, noted, exit, isLate)
            for (const acknowledge of acknowledgements) acknowledge?.(error)
            this.leave(count)
          },
          end: () => {
            this.#isStuck = false
            resume(Effect.void)
          }
        }
      )
      return Effect.sync(stop)
    })
  }

  settle(
    records: ReadonlyArray<AuditRecord>,
    noted: number,
    exit: Exit.Exit<void, unknown> | undefined,
    isLate: boolean
  ): AuditError | undefined {
    this.#wasLate = isLate
    if (exit?._tag === "Success") {
      this.#untold -= noted
      const first = records[0]
      if (first !== undefined) {
        this.#meter.wrote(records.length, Math.max(0, this.#recording.offsetMillis - first.offsetMillis))
      }
      if (this.#isFailing) this.tell(false, undefined)
      return undefined
    }
    this.lose(records.length)
    // Closing has had its try.
    if (records.length === 0) this.#giveUpTelling()
    const error = exit !== undefined ? errorOf(exit.cause) : isLate ? errors.late() : errors.closed()
    if (isLate) {
      this.#isStuck = true
      // Nobody is kept waiting behind a write that does not end.
      this.drop((acknowledge) => acknowledge !== undefined, errors.late)
    }
    if (!this.#isFailing) this.tell(true, error)
    return error
  }

  /** Gives up records that have not been written. */
  drop(which: (acknowledge: Acknowledge | undefined) => boolean, error: () => AuditError): void {
    const records: Array<AuditRecord> = []
    const kept: Array<Acknowledge | undefined> = []
    const dropped: Array<Acknowledge | undefined> = []
    this.#acknowledgements.forEach((acknowledge, i) => {
      if (which(acknowledge)) dropped.push(acknowledge)
      else {
        records.push(this.#records[i]!)
        kept.push(acknowledge)
      }
    })
    this.#records = records
    this.#acknowledgements = kept
    if (dropped.length === 0) return
    this.lose(dropped.length)
    for (const acknowledge of dropped) acknowledge?.(error())
    this.leave(dropped.length)
  }

  lose(count: number): void {
    this.#untold += count
    this.#meter.lost(count)
  }

  leave(count: number): void {
    this.#left += count
    this.#meter.queued(this.queued)
    const done = this.#waiting.filter((waiting) => waiting.until <= this.#left)
    if (done.length === 0) return
    this.#waiting = this.#waiting.filter((waiting) => waiting.until > this.#left)
    for (const waiting of done) waiting.resume()
  }

  // Once when it begins and once when it is over, not for every record. The error may hold what was to be written.
  tell(isFailing: boolean, error: AuditError | undefined): void {
    this.#isFailing = isFailing
    Effect.runForkWith(this.#context)(
      isFailing
        ? Effect.annotateLogs(
          Effect.logError("effect-toolops: the audit log cannot be written, records are lost"),
          "error.type",
          error?.reason._tag
        )
        : Effect.logInfo("effect-toolops: the audit log is written again")
    )
  }
}
