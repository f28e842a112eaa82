import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import { cut } from "../../internal/cut.ts"
import type { Redaction } from "../Redaction.ts"

const maxLength = 1024

// What programmers write as the tag of an error.
const wellFormed = /^[\w.:/@-]{1,128}$/
const maxRemembered = 256

/** The tags of errors as they are told: what is no tag, or looks like a secret, is `error`. */
export const makeTagText = (redaction: Redaction): (tag: string) => string => {
  const remembered = new Map<string, string>()
  return (tag) => {
    let told = remembered.get(tag)
    if (told === undefined) {
      told = wellFormed.test(tag) && redaction.text(tag) === tag ? tag : "error"
      if (remembered.size < maxRemembered) remembered.set(tag, told)
    }
    return told
  }
}

/** The text of the first error of a failed exit, redacted and short. Undefined for interruption and for no text. */
export const errorText = (exit: Exit.Exit<unknown, unknown>, redaction: Redaction): string | undefined => {
  if (exit._tag === "Success") return undefined
  try {
    const failed = exit.cause.reasons.find(Cause.isFailReason)
    const died = failed === undefined ? exit.cause.reasons.find(Cause.isDieReason) : undefined
    const text = failed === undefined ? died && messageOf(died.defect) : messageOf(failed.error)
    if (text === undefined || text === "") return undefined
    const redacted = redaction.text(text)
    return redacted.length <= maxLength ? redacted : `${cut(redacted, maxLength)}[cut]`
  } catch {
    return "[unreadable]"
  }
}

// The members of an error that is no `Error` may be anything, so only its message is told.
const messageOf = (error: unknown): string | undefined => {
  if (typeof error === "string") return error
  if (typeof error !== "object" || error === null || !("message" in error)) return undefined
  return typeof error.message === "string" ? error.message : undefined
}

/**
 * An exit that says the same as `exit` and holds nothing of it: exporters write out messages, stacks and causes of what
 * a span ends with.
 */
export const exitForSpan = (
  exit: Exit.Exit<unknown, unknown>,
  errorType: string | undefined,
  text: string | undefined
): Exit.Exit<unknown, unknown> => {
  if (exit._tag === "Success") return Exit.void
  if (Cause.hasInterruptsOnly(exit.cause)) return Exit.interrupt()
  const failure = new SpanFailure(errorType ?? "error", text ?? errorType ?? "error")
  return Cause.hasFails(exit.cause) ? Exit.fail(failure) : Exit.die(failure)
}

/** An error without a stack: it would show nothing but this module. */
class SpanFailure implements Error {
  readonly name: string
  readonly message: string
  readonly stack = ""

  constructor(name: string, message: string) {
    this.name = name
    this.message = message
  }
}
