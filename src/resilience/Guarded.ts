/**
 * What the parts give for an effect: an effect that is an object of its own, which is lighter than a closure in another.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type { CallRecord } from "../CallRecord.ts"

/** @internal What a guarded effect does when it is run. */
export interface Guard {
  readonly run: (
    effect: Effect.Effect<any, any, any>,
    record: CallRecord | undefined
  ) => Effect.Effect<any, any, any>
}

/** @internal */
export class Guarded extends Effectable.Class<any, any, any> {
  readonly guard: Guard
  readonly effect: Effect.Effect<any, any, any>
  readonly record: CallRecord | undefined

  constructor(guard: Guard, effect: Effect.Effect<any, any, any>, record: CallRecord | undefined) {
    super()
    this.guard = guard
    this.effect = effect
    this.record = record
  }

  asEffect(): Effect.Effect<any, any, any> {
    return this.guard.run(this.effect, this.record)
  }
}
