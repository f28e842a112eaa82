/**
 * Why a secret could not be had.
 *
 * Errors name the provider and the reference, never a value, and nothing that a provider says: its texts may quote what
 * they should not.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * What is wrong with a text that should hold references.
 *
 * @category models
 * @since 0.1.0
 */
export const Problem = Schema.Literals([
  "a reference needs a provider: secretref:<provider>:<ref>",
  "a provider is 1 to 64 of a-z 0-9 _ -, starting with a letter",
  "a reference needs a name after its provider",
  "the name of a secret is too long",
  "the name of a secret holds a character that it may not hold",
  "secretref must be written in small letters",
  "${ is not closed",
  "a variable is named by letters, digits and _, not starting with a digit",
  "a single $ must be written $$"
])

/** @category errors @since 0.1.0 */
export class MalformedReference extends Schema.TaggedError<MalformedReference>(
  "effect-toolops/secret/SecretError/MalformedReference"
)("MalformedReference", { position: Schema.Int, problem: Problem }) {
  override get message(): string {
    return `Malformed at position ${this.position}: ${this.problem}`
  }
}

/** @category errors @since 0.1.0 */
export class VariableNotSet extends Schema.TaggedError<VariableNotSet>(
  "effect-toolops/secret/SecretError/VariableNotSet"
)("VariableNotSet", { name: Schema.String }) {
  override get message(): string {
    return `The variable ${this.name} is not set`
  }
}

/** @category errors @since 0.1.0 */
export class ProviderNotFound extends Schema.TaggedError<ProviderNotFound>(
  "effect-toolops/secret/SecretError/ProviderNotFound"
)("ProviderNotFound", { provider: Schema.String }) {
  override get message(): string {
    return `No secret provider is named ${this.provider}`
  }
}

/**
 * The provider takes no reference of this form, such as a path that leads out of its directory.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReferenceRefused extends Schema.TaggedError<ReferenceRefused>(
  "effect-toolops/secret/SecretError/ReferenceRefused"
)("ReferenceRefused", { provider: Schema.String, ref: Schema.String }) {
  override get message(): string {
    return `The provider ${this.provider} takes no reference of the form ${this.ref}`
  }
}

/** @category errors @since 0.1.0 */
export class SecretNotFound extends Schema.TaggedError<SecretNotFound>(
  "effect-toolops/secret/SecretError/SecretNotFound"
)("SecretNotFound", { provider: Schema.String, ref: Schema.String }) {
  override get message(): string {
    return `The provider ${this.provider} has no secret ${this.ref}`
  }
}

/**
 * Why a provider gives no secret, although there may be one.
 *
 * - `denied`: it may not be read with the credentials of the program.
 * - `sealed`: the vault has to be unsealed first.
 * - `ambiguous`: several secrets go by this name.
 * - `unreadable`: what came is no text, or larger than allowed.
 * - `timeout`: it took too long. `failed`: anything else.
 *
 * @category models
 * @since 0.1.0
 */
export const UnavailableProblem = Schema.Literals(["failed", "timeout", "denied", "sealed", "ambiguous", "unreadable"])

/** @category errors @since 0.1.0 */
export class SecretUnavailable extends Schema.TaggedError<SecretUnavailable>(
  "effect-toolops/secret/SecretError/SecretUnavailable"
)("SecretUnavailable", {
  provider: Schema.String,
  ref: Schema.String,
  problem: UnavailableProblem
}) {
  override get message(): string {
    return `The provider ${this.provider} cannot give the secret ${this.ref} (${this.problem})`
  }
}

/**
 * Every reason of a `SecretError`.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([
  MalformedReference,
  VariableNotSet,
  ProviderNotFound,
  ReferenceRefused,
  SecretNotFound,
  SecretUnavailable
])

/**
 * A secret that could not be had. Catch one reason with `Effect.catchReason("SecretError", "SecretNotFound", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class SecretError extends Schema.TaggedError<SecretError>("effect-toolops/secret/SecretError")("SecretError", {
  reason: Reason
}) {
  override get message(): string {
    return this.reason.message
  }
}
