import type * as SchemaAST from "effect/SchemaAST"
import { canonicalJson, maxLength } from "../../internal/canonicalJson.ts"

// A faster way to the canonical text of a value whose shape is known from a Schema: what the Schema knows is written
// beforehand, in order and quoted. Whatever is not of that shape takes the long way, to the same text.

/** Thrown for a value that is not as expected. One object, so that giving up costs no stack trace. */
const otherShape: unique symbol = Symbol("otherShape")

/** The text of a value. Of what is a text: without its quotes, which are written with what comes before and after. */
interface Writer {
  readonly kind: "text" | "scalar" | "nested"
  readonly write: (value: unknown) => string
}

// All texts of a value, gathered while it is written, so that it takes one look to see that none of them has anything to
// escape. That is nearly always so; otherwise the value is written once more, each text with care.
let texts = ""
let isCareful = false
let isBusy = false

// oxlint-disable-next-line no-control-regex -- JSON escapes them
const controls = /[\u0000-\u001f]/

// Three looks, since one for all of it takes a regular expression three times as long as one range.
const needsEscape = (text: string): boolean => text.includes("\"") || text.includes("\\") || controls.test(text)

const writeText = (value: unknown): string => {
  if (typeof value !== "string") throw otherShape
  if (!isCareful) {
    texts += value
    return value
  }
  return JSON.stringify(value).slice(1, -1)
}

const writeScalar = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return `"${writeText(value)}"`
    case "number":
      if (value - value !== 0) throw otherShape
      return `${value}`
    case "boolean":
      return value ? "true" : "false"
    default:
      if (value === null) return "null"
      throw otherShape
  }
}

const textWriter: Writer = { kind: "text", write: writeText }
const scalarWriter: Writer = { kind: "scalar", write: writeScalar }

const arrayWriter = (element: Writer): Writer => {
  const { kind, write } = element
  const [before, between, after] = kind === "text" ? ["[\"", "\",\"", "\"]"] as const : ["[", ",", "]"] as const
  return {
    kind: "nested",
    write: (value) => {
      if (!Array.isArray(value) || Object.getPrototypeOf(value) !== Array.prototype) throw otherShape
      if (value.length === 0) return "[]"
      let written = before + write(value[0])
      for (let i = 1; i < value.length; i++) {
        // Shared parts may make a text far larger than the value is in memory.
        if (written.length > maxLength) throw otherShape
        written += between
        written += write(value[i])
      }
      return written + after
    }
  }
}

type Members = ReadonlyMap<string, Writer>

/** How objects with certain members, added in a certain order, are written. */
class Layout {
  /** In the order of the object. */
  readonly names: ReadonlyArray<string>
  /** In the order of the text, like what is written before each value. */
  readonly sorted: ReadonlyArray<string>
  readonly writers: ReadonlyArray<Writer>
  readonly before: ReadonlyArray<string>
  readonly after: string

  constructor(names: ReadonlyArray<string>, members: Members) {
    this.names = names
    this.sorted = names.toSorted()
    this.writers = this.sorted.map((name) => {
      const writer = members.get(name)
      // What the Schema does not know counts as well.
      if (writer === undefined) throw otherShape
      return writer
    })
    let end = ""
    this.before = this.writers.map((writer, i) => {
      const start = `${end}${i === 0 ? "{" : ","}${JSON.stringify(this.sorted[i])}:`
      end = writer.kind === "text" ? "\"" : ""
      return start + end
    })
    this.after = names.length === 0 ? "{}" : `${end}}`
  }

  fits(names: ReadonlyArray<string>): boolean {
    if (names.length !== this.names.length) return false
    for (let i = 0; i < names.length; i++) if (names[i] !== this.names[i]) return false
    return true
  }
}

const objectWriter = (members: Members): Writer => {
  // Callers make their objects in the same way again and again.
  let layout = new Layout([], members)
  return {
    kind: "nested",
    write: (value) => {
      if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) {
        throw otherShape
      }
      const names = Object.keys(value)
      if (!layout.fits(names)) layout = new Layout(names, members)
      const { after, before, sorted, writers } = layout
      let written = ""
      for (let i = 0; i < sorted.length; i++) {
        const member: unknown = (value as { readonly [name: string]: unknown })[sorted[i]!]
        const { kind, write } = writers[i]!
        written += before[i]!
        // Each throws when the member is undefined, and so is left out of the text.
        written += kind === "text" ? writeText(member) : kind === "scalar" ? writeScalar(member) : write(member)
      }
      return written + after
    }
  }
}

const writerOf = (ast: SchemaAST.AST): Writer | undefined => {
  switch (ast._tag) {
    case "String":
      return textWriter
    case "Number":
    case "Boolean":
    case "Null":
    case "Literal":
    case "Enum":
    case "TemplateLiteral":
      return scalarWriter
    case "Union":
      return ast.types.every((type) => writerOf(type) === scalarWriter || writerOf(type) === textWriter)
        ? scalarWriter
        : undefined
    case "Arrays": {
      const element = ast.elements.length === 0 && ast.rest.length === 1 ? writerOf(ast.rest[0]!) : undefined
      return element === undefined ? undefined : arrayWriter(element)
    }
    case "Objects": {
      if (ast.indexSignatures.length > 0) return undefined
      const members = new Map<string, Writer>()
      for (const { name, type } of ast.propertySignatures) {
        const writer = writerOf(type)
        if (writer === undefined || typeof name !== "string" || !name.isWellFormed()) return undefined
        members.set(name, writer)
      }
      return objectWriter(members)
    }
    default:
      return undefined
  }
}

/** `canonicalJson` for the values of a Schema whose JSON form is the value itself. */
export const canonicalJsonOf = (ast: SchemaAST.AST): (value: unknown) => string | undefined => {
  const writer = writerOf(ast)
  if (writer === undefined || writer === scalarWriter || writer === textWriter) return canonicalJson
  const attempt = (value: unknown, careful: boolean): string => {
    texts = ""
    isCareful = careful
    return writer.write(value)
  }
  return (value) => {
    // An accessor of the caller's may ask for a key while the value is read.
    if (isBusy) return canonicalJson(value)
    isBusy = true
    try {
      let written = attempt(value, false)
      // Before the second attempt, which prints a lone surrogate as an escape. In the whole, because two texts that are
      // put together may make one of two halves.
      if (!written.isWellFormed()) return undefined
      if (needsEscape(texts)) written = attempt(value, true)
      if (written.length <= maxLength) return written
    } catch {
      // Another shape, or an accessor that threw: the long way finds out which.
    } finally {
      isBusy = false
      texts = ""
    }
    return canonicalJson(value)
  }
}
