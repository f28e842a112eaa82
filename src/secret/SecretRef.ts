/**
 * The grammar of texts that refer to secrets.
 *
 * ```text
 * text      = whole / *( literal / "$$" / variable / braced / inline )
 * whole     = "secretref:" provider ":" name           ; the text starts with it and it is all of the text
 * inline    = "secretref:" provider ":" plainname      ; anywhere else
 * braced    = "${secretref:" provider ":" name "}"
 * variable  = "${" ( ALPHA / "_" ) *( ALPHA / DIGIT / "_" ) "}"
 * provider  = %x61-7A *63( %x61-7A / DIGIT / "_" / "-" )
 * plainname = 1*512( ALPHA / DIGIT / "_" / "-" / "." / "/" / ":" / "@" / "+" / "=" / "~" / "#" / "%" )
 *             ; a "." or ":" at its end stays outside, so do quotes, commas, braces, brackets and blanks
 * name      = 1*512 of any character but control characters, "$", "{" and "}"; no blank at either end, no "secretref:"
 * "$$"      = one "$"
 * ```
 *
 * Every `secretref:` is a reference or a mistake, in any case of letters: a reference that is misspelt must not be sent
 * somewhere as if it were the secret. A text is parsed once; what secrets and variables hold is never looked at again.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import { MalformedReference, type Problem, SecretError } from "./SecretError.ts"

/**
 * A piece of a parsed text. `position` counts characters from 0.
 *
 * @category models
 * @since 0.1.0
 */
export type Part =
  | { readonly _tag: "Literal"; readonly text: string }
  | { readonly _tag: "Variable"; readonly name: string; readonly position: number }
  | { readonly _tag: "Secret"; readonly provider: string; readonly ref: string; readonly position: number }

/**
 * What `parse` takes beside the text.
 *
 * - `strict`: whether a `$` that starts nothing is a mistake. Default true; otherwise it stands for itself.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly strict?: boolean | undefined
}

type ProblemText = (typeof Problem)["Type"]

const keyword = "secretref:"
const maxName = 512
const providerPattern = /[a-z][a-z0-9_-]*/y
const plainNamePattern = /[A-Za-z0-9_\-./:@+=~#%]+/y
const variablePattern = /^[A-Za-z_][A-Za-z0-9_]*$/
// Where something other than a literal may start.
const special = /\$|secretref:/gi

class Mistake {
  readonly position: number
  readonly problem: ProblemText

  constructor(position: number, problem: ProblemText) {
    this.position = position
    this.problem = problem
  }
}

const isPlainName = (name: string): boolean =>
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  !/[\u0000-\u001f\u007f-\u009f\u2028\u2029${}]/.test(name) && name.isWellFormed() && name.trim() === name &&
  !name.toLowerCase().includes(keyword)

const providerAt = (text: string, position: number): string => {
  if (!text.startsWith(keyword, position)) throw new Mistake(position, "secretref must be written in small letters")
  const start = position + keyword.length
  providerPattern.lastIndex = start
  const provider = providerPattern.exec(text)?.[0]
  if (provider === undefined || provider.length > 64) {
    const colon = text[start] === ":" || start >= text.length
    throw new Mistake(
      start,
      colon
        ? "a reference needs a provider: secretref:<provider>:<ref>"
        : "a provider is 1 to 64 of a-z 0-9 _ -, starting with a letter"
    )
  }
  const end = start + provider.length
  if (text[end] !== ":") {
    throw new Mistake(
      end,
      end === text.length
        ? "a reference needs a name after its provider"
        : "a provider is 1 to 64 of a-z 0-9 _ -, starting with a letter"
    )
  }
  return provider
}

const checkName = (name: string, position: number): string => {
  if (name === "") throw new Mistake(position, "a reference needs a name after its provider")
  if (name.length > maxName) throw new Mistake(position, "the name of a secret is too long")
  if (!isPlainName(name)) throw new Mistake(position, "the name of a secret holds a character that it may not hold")
  return name
}

class Reader {
  readonly text: string
  readonly strict: boolean
  readonly parts: Array<Part> = []
  literal = ""

  constructor(text: string, strict: boolean) {
    this.text = text
    this.strict = strict
  }

  push(part: Part): void {
    if (this.literal !== "") this.parts.push({ _tag: "Literal", text: this.literal })
    this.literal = ""
    this.parts.push(part)
  }

  read(): ReadonlyArray<Part> {
    const { text } = this
    if (text.startsWith(keyword)) {
      const provider = providerAt(text, 0)
      const start = keyword.length + provider.length + 1
      return [{ _tag: "Secret", provider, ref: checkName(text.slice(start), start), position: 0 }]
    }
    let at = 0
    while (at < text.length) {
      special.lastIndex = at
      const next = special.exec(text)?.index ?? text.length
      this.literal += text.slice(at, next)
      at = next === text.length ? next : text[next] === "$" ? this.dollar(next) : this.inline(next)
    }
    if (this.literal !== "") this.parts.push({ _tag: "Literal", text: this.literal })
    return this.parts
  }

  inline(position: number): number {
    const provider = providerAt(this.text, position)
    const start = position + keyword.length + provider.length + 1
    plainNamePattern.lastIndex = start
    const run = plainNamePattern.exec(this.text)?.[0] ?? ""
    // A pattern would look from each of them to the end of their row.
    let end = run.length
    while (run[end - 1] === "." || run[end - 1] === ":") end--
    const name = run.slice(0, end)
    this.push({ _tag: "Secret", provider, ref: checkName(name, start), position })
    return start + name.length
  }

  dollar(position: number): number {
    const { text } = this
    if (text[position + 1] === "$") {
      this.literal += "$"
      return position + 2
    }
    if (text[position + 1] !== "{") {
      if (this.strict) throw new Mistake(position, "a single $ must be written $$")
      this.literal += "$"
      return position + 1
    }
    const end = text.indexOf("}", position)
    if (end === -1) throw new Mistake(position, "${ is not closed")
    const inside = text.slice(position + 2, end)
    if (inside.slice(0, keyword.length).toLowerCase() === keyword) {
      const provider = providerAt(text, position + 2)
      const start = position + 2 + keyword.length + provider.length + 1
      this.push({ _tag: "Secret", provider, ref: checkName(text.slice(start, end), start), position })
    } else {
      if (!variablePattern.test(inside)) {
        throw new Mistake(position + 2, "a variable is named by letters, digits and _, not starting with a digit")
      }
      this.push({ _tag: "Variable", name: inside, position })
    }
    return end + 1
  }
}

/**
 * Takes a text apart.
 *
 * **Example** (Taking texts apart)
 *
 * ```ts
 * import { Result } from "effect"
 * import { SecretRef } from "effect-toolops/secret"
 *
 * Result.getOrThrow(SecretRef.parse("Bearer secretref:env:API_TOKEN"))
 * // => [{ _tag: "Literal", text: "Bearer " }, { _tag: "Secret", provider: "env", ref: "API_TOKEN", position: 7 }]
 * Result.isFailure(SecretRef.parse("secretref::API_TOKEN")) // => true
 * ```
 *
 * @category parsing
 * @since 0.1.0
 */
export const parse = (text: string, options?: Options): Result.Result<ReadonlyArray<Part>, SecretError> => {
  try {
    return Result.succeed(new Reader(text, options?.strict ?? true).read())
  } catch (mistake) {
    if (!(mistake instanceof Mistake)) throw mistake
    const { position, problem } = mistake
    return Result.fail(new SecretError({ reason: new MalformedReference({ position, problem }) }))
  }
}
