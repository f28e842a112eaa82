// JSON for input that decides about access: one meaning or none. `JSON.parse` takes the last of two members with one
// name, other parsers the first, and both readers of such a text believe they have read the same.

/** What `parseStrict` answers when the text is not JSON, has a member twice, or is nested too deeply. */
export const invalid: unique symbol = Symbol("effect-toolops/auth/invalid")

const maxDepth = 32

const quote = 34
const colon = 58
const backslash = 92

const isEscaped = (text: string, at: number): boolean => {
  let start = at
  while (text.charCodeAt(start - 1) === backslash) start--
  return (at - start) % 2 === 1
}

// How many names of members a text has, which is known to be JSON: one for each colon behind a string.
const countNames = (text: string): number => {
  let names = 0
  let start = text.indexOf("\"")
  while (start !== -1) {
    let end = text.indexOf("\"", start + 1)
    while (isEscaped(text, end)) end = text.indexOf("\"", end + 1)
    let next = end + 1
    while (text.charCodeAt(next) <= 32) next++
    if (text.charCodeAt(next) === colon) names++
    start = text.charCodeAt(next) === quote ? next : text.indexOf("\"", next)
  }
  return names
}

// Freezes a value through and through and says how many members its objects have; `NaN` when it is nested too deeply.
const freezeAndCount = (value: object, depth: number): number => {
  if (depth > maxDepth) return NaN
  const members = Array.isArray(value) ? value as ReadonlyArray<unknown> : Object.values(value)
  let count = members === value ? 0 : members.length
  for (let i = 0; i < members.length; i++) {
    const member = members[i]
    if (typeof member === "object" && member !== null) count += freezeAndCount(member, depth + 1)
  }
  Object.freeze(value)
  return count
}

/** The value of a JSON text, frozen, or `invalid`. */
export const parseStrict = (text: string): unknown => {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== "object" || value === null) return value
    // `JSON.parse` drops all but the last of members with one name, and then there are fewer than were written.
    return freezeAndCount(value, 1) === countNames(text) ? value : invalid
  } catch {
    return invalid
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The same for bytes, which must be UTF-8 without a byte order mark. */
export const parseStrictBytes = (bytes: Uint8Array): unknown => {
  try {
    return parseStrict(utf8.decode(bytes))
  } catch {
    return invalid
  }
}

/** A frozen copy of a value, by way of its JSON form; `invalid` for what has none. */
export const frozenJson = (value: unknown): unknown => {
  try {
    return parseStrict(JSON.stringify(value))
  } catch {
    return invalid
  }
}

/** Says whether a value is a JSON object. */
export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

// Of the last character, how many bits are not part of any byte, by the length of the text modulo 4.
const spareBits = [0, -1, 4, 2]
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

const isLastCanonical = (text: string): boolean => {
  const spare = spareBits[text.length % 4]!
  return spare !== -1 && (alphabet.indexOf(text[text.length - 1]!) & ((1 << spare) - 1)) === 0
}

/** Says whether a text is base64url without padding, in the one spelling of its bytes (RFC 4648, 3.5). */
export const isCanonicalBase64Url = (text: string): boolean => /^[A-Za-z0-9_-]+$/.test(text) && isLastCanonical(text)

/** Header and payload of a token in compact form: three parts, each in the one spelling of its bytes. */
export const compactParts = (token: string): { readonly header: string; readonly payload: string } | undefined => {
  if (!/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/.test(token)) return undefined
  const first = token.indexOf(".")
  const second = token.indexOf(".", first + 1)
  const header = token.slice(0, first)
  const payload = token.slice(first + 1, second)
  return isLastCanonical(header) && isLastCanonical(payload) && isLastCanonical(token.slice(second + 1))
    ? { header, payload }
    : undefined
}
