import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, Effect, Fiber, Layer, Logger, Option } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import {
  AuditError,
  AuditLog,
  type AuditRecord,
  Authenticator,
  AuthError,
  AuthMiddleware,
  Authorizer,
  Identity
} from "effect-toolops/auth"
import { RateLimit, RateLimitMiddleware, RateLimitStore } from "effect-toolops/limit"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import { audited, dear, pipelineWith, read, secret, told, write } from "./audited.ts"

const found = Effect.succeed("found")
const quiet = Logger.layer([])

const times = <A, E>(n: number, effect: Effect.Effect<A, E>) =>
  Effect.forEach(Array.from({ length: n }), () => Effect.exit(effect), { discard: true })

/** A stage whose caller is whom the input names, or nobody, and who may do nothing. */
const refusing = (options?: AuditLog.MemoryOptions) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(
      AuthMiddleware.layer.pipe(
        Layer.provide([
          Layer.succeed(
            Authenticator.Authenticator,
            Authenticator.make({ authenticate: () => Effect.succeed(Option.none()) })
          ),
          Authorizer.layer(({ tool }) =>
            tool.name === "broken"
              ? Effect.fail(new AuthError.AuthError({ reason: new AuthError.AuthUnavailable() }))
              : false
          )
        ]),
        Layer.provideMerge(AuditLog.layerMemory(options))
      )
    )
    const pipeline = yield* Effect.provideContext(ToolPipeline.make(AuthMiddleware.AuthMiddleware), context)
    const { records } = Context.get(context, AuditLog.AuditMemory)
    const refuse = (who: Identity.Options | undefined, how?: { peer?: string; tool?: string; action?: string }) =>
      Effect.exit(pipeline.run({ tool: ToolMeta.make({ name: how?.tool ?? "t" }), action: how?.action }, found)).pipe(
        Effect.provideService(RateLimit.CurrentPeer, how?.peer),
        (call) => who === undefined ? call : Effect.provideService(call, Identity.CurrentIdentity, Identity.make(who))
      )
    return { records, refuse }
  })

const sum = (records: ReadonlyArray<AuditRecord.AuditRecord>) =>
  records.reduce((total, record) => total + (record.count ?? 1), 0)

describe("repeats of a refusal", () => {
  it.effect("are told in full once, then as a count per interval, until they stop", () =>
    Effect.gen(function*() {
      const { log, records, run } = yield* audited()
      yield* times(10_000, run(secret, found))
      assert.deepStrictEqual(told(yield* records), ["call denied"])
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual((yield* records).length, 1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(told(yield* records), ["call denied", "repeats denied 9999"])
      const [first, count] = yield* records
      assert.deepStrictEqual(
        [count?.caller, count?.tool, count?.decision, count?.errorType],
        [first?.caller, first?.tool, first?.decision, "Forbidden"]
      )
      assert.strictEqual((yield* log.stats).repeated, 9999)

      // Goes on, then stops for an interval, then begins anew.
      yield* times(5, run(secret, found))
      const again = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(told(yield* records).slice(2), ["repeats denied 5"])
      assert.strictEqual((yield* records).at(-1)?.time, again)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* records).length, 3)
      yield* times(2, run(secret, found))
      assert.deepStrictEqual(told(yield* records).slice(3), ["call denied"])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(sum(yield* records), 10_007)
    }))

  it.effect("do not hide the answers, failures or interruptions of the same caller", () =>
    Effect.gen(function*() {
      const { records, run } = yield* audited()
      yield* times(3, run(secret, found))
      yield* times(3, run(write, found))
      yield* times(3, run(write, Effect.fail("x")))
      yield* times(3, run(write, Effect.interrupt))
      assert.strictEqual((yield* records).length, 10)
    }))

  it.effect("are those of one caller, one tool, one action and one reason", () =>
    Effect.gen(function*() {
      const { records, refuse } = yield* refusing()
      const alice = { principal: "alice", tenant: "acme" }
      const different = [
        refuse(alice),
        refuse({ principal: "alice" }),
        refuse({ principal: "alice", tenant: "other" }),
        refuse({ principal: "Alice", tenant: "acme" }),
        refuse({ principal: "alice ", tenant: "acme" }),
        refuse({ ...alice, method: "jwt" }),
        // Put together without their lengths these would be the same.
        refuse({ principal: "b:c", tenant: "a" }),
        refuse({ principal: "c", tenant: "a:b" }),
        refuse({ principal: "11:x", tenant: "" }),
        refuse(alice, { tool: "u" }),
        refuse(alice, { tool: "broken" }),
        refuse(alice, { action: "list" }),
        refuse(alice, { tool: "t", action: "ul" }),
        refuse(alice, { tool: "tu", action: "l" }),
        // The same person with another credential, from elsewhere, or vouched for by somebody else.
        refuse({ ...alice, claims: { keyId: "laptop" } }),
        refuse({ ...alice, claims: { keyId: "stolen" } }),
        refuse(alice, { peer: "10.0.0.1" }),
        refuse(alice, { peer: "10.0.0.2" }),
        refuse({ ...alice, issuer: "https://a.example" }),
        refuse({ ...alice, issuer: "https://b.example" }),
        refuse(undefined),
        refuse(undefined, { peer: "10.0.0.1" }),
        refuse(undefined, { peer: "10.0.0.2" }),
        refuse({ principal: "anonymous", method: "anonymous" }, { peer: "10.0.0.1" }),
        refuse({ principal: "anonymous", method: "anonymous" }, { peer: "10.0.0.2" })
      ]
      for (const one of different) {
        const before = (yield* records).length
        yield* one
        yield* one
        assert.strictEqual((yield* records).length, before + 1)
      }
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(sum(yield* records), 2 * different.length)
      const who = (kind: string, all: ReadonlyArray<AuditRecord.AuditRecord>) =>
        all.filter((record) => record.kind === kind).map(({ caller, peer, tool }) =>
          JSON.stringify([caller, peer, tool])
        ).toSorted()
      const all = yield* records
      assert.deepStrictEqual(who("repeats", all), who("call", all))
      const stolen = all.filter(({ caller }) => caller?.keyId === "stolen")
      assert.deepStrictEqual(told(stolen), ["call denied", "repeats denied 1"])
      assert.isTrue(all.some(({ caller }) => caller?.issuer === "https://b.example"))
    }))

  it.effect("are not what a call came to whose handler had been started", () =>
    Effect.gen(function*() {
      const retry = { maxAttempts: 3, initialDelay: "1 second", strategy: "constant", jitter: "none" } as const
      const context = yield* Layer.build(Layer.mergeAll(
        AuthMiddleware.layer.pipe(
          Layer.provide([Authenticator.layerAnonymous, Authorizer.layerAllowAll]),
          Layer.provideMerge(AuditLog.layerMemory())
        ),
        ResilienceMiddleware.layer({ defaults: { retry, circuitBreaker: false, timeout: false, bulkhead: false } })
      ))
      const pipeline = yield* Effect.provideContext(
        ToolPipeline.make(AuthMiddleware.AuthMiddleware, ResilienceMiddleware.ResilienceMiddleware),
        context
      )
      const { records } = Context.get(context, AuditLog.AuditMemory)
      const eve = Identity.make({ principal: "eve", expiresAt: DateTime.makeUnsafe(500) })
      const ran: Array<number> = []
      const pay = (amount: number) =>
        Effect.exit(pipeline.run(
          { tool: ToolMeta.make({ name: "pay", idempotent: true }), input: { amount } },
          Effect.suspend(() => {
            ran.push(amount)
            return Effect.fail("flaky")
          })
        )).pipe(Effect.provideService(Identity.CurrentIdentity, eve))
      const fiber = yield* Effect.forkChild(Effect.forEach([1, 2, 3, 4, 5], pay, { concurrency: 5 }))
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(ran, [1, 2, 3, 4, 5])
      // Each has done something, so each is told, although all were refused when they were to be tried again.
      const all = yield* records
      assert.deepStrictEqual(
        all.map(({ attempts, kind, outcome }) => `${kind} ${outcome} ${attempts}`),
        Array.from({ length: 5 }, () => "call unauthenticated 1")
      )
      assert.strictEqual(new Set(all.map(({ input }) => input?.digest)).size, 5)
    }))

  it.effect("are told together when too many callers are refused that nobody knows", () =>
    Effect.gen(function*() {
      const { records, refuse } = yield* refusing({ maxRepeats: 100, repeatInterval: "10 seconds" })
      for (let i = 0; i < 5000; i++) yield* refuse(undefined, { peer: `2001:db8:${i.toString(16)}::1` })
      assert.strictEqual((yield* records).length, 100)
      yield* TestClock.adjust("10 seconds")
      const last = (yield* records).at(-1)
      assert.deepStrictEqual(
        [last?.kind, last?.count, last?.tool.id, last?.caller, last?.peer, last?.errorType],
        ["repeats", 4900, "_other", undefined, undefined, "MissingCredentials"]
      )
      assert.strictEqual((yield* records).length, 101)
      // Those that did not come again have made room.
      yield* refuse(undefined, { peer: "new" })
      assert.strictEqual((yield* records).length, 102)
    }))

  it.effect("of callers whom nobody knows do not hide the first one of a known caller", () =>
    Effect.gen(function*() {
      const { records, refuse } = yield* refusing({ maxRepeats: 100 })
      for (let i = 0; i < 500; i++) yield* refuse(undefined, { peer: `2001:db8:${i.toString(16)}::1` })
      yield* refuse({ principal: "insider", tenant: "acme" }, { tool: "vault" })
      const last = (yield* records).at(-1)
      assert.deepStrictEqual([last?.kind, last?.caller?.principal, last?.tool.id], ["call", "insider", "vault"])
    }))

  it.effect("of one caller in many ways do not hide the first one of another", () =>
    Effect.gen(function*() {
      const { records, refuse } = yield* refusing({ maxRepeats: 100 })
      const busy = { principal: "busy", tenant: "acme" }
      for (let i = 0; i < 500; i++) yield* refuse({ ...busy, claims: { jti: `t-${i}` } }, { peer: `10.0.0.${i}` })
      const told = (yield* records).length
      assert.isAtMost(told, 10)
      yield* refuse({ principal: "insider", tenant: "acme" }, { tool: "vault" })
      assert.strictEqual((yield* records).length, told + 1)
      assert.strictEqual((yield* records).at(-1)?.tool.id, "vault")
      yield* TestClock.adjust("1 minute")
      const rest = (yield* records).at(-1)
      // What was not told apart is told of the one who did it.
      assert.deepStrictEqual(
        [rest?.kind, rest?.count, rest?.tool.id, rest?.caller?.principal, rest?.caller?.keyId, rest?.peer],
        ["repeats", 500 - told, "_other", "busy", undefined, undefined]
      )
    }))

  it.effect("of many known callers in many ways leave the first one of each in full", () =>
    Effect.gen(function*() {
      const { records, refuse } = yield* refusing({ maxRepeats: 100 })
      for (let who = 0; who < 40; who++) {
        for (let i = 0; i < 20; i++) yield* refuse({ principal: `p-${who}` }, { tool: `t-${i}` })
      }
      yield* refuse({ principal: "insider" }, { tool: "vault" })
      assert.strictEqual((yield* records).at(-1)?.tool.id, "vault")
      const firsts = new Set((yield* records).map(({ caller }) => caller?.principal))
      assert.strictEqual(firsts.size, 41)
      assert.isAtMost((yield* records).length, 200)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(sum(yield* records), 801)
      // And all room is there again.
      yield* TestClock.adjust("2 minutes")
      const before = (yield* records).length
      for (let i = 0; i < 4; i++) yield* refuse({ principal: "p-0" }, { tool: `t-${i}` })
      assert.strictEqual((yield* records).length, before + 4)
    }))

  it.effect("from the addresses of one IPv6 network are those of one peer", () =>
    Effect.gen(function*() {
      const { records, refuse } = yield* refusing({ maxRepeats: 100 })
      for (let i = 0; i < 300; i++) yield* refuse(undefined, { peer: `2001:db8:0:7::${i.toString(16)}` })
      // Other ways to write it, and an address of the same network with no zeros left out.
      yield* refuse(undefined, { peer: "2001:0DB8:0000:0007:1:2:3:4" })
      const before = (yield* records).length
      assert.isAtMost(before, 10)
      yield* refuse(undefined, { peer: "2001:db8:0:8::1" })
      yield* refuse(undefined, { peer: "::ffff:10.0.0.1" })
      yield* refuse(undefined, { peer: "::ffff:10.0.0.2" })
      yield* refuse(undefined, { peer: "10.0.0.1" })
      assert.strictEqual((yield* records).length, before + 4)
      yield* TestClock.adjust("1 minute")
      const rest = (yield* records).filter(({ kind }) => kind === "repeats")
      assert.deepStrictEqual(rest.map(({ count, peer }) => [peer, count]), [["2001:db8:0:7::/64", 301 - before]])
    }))

  it.effect("are told when the log closes", () => {
    const written: Array<AuditRecord.AuditRecord> = []
    const log = AuditLog.layer({ write: (records) => Effect.sync(() => written.push(...records)) })
    return Effect.gen(function*() {
      const { run } = yield* pipelineWith(log)
      yield* times(7, run(secret, found))
    }).pipe(
      Effect.scoped,
      Effect.andThen(Effect.sync(() => assert.deepStrictEqual(told(written), ["call denied", "repeats denied 6"])))
    )
  })
})

describe("repeats of a refusal, required", () => {
  const limited = { mode: "required", repeatInterval: "10 hours" } as const

  it.effect("write no decisions either", () =>
    Effect.gen(function*() {
      const { log, records, run } = yield* audited({ mode: "required" })
      yield* run(dear, found)
      yield* times(1000, run(dear, found))
      yield* times(1000, run(secret, found))
      assert.deepStrictEqual(
        told(yield* records),
        ["decision", "outcome ok", "decision", "outcome limited", "decision", "outcome denied"]
      )
      assert.strictEqual((yield* log.stats).repeated, 1998)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(told(yield* records).slice(6), ["repeats limited 999", "repeats denied 999"])
    }))

  it.effect("write no decisions of callers who were too many to be told apart either", () =>
    Effect.gen(function*() {
      const { clear, records, run } = yield* audited({ ...limited, maxRepeats: 1 })
      // Takes the place that there is.
      yield* times(1, run(secret, found))
      yield* run(dear, found)
      yield* times(2, run(dear, found))
      yield* clear
      yield* times(10, run(dear, found))
      assert.deepStrictEqual(told(yield* records), [])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* run(dear, Effect.map(records, told)), ["decision"])
    }))

  it.effect("write no decisions of callers for whom there was no place", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Layer.mergeAll(
        AuthMiddleware.layer.pipe(
          Layer.provide([Authenticator.layerAnonymous, Authorizer.layerAllowAll]),
          Layer.provideMerge(AuditLog.layerMemory({ ...limited, maxRepeats: 1 }))
        ),
        RateLimitMiddleware.layer.pipe(
          Layer.provide(RateLimit.layer({ limits: [{ name: "all", per: "global", limit: 1, window: "1 hour" }] })),
          Layer.provide(RateLimitStore.layerMemory())
        )
      ))
      const pipeline = yield* Effect.provideContext(
        ToolPipeline.make(AuthMiddleware.AuthMiddleware, RateLimitMiddleware.RateLimitMiddleware),
        context
      )
      const { clear, records } = Context.get(context, AuditLog.AuditMemory)
      const call = (peer: string) =>
        Effect.provideService(pipeline.run({ tool: dear }, found), RateLimit.CurrentPeer, peer)
      yield* call("10.0.0.1")
      yield* times(1, call("10.0.0.1"))
      yield* times(1, call("10.0.0.2"))
      yield* clear
      yield* times(5, call("10.0.0.2"))
      yield* times(5, call("10.0.0.3"))
      assert.deepStrictEqual(told(yield* records), [])
    }))

  it.effect("leave a call that passes after all with its decision before its handler", () =>
    Effect.gen(function*() {
      const { clear, records, run } = yield* audited(limited)
      yield* run(dear, found)
      yield* times(2, run(dear, found))
      yield* clear
      yield* TestClock.adjust("1 hour")
      const seen = yield* run(dear, Effect.map(records, told))
      assert.deepStrictEqual(seen, ["decision"])
      assert.deepStrictEqual(told(yield* records), ["decision", "outcome ok"])
    }))

  it.effect("let no handler start and no cached answer out that cannot be recorded", () => {
    let isBroken = false
    const log = AuditLog.layer({
      ...limited,
      write: () => Effect.suspend(() => isBroken ? Effect.fail("disk full") : Effect.void)
    })
    return Effect.gen(function*() {
      const { run, seen } = yield* pipelineWith(log)
      yield* run(dear, found)
      yield* times(2, run(dear, found))
      // The bulkhead of the tool is full once, which is a refusal after having been let in, too.
      yield* run(read, found)
      yield* run(read, times(2, run(read, Effect.die("full"), { other: true })), { another: true })
      yield* TestClock.adjust("1 hour")
      isBroken = true
      let ran = 0
      for (const call of [run(dear, Effect.sync(() => ++ran)), run(read, Effect.sync(() => ++ran))]) {
        const error = yield* Effect.flip(call)
        if (!(error instanceof AuthError.AuthError)) return assert.fail(String(error))
        assert.strictEqual(error.reason._tag, "AuthUnavailable")
        assert.instanceOf(error.cause, AuditError.AuditError)
      }
      assert.strictEqual(ran, 0)
      assert.deepStrictEqual(
        seen.map(({ record }) => record.outcome),
        ["ok", "limited", "limited", "ok", "rejected", "rejected", "ok", "denied", "denied"]
      )
    }).pipe(Effect.provide(quiet))
  })
})
