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
// The value of a key: a list or an object up to the first bracket that closes one, a quoted text, or a word.
const value = `(?:[[{][^\\]}]*(?:[\\]}]|$)|${quoted(2)}|[^\\s,;&"'}\\])<]+)`
const assignment = new RegExp(
  `(${word}[A-Za-z0-9_-]{0,32}${keyEnd}(?:=>|[=:]|%3D)\\s{0,4})${value}`,
  "gi"
)
// The arguments of a command: `--password x`.
const flag = new RegExp(`(--[A-Za-z0-9-]{0,32}${word}[A-Za-z0-9_-]{0,32}\\s{1,4})(?!-)${value}`, "gi")

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
  const out = text
    .replace(pem, replacement)
    .replace(scheme, `$1$2${replacement}`)
    .replace(jwt, replacement)
    .replace(known, replacement)
    .replace(header, `$1$2${replacement}`)
    .replace(assignment, (_all, head: string) => head + replacement)
    .replace(flag, (_all, head: string) => head + replacement)
  return out.includes("://") ? userinfo(out, replacement) : out
}
