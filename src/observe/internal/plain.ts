import * as Redactable from "effect/Redactable"
import * as Redacted from "effect/Redacted"

/** What `plain` needs to know. */
export interface PlainOptions {
  readonly isSensitiveKey: (key: string) => boolean
  readonly text: (text: string) => string
  readonly replacement: string
  readonly maxDepth: number
  readonly maxEntries: number
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

  constructor(options: PlainOptions) {
    this.options = options
    this.left = options.maxEntries
  }

  copy(value: unknown, depth: number): unknown {
    switch (typeof value) {
      case "string":
        return this.options.text(value)
      case "number":
        return Number.isFinite(value) ? value : String(value)
      case "boolean":
        return value
      case "undefined":
        return undefined
      case "bigint":
        return String(value)
      case "symbol":
        return this.options.text(String(value))
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
    if (value instanceof URL || value instanceof RegExp) return this.options.text(String(value))
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`
    if (Redactable.isRedactable(value)) return this.copy(Redactable.redact(value), depth)
    if ("toJSON" in value && typeof value.toJSON === "function") return this.copy(value.toJSON(), depth)
    return this.entries(ownEntries(value), undefined, depth)
  }

  error(error: Error, depth: number): unknown {
    const out: Record<string, unknown> = {
      name: this.options.text(String(error.name)),
      message: this.options.text(String(error.message))
    }
    if (error.cause !== undefined) out["cause"] = this.copy(error.cause, depth)
    return out
  }

  list(values: Iterable<unknown>, size: number, depth: number): unknown {
    const out: Array<unknown> = []
    for (const value of values) {
      if (this.left-- <= 0) {
        out.push(`[${size - out.length} more]`)
        break
      }
      out.push(this.copy(value, depth))
    }
    return out
  }

  entries(entries: Iterable<readonly [unknown, unknown]>, size: number | undefined, depth: number): unknown {
    // Without a prototype, so that a key `__proto__` is a key like any other.
    const out: Record<string, unknown> = Object.create(null)
    let told = 0
    for (const [key, value] of entries) {
      if (this.left-- <= 0) {
        out["[cut]"] = size === undefined ? "more" : `${size - told} more`
        break
      }
      told++
      const name = typeof key === "string" ? key : typeof key === "object" ? "[object]" : String(key)
      out[this.options.text(name)] = this.options.isSensitiveKey(name) && value !== null && value !== undefined
        ? this.options.replacement
        : this.copy(value, depth)
    }
    return out
  }
}

function* ownEntries(value: object): Iterable<readonly [string, unknown]> {
  for (const key of Object.keys(value)) {
    let member: unknown
    try {
      member = (value as Record<string, unknown>)[key]
    } catch {
      member = "[unreadable]"
    }
    yield [key, member]
  }
}
