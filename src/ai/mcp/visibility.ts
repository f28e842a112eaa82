import * as McpServer from "effect/ai/McpServer"
import * as Tool from "effect/ai/Tool"
import type * as Toolkit from "effect/ai/Toolkit"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Authenticator } from "../../auth/Authenticator.ts"
import type { AuthError } from "../../auth/AuthError.ts"
import { Authorizer, decide, type Decision, decision, type Service } from "../../auth/Authorizer.ts"
import * as Check from "../../internal/options.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import { ToolPipeline } from "../../ToolPipeline.ts"
import * as ToolPolicy from "../ToolPolicy.ts"
import { rememberingCallers } from "./callers.ts"
import { toMcpError } from "./refusals.ts"
import { httpRequest, type Middleware, withRequest } from "./request.ts"

/**
 * What `visibility` takes, beside the naming of tools, which must be that of `ToolkitOps.layer`.
 *
 * - `missingScopes`: what becomes of a tool for which the caller lacks nothing but scopes. `show` lists it, so that a
 *   client can call it, learn which scopes it needs (see `resourceServer`) and come back. Default `hide`.
 *
 * @category options
 * @since 0.1.0
 */
export interface VisibilityOptions extends ToolPolicy.Options {
  readonly missingScopes?: "hide" | "show" | undefined
}

/**
 * Shows each caller exactly the tools of a guarded toolkit that the `Authorizer` lets them call, in the order of the
 * toolkit. Any other tool answers like one that is not there, in the same words.
 *
 * **Details**
 *
 * Put it outside of `headers`: `McpOps.headers.combine(McpOps.visibility(Tools))`, and provide the Layer to the
 * registration of the toolkit. It takes the authenticator and the authorizer of the auth stage, and the pipeline: a call
 * of a hidden tool goes through it as a refused call, so that it is counted, logged and recorded. That happens beside the
 * answer, which does not wait for it.
 *
 * A list for a caller without valid credentials fails with a JSON-RPC error that says so; a call of theirs finds no tool.
 * Where nobody can tell whether a caller may (`AuthUnavailable`) a list fails too, and a call is refused by the pipeline
 * as one to be tried again, which says that there is such a tool.
 *
 * **Gotchas**
 *
 * A call is decided on its arguments, and a list has none: a policy that looks at the input is asked with `undefined`
 * whether a tool is to be seen at all. One that says no, or dies of it, leaves the tool out of lists, though some calls of
 * it pass; one that dies is told to the operator once for each tool.
 *
 * The words are the same, the time is not: who calls and what the policy says is found out where there is a tool, and not
 * where there is none. Where that takes long enough to be measured, authenticate at the edge (`resourceServer`): every
 * request waits for it there, and one whose caller cannot be known gets no further, so that only the policy is left.
 *
 * Provide it with `headers` in one piece. `headers.layerGlobal` around it answers for a hidden tool (see there).
 *
 * Put `authenticate`, if you need it, inside: around `visibility` it would answer a caller without credentials in another
 * way where there is a tool than where there is none.
 *
 * In revision 2026-07-28 the server compares `Mcp-Param-*` headers with the arguments before any middleware runs. A tool
 * with `x-mcp-header` parameters can be told from an absent one by that.
 *
 * **Example** (Showing readers what they may read)
 *
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { McpServer, Tool, Toolkit } from "effect/ai"
 * import { McpOps, ToolkitOps } from "effect-toolops/ai"
 *
 * const Read = Tool.make("docs_read", { success: Schema.String })
 * const Tools = ToolkitOps.guard(Toolkit.make(Read))
 *
 * // Needs a ToolPipeline, an Authenticator and an Authorizer.
 * const registrations = McpServer.toolkit(Tools).pipe(
 *   Layer.provide(McpOps.headers.combine(McpOps.visibility(Tools)).layer),
 *   Layer.provide(ToolkitOps.layer(Tools, { docs_read: () => Effect.succeed("text") }))
 * )
 * ```
 *
 * @category middleware
 * @since 0.1.0
 */
export const visibility = <Tools extends Record<string, Tool.Any>>(
  toolkit: Toolkit.Toolkit<Tools>,
  options: VisibilityOptions = {}
): Middleware<Authenticator | Authorizer | ToolPipeline> => {
  const where = "McpOps.visibility"
  Check.known(where, options, ["namespace", "missingScopes"])
  const showsMissingScopes =
    Check.oneOf(where, "missingScopes", options.missingScopes ?? "hide", ["hide", "show"]) === "show"
  const shown = new Map(
    Object.values<Tool.Any>(toolkit.tools).map((tool): [string, Shown] => [
      tool.name,
      { meta: ToolPolicy.sharedMetaOf(tool, options), decode: decoderOf(tool) }
    ])
  )
  const isVisible = (decided: Decision): boolean =>
    decided.allow || (showsMissingScopes && decided.missingScopes.length > 0)

  return McpServer.visibility(Effect.gen(function*() {
    const authorizer = yield* Authorizer
    const callerOf = rememberingCallers(yield* Authenticator)
    const record = yield* makeRecord
    const listing = forLists(authorizer)
    const ask = (
      options: McpServer.MiddlewareOptions,
      tool: ToolMeta,
      input: unknown,
      by = authorizer
    ): Effect.Effect<boolean, AuthError> =>
      Effect.flatMap(callerOf(options), (identity) => {
        const decided = decide(by, { identity, tool, action: "call", input })
        return Effect.isEffect(decided) ? Effect.map(decided, isVisible) : Effect.succeed(isVisible(decided))
      })
    const mayCall = (options: McpServer.MiddlewareOptions, { decode, meta }: Shown): Effect.Effect<boolean> =>
      Effect.flatMapEager(
        inputOf(decode, options.payload),
        ({ fits, input }) =>
          Effect.matchEffect(ask(options, meta, input), {
            onFailure: (error) =>
              // What does not even fit is no reason to say that there is a tool.
              fits && error.reason._tag === "AuthUnavailable"
                ? Effect.succeed(true)
                : Effect.as(record(options, meta, input), false),
            onSuccess: (visible) => visible ? Effect.succeed(true) : Effect.as(record(options, meta, input), false)
          })
      )
    return (options: McpServer.MiddlewareOptions) => {
      const tool = shown.get(options.target)
      switch (options.method) {
        case "tools/list":
          return tool === undefined
            ? Effect.succeed(true)
            : Effect.mapError(ask(options, tool.meta, undefined, listing), toMcpError)
        case "tools/call":
          return tool === undefined ? Effect.succeed(true) : mayCall(options, tool)
        // Resources and prompts are none of a toolkit's.
        default:
          return Effect.succeed(true)
      }
    }
  }))
}

interface Shown {
  readonly meta: ToolMeta
  readonly decode: (input: unknown) => Effect.Effect<unknown, unknown>
}

// As the server decodes them, so that both decisions on a call are about the same.
const decoderOf = (tool: Tool.Any): Shown["decode"] => {
  const schema = tool.parametersSchema
  if (!Schema.isSchema(schema)) return Effect.succeed
  const onExcessProperty = Tool.getStrictMode(tool) === true ? "error" : "ignore"
  // A schema that needs services finds them where the handlers do, or counts as one that nothing fits.
  return Schema.decodeUnknownEffect(schema as Schema.Codec<unknown, unknown>, { onExcessProperty })
}

/** The arguments of a call as the pipeline will see them: decoded, or as they came where they do not fit. */
const inputOf = (
  decode: Shown["decode"],
  payload: unknown
): Effect.Effect<{ readonly fits: boolean; readonly input: unknown }> => {
  const sent = typeof payload === "object" && payload !== null && "arguments" in payload ? payload.arguments : undefined
  const raw = sent ?? {}
  return Effect.matchCauseEffectEager(decode(raw), {
    onFailure: (cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.succeed({ fits: false, input: raw }),
    onSuccess: (input) => Effect.succeed({ fits: true, input })
  })
}

const hidden = decision(false, "died where a list was asked for")

/**
 * The same authorizer where there is no input to look at: one that dies of that hides the tool it was asked about, and no
 * other. The operator is told once, without what was thrown.
 */
const forLists = (authorizer: Service): Service => {
  const told = new Set<string>()
  return {
    authorize: (request) =>
      Effect.catchCause(Effect.suspend(() => authorizer.authorize(request)), (cause) => {
        const died = cause.reasons.find(Cause.isDieReason)
        if (died === undefined) return Effect.failCause(cause)
        if (told.has(request.tool.id)) return Effect.succeed(hidden)
        told.add(request.tool.id)
        return Effect.as(
          Effect.annotateLogs(
            Effect.logError("effect-toolops: the authorizer died, so a tool is left out of lists"),
            {
              tool: request.tool.id,
              "error.type": died.defect instanceof Error ? died.defect.constructor.name : typeof died.defect
            }
          ),
          hidden
        )
      })
  }
}

// Past so many at once, callers wait for their record: a flood of them must not pile up.
const maxRecording = 1_000

/** Sends a call that is refused through the pipeline, for what the stages write down of it. */
const makeRecord: Effect.Effect<
  (options: McpServer.MiddlewareOptions, tool: ToolMeta, input: unknown) => Effect.Effect<void>,
  never,
  ToolPipeline | Scope.Scope
> = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline
  const scope = yield* Effect.scope
  let recording = 0
  return (options, tool, input) =>
    Effect.withFiber((fiber) => {
      const http = httpRequest(fiber.context)
      recording += 1
      // The decision is the same as a moment ago. Should it be another by now, there is still nothing to run.
      const refused = pipeline.run({ tool, input }, Effect.interrupt).pipe(
        Effect.updateContext((context: Context.Context<never>) => withRequest(context, options, http)),
        Effect.ignoreCause,
        Effect.ensuring(Effect.sync(() => {
          recording -= 1
        }))
      )
      return recording > maxRecording ? refused : Effect.forkIn(refused, scope)
    })
})
