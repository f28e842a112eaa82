/**
 * Who did what: every call as one record, without what was in it but for the fields that are named.
 *
 * Run it: node -C @effect-toolops/source examples/audit.ts
 */
import { Effect, Layer, Redacted } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ApiKey, AuditFormat, AuditLog, AuthMiddleware, Rbac } from "effect-toolops/auth"

const search = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })
const salaries = ToolMeta.make({ namespace: "hr", name: "salaries" })

const key = Redacted.make("no key but an example")

// `layerAudited` does not compile without a log.
const Auth = AuthMiddleware.layerAudited.pipe(
  Layer.provide([
    ApiKey.layer().pipe(Layer.provide(
      ApiKey.layerMemory({ keys: [{ id: "ada-1", key, principal: "ada", tenant: "acme", roles: ["reader"] }] })
    )),
    Rbac.layer({ roles: { reader: { allowedTools: ["docs:*"], allowedActions: ["call"] } } })
  ])
)

const calls = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
  const headers = { "x-api-key": Redacted.value(key) }
  yield* pipeline.run({ tool: search, input: { query: "effect", token: "a secret" }, headers }, Effect.succeed("found"))
  // Told in full once; the others are counted.
  for (let i = 0; i < 1000; i++) {
    yield* Effect.ignore(pipeline.run({ tool: salaries, input: { of: "bob" }, headers }, Effect.succeed("much")))
  }
})

// In memory, to look at.
const inMemory = Effect.gen(function*() {
  yield* calls
  const { records } = yield* AuditLog.AuditMemory
  const { repeated } = yield* Effect.flatMap(AuditLog.AuditLog, (log) => log.stats)
  for (const { caller, decision, input, outcome, tool } of yield* records) {
    console.log(`${caller?.principal} of ${caller?.tenant}: ${tool.id} ${outcome} (${decision?.rule})`)
    console.log(
      "  of its input:",
      JSON.stringify(input?.fields ?? {}),
      `and a digest of ${input?.digest?.length} digits`
    )
  }
  console.log(`${repeated} more refusals are told as a count`)
})
const Memory = AuditLog.layerMemory({ fields: { "docs:*": ["query"] } })
await Effect.runPromise(Effect.provide(inMemory, Layer.provideMerge(Auth, Memory)))

// In the words of a SIEM, to a sink of your own. Closing it writes what is left.
const Cef = AuditLog.layer({
  write: (records) =>
    Effect.sync(() => records.forEach((record) => console.log(AuditFormat.toCef(record).slice(0, 60))))
})
await Effect.runPromise(Effect.provide(calls, Layer.provide(Auth, Cef)))

// A call that cannot be recorded does not run.
const Full = AuditLog.layer({ mode: "required", write: () => Effect.fail("the disk is full") })
const refused = Effect.catchReason(
  calls,
  "AuthError",
  "AuthUnavailable",
  () => Effect.sync(() => console.log("refused: it cannot be recorded"))
)
await Effect.runPromise(Effect.provide(refused, Layer.provide(Auth, Full)))
