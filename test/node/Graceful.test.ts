import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, References } from "effect"
import { HealthRegistry } from "effect-toolops/health"
import { Graceful } from "effect-toolops/node"
import { TestClock } from "effect/testing"
import { startCollector } from "./collector.ts"
import { type Answer, startServer, until } from "./gracefulChild.ts"

const limit = 120_000

describe("Graceful in a process of its own", () => {
  it("fails readiness first and loses no call under load", { timeout: limit }, async () => {
    await using server = await startServer({ DELAY: "4000", GRACE: "60000" })
    const answers: Array<Answer> = []
    const load = Promise.all(Array.from({ length: 40 }, async () => {
      for (let isOver = false; !isOver;) {
        const answer = await server.ask("/work/20")
        answers.push(answer)
        isOver = answer.text === "Draining" || answer.status === 0
      }
    }))
    const slow = Promise.all(Array.from({ length: 20 }, () => server.ask("/work/8000")))
    await until(() => server.lines().filter((line) => line === "start").length === 20 && answers.length > 200)
    assert.strictEqual((await server.ask("/readyz")).status, 200)

    server.child.kill("SIGTERM")
    await until(async () => (await server.ask("/readyz")).status === 503)
    // Readiness has failed, and calls are still taken.
    const [taken, alive] = [await server.ask("/work/20"), await server.ask("/healthz")]
    assert.deepStrictEqual([taken, alive.status], [{ status: 200, text: "done" }, 200])
    assert.isFalse(answers.some(({ text }) => text === "Draining"))

    await load
    assert.deepStrictEqual(await slow, Array.from({ length: 20 }, () => ({ status: 200, text: "done" })))
    const { code } = await server.exited
    // Every request was answered: done, or refused so that it can be sent elsewhere.
    const others = answers.filter(({ status, text }) =>
      !(status === 200 && text === "done") && !(status === 503 && text === "Draining")
    )
    assert.deepStrictEqual(others, [])
    const done = answers.filter(({ status }) => status === 200).length + 1 + 20
    assert.deepStrictEqual(server.lines().slice(-2), [`audit ${done}`, "exporter"])
    assert.deepStrictEqual(server.lines().filter((line) => line === "end").length, 20)
    assert.strictEqual(code, 0)
  })

  it("interrupts calls that outlast the grace time, and still flushes what is to be flushed", {
    timeout: limit
  }, async () => {
    await using server = await startServer({ DELAY: "0", GRACE: "500" })
    const call = server.ask("/work/100000")
    await server.printed("start")
    server.child.kill("SIGTERM")
    const { code } = await server.exited
    assert.deepStrictEqual(server.lines().slice(1), ["start", "interrupted", "audit 1", "exporter"])
    assert.notStrictEqual((await call).status, 200)
    assert.strictEqual(code, 0)
  })

  it("sends the last spans and metrics to a collector, also those of calls that ended after the signal", {
    timeout: limit
  }, async () => {
    const collector = await startCollector()
    try {
      await using server = await startServer({ DELAY: "0", GRACE: "2500", OTLP: collector.url })
      assert.strictEqual((await server.ask("/work/1")).status, 200)
      const calls = Promise.all([server.ask("/work/1500"), server.ask("/work/100000")])
      await until(() => server.lines().filter((line) => line === "start").length === 2)
      server.child.kill("SIGTERM")
      await until(async () => (await server.ask("/readyz")).status === 503)
      await until(async () => (await server.ask("/work/1")).text === "Draining")
      // Nothing would be sent for an hour.
      assert.deepStrictEqual(collector.requests, [])
      const { code } = await server.exited
      assert.strictEqual(code, 0)
      assert.deepStrictEqual((await calls)[0], { status: 200, text: "done" })
      const outcomes = collector.spans().filter(({ name }) => name === "execute_tool work")
        .map(({ attributes }) => String(attributes["tool.outcome"]))
      for (const [outcome, count] of [["interrupted", 1], ["rejected", 1]] as const) {
        assert.strictEqual(outcomes.filter((each) => each === outcome).length, count, String(outcomes))
      }
      assert.isAtLeast(outcomes.filter((each) => each === "ok").length, 2)
      const counted = collector.points().filter(({ name }) => name === "tool.call.total")
      assert.strictEqual(counted.reduce((sum, { value }) => sum + value, 0), outcomes.length)
    } finally {
      await collector.close()
    }
  })

  for (const [signal, expected] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
    it(`ends at once at a second ${signal}`, { timeout: limit }, async () => {
      await using server = await startServer({ DELAY: "100000", GRACE: "100000" })
      const call = server.ask("/work/100000")
      await server.printed("start")
      server.child.kill(signal)
      await until(async () => (await server.ask("/readyz")).status === 503)
      server.child.kill(signal)
      assert.deepStrictEqual(await server.exited, { code: expected, signal: null })
      assert.strictEqual((await call).status, 0)
      assert.deepStrictEqual(server.lines().slice(1), ["start"])
    })
  }

  it("ends at a second signal also when a layer below hangs while it closes", { timeout: limit }, async () => {
    await using server = await startServer({ DELAY: "0", GRACE: "1000", HANG: "1" })
    server.child.kill("SIGTERM")
    await server.printed("hanging")
    server.child.kill("SIGTERM")
    assert.deepStrictEqual(await server.exited, { code: 143, signal: null })
  })
})

describe("Graceful", () => {
  const within = <A, E>(
    options: Graceful.Options,
    f: (graceful: Graceful.Graceful["Service"]) => Effect.Effect<A, E, HealthRegistry.HealthRegistry>
  ) =>
    Effect.flatMap(Graceful.Graceful, f).pipe(
      Effect.provide(Layer.provideMerge(Graceful.layer(options), HealthRegistry.layer))
    )

  it.effect("goes through its steps when its scope closes, without a signal", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      const Registry = Layer.succeed(HealthRegistry.HealthRegistry, registry)
      const program = yield* Effect.forkChild(
        Effect.provide(Effect.void, Layer.provide(Graceful.layer({ delay: "5 seconds", signals: [] }), Registry)),
        { startImmediately: true }
      )
      yield* Effect.yieldNow
      assert.deepStrictEqual([yield* registry.isDraining, yield* registry.takesCalls], [true, true])
      yield* TestClock.adjust("4999 millis")
      assert.isTrue(yield* registry.takesCalls)
      assert.isUndefined(program.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isFalse(yield* registry.takesCalls)
      yield* Fiber.join(program)
    }))

  it.effect("tells the first signal to whoever waits, fails readiness in the same step, and goes on by itself", () =>
    within({ delay: "1 second", signals: ["SIGHUP"] }, (graceful) =>
      Effect.gen(function*() {
        const registry = yield* HealthRegistry.HealthRegistry
        const waiting = yield* Effect.forkChild(graceful.requested, { startImmediately: true })
        process.emit("SIGHUP", "SIGHUP")
        assert.isTrue(yield* registry.isDraining)
        assert.strictEqual(yield* Fiber.join(waiting), "SIGHUP")
        yield* TestClock.adjust("1 second")
        assert.isFalse(yield* registry.takesCalls)
        assert.deepStrictEqual([yield* graceful.stop, yield* graceful.stop], [0, 0])
      })).pipe(Effect.ensuring(Effect.sync(() => process.removeAllListeners("SIGHUP")))))

  it.effect("goes through its steps also when whatever it logs breaks the logger", () =>
    Effect.gen(function*() {
      const registry = yield* HealthRegistry.make
      let logged = 0
      const broken = Logger.make(() => {
        logged += 1
        throw new Error("disk full")
      })
      const call = yield* Effect.forkChild(registry.admit(Effect.never), { startImmediately: true })
      const Registry = Layer.succeed(HealthRegistry.HealthRegistry, registry)
      const program = yield* Effect.void.pipe(
        Effect.provide(Layer.provide(Graceful.layer({ delay: 0, grace: "5 seconds", signals: [] }), Registry)),
        Effect.provide(Logger.layer([broken])),
        Effect.provideService(References.MinimumLogLevel, "Debug"),
        Effect.forkChild({ startImmediately: true })
      )
      yield* Effect.yieldNow
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(program.pollUnsafe())
      assert.isUndefined(call.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(program)
      yield* Fiber.await(call)
      assert.deepStrictEqual([logged, yield* registry.takesCalls], [2, false])
    }))

  it.effect("leaves no listener behind when it was not signalled", () =>
    Effect.gen(function*() {
      const before = process.listenerCount("SIGHUP")
      const inside = yield* within(
        { delay: 0, signals: ["SIGHUP"] },
        () => Effect.sync(() => process.listenerCount("SIGHUP"))
      )
      assert.deepStrictEqual([inside, process.listenerCount("SIGHUP")], [before + 1, before])
    }))

  it("ends with 0 after an interruption, and else as Effect's own teardown", () => {
    const codeOf = (exit: Exit.Exit<unknown, unknown>) => {
      let found: number | undefined
      Graceful.teardown(exit, (code) => found = code)
      return found
    }
    assert.deepStrictEqual([
      codeOf(Exit.void),
      codeOf(Exit.interrupt(1)),
      codeOf(Exit.fail("no")),
      codeOf(Exit.failCause(Cause.combine(Cause.interrupt(1), Cause.fail("no"))))
    ], [0, 0, 1, 1])
  })

  it("refuses options that make no sense", () => {
    assert.throws(() => Graceful.layer({ delay: -1 }), "Graceful.layer: delay must be a duration >= 0")
    assert.throws(() => Graceful.layer({ signals: ["SIGKILL" as never] }), "signals must be one of SIGTERM")
    assert.throws(() => Graceful.layer({ graze: 1 } as never), "unknown option \"graze\"")
  })
})
