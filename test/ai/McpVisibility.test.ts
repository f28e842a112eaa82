import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Effect, Exit, Fiber, Latch, Layer, Logger, Ref, Schema } from "effect"
import type { ToolCall } from "effect-toolops"
import { McpOps, ToolkitOps, ToolPolicy } from "effect-toolops/ai"
import { Authenticator, AuthError, AuthMiddleware, Authorizer, Identity, Rbac } from "effect-toolops/auth"
import { ObserveMiddleware } from "effect-toolops/observe"
import { McpProtocol, McpServer, McpTest, Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import { call, connect, pipeline, rpc, serve } from "./mcp.ts"

const Text = Schema.Struct({ text: Schema.String })
const Search = Tool.make("docs_search", { parameters: Text, success: Text }).annotate(Tool.Readonly, true)
const Purge = Tool.make("admin_purge", { parameters: Text, success: Text })
const Read = Tool.make("docs_read", { parameters: Text, success: Text }).annotate(Tool.Readonly, true)
const Add = Tool.make("notes_add", { parameters: Text, success: Text })
const Export = Tool.make("docs_export", { parameters: Text, success: Text })
  .annotate(ToolPolicy.ToolPolicy, { scopes: ["docs:export"] })

const Tools = ToolkitOps.guard(Toolkit.make(Search, Purge, Read, Add, Export))
const names = Object.keys(Tools.tools)

const ran: Array<string> = []
const work = (name: string) => ({ text }: { readonly text: string }) =>
  Effect.sync(() => {
    ran.push(name)
    return { text }
  })
const handlers = ToolkitOps.layer(Tools, {
  docs_search: work("docs_search"),
  admin_purge: work("admin_purge"),
  docs_read: work("docs_read"),
  notes_add: work("notes_add"),
  docs_export: work("docs_export")
})

const rules = Rbac.make({
  roles: {
    reader: { allowedTools: ["docs:*"], allowedActions: ["call"] },
    writer: { inherits: ["reader"], allowedTools: ["notes:add"], allowedActions: ["call"] },
    lister: { allowedTools: ["docs:*"], allowedActions: ["list"] },
    admin: { allowedTools: ["*"], allowedActions: ["*"] },
    careful: { inherits: ["admin"], deniedTools: ["admin:purge"] }
  }
})

/** Takes `x-user: name;role,role;scope` for the caller, and counts how often it is asked. */
const users = (asked = { times: 0 }) =>
  Layer.succeed(
    Authenticator.Authenticator,
    Authenticator.make({
      authenticate: (headers) =>
        Effect.suspend(() => {
          asked.times += 1
          const user = headers["x-user"]
          if (typeof user !== "string") return Effect.succeedNone
          const [principal = "", roles = "", scopes = ""] = user.split(";")
          if (principal === "late") {
            return Effect.succeedSome(
              Identity.make({ principal, roles: ["admin"], expiresAt: DateTime.makeUnsafe(1_000) })
            )
          }
          if (principal === "down") return Effect.fail(AuthError.refused("AuthUnavailable"))
          return principal === "mallory"
            ? Effect.fail(AuthError.refused("InvalidCredentials"))
            : Effect.succeedSome(Identity.make({ principal, roles: roles.split(","), scopes: scopes.split(",") }))
        })
    })
  )

type Record = readonly [tool: string, principal: string | undefined, reason: string]

/** An observe stage that writes down what became of each call. */
const recording = (records: Array<Record>, around = <A, E, R>(self: Effect.Effect<A, E, R>) => self) =>
  Layer.succeed(ObserveMiddleware.ObserveMiddleware, {
    name: "observe",
    forTool: () => <A, E, R>(call: ToolCall.ToolCall, next: Effect.Effect<A, E, R>) =>
      around(Effect.onExit(next, (exit) =>
        Effect.sync(() => {
          const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          const reason = error === undefined
            ? "ok"
            : error instanceof AuthError.AuthError
            ? error.reason._tag
            : "other"
          records.push([call.tool.id, call.record.identity?.principal, reason])
        })))
  })

const start = (options: {
  readonly visibility?: McpOps.VisibilityOptions
  readonly authorizer?: Authorizer.Service
  readonly asked?: { times: number }
  readonly observe?: typeof ObserveMiddleware.layerPassthrough
} = {}) => {
  const auth = Layer.mergeAll(users(options.asked), Layer.succeed(Authorizer.Authorizer, options.authorizer ?? rules))
  return serve(
    McpServer.toolkit(Tools).pipe(
      Layer.provide(McpOps.headers.combine(McpOps.visibility(Tools, options.visibility)).layer),
      Layer.provide(handlers),
      Layer.provide(pipeline({
        auth: AuthMiddleware.layer.pipe(Layer.provide(auth)),
        ...(options.observe === undefined ? {} : { observe: options.observe })
      })),
      Layer.provide(auth)
    )
  )
}

const listOf = (url: string, user: string) =>
  Effect.gen(function*() {
    const client = yield* connect(url, { "x-user": user })
    const { tools } = yield* Effect.promise(() => client.listTools())
    return tools.map((tool) => tool.name)
  })

const callers = [
  ["ada;reader", ["docs_search", "docs_read"]],
  ["ada;reader;docs:export", ["docs_search", "docs_read", "docs_export"]],
  ["walt;writer", ["docs_search", "docs_read", "notes_add"]],
  ["root;admin;docs:export", names],
  ["cara;careful;docs:export", names.filter((name) => name !== "admin_purge")],
  ["lisa;lister;docs:export", []],
  ["noel", []]
] as const

describe("McpOps.visibility", () => {
  for (const [user, expected] of callers) {
    it.live(`lists for ${user} exactly the tools whose calls pass`, () =>
      Effect.gen(function*() {
        const url = yield* start()
        const listed = yield* listOf(url, user)
        assert.deepStrictEqual(listed, expected)
        const client = yield* connect(url, { "x-user": user })
        const passing = yield* Effect.filter(names, (name) =>
          Effect.map(Effect.exit(call(client, name, { text: "x" })), (exit) =>
            Exit.isSuccess(exit) && !exit.value.isError))
        assert.deepStrictEqual(passing, listed)
      }))
  }

  for (const revision of ["2026-07-28", "2025-11-25"] as const) {
    for (const user of ["ada;reader", "noel", "mallory", "late", undefined]) {
      it.live(`answers ${user ?? "nobody"} in ${revision} alike whether a tool is hidden or absent`, () =>
        Effect.gen(function*() {
          const url = yield* start()
          const speak = yield* rpc(url, revision, user === undefined ? {} : { "x-user": user })
          ran.length = 0
          for (const input of [{ text: "x" }, { text: 7 }, {}, undefined]) {
            const hidden = yield* speak("tools/call", { name: "admin_purge", arguments: input })
            const absent = yield* speak("tools/call", { name: "admin_purgf", arguments: input })
            assert.include(hidden.body, "admin_purge")
            assert.deepStrictEqual(
              { ...hidden, body: hidden.body.replaceAll("admin_purge", "admin_purgf") },
              absent
            )
            assert.include(JSON.parse(hidden.body).error, { code: -32_602 })
          }
          assert.deepStrictEqual(ran, [])
        }))
    }
  }

  it.live("records the call of a hidden tool, and does not keep its caller waiting for that", () => {
    const records: Array<Record> = []
    return Effect.gen(function*() {
      const gate = yield* Latch.make(false)
      const url = yield* start({ observe: recording(records, (self) => Effect.andThen(gate.await, self)) })
      const speak = yield* rpc(url, "2026-07-28", { "x-user": "ada;reader" })
      const answer = yield* speak("tools/call", { name: "admin_purge", arguments: { text: "x" } })
      assert.include(answer.body, "not found")
      yield* speak("tools/call", { name: "no_such_tool", arguments: { text: "x" } })
      assert.deepStrictEqual(records, [])
      yield* gate.open
      while (records.length === 0) yield* Effect.sleep("1 millis")
      assert.deepStrictEqual(records, [["admin:purge", "ada", "Forbidden"]])
    })
  })

  it.effect("keeps callers waiting for their records once a thousand are being written", () => {
    const records: Array<Record> = []
    return Effect.gen(function*() {
      const gate = yield* Latch.make(false)
      const auth = Layer.mergeAll(Authenticator.layerAnonymous, Layer.succeed(Authorizer.Authorizer, rules))
      const client = yield* McpTest.makeClient(
        McpServer.toolkit(Tools).pipe(
          Layer.provide(McpOps.headers.combine(McpOps.visibility(Tools)).layer),
          Layer.provide(handlers),
          Layer.provide(pipeline({
            auth: AuthMiddleware.layer.pipe(Layer.provide(auth)),
            observe: recording(records, (self) => Effect.andThen(gate.await, self))
          })),
          Layer.provide(auth)
        ),
        { protocols: [McpProtocol.v2026_07_28] }
      )
      const ask = Effect.flip(client.callTool({ name: "admin_purge", arguments: { text: "x" } }))
      // All are answered, though no record is written.
      for (let i = 0; i < 1_000; i++) yield* ask
      const waiting = yield* Effect.forkChild(ask, { startImmediately: true })
      for (let i = 0; i < 100; i++) yield* Effect.yieldNow
      assert.isUndefined(waiting.pollUnsafe())
      assert.deepStrictEqual(records, [])
      yield* gate.open
      yield* Fiber.join(waiting)
      while (records.length < 1_001) yield* Effect.yieldNow
      yield* ask
    }).pipe(Effect.scoped)
  })

  it.effect("believes nobody whose time is up, also whom an edge has made known", () =>
    Effect.gen(function*() {
      const auth = Layer.mergeAll(Authenticator.layerAnonymous, Authorizer.layerAllowAll)
      const identity = { principal: "ada", expiresAt: DateTime.makeUnsafe(1_000) }
      const client = yield* McpTest.makeClient(
        McpServer.toolkit(Tools).pipe(
          Layer.provide(McpOps.headers.combine(McpOps.visibility(Tools)).combine(McpOps.stdio({ identity })).layer),
          Layer.provide(handlers),
          Layer.provide(pipeline({ auth: AuthMiddleware.layer.pipe(Layer.provide(auth)) })),
          Layer.provide(auth)
        ),
        { protocols: [McpProtocol.v2026_07_28] }
      )
      assert.isAbove((yield* client.listTools()).tools.length, 0)
      yield* TestClock.adjust("1 second")
      assert.include(yield* Effect.flip(client.listTools()), { code: -32_010 })
    }).pipe(Effect.scoped))

  it.live("records a list of nothing, because nobody was refused a call", () => {
    const records: Array<Record> = []
    return Effect.gen(function*() {
      const url = yield* start({ observe: recording(records) })
      yield* listOf(url, "noel")
      assert.deepStrictEqual(records, [])
    })
  })

  it.live("asks once who lists, and tells who is nobody", () => {
    const asked = { times: 0 }
    return Effect.gen(function*() {
      const url = yield* start({ asked })
      const speak = yield* rpc(url, "2026-07-28", { "x-user": "ada;reader" })
      asked.times = 0
      yield* speak("tools/list", {})
      assert.strictEqual(asked.times, 1)
      for (const [user, code] of [["mallory", -32_010], ["late", -32_010], ["down", -32_013]] as const) {
        const bad = yield* rpc(url, "2026-07-28", { "x-user": user })
        assert.include(JSON.parse((yield* bad("tools/list", {})).body).error, { code })
      }
    })
  })

  it.live("lets the pipeline refuse a call that nobody can decide about, and runs nothing", () =>
    Effect.gen(function*() {
      const url = yield* start()
      ran.length = 0
      const answer = yield* call(yield* connect(url, { "x-user": "down" }), "docs_read", { text: "x" })
      assert.isTrue(answer.isError)
      assert.include(JSON.parse(answer.text), { reason: "AuthUnavailable", retryable: true })
      assert.deepStrictEqual(ran, [])
    }))

  it.live("follows a policy that is exchanged", () =>
    Effect.gen(function*() {
      const policy = yield* Ref.make(rules)
      const url = yield* start({ authorizer: Authorizer.fromRef(policy) })
      assert.deepStrictEqual(yield* listOf(url, "ada;reader"), ["docs_search", "docs_read"])
      yield* Ref.set(policy, Authorizer.make(({ tool }) => tool.id === "notes:add"))
      assert.deepStrictEqual(yield* listOf(url, "ada;reader"), ["notes_add"])
    }))

  for (const revision of ["2026-07-28", "2025-11-25"] as const) {
    it.live(`decides on the arguments of a call, and lists what dies without them for nobody, in ${revision}`, () => {
      const logged: Array<string> = []
      const watching = Logger.make(({ message }) => logged.push(String(message)))
      const inputs: Array<unknown> = []
      const authorizer = Authorizer.make(({ input, tool }) => {
        if (tool.id === "notes:add") return true
        if (tool.id !== "docs:read") return false
        inputs.push(input)
        return (input as typeof Text.Type).text.startsWith("mine")
      })
      return Effect.gen(function*() {
        const url = yield* start({ authorizer })
        const speak = yield* rpc(url, revision, { "x-user": "ada" })
        ran.length = 0
        for (let i = 0; i < 2; i++) {
          const { body } = yield* speak("tools/list", {})
          const listed = JSON.parse(body).result.tools.map((tool: { readonly name: string }) => tool.name)
          assert.deepStrictEqual(listed, ["notes_add"])
        }
        assert.strictEqual(logged.filter((line) => line.includes("left out of lists")).length, 1)
        inputs.length = 0
        const own = yield* speak("tools/call", { name: "docs_read", arguments: { text: "mine", more: 1 } })
        assert.deepStrictEqual(JSON.parse(own.body).result.structuredContent, { text: "mine" })
        // As the pipeline sees them, both times.
        assert.deepStrictEqual(inputs, [{ text: "mine" }, { text: "mine" }])
        assert.deepStrictEqual(ran, ["docs_read"])
        // Neither another's, nor arguments that the policy dies of.
        for (const input of [{ text: "yours" }, { text: 7 }, {}, undefined]) {
          const hidden = yield* speak("tools/call", { name: "docs_read", arguments: input })
          const absent = yield* speak("tools/call", { name: "docs_reax", arguments: input })
          assert.deepStrictEqual({ ...hidden, body: hidden.body.replaceAll("docs_read", "docs_reax") }, absent)
        }
        assert.deepStrictEqual(ran, ["docs_read"])
      }).pipe(Effect.provide(Logger.layer([watching])))
    })
  }

  it.live("shows a tool for which nothing but scopes are missing, where asked to", () =>
    Effect.gen(function*() {
      const url = yield* start({ visibility: { missingScopes: "show" } })
      assert.deepStrictEqual(yield* listOf(url, "ada;reader"), ["docs_search", "docs_read", "docs_export"])
      assert.deepStrictEqual(yield* listOf(url, "noel"), [])
      const answer = yield* call(yield* connect(url, { "x-user": "ada;reader" }), "docs_export", { text: "x" })
      assert.deepStrictEqual(JSON.parse(answer.text).requiredScopes, ["docs:export"])
    }))

  it.live("keeps the lists of callers apart that ask at the same time", () =>
    Effect.gen(function*() {
      const url = yield* start()
      const lists = yield* Effect.forEach(
        Array.from({ length: 70 }, (_, index) => callers[index % callers.length]!),
        ([user, expected]) => Effect.map(listOf(url, user), (listed) => [listed, expected] as const),
        { concurrency: 10 }
      )
      for (const [listed, expected] of lists) assert.deepStrictEqual(listed, expected)
    }))

  it.live("tells nobody that there is a tool by a header that does not match, where both stand around the server", () =>
    Effect.gen(function*() {
      const auth = Layer.mergeAll(users(), Layer.succeed(Authorizer.Authorizer, rules))
      const both = McpOps.headers.combine(McpOps.visibility(Tools))
      const url = yield* serve(
        Layer.merge(McpServer.toolkit(Tools), both.layerGlobal).pipe(
          Layer.provide(handlers),
          Layer.provide(pipeline({ auth: AuthMiddleware.layer.pipe(Layer.provide(auth)) })),
          Layer.provide(auth)
        )
      )
      const speak = yield* rpc(url, "2025-11-25", { "x-user": "ada;reader" })
      const ask = (name: string) => speak("tools/call", { name, arguments: { text: "x" } }, { "mcp-name": "other" })
      const hidden = yield* ask("admin_purge")
      assert.deepStrictEqual({ ...hidden, body: hidden.body.replaceAll("purge", "purgf") }, yield* ask("admin_purgf"))
      assert.include(JSON.parse((yield* ask("docs_read")).body).error, { code: -32_020 })
    }))

  it("takes only options that it knows", () => {
    assert.throws(() => McpOps.visibility(Tools, { missingScopes: "maybe" as never }), /missingScopes must be one of/)
    assert.throws(() => McpOps.visibility(Tools, { scopes: "show" } as never), /unknown option "scopes"/)
  })
})
