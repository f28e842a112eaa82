import { assert, describe, it, vi } from "@effect/vitest"
import { Option, Redacted } from "effect"
import { Redaction } from "effect-toolops/observe"

const { isSensitiveKey, text, value } = Redaction.standard

describe("Redaction", () => {
  it("knows sensitive keys in any case and spelling", () => {
    for (
      const key of [
        "password",
        "Password",
        "DB_PASSWORD",
        "dbPassword",
        "api_key",
        "apiKey",
        "X-Api-Key",
        "Authorization",
        "proxy-authorization",
        "access_token",
        "refreshToken",
        "client.secret",
        "Set-Cookie",
        "credentials",
        "private key",
        "sessionId",
        "PIN"
      ]
    ) assert.isTrue(isSensitiveKey(key), key)
  })

  it("leaves ordinary keys alone, counters of tokens among them", () => {
    for (
      const key of ["query", "keyboard", "author", "input_tokens", "maxTokens", "token_count", "spinner", "passage"]
    ) {
      assert.isFalse(isSensitiveKey(key), key)
    }
  })

  it("takes keys of the program's own", () => {
    const own = Redaction.make({ keys: ["IBAN"] })
    assert.deepStrictEqual(own.value({ user_iban: "DE", x: 1 }), { user_iban: "<redacted>", x: 1 })
    assert.throws(() => Redaction.make({ keys: ["--"] }), "keys")
  })

  it("takes what looks like a secret out of free text", () => {
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["Bearer abc.def-1", "Bearer <redacted>"],
      ["sent BEARER  abc== to x", "sent BEARER  <redacted> to x"],
      ["Basic dXNlcjpwYXNz!", "Basic <redacted>!"],
      ["Authorization: Digest username=\"x\", a=b\nnext", "Authorization: <redacted>\nnext"],
      ["{\"Cookie\":\"sid=1; theme=dark\"}", "{\"Cookie\":<redacted>}"],
      ["GET https://user:pa@ss@host/p?x=1", "GET https://<redacted>@host/p?x=1"],
      ["postgres://u:p/w#x@host:5432/db", "postgres://<redacted>@host:5432/db"],
      ["https://tok3n@host", "https://<redacted>@host"],
      ["https://host:8080/a@b", "https://host:8080/a@b"],
      ["http://[::1]:80/a@b", "http://[::1]:80/a@b"],
      ["?access_token=abc&x=1", "?access_token=<redacted>&x=1"],
      ["password = hunter2, next", "password = <redacted>, next"],
      ["{\"password\": \"a \\\" b\", \"x\": 1}", "{\"password\": <redacted>, \"x\": 1}"],
      ["{\\\"secret\\\":\\\"a b\\\",\\\"x\\\":1}", "{\\\"secret\\\":<redacted>,\\\"x\\\":1}"],
      ["{\\\"secret\\\":\\\"a\\\\\\\"b\\\",\\\"x\\\":1}", "{\\\"secret\\\":<redacted>,\\\"x\\\":1}"],
      ["api key: abc", "api key: <redacted>"],
      ["-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY----- tail", "<redacted> tail"],
      ["-----BEGIN PRIVATE KEY-----\nMIIE and no end", "<redacted>"],
      ["jwt eyJhbGciOi.eyJzdWIi.c2ln end", "jwt <redacted> end"],
      ["AKIAIOSFODNN7EXAMPLE", "<redacted>"],
      ["ghp_0123456789abcdefghijABCDEFGHIJ", "<redacted>"],
      ["xoxb-0123456789-abcdefghij", "<redacted>"],
      ["glpat-0123456789abcdefghij", "<redacted>"],
      [`AIza${"x".repeat(35)}`, "<redacted>"],
      ["sk-proj-0123456789abcdefghij", "<redacted>"],
      ["/cb?next=%3Faccess_token%3Dabc&x=1", "/cb?next=%3Faccess_token%3D<redacted>&x=1"],
      ["run --password abc --api-key 'a b' -v", "run --password <redacted> --api-key <redacted> -v"],
      ["run --token --verbose", "run --token --verbose"],
      ["{\"refresh_token\":[\"a\",\"b\"],\"x\":1}", "{\"refresh_token\":<redacted>,\"x\":1}"],
      ["{\"secret\": {\"a\":\"b\"}, \"x\":1}", "{\"secret\": <redacted>, \"x\":1}"],
      ["{\"secret\":[\"a", "{\"secret\":<redacted>"],
      ["nothing to see: the cat sat", "nothing to see: the cat sat"],
      ["a://", "a://"]
    ]
    for (const [given, expected] of cases) assert.strictEqual(text(given), expected)
  })

  it("takes the whole of a list or an object out of free text, and of one that is not closed a word", () => {
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["{\"credentials\":{\"user\":{\"n\":1},\"value\":\"canary\"},\"x\":1}", "{\"credentials\":<redacted>,\"x\":1}"],
      ["{\"password\":[\"a]b\",\"canary\"],\"x\":1}", "{\"password\":<redacted>,\"x\":1}"],
      ["{\"password\":[\"a\\\\\",\"]\",\"canary\"],\"x\":1}", "{\"password\":<redacted>,\"x\":1}"],
      [
        "{\\\"password\\\":[\\\"a\\\\\\\"]\\\",\\\"canary\\\"],\\\"x\\\":1}",
        "{\\\"password\\\":<redacted>,\\\"x\\\":1}"
      ],
      ["{ password: [ 'it', 'isn\\'t]', 'canary' ], x: 1 }", "{ password: <redacted>, x: 1 }"],
      ["secret: [it's, canary] end", "secret: <redacted> end"],
      ["{\"secret\":{\"a\":[1,\"canary", "{\"secret\":<redacted>"],
      ["secret: { a: 1, b: canary", "secret: <redacted>"],
      ["token=[ERR_1 reading file /a/b/c.txt line 5", "token=<redacted> reading file /a/b/c.txt line 5"],
      ["password: [1, 2 and so on", "password: <redacted>, 2 and so on"]
    ]
    for (const [given, expected] of cases) assert.strictEqual(text(given), expected)
    // One that may close it is looked for a few times, or else the time would grow with the square of the length.
    const many = text("token=[a ".repeat(3000))
    assert.isBelow(many.length, 1000)
    assert.isTrue(many.startsWith("token=<redacted> token=<redacted> "))
  })

  it("leaves prose about arguments alone", () => {
    const same = [
      "the option --password is required",
      "use --token or --user to log in",
      "bad flag --auth-token given twice",
      "cmd --token-limit 4096 --max-tokens 10 --token-file /a/b --x",
      "build --no-password-check all",
      "set --password."
    ]
    for (const given of same) assert.strictEqual(text(given), given)
    assert.strictEqual(text("x --password isabel --pin-token 4096"), "x --password <redacted> --pin-token <redacted>")
  })

  it("judges names in free text as it judges keys", () => {
    const same = [
      "max_tokens=4096 exceeded, prompt_tokens: 512",
      "{\"max_tokens\":100,\"n\":\"x\",\"token_count\":\"7\"}",
      "passed: 12, passing=3, passenger: Bob",
      "compass: north, bypass=true",
      "tokenizer: bert",
      "secretary: Bob",
      "InvalidTokenError: bad value"
    ]
    for (const given of same) assert.strictEqual(text(given), given)
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["max_tokens=canary", "max_tokens=<redacted>"],
      ["dbpass=a PGPASSWORD=b dbPassword: c", "dbpass=<redacted> PGPASSWORD=<redacted> dbPassword: <redacted>"],
      ["InvalidTokenError: token=a", "InvalidTokenError: token=<redacted>"],
      ["passed_token: a tokenizer_secret=b", "passed_token: <redacted> tokenizer_secret=<redacted>"]
    ]
    for (const [given, expected] of cases) assert.strictEqual(text(given), expected)
    for (const key of ["tokenizer", "Secretary"]) assert.isFalse(isSensitiveKey(key), key)
    for (const key of ["secretArn", "tokenizer_token"]) assert.isTrue(isSensitiveKey(key), key)
  })

  it("remembers some keys, and not all that it has ever been asked about", () => {
    const own = Redaction.make()
    const set = vi.spyOn(Map.prototype, "set")
    try {
      for (let i = 0; i < 5000; i++) assert.isFalse(own.isSensitiveKey(`k${i}`))
      const before = set.mock.calls.length
      assert.isAbove(before, 100)
      assert.isAtMost(before, 2000)
      assert.isTrue(own.isSensitiveKey("password of a key that is not remembered"))
    } finally {
      set.mockRestore()
    }
  })

  it("takes patterns of the program's own", () => {
    const own = Redaction.make({ patterns: [/\bcard \d+/g] })
    assert.deepStrictEqual(own.value({ note: "pay with card 4111 now" }), { note: "pay with <redacted> now" })
    assert.throws(() => Redaction.make({ patterns: [/x/] }), "must have the g flag")
  })

  it("knows a key and its value also in a list of pairs and in an entry of a list", () => {
    assert.deepStrictEqual(
      JSON.parse(JSON.stringify(value({
        headers: [["authorization", "canary"], ["accept", "x"], ["cookie", ["canary"]], ["cookie", null]],
        list: ["token", "kept"],
        entries: [{ name: "password", value: "canary" }, { key: "X-Api-Key", value: 1 }, { name: "q", value: "kept" }]
      }))),
      {
        headers: [["authorization", "<redacted>"], ["accept", "x"], ["cookie", "<redacted>"], ["cookie", null]],
        list: ["token", "kept"],
        entries: [
          { name: "password", value: "<redacted>" },
          { key: "<redacted>", value: "<redacted>" },
          { name: "q", value: "kept" }
        ]
      }
    )
  })

  it("loses of a member that throws that member alone", () => {
    const failing = {
      get: () => {
        throw new Error("no")
      }
    }
    const revoked = Proxy.revocable([], {})
    revoked.revoke()
    const named = (members: object) => Object.defineProperty({ ...members }, "name", { ...failing, enumerable: true })
    assert.deepStrictEqual(
      JSON.parse(JSON.stringify(value({
        named: named({ id: 7, value: 1 }),
        keyed: named({ key: "password", value: "canary" }),
        list: [1, revoked.proxy, 2],
        pair: [1, new Proxy(["a", "b"], failing), 2]
      }))),
      {
        named: { id: 7, value: 1, name: "[unreadable]" },
        keyed: { key: "<redacted>", value: "<redacted>", name: "[unreadable]" },
        list: [1, "[unreadable]", 2],
        pair: [1, "[unreadable]", 2]
      }
    )
  })

  it("tells numbers alone under a key that counts tokens", () => {
    assert.deepStrictEqual(
      JSON.parse(JSON.stringify(value({
        max_tokens: 5,
        total_tokens: "1,024",
        access_token_limit: "canary",
        token_usage: { input: 1n, details: ["canary", { max_tokens: 2, note: "canary" }] },
        after: "kept"
      }))),
      {
        max_tokens: 5,
        total_tokens: "1,024",
        access_token_limit: "<redacted>",
        token_usage: { input: "1", details: ["<redacted>", { max_tokens: 2, note: "<redacted>" }] },
        after: "kept"
      }
    )
  })

  it("bounds all texts of a value together, and halves no pair of surrogates", () => {
    const small = Redaction.make({ maxTextLength: 16, maxTotalLength: 40 })
    assert.deepStrictEqual(small.value(["a".repeat(16), "b".repeat(16), "c".repeat(16), "d"]), [
      "a".repeat(16),
      "b".repeat(16),
      "c".repeat(16),
      "[1 more]"
    ])
    assert.strictEqual(small.text(`${"x".repeat(15)}\u{1f600}y`), `${"x".repeat(15)}[3 more]`)
    assert.isBelow(JSON.stringify(value(1n << 100_000n)).length, 10_000)
    // What is replaced is work all the same.
    const secrets = value(Array.from({ length: 900 }, () => `password=${"x".repeat(32_000)}`))
    assert.isTrue(Array.isArray(secrets) && secrets.length < 20)
  })

  it("copies values without secrets, at any depth, through arrays, maps, sets and errors", () => {
    assert.deepStrictEqual(
      JSON.parse(JSON.stringify(value({
        a: [{ b: new Map([["Password", "x"], ["c", "Bearer y"]]) }, new Set([{ token: 1 }])],
        e: new Error("token=abc", { cause: { secret: "s" } }),
        r: Redacted.make("x"),
        o: Option.some({ api_key: "k" }),
        n: null,
        password: null
      }))),
      {
        a: [{ b: { Password: "<redacted>", c: "Bearer <redacted>" } }, [{ token: "<redacted>" }]],
        e: { name: "Error", message: "token=<redacted>", cause: { secret: "<redacted>" } },
        r: "<redacted>",
        o: { _id: "Option", _tag: "Some", value: { api_key: "<redacted>" } },
        n: null,
        password: null
      }
    )
  })

  it("takes whatever there is without throwing, and marks what it cut", () => {
    const cyclic: Record<string, unknown> = { x: 1 }
    cyclic["self"] = cyclic
    const throwing = {
      get bad() {
        throw new Error("no")
      },
      good: 1
    }
    const hostile = new Proxy({}, {
      ownKeys: () => {
        throw new Error("no")
      }
    })
    const proto = JSON.parse("{\"__proto__\":{\"a\":1},\"constructor\":2}")
    let deep: unknown = "end"
    for (let i = 0; i < 10_000; i++) deep = { deep }
    const told = JSON.stringify([
      value(cyclic),
      value(throwing),
      value(hostile),
      value(proto),
      value({
        toJSON: () => {
          throw new Error("no")
        }
      }),
      value([1n, Symbol("s"), () => 1, NaN, -Infinity, undefined, new Date(NaN), new Uint8Array(3)]),
      value({ toJSON: () => ({ token: "x" }) })
    ])
    assert.strictEqual(
      told,
      "[{\"x\":1,\"self\":\"[circular]\"},{\"bad\":\"[unreadable]\",\"good\":1},\"[unreadable]\"," +
        "{\"__proto__\":{\"a\":1},\"constructor\":2},\"[unreadable]\"," +
        "[\"1\",\"Symbol(s)\",\"[function]\",\"NaN\",\"-Infinity\",null,\"Invalid Date\",\"[3 bytes]\"]," +
        "{\"token\":\"<redacted>\"}]"
    )
    assert.include(JSON.stringify(value(deep)), "[too deep]")
    assert.include(JSON.stringify(value(Array.from({ length: 5000 }, (_, i) => i))), "[4000 more]")
    assert.isBelow(JSON.stringify(value(Array.from({ length: 100 }, () => Array(100).fill("x")))).length, 10_000)
    assert.strictEqual(text("x".repeat(9000)), `${"x".repeat(8192)}[808 more]`)
    assert.isBelow(text(`${"word ".repeat(1_000_000)}`).length, 8300)
  })

  it("does not halve a secret where it cuts, so that it is still recognised", () => {
    for (let pad = 32_700; pad < 32_800; pad++) {
      const cut = Redaction.make({ maxTextLength: 100_000 }).text(
        `${"x ".repeat(pad >> 1)}${pad % 2 ? " " : ""}https://u:canary@h/ tail`
      )
      assert.notInclude(cut, "canary")
    }
  })

  it("takes time linear in the text", () => {
    const hostile = [
      "a://",
      "Bearer ",
      "password=",
      "-----BEGIN A-----",
      "eyJaaaa.",
      "token:\"",
      "x:y@",
      "cookie=",
      "\\",
      "secret=[",
      "--token ",
      "--"
    ]
    const start = performance.now()
    for (const piece of hostile) {
      for (const glue of ["", " ", "a"]) text(`${(piece + glue).repeat(30_000 / piece.length)}@ password=x`)
    }
    assert.isBelow(performance.now() - start, 2000)
  })
})
