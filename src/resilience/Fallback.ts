/**
 * Answers with something else when an effect fails.
 *
 * Only typed failures are answered: a defect stays a defect, and an interruption one. What to answer with is different for
 * every call, so this part is made where it is used and is no service. A stale cached answer is another matter: see
 * `staleIfError` of the cache stage.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Check from "../internal/options.ts"

/**
 * What to answer with.
 *
 * - `fallback`: run in place of the effect that failed: another effect, or a function that makes one of the error.
 * - `onlyIf`: which errors are answered. Default: all.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<out A, out E, out R> {
  readonly fallback: Effect.Effect<A, E, R> | ((error: unknown) => Effect.Effect<A, E, R>)
  readonly onlyIf?: ((error: unknown) => boolean) | undefined
}

/**
 * Answers for effects that fail. `A`, `E` and `R` are those of the answer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Fallback<out A, out E, out R> {
  readonly execute: <A1, E1, R1>(effect: Effect.Effect<A1, E1, R1>) => Effect.Effect<A | A1, E | E1, R | R1>
}

const optionNames: { readonly [K in keyof Required<Options<unknown, unknown, unknown>>]: true } = {
  fallback: true,
  onlyIf: true
}

/** @internal */
export const makeUnsafe = <A, E, R>(options: Options<A, E, R>, where = "Fallback.make"): Fallback<A, E, R> => {
  Check.known(where, options, Object.keys(optionNames))
  const { fallback, onlyIf } = options
  // Asked for first: there are effects that are functions.
  const isEffect = Effect.isEffect(fallback)
  if (!isEffect && typeof fallback !== "function") {
    throw new TypeError(`${where}: fallback must be an Effect or a function that gives one, got ${typeof fallback}`)
  }
  const answer = isEffect ? () => fallback : fallback
  if (onlyIf !== undefined && typeof onlyIf !== "function") {
    throw new TypeError(`${where}: onlyIf must be a function, got ${typeof onlyIf}`)
  }
  return {
    execute: <A1, E1, R1>(effect: Effect.Effect<A1, E1, R1>): Effect.Effect<A | A1, E | E1, R | R1> =>
      onlyIf === undefined ? Effect.catch(effect, answer) : Effect.catchIf(effect, onlyIf, answer)
  }
}

/**
 * Makes a fallback.
 *
 * **Example** (Answering with an empty list)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Fallback } from "effect-toolops/resilience"
 *
 * const program = Effect.gen(function*() {
 *   const fallback = yield* Fallback.make({ fallback: Effect.succeed([]) })
 *   return yield* fallback.execute(Effect.fail("the index is down"))
 * })
 *
 * await Effect.runPromise(program) // => []
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, E = never, R = never>(options: Options<A, E, R>): Effect.Effect<Fallback<A, E, R>> =>
  Effect.succeed(makeUnsafe(options))
