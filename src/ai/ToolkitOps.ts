/**
 * Guards an `effect/ai` toolkit with the pipeline.
 *
 * `guard` gives the same toolkit whose tools may also be refused, `layer` its handlers behind the pipeline. Whoever
 * calls the tools (`McpServer.toolkit`, `LanguageModel.generateText`, `handle` by hand) then gets a refusal as a tool
 * result that says what to do, and no span of the caller's holds the parameters.
 *
 * Tools that a provider runs itself have no handler and are left as they are. Dynamic tools are guarded like others; one
 * with a raw JSON Schema has its parameters taken as they came.
 *
 * @since 0.1.0
 */
import type { AiError, AiErrorReason } from "effect/ai/AiError"
import * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { CurrentIdentity } from "../auth/Identity.ts"
import { CacheMode } from "../cache/CacheMiddleware.ts"
import { restore } from "../internal/spanShield.ts"
import type { ToolMeta } from "../ToolMeta.ts"
import * as ToolPipeline from "../ToolPipeline.ts"
import { type GuardedCall, guardedHandlers, guardHandle, ThroughGuard, type TurnAway } from "./internal/guardHandle.ts"
import { prepare } from "./internal/handlerRun.ts"
import { claimId } from "./internal/uniqueIds.ts"
import { RefusalSlot } from "./mcp/refusalSlot.ts"
import * as ToolPolicy from "./ToolPolicy.ts"
import * as ToolRefusal from "./ToolRefusal.ts"

/**
 * A tool that may be refused.
 *
 * @category utility types
 * @since 0.1.0
 */
export type GuardedTool<T extends Tool.Any> = T extends
  Tool.ProviderDefined<infer Id, infer Name, infer Config, infer RequiresHandler> ?
  RequiresHandler extends true ?
    Tool.ProviderDefined<Id, Name, Omit<Config, "failure"> & WithRefusal<Config>, RequiresHandler> :
  T
  : T extends Tool.Dynamic<infer Name, infer Config, infer Requirements>
    ? Tool.Dynamic<Name, Omit<Config, "failure"> & WithRefusal<Config>, Requirements>
  : T extends Tool.Tool<infer Name, infer Config, infer Requirements>
    ? Tool.Tool<Name, Omit<Config, "failure"> & WithRefusal<Config>, Requirements>
  : never

/**
 * What `guard` changes about a tool: its failure.
 *
 * @category utility types
 * @since 0.1.0
 */
export interface WithRefusal<Config extends { readonly failure: Schema.Constraint }> {
  readonly failure: Schema.Union<readonly [Config["failure"], typeof ToolRefusal.ToolRefusal]>
}

/**
 * The tools of a toolkit, each of which may be refused.
 *
 * @category utility types
 * @since 0.1.0
 */
export type GuardedTools<Tools extends Record<string, Tool.Any>> = {
  readonly [Name in keyof Tools]: GuardedTool<Tools[Name]>
}

const GuardedTypeId = "~effect-toolops/ai/ToolkitOps/Guarded"

/**
 * What `guard` gives: a toolkit whose every call goes through the pipeline, also one with parameters that do not fit.
 *
 * @category models
 * @since 0.1.0
 */
export interface Guarded {
  readonly [GuardedTypeId]: typeof GuardedTypeId
}

/**
 * Makes a toolkit whose tools may be refused and leave no parameters on the caller's span.
 *
 * **Details**
 *
 * A refusal is always a result that is marked as failed, also where a tool's `failureMode` is `error`: the model is to
 * read it. The handler's own failures keep the tool's mode.
 *
 * Parameters that do not fit a tool's Schema go through the pipeline too, as a call that runs nothing: only a caller who is
 * let in, and whose limits are not used up, is told what is wrong with them. Its record says `interrupted`.
 *
 * **Gotchas**
 *
 * Its handlers come from `layer`. Handlers that are not behind a pipeline are a defect when the toolkit is used.
 * `Toolkit.merge` keeps the tools and drops the guard, so merge first and guard the whole: a guarded handler that is called
 * through a toolkit that was merged later is a defect and does not run. Such a toolkit has the `handle` of `effect/ai`, which
 * writes raw parameters on the caller's span: they are taken off again where the call gets as far as the handler, and stay
 * where they do not fit.
 *
 * `handle` does what that of `effect/ai` does, with less between the handler and its result: a call that is guarded by
 * stages that pass it on costs less than one that is not guarded. Read its stream once: a second time it is empty.
 *
 * **Example** (Guarding a toolkit)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Tool, Toolkit } from "effect/ai"
 * import { ToolkitOps } from "effect-toolops/ai"
 *
 * const Echo = Tool.make("echo", { parameters: Schema.Struct({ text: Schema.String }), success: Schema.String })
 * const Tools = ToolkitOps.guard(Toolkit.make(Echo))
 *
 * // Needs a ToolPipeline. Provide it to `McpServer.toolkit(Tools)` or to a program that uses a language model.
 * const ToolsLive = ToolkitOps.layer(Tools, { echo: ({ text }) => Effect.succeed(text) })
 *
 * Object.keys(Tools.tools) // => ["echo"]
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const guard = <Tools extends Record<string, Tool.Any>>(
  toolkit: Toolkit.Toolkit<Tools>
): Toolkit.Toolkit<GuardedTools<Tools>> & Guarded => {
  const tools = Object.values<Tool.Any>(toolkit.tools).map((tool) =>
    requiresHandler(tool) ? declareRefusal(tool) : tool
  )
  const inner = Toolkit.make(...tools)
  const guarded = Object.assign(
    function() {},
    inner,
    { [GuardedTypeId]: GuardedTypeId },
    Effectable.Prototype<typeof inner>({
      label: "Toolkit",
      evaluate(fiber) {
        const calls = new Map<string, GuardedCall>()
        for (const tool of tools) {
          const handler = fiber.context.mapUnsafe.get(tool.id) as Tool.Handler<string> | undefined
          if (handler === undefined) continue
          const guard = guardedHandlers.get(handler.handler)
          if (guard === undefined) {
            return Effect.die(
              new TypeError(`ToolkitOps.guard: the handler of ${tool.name} is not from ToolkitOps.layer`)
            )
          }
          const { run, turnAway } = guard
          calls.set(tool.name, { ...prepare(tool, run, handler.context), turnAway })
        }
        return Effect.map(inner, (built) => ({ tools: built.tools, handle: guardHandle(built, calls) }))
      }
    })
  )
  // `inner` has the tools of `toolkit`, each with one more failure: what `GuardedTools` says and TypeScript cannot derive.
  return guarded as unknown as Toolkit.Toolkit<GuardedTools<Tools>> & Guarded
}

const requiresHandler = (tool: Tool.Any): boolean => !Tool.isProviderDefined(tool) || tool.requiresHandler

const declareRefusal = (tool: Tool.Any): Tool.Any =>
  tool.setFailure(Schema.Union([tool.failureSchema, ToolRefusal.ToolRefusal]))

/**
 * The handlers of a guarded toolkit: those of `effect/ai`, each of which may need `CurrentIdentity`.
 *
 * @category utility types
 * @since 0.1.0
 */
export type HandlersFrom<Tools extends Record<string, Tool.Any>> = {
  readonly [Name in keyof Tools as Tool.RequiresHandler<Tools[Name]> extends true ? Name : never]: (
    params: Tool.Parameters<Tools[Name]>,
    context: Toolkit.HandlerContext<Tools[Name]>
  ) => Effect.Effect<
    Tool.Success<Tools[Name]>,
    Tool.Failure<Tools[Name]> | AiError | AiErrorReason,
    Tool.HandlerServices<Tools[Name]> | CurrentIdentity
  >
}

/**
 * Provides the handlers of a guarded toolkit, behind the pipeline.
 *
 * **Details**
 *
 * Takes what `Toolkit.toLayer` takes. A handler may also need `CurrentIdentity`, which the pipeline provides, unless its
 * tool is for everyone: such a handler runs without it, so that no caller's answer is made for another. Names that come
 * out the same (`docs_read` and `docs.read`, also in two toolkits behind one pipeline), bad annotations and bad policies
 * are defects when the layer is built.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <
  Tools extends Record<string, Tool.Any>,
  Handlers extends HandlersFrom<Tools>,
  EX = never,
  RX = never
>(
  toolkit: Toolkit.Toolkit<Tools> & Guarded,
  handlers: Handlers | Effect.Effect<Handlers, EX, RX>,
  options?: ToolPolicy.Options
): Layer.Layer<Tool.HandlersFor<Tools>, EX, Exclude<RX, Scope.Scope> | ToolPipeline.ToolPipeline> => {
  // For whoever has no types: `handle` of another toolkit lets parameters that do not fit past the pipeline.
  if (!(GuardedTypeId in toolkit)) {
    throw new TypeError("ToolkitOps.layer: pass the toolkit through ToolkitOps.guard first")
  }
  const tools = Object.values<Tool.Any>(toolkit.tools).filter(requiresHandler)
  const build = Effect.gen(function*() {
    const pipeline = yield* ToolPipeline.ToolPipeline
    const given: Record<string, AnyHandler> = Effect.isEffect(handlers) ? yield* handlers : handlers
    const behind: Array<readonly [name: string, handler: AnyHandler]> = []
    for (const tool of tools) {
      const meta = ToolPolicy.sharedMetaOf(tool, options)
      yield* claimId(pipeline, meta, tool.name)
      if (!Object.hasOwn(given, tool.name)) throw new TypeError(`ToolkitOps.layer: ${tool.name} has no handler`)
      behind.push([tool.name, guardHandler(pipeline, tool.name, meta, given[tool.name]!)])
    }
    // The names and types of the handlers are those of `given`.
    return Object.fromEntries(behind) as unknown as Toolkit.HandlersFrom<Tools>
  })
  return toolkit.toLayer(build)
}

type AnyHandler = (params: any, context: Toolkit.HandlerContext<any>) => Effect.Effect<any, any, any>

const guardHandler = (
  pipeline: ToolPipeline.Pipeline<ToolPipeline.PipelineError, CurrentIdentity>,
  name: string,
  meta: ToolMeta,
  handler: AnyHandler
): AnyHandler => {
  const run: AnyHandler = meta.varies === "everyone"
    ? (params, context) => Effect.updateContext(Effect.suspend(() => handler(params, context)), withoutIdentity)
    : (params, context) => Effect.suspend(() => handler(params, context))
  // Prepares the path of the tool now, so that a bad policy is found before the first call.
  pipeline.wrap(meta, run as never)
  const guardedRun: AnyHandler = (params, context) =>
    Effect.withFiber((fiber) => {
      const slot = fiber.getRef(RefusalSlot)
      const handled = run(params, context)
      const work = Effect.catchCause(
        slot === undefined ? handled : Effect.provideService(handled, RefusalSlot, undefined),
        markOwn
      )
      return Effect.catchCause(
        pipeline.run({ tool: meta, input: params, callId: context.toolCallId }, work),
        (cause) => {
          const reason = cause.reasons.find(Cause.isFailReason)
          if (reason === undefined || !ToolRefusal.isPipelineError(reason.error)) return Effect.failCause(cause)
          if (Context.get(Cause.reasonAnnotations(reason), OwnFailure)) return Effect.failCause(cause)
          const refusal = ToolRefusal.fromError(reason.error, meta)
          if (slot !== undefined) slot.refused = { refusal, error: reason.error }
          return Effect.fail(refusal)
        }
      )
    })
  // What a toolkit calls that knows nothing of the guard.
  const guarded: AnyHandler = (params, context) =>
    restore(Effect.withFiber((fiber) =>
      fiber.getRef(ThroughGuard)
        // What the handler calls is no call of the toolkit that it runs for.
        ? Effect.provideService(guardedRun(params, context), ThroughGuard, false)
        : Effect.die(
          new TypeError(`ToolkitOps: ${name} was called through a toolkit that is not guarded: merge first, then guard`)
        )
    ))
  const turnAway: TurnAway = (params, callId) =>
    Effect.withFiber((fiber) =>
      // There is nothing to run. An interruption says nothing against what stands behind the tool, and is no answer to keep.
      Effect.matchCause(
        Effect.provideService(
          pipeline.run({ tool: meta, input: params, callId }, Effect.interrupt),
          CacheMode,
          "bypass"
        ),
        {
          onFailure: (cause) => {
            const error = cause.reasons.find(Cause.isFailReason)?.error
            if (error === undefined) return undefined
            const refusal = ToolRefusal.fromError(error, meta)
            const slot = fiber.getRef(RefusalSlot)
            if (slot !== undefined) slot.refused = { refusal, error }
            return refusal
          },
          onSuccess: () => undefined
        }
      )
    )
  guardedHandlers.set(guarded, { run: guardedRun, turnAway })
  return guarded
}

// A handler may fail with what a pipeline refuses with: of one that it has asked itself, or because it lacks a scope. The
// mark is on the failure and not on the error, which may be one that stages use too.
const OwnFailure = Context.Reference<boolean>("effect-toolops/ai/ToolkitOps/OwnFailure", { defaultValue: () => false })
const own = Context.make(OwnFailure, true)
const markOwn = <E>(cause: Cause.Cause<E>): Effect.Effect<never, E> => Effect.failCause(Cause.annotate(cause, own))

const withoutIdentity = Context.omit(CurrentIdentity)
