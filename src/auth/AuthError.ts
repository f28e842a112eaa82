/**
 * Why a call was refused by the auth stage.
 *
 * Messages are fixed and hold nothing of the caller's. The reason says what a client can do about it.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { refusal } from "../internal/refusal.ts"

/** @category errors @since 0.1.0 */
export class MissingCredentials extends Schema.TaggedError<MissingCredentials>(
  "effect-toolops/auth/AuthError/MissingCredentials"
)("MissingCredentials", {}) {
  override get message(): string {
    return "No credentials were presented"
  }
}

/** @category errors @since 0.1.0 */
export class InvalidCredentials extends Schema.TaggedError<InvalidCredentials>(
  "effect-toolops/auth/AuthError/InvalidCredentials"
)("InvalidCredentials", {}) {
  override get message(): string {
    return "The credentials are not valid"
  }
}

/** @category errors @since 0.1.0 */
export class TokenExpired extends Schema.TaggedError<TokenExpired>("effect-toolops/auth/AuthError/TokenExpired")(
  "TokenExpired",
  {}
) {
  override get message(): string {
    return "The credentials have expired"
  }
}

/** @category errors @since 0.1.0 */
export class TokenMalformed extends Schema.TaggedError<TokenMalformed>("effect-toolops/auth/AuthError/TokenMalformed")(
  "TokenMalformed",
  {}
) {
  override get message(): string {
    return "The token is malformed"
  }
}

/** @category errors @since 0.1.0 */
export class TokenInactive extends Schema.TaggedError<TokenInactive>("effect-toolops/auth/AuthError/TokenInactive")(
  "TokenInactive",
  {}
) {
  override get message(): string {
    return "The token is not active"
  }
}

/** @category errors @since 0.1.0 */
export class KeyNotFound extends Schema.TaggedError<KeyNotFound>("effect-toolops/auth/AuthError/KeyNotFound")(
  "KeyNotFound",
  {}
) {
  override get message(): string {
    return "No key is known for the credentials"
  }
}

/** @category errors @since 0.1.0 */
export class AuthUnavailable extends Schema.TaggedError<AuthUnavailable>(
  "effect-toolops/auth/AuthError/AuthUnavailable"
)("AuthUnavailable", {}) {
  override get message(): string {
    return "The credentials cannot be checked at the moment"
  }
}

/** @category errors @since 0.1.0 */
export class Forbidden extends Schema.TaggedError<Forbidden>("effect-toolops/auth/AuthError/Forbidden")("Forbidden", {
  tool: Schema.String,
  action: Schema.String
}) {
  override get message(): string {
    return "The caller may not do this with the tool"
  }
}

/** @category errors @since 0.1.0 */
export class InsufficientScope extends Schema.TaggedError<InsufficientScope>(
  "effect-toolops/auth/AuthError/InsufficientScope"
)("InsufficientScope", { tool: Schema.String, requiredScopes: Schema.Array(Schema.String) }) {
  override get message(): string {
    return "The caller lacks a scope that the tool needs"
  }
}

/**
 * Every reason of an `AuthError`.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([
  MissingCredentials,
  InvalidCredentials,
  TokenExpired,
  TokenMalformed,
  TokenInactive,
  KeyNotFound,
  AuthUnavailable,
  Forbidden,
  InsufficientScope
])

/**
 * A refusal of the auth stage. Catch one reason with `Effect.catchReason("AuthError", "Forbidden", ...)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class AuthError extends Schema.TaggedError<AuthError>("effect-toolops/auth/AuthError")("AuthError", {
  reason: Reason
}) {
  override get message(): string {
    return this.reason.message
  }

  /** Whether the same call may fare better by itself: only when the credentials could not be checked. */
  get retryable(): boolean {
    return this.reason._tag === "AuthUnavailable"
  }
}

/** @internal */
export const authError = (reason: AuthError["reason"]): AuthError => refusal(AuthError, { _tag: "AuthError", reason })

// The reasons without fields are always the same, so each is made once.
const plain = {
  MissingCredentials: refusal(MissingCredentials, { _tag: "MissingCredentials" }),
  InvalidCredentials: refusal(InvalidCredentials, { _tag: "InvalidCredentials" }),
  TokenExpired: refusal(TokenExpired, { _tag: "TokenExpired" }),
  TokenMalformed: refusal(TokenMalformed, { _tag: "TokenMalformed" }),
  TokenInactive: refusal(TokenInactive, { _tag: "TokenInactive" }),
  KeyNotFound: refusal(KeyNotFound, { _tag: "KeyNotFound" }),
  AuthUnavailable: refusal(AuthUnavailable, { _tag: "AuthUnavailable" })
}

/** @internal A refusal whose reason has no fields. */
export const refused = (reason: keyof typeof plain): AuthError => authError(plain[reason])

/** @internal */
export const forbidden = (tool: string, action: string): AuthError =>
  authError(refusal(Forbidden, { _tag: "Forbidden", tool, action }))

/** @internal */
export const insufficientScope = (tool: string, requiredScopes: ReadonlyArray<string>): AuthError =>
  authError(refusal(InsufficientScope, { _tag: "InsufficientScope", tool, requiredScopes }))

/** @internal Says whether the reason is about who the caller is rather than what the caller may do. */
export const isAboutIdentity = (reason: AuthError["reason"]): boolean =>
  reason._tag !== "Forbidden" && reason._tag !== "InsufficientScope"
