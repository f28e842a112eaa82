import type * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { shield } from "../../internal/spanShield.ts"
import * as ToolRefusal from "../ToolRefusal.ts"
import { type Prepared, refusalResult } from "./handlerRun.ts"

type Handler = (params: any, context: Toolkit.HandlerContext<any>) => Effect.Effect<any, any, any>

/** Handlers that are behind a pipeline, by what the toolkit holds in their place. */
export const guardedHandlers = new WeakMap<object, Guarded>()

export interface Guarded {
  /** The handler behind the pipeline, for whoever is `handle` of a guarded toolkit. */
  readonly run: Handler
  /** Sends parameters through the pipeline that do not get to the handler. */
  readonly turnAway: TurnAway
}

/** Whether the handler runs for a call that came through `handle` of a guarded toolkit. */
export const ThroughGuard: Context.Reference<boolean> = Context.Reference<boolean>(
  "effect-toolops/ai/ToolkitOps/ThroughGuard",
  { defaultValue: () => false }
)

export type TurnAway = (
  params: unknown,
  callId: string | undefined
) => Effect.Effect<ToolRefusal.ToolRefusal | undefined>

export interface GuardedCall extends Prepared {
  readonly turnAway: TurnAway
}

type Handle = Toolkit.WithHandler<Record<string, Tool.Any>>["handle"]

/** `handle` of a guarded toolkit. What is not an ordinary call goes to that of the toolkit. */
export const guardHandle = (
  built: Toolkit.WithHandler<Record<string, Tool.Any>>,
  calls: ReadonlyMap<string, GuardedCall>
): Handle => {
  const viaToolkit = slowHandle(built, calls)
  const handle = (name: string, params: unknown, callId?: string, options?: Parameters<Prepared["decode"]>[1]) => {
    const call = calls.get(name)
    if (call === undefined) return viaToolkit(name, params as never, callId, options)
    return Effect.withFiber((fiber) =>
      fiber.getRef(Toolkit.PreliminaryBuffer) !== "unbounded"
        ? viaToolkit(name, params as never, callId, options)
        : Effect.matchCauseEffectEager(call.decode(params, options), {
          onFailure: (cause) =>
            cause.reasons.some(Cause.isFailReason)
              ? viaToolkit(name, params as never, callId, options)
              : Effect.failCause(cause),
          onSuccess: (decoded) => call.start(decoded, callId)
        })
    )
  }
  // The types of parameters and results are those of the tool, which a name alone does not say.
  return handle as Handle
}

const slowHandle = (
  built: Toolkit.WithHandler<Record<string, Tool.Any>>,
  calls: ReadonlyMap<string, GuardedCall>
): Handle =>
(name, params, callId, ...rest) => {
  // Parameters that do not fit never get to the handler, and whoever sends them has to be let in and counted all the same.
  const refuse = calls.get(name)?.turnAway
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
