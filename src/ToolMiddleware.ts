/**
 * The shape of a stage.
 *
 * A stage is a service whose value is a `ToolMiddleware`. Yours take part in a pipeline just as ours do:
 * `ToolPipeline.layerOf(ObserveMiddleware.ObserveMiddleware, MyStage)`.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import type { ToolCall } from "./ToolCall.ts"
import type { ToolMeta } from "./ToolMeta.ts"

/**
 * What runs per call: takes the call and the rest of the path, returns the path with the stage around it.
 *
 * @category models
 * @since 0.1.0
 */
export type Around<out E> = <A, E1, R>(call: ToolCall, next: Effect.Effect<A, E1, R>) => Effect.Effect<A, E | E1, R>

/**
 * @internal A seat that may run the rest of the path once more after the call has ended, as a call of its own: `again`
 * is what `next` would be for that call. It is there where a pipeline knows that the seat asks for it.
 */
export type AroundAgain<out E> = <A, E1, R>(
  call: ToolCall,
  next: Effect.Effect<A, E1, R>,
  again?: ((call: ToolCall) => Effect.Effect<A, E1, R>) | undefined
) => Effect.Effect<A, E | E1, R>

const repeating = new WeakSet<object>()

/** @internal Has pipelines give a seat its `again`. Others have none, since it costs every call something. */
export const withAgain = <E>(around: AroundAgain<E>): Around<E> => {
  repeating.add(around)
  return around
}

/** @internal */
export const asksForAgain = (around: AroundAgain<unknown>): boolean => repeating.has(around)

/**
 * A stage that may add `E` to a call's errors and gives the handler the services `Provides`.
 *
 * - `forTool`: called once per tool. Resolve policy, name metrics, precompute there; return what runs per call.
 * - `forExecution`: a second, innermost seat: what it returns surrounds each execution of the handler, so it sees
 *   every attempt of a retried call and nothing of a cached one.
 * - `explain`: what the stage would do with a call, without running it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ToolMiddleware<out E, out Provides = never> {
  readonly name: string
  readonly forTool: (tool: ToolMeta) => Around<E>
  readonly forExecution?: ((tool: ToolMeta) => Around<E>) | undefined
  readonly explain?: ((tool: ToolMeta) => (call: ToolCall) => Effect.Effect<Explanation>) | undefined
  readonly "~provides"?: (() => Provides) | undefined
}

/**
 * What a stage says of a call that has not run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Explanation {
  readonly verdict: "pass" | "refuse" | "answer"
  readonly detail: Readonly<Record<string, unknown>>
}

const passNext: Around<never> = (_call, next) => next

/**
 * A stage that does nothing: what `layerPassthrough` installs.
 *
 * @category constructors
 * @since 0.1.0
 */
export const passthrough = (name: string): ToolMiddleware<never> => ({ name, forTool: () => passNext })

/** @internal Lets the compiler check a stage without widening its type. */
export const of: <E, Provides = never>(stage: ToolMiddleware<E, Provides>) => ToolMiddleware<E, Provides> = identity

/** @internal Recognises a stage that leaves calls alone, so that a pipeline can skip it. */
export const isPassthrough = (around: Around<unknown>): boolean => around === passNext
