import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { ReferenceRefused, SecretError, SecretNotFound, SecretUnavailable } from "../SecretError.ts"

// What can become of a question to a provider. Nothing here takes a text of anybody else's.

export const notFound = (provider: string, ref: string): SecretError =>
  new SecretError({ reason: new SecretNotFound({ provider, ref }) })

export const refused = (provider: string, ref: string): SecretError =>
  new SecretError({ reason: new ReferenceRefused({ provider, ref }) })

export const unavailable = (provider: string, ref: string, problem: SecretUnavailable["problem"]): SecretError =>
  new SecretError({ reason: new SecretUnavailable({ provider, ref, problem }) })

/** A value as providers give it. An empty one is a secret that is not there: nothing good comes of sending it. */
export const found = (
  provider: string,
  ref: string,
  value: string | undefined
): Effect.Effect<Redacted.Redacted, SecretError> =>
  value === undefined || value === ""
    ? Effect.fail(notFound(provider, ref))
    : Effect.succeed(Redacted.make(value, { label: `${provider}:${ref}` }))

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The text of some bytes, or undefined where they are none. */
export const textOf = (bytes: Uint8Array): string | undefined => {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}

/** Takes one newline off the end, as editors and commands put one there. What else is there belongs to the secret. */
export const withoutNewline = (text: string): string => text.replace(/\r?\n$/, "")

/** Reads `%2F` and the like, for names that hold what otherwise separates them. Undefined where that is misspelt. */
export const percentDecoded = (text: string): string | undefined => {
  if (!text.includes("%")) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const control = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/

/** Says whether a text could be a name: not empty, well-formed, without control characters. */
export const isName = (text: string | undefined): text is string =>
  text !== undefined && text !== "" && !control.test(text) && text.isWellFormed()

const providerName = /^[a-z][a-z0-9_-]{0,63}$/

/** Checks the name of a provider. */
export const checkName = (where: string, name: string): string => {
  if (typeof name !== "string" || !providerName.test(name)) {
    throw new TypeError(`${where}: name must be 1 to 64 of the characters a-z 0-9 _ - and start with a letter`)
  }
  return name
}
