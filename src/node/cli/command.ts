import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as AuditLog from "../../auth/AuditLog.ts"
import { makeProgress } from "./progress.ts"

/** The log is bad, or cannot be checked: what there is to say has been said. */
class Bad extends Data.TaggedError("Bad") {}

class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

// A key is never an argument: those can be read by every user of the machine, and stay in a shell's history.
const keyEnv = Flag.String("key-env").pipe(
  Flag.withDescription("Name of the environment variable that holds the key"),
  Flag.withDefault("EFFECT_TOOLOPS_AUDIT_KEY")
)
const keyFile = Flag.String("key-file").pipe(
  Flag.withDescription("File that holds the key, instead of an environment variable; a line end after it is left out"),
  Flag.optional
)

const verify = Command.make("verify", {
  file: Argument.String("file").pipe(
    Argument.withDescription("The log. Files that rotation has put aside are found beside it")
  ),
  keyEnv,
  keyFile,
  algorithm: Flag.Literals("algorithm", ["hmac-sha256", "ed25519"]).pipe(
    Flag.withDescription("What the log was written with; for ed25519 the key is the public one"),
    Flag.withDefault("hmac-sha256" as const)
  ),
  checkpoints: Flag.String("checkpoints").pipe(
    Flag.withDescription("The file of checkpoints, if not <file>.checkpoints"),
    Flag.optional
  ),
  withoutCheckpoints: Flag.Boolean("without-checkpoints").pipe(
    Flag.withDescription("Do without checkpoints: then an end that was cut off is not found"),
    Flag.withDefault(false)
  ),
  logId: Flag.String("log-id").pipe(
    Flag.withDescription("The id that the log must have, as an earlier check has printed it"),
    Flag.optional
  ),
  firstSeq: Flag.Int("first-seq").pipe(
    Flag.withDescription("Number of the first line, where older files were moved away"),
    Flag.withDefault(1)
  ),
  json: Flag.Boolean("json").pipe(Flag.withDescription("Print the report as JSON"), Flag.withDefault(false))
}, (options) =>
  Effect.gen(function*() {
    const key = yield* readKey(options)
    const checkpoints = options.withoutCheckpoints ? false : Option.getOrUndefined(options.checkpoints)
    const { algorithm, file, firstSeq, json } = options
    const progress = yield* makeProgress
    const report = yield* Effect.ensuring(
      check(file, {
        key,
        algorithm,
        firstSeq,
        checkpoints,
        logId: Option.getOrUndefined(options.logId),
        onProgress: progress.show
      }),
      progress.clear
    )
    yield* print(json ? JSON.stringify(report) : tell(report))
    if (report.bad !== undefined) return yield* new Bad()
  }).pipe(
    Effect.catchTag("Refused", ({ message }) => Effect.andThen(Console.error(`effect-toolops: ${message}`), new Bad()))
  )).pipe(
    Command.withDescription("Check an audit log, and name its first bad line. Exit code 0 when all is good, else 1"),
    Command.withExamples([
      { command: "effect-toolops audit verify audit.log", description: "With the key in EFFECT_TOOLOPS_AUDIT_KEY" },
      { command: "effect-toolops audit verify audit.log --key-file key.txt", description: "With the key in a file" }
    ])
  )

// Not with the console, which is silent about what it cannot write: an answer that nobody gets is none.
const print = (text: string): Effect.Effect<void, Refused> =>
  Effect.callback((resume) => {
    const { stdout } = process
    const end = (error: Error | null | undefined): void => {
      resume(error ? Effect.fail(new Refused({ message: `cannot write the answer: ${error.message}` })) : Effect.void)
    }
    // Told to both, and whoever does not listen to the event has the process ended.
    stdout.once("error", end)
    stdout.write(`${text}\n`, end)
  })

const readKey = (
  { keyEnv, keyFile }: { readonly keyEnv: string; readonly keyFile: Option.Option<string> }
): Effect.Effect<Redacted.Redacted<string>, Refused, FileSystem.FileSystem> =>
  Option.match(keyFile, {
    onNone: () =>
      Effect.mapError(
        Config.Redacted(keyEnv),
        () => new Refused({ message: `no key: set the environment variable ${keyEnv}, or name a file with --key-file` })
      ),
    onSome: (path) =>
      FileSystem.FileSystem.pipe(
        Effect.flatMap((fs) => fs.readFileString(path)),
        Effect.mapError(() => new Refused({ message: `the key cannot be read from ${path}` })),
        Effect.map((text) => Redacted.make(text.replace(/\r?\n$/, "")))
      )
  })

// What is thrown for a nonsense option says who, what, and what came, and nothing of the key.
const check = (
  file: string,
  options: AuditLog.VerifyOptions
): Effect.Effect<AuditLog.Report, Refused, FileSystem.FileSystem> =>
  Effect.flatMap(
    Effect.try({
      try: () => AuditLog.verify(file, options),
      catch: (error) => new Refused({ message: error instanceof Error ? error.message : String(error) })
    }),
    Effect.mapError(({ message, reason }) =>
      new Refused({ message: reason._tag === "Unusable" ? `${message}: ${reason.problem}` : message })
    )
  )

const explanations: Record<AuditLog.Problem, string> = {
  changed: "the line is not the one that was written",
  missing: "lines that were written are not there",
  duplicated: "the line was written once, at another place",
  reordered: "the line's place is further on",
  truncated: "the log ends before the last line that its checkpoints speak of",
  forged: "the line was not made with this key",
  spliced: "the line comes from another course of this log",
  empty: "there is no record: nothing was ever recorded, or everything is gone",
  torn: "the line has no end, as after a crash; the log puts it right when it is opened"
}

const tell = ({ bad, checkpoints, files, lastSeq, logId, records }: AuditLog.Report): string => {
  const good = `${records} records up to number ${lastSeq}, files: ${files}, checkpoints: ${checkpoints}, log id: ${
    logId ?? "unknown"
  }`
  return bad === undefined
    ? `good: ${good}`
    : `bad: ${bad.path} line ${bad.line}: ${bad.problem}: ${
      explanations[bad.problem]
    } (should be record ${bad.seq})\n` +
      `good before it: ${good}`
}

const audit = Command.make("audit").pipe(
  Command.withDescription("What there is to do with audit logs"),
  Command.withSubcommands([verify])
)

/** The command. Fails when the exit code is to be 1. */
export const run = (version: string) =>
  Command.run(
    Command.make("effect-toolops").pipe(
      Command.withDescription("The operations layer for tools that agents call"),
      Command.withSubcommands([audit])
    ),
    { version }
  )
