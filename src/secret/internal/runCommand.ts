import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { PlatformError } from "effect/PlatformError"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Check from "../../internal/options.ts"
import { environment } from "./environment.ts"

// Programs that print secrets: no shell, an environment of named variables only, bounded output and time, and no error
// that says what they have printed.

/** What to run. */
export interface Program {
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string | Redacted.Redacted | undefined>>
  readonly timeout: number
  readonly maxBytes: number
}

/** What came of it. `complaint` is the beginning of what it wrote to its standard error, for a look and not for showing. */
export type Outcome =
  | { readonly _tag: "Exited"; readonly code: number; readonly output: Uint8Array; readonly complaint: string }
  | { readonly _tag: "TooLarge" | "Late" | "Failed" }

const complaintBytes = 8192

/** What a program prints: the first bytes of it, and how much there was. */
class Printed {
  readonly most: number
  readonly #chunks: Array<Uint8Array> = []
  #kept = 0
  seen = 0

  constructor(most: number) {
    this.most = most
  }

  add(chunk: Uint8Array): void {
    this.seen += chunk.length
    const kept = chunk.subarray(0, this.most - this.#kept)
    if (kept.length > 0) this.#chunks.push(kept)
    this.#kept += kept.length
  }

  bytes(): Uint8Array {
    const bytes = new Uint8Array(this.#kept)
    let at = 0
    for (const chunk of this.#chunks) {
      bytes.set(chunk, at)
      at += chunk.length
    }
    return bytes
  }
}

class TooLarge {
  readonly _tag = "TooLarge"
}

const turnMillis = 10
const quietTurns = 2
// A pipe holds no more than is read in so many turns, however little a busy process reads in each.
const mostTurns = 100

/**
 * Ends when nothing has come for two turns of the event loop. What a program printed before it ended is in the pipe by then
 * and is read in the first of them, so a process that is too busy to read waits for longer.
 */
const quiet = (printed: Printed): Effect.Effect<void> =>
  Effect.gen(function*() {
    let seen = printed.seen
    let still = 0
    for (let turns = 0; turns < mostTurns && still < quietTurns; turns++) {
      yield* Effect.sleep(turnMillis)
      still = printed.seen === seen ? still + 1 : 0
      seen = printed.seen
    }
  })

/** Kills what a program that has ended has left in its process group. None of it is waited for: the answer is there. */
const killLeft = (handle: ChildProcessSpawner.ChildProcessHandle): Effect.Effect<void> =>
  Effect.andThen(
    Effect.forkDetach(Effect.ignore(handle.kill({ killSignal: "SIGKILL" })), { startImmediately: true }),
    Effect.ignore(handle.unref)
  )

// How long to wait after each piece that nobody wants any more, so that who prints without end is slowed down.
const discardMillis = 100

/**
 * Reads what a program says until it has ended. What it leaves behind may hold its pipes for longer and is not waited for.
 *
 * Reading goes on by itself to the end of the pipes, whatever becomes of the answer: one that is given up on would leave them
 * open for good once something is in them.
 */
const attend = (handle: ChildProcessSpawner.ChildProcessHandle, maxBytes: number, onEnd: () => void) =>
  Effect.gen(function*() {
    const output = new Printed(maxBytes)
    const complaint = new Printed(complaintBytes)
    const read = Deferred.makeUnsafe<void, TooLarge | PlatformError>()
    let isOver = false
    const reading = (stream: ChildProcessSpawner.ChildProcessHandle["stdout"], printed: Printed) =>
      Stream.runForEach(stream, (chunk) => {
        if (isOver) return Effect.sleep(discardMillis)
        printed.add(chunk)
        if (output.seen > maxBytes) Deferred.doneUnsafe(read, Effect.fail(new TooLarge()))
        return Effect.void
      })
    const both = Effect.all([reading(handle.stdout, output), reading(handle.stderr, complaint)], {
      concurrency: "unbounded",
      discard: true
    })
    yield* Effect.forkDetach(Effect.onExit(both, (exit) => Deferred.done(read, exit)), { startImmediately: true })
    const code = yield* Effect.raceFirst(
      // Its failures only.
      Effect.andThen(Deferred.await(read), Effect.never),
      Effect.exit(handle.exitCode).pipe(
        Effect.tap(() => Effect.andThen(Effect.sync(onEnd), killLeft(handle))),
        Effect.flatten,
        Effect.tap(() => Effect.raceFirst(Deferred.await(read), quiet(output)))
      )
    ).pipe(Effect.ensuring(Effect.sync(() => void (isOver = true))))
    const outcome: Outcome = {
      _tag: "Exited",
      code,
      output: output.bytes(),
      complaint: new TextDecoder().decode(complaint.bytes())
    }
    return outcome
  })

/** Runs a program to its end. It is killed, with all that it has started, when it says too much or takes too long. */
export const runCommand = (
  program: Program
): Effect.Effect<Outcome, never, ChildProcessSpawner.ChildProcessSpawner> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const scope = Scope.makeUnsafe()
      let hasEnded = false
      const outcome = Effect.gen(function*() {
        const handle = yield* ChildProcess.make(program.command, program.args, {
          env: program.env,
          extendEnv: false,
          stdin: "ignore",
          forceKillAfter: "1 second"
        })
        const attended = attend(handle, program.maxBytes, () => {
          hasEnded = true
        })
        return yield* Effect.timeoutOrElse(attended, {
          duration: program.timeout,
          orElse: () => Effect.succeed<Outcome>({ _tag: "Late" })
        })
      })
      const exit = yield* Effect.exit(restore(Scope.provide(outcome, scope)))
      const close = Effect.exit(Scope.close(scope, exit))
      // One that has ended needs nobody to wait: all of it is dead, though a system may list the dead for a while.
      yield* hasEnded ? Effect.forkDetach(close, { startImmediately: true }) : close
      return yield* exit
    })
  ).pipe(
    Effect.catch((error): Effect.Effect<Outcome> =>
      Effect.succeed({ _tag: error instanceof TooLarge ? "TooLarge" : "Failed" })
    ),
    Effect.catchDefect(() => Effect.succeed<Outcome>({ _tag: "Failed" }))
  )

/** What providers that run programs have in common. */
export interface RunnerOptions {
  readonly command: string
  readonly env?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
  readonly inherit?: ReadonlyArray<string> | undefined
  readonly timeout?: Duration.Input | undefined
  readonly maxBytes?: number | undefined
  readonly maxConcurrent?: number | undefined
}

export const runnerOptionNames = ["command", "env", "inherit", "timeout", "maxBytes", "maxConcurrent"] as const

// Without NUL, so that it means the same to us and to the operating system.
const isText = (value: unknown): value is string => typeof value === "string" && !value.includes("\0")

/** Checks that a value is a list of texts. */
export const texts = (where: string, name: string, value: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (!Array.isArray(value) || !value.every(isText)) throw new TypeError(`${where}: ${name} must be a list of strings`)
  return [...value]
}

const checkEnv = (where: string, env: NonNullable<RunnerOptions["env"]>): NonNullable<RunnerOptions["env"]> => {
  for (const [name, value] of Object.entries(env)) {
    const text: unknown = Redacted.isRedacted(value) ? Redacted.value(value) : value
    if (name === "" || name.includes("=") || !isText(name) || !isText(text)) {
      throw new TypeError(`${where}: env must hold strings or Redacted strings by the name of their variable`)
    }
  }
  return { ...env }
}

/** Checks the options; what comes back runs the program with some arguments, as often at a time as it may. */
export const runner = (
  where: string,
  options: RunnerOptions
): Effect.Effect<
  (args: ReadonlyArray<string>) => Effect.Effect<Outcome>,
  never,
  ChildProcessSpawner.ChildProcessSpawner
> => {
  const { command } = options
  if (!isText(command) || command === "") throw new TypeError(`${where}: command must be a non-empty string`)
  const inherit = texts(where, "inherit", options.inherit ?? ["PATH", "HOME"])
  const given = checkEnv(where, options.env ?? {})
  const limits = {
    timeout: Check.millis(where, "timeout", options.timeout ?? "10 seconds"),
    maxBytes: Check.integer(where, "maxBytes", options.maxBytes ?? 65_536, 1, 16_777_216)
  }
  const slots = Semaphore.makeUnsafe(Check.integer(where, "maxConcurrent", options.maxConcurrent ?? 4, 1))
  return Effect.map(Effect.service(ChildProcessSpawner.ChildProcessSpawner), (spawner) => {
    const variable = environment(undefined)
    const env: Record<string, string | Redacted.Redacted | undefined> = {}
    for (const name of inherit) env[name] = variable(name)
    Object.assign(env, given)
    return (args) =>
      runCommand({ command, args, env, ...limits }).pipe(
        Effect.provideService(ChildProcessSpawner.ChildProcessSpawner, spawner),
        Semaphore.withPermit(slots)
      )
  })
}
