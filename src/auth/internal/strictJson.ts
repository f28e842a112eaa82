// JSON for input that decides about access: one meaning or none. `JSON.parse` takes the last of two members with one
// name, other parsers the first, and both readers of such a text believe they have read the same.

/** What `parseStrict` answers when the text is not JSON, has a member twice, or is nested too deeply. */
export const invalid: unique symbol = Symbol("effect-toolops/auth/invalid")

const maxDepth = 32

const quote = 34
const comma = 44
const backslash = 92

const endOfString = (text: string, start: number): number => {
  let end = start + 1
  while (text.charCodeAt(end) !== quote) end += text.charCodeAt(end) === backslash ? 2 : 1
  return end
}

// Walks over a text that is known to be JSON.
const isUnambiguous = (text: string): boolean => {
  const open: Array<Set<string> | undefined> = []
  let nameIsNext = false
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case quote: {
        const end = endOfString(text, i)
        const names = nameIsNext ? open.at(-1) : undefined
        if (names !== undefined) {
          const raw = text.slice(i, end + 1)
          const name = raw.includes("\\") ? JSON.parse(raw) as string : raw.slice(1, -1)
          if (names.has(name)) return false
          names.add(name)
        }
        nameIsNext = false
        i = end
        break
      }
      case 123: // {
        open.push(new Set())
        nameIsNext = true
        break
      case 91: // [
        open.push(undefined)
        nameIsNext = false
        break
      case 125: // }
      case 93: // ]
        open.pop()
        nameIsNext = false
        break
      case comma:
        nameIsNext = open.at(-1) !== undefined
        break
      default:
    }
    if (open.length > maxDepth) return false
  }
  return true
}

/** The value of a JSON text, or `invalid`. */
export const parseStrict = (text: string): unknown => {
  try {
    const value: unknown = JSON.parse(text)
    return isUnambiguous(text) ? value : invalid
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

/** Says whether a value is a JSON object. */
export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Freezes a JSON value through and through. */
export const freezeDeep = <A>(value: A): A => {
  if (typeof value === "object" && value !== null) {
    for (const member of Object.values(value)) freezeDeep(member)
    Object.freeze(value)
  }
  return value
}

// Of the last character, how many bits are not part of any byte, by the length of the text modulo 4.
const spareBits = [0, -1, 4, 2]
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

/** Says whether a text is base64url without padding, in the one spelling of its bytes (RFC 4648, 3.5). */
export const isCanonicalBase64Url = (text: string): boolean => {
  const spare = spareBits[text.length % 4]!
  if (spare === -1 || !/^[A-Za-z0-9_-]+$/.test(text)) return false
  return (alphabet.indexOf(text[text.length - 1]!) & ((1 << spare) - 1)) === 0
}
