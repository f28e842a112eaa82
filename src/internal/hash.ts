import { Buffer } from "node:buffer"
import * as Crypto from "node:crypto"

// The one place outside `src/node` that may import a Node built-in: every runtime we load in offers `node:crypto`,
// and its one-shot hash is the only synchronous SHA-256 there is.

/** SHA-256 of the UTF-8 bytes of `text`, as 64 lower-case hexadecimal digits. */
export const sha256Hex: (text: string) => string = typeof Crypto.hash === "function"
  ? (text) => Crypto.hash("sha256", text, "hex")
  : (text) => Crypto.createHash("sha256").update(text, "utf8").digest("hex")

/** SHA-256 of the UTF-8 bytes of `text`, as 32 characters from U+0000 to U+00FF. */
export const sha256Bytes: (text: string) => string = typeof Crypto.hash === "function"
  ? (text) => Crypto.hash("sha256", text, "binary")
  : (text) => Crypto.createHash("sha256").update(text, "utf8").digest("binary")

/** Compares two texts in time that does not depend on where they differ: it looks at every character of `left`. */
export const equalText = (left: string, right: string): boolean => {
  if (left.length !== right.length) return false
  let difference = 0
  for (let i = 0; i < left.length; i++) difference |= left.charCodeAt(i) ^ right.charCodeAt(i)
  return difference === 0
}

/** `bytes` bytes from the system's secure random source. */
export const randomBytes = (bytes: number): Uint8Array => Crypto.getRandomValues(new Uint8Array(bytes))

/** HMAC-SHA-256 of the UTF-8 bytes of `text` under `key`, as 64 lower-case hexadecimal digits. */
export const hmacSha256Hex = (key: string, text: string): string =>
  Crypto.createHmac("sha256", key).update(text, "utf8").digest("hex")

/** The same, as 32 characters from U+0000 to U+00FF. */
export const hmacSha256Bytes = (key: string, text: string): string =>
  Crypto.createHmac("sha256", key).update(text, "utf8").digest("binary")

/** Makes and checks proofs that bytes come from a holder of a key. A proof is lower-case hexadecimal. */
export interface Prover {
  /** How many digits a proof has. */
  readonly digits: number
  /** Throws where only a public key is at hand. */
  readonly prove: (bytes: Uint8Array) => string
  readonly check: (bytes: Uint8Array, proof: string) => boolean
}

const digest: (bytes: Uint8Array, encoding: "hex" | "binary") => string = typeof Crypto.hash === "function"
  ? (bytes, encoding) => Crypto.hash("sha256", bytes, encoding)
  : (bytes, encoding) => Crypto.createHash("sha256").update(bytes).digest(encoding)

const blockBytes = 64

/**
 * HMAC-SHA-256 (RFC 2104), by two one-shot hashes: for messages as short as a line of a log, `createHmac` takes several
 * times as long.
 */
export const hmacProver = (key: Uint8Array): Prover => {
  const block = new Uint8Array(blockBytes)
  block.set(key.length > blockBytes ? Crypto.createHash("sha256").update(key).digest() : key)
  const outer = Buffer.alloc(blockBytes + 32)
  outer.set(block.map((byte) => byte ^ 0x5c))
  let inner = new Uint8Array(0)
  const prove = (bytes: Uint8Array): string => {
    const length = blockBytes + bytes.length
    if (length > inner.length) {
      inner = new Uint8Array(length * 2)
      inner.set(block.map((byte) => byte ^ 0x36))
    }
    inner.set(bytes, blockBytes)
    outer.write(digest(inner.subarray(0, length), "binary"), blockBytes, "binary")
    return digest(outer, "hex")
  }
  return { digits: 64, prove, check: (bytes, proof) => equalText(prove(bytes), proof) }
}

/**
 * Ed25519 (RFC 8032) by a key in PEM form: a private one (PKCS #8) proves and checks, a public one (SPKI) only checks.
 * Throws for any other key, and says nothing of it.
 */
export const ed25519Prover = (pem: string): Prover => {
  const key = pem.includes("PRIVATE KEY") ? Crypto.createPrivateKey(pem) : undefined
  const publicKey = Crypto.createPublicKey(key ?? pem)
  if (publicKey.asymmetricKeyType !== "ed25519") throw new TypeError("not an Ed25519 key")
  return {
    digits: 128,
    prove: (bytes) => {
      if (key === undefined) throw new TypeError("a public key proves nothing")
      return Crypto.sign(null, bytes, key).toString("hex")
    },
    check: (bytes, proof) => Crypto.verify(null, bytes, publicKey, Buffer.from(proof, "hex"))
  }
}
