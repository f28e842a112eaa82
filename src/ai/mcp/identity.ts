import type * as McpSchema from "effect/ai/McpSchema"
import * as McpServer from "effect/ai/McpServer"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { Authenticator } from "../../auth/Authenticator.ts"
import { CurrentIdentity, make as makeIdentity, type Options as IdentityOptions } from "../../auth/Identity.ts"
import * as Check from "../../internal/options.ts"
import { RequestHeaders } from "../../ToolCall.ts"
import { callerOf } from "./callers.ts"
import { toMcpError } from "./refusals.ts"
import { httpRequest, type Middleware } from "./request.ts"

/**
 * Authenticates every request before anything else happens, and provides `CurrentIdentity` to what runs.
 *
 * **When to use**
 *
 * Use it for servers whose resources and prompts need to know the caller too. Where only tools do, `headers` is enough:
 * the pipeline authenticates, and a refused call is counted and recorded like any other.
 *
 * **Details**
 *
 * A request that cannot be authenticated gets a JSON-RPC error (see `toMcpError`). For the pipeline the caller is then
 * known, so that its auth stage only authorizes. Whom `resourceServer` or `stdio` has put there already stays. Combine it
 * with `headers`: `McpOps.headers.combine(McpOps.authenticate)`.
 *
 * @category middleware
 * @since 0.1.0
 */
export const authenticate: McpServer.Middleware<{
  provides: CurrentIdentity
  error: McpSchema.McpErrorBase
  requires: never
  layerError: never
  layerRequires: Authenticator
}> = McpServer.middleware<{ provides: CurrentIdentity }>()(
  Effect.map(
    Authenticator,
    (authenticator) => (effect, options) =>
      Effect.matchEffect(callerOf(authenticator, options), {
        onFailure: (error) => Effect.fail(toMcpError(error)),
        onSuccess: (identity) => Effect.provideService(effect, CurrentIdentity, identity)
      })
  )
)

/**
 * Who speaks where there are no headers: one of the two.
 *
 * - `credentials`: headers, by name, for the pipeline to authenticate at every call, so that a key can expire and be
 *   revoked.
 * - `identity`: who it is, in so many words. Its `method` is `configuration` unless said otherwise.
 *
 * @category options
 * @since 0.1.0
 */
export interface StdioOptions {
  readonly credentials?: Readonly<Record<string, Redacted.Redacted<string>>> | undefined
  readonly identity?: IdentityOptions | undefined
}

/**
 * Takes the caller from configuration, for a server on standard input and output: whoever has started it speaks.
 *
 * **Details**
 *
 * A request that came over HTTP is left alone, whatever the server is configured with. Put it outside of what needs to
 * know the caller: `McpOps.headers.combine(McpOps.stdio({ identity: { principal: "ada", roles: ["reader"] } }))`.
 *
 * @category middleware
 * @since 0.1.0
 */
export const stdio = (options: StdioOptions): Middleware => {
  const around = check("McpOps.stdio", options)
  return McpServer.middleware((effect) => around(effect))
}

/**
 * The same with options from the program's configuration, for example an API key of the environment.
 *
 * **Example** (An API key of the environment)
 *
 * ```ts
 * import { Config } from "effect"
 * import { McpOps } from "effect-toolops/ai"
 *
 * const caller = McpOps.stdioConfig({ credentials: { "x-api-key": Config.Redacted("TOOLS_API_KEY") } })
 * ```
 *
 * @category middleware
 * @since 0.1.0
 */
export const stdioConfig = (options: Config.Wrap<StdioOptions>): McpServer.Middleware<{
  provides: never
  error: McpSchema.McpErrorBase
  requires: never
  layerError: Config.ConfigError
  layerRequires: never
}> =>
  McpServer.middleware(
    Effect.map(Config.unwrap(options), (value): McpServer.middleware.Fn<never, McpSchema.McpErrorBase, never> => {
      const around = check("McpOps.stdioConfig", value)
      return (effect) => around(effect)
    })
  )

const check = (
  where: string,
  options: StdioOptions
): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> => {
  Check.known(where, options, ["credentials", "identity"])
  const { credentials, identity } = options
  if ((credentials === undefined) === (identity === undefined)) {
    throw new TypeError(`${where}: exactly one of credentials and identity must be given`)
  }
  const headers = Object.fromEntries(
    Object.entries(credentials ?? {}).map(([name, value]) => [name, Redacted.value(value)])
  )
  const caller = identity === undefined ? undefined : makeIdentity({ method: "configuration", ...identity })
  return <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.withFiber((fiber): Effect.Effect<A, E, R> => {
      if (httpRequest(fiber.context) !== undefined) return self
      return caller === undefined
        ? Effect.provideService(self, RequestHeaders, headers)
        // Whoever needs a caller still says so, because over HTTP there is none.
        : Effect.provideService(self, CurrentIdentity, caller) as Effect.Effect<A, E, R>
    })
}
