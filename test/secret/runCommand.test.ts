import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Fiber, PlatformError, Sink, Stream } from "effect"
import { CommandSecretProvider } from "effect-toolops/secret"
import { ChildProcessSpawner } from "effect/process"
import { TestClock } from "effect/testing"
import { readFileSync } from "node:fs"
import { outcomeOf } from "./resolving.ts"
import { Processes, sh, stubs } from "./stubs.ts"

const settle = Effect.promise(async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
})

/** Lets time pass in steps, as every one may begin something that waits for the next. */
const pass = (time: Duration.Input, steps = 1) =>
  Effect.repeat(Effect.andThen(TestClock.adjust(time), settle), { times: steps - 1 })

type Printed = Stream.Stream<string, PlatformError.PlatformError>

const killed = Effect.fail(
  PlatformError.systemError({ _tag: "Unknown", module: "ChildProcess", method: "exitCode", description: "SIGKILL" })
)

/** Asks a program that prints, ends and is killed as the test wants it. */
const asking = (program: {
  readonly stdout: Printed
  readonly exitCode?: Effect.Effect<number, PlatformError.PlatformError>
}) =>
  Effect.gen(function*() {
    const kills: Array<string> = []
    const spawner = ChildProcessSpawner.make(() =>
      Effect.succeed(ChildProcessSpawner.makeHandle({
        pid: ChildProcessSpawner.ProcessId(1),
        exitCode: Effect.map(program.exitCode ?? Effect.succeed(0), ChildProcessSpawner.ExitCode),
        isRunning: Effect.succeed(false),
        // What is left is not gone at once.
        kill: (options) => Effect.andThen(Effect.sync(() => kills.push(String(options?.killSignal))), Effect.never),
        stdin: Sink.drain,
        stdout: Stream.encodeText(program.stdout),
        stderr: Stream.never,
        all: Stream.never,
        getInputFd: () => Sink.drain,
        getOutputFd: () => Stream.empty,
        unref: Effect.succeed(Effect.void)
      }))
    )
    const provider = yield* Effect.provideService(
      CommandSecretProvider.make({ command: "program" }),
      ChildProcessSpawner.ChildProcessSpawner,
      spawner
    )
    const answer = yield* Effect.forkChild(outcomeOf(provider.get("r")), { startImmediately: true })
    yield* settle
    return { answer, kills }
  })

const held: Printed = Stream.never
const after = (time: Duration.Input, text: string): Printed => Stream.fromEffect(Effect.as(Effect.sleep(time), text))

const joined = (parts: ReadonlyArray<Printed>): Printed => Stream.flatten(Stream.fromIterable(parts))

// What has ended may stay on as an entry that nobody has fetched yet, where the first process of a container does not.
const isAlive = (pid: number): boolean => {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

/** How many pipes this thread has open. */
const pipes = (): number => process.getActiveResourcesInfo().filter((kind) => kind === "PipeWrap").length

describe("a program that prints a secret", () => {
  it.effect("has answered soon after its end, though something that it has left behind holds its output", () =>
    Effect.gen(function*() {
      const { answer } = yield* asking({
        stdout: Stream.concat(Stream.make("s"), held),
        exitCode: Effect.as(Effect.sleep("1 second"), 0)
      })
      yield* pass("1 second")
      assert.isUndefined(answer.pollUnsafe())
      yield* pass("10 millis", 2)
      assert.isDefined(answer.pollUnsafe())
      assert.strictEqual(yield* Fiber.join(answer), "found s")
    }))

  it.effect("is read to the end of what it has printed, however slowly that comes", () =>
    Effect.gen(function*() {
      const lines = Array.from({ length: 30 }, (_, nth) => after("12 millis", `${nth},`))
      const { answer } = yield* asking({ stdout: joined([...lines, held]) })
      yield* pass("1 millis", 450)
      assert.strictEqual(yield* Fiber.join(answer), `found ${lines.map((_, nth) => `${nth},`).join("")}`)
    }))

  it.effect("has answered within a second of its end, though something goes on printing without a pause", () =>
    Effect.gen(function*() {
      const { answer } = yield* asking({ stdout: Stream.concat(Stream.make("s"), Stream.forever(after(5, "."))) })
      yield* pass("5 millis", 200)
      assert.isDefined(answer.pollUnsafe())
      assert.match(yield* Fiber.join(answer), /^found s\.+$/)
    }))

  it.effect("has not printed what comes a while after its end", () =>
    Effect.gen(function*() {
      const { answer } = yield* asking({ stdout: joined([Stream.make("s"), after("40 millis", "LATE"), held]) })
      yield* pass("5 millis", 40)
      assert.strictEqual(yield* Fiber.join(answer), "found s")
    }))

  it.effect("leaves nothing alive when it ends, however it does", () =>
    Effect.gen(function*() {
      for (const exitCode of [Effect.succeed(0), Effect.succeed(3), killed]) {
        const { answer, kills } = yield* asking({ stdout: Stream.concat(Stream.make("s"), held), exitCode })
        // Before any time has passed.
        assert.deepStrictEqual(kills, ["SIGKILL"])
        yield* pass("10 millis", 2)
        yield* Fiber.join(answer)
      }
    }))

  it.effect("is read on when it has answered, without haste and keeping nothing, until nothing holds its output", () =>
    Effect.gen(function*() {
      let pulled = 0
      let isHeld = true
      let end: string | undefined
      const flood = Stream.fromEffect(Effect.map(Effect.sleep(1), () => `${++pulled}`)).pipe(
        Stream.forever,
        Stream.takeWhile(() => isHeld),
        Stream.onExit((exit) => Effect.sync(() => void (end = exit._tag)))
      )
      const { answer } = yield* asking({ stdout: Stream.concat(Stream.make("s"), flood) })
      yield* pass("10 millis", 105)
      assert.isDefined(answer.pollUnsafe())
      const before = pulled
      yield* pass("100 millis", 20)
      assert.isAtLeast(pulled, before + 10)
      assert.isAtMost(pulled, before + 20)
      isHeld = false
      yield* pass("100 millis", 3)
      assert.strictEqual(end, "Success")
    }))

  it.live.skipIf(process.platform !== "linux")(
    "leaves no pipe open that nothing holds any more",
    () =>
      Effect.gen(function*() {
        const folder = yield* stubs({
          stub: sh(`[ "$2" = first ] || setsid sh -c 'sleep 0.3; printf hello; sleep 0.1' & printf s`)
        })
        const provider = yield* Effect.provide(
          CommandSecretProvider.make({ command: `${folder.path}/stub`, inherit: ["PATH"] }),
          Processes
        )
        // The first brings what Node keeps open for all.
        yield* outcomeOf(provider.get("first"))
        const before = pipes()
        const refs = ["a", "b", "c", "d"]
        const answers = yield* Effect.forEach(refs, (ref) => outcomeOf(provider.get(ref)), { concurrency: "unbounded" })
        assert.deepStrictEqual(answers, refs.map(() => "found s"))
        for (let looks = 0; looks < 300 && pipes() > before; looks++) yield* Effect.sleep(10)
        assert.isAtMost(pipes(), before)
      })
  )

  it.live.skipIf(process.platform !== "linux")(
    "answers at once, and what it leaves behind is gone at once, though that ignores SIGTERM",
    () =>
      Effect.gen(function*() {
        for (
          const [end, outcome] of [["exit 0", "found s"], ["exit 3", "SecretUnavailable failed"], [
            "kill -9 $$",
            "SecretUnavailable failed"
          ]]
        ) {
          // Who asks politely first gives it a second, so one quick end says that nobody did, whatever else is going on here.
          let fastest = Infinity
          for (let tries = 0; tries < 5 && fastest >= 900; tries++) {
            const folder = yield* stubs({
              stub: sh(
                `(trap '' TERM; echo x > "$FOLDER/t"; while :; do /bin/sleep 0.2; done) & while ! [ -e "$FOLDER/t" ]; do :; done; ` +
                  `echo $! > "$FOLDER/child"; printf s; ${end}`
              )
            })
            const provider = yield* Effect.provide(
              CommandSecretProvider.make({ command: `${folder.path}/stub`, env: { FOLDER: folder.path } }),
              Processes
            )
            const start = performance.now()
            assert.strictEqual(yield* outcomeOf(provider.get("r")), outcome)
            while (isAlive(Number(folder.read("child")))) yield* Effect.sleep(5)
            fastest = Math.min(fastest, performance.now() - start)
          }
          assert.isBelow(fastest, 900, end)
        }
      }),
    20_000
  )
})
