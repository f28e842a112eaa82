import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Effect, Layer, Redacted, Schema } from "effect"
import { McpOps, ToolkitOps } from "effect-toolops/ai"
import { Authenticator, AuthError, AuthMiddleware, Authorizer, Identity } from "effect-toolops/auth"
import { McpProtocol, McpServer, McpTest, Tool, Toolkit } from "effect/ai"
import { pipeline, rpc, serve } from "./mcp.ts"

const Who = Tool.make("who", { success: Schema.String }).annotate(Tool.Readonly, true)
const What = Tool.make("what", { success: Schema.String }).annotate(Tool.Readonly, true)
const Tools = ToolkitOps.guard(Toolkit.make(Who, What))
const handlers = ToolkitOps.layer(Tools, {
  who: () => Effect.map(Identity.CurrentIdentity, ({ principal }) => principal),
  what: () => Effect.succeed("what")
})

const lets = (identify: (user: string) => Identity.Identity | undefined) =>
  Layer.succeed(
    Authenticator.Authenticator,
    Authenticator.make({
      authenticate: (headers) =>
        Effect.suspend(() => {
          const identity = identify(String(headers["x-user"]))
          return identity === undefined
            ? Effect.fail(AuthError.refused("InvalidCredentials"))
            : Effect.succeedSome(identity)
        })
    })
  )

/** A server whose lists and whose pipeline ask the authenticators given for them. */
const registered = (options: {
  readonly listing: Layer.Layer<Authenticator.Authenticator>
  readonly calling?: Layer.Layer<Authenticator.Authenticator>
  readonly authorizer?: Layer.Layer<Authorizer.Authorizer>
  readonly stdio?: McpOps.Middleware
}) => {
  const { authorizer = Authorizer.layerAllowAll, calling = options.listing, listing } = options
  const edge = McpOps.headers.combine(McpOps.visibility(Tools))
  return McpServer.toolkit(Tools).pipe(
    Layer.provide((options.stdio === undefined ? edge : edge.combine(options.stdio)).layer),
    Layer.provide(handlers),
    Layer.provide(pipeline({ auth: AuthMiddleware.layer.pipe(Layer.provide([calling, authorizer])) })),
    Layer.provide([listing, authorizer])
  )
}

describe("who calls behind McpOps.visibility", () => {
  it.live("is found out once for a call", () =>
    Effect.gen(function*() {
      let asked = 0
      const listing = lets((principal) => {
        asked += 1
        return Identity.make({ principal })
      })
      const ada = yield* rpc(yield* serve(registered({ listing })), "2026-07-28", { "x-user": "ada" })
      assert.include((yield* ada("tools/call", { name: "who", arguments: {} })).body, `"text":"\\"ada\\""`)
      assert.strictEqual(asked, 1)
    }))

  it.live("is who the pipeline's own authenticator says, where that is another", () =>
    Effect.gen(function*() {
      const url = yield* serve(registered({
        listing: lets((principal) => Identity.make({ principal })),
        calling: lets((user) => Identity.make({ principal: `${user} of the pipeline` }))
      }))
      const ada = yield* rpc(url, "2026-07-28", { "x-user": "ada" })
      assert.include((yield* ada("tools/call", { name: "who", arguments: {} })).body, "ada of the pipeline")
    }))

  it.effect("is found out for every request over stdio, whose headers outlast it", () =>
    Effect.gen(function*() {
      let isRevoked = false
      const listing = lets((principal) => isRevoked ? undefined : Identity.make({ principal }))
      const stdio = McpOps.stdio({ credentials: { "x-user": Redacted.make("ada") } })
      const client = yield* McpTest.makeClient(registered({ listing, stdio }), {
        protocols: [McpProtocol.v2026_07_28]
      })
      assert.strictEqual((yield* client.listTools()).tools.length, 2)
      isRevoked = true
      assert.include(yield* Effect.flip(client.listTools()), { code: McpOps.errorCodes.unauthenticated })
    }).pipe(Effect.scoped))

  it.live("is nobody any more once its time is up, also in the middle of a list", () =>
    Effect.gen(function*() {
      const real = yield* Clock.Clock
      let passed = 0
      const clock: Clock.Clock = {
        ...real,
        sleep: (duration) => real.sleep(duration),
        currentTimeNanosUnsafe: () => real.currentTimeNanosUnsafe(),
        monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
        currentTimeMillisUnsafe: () => real.currentTimeMillisUnsafe() + passed
      }
      const hour = 3_600_000
      const expiresAt = DateTime.makeUnsafe(real.currentTimeMillisUnsafe() + hour)
      const decided: Array<string> = []
      const url = yield* Effect.provideService(
        serve(registered({
          listing: lets((principal) => Identity.make({ principal, expiresAt })),
          authorizer: Authorizer.layer(({ tool }) => {
            decided.push(tool.name)
            passed = hour
            return true
          })
        })),
        Clock.Clock,
        clock
      )
      const ada = yield* rpc(url, "2026-07-28", { "x-user": "ada" })
      const { error } = JSON.parse((yield* ada("tools/list", {})).body)
      assert.include(error, { code: McpOps.errorCodes.unauthenticated })
      assert.include(error.data, { reason: "TokenExpired" })
      assert.lengthOf(decided, 1)
    }))
})
