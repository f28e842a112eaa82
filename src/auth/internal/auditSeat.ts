import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Outcome } from "../../CallRecord.ts"
import { CurrentPeer } from "../../internal/currentPeer.ts"
import { monotonicMillisOf } from "../../internal/monotonic.ts"
import { originOf, type ToolCall } from "../../ToolCall.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Around } from "../../ToolMiddleware.ts"
import type { AuditError } from "../AuditError.ts"
import { type AuditRecord, type Caller, version } from "../AuditRecord.ts"
import * as AuthError from "../AuthError.ts"
import type { Identity } from "../Identity.ts"
import { callerOf, cut } from "./auditCaller.ts"
import type { InputOf } from "./auditInput.ts"
import type { Recording } from "./auditRecording.ts"
import type { AuditLog } from "./auditService.ts"

// The audit log's place in the auth stage: around it, so that its refusals are seen, and right behind it, where a call
// that has been let in can still be held back. What is written comes from the call's record.

type Running = Fiber.Fiber<unknown, unknown>

/** What is put around the auth stage, and what around each execution. */
export interface Seat {
  readonly around: (stage: Around<AuthError.AuthError>) => Around<AuthError.AuthError>
  readonly beforeExecution: Around<AuthError.AuthError> | undefined
}

/** The seat of one tool, or `undefined` for a log that keeps nothing. */
export const auditSeat = (log: AuditLog["Service"], tool: ToolMeta): Seat | undefined => {
  const recording = log["~recording"]
  if (recording === undefined) return undefined
  const settings = new Settings(log, recording, tool)
  return log.mode === "required" ? required(settings) : bestEffort(settings)
}

/** What the records of one tool have in common, and what those of one caller after the other have. */
class Settings {
  readonly log: AuditLog["Service"]
  readonly recording: Recording
  readonly inputOf: InputOf | undefined
  readonly #tool: ToolMeta
  readonly #called: AuditRecord["tool"]
  #identity: Identity | undefined = undefined
  #caller: Caller | undefined = undefined
  #allowed: NonNullable<AuditRecord["decision"]> = { allow: true, rule: "", reason: undefined }

  constructor(log: AuditLog["Service"], recording: Recording, tool: ToolMeta) {
    this.log = log
    this.recording = recording
    this.inputOf = recording.inputOf(tool)
    this.#tool = tool
    this.#called = { id: tool.id, digest: tool.digest, action: "call" }
  }

  called(action: string): AuditRecord["tool"] {
    return action === "call" ? this.#called : { id: this.#tool.id, digest: this.#tool.digest, action: cut(action) }
  }

  caller(identity: Identity | undefined): Caller | undefined {
    if (identity === undefined || identity !== this.#identity) {
      this.#caller = callerOf(identity)
      // Only what cannot change any more may be remembered.
      this.#identity = identity !== undefined && Object.isFrozen(identity) ? identity : undefined
    }
    return this.#caller
  }

  allowed(rule: string): AuditRecord["decision"] {
    const known = this.#allowed
    return known.rule === rule ? known : this.#allowed = { allow: true, rule: cut(rule), reason: undefined }
  }
}

const isRefusal = (outcome: Outcome): boolean =>
  outcome === "denied" || outcome === "unauthenticated" || outcome === "limited" || outcome === "rejected"

/** One call, as the log sees it. */
class Entry {
  readonly settings: Settings
  readonly call: ToolCall
  readonly fiber: Running
  readonly clock: Clock.Clock
  readonly startedAt: number
  readonly startedAtMonotonic: number
  input: AuditRecord["input"] = undefined
  #isAdmitted = false
  #decision: Deferred.Deferred<void, AuditError> | undefined = undefined

  constructor(settings: Settings, call: ToolCall, fiber: Running) {
    this.settings = settings
    this.call = call
    this.fiber = fiber
    const clock = this.clock = fiber.getRef(Clock.Clock)
    // The observe stage may have looked at the clocks already; then both tell the same time.
    this.startedAt = call.record.startedAt || clock.currentTimeMillisUnsafe()
    this.startedAtMonotonic = call.record.startedAtMonotonic || monotonicMillisOf(clock)
  }

  /** The call has been let in. Its input is looked at before the handler may change it. */
  admit(): void {
    this.#isAdmitted = true
    this.input = this.settings.inputOf?.(this.call.input)
  }

  /** Whether the decision has been handed over. */
  get isDecided(): boolean {
    return this.#decision !== undefined
  }

  /** Hands the decision over, once, and waits until it is acknowledged. */
  decide(): Effect.Effect<void, AuditError> {
    if (this.#decision === undefined) {
      const decision = this.#decision = Deferred.makeUnsafe<void, AuditError>()
      // In a fiber of its own, because several executions may wait for it and each may be interrupted.
      Effect.runForkWith(this.fiber.context)(this.settings.log.record(this.toRecord("decision")))
        .addObserver((exit) => Deferred.doneUnsafe(decision, exit))
    }
    return Deferred.await(this.#decision)
  }

  settle(exit: Exit.Exit<unknown, unknown>): Outcome {
    const { record } = this.call
    try {
      return record.settle(exit)
    } catch {
      // An error whose members throw when read.
      record.errorType = "error"
      return record.outcome = "failed"
    }
  }

  /** Writes the call as one record. */
  end(exit: Exit.Exit<unknown, unknown>): undefined {
    const outcome = this.settle(exit)
    const record = this.toRecord("call")
    if (!this.#isForCounting(outcome)) this.settings.log.recordUnsafe(record)
    else if (this.settings.recording.isFirst(record)) this.settings.log.recordUnsafe(this.withInput(record))
    return undefined
  }

  /** Writes what of decision and outcome has not been written yet. */
  endRequired(exit: Exit.Exit<unknown, unknown>): undefined {
    const { log, recording } = this.settings
    const outcome = this.settle(exit)
    const record = this.toRecord("outcome")
    if (this.isDecided) {
      // No outcome of a decision that has been told is left to be counted.
      if (isRefusal(outcome)) recording.open(record)
      log.recordUnsafe(record)
    } else if (!this.#isForCounting(outcome) || recording.isFirst(record)) {
      if (record.decision !== undefined) log.recordUnsafe(this.withInput(this.toRecord("decision")))
      log.recordUnsafe(record)
      this.#decision = Deferred.makeUnsafe()
      Deferred.doneUnsafe(this.#decision, Effect.void)
    }
    return undefined
  }

  // A call may be refused after its handler has run: when its caller expires before the next attempt, for one.
  #isForCounting(outcome: Outcome): boolean {
    return isRefusal(outcome) && this.call.record.attempts === 0
  }

  // Nobody's input is looked at before somebody has been let in, unless it is told.
  withInput(record: AuditRecord): AuditRecord {
    return this.#isAdmitted ? record : { ...record, input: this.settings.inputOf?.(this.call.input) }
  }

  toRecord(kind: "call" | "decision" | "outcome"): AuditRecord {
    const { call, clock, fiber, settings } = this
    const { record } = call
    const now = monotonicMillisOf(clock)
    const { errorType, outcome, rule } = record
    const isRefused = outcome === "denied" || outcome === "unauthenticated"
    const span = fiber.cache.span
    const isEnd = kind !== "decision"
    return {
      version,
      kind,
      callId: cut(call.callId),
      time: this.startedAt,
      offsetMillis: now - settings.recording.originMillis,
      caller: settings.caller(record.identity),
      peer: cut(fiber.getRef(CurrentPeer)),
      tool: settings.called(call.action),
      input: kind === "outcome" ? undefined : this.input,
      // Before the end there is no outcome yet, so a call that is let in is not refused.
      decision: isRefused
        ? { allow: false, rule: cut(rule), reason: errorType }
        : rule === undefined
        ? undefined
        : settings.allowed(rule),
      outcome: isEnd ? outcome : undefined,
      errorType: isEnd ? errorType : undefined,
      durationMillis: isEnd ? now - this.startedAtMonotonic : undefined,
      attempts: isEnd ? record.attempts : undefined,
      traceId: span?.traceId,
      spanId: span?.spanId
    }
  }
}

const bestEffort = (settings: Settings): Seat => ({
  beforeExecution: undefined,
  around: (stage) => <A, E1, R>(call: ToolCall, next: Effect.Effect<A, E1, R>) =>
    Effect.withFiber((fiber): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
      const entry = new Entry(settings, call, fiber)
      const admitted = Effect.suspend(() => {
        entry.admit()
        return next
      })
      return Effect.onExitPrimitive(stage(call, admitted), (exit) => entry.end(exit))
    })
})

const required = (settings: Settings): Seat => {
  // Calls whose decision is written later, if at all: their caller is being refused again and again.
  const later = new WeakMap<ToolCall, Entry>()

  const unrecorded = (call: ToolCall, error: AuditError): Effect.Effect<never, AuthError.AuthError> => {
    const refusal = AuthError.refused("AuthUnavailable")
    // Like the cause of any `Error`: for whoever looks at it in the program, and no part of what is sent.
    Object.defineProperty(refusal, "cause", { value: error })
    return Effect.fail(call.record.refuse("denied", refusal))
  }

  const decided = <A, E1, R>(
    entry: Entry,
    call: ToolCall,
    then: () => Effect.Effect<A, E1, R>
  ): Effect.Effect<A, E1 | AuthError.AuthError, R> =>
    Effect.matchEffect(entry.decide(), {
      onFailure: (error): Effect.Effect<A, E1 | AuthError.AuthError, R> => unrecorded(call, error),
      onSuccess: then
    })

  return {
    beforeExecution: <A, E1, R>(call: ToolCall, next: Effect.Effect<A, E1, R>) =>
      Effect.suspend((): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
        const entry = later.get(originOf(call))
        return entry === undefined ? next : decided(entry, call, () => next)
      }),
    around: (stage) => <A, E1, R>(call: ToolCall, next: Effect.Effect<A, E1, R>) =>
      Effect.withFiber((fiber): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
        const entry = new Entry(settings, call, fiber)
        const admitted = Effect.suspend((): Effect.Effect<A, E1 | AuthError.AuthError, R> => {
          entry.admit()
          if (!settings.recording.isRepeating(entry.toRecord("decision"))) return decided(entry, call, () => next)
          later.set(call, entry)
          // An answer that no handler gave must not get out unrecorded either.
          return Effect.flatMap(next, (answer) => decided(entry, call, () => Effect.succeed(answer)))
        })
        return Effect.onExitPrimitive(stage(call, admitted), (exit) => entry.endRequired(exit))
      })
  }
}
