import * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import { cut } from "../../internal/cut.ts"
import { sensitiveAnnotation } from "../../internal/sensitive.ts"
import type { Redaction } from "../Redaction.ts"

// What of a value may be told: only members that the Schema names, without those that are marked sensitive. Where a
// union leaves several readings of a value open, a mark in one of them counts.

/** What is captured of a value: nothing, every member that the Schema names, or the named ones alone. */
export type Fields = boolean | ReadonlyArray<string> | undefined

const maxLength = 8192
const maxDepth = 16
// More than redaction tells. What refers to itself in several places would have no end otherwise.
const maxMembers = 10_000
// A schema that a function makes anew wherever it refers to itself has no end. What is not known to be without a mark
// counts as marked.
const maxNodes = 10_000
const omitted = Symbol("omitted")

const isMarked = (annotations: Schema.Annotations.Annotations | undefined): boolean =>
  annotations?.[sensitiveAnnotation] === true

const hasMark = (ast: SchemaAST.AST): boolean =>
  isMarked(ast.annotations) || isMarked(ast.context?.annotations) ||
  ast.checks?.some((check) => isMarked(check.annotations)) === true

const known = new WeakMap<SchemaAST.AST, boolean>()

/** Whether a value is marked, or decoded from what is marked in a place where the value itself is not. */
const isSensitive = (ast: SchemaAST.AST): boolean => {
  let sensitive = known.get(ast)
  if (sensitive === undefined) known.set(ast, sensitive = hasMark(ast) || hidesMark(ast))
  return sensitive
}

const hidesMark = (ast: SchemaAST.AST): boolean => {
  if (ast.encoding === undefined) return false
  const own = marksOf(ast)
  if (own === undefined) return true
  return ast.encoding.some((link) => {
    const others = marksOf(link.to, true)
    return others === undefined || [...others].some((name) => !own.has(name))
  })
}

/**
 * The members under which a Schema has marks: "" for the Schema itself; undefined when it has no end. Where a value is
 * decoded from something else and its members have other names, nothing says which of them holds what was marked.
 */
const marksOf = (root: SchemaAST.AST, isEncoded = false): ReadonlySet<string> | undefined => {
  const marks = new Set<string>()
  let left = maxNodes
  const seen = new Map<SchemaAST.AST, Set<string>>()
  const open: Array<readonly [name: string, ast: SchemaAST.AST]> = [["", root]]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [name, ast] = next
    const names = seen.get(ast) ?? new Set()
    if (names.has(name)) continue
    if (left-- <= 0) return undefined
    seen.set(ast, names.add(name))
    if (hasMark(ast)) marks.add(name)
    // What a member is decoded from counts, and of the encoded side what that is decoded from.
    if (ast !== root || isEncoded) { for (const link of ast.encoding ?? []) open.push([name, link.to]) }
    switch (ast._tag) {
      case "Union":
        for (const type of ast.types) open.push([name, type])
        break
      case "Suspend":
        open.push([name, ast.thunk()])
        break
      case "Arrays":
        for (const type of [...ast.elements, ...ast.rest]) open.push([name, type])
        break
      case "Objects":
        for (const property of ast.propertySignatures) open.push([String(property.name), property.type])
        for (const signature of ast.indexSignatures) {
          open.push(["{}", signature.parameter], ["{}", signature.type])
        }
        break
      case "Declaration":
        for (const type of ast.typeParameters) open.push([name, type])
    }
  }
  return marks
}

/** All readings of a Schema, or undefined when one of them is sensitive. */
const readings = (asts: ReadonlyArray<SchemaAST.AST>): ReadonlyArray<SchemaAST.AST> | undefined => {
  const out = new Set<SchemaAST.AST>()
  const seen = new Set<SchemaAST.AST>()
  const open = [...asts]
  for (let ast = open.pop(); ast !== undefined; ast = open.pop()) {
    if (isSensitive(ast)) return undefined
    if (seen.has(ast)) continue
    if (seen.size >= maxNodes) {
      // So that it is not followed again at each call. What several schemas share is left as it is.
      if (asts.length === 1) known.set(asts[0]!, true)
      return undefined
    }
    seen.add(ast)
    if (ast._tag === "Union") open.push(...ast.types)
    else if (ast._tag === "Suspend") open.push(ast.thunk())
    else out.add(ast)
  }
  return [...out]
}

const marked = new WeakMap<SchemaAST.AST, boolean>()

const holdsMark = (ast: SchemaAST.AST): boolean => {
  let holds = marked.get(ast)
  if (holds === undefined) marked.set(ast, holds = isSensitive(ast) || marksOf(ast)?.size !== 0)
  return holds
}

// Schemas that say nothing of what is inside of an object.
const openTags: ReadonlySet<string> = new Set(["Unknown", "Any", "ObjectKeyword", "Declaration"])

/** How much more of a value is looked at. */
interface Budget {
  members: number
}

const project = (asts: ReadonlyArray<SchemaAST.AST>, value: unknown, depth: number, left: Budget): unknown => {
  const all = readings(asts)
  if (all === undefined || depth > maxDepth || left.members-- <= 0 || Redacted.isRedacted(value)) return omitted
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
  return Array.isArray(value)
    ? projectList(structures, value, depth, left)
    : projectMembers(structures, value, depth, left)
}

const projectList = (
  structures: ReadonlyArray<SchemaAST.Objects | SchemaAST.Arrays>,
  list: ReadonlyArray<unknown>,
  depth: number,
  left: Budget
): ReadonlyArray<unknown> => {
  const out: Array<unknown> = []
  for (const [i, item] of list.entries()) {
    if (left.members <= 0) break
    const asts: Array<SchemaAST.AST> = []
    for (const structure of structures) {
      if (structure._tag !== "Arrays") continue
      const element = structure.elements[i]
      if (element !== undefined) asts.push(element)
      else asts.push(...structure.rest)
    }
    if (asts.length === 0) continue
    const projected = project(asts, item, depth + 1, left)
    if (projected !== omitted) out.push(projected)
  }
  return out
}

const projectMembers = (
  structures: ReadonlyArray<SchemaAST.Objects | SchemaAST.Arrays>,
  value: object,
  depth: number,
  left: Budget
): Record<string, unknown> => {
  // Without a prototype, so that a key `__proto__` is a key like any other.
  const out: Record<string, unknown> = Object.create(null)
  for (const key of Object.keys(value)) {
    if (left.members <= 0) break
    const asts: Array<SchemaAST.AST> = []
    let isMarkedKey = false
    for (const structure of structures) {
      if (structure._tag !== "Objects") continue
      const property = structure.propertySignatures.find((each) => String(each.name) === key)
      if (property !== undefined) asts.push(property.type)
      else {
        for (const { parameter, type } of structure.indexSignatures) {
          if (readings([parameter]) === undefined) isMarkedKey = true
          asts.push(type)
        }
      }
    }
    if (asts.length === 0 || isMarkedKey) continue
    const projected = project(asts, (value as Record<string, unknown>)[key], depth + 1, left)
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
    const projected = project([ast], value, 0, { members: maxMembers })
    if (projected === omitted) return undefined
    const chosen = fields === true ? projected : choose(projected, fields)
    const json = JSON.stringify(redaction.value(chosen))
    return json === undefined || json.length <= maxLength ? json : `${cut(json, maxLength)}[cut]`
  }
}

const choose = (value: unknown, names: ReadonlyArray<string>): unknown => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined
  const out: Record<string, unknown> = Object.create(null)
  for (const name of names) if (Object.hasOwn(value, name)) out[name] = (value as Record<string, unknown>)[name]
  return out
}
