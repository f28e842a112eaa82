import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import { canonicalJson } from "../../internal/canonicalJson.ts"
import { hmacSha256Hex, sha256Hex } from "../../internal/hash.ts"
import * as Check from "../../internal/options.ts"
import { redactPatterns } from "../../internal/secretText.ts"
import { sensitiveAnnotation } from "../../internal/sensitive.ts"
import { checkToolPatterns, matchToolPattern } from "../../internal/toolPattern.ts"
import type { ToolMeta } from "../../ToolMeta.ts"
import type { Input } from "../AuditRecord.ts"
import type { RecordingOptions } from "./auditService.ts"

// What of a call's input goes into the log: a digest, and the members that the operator has named.

/** What is told of an input. Never throws. */
export type InputOf = (input: unknown) => Input | undefined

const maxText = 256
const replacement = "<redacted>"

/** Checks the options and returns what describes the inputs of one tool. */
export const makeInputOf = (where: string, options: RecordingOptions): (tool: ToolMeta) => InputOf | undefined => {
  const digests = Check.oneOf(where, "input", options.input ?? "digest", ["digest", "none"]) === "digest"
  const hash = hashWith(where, options.inputKey)
  const fields = checkFields(where, options.fields ?? {})
  return (tool) => {
    const digest = digests ? digestOf(tool, hash) : undefined
    const names = namesFor(fields, tool)
    const told = names.filter((name) => !isSensitive(tool, name))
    if (told.length === 0 && digest === undefined) return undefined
    return (input) => ({
      digest: digest?.(input),
      fields: told.length === 0 ? undefined : fieldsOf(input, told)
    })
  }
}

const hashWith = (where: string, key: Redacted.Redacted<string> | undefined): (text: string) => string => {
  if (key === undefined) return sha256Hex
  const secret: unknown = Redacted.isRedacted(key) ? Redacted.value<unknown>(key) : undefined
  if (typeof secret !== "string" || secret.length < 16) {
    throw new TypeError(`${where}: inputKey must be Redacted and have at least 16 characters`)
  }
  return (text) => hmacSha256Hex(secret, text)
}

const checkFields = (
  where: string,
  fields: Readonly<Record<string, ReadonlyArray<string>>>
): ReadonlyArray<readonly [string, ReadonlyArray<string>]> => {
  checkToolPatterns(where, "fields", Object.keys(fields))
  return Object.entries(fields).map(([pattern, names]) => {
    if (!Array.isArray(names) || !names.every((name) => typeof name === "string" && name !== "")) {
      throw new TypeError(`${where}: fields of ${JSON.stringify(pattern)} must be a list of names`)
    }
    return [pattern, [...names]]
  })
}

const namesFor = (
  fields: ReadonlyArray<readonly [string, ReadonlyArray<string>]>,
  tool: ToolMeta
): ReadonlyArray<string> => {
  let closest = -1
  let found: ReadonlyArray<string> = []
  for (const [pattern, names] of fields) {
    const match = matchToolPattern(pattern, tool)
    if (match !== undefined && match > closest) {
      closest = match
      found = names
    }
  }
  return found
}

const digestOf = (tool: ToolMeta, hash: (text: string) => string): (input: unknown) => string | undefined => {
  const schema = tool.input
  const encode = schema === undefined ? undefined : encoderOf(schema)
  // What is no JSON as the handler gets it (dates, bigints, classes) may be by its Schema.
  const textOf = (input: unknown): string | undefined => {
    const text = canonicalJson(input)
    if (text !== undefined || encode === undefined) return text
    try {
      const encoded = encode(input)
      return Exit.isSuccess(encoded) ? canonicalJson(encoded.value) : undefined
    } catch {
      return undefined
    }
  }
  return (input) => {
    if (input === undefined) return undefined
    const text = textOf(input)
    return text === undefined ? undefined : hash(text)
  }
}

// A Schema that has no JSON form must not keep the auth stage from its tool.
const encoderOf = (schema: NonNullable<ToolMeta["input"]>) => {
  try {
    return Schema.encodeUnknownExit(Schema.toCodecJson(schema))
  } catch {
    return undefined
  }
}

const fieldsOf = (input: unknown, names: ReadonlyArray<string>): Input["fields"] => {
  if (typeof input !== "object" || input === null) return undefined
  // Without a prototype, so that a member `__proto__` is one like any other.
  const out: Record<string, string | number | boolean | null> = Object.create(null)
  for (const name of names) {
    try {
      // Read once: an accessor may answer differently the second time.
      const value: unknown = Object.hasOwn(input, name) ? (input as Record<string, unknown>)[name] : undefined
      if (typeof value === "string") out[name] = cut(value)
      else if (typeof value === "boolean" || value === null) out[name] = value
      // Not NaN and the infinities, which JSON does not have.
      else if (typeof value === "number" && Number.isFinite(value)) out[name] = value
    } catch {
      // A caller's accessor threw.
    }
  }
  return out
}

/** How much of a text is searched, and the longest secret that is reckoned with at the end of that. */
const maxSearched = 8192
const maxSecret = 4096

// More is searched than is kept, so that no half of a secret stays because the cut made it look like none. What is replaced
// by less brings the end of what was searched nearer: then all behind the last replacement may be such a half.
const cut = (text: string): string => {
  const redacted = redactPatterns(text.slice(0, maxSearched), replacement)
  const isSafe = text.length <= maxSearched || redacted.length >= maxText + maxSecret
  const end = isSafe ? maxText : Math.min(maxText, redacted.lastIndexOf(replacement) + replacement.length)
  return redacted.slice(0, end)
}

const isMarked = (annotations: Schema.Annotations.Annotations | undefined): boolean =>
  annotations?.[sensitiveAnnotation] === true

const isMarkedItself = (ast: SchemaAST.AST): boolean =>
  isMarked(ast.annotations) || isMarked(ast.context?.annotations) ||
  ast.checks?.some((check) => isMarked(check.annotations)) === true ||
  ast.encoding?.some((link) => isMarkedItself(link.to)) === true

/** Whether any reading of the tool's input marks the member, or all of the input, as sensitive. */
const isSensitive = (tool: ToolMeta, name: string): boolean => {
  if (tool.input === undefined) return false
  const members: Array<SchemaAST.AST> = []
  try {
    const isWhole = visit([tool.input.ast], (ast) => {
      if (ast._tag !== "Objects") return
      for (const property of ast.propertySignatures) if (String(property.name) === name) members.push(property.type)
      for (const index of ast.indexSignatures) members.push(index.type)
    })
    return isWhole || visit(members, () => {})
  } catch {
    // A Schema that cannot be looked through may hide a mark.
    return true
  }
}

/** Visits every reading of the Schemas. True when one of them is marked. */
const visit = (asts: ReadonlyArray<SchemaAST.AST>, each: (ast: SchemaAST.AST) => void): boolean => {
  const seen = new Set<SchemaAST.AST>()
  const open = [...asts]
  for (let ast = open.pop(); ast !== undefined; ast = open.pop()) {
    if (seen.has(ast)) continue
    seen.add(ast)
    if (isMarkedItself(ast)) return true
    each(ast)
    if (ast._tag === "Union") open.push(...ast.types)
    else if (ast._tag === "Suspend") open.push(ast.thunk())
    else if (ast._tag === "Declaration") open.push(...ast.typeParameters)
  }
  return false
}
