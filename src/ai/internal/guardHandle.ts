import type * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { shield } from "../../internal/spanShield.ts"
import * as ToolRefusal from "../ToolRefusal.ts"

/** Handlers that are behind a pipeline, and what sends parameters through it that do not get to the handler. */
export const guardedHandlers = new WeakMap<object, TurnAway>()

/** Whether the handler runs for a call that came through `handle` of a guarded toolkit. */
export const ThroughGuard: Context.Reference<boolean> = Context.Reference<boolean>(
  "effect-toolops/ai/ToolkitOps/ThroughGuard",
  { defaultValue: () => false }
)

export type TurnAway = (
  params: unknown,
  callId: string | undefined
) => Effect.Effect<ToolRefusal.ToolRefusal | undefined>

/** What `handle` of a guarded toolkit does around that of the toolkit. */
export const guardHandle = (
  built: Toolkit.WithHandler<Record<string, Tool.Any>>,
  turnAway: ReadonlyMap<string, TurnAway>
): Toolkit.WithHandler<Record<string, Tool.Any>>["handle"] =>
(name, params, callId, ...rest) => {
  // Parameters that do not fit never get to the handler, and whoever sends them has to be let in and counted all the same.
  const refuse = turnAway.get(name)
  const handled = Effect.map(
    Effect.provideService(shield(built.handle(name, params, callId, ...rest)), ThroughGuard, true),
    returnRefusals
  )
  if (refuse === undefined) return handled
  const isReturned = built.tools[name]!.failureMode === "return"
  return Effect.matchCauseEffect(handled, {
    onFailure: (cause) =>
      hasBadParameters(cause)
        ? Effect.flatMap(refuse(params, callId), (refusal) =>
          refusal === undefined ? Effect.failCause(cause) : Effect.succeed(Stream.succeed(refusalResult(refusal))))
        : Effect.failCause(cause),
    onSuccess: (stream) =>
      Effect.succeed(
        isReturned
          ? Stream.mapEffect(stream, (result) =>
            result.failureOrigin === "parameters"
              ? Effect.map(refuse(params, callId), (refusal) => refusal === undefined ? result : refusalResult(refusal))
              : Effect.succeed(result))
          : stream
      )
  })
}

const hasBadParameters = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.some((reason) =>
    Cause.isFailReason(reason) && Context.get(Cause.reasonAnnotations(reason), Toolkit.FailureOrigin) === "parameters"
  )

const refusalResult = <T extends Tool.Any>(refusal: ToolRefusal.ToolRefusal): Tool.HandlerResult<T> => ({
  // `guard` has declared the refusal as a failure of the tool, so it is one of its results.
  result: refusal as Tool.Result<T>,
  encodedResult: { ...refusal },
  isFailure: true,
  failureOrigin: "handler",
  preliminary: false
})

const returnRefusals = <T extends Tool.Any, E, R>(
  stream: Stream.Stream<Tool.HandlerResult<T>, E, R>
): Stream.Stream<Tool.HandlerResult<T>, E, R> =>
  Stream.catchCause(stream, (cause) => {
    const [reason] = cause.reasons
    // Only a refusal alone is an answer. Otherwise the whole cause, because its annotations tell callers where the failure
    // is from.
    return cause.reasons.length === 1 && Cause.isFailReason(reason) && reason.error instanceof ToolRefusal.ToolRefusal
      ? Stream.succeed(refusalResult<T>(reason.error))
      : Stream.failCause(cause)
  })
