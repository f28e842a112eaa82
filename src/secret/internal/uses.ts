import * as Context from "effect/Context"
import type * as Redacted from "effect/Redacted"

/**
 * The texts with references that a configuration has resolved, and what they came to the first time: where that differs
 * from a later time, somebody holds what is no longer true.
 */
export type Uses = Map<string, Redacted.Redacted>

/** Where to write down what is used, if anybody wants to know. */
export const CurrentUses: Context.Reference<Uses | undefined> = Context.Reference<Uses | undefined>(
  "effect-toolops/secret/CurrentUses",
  { defaultValue: () => undefined }
)
