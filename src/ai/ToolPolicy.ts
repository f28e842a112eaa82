/**
 * Says what a tool of `effect/ai` is to the pipeline.
 *
 * Its name, schemas and annotations (`Tool.Readonly`, `Tool.Destructive`, `Tool.Idempotent`, `Tool.OpenWorld`) say most
 * of it; the `ToolPolicy` annotation says the rest.
 *
 * @since 0.1.0
 */
import * as Tool from "effect/ai/Tool"
import * as Context from "effect/Context"
import * as Schema from "effect/Schema"
import * as ToolMeta from "../ToolMeta.ts"

/**
 * What a tool's annotations of `effect/ai` cannot say. See `ToolMeta.Options` for the members.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy = Pick<
  ToolMeta.Options<any, ToolMeta.Varies>,
  "version" | "category" | "tags" | "scopes" | "varies" | "policy"
>

/**
 * The annotation that carries a tool's policy.
 *
 * **Example** (Annotating a tool)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Tool } from "effect/ai"
 * import { ToolPolicy } from "effect-toolops/ai"
 *
 * const Search = Tool.make("docs_search", { parameters: Schema.Struct({ query: Schema.String }), success: Schema.String })
 *   .annotate(Tool.Readonly, true)
 *   .annotate(ToolPolicy.ToolPolicy, { varies: "everyone", policy: { ttl: "1 minute" } })
 *
 * ToolPolicy.metaOf(Search).id // => "docs:search"
 * ```
 *
 * @category annotations
 * @since 0.1.0
 */
export const ToolPolicy: Context.Reference<Policy> = Context.Reference<Policy>(
  "effect-toolops/ai/ToolPolicy",
  { defaultValue: () => ({}) }
)

/**
 * How tools are named in the pipeline.
 *
 * - `namespace`: the namespace of every tool; a tool's name loses it where it begins with it (`docs_search` and
 *   `docs.search` are `docs:search`). `false` for none. By default what stands before the first `_` or `.` of a name.
 *   What comes out must be one tool's alone in a program, because the cache, limits and circuits go by it.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly namespace?: string | false | undefined
}

const nameOf = (name: string, namespace: Options["namespace"]): Pick<ToolMeta.Options, "namespace" | "name"> => {
  if (namespace === false) return { name }
  if (namespace !== undefined) {
    const rest = name.slice(namespace.length)
    return { namespace, name: name.startsWith(namespace) && /^[_.]./.test(rest) ? rest.slice(1) : name }
  }
  const parts = /^([^_.]+)[_.](.+)$/.exec(name)
  return parts === null ? { name } : { namespace: parts[1], name: parts[2] }
}

/**
 * Describes a tool to the pipeline, from its name, its schemas and its annotations.
 *
 * **Gotchas**
 *
 * An unannotated tool counts as destructive and not idempotent, so it is neither cached nor retried. Annotations that
 * contradict each other throw, as with `ToolMeta.make`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const metaOf = (tool: Tool.Any, options?: Options): ToolMeta.ToolMeta => {
  const { annotations } = tool
  const readOnly = Context.get(annotations, Tool.Readonly)
  // MCP's default for `destructive` is true, which a read-only tool overrules unless it says so itself.
  const isDestructiveSaid = annotations.mapUnsafe.has(Tool.Destructive.key)
  return ToolMeta.make<any, ToolMeta.Varies>({
    ...Context.get(annotations, ToolPolicy),
    ...nameOf(tool.name, options?.namespace),
    description: Tool.getDescription(tool),
    readOnly,
    destructive: readOnly && !isDestructiveSaid ? false : Context.get(annotations, Tool.Destructive),
    idempotent: Context.get(annotations, Tool.Idempotent),
    openWorld: Context.get(annotations, Tool.OpenWorld),
    input: codecOf(tool.parametersSchema),
    success: codecOf(tool.successSchema),
    failure: codecOf(tool.failureSchema)
  })
}

const shared = new WeakMap<Tool.Any, Map<Options["namespace"], ToolMeta.ToolMeta>>()

/** @internal The one `ToolMeta` of a tool, for parts that must mean the same: stages prepare their work per `ToolMeta`. */
export const sharedMetaOf = (tool: Tool.Any, options?: Options): ToolMeta.ToolMeta => {
  let metas = shared.get(tool)
  if (metas === undefined) shared.set(tool, metas = new Map())
  let meta = metas.get(options?.namespace)
  if (meta === undefined) metas.set(options?.namespace, meta = metaOf(tool, options))
  return meta
}

// A schema whose codec needs services cannot be used by the cache, which then treats the call as not cacheable. A raw
// JSON Schema is no codec at all.
const codecOf = (schema: unknown): Schema.Codec<any, any> | undefined =>
  Schema.isSchema(schema) ? schema as Schema.Codec<any, any> : undefined
