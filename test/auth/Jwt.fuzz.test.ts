// 100,000 mutated tokens, judged by the library and by a second implementation that shares nothing with it.
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Redacted } from "effect"
import { Authenticator, AuthError, Jwt } from "effect-toolops/auth"
import * as Crypto from "node:crypto"
import { audience, base64url, bearer, claims, issuer, secret, signature, token } from "./tokens.ts"

const count = 100_000

/** A generator that can be started again from its seed. */
const generator = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let value = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value
  return ((value ^ (value >>> 14)) >>> 0) / 4294967296
}

const isText = (value: unknown): boolean =>
  // oxlint-disable-next-line no-control-regex
  typeof value === "string" && value !== "" && !/[\u0000-\u001f\u007f-\u009f]/.test(value)

// What a date can hold, in seconds.
const isTime = (value: unknown): boolean => typeof value === "number" && Math.abs(value) <= 8.64e12

const read = (part: string): any => {
  const bytes = Buffer.from(part, "base64url")
  if (part === "" || bytes.toString("base64url") !== part) return undefined
  const text = bytes.toString("utf8")
  if (!Buffer.from(text, "utf8").equals(bytes)) return undefined
  try {
    const value = JSON.parse(text)
    // Written down again it is as long as before only if nothing was dropped; the tokens here have no white space.
    return JSON.stringify(value).length === text.length ? value : undefined
  } catch {
    return undefined
  }
}

/** Says whether a token is good, in the dullest way. */
const reference = (value: string, now: number): boolean => {
  const parts = value.split(".")
  if (parts.length !== 3 || value.length > 16_384) return false
  const [head, body, sign] = parts as [string, string, string]
  const header = read(head)
  if (header === null || typeof header !== "object" || Array.isArray(header)) return false
  if (header.alg !== "HS256" || ("kid" in header && typeof header.kid !== "string")) return false
  if ("typ" in header && !["jwt", "at+jwt"].includes(String(header.typ).toLowerCase())) return false
  for (const name of ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"]) if (name in header) return false
  const expected = Crypto.createHmac("sha256", secret).update(`${head}.${body}`).digest("base64url")
  if (sign !== expected) return false
  const payload = read(body)
  if (payload === null || typeof payload !== "object" || Array.isArray(payload)) return false
  const audiences = Array.isArray(payload.aud) ? payload.aud : [payload.aud]
  return payload.iss === issuer && audiences.every(isText) && audiences.includes(audience) && isText(payload.sub) &&
    isTime(payload.exp) && now < payload.exp &&
    (!("nbf" in payload) || (isTime(payload.nbf) && now >= payload.nbf)) &&
    (!("iat" in payload) || (isTime(payload.iat) && now >= payload.iat)) &&
    (!("roles" in payload) || (Array.isArray(payload.roles) && payload.roles.every(isText)))
}

const values = [null, true, 0, -1, 1e20, 300, "", "x", "300", [], ["x"], {}, { a: 1 }, "\n", issuer, audience, [
  audience
], [audience, 1]]
const names = ["iss", "aud", "sub", "exp", "nbf", "iat", "roles", "extra"]
const headerNames = ["alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5c", "zip", "extra"]
const headerValues = ["none", "HS256", "HS512", "RS256", "JWT", "at+jwt", "logout+jwt", "", null, [], {}, 1, "k"]
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/"

const mutated = (random: () => number): string => {
  const pick = <A>(list: ReadonlyArray<A> | string): A => list[Math.floor(random() * list.length)] as A
  const header: Record<string, unknown> = { alg: "HS256", typ: "JWT" }
  const payload: Record<string, unknown> = { ...claims, exp: 8e9, n: Math.floor(random() * 1e9) }
  const kind = random()
  if (kind < 0.4) {
    for (let i = 0; i <= random() * 2; i++) {
      if (random() < 0.2) delete payload[pick<string>(names)]
      else payload[pick<string>(names)] = pick(values)
    }
  } else if (kind < 0.55) {
    header[pick<string>(headerNames)] = pick(headerValues)
  }
  const text = JSON.stringify(payload)
  const more = random() < 0.05 ? `{"${pick<string>(names)}":"x",${text.slice(1)}` : text
  const value = random() < 0.05
    ? token({ header, payload: more, key: pick(["", "x", issuer, `${secret}x`]) })
    : token({ header, payload: more })
  if (kind < 0.6) return value
  const at = Math.floor(random() * value.length)
  switch (Math.floor(random() * 6)) {
    case 0:
      return value.slice(0, at) + pick<string>(letters) + value.slice(at + 1)
    case 1:
      return value.slice(0, at) + value.slice(at + 1)
    case 2:
      return value.slice(0, at) + pick<string>(letters) + value.slice(at)
    case 3:
      return value.slice(0, at)
    case 4: {
      // The last character of the signature, where two spellings mean the same bytes.
      return value.slice(0, -1) + pick<string>(letters)
    }
    default: {
      const [head, body, sign] = value.split(".") as [string, string, string]
      const alg = pick(["none", "HS512", "HS384"])
      const signed = `${base64url(JSON.stringify({ alg }))}.${body}`
      return pick([
        `${body}.${head}.${sign}`,
        `${head}.${body}.`,
        `${signed}.${sign}`,
        `${signed}.${alg === "none" ? "AA" : base64url(signature(alg, secret, signed))}`
      ])
    }
  }
}

describe("Jwt under attack", () => {
  it.live(
    `takes none of ${count} mutated tokens that a second implementation refuses, and never dies`,
    () =>
      Effect.gen(function*() {
        const authenticator = yield* Jwt.make({
          algorithms: ["HS256"],
          keys: [{ secret: Redacted.make(secret) }],
          issuer,
          audience,
          clockTolerance: 0
        })
        const random = generator(20_260_101)
        let accepted = 0
        const one = Effect.suspend(() => {
          const value = mutated(random)
          return Effect.map(Effect.exit(Authenticator.identify(authenticator, bearer(value))), (exit) => {
            const expected = reference(value, Date.now() / 1000)
            if (Exit.isSuccess(exit)) accepted++
            else if (!(Cause.squash(exit.cause) instanceof AuthError.AuthError)) assert.fail(`died for ${value}`)
            assert.strictEqual(Exit.isSuccess(exit), expected, value)
            const unavailable = Exit.isFailure(exit) && String(Cause.squash(exit.cause)).includes("at the moment")
            assert.isFalse(unavailable, value)
          })
        })
        yield* Effect.forEach(Array.from({ length: count }), () => one, { concurrency: 64, discard: true })
        // Neither side may get away with refusing everything.
        assert.isAbove(accepted, count / 20)
        assert.isBelow(accepted, count / 2)
      }),
    60_000
  )
})
