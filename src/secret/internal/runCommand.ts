import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Redacted from "effect/Redacted"
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

/** Reads to the end in any case, or the program would wait for somebody who does, and keeps the first bytes. */
const firstBytes = <E, R>(stream: Stream.Stream<Uint8Array, E, R>, most: number) =>
  Effect.map(
    Stream.runFold(stream, () => ({ size: 0, chunks: [] as Array<Uint8Array> }), (all, chunk) => {
      const kept = chunk.subarray(0, most - all.size)
      if (kept.length > 0) all.chunks.push(kept)
      all.size += kept.length
      return all
    }),
    ({ chunks, size }) => {
      const bytes = new Uint8Array(size)
      let at = 0
      for (const chunk of chunks) {
        bytes.set(chunk, at)
        at += chunk.length
      }
      return bytes
    }
  )

class TooLarge {
  readonly _tag = "TooLarge"
}

/** Runs a program to its end. It is killed, with all that it has started, when it says too much or takes too long. */
export const runCommand = (
  program: Program
): Effect.Effect<Outcome, never, ChildProcessSpawner.ChildProcessSpawner> =>
  Effect.scoped(Effect.gen(function*() {
    const handle = yield* ChildProcess.make(program.command, program.args, {
      env: program.env,
      extendEnv: false,
      stdin: "ignore",
      forceKillAfter: "1 second"
    })
    let size = 0
    const limited = Stream.mapEffect(handle.stdout, (chunk) => {
      size += chunk.length
      return size > program.maxBytes ? Effect.fail(new TooLarge()) : Effect.succeed(chunk)
    })
    const [output, complaint, code] = yield* Effect.all([
      firstBytes(limited, program.maxBytes),
      firstBytes(handle.stderr, complaintBytes),
      handle.exitCode
    ], { concurrency: "unbounded" })
    return {
      _tag: "Exited",
      code,
      output,
      complaint: new TextDecoder().decode(complaint)
    } as const
  })).pipe(
    Effect.timeoutOrElse({
      duration: program.timeout,
      orElse: () => Effect.succeed<Outcome>({ _tag: "Late" })
    }),
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
