import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, DateTime, Effect, Layer, Option, Redacted } from "effect"
import { Authenticator, Jwt } from "effect-toolops/auth"
import { TestClock } from "effect/testing"
import * as Crypto from "node:crypto"
import { audience, base64url, bearer, claims, issuer, secret, signature, token } from "./tokens.ts"

const header = { alg: "HS256", typ: "JWT" }
const good = () => token({ header, payload: claims })

const options: Jwt.Options = {
  algorithms: ["HS256"],
  keys: [{ secret: Redacted.make(secret) }],
  issuer,
  audience
}

const outcome = (authenticator: Authenticator.Service, value: string) =>
  Effect.match(Authenticator.identify(authenticator, bearer(value)), {
    onFailure: (error): string => error.reason._tag,
    onSuccess: (identity): string => identity.principal
  })

const judge = (values: Readonly<Record<string, string>>, given: Partial<Jwt.Options> = {}) =>
  Effect.gen(function*() {
    const authenticator = yield* Jwt.make({ ...options, ...given })
    const result: Record<string, string> = {}
    for (const [name, value] of Object.entries(values)) result[name] = yield* outcome(authenticator, value)
    return result
  })

/** Every token gets the same answer. */
const all = (values: Readonly<Record<string, string>>, answer: string, given: Partial<Jwt.Options> = {}) =>
  Effect.map(judge(values, given), (result) => {
    assert.deepStrictEqual(result, Object.fromEntries(Object.keys(values).map((name) => [name, answer])))
  })

const withClaims = (more: Readonly<Record<string, unknown>>) => token({ header, payload: { ...claims, ...more } })
const withHeader = (more: Readonly<Record<string, unknown>>) =>
  token({ header: { ...header, ...more }, payload: claims })
const json = JSON.stringify(claims)

const rsa = Crypto.generateKeyPairSync("rsa", { modulusLength: 2048 })
const jwkOf = (key: Crypto.KeyObject, more: object = {}) => ({ ...key.export({ format: "jwk" }), ...more })
const pemOf = (key: Crypto.KeyObject) => key.export({ type: "spki", format: "pem" }) as string

// A certificate made with openssl, and a token that was signed with its key before that was thrown away.
const certified = {
  token: [
    "eyJhbGciOiJFUzI1NiJ9",
    "eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoiaHR0cHM6Ly90b29scy5leGFtcGxlIiwic3ViIjoiYWRhIiwiZXhwIjozMDAsImlhdCI6MH0",
    "wqoxoqvS9obo9OU7tGKOPXH-qABIBUxFmAgPbm95LzyYgh-1lVmA7tlLPDzUrvF4ysORx1NFBCKToiVNtt1NUA"
  ].join("."),
  certificate: `-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUHs9GJD9faiEew40U/cwn26lU/48wCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOaXNzdWVyLmV4YW1wbGUwIBcNMjYxMTIwMTQ0MDQxWhgPMjEy
NjEwMjcxNDQwNDFaMBkxFzAVBgNVBAMMDmlzc3Vlci5leGFtcGxlMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAE/sCz90763AA4Tr5wpaq9S/xMAeCDafnhk712qGTU
Wc6iPCFZUFtfAj0UlB8J2gW0NqHxqTN3T1vIprluaDoqZqNTMFEwHQYDVR0OBBYE
FNIbXZ3/7XvYr3CftDwmEEjoRzuJMB8GA1UdIwQYMBaAFNIbXZ3/7XvYr3CftDwm
EEjoRzuJMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgCpnQqWAD
tOmXXQOsc+Ea9lKpfd7c2XNsIyntZtbRb/MCIFMRbrLhdEa1M9TwLNiAPeNaDB9n
TiBqXOIeGHoqVnLh
-----END CERTIFICATE-----`
}

describe("Jwt", () => {
  describe("a good token", () => {
    it.effect("gives an identity with principal, tenant, roles, scopes and times", () =>
      Effect.gen(function*() {
        const authenticator = yield* Jwt.make({
          ...options,
          tenantClaim: "org",
          rolesClaim: ["realm_access", "roles"]
        })
        const value = withClaims({
          org: "acme",
          realm_access: { roles: ["reader"] },
          scope: "files:read files:write",
          jti: "1"
        })
        const found = yield* authenticator.authenticate(bearer(value))
        const identity = Option.getOrThrow(found)
        assert.deepInclude(identity, {
          principal: "ada",
          tenant: "acme",
          roles: ["reader"],
          scopes: ["files:read", "files:write"],
          method: "jwt"
        })
        assert.strictEqual(identity.claims.jti, "1")
        assert.strictEqual(DateTime.toEpochMillis(identity.expiresAt!), 330_000)
        assert.strictEqual(DateTime.toEpochMillis(identity.issuedAt!), 0)
        for (const part of [identity, identity.roles, identity.scopes, identity.claims, identity.claims.realm_access]) {
          assert.isTrue(Object.isFrozen(part))
        }
        const bare = Option.getOrThrow(yield* authenticator.authenticate(bearer(good())))
        assert.deepStrictEqual([bare.roles, bare.scopes], [[], []])
        assert.isTrue(Object.isFrozen(bare.roles) && Object.isFrozen(bare.scopes))
      }))

    it.effect("may have a list of audiences, a scope list in scp, an at+jwt type, and no roles", () =>
      all({
        "audiences": withClaims({ aud: ["https://other.example", audience] }),
        "scp text": withClaims({ scp: "a b" }),
        "scp list": withClaims({ scp: ["a", "b"] }),
        "type": withHeader({ typ: "at+jwt" }),
        "type in full": withHeader({ typ: "application/AT+JWT" }),
        "no type": token({ header: { alg: "HS256" }, payload: claims }),
        "no iat": token({ header, payload: { ...claims, iat: undefined } }),
        "unknown members": token({ header: { ...header, x: { y: [1] } }, payload: { ...claims, z: { z: { z: 1 } } } }),
        "the same name at two levels": withClaims({ a: { sub: "eve" }, b: [{ sub: "x" }, { sub: "y" }] }),
        "text that looks like members": withClaims({ a: "\"sub\":\"eve\",\\\"{[" }),
        "text that ends in a backslash": withClaims({ "a\\": "\\", "b\\\"": "\":", "": "\\\\" }),
        "white space before a colon": token({
          header,
          payload: `{"a" \t\r\n: { } , "b" : [ "c" , "d" ] ,${json.slice(1)}`
        }),
        "members with the names of others' methods": token({
          header,
          payload: `{"__proto__":{"sub":"eve"},"constructor":1,"1":2,"0":3,${json.slice(1)}`
        })
      }, "ada"))

    for (
      const algorithm of ["HS384", "HS512", "RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"] as const
    ) {
      it.effect(`may be signed with ${algorithm}`, () => {
        const curve = ({ ES256: "P-256", ES384: "P-384", ES512: "P-521" } as Record<string, string>)[algorithm]
        const pair = algorithm.startsWith("Ed")
          ? Crypto.generateKeyPairSync("ed25519")
          : curve === undefined
          ? rsa
          : Crypto.generateKeyPairSync("ec", { namedCurve: curve })
        const isSecret = algorithm.startsWith("HS")
        const value = token({
          header: { alg: algorithm },
          payload: claims,
          algorithm,
          key: isSecret ? secret : pair.privateKey
        })
        const keys: ReadonlyArray<Jwt.Key> = isSecret
          ? options.keys
          : [{ jwk: jwkOf(pair.publicKey) }]
        const pem: ReadonlyArray<Jwt.Key> = isSecret ? keys : [{ pem: pemOf(pair.publicKey) }]
        return Effect.gen(function*() {
          yield* all({ value }, "ada", { algorithms: [algorithm], keys })
          yield* all({ value }, "ada", { algorithms: [algorithm], keys: pem })
        })
      })
    }

    it.effect("may be verified with a certificate", () => {
      return all({ value: certified.token }, "ada", { algorithms: ["ES256"], keys: [{ pem: certified.certificate }] })
    })

    it.effect("is found whatever the case of header and scheme", () =>
      Effect.gen(function*() {
        const authenticator = yield* Jwt.make(options)
        for (const [name, scheme] of [["Authorization", "bearer"], ["AUTHORIZATION", "BEARER"]] as const) {
          const identity = yield* Authenticator.identify(authenticator, { [name]: `${scheme} ${good()}` })
          assert.strictEqual(identity.principal, "ada")
        }
      }))
  })

  describe("its text", () => {
    it.effect("has three parts in canonical base64url and nothing beside", () => {
      const [head, body, sign] = good().split(".") as [string, string, string]
      // 32 bytes leave two spare bits in the last character: its neighbour in the alphabet is the same signature.
      const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
      // Signed as it is spelt, which is as it should be unless one of the parts is spelt in another way.
      const respelt = (at?: number) => {
        // Whitespace behind JSON is nothing, so it makes spare bits where there are none.
        const texts = [JSON.stringify(header), json].map((text) => base64url(text.length % 3 === 0 ? `${text} ` : text))
        if (at !== undefined) {
          const text = texts[at]!
          texts[at] = text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1)!) + 1]!
          assert.deepStrictEqual(Buffer.from(texts[at], "base64url"), Buffer.from(text, "base64url"))
        }
        const value = texts.join(".")
        return `${value}.${base64url(signature("HS256", secret, value))}`
      }
      const sibling = sign.slice(0, -1) + alphabet[alphabet.indexOf(sign.at(-1)!) + 1]!
      return Effect.gen(function*() {
        assert.deepStrictEqual(Buffer.from(sibling, "base64url"), Buffer.from(sign, "base64url"))
        yield* all({
          "two parts": `${head}.${body}`,
          "no signature": `${head}.${body}.`,
          "four parts": `${head}.${body}.${sign}.${sign}`,
          "five parts": `${head}..${body}..${sign}`,
          "one part": head,
          "padding": `${head}.${body}.${sign}=`,
          "another spelling of the signature": `${head}.${body}.${sibling}`,
          "another spelling of the header, signed so": respelt(0),
          "another spelling of the payload, signed so": respelt(1),
          "plain base64": `${head}.${body}.${sign.slice(0, -1)}+`,
          "no JSON in the header": `${base64url("no")}.${body}.${sign}`,
          "a list for a header": token({ header: "[]", payload: claims }),
          "a text for a payload": token({ header, payload: "\"ada\"" }),
          "a list for a payload": token({ header, payload: "[]" }),
          "null for a payload": token({ header, payload: "null" }),
          "no JSON in the payload": token({ header, payload: "no" }),
          "bytes that are not UTF-8": token({
            header,
            payload: Buffer.from(json.replace("ada", "ad\u00e9"), "latin1")
          }),
          "a byte order mark": token({ header, payload: `\ufeff${json}` }),
          "a payload nested too deeply": withClaims({ deep: JSON.parse("[".repeat(40) + "]".repeat(40)) })
        }, "TokenMalformed")
        yield* all({ "neighbour": `${head}.${body}.${sign}`, "neighbour of those signed so": respelt() }, "ada")
      })
    })

    it.effect("has no member twice, however it is spelt and however deep", () =>
      all({
        "payload": token({ header, payload: `{"sub":"eve",${json.slice(1)}` }),
        "payload, escaped": token({ header, payload: `{"s\\u0075b":"eve",${json.slice(1)}` }),
        "nested": token({ header, payload: `{"a":{"b":[{"c":1,"c":2}]},${json.slice(1)}` }),
        "the same value twice": token({ header, payload: `{"sub":"ada",${json.slice(1)}` }),
        "white space before the colon": token({ header, payload: `{"sub" \n:"eve",${json.slice(1)}` }),
        "a whole object that is dropped": token({ header, payload: `{"a":{"b":1,"c":{"d":2}},"a":1,${json.slice(1)}` }),
        "behind a backslash": token({ header, payload: `{"a":"\\\\","a":"\\"",${json.slice(1)}` }),
        "the prototype": token({ header, payload: `{"__proto__":1,"__proto__":2,${json.slice(1)}` }),
        "numbers for names": token({ header, payload: `{"1":1,"1":2,${json.slice(1)}` }),
        "header": token({ header: "{\"alg\":\"none\",\"alg\":\"HS256\"}", payload: claims }),
        "header, nested": token({ header: "{\"alg\":\"HS256\",\"x\":{\"y\":1,\"y\":1}}", payload: claims })
      }, "TokenMalformed"))

    it.effect("is 16 KiB long at most, and is not decoded when it is longer", () => {
      const fill = (length: number) => {
        const filled = (n: number) => withClaims({ fill: "x".repeat(n) })
        let n = Math.floor((length - filled(0).length) * 3 / 4) - 8
        while (filled(n + 1).length <= length) n++
        return filled(n)
      }
      const longest = fill(16_384)
      return Effect.gen(function*() {
        assert.isAtLeast(longest.length, 16_380)
        yield* all({ longest }, "ada")
        yield* all({ "too long": fill(16_400), "much too long": "a".repeat(1_000_000) }, "TokenMalformed")
        yield* all({ "the option counts": good() }, "TokenMalformed", { maxBytes: 100 })
      })
    })

    it.effect("comes in one Authorization header with one token", () =>
      Effect.gen(function*() {
        const authenticator = yield* Jwt.make(options)
        const one = `Bearer ${good()}`
        const bad: ReadonlyArray<Readonly<Record<string, string | ReadonlyArray<string>>>> = [
          { authorization: [one, one] },
          { authorization: `${one}, ${one}` },
          { authorization: one, Authorization: one },
          { authorization: `Bearer  ${good()}` },
          { authorization: `Bearer\t${good()}` },
          { authorization: `Bearer ${good()} ` },
          { authorization: "Bearer" },
          { authorization: "Bearer " },
          { authorization: "" },
          { authorization: good() }
        ]
        for (const headers of bad) {
          const error = yield* Effect.flip(Authenticator.identify(authenticator, headers))
          assert.strictEqual(error.reason._tag, "InvalidCredentials", JSON.stringify(headers))
        }
        const none = yield* Effect.flip(Authenticator.identify(authenticator, { accept: one }))
        assert.strictEqual(none.reason._tag, "MissingCredentials")
      }))
  })

  describe("its header", () => {
    it.effect("names an allowed algorithm and an expected type", () => {
      const [, body] = good().split(".") as [string, string, string]
      return all({
        "none": `${base64url("{\"alg\":\"none\"}")}.${body}.AAAA`,
        "None": `${base64url("{\"alg\":\"None\"}")}.${body}.AAAA`,
        "another HMAC": token({ header: { alg: "HS512" }, payload: claims, algorithm: "HS512" }),
        "no algorithm": token({ header: {}, payload: claims }),
        "a number for an algorithm": token({ header: { alg: 256 }, payload: claims }),
        "a member of every object": token({ header: { alg: "constructor" }, payload: claims }),
        "lower case": token({ header: { alg: "hs256" }, payload: claims }),
        "a logout token": withHeader({ typ: "logout+jwt" }),
        "a proof": withHeader({ typ: "dpop+jwt" })
      }, "InvalidCredentials")
    })

    it.effect("brings no key, no extension and no other encoding along", () =>
      all({
        "crit": withHeader({ crit: ["exp"], exp: 300 }),
        "empty crit": withHeader({ crit: [] }),
        "b64": withHeader({ b64: true }),
        "jwk": withHeader({ jwk: jwkOf(rsa.publicKey) }),
        "jku": withHeader({ jku: "https://evil.example/jwks" }),
        "x5u": withHeader({ x5u: "https://evil.example/cert" }),
        "x5c": withHeader({ x5c: ["AAAA"] }),
        "zip": withHeader({ zip: "DEF" }),
        "a list for a kid": withHeader({ kid: ["a"] }),
        "a list for a typ": withHeader({ typ: ["JWT"] })
      }, "TokenMalformed"))

    it.effect("has a key id of 1,024 characters at most", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(
          yield* judge({ most: withHeader({ kid: "k".repeat(1024) }), more: withHeader({ kid: "k".repeat(1025) }) }),
          { most: "ada", more: "TokenMalformed" }
        )
      }))

    it.effect("leaves an id that no key has to the one key without an id, and to none of two", () => {
      const nameless = [{ secret: Redacted.make(secret) }, { secret: Redacted.make(secret.toUpperCase()) }]
      const value = { "an id": withHeader({ kid: "a" }) }
      return Effect.gen(function*() {
        yield* all(value, "ada", { keys: nameless.slice(0, 1) })
        yield* all(value, "KeyNotFound", { keys: nameless })
      })
    })

    it.effect("chooses among keys by an id that is a name and nothing else", () => {
      const keys: ReadonlyArray<Jwt.Key> = [
        { secret: Redacted.make(secret), kid: "a" },
        { secret: Redacted.make(secret.toUpperCase()), kid: "b" }
      ]
      const signed = (kid?: string, key = secret) => token({ header: { ...header, kid }, payload: claims, key })
      return Effect.gen(function*() {
        yield* all({ a: signed("a"), b: signed("b", secret.toUpperCase()) }, "ada", { keys })
        yield* all({ "the key of another": signed("b") }, "InvalidCredentials", { keys })
        yield* all(
          {
            "no id and two keys": signed(),
            "empty": signed(""),
            "a path": signed("../../../../dev/null"),
            "SQL": signed("a' OR '1'='1"),
            "a member of every object": signed("__proto__"),
            "another case": signed("A"),
            "another form": signed("a\u0301")
          },
          "KeyNotFound",
          { keys }
        )
      })
    })
  })

  describe("its signature", () => {
    it.effect("is made with the key and over the very text", () => {
      const [head, body, sign] = good().split(".") as [string, string, string]
      const eve = base64url(JSON.stringify({ ...claims, sub: "eve" }))
      return all({
        "another secret": token({ header, payload: claims, key: Crypto.randomBytes(32).toString("hex") }),
        "the empty secret": token({ header, payload: claims, key: "" }),
        "another payload": `${head}.${eve}.${sign}`,
        "a shorter one": `${head}.${body}.${base64url(Buffer.from(sign, "base64url").subarray(0, 16))}`
      }, "InvalidCredentials")
    })

    it.effect("is never an HMAC under a public key", () => {
      const { publicKey } = rsa
      const forged = (key: string | Buffer) => {
        const signed = `${base64url(JSON.stringify(header))}.${base64url(json)}`
        return `${signed}.${Crypto.createHmac("sha256", key).update(signed).digest("base64url")}`
      }
      const given = { algorithms: ["RS256"] as const, keys: [{ jwk: jwkOf(publicKey) }] }
      return Effect.gen(function*() {
        yield* all(
          {
            "PEM": forged(pemOf(publicKey)),
            "PEM without its last line break": forged(pemOf(publicKey).trim()),
            "PKCS#1": forged(publicKey.export({ type: "pkcs1", format: "pem" })),
            "DER": forged(publicKey.export({ type: "spki", format: "der" })),
            "JWK": forged(JSON.stringify(jwkOf(publicKey))),
            "the modulus": forged(jwkOf(publicKey).n!)
          },
          "InvalidCredentials",
          given
        )
        const value = token({ header: { alg: "RS256" }, payload: claims, algorithm: "RS256", key: rsa.privateKey })
        yield* all({ neighbour: value }, "ada", given)
      })
    })

    it.effect("is of another algorithm of the same key only when that one is allowed", () => {
      const value = token({ header: { alg: "PS256" }, payload: claims, algorithm: "PS256", key: rsa.privateKey })
      const bound = [{ jwk: jwkOf(rsa.publicKey, { alg: "RS256" }) }]
      return Effect.gen(function*() {
        yield* all({ value }, "InvalidCredentials", { algorithms: ["RS256"], keys: [{ jwk: jwkOf(rsa.publicKey) }] })
        yield* all({ value }, "KeyNotFound", { algorithms: ["RS256", "PS256"], keys: bound })
      })
    })
  })

  describe("its claims", () => {
    it.effect("say who issued it, for whom, and until when", () =>
      Effect.gen(function*() {
        yield* all({
          "another issuer": withClaims({ iss: "https://evil.example" }),
          "an issuer with a slash": withClaims({ iss: `${issuer}/` }),
          "another audience": withClaims({ aud: "https://other.example" }),
          "no audience of ours": withClaims({ aud: ["https://other.example"] }),
          "an empty list": withClaims({ aud: [] }),
          "an audience that begins alike": withClaims({ aud: `${audience}.evil.example` })
        }, "InvalidCredentials")
        yield* all({
          "no issuer": withClaims({ iss: undefined }),
          "a list of issuers": withClaims({ iss: [issuer] }),
          "no audience": withClaims({ aud: undefined }),
          "an object for an audience": withClaims({ aud: { [audience]: true } }),
          "a number among audiences": withClaims({ aud: [audience, 1] }),
          "no end": withClaims({ exp: undefined })
        }, "TokenMalformed")
        yield* all({ value: withClaims({ aud: "b" }) }, "ada", { audience: ["a", "b"] })
      }))

    it.effect("have finite numbers for times", () => {
      const raw = (text: string) =>
        token({ header, payload: `{${text},"iss":"${issuer}","aud":"${audience}","sub":"ada"}` })
      return Effect.gen(function*() {
        yield* all({
          "exp text": withClaims({ exp: "300" }),
          "exp null": withClaims({ exp: null }),
          "exp true": withClaims({ exp: true }),
          "exp list": withClaims({ exp: [300] }),
          "exp too large for a number": raw("\"exp\":1e400"),
          "exp too large for a date": withClaims({ exp: 1e300 }),
          "nbf text": withClaims({ nbf: "0" }),
          "nbf too small for a number": raw("\"exp\":300,\"nbf\":-1e400"),
          "iat text": withClaims({ iat: "0" }),
          "iat null": withClaims({ iat: null })
        }, "TokenMalformed")
        yield* all(
          { "fraction": withClaims({ exp: 0.5, iat: -0.5, nbf: 0 }), "far away": withClaims({ exp: 8e12 }) },
          "ada"
        )
      })
    })

    it.effect("count with the clock tolerance, and not beyond it", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_000_000)
        const given = { clockTolerance: "10 seconds" } as const
        yield* all({ "expired": withClaims({ exp: 990 }), "long ago": withClaims({ exp: -1 }) }, "TokenExpired", given)
        yield* all(
          {
            "not yet": withClaims({ exp: 2000, nbf: 1011 }),
            "from the future": withClaims({ exp: 2000, iat: 1011 })
          },
          "TokenInactive",
          given
        )
        yield* all(
          {
            "just expired": withClaims({ exp: 991 }),
            "nearly there": withClaims({ exp: 2000, nbf: 1010 }),
            "nearly issued": withClaims({ exp: 2000, iat: 1010 })
          },
          "ada",
          given
        )
      }))

    it.effect("say when it was issued where its age counts", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_000_000)
        const given = { maxTokenAge: "5 minutes", clockTolerance: 0 } as const
        const month = 30 * 86_400
        yield* all({ "old": withClaims({ exp: month, iat: 700 }) }, "TokenExpired", given)
        yield* all({ "young": withClaims({ exp: month, iat: 701 }) }, "ada", given)
        yield* all({ "unknown": withClaims({ exp: month, iat: undefined }) }, "TokenMalformed", given)
      }))

    it.effect("name the caller with text that prints", () =>
      Effect.gen(function*() {
        yield* all({
          "none": withClaims({ sub: undefined }),
          "number": withClaims({ sub: 1 }),
          "empty": withClaims({ sub: "" }),
          "line break": withClaims({ sub: "ada\nroot" }),
          "zero": withClaims({ sub: "ada\u0000" }),
          "half a character": token({ header, payload: json.replace("ada", "\\ud800") }),
          "endless": withClaims({ sub: "a".repeat(2000) })
        }, "TokenMalformed")
        yield* all({ "spaces": withClaims({ sub: "a da" }) }, "a da")
        yield* all({ "another claim": withClaims({ email: "ada@example.org" }) }, "ada@example.org", {
          principalClaim: "email"
        })
        yield* all(
          {
            "a bad subject beside it": withClaims({ email: "ada@example.org", sub: 1 }),
            "an inherited one": withClaims({})
          },
          "TokenMalformed",
          { principalClaim: ["toString"] }
        )
      }))

    it.effect("hold roles and scopes as lists of text, not too many", () =>
      Effect.gen(function*() {
        const many = Array.from({ length: 1001 }, (_, i) => i.toString(36))
        yield* all(
          {
            "text for roles": withClaims({ roles: "admin" }),
            "an object for roles": withClaims({ roles: { admin: true } }),
            "a number among roles": withClaims({ roles: ["a", 1] }),
            "an empty role": withClaims({ roles: [""] }),
            "too many roles": withClaims({ roles: many }),
            "a list for scope": withClaims({ scope: ["a"] }),
            "a number for scp": withClaims({ scp: 1 }),
            "too many scopes": withClaims({ scope: many.join(" ") }),
            "a number for a tenant": withClaims({ tid: 1 })
          },
          "TokenMalformed",
          { tenantClaim: "tid" }
        )
        yield* all({ "as many as are allowed": withClaims({ roles: many.slice(1) }) }, "ada")
      }))

    it.effect("are all those of RFC 9068 where access tokens are asked for", () =>
      Effect.gen(function*() {
        const at = (more: object) =>
          token({
            header: { alg: "HS256", typ: "at+jwt" },
            payload: { ...claims, client_id: "cli", jti: "1", ...more }
          })
        const given = { typ: "at+jwt" } as const
        yield* all({ value: at({}) }, "ada", given)
        yield* all(
          { "a JWT": good(), "no type": token({ header: { alg: "HS256" }, payload: claims }) },
          "InvalidCredentials",
          given
        )
        yield* all(
          {
            "no client": at({ client_id: undefined }),
            "no id": at({ jti: undefined }),
            "no start": at({ iat: undefined }),
            "no subject": at({ sub: undefined })
          },
          "TokenMalformed",
          given
        )
      }))
  })

  describe("the cache", () => {
    it.effect("answers with the same identity until the token expires, and not at that moment", () =>
      Effect.gen(function*() {
        const authenticator = yield* Jwt.make({ ...options, clockTolerance: 0, cache: { timeToLive: "1 hour" } })
        const value = good()
        const first = yield* Authenticator.identify(authenticator, bearer(value))
        yield* TestClock.adjust("299 seconds")
        assert.strictEqual(yield* Authenticator.identify(authenticator, bearer(value)), first)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* outcome(authenticator, value), "TokenExpired")
        assert.strictEqual(yield* outcome(authenticator, value), "TokenExpired")
      }))

    it.effect("forgets what is older than its time to live, or more than its entries, or everything when it is off", () =>
      Effect.gen(function*() {
        const isKept = (authenticator: Authenticator.Service, between: Effect.Effect<unknown, unknown>) =>
          Effect.gen(function*() {
            const first = yield* Authenticator.identify(authenticator, bearer(good()))
            yield* Effect.orDie(between)
            return first === (yield* Authenticator.identify(authenticator, bearer(good())))
          })
        const cached = yield* Jwt.make({ ...options, cache: { timeToLive: "10 seconds", maxEntries: 1 } })
        assert.isTrue(yield* isKept(cached, TestClock.adjust("9 seconds")))
        const later = yield* Jwt.make({ ...options, cache: { timeToLive: "10 seconds", maxEntries: 1 } })
        assert.isFalse(yield* isKept(later, TestClock.adjust("10 seconds")))
        assert.isFalse(yield* isKept(later, Authenticator.identify(later, bearer(withClaims({ sub: "bob" })))))
        const off = yield* Jwt.make({ ...options, cache: { timeToLive: 0 } })
        assert.isFalse(yield* isKept(off, Effect.void))
      }))

    it.effect("takes no token for another of thousands that it has seen", () =>
      Effect.gen(function*() {
        // So many that some hashes of them begin alike, over 16 bits and more.
        const authenticator = yield* Jwt.make(options)
        for (let i = 0; i < 2000; i++) {
          const sub = `caller ${i}`
          assert.strictEqual(yield* outcome(authenticator, withClaims({ sub })), sub)
        }
      }))

    it.effect("does not take one token for another that begins or ends alike", () =>
      Effect.gen(function*() {
        const authenticator = yield* Jwt.make(options)
        const value = good()
        assert.strictEqual(yield* outcome(authenticator, value), "ada")
        const [head, body, sign] = value.split(".") as [string, string, string]
        for (const other of [`${head}.${body}.${sign.slice(1)}A`, `${value}A`, `${head}.${sign}.${body}`]) {
          assert.notStrictEqual(yield* outcome(authenticator, other), "ada")
        }
      }))
  })

  describe("options that make no sense", () => {
    const weak = Crypto.generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey
    const p384 = Crypto.generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey
    const refused: ReadonlyArray<readonly [string, any, RegExp]> = [
      ["no key", { keys: [] }, /at least one key/],
      ["no keys at all", { keys: undefined }, /at least one key/],
      ["no issuer", { issuer: undefined }, /issuer/],
      ["an empty issuer", { issuer: "" }, /issuer/],
      ["no audience", { audience: undefined }, /audience/],
      ["an empty list of audiences", { audience: [] }, /audience/],
      ["no algorithm", { algorithms: [] }, /algorithms/],
      ["the algorithm none", { algorithms: ["none"] }, /algorithms/],
      ["HMAC beside a public key", { algorithms: ["HS256", "RS256"] }, /mix/],
      ["a short secret", { keys: [{ secret: Redacted.make("x".repeat(31)) }] }, /at least 32 bytes/],
      ["a secret too short for its hash", {
        algorithms: ["HS512"],
        keys: [{ secret: Redacted.make("x".repeat(63)) }]
      }, /at least 64 bytes/],
      ["an empty secret", { keys: [{ secret: Redacted.make("") }] }, /at least 32 bytes/],
      ["a secret that is not redacted", { keys: [{ secret }] }, /Redacted/],
      ["a PEM for a secret", { keys: [{ secret: Redacted.make(pemOf(rsa.publicKey)) }] }, /PEM/],
      ["a public key for HMAC", { keys: [{ pem: pemOf(rsa.publicKey) }] }, /HMAC/],
      ["a JWK for HMAC", { keys: [{ jwk: jwkOf(rsa.publicKey) }] }, /fits no allowed algorithm/],
      ["a secret for RSA", { algorithms: ["RS256"] }, /secret/],
      ["a private JWK", { algorithms: ["RS256"], keys: [{ jwk: jwkOf(rsa.privateKey) }] }, /not a public key/],
      // No such key has to be made: it is refused by its length.
      ["an RSA key of 8,193 bits", {
        algorithms: ["RS256"],
        keys: [{
          jwk: { kty: "RSA", n: base64url(Buffer.concat([Buffer.from([1]), Buffer.alloc(1024, 255)])), e: "AQAB" }
        }]
      }, /2048 to 8192/],
      ["a weak RSA key", { algorithms: ["RS256"], keys: [{ jwk: jwkOf(weak) }] }, /2048/],
      ["an RSA key with exponent 1", {
        algorithms: ["RS256"],
        keys: [{ jwk: jwkOf(rsa.publicKey, { e: "AQ" }) }]
      }, /exponent/],
      ["an RSA key with an even exponent", {
        algorithms: ["RS256"],
        keys: [{ jwk: jwkOf(rsa.publicKey, { e: "AQAC" }) }]
      }, /exponent/],
      ["a key on another curve", { algorithms: ["ES256"], keys: [{ jwk: jwkOf(p384) }] }, /fits no allowed algorithm/],
      ["a symmetric JWK", { keys: [{ jwk: { kty: "oct", k: base64url(secret) } }] }, /not a public key/],
      ["an encryption key", {
        algorithms: ["RS256"],
        keys: [{ jwk: jwkOf(rsa.publicKey, { use: "enc" }) }]
      }, /not for signatures/],
      ["two keys with one id", {
        keys: [{ secret: Redacted.make(secret), kid: "a" }, { secret: Redacted.make(secret), kid: "a" }]
      }, /two keys/],
      ["a kid beside a JWK", {
        algorithms: ["RS256"],
        keys: [{ jwk: jwkOf(rsa.publicKey), kid: "a" }]
      }, /member of the jwk/],
      ["a key of two kinds", { keys: [{ secret: Redacted.make(secret), pem: "" }] }, /exactly one/],
      ["a tolerance of an hour", { clockTolerance: "1 hour" }, /clockTolerance/],
      ["an endless token", { maxBytes: 1_000_000 }, /maxBytes/],
      ["a misspelt option", { audiences: ["a"] }, /unknown option/]
    ]
    for (const [name, given, message] of refused) {
      it(`are refused: ${name}`, () => {
        assert.throws(() => Jwt.layer({ ...options, ...given }), message)
      })
    }

    it.effect("are found when the layer is built, where the key has to be imported: a weak PEM", () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Jwt.make({ ...options, algorithms: ["RS256"], keys: [{ pem: pemOf(weak) }] }))
        assert.strictEqual(exit._tag, "Failure")
      }))
  })

  it.effect("takes its options from configuration", () =>
    Effect.gen(function*() {
      const Tokens = Jwt.layerConfig({
        algorithms: Config.succeed(["HS256"] as const),
        keys: Config.map(Config.Redacted("JWT_SECRET"), (value) => [{ secret: value }]),
        issuer: Config.String("JWT_ISSUER"),
        audience: Config.String("JWT_AUDIENCE")
      })
      const env = { JWT_SECRET: secret, JWT_ISSUER: issuer, JWT_AUDIENCE: audience }
      const program = Effect.flatMap(Authenticator.Authenticator, (authenticator) => outcome(authenticator, good()))
      const answer = yield* Effect.provide(
        program,
        Layer.provide(Tokens, ConfigProvider.layer(ConfigProvider.fromUnknown(env)))
      )
      assert.strictEqual(answer, "ada")
    }))
})
