import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/** Says whether an effect is its own result already, so that no fiber has to run it. */
export const settled = <A, E, R>(effect: Effect.Effect<A, E, R>): effect is Exit.Exit<A, E> => Exit.isExit(effect)
