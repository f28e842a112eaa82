/**
 * What the parts give for an effect: an effect that is an object of its own, which is lighter than a closure in another.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type { CallRecord } from "../CallRecord.ts"

/** @internal A part that refuses with `Refusal`. */
export abstract class Part<out Refusal> {
  /** What a guarded effect does when it is run. */
  abstract run<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | Refusal, R>

  execute<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Refusal, R> {
    return new Guarded(this, effect, undefined)
  }

  /** `execute` for a tool call: a refusal is noted in its record. */
  executeFor<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    record: CallRecord | undefined
  ): Effect.Effect<A, E | Refusal, R> {
    return new Guarded(this, effect, record)
  }
}

/** @internal */
export class Guarded extends Effectable.Class<any, any, any> {
  readonly part: Part<unknown>
  readonly effect: Effect.Effect<any, any, any>
  readonly record: CallRecord | undefined

  constructor(part: Part<unknown>, effect: Effect.Effect<any, any, any>, record: CallRecord | undefined) {
    super()
    this.part = part
    this.effect = effect
    this.record = record
  }

  asEffect(): Effect.Effect<any, any, any> {
    return this.part.run(this.effect, this.record)
  }
}
