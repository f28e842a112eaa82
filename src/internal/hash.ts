import * as Crypto from "node:crypto"

// The one place outside `src/node` that may import a Node built-in: every runtime we load in offers `node:crypto`,
// and its one-shot hash is the only synchronous SHA-256 there is.

/** SHA-256 of the UTF-8 bytes of `text`, as 64 lower-case hexadecimal digits. */
export const sha256Hex: (text: string) => string = typeof Crypto.hash === "function"
  ? (text) => Crypto.hash("sha256", text, "hex")
  : (text) => Crypto.createHash("sha256").update(text, "utf8").digest("hex")

/** Compares two ASCII strings of public length in time that does not depend on where they differ. */
export const equalConstantTime = (left: string, right: string): boolean => {
  if (left.length !== right.length) return false
  return Crypto.timingSafeEqual(new TextEncoder().encode(left), new TextEncoder().encode(right))
}

/** `bytes` bytes from the system's secure random source. */
export const randomBytes = (bytes: number): Uint8Array => Crypto.getRandomValues(new Uint8Array(bytes))

/** HMAC-SHA-256 of the UTF-8 bytes of `text` under `key`, as 64 lower-case hexadecimal digits. */
export const hmacSha256Hex = (key: string, text: string): string =>
  Crypto.createHmac("sha256", key).update(text, "utf8").digest("hex")
