import * as McpServer from "effect/ai/McpServer"
import type * as Tool from "effect/ai/Tool"
import type * as Toolkit from "effect/ai/Toolkit"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Authenticator } from "../../auth/Authenticator.ts"
import type { AuthError } from "../../auth/AuthError.ts"
import { Authorizer, decide, type Decision } from "../../auth/Authorizer.ts"
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
 * of a hidden tool goes through it as a refused call, beside the answer, so that it is counted, logged and recorded and
 * takes no longer than the answer of a tool that is not there.
 *
 * A list for a caller without valid credentials fails with a JSON-RPC error that says so; a call of theirs finds no tool.
 * Where nobody can tell whether a caller may (`AuthUnavailable`) a list fails too, and a call is refused by the pipeline.
 *
 * **Gotchas**
 *
 * A list has no input, so a policy that looks at the input is asked with `undefined` whether a tool is to be seen at all.
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
  const metas = new Map(
    Object.values<Tool.Any>(toolkit.tools).map((tool) => [tool.name, ToolPolicy.sharedMetaOf(tool, options)])
  )
  const isVisible = (decision: Decision): boolean =>
    decision.allow || (showsMissingScopes && decision.missingScopes.length > 0)

  return McpServer.visibility(Effect.gen(function*() {
    const authorizer = yield* Authorizer
    const callerOf = rememberingCallers(yield* Authenticator)
    const record = yield* makeRecord
    const ask = (options: McpServer.MiddlewareOptions, tool: ToolMeta): Effect.Effect<boolean, AuthError> =>
      Effect.flatMap(callerOf(options), (identity) => {
        const decision = decide(authorizer, { identity, tool, action: "call", input: undefined })
        return Effect.isEffect(decision) ? Effect.map(decision, isVisible) : Effect.succeed(isVisible(decision))
      })
    return (options: McpServer.MiddlewareOptions) => {
      const tool = metas.get(options.target)
      switch (options.method) {
        case "tools/list":
          return tool === undefined ? Effect.succeed(true) : Effect.mapError(ask(options, tool), toMcpError)
        case "tools/call":
          return tool === undefined ? Effect.succeed(true) : Effect.matchEffect(ask(options, tool), {
            onFailure: (error) =>
              error.reason._tag === "AuthUnavailable" ? Effect.succeed(true) : Effect.as(record(options, tool), false),
            onSuccess: (visible) => visible ? Effect.succeed(true) : Effect.as(record(options, tool), false)
          })
        // Resources and prompts are none of a toolkit's.
        default:
          return Effect.succeed(true)
      }
    }
  }))
}

// Past so many at once, callers wait for their record: a flood of them must not pile up.
const maxRecording = 1_000

/** Sends a call that is refused through the pipeline, for what the stages write down of it. */
const makeRecord: Effect.Effect<
  (options: McpServer.MiddlewareOptions, tool: ToolMeta) => Effect.Effect<void>,
  never,
  ToolPipeline | Scope.Scope
> = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline
  const scope = yield* Effect.scope
  let recording = 0
  return (options, tool) =>
    Effect.withFiber((fiber) => {
      const http = httpRequest(fiber.context)
      recording += 1
      // The decision is the same as a moment ago. Should it be another by now, there is still nothing to run.
      const refused = pipeline.run({ tool, input: undefined }, Effect.interrupt).pipe(
        Effect.updateContext((context: Context.Context<never>) => withRequest(context, options, http)),
        Effect.ignoreCause,
        Effect.ensuring(Effect.sync(() => {
          recording -= 1
        }))
      )
      return recording > maxRecording ? refused : Effect.forkIn(refused, scope)
    })
})
