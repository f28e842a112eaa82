import type * as McpClient from "effect/ai/McpClient"
import { ConfigurationError, isMcpClientError, McpClientError } from "effect/ai/McpClientError"
import * as McpSchema from "effect/ai/McpSchema"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Check from "../../internal/options.ts"
import { namePart } from "../../internal/toolPattern.ts"
import type * as ToolCall from "../../ToolCall.ts"
import * as ToolMeta from "../../ToolMeta.ts"
import { type PipelineError, ToolPipeline } from "../../ToolPipeline.ts"

/**
 * What we say of an upstream's tool, whatever the upstream says. See `ToolMeta.Options` for the members.
 *
 * @category options
 * @since 0.1.0
 */
export type UpstreamTool = Pick<
  ToolMeta.Options,
  "readOnly" | "destructive" | "idempotent" | "openWorld" | "tags" | "category" | "scopes" | "varies" | "policy"
>

/**
 * What `client` takes.
 *
 * - `namespace`: names the upstream: its tool `search` is `namespace:search` to roles, limits and records.
 * - `trustAnnotations`: believe what the upstream says of its tools (`readOnlyHint`, `idempotentHint`, ...). Otherwise each
 *   counts as destructive and not idempotent, so that it is neither repeated nor cached. Default false.
 * - `tools`: what we know of single tools, by the upstream's name for them. It wins over annotations: a tool that we call
 *   destructive does not only read, whatever it says, and one that we call read-only destroys nothing.
 * - `policy`: settings for all of its tools; those of a single tool win.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientOptions {
  readonly namespace: string
  readonly trustAnnotations?: boolean | undefined
  readonly tools?: Readonly<Record<string, UpstreamTool>> | undefined
  readonly policy?: ToolMeta.ToolPolicy | undefined
}

/**
 * The tools of an upstream, behind the pipeline.
 *
 * - `tools`: what the upstream listed, and what each is to the pipeline.
 * - `leftOut`: names that the upstream listed and that cannot be used: with characters that no tool's name may have, or
 *   listed twice.
 * - `unknown`: names of our `tools` that the upstream has not listed: a slip of ours, or a tool that is gone.
 * - `callTool`: calls one by the upstream's name for it. A tool that is not in `tools` fails with `ConfigurationError`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Upstream {
  readonly tools: ReadonlyArray<{ readonly descriptor: McpSchema.Tool; readonly meta: ToolMeta.ToolMeta }>
  readonly leftOut: ReadonlyArray<string>
  readonly unknown: ReadonlyArray<string>
  readonly callTool: (
    name: string,
    args?: Readonly<Record<string, unknown>>,
    options?: ToolCall.CallOptions
  ) => Effect.Effect<McpSchema.CallToolResult, McpClientError | PipelineError>
}

const failureOf = (error: unknown): "upstream" | "ours" => {
  if (!isMcpClientError(error)) return "upstream"
  switch (error.reason._tag) {
    case "TransportError":
    case "TimeoutError":
    case "ClosedError":
      return "upstream"
    case "HttpError": {
      const { status } = error.reason
      return status >= 500 || status === 408 || status === 429 ? "upstream" : "ours"
    }
    // Without a code it is what came that makes no sense. -32603 is an internal error, and what is from -32019 to -32000 is
    // an implementation's own, such as a limit.
    case "ProtocolError": {
      const { code } = error.reason
      return code === undefined || code === -32_603 || (code >= -32_019 && code <= -32_000) ? "upstream" : "ours"
    }
    case "UnsupportedError":
    case "LimitError":
    case "ConfigurationError":
    case "ValidationError":
    case "ToolError":
      return "ours"
  }
}

const isUpstreams = (error: unknown): boolean => failureOf(error) === "upstream"

// A server that says that our request makes no sense is well.
const classify = (exit: Exit.Exit<unknown, unknown>): "success" | "failure" => {
  if (exit._tag === "Success") return "success"
  const failure = exit.cause.reasons.find(Cause.isFailReason)
  return failure !== undefined && failureOf(failure.error) === "ours" ? "success" : "failure"
}

const withDefaults = (namespace: string, policy: ToolMeta.ToolPolicy): ToolMeta.ToolPolicy => ({
  dependency: namespace,
  ...policy,
  circuitBreaker: policy.circuitBreaker === false ? false : { classify, ...policy.circuitBreaker },
  retry: policy.retry === false ? false : { retryIf: isUpstreams, ...policy.retry }
})

const annotationsOf = ({ annotations = {} }: McpSchema.Tool): UpstreamTool => ({
  readOnly: annotations.readOnlyHint,
  destructive: annotations.destructiveHint,
  idempotent: annotations.idempotentHint,
  openWorld: annotations.openWorldHint
})

// What we say comes first, and what is derived comes from what is left of both.
const hintsOf = (own: UpstreamTool, said: UpstreamTool): UpstreamTool => {
  const readOnly = own.readOnly ?? (own.destructive === true ? false : said.readOnly ?? false)
  return {
    readOnly,
    // The protocol gives the hint no meaning for a tool that only reads, and takes any other that is silent for destructive.
    destructive: own.destructive ?? (readOnly ? false : said.destructive ?? true),
    idempotent: own.idempotent ?? said.idempotent ?? false,
    openWorld: own.openWorld ?? said.openWorld ?? true
  }
}

/**
 * Puts the tools of another MCP server behind the pipeline, so that a server which is flaky, slow or dear gets a circuit,
 * timeouts, limits and a cache like a tool of our own.
 *
 * **Details**
 *
 * All tools of an upstream share one circuit, bulkhead and retry budget unless a policy names another `dependency`. The
 * circuit counts what speaks against the upstream (no answer, 5xx, 429, an internal error) and not what speaks against
 * the request; a result with `isError` is an answer, which is not cached. Nothing of our caller's credentials goes to the
 * upstream.
 *
 * **Gotchas**
 *
 * The list is read once. Ask again for tools that have come later.
 *
 * The namespace must be this upstream's alone in a program, and no toolkit's: the cache, limits and circuits go by
 * `namespace:name`, so that two upstreams of one namespace are given each other's answers.
 *
 * **Example** (Guarding an upstream)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { McpClient } from "effect/ai"
 * import { McpOps } from "effect-toolops/ai"
 *
 * // Needs a ToolPipeline, and an McpClient that is connected.
 * const search = Effect.gen(function*() {
 *   const upstream = yield* McpOps.client(yield* McpClient.McpClient, {
 *     namespace: "github",
 *     tools: { search: { readOnly: true, policy: { ttl: "1 minute" } } }
 *   })
 *   return yield* upstream.callTool("search", { query: "effect" })
 * })
 * ```
 *
 * @category client
 * @since 0.1.0
 */
export const client = (
  upstream: McpClient.McpClient,
  options: ClientOptions
): Effect.Effect<Upstream, McpClientError, ToolPipeline> => {
  const where = "McpOps.client"
  Check.known(where, options, ["namespace", "trustAnnotations", "tools", "policy"])
  const { namespace, policy = {}, tools: known = {}, trustAnnotations = false } = options
  if (!namePart.test(namespace)) {
    throw new TypeError(`${where}: namespace must be 1 to 128 of the characters A-Z a-z 0-9 _ - .`)
  }
  const metaOf = (descriptor: McpSchema.Tool): ToolMeta.ToolMeta => {
    const own = Object.hasOwn(known, descriptor.name) ? known[descriptor.name]! : {}
    return ToolMeta.make<any, ToolMeta.Varies>({
      ...own,
      ...hintsOf(own, trustAnnotations ? annotationsOf(descriptor) : {}),
      namespace,
      name: descriptor.name,
      description: descriptor.description,
      // The schema is the upstream's and no codec, so a change of it has to show in another way.
      version: JSON.stringify(descriptor.inputSchema),
      success: McpSchema.CallToolResult,
      policy: withDefaults(namespace, { ...policy, ...own.policy })
    })
  }
  return Effect.gen(function*() {
    const pipeline = yield* ToolPipeline
    const tools: Array<Upstream["tools"][number]> = []
    const leftOut: Array<string> = []
    type Guarded = (
      args: Readonly<Record<string, unknown>>,
      options?: ToolCall.CallOptions
    ) => Effect.Effect<McpSchema.CallToolResult, McpClientError | PipelineError>
    const calls = new Map<string, Guarded>()
    for (const descriptor of yield* upstream.listTools()) {
      if (!namePart.test(descriptor.name) || calls.has(descriptor.name)) {
        leftOut.push(descriptor.name)
        continue
      }
      const meta = metaOf(descriptor)
      calls.set(
        descriptor.name,
        pipeline.wrap(
          meta,
          (args: Readonly<Record<string, unknown>>) => upstream.callTool({ tool: descriptor, arguments: args })
        )
      )
      tools.push({ descriptor, meta })
    }
    return {
      tools,
      leftOut,
      unknown: Object.keys(known).filter((name) => !calls.has(name)),
      callTool: (name, args = {}, options) =>
        calls.get(name)?.(args, options) ?? Effect.fail(
          new McpClientError({
            reason: new ConfigurationError({ description: `There is no tool ${namespace}:${name} upstream` })
          })
        )
    }
  })
}
