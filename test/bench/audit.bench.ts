import { Effect, Exit, Layer, Scope } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { AuditLog, AuditRecord, Authenticator, AuthMiddleware, Authorizer, Identity } from "effect-toolops/auth"
import type { Case, Group, Settings } from "./harness.ts"

const echo = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })
const input = { query: "effect", limit: 10, filter: { lang: "en", tags: ["a", "b"] } }
const caller = Identity.make({ principal: "ada", tenant: "acme", roles: ["reader"] })

const scope = Effect.runSync(Scope.make())

/** The auth stage with the given log around a handler that answers at once, called by somebody who is known. */
const calls = async <E>(log: Layer.Layer<AuditLog.AuditLog, E> | Layer.Layer<never>, isAllowed = true) => {
  const context = await Effect.runPromise(
    Effect.provideService(
      Layer.build(AuthMiddleware.layer.pipe(
        Layer.provide([
          Authenticator.layerAnonymous,
          isAllowed ? Authorizer.layerAllowAll : Authorizer.layerDenyAll,
          log
        ])
      )),
      Scope.Scope,
      scope
    )
  )
  const pipeline = Effect.runSync(Effect.provideContext(ToolPipeline.make(AuthMiddleware.AuthMiddleware), context))
  const call = Effect.match(pipeline.wrap(echo, () => Effect.succeed(1))(input), {
    onFailure: () => 0,
    onSuccess: () => 1
  })
  return (n: number) =>
    Effect.runPromise(
      Effect.gen(function*() {
        let passed = 0
        for (let i = 0; i < n; i++) passed += yield* call
        return passed
      }).pipe(Effect.provideService(Identity.CurrentIdentity, caller))
    )
}

const granted = (result: unknown, n: number): void => {
  if (result !== n) throw new Error(`${String(result)} of ${n} calls were granted`)
}
const refused = (result: unknown): void => {
  if (result !== 0) throw new Error("calls were granted")
}

// Time of this process alone: what else runs on the machine must not count as a cost of the log.
const spent = (): number => {
  const { system, user } = process.cpuUsage()
  return system + user
}

/** Microseconds that a log adds to a call, taken in turns with calls without one. */
const added = (
  name: string,
  without: (n: number) => Promise<unknown>,
  run: (n: number) => Promise<unknown>,
  goal?: number
): Case => ({
  name,
  figure: true,
  ...goal === undefined ? {} : { goal },
  ops: 40_000,
  run: async (n) => {
    const differences: Array<number> = []
    const slices = Math.max(1, Math.floor(n / 2000))
    for (let i = 0; i < slices; i++) {
      const start = spent()
      await without(2000)
      const middle = spent()
      await run(2000)
      differences.push((spent() - middle - (middle - start)) / 2000)
    }
    return differences.toSorted((a, b) => a - b)[slices >> 1]
  }
})

const swallow = { write: () => Effect.void }

export default async (_settings: Settings): Promise<ReadonlyArray<Group>> => {
  let bytes = 0
  const without = await calls(Layer.empty)
  const memory = await calls(AuditLog.layerMemory({ maxRecords: 1000 }))
  const queue = await calls(AuditLog.layer(swallow))
  const queueWithoutInput = await calls(AuditLog.layer({ input: "none", ...swallow }))
  const lines = await calls(AuditLog.layer({
    write: (records) =>
      Effect.sync(() => {
        for (const record of records) bytes += AuditRecord.toLine(record).length
      })
  }))
  const denied = await calls(Layer.empty, false)
  const deniedAgain = await calls(AuditLog.layerMemory(), false)
  return [
    {
      name: "audit, best-effort",
      close: () => Effect.runPromise(Scope.close(scope, Exit.void)),
      cases: [
        { name: "no log", run: without, check: granted },
        { name: "a log in memory", run: memory, check: granted, baseline: "no log" },
        { name: "a sink", run: queue, check: granted, baseline: "no log" },
        { name: "a sink of JSON lines", run: lines, check: granted, baseline: "no log" },
        { name: "refusal, no log", run: denied, check: refused },
        { name: "refusal again and again", run: deniedAgain, check: refused, baseline: "refusal, no log" },
        added("us added, layerNone", without, await calls(AuditLog.layerNone), 0.1),
        added("us added, memory", without, memory, 2),
        added("us added, a sink", without, queue, 2),
        added("us added, a sink, no input", without, queueWithoutInput, 2),
        added("us added, a sink of JSON lines", without, lines)
      ]
    }
  ]
}
