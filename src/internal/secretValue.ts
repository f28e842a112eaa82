// Where the value of a key ends in free text. By hand: brackets nest, and a pattern cannot count.

// A quoted text ends at the quote that has as many backslashes as the first: JSON within JSON within JSON is common.
const quote = /\\{0,7}["']/y
const word = /[^\s,;&"'}\])<]+/y
// A list or an object of data, unlike a bracket in prose, whose end may have been cut off.
const data = /\[\s{0,64}(?:\\{0,7}["']|[[{])|\{\s{0,64}(?:\\{0,7}["']|[[{]|[\w$]{1,64}\s{0,4}:)/y
const backslash = "\\"

const matchEnd = (pattern: RegExp, text: string, at: number): number => {
  pattern.lastIndex = at
  return pattern.test(text) ? pattern.lastIndex : -1
}

/** The end of what is quoted from `at` on; -1 where it is not closed. */
const quotedEnd = (text: string, at: number, start: number): number => {
  const mark = text[start - 1]
  const level = start - 1 - at
  let backslashes = 0
  for (let i = start; i < text.length; i++) {
    const char = text[i]
    if (char === backslash) {
      backslashes += 1
      continue
    }
    if (char === mark && backslashes % (2 * level + 2) === level) return i + 1
    backslashes = 0
  }
  return -1
}

/** The end of the list or object at `at`; -1 where it is not closed. */
const bracketEnd = (text: string, at: number): number => {
  let depth = 0
  for (let i = at; i < text.length; i++) {
    const char = text[i]!
    if (char === "[" || char === "{") depth += 1
    else if ((char === "]" || char === "}") && --depth === 0) return i + 1
    else if (char === backslash || char === "\"" || (char === "'" && !/[\p{L}\p{N}]/u.test(text[i - 1]!))) {
      const start = matchEnd(quote, text, i)
      if (start === -1) continue
      const end = quotedEnd(text, i, start)
      if (end === -1) return -1
      i = end - 1
    }
  }
  return -1
}

/** Finds the ends of values in one text. */
export class ValueEnds {
  readonly #text: string
  // Each search for the end of a bracket may go to the end of the text. After some in vain the rest is a secret.
  #vain = 16

  constructor(text: string) {
    this.#text = text
  }

  /** The end of the value at `at`, which is `at` where there is none. */
  after(at: number): number {
    const text = this.#text
    const start = matchEnd(quote, text, at)
    if (start !== -1) {
      const end = quotedEnd(text, at, start)
      return end === -1 ? text.length : end
    }
    if (text[at] === "[" || text[at] === "{") {
      const end = this.#vain > 0 ? bracketEnd(text, at) : -1
      if (end !== -1) return end
      if (this.#vain-- <= 0 || matchEnd(data, text, at) !== -1) return text.length
    }
    return Math.max(at, matchEnd(word, text, at))
  }
}
