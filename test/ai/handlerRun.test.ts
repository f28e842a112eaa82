import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Option, Schema, Stream } from "effect"
import { ToolkitOps } from "effect-toolops/ai"
import { Tool, Toolkit } from "effect/ai"
import { positions, SweepScheduler } from "../support/interruptSweep.ts"
import { pipeline } from "./mcp.ts"

const Count = Tool.make("count", { success: Schema.Number })
const Tools = ToolkitOps.guard(Toolkit.make(Count))
// The same tool without the guard, for what is to be the same.
const Bare = Toolkit.make(Tools.tools.count)

type Reporting = Toolkit.HandlerContext<typeof Bare.tools.count>
type Handle = Effect.Effect<Stream.Stream<Tool.HandlerResult<any>, unknown>, unknown>
type Handler = (context: Reporting) => Effect.Effect<number>

const guarded = (run: Handler): Effect.Effect<Handle> =>
  Effect.map(Tools, ({ handle }) => handle("count", {})).pipe(
    Effect.provide(ToolkitOps.layer(Tools, { count: (_, context) => run(context) })),
    Effect.provide(pipeline())
  )
const bare = (run: Handler): Effect.Effect<Handle> =>
  Effect.map(Bare, ({ handle }) => handle("count", {})).pipe(
    Effect.provide(Bare.toLayer({ count: (_, context) => run(context) }))
  )

const results = <R>(stream: Stream.Stream<Tool.HandlerResult<any>, unknown, R>) =>
  Effect.map(Stream.runCollect(stream), (all) => all.map(({ preliminary, result }) => [preliminary, result]))

const turns = (n: number): Effect.Effect<void> => n === 0 ? Effect.void : Effect.andThen(Effect.yieldNow, turns(n - 1))

const operations = (n: number): Effect.Effect<void> =>
  n === 0 ? Effect.void : Effect.andThen(Effect.suspend(() => Effect.void), operations(n - 1))

describe("a handler that takes its time", () => {
  const handlers: { readonly [what: string]: Handler } = {
    "ends after a turn": () => Effect.as(Effect.yieldNow, 1),
    "ends after some turns": () => Effect.as(turns(5), 1),
    "reports and ends after turns": ({ preliminary }) =>
      Effect.andThen(turns(2), preliminary(0)).pipe(Effect.andThen(turns(2)), Effect.as(1)),
    "reports before it ends": ({ preliminary }) => Effect.andThen(Effect.yieldNow, Effect.as(preliminary(0), 1))
  }
  for (const [what, run] of Object.entries(handlers)) {
    it.effect(`has its results read wherever the scheduler lets others run: ${what}`, () =>
      Effect.gen(function*() {
        const handle = yield* guarded(run)
        // With less a fiber gets nowhere: it yields before the operation that it has yielded for.
        for (let maxOps = 3; maxOps <= 160; maxOps++) {
          for (const busy of [0, 1, 2, 5, 9]) {
            const scheduler = new SweepScheduler({ mode: "between", maxOps, at: Infinity })
            const reader = scheduler.aim(
              Effect.flatMap(handle, (stream) => Effect.andThen(operations(busy), results(stream)))
            )
            scheduler.drain()
            const exit = reader.pollUnsafe()
            assert(exit?._tag === "Success", `not answered: ${maxOps} operations at a time, ${busy} before it reads`)
            assert.deepStrictEqual(exit.value.at(-1), [false, 1])
          }
        }
      }))
  }

  it.effect("has what it reports read at once, wherever the scheduler lets others run", () =>
    Effect.gen(function*() {
      let isRead = yield* Deferred.make<void>()
      const handle = yield* guarded(({ preliminary }) =>
        Effect.andThen(Effect.yieldNow, preliminary(0)).pipe(Effect.andThen(Deferred.await(isRead)), Effect.as(1))
      )
      for (let maxOps = 3; maxOps <= 160; maxOps++) {
        isRead = yield* Deferred.make<void>()
        const scheduler = new SweepScheduler({ mode: "between", maxOps, at: Infinity })
        const reader = scheduler.aim(
          Effect.flatMap(handle, Stream.runForEach(() => Deferred.succeed(isRead, undefined)))
        )
        scheduler.drain()
        assert.strictEqual(reader.pollUnsafe()?._tag, "Success", `${maxOps} operations at a time`)
      }
    }))

  it.effect("gives back what it has acquired, wherever its reader is interrupted", () =>
    Effect.gen(function*() {
      const count = { acquired: 0, released: 0 }
      const handle = yield* guarded(({ preliminary }) =>
        Effect.acquireUseRelease(
          Effect.sync(() => count.acquired++),
          () => Effect.andThen(preliminary(0), Effect.as(turns(2), 1)),
          () => Effect.sync(() => count.released++)
        )
      )
      let interrupted = 0
      // A third of them are enough: 64 positions of each kind, so that each comes with every third number of operations.
      for (const position of positions.filter((_, index) => index % 3 === 0)) {
        count.acquired = count.released = 0
        const scheduler = new SweepScheduler(position)
        const reader = scheduler.aim(Effect.flatMap(handle, results))
        scheduler.drain()
        const where = JSON.stringify(position)
        assert.isDefined(reader.pollUnsafe(), where)
        assert.isAtMost(count.acquired, 1, where)
        assert.strictEqual(count.released, count.acquired, where)
        if (scheduler.didInterrupt) interrupted += 1
      }
      assert.isAbove(interrupted, 1_000)
    }))
})

describe("preliminary results of a handler that has ended", () => {
  for (const [which, make] of [["guarded", guarded], ["bare", bare]] as const) {
    it.effect(`are dropped, ${which}`, () =>
      Effect.gen(function*() {
        for (const ends of ["at once", "later"]) {
          let report: Reporting["preliminary"] = () => Effect.void
          const handle = yield* make((context) => {
            report = context.preliminary
            return context.preliminary(1).pipe(
              Effect.andThen(ends === "later" ? turns(4) : Effect.void),
              Effect.as(2)
            )
          })
          // Before it is read.
          const stream = yield* handle
          yield* turns(20)
          yield* report(3)
          assert.deepStrictEqual(yield* results(stream), [[true, 1], [false, 2]], ends)
          // While it is read.
          const seen = yield* Stream.runLast(
            Stream.mapEffect(yield* handle, ({ result }) => Effect.andThen(turns(20), Effect.as(report(4), result)))
          )
          assert.deepStrictEqual(seen, Option.some(2), ends)
        }
      }))

    it.effect(`are dropped though what it has forked has not ended yet, ${which}`, () =>
      Effect.gen(function*() {
        const go = yield* Deferred.make<void>()
        const handle = yield* make(({ preliminary }) =>
          Effect.never.pipe(
            Effect.onInterrupt(() => Effect.andThen(Deferred.await(go), preliminary(9))),
            (child) => Effect.forkChild(child, { startImmediately: true }),
            Effect.as(1)
          )
        )
        const seen: Array<unknown> = []
        const stream = yield* handle
        const reader = yield* Effect.forkChild(Stream.runForEach(stream, ({ result }) => {
          seen.push(result)
          // The answer does not wait for what the handler has left behind.
          return Deferred.succeed(go, undefined)
        }))
        yield* turns(50)
        const answered = yield* Deferred.isDone(go)
        yield* Deferred.succeed(go, undefined)
        yield* Fiber.await(reader)
        assert.deepStrictEqual({ answered, seen }, { answered: true, seen: [1] })
      }))
  }
})

describe("the stream of results", () => {
  it.effect("takes time that grows with their number alone", () =>
    Effect.gen(function*() {
      const timed = (n: number) =>
        Effect.gen(function*() {
          const handle = yield* guarded(({ preliminary }) =>
            Effect.as(Effect.forEach(Array.from({ length: n }, (_, i) => i), (i) => preliminary(i)), -1)
          )
          // Of this process, so that it does not go by what else the machine does.
          const before = process.cpuUsage()
          const all = yield* results(yield* handle)
          assert.strictEqual(all.length, n + 1)
          assert.isTrue(all.every(([, result], i) => result === (i === n ? -1 : i)))
          const { system, user } = process.cpuUsage(before)
          return system + user
        })
      yield* timed(5_000)
      const [few, many] = [yield* timed(10_000), yield* timed(200_000)]
      // 20 times as many.
      assert.isBelow(many, few * 45)
    }))

  for (const [which, make] of [["guarded", guarded], ["bare", bare]] as const) {
    it.effect(`ends at once when it is read again, ${which}`, () =>
      Effect.gen(function*() {
        for (const run of [() => Effect.succeed(1), () => Effect.as(turns(3), 1)]) {
          const stream = yield* yield* make(run)
          assert.deepStrictEqual(yield* results(stream), [[false, 1]])
          assert.deepStrictEqual(yield* results(stream), [])
        }
      }))
  }

  it.effect("dies, and not who asks for it, where the output for the model cannot be made", () =>
    Effect.gen(function*() {
      const Broken = Tool.make("broken", {
        success: Schema.Number,
        toModelOutput: () => {
          throw new Error("bug")
        }
      })
      const Guarded = ToolkitOps.guard(Toolkit.make(Broken))
      const Plain = Toolkit.make(Guarded.tools.broken)
      const broken = { broken: () => Effect.succeed(1) }
      const died = (toolkit: typeof Guarded | typeof Plain) =>
        Effect.gen(function*() {
          const { handle } = yield* toolkit
          const stream = yield* handle("broken", {})
          return (yield* Effect.exit(Stream.runDrain(stream)))._tag
        })
      assert.strictEqual(yield* Effect.provide(died(Plain), Plain.toLayer(broken)), "Failure")
      const layer = ToolkitOps.layer(Guarded, broken).pipe(Layer.provide(pipeline()))
      assert.strictEqual(yield* Effect.provide(died(Guarded), layer), "Failure")
    }))
})

describe("a handler that needs services", () => {
  class Word extends Context.Service<Word, string>()("test/handlerRun/Word") {}
  class Other extends Context.Service<Other, string>()("test/handlerRun/Other") {}

  it.effect("has those of its layer, and its caller's where both have one", () =>
    Effect.gen(function*() {
      const Say = Tool.make("say", { success: Schema.String, dependencies: [Other] })
      const Saying = ToolkitOps.guard(Toolkit.make(Say))
      const own = Effect.map(
        Effect.context<Word>(),
        (context) => ({
          say: () =>
            Effect.map(
              Effect.all([Word, Other]),
              ([word, other]) => `${word} ${other} ${Context.get(context, Word)}`
            ) as Effect.Effect<string, never, Other>
        })
      )
      const layer = ToolkitOps.layer(Saying, own).pipe(
        Layer.provide(Layer.succeed(Word, "layer")),
        Layer.provide(pipeline())
      )
      const { handle } = yield* Effect.provide(Saying, layer)
      const said = Effect.flatMap(handle("say", {}), (stream) => Effect.map(results(stream), (all) => all[0]?.[1]))
        .pipe(Effect.provideService(Other, "caller"))
      assert.strictEqual(yield* said, "layer caller layer")
      assert.strictEqual(yield* Effect.provideService(said, Word, "caller"), "caller caller layer")
    }))
})
