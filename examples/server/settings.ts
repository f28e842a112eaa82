/**
 * The server's configuration: everything has a default, nothing needs a service.
 *
 * A mistake is one line that names the variable. Values are not repeated, because a misplaced one may be a key.
 */
import { Config, ConfigProvider, Data, Effect, Redacted, Schema } from "effect"
import { ApiKey } from "effect-toolops/auth"
import { readFile } from "node:fs/promises"

/** What the person who starts the server got wrong. */
export class SettingsError
  extends Data.TaggedError("SettingsError")<{ readonly field: string; readonly problem: string }>
{
  override get message(): string {
    return `${this.field}: ${this.problem}`
  }
}

export interface Key {
  readonly key: Redacted.Redacted<string>
  readonly principal: string
  readonly roles: ReadonlyArray<string>
}

export interface Settings {
  readonly host: string
  readonly port: number
  readonly keys: ReadonlyArray<Key>
  readonly callsPerMinute: number
  /** Where the notes are kept. Without it they last as long as the server. */
  readonly notesPath: string | undefined
  /** Where quotes come from. Without it the server starts an upstream of its own. */
  readonly quotesUrl: string | undefined
  /** What whoever has started the server over stdio may do. */
  readonly stdioRole: "reader" | "writer"
}

/** Each variable, what it may be, and what it is for. */
export const variables = {
  TOOLOPS_HOST: "a host name or address of this machine to listen on (default 127.0.0.1)",
  TOOLOPS_PORT: "a port from 0 to 65535, where 0 takes a free one (default 8787)",
  TOOLOPS_KEYS_FILE: "a JSON file with a list of { key, principal, roles } (default: new keys at each start)",
  TOOLOPS_LIMIT: "a whole number from 1: how many calls a caller has per minute (default 60)",
  TOOLOPS_NOTES: "the path of a SQLite file for the notes (default: one that is removed at the end)",
  TOOLOPS_QUOTES_URL: "the http or https address of where quotes come from (default: an upstream of the server's own)",
  TOOLOPS_STDIO_ROLE: "reader or writer: what the caller may do where the server speaks over stdio (default reader)"
} as const

type Variable = keyof typeof variables

const field = <A>(name: Variable, make: (name: string) => Config.Config<A>, fallback: NoInfer<A>) =>
  Effect.mapError(
    make(name).pipe(Config.withDefault(fallback)),
    () => new SettingsError({ field: name, problem: `must be ${variables[name]}` })
  )

const Positive = Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))

const Role = Schema.Literals(["reader", "writer"])

const HttpUrl = Schema.String.check(
  Schema.makeFilter((text: string) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol))
)

const KeyFile = Schema.fromJsonString(
  Schema.Array(Schema.Struct({
    key: Schema.RedactedFromValue(Schema.String.check(Schema.isPattern(/^[\x21-\x7e]{16,512}$/))),
    principal: Schema.NonEmptyString,
    roles: Schema.Array(Role)
  })).check(
    Schema.makeFilter((keys) => new Set(keys.map(({ key }) => Redacted.value(key))).size === keys.length)
  )
)

const readKeys = (path: string): Effect.Effect<ReadonlyArray<Key>, SettingsError> => {
  const problem = (text: string) => new SettingsError({ field: "TOOLOPS_KEYS_FILE", problem: text })
  return Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: () => problem(`cannot read ${path}`)
  }).pipe(
    Effect.flatMap((text) =>
      Effect.mapError(Schema.decodeEffect(KeyFile)(text, { onExcessProperty: "error" }), () =>
        problem(
          `${path} must hold a JSON list of { key, principal, roles }, all keys different and of 16 to 512 printable characters, roles from reader and writer`
        ))
    )
  )
}

/** Keys for a server that was given none: new ones each time, so that no key is known to everybody. */
export const newKeys = (...callers: ReadonlyArray<Omit<Key, "key">>): Effect.Effect<ReadonlyArray<Key>> =>
  Effect.forEach(callers, (caller) => Effect.map(ApiKey.generate(), (key) => ({ ...caller, key })))

/** Reads the settings, and refuses variables of ours that it does not know. */
export const load = (environment: Record<string, string | undefined>): Effect.Effect<Settings, SettingsError> =>
  Effect.gen(function*() {
    for (const name of Object.keys(environment)) {
      if (name.startsWith("TOOLOPS_") && !Object.hasOwn(variables, name)) {
        const known = Object.keys(variables).join(", ")
        return yield* new SettingsError({ field: name, problem: `unknown, expected one of ${known}` })
      }
    }
    const keysFile = yield* field("TOOLOPS_KEYS_FILE", Config.NonEmptyString, "")
    return {
      host: yield* field("TOOLOPS_HOST", Config.NonEmptyString, "127.0.0.1"),
      port: yield* field("TOOLOPS_PORT", (name) => Config.schema(PortNumber, name), 8787),
      callsPerMinute: yield* field("TOOLOPS_LIMIT", (name) => Config.schema(Positive, name), 60),
      notesPath: (yield* field("TOOLOPS_NOTES", Config.NonEmptyString, "")) || undefined,
      quotesUrl: (yield* field("TOOLOPS_QUOTES_URL", (name) => Config.schema(HttpUrl, name), "")) || undefined,
      stdioRole: yield* field("TOOLOPS_STDIO_ROLE", (name) => Config.schema(Role, name), "reader"),
      keys: keysFile === ""
        ? yield* newKeys({ principal: "ruth", roles: ["reader"] }, { principal: "walt", roles: ["writer"] })
        : yield* readKeys(keysFile)
    }
  }).pipe(Effect.provideService(
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromEnvRecord(environment as Record<string, string>)
  ))

const PortNumber = Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 65_535 }))
