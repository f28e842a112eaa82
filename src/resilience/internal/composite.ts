/**
 * Several parts around one effect, in toolops's order: bulkhead, breaker, time limit for all attempts, retry, hedge, time
 * limit for one attempt.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type { CallRecord } from "../../CallRecord.ts"
import type { Bulkhead } from "../Bulkhead.ts"
import type { CircuitBreaker } from "../CircuitBreaker.ts"
import type { Hedge } from "../Hedge.ts"
import type { ResilienceError } from "../ResilienceError.ts"
import type { Retrier } from "../Retry.ts"
import type { Timeout } from "../Timeout.ts"
import { BulkheadImpl } from "./bulkhead.ts"
import { CircuitBreakerImpl } from "./circuitBreaker.ts"
import { guarded } from "./guardedCall.ts"
import { RetryImpl } from "./retry.ts"
import { TimeoutImpl } from "./timeout.ts"

/** @internal */
export interface Parts {
  readonly bulkhead?: Bulkhead["Service"] | undefined
  readonly breaker?: CircuitBreaker["Service"] | undefined
  readonly retry?: Retrier<ResilienceError> | undefined
  readonly hedge?: Hedge["Service"] | undefined
  readonly timeout?: Timeout["Service"] | undefined
}

/** @internal Runs an effect through all of them. The record is that of the tool call, where there is one. */
export type Composite = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  record: CallRecord | undefined
) => Effect.Effect<A, E | ResilienceError, R>

interface Part {
  readonly execute: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ResilienceError, R>
  /** What a part of ours has besides: it notes in the record what it refuses. */
  readonly executeFor?: Composite
}

const runOf = (part: Part): Composite => {
  if (part.executeFor === undefined) return (effect) => part.execute(effect)
  return (effect, record) => part.executeFor!(effect, record)
}

const totalOf = (timeout: Timeout["Service"]): Composite =>
  timeout instanceof TimeoutImpl
    ? (effect, record) => timeout.executeTotalFor(effect, record)
    : (effect) => timeout.executeTotal(effect)

/** @internal */
export const compose = (parts: Parts): Composite => {
  const around = composeAll(parts)
  const { breaker, bulkhead, hedge, retry, timeout } = parts
  return breaker instanceof CircuitBreakerImpl && bulkhead instanceof BulkheadImpl &&
      timeout instanceof TimeoutImpl && timeout.settings.timeout !== Infinity && timeout.settings.total === Infinity &&
      (retry === undefined || retry instanceof RetryImpl) && hedge === undefined
    ? guarded({ bulkhead, breaker, retry, timeout, around })
    : around
}

const composeAll = (parts: Parts): Composite => {
  const { breaker, bulkhead, hedge, retry, timeout } = parts
  const runs: Array<Composite> = []
  if (timeout !== undefined) runs.push(runOf(timeout))
  if (hedge !== undefined) runs.push(runOf(hedge))
  if (retry !== undefined) runs.push(runOf(retry))
  if (timeout !== undefined) runs.push(totalOf(timeout))
  if (breaker !== undefined) runs.push(runOf(breaker))
  if (bulkhead !== undefined) runs.push(runOf(bulkhead))
  return <A, E, R>(effect: Effect.Effect<A, E, R>, record: CallRecord | undefined) => {
    let path: Effect.Effect<A, E | ResilienceError, R> = effect
    for (let i = 0; i < runs.length; i++) path = runs[i]!(path, record)
    return path
  }
}
