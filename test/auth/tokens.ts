// Tokens for the tests, made with `node:crypto` alone so that they owe nothing to what is tested.
import * as Crypto from "node:crypto"

export const issuer = "https://issuer.example"
export const audience = "https://tools.example"
export const secret = Crypto.randomBytes(64).toString("base64url")

export const base64url = (value: string | Uint8Array): string => Buffer.from(value).toString("base64url")

/** The signature of `text` under an algorithm of JOSE. */
export const signature = (algorithm: string, key: string | Crypto.KeyObject, text: string): Buffer => {
  const hash = `sha${algorithm.slice(2)}`
  switch (algorithm.slice(0, 2)) {
    case "HS":
      return Crypto.createHmac(hash, key).update(text).digest()
    case "RS":
      return Crypto.sign(hash, Buffer.from(text), key as Crypto.KeyObject)
    case "PS":
      return Crypto.sign(hash, Buffer.from(text), {
        key: key as Crypto.KeyObject,
        padding: Crypto.constants.RSA_PKCS1_PSS_PADDING,
        saltLength: Crypto.constants.RSA_PSS_SALTLEN_DIGEST
      })
    case "ES":
      return Crypto.sign(hash, Buffer.from(text), { key: key as Crypto.KeyObject, dsaEncoding: "ieee-p1363" })
    default:
      return Crypto.sign(null, Buffer.from(text), key as Crypto.KeyObject)
  }
}

/** A token of the given header and payload, which may be any text at all, with a good signature. */
export const token = (options: {
  readonly header: string | Readonly<Record<string, unknown>>
  readonly payload: string | Uint8Array | Readonly<Record<string, unknown>>
  readonly algorithm?: string
  readonly key?: string | Crypto.KeyObject
}): string => {
  const { algorithm = "HS256", header, key = secret, payload } = options
  const text = (value: string | Uint8Array | object): string | Uint8Array =>
    typeof value === "string" || value instanceof Uint8Array ? value : JSON.stringify(value)
  const signed = `${base64url(text(header))}.${base64url(text(payload))}`
  return `${signed}.${base64url(signature(algorithm, key, signed))}`
}

/** Claims that are all right at the start of a test, when the clock shows 0. */
export const claims = { iss: issuer, aud: audience, sub: "ada", exp: 300, iat: 0 }

export const bearer = (value: string) => ({ authorization: `Bearer ${value}` })
