/**
 * Reads credentials out of the headers of a request. Users find all of it in `Authenticator`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { controls } from "../internal/controls.ts"
import type { RequestHeadersInput } from "../ToolCall.ts"
import * as AuthError from "./AuthError.ts"
import { ambiguous, authorization, header } from "./internal/credentials.ts"

const none: Effect.Effect<Option.Option<never>> = Effect.succeedNone

const bad = (): Effect.Effect<never, AuthError.AuthError> => Effect.fail(AuthError.refused("InvalidCredentials"))

/**
 * The value of a header. None when it is not there, a failure when it is there more than once.
 *
 * @category headers
 * @since 0.1.0
 */
export const headerValue = (
  headers: RequestHeadersInput,
  name: string
): Effect.Effect<Option.Option<string>, AuthError.AuthError> => toOption(header(headers, name.toLowerCase()))

const toOption = (
  found: ReturnType<typeof header>
): Effect.Effect<Option.Option<string>, AuthError.AuthError> =>
  found === undefined ? none : found === ambiguous ? bad() : Effect.succeedSome(found)

/**
 * The token of `Authorization: Bearer <token>`. None without that header or with another scheme, a failure when there
 * is not exactly one well-formed token.
 *
 * @category headers
 * @since 0.1.0
 */
export const bearer = (
  headers: RequestHeadersInput
): Effect.Effect<Option.Option<Redacted.Redacted<string>>, AuthError.AuthError> =>
  Effect.map(toOption(authorization(headers, "bearer")), Option.map((token) => Redacted.make(token)))

/**
 * The user name and the password of `Authorization: Basic <base64>` (RFC 7617, in UTF-8). None without that header or with
 * another scheme, a failure when it is not canonical base64, has no colon or holds a control character.
 *
 * @category headers
 * @since 0.1.0
 */
export const basic = (
  headers: RequestHeadersInput
): Effect.Effect<
  Option.Option<{ readonly username: string; readonly password: Redacted.Redacted<string> }>,
  AuthError.AuthError
> =>
  Effect.suspend(() => {
    const found = authorization(headers, "basic")
    if (found === undefined) return none
    const text = found === ambiguous || found.length > 16_384 ? undefined : decodeBasic(found)
    const colon = text === undefined ? -1 : text.indexOf(":")
    return text === undefined || colon === -1
      ? bad()
      : Effect.succeedSome({ username: text.slice(0, colon), password: Redacted.make(text.slice(colon + 1)) })
  })

const decodeBasic = (encoded: string): string | undefined => {
  try {
    const binary = atob(encoded)
    // One spelling for one credential (RFC 4648, 3.5).
    if (btoa(binary) !== encoded) return undefined
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0))
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
    return controls.test(text) ? undefined : text
  } catch {
    return undefined
  }
}
