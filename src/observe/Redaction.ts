/**
 * Takes secrets out of what leaves the program: log lines, span attributes, error text.
 *
 * Two nets. Values under a sensitive key (`password`, `access_token`, `Authorization`, ...) are replaced whatever they
 * hold, at any depth and in any case, also in lists of pairs and in `{ name, value }`; under a key that counts tokens
 * (`max_tokens`) everything but numbers is. Free text is searched for what looks like a secret: bearer and basic credentials,
 * userinfo in URLs, PEM blocks, JSON Web Tokens, `key=value` with a sensitive key, and well-known key prefixes.
 *
 * A net, not a proof: a secret that looks like an ordinary word under an ordinary key passes. Keep secrets `Redacted`.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import { cut } from "../internal/cut.ts"
import * as Check from "../internal/options.ts"
import { cutText, isCounting, normalize, redactPatterns, withoutOrdinary } from "../internal/secretText.ts"
import { sensitiveAnnotation } from "../internal/sensitive.ts"
import * as Plain from "./internal/plain.ts"

/**
 * What stands where a secret was.
 *
 * @category constants
 * @since 0.1.0
 */
export const replacement = "<redacted>"

/**
 * Marks a Schema, or a field of one, as sensitive: what it describes is never captured.
 *
 * **Example** (Marking a field)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Redaction } from "effect-toolops/observe"
 *
 * const Input = Schema.Struct({ query: Schema.String, ssn: Redaction.sensitive(Schema.String) })
 * ```
 *
 * @category annotations
 * @since 0.1.0
 */
export const sensitive = <S extends Schema.Top>(schema: S): S["Rebuild"] =>
  schema.annotate({ [sensitiveAnnotation]: true })

/**
 * Takes secrets out of values.
 *
 * - `isSensitiveKey`: whether what stands under a key is replaced.
 * - `text`: free text without what looks like a secret, cut at `maxTextLength`.
 * - `value`: a copy of any value that is safe to encode as JSON, redacted by key and by pattern. Cycles, getters that
 *   throw, huge and deep values are cut and marked; it never throws.
 *
 * @category models
 * @since 0.1.0
 */
export interface Redaction {
  readonly isSensitiveKey: (key: string) => boolean
  readonly text: (text: string) => string
  readonly value: (value: unknown) => unknown
}

/**
 * What `make` takes.
 *
 * - `keys`: more sensitive keys, beside the built-in ones. `apiKey`, `API_KEY` and `x-api-key` are the same key; a key
 *   is sensitive when it contains one of these.
 * - `patterns`: more patterns to take out of free text. Each must have the `g` flag.
 * - `maxTextLength`: most characters kept of one text. Default 8192; what is longer is cut and marked.
 * - `maxDepth`: how deep a value is followed. Default 8.
 * - `maxEntries`: most members told of one value, all levels together. Default 1000.
 * - `maxTotalLength`: about how many characters are told of one value, all its texts and keys together; the text that
 *   exceeds it is the last one. Default 65,536.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly keys?: ReadonlyArray<string> | undefined
  readonly patterns?: ReadonlyArray<RegExp> | undefined
  readonly maxTextLength?: number | undefined
  readonly maxDepth?: number | undefined
  readonly maxEntries?: number | undefined
  readonly maxTotalLength?: number | undefined
}

// Compared with keys in lower case and without separators. `contained` anywhere in a key, `whole` the key itself.
const contained = [
  "password",
  "passwd",
  "passphrase",
  "pwd",
  "secret",
  "token",
  "apikey",
  "accesskey",
  "privatekey",
  "signingkey",
  "encryptionkey",
  "authorization",
  "credential",
  "cookie",
  "sessionid",
  "bearer"
]
const whole = new Set(["auth", "pin", "otp", "cvv", "cvc", "ssn", "jwt", "key", "pass"])

// Keys come from code, so there are few; the bound is for those that come from data.
const maxRememberedKeys = 2000

/**
 * Makes a redaction. What it is asked about keys is remembered, so make it once.
 *
 * **Example** (Taking secrets out of a value)
 *
 * ```ts
 * import { Redaction } from "effect-toolops/observe"
 *
 * const redaction = Redaction.make({ keys: ["iban"] })
 * redaction.value({ user: { Access_Token: "abc", iban: "DE00" }, q: "x" })
 * // => { user: { Access_Token: "<redacted>", iban: "<redacted>" }, q: "x" }
 * redaction.text("GET https://me:pass@host/ failed") // => "GET https://<redacted>@host/ failed"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Redaction => {
  const where = "Redaction.make"
  Check.known(where, options, ["keys", "patterns", "maxTextLength", "maxDepth", "maxEntries", "maxTotalLength"])
  const maxTextLength = Check.integer(where, "maxTextLength", options.maxTextLength ?? 8192, 16)
  const maxDepth = Check.integer(where, "maxDepth", options.maxDepth ?? 8, 1, 64)
  const maxEntries = Check.integer(where, "maxEntries", options.maxEntries ?? 1000, 1)
  const maxTotalLength = Check.integer(where, "maxTotalLength", options.maxTotalLength ?? 65_536, 16)
  const own: Array<string> = []
  for (const key of options.keys ?? []) {
    const word = normalize(key)
    if (word === "") throw new TypeError(`${where}: keys must hold a letter or digit each`)
    own.push(word)
  }
  const patterns = [...options.patterns ?? []]
  for (const pattern of patterns) {
    if (!pattern.global) throw new TypeError(`${where}: patterns must have the g flag each, got /${pattern.flags}`)
  }

  const remembered = new Map<string, Plain.KeyKind>()
  const kindOfKey = (key: string): Plain.KeyKind => {
    const known = remembered.get(key)
    if (known !== undefined) return known
    const word = normalize(cut(key, 256))
    const searched = withoutOrdinary(word)
    const kind = !whole.has(word) && !contained.some((each) => searched.includes(each)) &&
        !own.some((each) => word.includes(each))
      ? "ordinary"
      : !whole.has(word) && isCounting(word)
      ? "count"
      : "sensitive"
    if (key.length <= 256 && remembered.size < maxRememberedKeys) remembered.set(key, kind)
    return kind
  }
  const text = (value: string): string => {
    let out = redactPatterns(cutText(value), replacement)
    for (const pattern of patterns) out = out.replace(pattern, replacement)
    if (out.length <= maxTextLength) return out
    const kept = cut(out, maxTextLength)
    return `${kept}[${out.length - kept.length} more]`
  }
  return {
    isSensitiveKey: (key) => kindOfKey(key) === "sensitive",
    text,
    value: (value) => Plain.plain(value, { kindOfKey, text, replacement, maxDepth, maxEntries, maxTotalLength })
  }
}

/**
 * The redaction used where no other is given.
 *
 * @category constants
 * @since 0.1.0
 */
export const standard: Redaction = make()
