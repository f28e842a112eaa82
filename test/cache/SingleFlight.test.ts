import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Layer, Scheduler } from "effect"
import { type CallRecord, ToolMeta, ToolPipeline } from "effect-toolops"
import { AuthError } from "effect-toolops/auth"
import { CacheMiddleware, CachePolicy, ToolCache } from "effect-toolops/cache"
import { ResilienceError } from "effect-toolops/resilience"
import { TestClock } from "effect/testing"
import * as Random from "../support/random.ts"
import { cached, pipelineOf } from "./support.ts"

const search = ToolMeta.make({ name: "search", readOnly: true })
const simple = ToolPipeline.make(CacheMiddleware.CacheMiddleware)
const layer = CacheMiddleware.layer.pipe(
  Layer.provideMerge(ToolCache.layerMemory({ maxEntries: 100_000 })),
  Layer.provide(CachePolicy.layer())
)

/** A handler that waits for its gate, one gate per run. */
const gated = () => {
  const gates: Array<Deferred.Deferred<unknown, unknown>> = []
  const handler = Effect.suspend(() => {
    const gate = Deferred.makeUnsafe<unknown, unknown>()
    gates.push(gate)
    return Deferred.await(gate)
  })
  return { gates, handler }
}

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

describe("single flight", () => {
  it.effect("runs a call once for all who miss together, and gives each an answer of its own", () => {
    const records: Array<CallRecord.CallRecord> = []
    return Effect.gen(function*() {
      const p = yield* pipelineOf
      const { gates, handler } = gated()
      const call = p.run({ tool: search }, handler)
      const fibers = yield* Effect.forEach(Array.from({ length: 1000 }), () => start(call))
      assert.strictEqual(gates.length, 1)
      yield* Deferred.succeed(gates[0]!, { list: [1] })
      const answers = yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual(new Set(answers).size, 1000)
      for (const answer of answers) assert.deepStrictEqual(answer, { list: [1] })
      assert.strictEqual(records.filter((r) => r.outcome === "coalesced").length, 999)
      assert.strictEqual(records.filter((r) => r.attempts > 0).length, 1)
      const stats = yield* (yield* ToolCache.ToolCache).stats
      assert.deepInclude(stats, { hits: 0, misses: 1, coalesced: 999 })
    }).pipe(Effect.provide(cached({ records })))
  })

  it.effect("gives a failure to all who wait and to nobody later", () => {
    const records: Array<CallRecord.CallRecord> = []
    return Effect.gen(function*() {
      const p = yield* pipelineOf
      const { gates, handler } = gated()
      const call = Effect.exit(p.run({ tool: search }, handler))
      const fibers = yield* Effect.forEach([1, 2, 3], () => start(call))
      yield* Deferred.fail(gates[0]!, "no")
      for (const fiber of fibers) assert.deepStrictEqual(yield* Fiber.join(fiber), Exit.fail("no"))
      const later = yield* start(call)
      assert.strictEqual(gates.length, 2)
      yield* Deferred.succeed(gates[1]!, 1)
      assert.deepStrictEqual(yield* Fiber.join(later), Exit.succeed(1))
      assert.deepStrictEqual(records.map((r) => r.outcome), ["failed", "failed", "failed", "ok"])
    }).pipe(Effect.provide(cached({ records })))
  })

  it.effect("does not refuse those who wait when the leader alone is refused", () => {
    const records: Array<CallRecord.CallRecord> = []
    return Effect.gen(function*() {
      const p = yield* pipelineOf
      const error = new AuthError.AuthError({ reason: new AuthError.TokenExpired() })
      const gate = Deferred.makeUnsafe<void>()
      let runs = 0
      const guarded = p.wrap(search, (_, call) =>
        Effect.suspend(() => {
          runs += 1
          return runs === 1
            ? Effect.andThen(
              Deferred.await(gate),
              Effect.suspend(() => Effect.fail(call.record.refuse("unauthenticated", error)))
            )
            : Effect.succeed("answer")
        }))
      const fibers = yield* Effect.forEach([1, 2, 3], () => start(Effect.exit(guarded(1))))
      yield* Deferred.succeed(gate, undefined)
      const exits = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(exits, [Exit.fail(error), Exit.succeed("answer"), Exit.succeed("answer")])
      assert.deepStrictEqual([runs, records.map((r) => r.outcome).toSorted()], [2, [
        "coalesced",
        "ok",
        "unauthenticated"
      ]])
    }).pipe(Effect.provide(cached({ records })))
  })

  it.effect("counts a refusal of the leader as one of every call that waited for it", () => {
    const records: Array<CallRecord.CallRecord> = []
    return Effect.gen(function*() {
      const gate = Deferred.makeUnsafe<void>()
      const p = yield* pipelineOf
      const error = new ResilienceError.ResilienceError({
        reason: new ResilienceError.BulkheadFull({ name: "x", retryAfter: Duration.seconds(1) })
      })
      const refusing = p.wrap(
        search,
        (_, call) =>
          Effect.andThen(Deferred.await(gate), Effect.suspend(() => Effect.fail(call.record.refuse("rejected", error))))
      )
      const fibers = yield* Effect.forEach([1, 2], () => start(Effect.exit(refusing(1))))
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(records.map((r) => r.outcome), ["rejected", "rejected"])
    }).pipe(Effect.provide(cached({ records })))
  })

  it.effect("hands over to a waiter when the leader is interrupted", () =>
    Effect.gen(function*() {
      const p = yield* simple
      const { gates, handler } = gated()
      const call = p.run({ tool: search }, handler)
      const [first, second, third, fourth] = yield* Effect.forEach([1, 2, 3, 4], () => start(call))
      yield* Fiber.interrupt(first!)
      yield* Effect.yieldNow
      assert.strictEqual(gates.length, 2)
      yield* Fiber.interrupt(third!)
      yield* Fiber.interrupt(second!)
      yield* Effect.yieldNow
      assert.strictEqual(gates.length, 3)
      yield* Deferred.succeed(gates[2]!, "answer")
      assert.strictEqual(yield* Fiber.join(fourth!), "answer")
      assert.strictEqual(yield* call, "answer")
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(first!)))
    }).pipe(Effect.provide(layer)))

  it.effect("starts anew when everybody has gone", () =>
    Effect.gen(function*() {
      const p = yield* simple
      const { gates, handler } = gated()
      const call = p.run({ tool: search }, handler)
      const fibers = yield* Effect.forEach([1, 2, 3], () => start(call))
      yield* Effect.forEach(fibers.toReversed(), (fiber) => Fiber.interrupt(fiber))
      const again = yield* start(call)
      assert.strictEqual(gates.length, 2)
      yield* Deferred.succeed(gates[1]!, 1)
      assert.strictEqual(yield* Fiber.join(again), 1)
    }).pipe(Effect.provide(layer)))

  it.effect("takes the failure of one part of a handler for a failure, although it interrupts the other part", () =>
    Effect.gen(function*() {
      const p = yield* simple
      const gate = Deferred.makeUnsafe<void>()
      let runs = 0
      const call = Effect.exit(p.run(
        { tool: search },
        Effect.suspend(() => {
          runs++
          return Effect.andThen(
            Deferred.await(gate),
            Effect.failCause(Cause.combine(Cause.fail("no"), Cause.interrupt(1)))
          )
        })
      ))
      const fibers = yield* Effect.forEach([1, 2, 3], () => start(call))
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual(runs, 1)
    }).pipe(Effect.provide(layer)))

  it.effect("leaves every waiter its own deadline", () =>
    Effect.gen(function*() {
      const p = yield* simple
      const { gates, handler } = gated()
      const call = p.run({ tool: search }, handler)
      const leader = yield* start(call)
      const waiter = yield* start(Effect.timeoutOption(call, "1 second"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(waiter))._tag, "None")
      yield* Deferred.succeed(gates[0]!, 1)
      assert.strictEqual(yield* Fiber.join(leader), 1)
    }).pipe(Effect.provide(layer)))

  it.effect("lets everybody run alone when the answer cannot be given to others", () =>
    Effect.gen(function*() {
      const p = yield* simple
      const { gates, handler } = gated()
      const call = p.run({ tool: search }, handler)
      const fibers = yield* Effect.forEach([1, 2, 3], () => start(call))
      const answer = new Map([["a", 1]])
      yield* Deferred.succeed(gates[0]!, answer)
      assert.strictEqual(gates.length, 3)
      yield* Deferred.succeed(gates[1]!, { resultType: "input_required", requestState: "second" })
      yield* Deferred.succeed(gates[2]!, "third")
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), [
        answer,
        { resultType: "input_required", requestState: "second" },
        "third"
      ])
    }).pipe(Effect.provide(layer)))

  describe("of a handler that comes back to its own flight", () => {
    /** Calls that wait for each other would wait for good. */
    const inTime = <A, E, R>(self: Effect.Effect<A, E, R>) =>
      Effect.flatMap(
        Effect.timeoutOption(self, "2 seconds"),
        (answer) => answer._tag === "Some" ? Effect.succeed(answer.value) : Effect.die("it hangs")
      )

    it.live("runs a call that its own handler makes", () =>
      Effect.gen(function*() {
        const p = yield* simple
        let runs = 0
        const call: (input: string) => Effect.Effect<string> = p.wrap(
          search,
          (input: string) =>
            Effect.suspend(() =>
              ++runs === 1 ? Effect.map(call(input), (inner) => `outer of ${inner}`) : Effect.succeed("inner")
            )
        )
        // Nobody else runs: who is not inside of the flight still waits for it.
        assert.deepStrictEqual(yield* inTime(Effect.all([call("x"), call("x")], { concurrency: 2 })), [
          "outer of inner",
          "outer of inner"
        ])
        assert.strictEqual(runs, 2)
        assert.strictEqual(yield* call("x"), "outer of inner")
      }).pipe(Effect.provide(layer)))

    const tools = ["a", "b", "c", "d"].map((name) => ToolMeta.make({ name, readOnly: true }))

    for (const count of [2, 3, 4]) {
      it.live(`runs ${count} tools that call each other in a circle`, () =>
        Effect.gen(function*() {
          const p = yield* simple
          const runs = new Map<string, number>()
          const calls: Array<(hops: number) => Effect.Effect<string>> = tools.slice(0, count).map((tool, i) =>
            p.wrap(tool, (_input: number) =>
              Effect.suspend(() => {
                const run = (runs.get(tool.name) ?? 0) + 1
                runs.set(tool.name, run)
                if (run > 2) return Effect.succeed(tool.name)
                return Effect.andThen(
                  Effect.yieldNow,
                  Effect.map(calls[(i + 1) % count]!(0), (inner) => tool.name + inner)
                )
              }))
          )
          const answers = yield* inTime(Effect.all(calls.map((call) => call(0)), { concurrency: count }))
          for (const [i, answer] of answers.entries()) assert.isTrue(answer.startsWith(tools[i]!.name))
        }).pipe(Effect.provide(layer)))
    }

    it.live("still waits for a flight that does not wait for it", () =>
      Effect.gen(function*() {
        const p = yield* simple
        const gate = Deferred.makeUnsafe<string>()
        let runs = 0
        const inner = p.wrap(tools[1]!, (_input: number) => Effect.suspend(() => (runs++, Deferred.await(gate))))
        const outer = p.wrap(tools[0]!, (i: number) => Effect.map(inner(0), (answer) => `${i} of ${answer}`))
        const fibers = yield* Effect.forEach([inner(0), outer(1), outer(2), outer(1)], start)
        yield* Deferred.succeed(gate, "inner")
        assert.deepStrictEqual(yield* inTime(Effect.forEach(fibers, Fiber.join)), [
          "inner",
          "1 of inner",
          "2 of inner",
          "1 of inner"
        ])
        assert.strictEqual(runs, 1)
      }).pipe(Effect.provide(layer)))

    it.live("knows who waits for it after its leader was interrupted", () =>
      Effect.gen(function*() {
        const p = yield* simple
        let runs = 0
        const gate = Deferred.makeUnsafe<void>()
        // The first run of `inner` is interrupted while `outer` waits for it, and so leads the second, which calls `outer`.
        const inner: (i: number) => Effect.Effect<string> = p.wrap(tools[1]!, (_input: number) =>
          Effect.suspend(() => {
            runs++
            return runs === 1 ? Effect.never : runs === 2 ? outer(0) : Effect.succeed("end")
          }))
        const outer: (i: number) => Effect.Effect<string> = p.wrap(
          tools[0]!,
          (_input: number) => Effect.andThen(Deferred.await(gate), Effect.map(inner(0), (answer) => `o${answer}`))
        )
        const first = yield* start(inner(0))
        const second = yield* start(outer(0))
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.yieldNow
        yield* Fiber.interrupt(first)
        assert.strictEqual(yield* inTime(Fiber.join(second)), "ooend")
      }).pipe(Effect.provide(layer)))
  })

  for (const seed of [1, 2, 3, 4, 5]) {
    it.effect(`answers 10,000 misses of 100 keys with one run each, or two where the leader died (seed ${seed})`, () =>
      Effect.gen(function*() {
        const random = Random.make(seed)
        const p = yield* simple
        const runs = new Map<number, number>()
        const leaders = new Map<number, Fiber.Fiber<unknown, unknown>>()
        const died = new Set<number>()
        const gate = Deferred.makeUnsafe<void>()
        const fibers: Array<readonly [key: number, fiber: Fiber.Fiber<unknown, unknown>]> = []
        // A leader of somebody's choice, before anybody waits for it, among those who do, or after they all came.
        const strike = Effect.suspend(() => {
          const key = random.below(100)
          const leader = leaders.get(key)
          if (leader === undefined || died.has(key)) return Effect.void
          died.add(key)
          return Fiber.interrupt(leader)
        })
        for (let i = 0; i < 10_000; i++) {
          const key = i < 100 ? i : random.below(100)
          const fiber = yield* start(p.run(
            { tool: search, input: key },
            Effect.suspend(() => {
              runs.set(key, (runs.get(key) ?? 0) + 1)
              return Effect.as(Effect.andThen(Deferred.await(gate), Effect.yieldNow), key)
            })
          ))
          if (leaders.has(key)) fibers.push([key, fiber])
          else leaders.set(key, fiber)
          if (random.below(500) === 0) yield* strike
          if (random.below(200) === 0) yield* Effect.yieldNow
        }
        for (let i = random.below(40); i > 0; i--) yield* strike
        if (random.below(2) === 0) yield* Effect.yieldNow
        yield* Deferred.succeed(gate, undefined)
        for (let i = random.below(20); i > 0; i--) yield* strike
        for (const [key, fiber] of fibers) assert.strictEqual(yield* Fiber.join(fiber), key)
        assert.isAbove(died.size, 10)
        assert.strictEqual(runs.size, 100)
        for (const [key, count] of runs) assert.strictEqual(count, died.has(key) ? 2 : 1, `key ${key}`)
        for (const key of died) assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(leaders.get(key)!)))
      }).pipe(Effect.provide(layer)))
  }

  it.live("hangs nobody, whoever is interrupted and wherever", () =>
    Effect.gen(function*() {
      for (let ops = 3; ops <= 64; ops++) {
        for (let position = 0; position < 24; position++) {
          yield* Effect.gen(function*() {
            const p = yield* simple
            let runs = 0
            const call = p.run(
              { tool: search, input: [ops, position] },
              Effect.andThen(Effect.yieldNow, Effect.sync(() => ++runs))
            )
            const fibers = yield* Effect.forEach(
              [0, 1, 2, 3],
              () => Effect.forkChild(call.pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)))
            )
            // Lets the others run for as many turns before the axe falls on the first two, one after the other.
            for (let i = 0; i < position % 12; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(fibers[0]!)
            if (position >= 12) yield* Fiber.interrupt(fibers[1]!)
            const last = yield* Fiber.await(fibers[3]!).pipe(Effect.timeoutOption("2 seconds"))
            assert.strictEqual(last._tag, "Some", `ops ${ops}, position ${position}`)
            if (last._tag === "Some") assert.isTrue(Exit.isSuccess(last.value), `ops ${ops}, position ${position}`)
            assert.isAtMost(runs, 3)
            yield* Effect.forEach(fibers, Fiber.await)
            // Nothing is left behind. (A leader may die between telling the others and telling the store, so it is the
            // second call from here that must be a hit.)
            yield* call
            const before = runs
            yield* call
            assert.strictEqual(runs, before)
          })
        }
      }
    }).pipe(Effect.provide(layer)))
})
