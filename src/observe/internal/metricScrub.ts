import type { Redaction } from "../Redaction.ts"
import { replacement } from "../Redaction.ts"

// What metrics say of themselves leaves the program by more than one way, and by each without what looks like a secret.

// Names of tools and of what they depend on are the program's own, and tell series apart: a tool `secrets:list` is not a
// secret with the value `list`.
const names = new Set(["tool.id", "tool.name", "tool.namespace", "tool.version", "gen_ai.tool.name", "dependency"])

/** Anything as text, whatever it does when it is asked for it. */
export const textOf = (value: unknown): string => {
  try {
    return String(value)
  } catch {
    return "[unreadable]"
  }
}

/** The value of a label. */
export const scrubLabel = (name: string, value: unknown, redaction: Redaction): string => {
  // Effect's frequencies have their words under `key`, which would be a sensitive one anywhere else.
  if (name !== "key" && redaction.isSensitiveKey(name)) return replacement
  const text = textOf(value)
  return names.has(name) ? text : redaction.text(text)
}
