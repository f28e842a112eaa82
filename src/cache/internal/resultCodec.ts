import * as Base64 from "effect/encoding/Base64"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { survivesJson } from "../../internal/canonicalJson.ts"
import type { ToolMeta } from "../../ToolMeta.ts"

/** What `decode` gives for a text that it did not write, or that no longer fits the tool's Schema. */
export const corrupt: unique symbol = Symbol("corrupt")

/**
 * Turns answers into text and back. Every `decode` makes a new value.
 *
 * - `encode`: `undefined` for an answer that would not come back as it was.
 * - `isPlain`: what `decode` gives is what JSON says, or bytes, or `undefined`, and nothing that a Schema made of it.
 */
export interface ResultCodec {
  readonly isPlain: boolean
  readonly encode: (result: unknown) => string | undefined
  readonly decode: (text: string) => unknown
}

// JSON has no word for the absence of a value or for bytes. Neither marker is the start of a JSON text.
const absent = ""
const bytes = "b"

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return corrupt
  }
}

const plain: ResultCodec = {
  isPlain: true,
  encode: (result) => {
    if (typeof result === "string") return JSON.stringify(result)
    if (result === undefined) return absent
    if (result instanceof Uint8Array) {
      return Object.getPrototypeOf(result) === Uint8Array.prototype ? bytes + Base64.encode(result) : undefined
    }
    return survivesJson(result, false) ? JSON.stringify(result) : undefined
  },
  decode: (text) => {
    if (text === absent) return undefined
    if (!text.startsWith(bytes)) return parse(text)
    const decoded = Base64.decode(text.slice(bytes.length))
    return Result.isSuccess(decoded) ? decoded.success : corrupt
  }
}

/** How the answers of a tool are kept: in the JSON form of its `success` Schema, or as they are when they are JSON. */
export const resultCodec = (tool: ToolMeta): ResultCodec => {
  if (tool.success === undefined) return plain
  const schema = Schema.toCodecJson(tool.success)
  // What the Schema does not know would be lost on the way, so such an answer is not kept.
  const encode = Schema.encodeUnknownExit(schema, { onExcessProperty: "error" })
  const decode = Schema.decodeUnknownExit(schema, { onExcessProperty: "error" })
  return {
    isPlain: false,
    encode: (result) => {
      try {
        const encoded = encode(result)
        return Exit.isSuccess(encoded) && survivesJson(encoded.value, true) ? JSON.stringify(encoded.value) : undefined
      } catch {
        return undefined
      }
    },
    decode: (text) => {
      const parsed = parse(text)
      if (parsed === corrupt) return corrupt
      try {
        const decoded = decode(parsed)
        return Exit.isSuccess(decoded) ? decoded.value : corrupt
      } catch {
        return corrupt
      }
    }
  }
}

/** The length of a text in UTF-8, or more than `limit` when it is longer than that. */
export const utf8Bytes = (text: string, limit: number): number => {
  // No character is shorter than its code units or longer than three bytes each, which settles nearly every case.
  if (text.length > limit || text.length * 3 <= limit) return text.length
  return new TextEncoder().encode(text).length
}
