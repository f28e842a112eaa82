import * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import { sensitiveAnnotation } from "../../internal/sensitive.ts"
import type { Redaction } from "../Redaction.ts"

// What of a value may be told: only members that the Schema names, without those that are marked sensitive. Where a
// union leaves several readings of a value open, a mark in one of them counts.

/** What is captured of a value: nothing, every member that the Schema names, or the named ones alone. */
export type Fields = boolean | ReadonlyArray<string> | undefined

const maxLength = 8192
const maxDepth = 16
const omitted = Symbol("omitted")

const isMarked = (annotations: Schema.Annotations.Annotations | undefined): boolean =>
  annotations?.[sensitiveAnnotation] === true

const isSensitive = (ast: SchemaAST.AST): boolean =>
  isMarked(ast.annotations) || isMarked(ast.context?.annotations) ||
  ast.checks?.some((check) => isMarked(check.annotations)) === true ||
  ast.encoding?.some((link) => isSensitive(link.to)) === true

/** All readings of a Schema, or undefined when one of them is sensitive. */
const readings = (asts: ReadonlyArray<SchemaAST.AST>): ReadonlyArray<SchemaAST.AST> | undefined => {
  const out = new Set<SchemaAST.AST>()
  const seen = new Set<SchemaAST.AST>()
  const open = [...asts]
  for (let ast = open.pop(); ast !== undefined; ast = open.pop()) {
    if (isSensitive(ast)) return undefined
    if (seen.has(ast)) continue
    seen.add(ast)
    if (ast._tag === "Union") open.push(...ast.types)
    else if (ast._tag === "Suspend") open.push(ast.thunk())
    else out.add(ast)
  }
  return [...out]
}

/** Whether anything inside of a Schema is marked. */
const holdsMark = (root: SchemaAST.AST): boolean => {
  const seen = new Set<SchemaAST.AST>()
  const open = [root]
  for (let ast = open.pop(); ast !== undefined; ast = open.pop()) {
    if (seen.has(ast)) continue
    seen.add(ast)
    if (isSensitive(ast)) return true
    switch (ast._tag) {
      case "Union":
        open.push(...ast.types)
        break
      case "Suspend":
        open.push(ast.thunk())
        break
      case "Arrays":
        open.push(...ast.elements, ...ast.rest)
        break
      case "Objects":
        open.push(...ast.propertySignatures.map((each) => each.type), ...ast.indexSignatures.map((each) => each.type))
        break
      case "Declaration":
        open.push(...ast.typeParameters)
    }
  }
  return false
}

// Schemas that say nothing of what is inside of an object.
const openTags: ReadonlySet<string> = new Set(["Unknown", "Any", "ObjectKeyword", "Declaration"])

const project = (asts: ReadonlyArray<SchemaAST.AST>, value: unknown, depth: number): unknown => {
  const all = readings(asts)
  if (all === undefined || depth > maxDepth || Redacted.isRedacted(value)) return omitted
  if (typeof value !== "object" || value === null) return value
  const structures: Array<SchemaAST.Objects | SchemaAST.Arrays> = []
  let isOpen = false
  for (const ast of all) {
    if (ast._tag === "Objects" || ast._tag === "Arrays") structures.push(ast)
    else if (ast._tag === "Declaration" && ast.typeParameters.some(holdsMark)) {
      // The instance of a class has the members of its only parameter. What else holds marks (an option, a map) is
      // left with no member that is known.
      for (const inner of readings(ast.typeParameters) ?? []) {
        if (inner._tag === "Objects" || inner._tag === "Arrays") structures.push(inner)
      }
      if (structures.length === 0) return omitted
    } else isOpen ||= openTags.has(ast._tag)
  }
  if (structures.length === 0) return isOpen ? value : omitted
  return Array.isArray(value) ? projectList(structures, value, depth) : projectMembers(structures, value, depth)
}

const projectList = (
  structures: ReadonlyArray<SchemaAST.Objects | SchemaAST.Arrays>,
  list: ReadonlyArray<unknown>,
  depth: number
): ReadonlyArray<unknown> => {
  const out: Array<unknown> = []
  list.forEach((item, i) => {
    const asts: Array<SchemaAST.AST> = []
    for (const structure of structures) {
      if (structure._tag !== "Arrays") continue
      const element = structure.elements[i]
      if (element !== undefined) asts.push(element)
      else asts.push(...structure.rest)
    }
    if (asts.length === 0) return
    const projected = project(asts, item, depth + 1)
    if (projected !== omitted) out.push(projected)
  })
  return out
}

const projectMembers = (
  structures: ReadonlyArray<SchemaAST.Objects | SchemaAST.Arrays>,
  value: object,
  depth: number
): Record<string, unknown> => {
  // Without a prototype, so that a key `__proto__` is a key like any other.
  const out: Record<string, unknown> = Object.create(null)
  for (const key of Object.keys(value)) {
    const asts: Array<SchemaAST.AST> = []
    for (const structure of structures) {
      if (structure._tag !== "Objects") continue
      const property = structure.propertySignatures.find((each) => String(each.name) === key)
      if (property !== undefined) asts.push(property.type)
      else asts.push(...structure.indexSignatures.map((each) => each.type))
    }
    if (asts.length === 0) continue
    const projected = project(asts, (value as Record<string, unknown>)[key], depth + 1)
    if (projected !== omitted) out[key] = projected
  }
  return out
}

/**
 * Prepares the capture of one value: as JSON, or undefined when nothing is to be told. Without a Schema there is nothing
 * that could say what may be told.
 */
export const makeCapture = (
  schema: Schema.Codec<any, unknown> | undefined,
  fields: Fields,
  redaction: Redaction
): ((value: unknown) => string | undefined) | undefined => {
  if (schema === undefined || fields === undefined || fields === false) return undefined
  const ast = schema.ast
  return (value) => {
    const projected = project([ast], value, 0)
    if (projected === omitted) return undefined
    const chosen = fields === true ? projected : choose(projected, fields)
    const json = JSON.stringify(redaction.value(chosen))
    return json === undefined || json.length <= maxLength ? json : `${json.slice(0, maxLength)}[cut]`
  }
}

const choose = (value: unknown, names: ReadonlyArray<string>): unknown => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined
  const out: Record<string, unknown> = Object.create(null)
  for (const name of names) if (Object.hasOwn(value, name)) out[name] = (value as Record<string, unknown>)[name]
  return out
}
