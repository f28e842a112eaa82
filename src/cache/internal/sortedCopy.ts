import type * as SchemaAST from "effect/SchemaAST"
import { canonicalJson, maxLength } from "../../internal/canonicalJson.ts"

// A faster way to the canonical text of a value whose shape is known: copy it with its members in order, and let the
// engine's own JSON.stringify print the copy. Whatever is not of that shape takes the long way, to the same text.

/** Copies a value with its members sorted. Throws `otherShape` for a value that is not as expected. */
type Copy = (value: unknown) => unknown

const otherShape: unique symbol = Symbol("otherShape")

const text: Copy = (value) => {
  if (typeof value !== "string") throw otherShape
  return value
}

const scalar: Copy = (value) => {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value
  if (typeof value !== "number" || value - value !== 0) throw otherShape
  return value
}

const array = (element: Copy): Copy => (value) => {
  if (!Array.isArray(value) || Object.getPrototypeOf(value) !== Array.prototype) throw otherShape
  const length = value.length
  const copy: Array<unknown> = []
  for (let i = 0; i < length; i++) copy.push(element(value[i]))
  return copy
}

const object = (members: ReadonlyArray<readonly [name: string, copy: Copy]>): Copy => {
  const sorted = members.toSorted(([left], [right]) => left < right ? -1 : 1)
  const names = sorted.map(([name]) => name)
  const copies = sorted.map(([, copy]) => copy)
  return (value) => {
    if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) {
      throw otherShape
    }
    const copy: { [name: string]: unknown } = {}
    let known = 0
    for (let i = 0; i < names.length; i++) {
      const name = names[i]!
      const member: unknown = (value as { readonly [name: string]: unknown })[name]
      if (member === undefined) continue
      if (!Object.hasOwn(value, name)) throw otherShape
      copy[name] = copies[i]!(member)
      known++
    }
    // What the Schema does not know counts as well. So do members that somebody gave to `Object.prototype`.
    for (const _ in value) known--
    if (known !== 0) throw otherShape
    return copy
  }
}

// Engines list such names first, or give them a meaning of their own, whatever the order of assignment.
const isOrdinary = (name: PropertyKey): name is string =>
  typeof name === "string" && !/^\d+$/.test(name) && !(name in Object.prototype) && name.isWellFormed()

const copyOf = (ast: SchemaAST.AST): Copy | undefined => {
  switch (ast._tag) {
    case "String":
      return text
    case "Number":
    case "Boolean":
    case "Null":
    case "Literal":
    case "Enum":
    case "TemplateLiteral":
      return scalar
    case "Union":
      return ast.types.every((type) => copyOf(type) === scalar || copyOf(type) === text) ? scalar : undefined
    case "Arrays": {
      const element = ast.elements.length === 0 && ast.rest.length === 1 ? copyOf(ast.rest[0]!) : undefined
      return element === undefined ? undefined : array(element)
    }
    case "Objects": {
      if (ast.indexSignatures.length > 0) return undefined
      const members: Array<readonly [string, Copy]> = []
      for (const { name, type } of ast.propertySignatures) {
        const copy = copyOf(type)
        if (copy === undefined || !isOrdinary(name)) return undefined
        members.push([name, copy])
      }
      return object(members)
    }
    default:
      return undefined
  }
}

/** `canonicalJson` for the values of a Schema whose JSON form is the value itself. */
export const canonicalJsonOf = (ast: SchemaAST.AST): (value: unknown) => string | undefined => {
  const copy = copyOf(ast)
  if (copy === undefined || copy === scalar || copy === text) return canonicalJson
  return (value) => {
    try {
      const written = JSON.stringify(copy(value))
      // A lone surrogate is printed as an escape, which a whole one is not. `\\ud` in a text of the caller looks alike
      // and takes the long way too.
      if (written.length <= maxLength && !written.includes("\\ud")) return written
    } catch {
      // Another shape, or an accessor that threw: the long way finds out which.
    }
    return canonicalJson(value)
  }
}
