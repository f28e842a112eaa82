import { ValueEnds } from "./secretValue.ts"

// What looks like a secret in free text. Every pattern runs in time linear in the text: runs are bounded or delimited by
// characters that they do not contain.

const maxInput = 32_768

/**
 * Bounds the work on huge text. The cut is made at a blank, so that no secret is halved and loses the shape by which it
 * would be recognised.
 */
export const cutText = (text: string): string => {
  if (text.length <= maxInput) return text
  const head = text.slice(0, maxInput)
  const blank = Math.max(head.lastIndexOf(" "), head.lastIndexOf("\n"), head.lastIndexOf("\t"))
  return blank < maxInput / 2
    ? `[${text.length} characters]`
    : `${head.slice(0, blank)}[${text.length - blank} more]`
}

// Most text holds none of these, and then nothing else is tried.
const hint =
  /:\/\/|-----BEGIN|\b(?:bearer|basic|eyJ|AKIA|ASIA|AIza|gh[pousr]_|github_pat_|glpat-|sk-|xox)|pass|pwd|secret|token|key|authorization|credential|cookie|session/i

const pem = /-----BEGIN [^-\r\n]{1,64}-----[\s\S]*?(?:-----END [^-\r\n]{1,64}-----|$)/g
const scheme = /\b(bearer|basic)(\s{1,8}|%20|\+)[A-Za-z0-9\-._~+/]+=*/gi
const jwt = /\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}/g
const known =
  /\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{30,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|sk-[A-Za-z0-9_-]{16,}|xox[abeoprs]-[A-Za-z0-9-]{10,})/g

// A quoted text up to the quote that has as many backslashes as the first: JSON within JSON within JSON is common.
const quoted = (group: number): string =>
  `(\\\\{0,7}["'])(?:[^\\\\"']|\\\\+(?!["'\\\\])|(?!\\${group})\\\\*["'])*(?:\\${group}|$)`
const keyEnd = "(?:\\\\{0,7}[\"'])?\\s{0,4}"

// The value of a header runs to its closing quote, or else to the end of the line.
const header = new RegExp(
  `\\b((?:proxy-)?authorization|(?:set-)?cookie)(${keyEnd}[=:]\\s{0,4})(?:${quoted(3)}|[^\\r\\n]+)`,
  "gi"
)

const word =
  "(?:pass(?:word|wd|phrase)?|pwd|secret|token|(?:api|access|private|signing|encryption|account|shared)[ _-]?key|credentials?|session[_-]?id|authorization|cookie)"
const nameEnd = "[A-Za-z0-9_-]{0,32}"
const anyWord = new RegExp(word, "i")
const assignment = new RegExp(`(${word}${nameEnd})${keyEnd}(?:=>|[=:]|%3D)\\s{0,4}`, "gi")
// The arguments of a command: `--password x`.
const flag = new RegExp(`--(?!no-)([A-Za-z0-9-]{0,32}${word}${nameEnd})\\s{1,4}(?!-)`, "gi")
const plainFlag = /-(?:file|path|check|policy)$/i
const prose = /(?:is|are|was|or|and|not|given|must|should|has|to|for|in|with)(?=[.,;:]?(?:\s|$))/iy

// Counters of language models, which hold no token, and what they hold.
const counting =
  /(?:max|min|input|output|total|prompt|completion|cached|reasoning)tokens$|tokens?(?:count|limit|budget|usage)$/
const number = /\\{0,7}["']?[\d.%+-]{1,64}\\{0,7}["']?(?=$|[\s,;&"'}\])<])/y
// Words that hold one of those above and say nothing of a secret.
const ordinary =
  /(?:com|by|sur|tres|en)pass|pass(?:ed|es|ing|enger|age|ive|ion|able)|tokeni[sz]|secretar(?:y|ies|iat)/gi

/** A key as it is compared: in lower case and without separators. */
export const normalize = (key: string): string => key.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "")

/** Whether a key, normalized, counts tokens of a language model. */
export const isCounting = (key: string): boolean => counting.test(key)

/** `key` without ordinary words that look like sensitive ones. */
export const withoutOrdinary = (key: string): string => key.replace(ordinary, "|")

const nameChar = /[A-Za-z0-9_-]/
const maxPrefix = 64

const startsWith = (text: string, at: number, pattern: RegExp): boolean => {
  pattern.lastIndex = at
  return pattern.test(text)
}

// These look at the start of the value alone. To find its end may take a while, and only what is replaced is then behind.
const isAssigned = (key: string, text: string, at: number): boolean =>
  anyWord.test(withoutOrdinary(key)) && !/(?:Error|Exception)$/.test(key) &&
  !(startsWith(text, at, number) && isCounting(normalize(key)))

const isArgument = (key: string, text: string, at: number): boolean =>
  isAssigned(key, text, at) && !plainFlag.test(key) && !startsWith(text, at, prose)

/** Replaces what follows the matches of `head`, whose first group is the end of a key. */
const replaceValues = (head: RegExp, isSecret: typeof isAssigned, text: string, replacement: string): string => {
  head.lastIndex = 0
  let match = head.exec(text)
  if (match === null) return text
  const ends = new ValueEnds(text)
  let out = ""
  let done = 0
  for (; match !== null; match = head.exec(text)) {
    const at = head.lastIndex
    let start = match.index
    while (start > 0 && match.index - start < maxPrefix && nameChar.test(text[start - 1]!)) start--
    if (!isSecret(text.slice(start, match.index) + match[1]!, text, at)) continue
    const end = ends.after(at)
    if (end === at) continue
    out += text.slice(done, at) + replacement
    head.lastIndex = done = end
  }
  return done === 0 ? text : out + text.slice(done)
}

const schemeLetters = /[A-Za-z0-9+.-]/

// By hand: a pattern for `scheme://userinfo@` would start again at each `://` and run to the end each time.
const userinfo = (text: string, replacement: string): string => {
  let out = ""
  let done = 0
  let at = text.indexOf("://")
  while (at !== -1) {
    const start = at + 3
    let end = start
    while (end < text.length && !/[\s/?#"'<>\\]/.test(text[end]!)) end++
    const authority = text.slice(start, end)
    let sign = authority.lastIndexOf("@")
    if (sign === -1 && /:(?:$|[0-9]*[^0-9])/.test(authority.replace(/^\[[^\]]*\]/, ""))) {
      // `user:pa/ss@host`: what follows the colon is no port, so the password may go on behind the slash.
      let run = end
      while (run < text.length && !/[\s"'<>]/.test(text[run]!)) run++
      sign = text.slice(start, run).lastIndexOf("@")
      end = run
    }
    if (sign > 0 && schemeLetters.test(text[at - 1] ?? "")) {
      out += text.slice(done, start) + replacement
      done = start + sign
    }
    at = text.indexOf("://", Math.max(end, start))
  }
  return done === 0 ? text : out + text.slice(done)
}

/** `text` with what looks like a secret replaced. */
export const redactPatterns = (text: string, replacement: string): string => {
  if (!hint.test(text)) return text
  const told = text
    .replace(pem, replacement)
    .replace(scheme, `$1$2${replacement}`)
    .replace(jwt, replacement)
    .replace(known, replacement)
    .replace(header, `$1$2${replacement}`)
  const out = replaceValues(flag, isArgument, replaceValues(assignment, isAssigned, told, replacement), replacement)
  return out.includes("://") ? userinfo(out, replacement) : out
}
