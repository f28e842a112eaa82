// Canonical JSON after RFC 8785 (JCS): members sorted by UTF-16 code units, numbers and strings as ECMAScript prints
// them, no white space. Written by hand because sorting a tree and printing it with JSON.stringify gets integer-like
// names and `__proto__` wrong, and because what JSON cannot say must not become something else on the way to a key.

/** Deepest nesting of arrays and objects that is looked at. Cycles end here. */
export const maxDepth = 128

/** Longest canonical text, in UTF-16 code units. */
export const maxLength = 1024 * 1024

// Thrown past all levels of the walk; one object, so that giving up costs no stack trace.
const notJson: unique symbol = Symbol("notJson")

// oxlint-disable-next-line no-control-regex -- JSON escapes them
const needsEscape = /["\\\u0000-\u001f\ud800-\udfff]/

let room = 0

/** How objects with certain members, added in a certain order, are written. */
interface Layout {
  /** In the order of the object. */
  readonly names: ReadonlyArray<string>
  /** In the order of the text. */
  readonly sorted: ReadonlyArray<string>
  /** The same as they are written, with the colon. `undefined` for a name that cannot be. */
  readonly quoted: ReadonlyArray<string | undefined>
}

// Objects of the same make come again and again, so a few layouts are kept: it spares sorting the names and looking for
// characters to escape in them. Two that fall to the same place take turns.
const layouts: Array<Layout | undefined> = []
const maxLayouts = 256
const maxNames = 64
const maxNameLength = 64

const layoutOf = (names: Array<string>): Layout => {
  const count = names.length
  const first = names[0]!
  const last = names[count - 1]!
  const place = (count * 31 + first.length * 17 + last.length * 7 + first.charCodeAt(0)) % maxLayouts || 0
  const known = layouts[place]
  if (known !== undefined && isSame(known.names, names)) return known
  const sorted = names.toSorted()
  const layout: Layout = {
    names,
    sorted,
    quoted: sorted.map((name) => name.isWellFormed() ? `${JSON.stringify(name)}:` : undefined)
  }
  if (count <= maxNames && names.every((name) => name.length <= maxNameLength)) layouts[place] = layout
  return layout
}

const isSame = (left: ReadonlyArray<string>, right: ReadonlyArray<string>): boolean => {
  if (left.length !== right.length) return false
  for (let i = 0; i < left.length; i++) if (left[i] !== right[i]) return false
  return true
}

// Counts what is written, so that a small graph of shared objects cannot become an endless text.
const counted = (text: string): string => {
  if ((room -= text.length + 1) < 0) throw notJson
  return text
}

const quote = (text: string): string => {
  if ((room -= text.length + 3) < 0) throw notJson
  if (text.length < 64 && !needsEscape.test(text)) return `"${text}"`
  // RFC 8785 section 3.2.2.2: lone surrogates are an error. JSON.stringify would print them as escapes.
  if (!text.isWellFormed()) throw notJson
  return JSON.stringify(text)
}

const write = (value: unknown, depth: number): string => {
  switch (typeof value) {
    case "string":
      return quote(value)
    case "number":
      // NaN and the infinities are the numbers that differ from themselves when subtracted. -0 prints as 0.
      if (value - value !== 0) throw notJson
      return counted(`${value}`)
    case "boolean":
      return counted(value ? "true" : "false")
    case "object":
      return value === null ? counted("null") : writeObject(value, depth)
    default:
      throw notJson
  }
}

const writeObject = (value: object, depth: number): string => {
  if (depth === maxDepth || (room -= 2) < 0) throw notJson
  const prototype: unknown = Object.getPrototypeOf(value)
  if (Array.isArray(value)) {
    if (prototype !== Array.prototype) throw notJson
    const length = value.length
    if (length === 0) return "[]"
    let text = `[${write(value[0], depth + 1)}`
    for (let i = 1; i < length; i++) {
      text += `,${write(value[i], depth + 1)}`
    }
    return `${text}]`
  }
  if (prototype !== Object.prototype && prototype !== null) throw notJson
  const names = Object.keys(value)
  if (names.length === 0) return "{}"
  const { quoted, sorted } = layoutOf(names)
  let text = ""
  for (let i = 0; i < sorted.length; i++) {
    const member: unknown = (value as { readonly [name: string]: unknown })[sorted[i]!]
    if (member === undefined) continue
    const name = quoted[i]
    if (name === undefined || (room -= name.length) < 0) throw notJson
    text += text === "" ? "{" : ","
    text += name
    text += typeof member === "string" ? quote(member) : write(member, depth + 1)
  }
  return text === "" ? "{}" : `${text}}`
}

/**
 * The canonical text of a JSON value, or `undefined` when it is not one.
 *
 * JSON values are null, booleans, finite numbers, well-formed strings, and arrays and plain objects of them. Members
 * that are undefined are left out. Nothing else is turned into JSON: no `toJSON`, no class instance.
 */
export const canonicalJson = (value: unknown): string | undefined => {
  room = maxLength
  try {
    return write(value, 0)
  } catch {
    // Beside `notJson`: an accessor or a proxy of the caller threw.
    return undefined
  }
}

/** Largest value that `survivesJson` looks at, in elements, members and characters. */
const maxSurvivor = 16 * 1024 * 1024

/**
 * Says whether `JSON.parse(JSON.stringify(value))` gives the same value back, undefined members counting as a
 * difference unless `lenient`.
 */
export const survivesJson = (value: unknown, lenient: boolean): boolean => {
  room = maxSurvivor
  try {
    return survives(value, lenient, 0)
  } catch {
    return false
  }
}

const survives = (value: unknown, lenient: boolean, depth: number): boolean => {
  // Counted for the same reason as what `write` writes.
  if (--room < 0) return false
  switch (typeof value) {
    case "string":
      return (room -= value.length) >= 0
    case "boolean":
      return true
    case "number":
      return value - value === 0 && !Object.is(value, -0)
    case "object":
      break
    default:
      return false
  }
  if (value === null) return true
  if (depth === maxDepth || Object.getOwnPropertySymbols(value).length > 0) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  const names = Object.keys(value)
  if (Array.isArray(value)) {
    // As many names as elements, and no hole: nothing beside the elements would be lost.
    return prototype === Array.prototype && names.length === value.length &&
      value.every((element) => survives(element, lenient, depth + 1))
  }
  if (prototype !== Object.prototype) return false
  // A function called toJSON is refused as a member like any other function.
  return names.every((name) => {
    const member: unknown = (value as { readonly [name: string]: unknown })[name]
    return lenient && member === undefined ? true : survives(member, lenient, depth + 1)
  })
}
