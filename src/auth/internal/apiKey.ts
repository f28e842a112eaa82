import { frozenJson, isObject } from "./strictJson.ts"

// The text of a generated key: prefix, underscore, 43 digits to the base 62 for 256 bits, 6 for a CRC-32 of all before.

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
const bodyLength = 43
const sumLength = 6

const base62 = (value: bigint, length: number): string => {
  let text = ""
  for (let rest = value; text.length < length; rest /= 62n) text = digits[Number(rest % 62n)]! + text
  return text
}

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1
  return value >>> 0
})

// Of the low bytes of the first `end` characters. A key is ASCII; other characters do not match the digits anyway.
const crc32 = (text: string, end: number): number => {
  let sum = 0xffffffff
  for (let i = 0; i < end; i++) sum = table[(sum ^ text.charCodeAt(i)) & 0xff]! ^ (sum >>> 8)
  return (sum ^ 0xffffffff) >>> 0
}

/** A key of `start` and the given bytes. */
export const keyWithChecksum = (start: string, bytes: Uint8Array): string => {
  let value = 0n
  for (const byte of bytes) value = value << 8n | BigInt(byte)
  const text = start + base62(value, bodyLength)
  return text + base62(BigInt(crc32(text, text.length)), sumLength)
}

const values = new Uint8Array(128).fill(255)
for (let i = 0; i < digits.length; i++) values[digits.charCodeAt(i)] = i

/** Says whether a key has the form and the checksum of a generated one, given the length of what it starts with. */
export const hasChecksum = (key: string, startLength: number): boolean => {
  const end = startLength + bodyLength
  if (key.length !== end + sumLength) return false
  let sum = 0
  for (let i = end; i < key.length; i++) {
    const value = values[key.charCodeAt(i)] ?? 255
    if (value === 255) return false
    sum = sum * 62 + value
  }
  return sum === crc32(key, end)
}

/** What generated keys start with where nobody says otherwise, before the `_`. */
export const defaultPrefix = "tk"

/**
 * Says whether a key passes for a generated one and is none: it starts as they do by default or has their form, and its
 * checksum is wrong. Authenticators refuse such keys without a lookup, so nobody should be given one.
 */
export const isMisspelt = (key: string): boolean => {
  const form = /^[a-z0-9]{1,32}_(?=[0-9A-Za-z]+$)/.exec(key)?.[0]
  const start = key.startsWith(`${defaultPrefix}_`)
    ? defaultPrefix.length + 1
    : form !== undefined && key.length === form.length + bodyLength + sumLength
    ? form.length
    : undefined
  return start !== undefined && !hasChecksum(key, start)
}

/** Says whether a value is a hash as stores keep it. */
export const isHash = (value: unknown): value is string => typeof value === "string" && /^[0-9a-f]{64}$/.test(value)

/** A copy of metadata that nobody can change, and the same one that a store gives back which writes it down. */
export const metadataOf = (field: string, metadata: unknown): Readonly<Record<string, unknown>> => {
  const copy = isObject(metadata ?? {}) ? frozenJson(metadata ?? {}) : undefined
  if (!isObject(copy)) throw new TypeError(`${field}: metadata must be an object that has a JSON form`)
  return copy
}

/** A copy of the roles or scopes that a key is registered with. */
export const namesOf = (
  where: string,
  name: string,
  values: ReadonlyArray<string> | undefined
): ReadonlyArray<string> => {
  if (values === undefined) return []
  if (!Array.isArray(values) || !values.every((value) => typeof value === "string" && value.length > 0)) {
    throw new TypeError(`${where}: ${name} must be an array of non-empty strings`)
  }
  return Object.freeze([...values])
}
