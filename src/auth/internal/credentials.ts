import type { RequestHeadersInput } from "../../ToolCall.ts"

// How credentials are read out of headers. One rule for every authenticator: a header that is not there is `undefined`,
// one that cannot be read in exactly one way is `ambiguous`, and nobody guesses.

/** A header that was sent more than once. */
export const ambiguous: unique symbol = Symbol("effect-toolops/auth/ambiguous")

/** What was found: nothing, one value, or more than one. */
export type Found = string | typeof ambiguous | undefined

/**
 * The value of the header `name` (given in lower case), whatever case the request has it in. Two spellings of one name
 * are two headers.
 */
export const header = (headers: RequestHeadersInput, name: string): Found => {
  let found: Found = undefined
  // Cheaper than `Object.keys`, but it also visits what is inherited.
  for (const key in headers) {
    if (key.length !== name.length || (key !== name && key.toLowerCase() !== name)) continue
    if (!Object.hasOwn(headers, key)) continue
    const value = headers[key]
    if (value === undefined) continue
    if (found !== undefined) return ambiguous
    if (typeof value === "string") {
      found = value
    } else if (!Array.isArray(value) || value.length > 1 || value.some((one) => typeof one !== "string")) {
      return ambiguous
    } else if (value.length === 1) {
      found = value[0]
    }
  }
  return found
}

// The characters of RFC 9110's token68. A comma or a second space would be a list of credentials.
const token68 = /^[A-Za-z0-9\-._~+/]+=*$/

/**
 * The text behind `scheme` (given in lower case) and one space in the `Authorization` header, not looked at yet.
 * `undefined` when there is no such header or it is of another scheme.
 */
export const rawAuthorization = (headers: RequestHeadersInput, scheme: string): Found => {
  const value = header(headers, "authorization")
  if (typeof value !== "string") return value
  const end = scheme.length
  if (value.length < end || value.slice(0, end).toLowerCase() !== scheme) return undefined
  if (value.length > end && value.charCodeAt(end) !== 32) {
    // `Bearerx ...` is another scheme, `Bearer\t...` and `Bearer,` are a broken one.
    return /^[A-Za-z0-9!#$%&'*+\-.^_`|~]/.test(value.slice(end)) ? undefined : ambiguous
  }
  return value.slice(end + 1)
}

/** The same, and `ambiguous` when it is not one well-formed credential. */
export const authorization = (headers: RequestHeadersInput, scheme: string): Found => {
  const value = rawAuthorization(headers, scheme)
  return typeof value !== "string" || token68.test(value) ? value : ambiguous
}
