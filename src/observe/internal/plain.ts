import * as Redactable from "effect/Redactable"
import * as Redacted from "effect/Redacted"

/** What a key says of its value: nothing, that it counts tokens of a language model, or that it must not be told. */
export type KeyKind = "ordinary" | "count" | "sensitive"

/** What `plain` needs to know. */
export interface PlainOptions {
  readonly kindOfKey: (key: string) => KeyKind
  readonly text: (text: string) => string
  readonly replacement: string
  readonly maxDepth: number
  readonly maxEntries: number
  readonly maxTotalLength: number
}

/**
 * A copy of `value` that `JSON.stringify` takes without throwing and without asking the original anything again.
 *
 * Members under sensitive keys are replaced, texts redacted, cycles and excess cut and marked.
 */
export const plain = (value: unknown, options: PlainOptions): unknown => {
  try {
    return new Copier(options).copy(value, 0)
  } catch {
    // Only a stack that was nearly full already gets here.
    return "[unreadable]"
  }
}

class Copier {
  readonly options: PlainOptions
  readonly open = new Set<object>()
  left: number
  room: number
  isCount = false

  constructor(options: PlainOptions) {
    this.options = options
    this.left = options.maxEntries
    this.room = options.maxTotalLength
  }

  text(text: string): string {
    const out = this.options.text(text)
    // What was searched counts too, also where little of it was left.
    this.room -= Math.max(out.length, Math.min(text.length, maxCharged))
    return out
  }

  /** Whether another member may be told. */
  next(): boolean {
    return this.left-- > 0 && this.room > 0
  }

  copy(value: unknown, depth: number): unknown {
    switch (typeof value) {
      case "string":
        return this.isCount && !number.test(value) ? this.options.replacement : this.text(value)
      case "number":
        return Number.isFinite(value) ? value : String(value)
      case "boolean":
        return value
      case "undefined":
        return undefined
      case "bigint":
      case "symbol":
        return this.text(String(value))
      case "function":
        return "[function]"
      case "object":
        return value === null ? null : this.object(value, depth)
    }
  }

  object(value: object, depth: number): unknown {
    if (this.open.has(value)) return "[circular]"
    if (depth >= this.options.maxDepth) return "[too deep]"
    this.open.add(value)
    try {
      return this.members(value, depth + 1)
    } catch {
      return "[unreadable]"
    } finally {
      this.open.delete(value)
    }
  }

  members(value: object, depth: number): unknown {
    if (Redacted.isRedacted(value)) return this.options.replacement
    if (Array.isArray(value)) return this.list(value, value.length, depth)
    if (value instanceof Error) return this.error(value, depth)
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? "Invalid Date" : value.toISOString()
    if (value instanceof Map) return this.entries(value, value.size, depth)
    if (value instanceof Set) return this.list(value, value.size, depth)
    if (value instanceof URL || value instanceof RegExp) return this.text(String(value))
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`
    if (Redactable.isRedactable(value)) return this.copy(Redactable.redact(value), depth)
    if ("toJSON" in value && typeof value.toJSON === "function") return this.copy(value.toJSON(), depth)
    return this.entries(ownEntries(value), undefined, depth, namedBy(value))
  }

  error(error: Error, depth: number): unknown {
    const out: Record<string, unknown> = {
      name: this.text(String(error.name)),
      message: this.text(String(error.message))
    }
    if (error.cause !== undefined) out["cause"] = this.copy(error.cause, depth)
    return out
  }

  list(values: Iterable<unknown>, size: number, depth: number): unknown {
    const out: Array<unknown> = []
    for (const value of values) {
      if (!this.next()) {
        out.push(`[${size - out.length} more]`)
        break
      }
      out.push(this.item(value, depth))
    }
    return out
  }

  item(value: unknown, depth: number): unknown {
    try {
      return isPair(value) ? this.pair(value, depth) : this.copy(value, depth)
    } catch {
      return "[unreadable]"
    }
  }

  /** A list of two within a list may be a key and its value: a header, say. */
  pair(pair: readonly [string, unknown], depth: number): unknown {
    return this.open.has(pair) || this.options.kindOfKey(pair[0]) === "ordinary"
      ? this.copy(pair, depth)
      : [this.text(pair[0]), this.member(pair[0], pair[1], depth + 1)]
  }

  member(key: string, value: unknown, depth: number): unknown {
    const kind = value === null || value === undefined ? "ordinary" : this.options.kindOfKey(key)
    if (kind === "sensitive") return this.options.replacement
    if (kind === "ordinary" || this.isCount) return this.copy(value, depth)
    this.isCount = true
    try {
      return this.copy(value, depth)
    } finally {
      this.isCount = false
    }
  }

  entries(
    entries: Iterable<readonly [unknown, unknown]>,
    size: number | undefined,
    depth: number,
    valueName?: string
  ): unknown {
    // Without a prototype, so that a key `__proto__` is a key like any other.
    const out: Record<string, unknown> = Object.create(null)
    let told = 0
    for (const [key, value] of entries) {
      if (!this.next()) {
        out["[cut]"] = size === undefined ? "more" : `${size - told} more`
        break
      }
      told++
      const name = typeof key === "string" ? key : typeof key === "object" ? "[object]" : String(key)
      const under = name === "value" && valueName !== undefined && this.options.kindOfKey(name) === "ordinary"
        ? valueName
        : name
      out[this.text(name)] = this.member(under, value, depth)
    }
    return out
  }
}

// What a text may hold where numbers are expected.
const number = /^[\d.,%\s+-]{0,64}$/
// How much of a text is charged where little of it is left.
const maxCharged = 8192

const isPair = (value: unknown): value is readonly [string, unknown] =>
  Array.isArray(value) && value.length === 2 && typeof value[0] === "string"

/** The name in `{ name: "password", value: "x" }`. */
const namedBy = (value: object): string | undefined => {
  if (!Object.hasOwn(value, "value")) return undefined
  const name = read(value, "name", undefined)
  if (typeof name === "string") return name
  const key = read(value, "key", undefined)
  return typeof key === "string" ? key : undefined
}

const read = (value: object, key: string, otherwise: unknown): unknown => {
  try {
    return (value as Record<string, unknown>)[key]
  } catch {
    return otherwise
  }
}

function* ownEntries(value: object): Iterable<readonly [string, unknown]> {
  for (const key of Object.keys(value)) yield [key, read(value, key, "[unreadable]")]
}
