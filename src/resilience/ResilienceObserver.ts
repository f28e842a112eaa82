/**
 * What the parts tell whoever looks: the seam between resilience and metrics.
 *
 * Nobody looks by default, and then a part pays one comparison. Observers are called synchronously in the middle of a
 * call, so they must be quick. What they throw is dropped: the call goes on.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Bulkhead from "./Bulkhead.ts"
import type * as CircuitBreaker from "./CircuitBreaker.ts"

/**
 * - `onTransition`: a circuit changed its state.
 * - `onBulkhead`: a bulkhead took or gave back a slot, or its queue changed. Called for every call.
 * - `onRetry`: attempt number `attempt`, from 2, is about to wait for its turn.
 * - `onHedge`: a further attempt was started beside one that takes long.
 * - `onTimeout`: a call was not done in time. `onLateResult`: work ended after its caller had been answered.
 *
 * @category models
 * @since 0.1.0
 */
export interface ResilienceObserver {
  readonly onTransition?: ((transition: CircuitBreaker.Transition) => void) | undefined
  readonly onBulkhead?: ((name: string, snapshot: Bulkhead.Snapshot) => void) | undefined
  readonly onRetry?: ((name: string, attempt: number) => void) | undefined
  readonly onHedge?: ((name: string) => void) | undefined
  readonly onTimeout?: ((name: string) => void) | undefined
  readonly onLateResult?: ((name: string) => void) | undefined
}

/**
 * The observer that parts made from here on report to. Read once, when a part or the stage's layer is made.
 *
 * @category references
 * @since 0.1.0
 */
export const CurrentResilienceObserver: Context.Reference<ResilienceObserver | undefined> = Context.Reference<
  ResilienceObserver | undefined
>("effect-toolops/resilience/ResilienceObserver/CurrentResilienceObserver", { defaultValue: () => undefined })
