import { assert, describe, it } from "@effect/vitest"
import { BigDecimal, DateTime, Schema } from "effect"
import { ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { CacheKey } from "effect-toolops/cache"
import { createHash } from "node:crypto"

const tool = ToolMeta.make({ name: "t", readOnly: true, varies: "everyone" })
const keyOf = (input: unknown) => CacheKey.make({ tool, input })

/** Small deterministic generator, so that a failure can be run again. */
const random = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const words = [
  "a",
  "b",
  "ab",
  "",
  "1",
  "10",
  "2",
  "__proto__",
  "toJSON",
  "constructor",
  "€",
  "\u0080",
  "\ud83d\ude00",
  "\"",
  "\n",
  "a:b"
]
// oxlint-disable-next-line no-loss-of-precision -- numbers that JSON texts do hold
const numbers = [0, -0, 1, -1, 1.5, 1e21, 1e-7, 333333333.33333329, 4.5, 2e-3, 1e300, 5e-324, 9007199254740993]

type Json = null | boolean | number | string | Array<Json> | { [name: string]: Json | undefined }

const generate = (next: () => number, depth: number): Json => {
  const pick = <A>(values: ReadonlyArray<A>): A => values[Math.floor(next() * values.length)]!
  const kind = next() * (depth === 0 ? 4 : 6)
  if (kind < 1) return pick([null, true, false])
  if (kind < 2) return pick(numbers)
  if (kind < 4) return pick(words)
  const size = Math.floor(next() * 4)
  if (kind < 5) return Array.from({ length: size }, () => generate(next, depth - 1))
  const object: { [name: string]: Json | undefined } = {}
  for (let i = 0; i < size; i++) {
    // Defined, because assigning `__proto__` would set the prototype instead.
    Object.defineProperty(object, pick(words), {
      value: next() < 0.1 ? undefined : generate(next, depth - 1),
      enumerable: true,
      configurable: true,
      writable: true
    })
  }
  return object
}

/** The same value with members in another order, undefined members added or taken away, -0 for 0. */
const respell = (next: () => number, value: Json): Json => {
  if (Array.isArray(value)) return value.map((element) => respell(next, element))
  if (typeof value === "number" && value === 0) return next() < 0.5 ? 0 : -0
  if (typeof value !== "object" || value === null) return value
  const object: { [name: string]: Json | undefined } = {}
  const names = Object.keys(value)
  for (let i = names.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1))
    ;[names[i], names[j]] = [names[j]!, names[i]!]
  }
  for (const name of names) {
    const member = value[name]
    if (member === undefined && next() < 0.5) continue
    Object.defineProperty(object, name, {
      value: member === undefined ? undefined : respell(next, member),
      enumerable: true,
      configurable: true,
      writable: true
    })
  }
  return object
}

/** What "equal JSON" means, found by comparing and not by printing. */
const sameJson = (left: unknown, right: unknown): boolean => {
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) {
    return left === right
  }
  if (Array.isArray(left) !== Array.isArray(right)) return false
  const names = (value: object) => Object.entries(value).filter(([, member]) => member !== undefined)
  const own = new Map(names(left))
  const other = names(right)
  return own.size === other.length && other.every(([name, member]) => own.has(name) && sameJson(own.get(name), member))
}

/** Changes one place of a value a little. */
const nearly = (next: () => number, value: Json): Json => {
  if (Array.isArray(value) && value.length > 0 && next() < 0.8) {
    const at = Math.floor(next() * value.length)
    return value.map((element, i) => i === at ? nearly(next, element) : element)
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    const names = Object.keys(value)
    if (names.length > 0 && next() < 0.8) {
      const at = names[Math.floor(next() * names.length)]!
      const copy = respell(next, value) as { [name: string]: Json | undefined }
      Object.defineProperty(copy, at, {
        value: nearly(next, value[at] ?? null),
        enumerable: true,
        configurable: true,
        writable: true
      })
      return copy
    }
  }
  if (typeof value === "string") return next() < 0.5 ? `${value} ` : value.length === 0 ? null : [value]
  if (typeof value === "number") return next() < 0.5 ? String(value) : value + 1
  return next() < 0.5 ? [value] : generate(next, 1)
}

describe("CacheKey", () => {
  it("is cache:<toolId>:<sha-256> of length-prefixed parts", () => {
    const named = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true, varies: "everyone" })
    const part = (text: string) => `${text.length}:${text}`
    const hash = createHash("sha256")
      .update(["1", "docs:search", named.digest, "call", "e", "{\"a\":1}"].map(part).join(""))
      .digest("hex")
    assert.strictEqual(CacheKey.make({ tool: named, input: { a: 1 } }), `cache:docs:search:${hash}`)
  })

  describe("of a value with a Schema that is written in one go", () => {
    const pair = ToolMeta.make({
      name: "pair",
      varies: "everyone",
      input: Schema.Struct({ a: Schema.String, b: Schema.optionalKey(Schema.String) })
    })
    const any = ToolMeta.make({ name: "any", varies: "everyone" })
    const of = (input: unknown) => CacheKey.make({ tool: pair, input })

    it("does not take halves of a character in two texts for a whole one", () => {
      assert.isDefined(of({ a: "x\ud83d\ude00", b: "y" }))
      assert.isUndefined(of({ a: "x\ud83d", b: "\ude00y" }))
    })

    it("leaves undefined members out, whatever they are called", () => {
      assert.strictEqual(of({ a: "1", b: undefined }), of({ a: "1" }))
      assert.strictEqual(
        CacheKey.make({ tool: any, input: { "\ud800": undefined, a: 1 } }),
        CacheKey.make({ tool: any, input: { a: 1 } })
      )
    })

    it("is right for a value that asks for a key while it is read", () => {
      const asking = {
        get a() {
          of({ b: "other", a: "\"" })
          return "1"
        },
        b: "2"
      }
      assert.strictEqual(of(asking), of({ b: "2", a: "1" }))
    })

    it("gives up on a small value that would be a large text", () => {
      const nested = ToolMeta.make({
        name: "nested",
        varies: "everyone",
        input: Schema.Array(Schema.Array(Schema.Array(Schema.Array(Schema.Array(Schema.String)))))
      })
      let value: unknown = "0123456789"
      for (let i = 0; i < 5; i++) value = Array.from({ length: 1000 }, () => value)
      const before = performance.now()
      assert.isUndefined(CacheKey.make({ tool: nested, input: value }))
      assert.isBelow(performance.now() - before, 2000)
    })
  })

  it("is at most 512 characters and a key for any tool", () => {
    const long = ToolMeta.make({ namespace: "n".repeat(128), name: "m".repeat(128), varies: "everyone" })
    const key = CacheKey.make({ tool: long, input: "x".repeat(10_000) })!
    assert.isTrue(CacheKey.isCacheKey(key))
    assert.isAtMost(key.length, 512)
    for (const bad of ["", "x".repeat(513), "a\nb", "a\u0000", "a\u009f", "\ud800"]) {
      assert.isFalse(CacheKey.isCacheKey(bad))
    }
  })

  it("is the same for two inputs exactly when their JSON is, over 120,000 pairs", { timeout: 30_000 }, () => {
    const next = random(20260101)
    let equal = 0
    for (let i = 0; i < 60_000; i++) {
      const value = generate(next, 3)
      const key = keyOf(value)
      assert.isDefined(key)
      if (key !== keyOf(respell(next, value))) assert.fail(`respelled: ${JSON.stringify(value)}`)
      const other = nearly(next, value)
      const same = sameJson(value, other)
      if (same) equal++
      if ((key === keyOf(other)) !== same) assert.fail(`${JSON.stringify(value)} and ${JSON.stringify(other)}`)
    }
    // The generator does come back to equal values by itself now and then, or the last check would be half a check.
    assert.isAbove(equal, 0)
  })

  it("prints as the examples of RFC 8785 do", () => {
    const canonical = (input: unknown) => {
      const part = (text: string) => `${text.length}:${text}`
      return (expected: string) =>
        assert.strictEqual(
          keyOf(input)?.slice("cache:t:".length),
          createHash("sha256").update(["1", "t", tool.digest, "call", "e", expected].map(part).join("")).digest("hex")
        )
    }
    // Section 3.2.2
    canonical({
      // oxlint-disable-next-line no-loss-of-precision -- as the RFC writes it
      numbers: [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      string: "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"/",
      literals: [null, true, false]
    })(
      "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
    )
    // Section 3.2.3: order by UTF-16 code units
    canonical({
      "\u20ac": "Euro Sign",
      "\r": "Carriage Return",
      "\ufb33": "Hebrew Letter Dalet With Dagesh",
      "1": "One",
      "\ud83d\ude00": "Emoji: Grinning Face",
      "\u0080": "Control",
      "\u00f6": "Latin Small Letter O With Diaeresis"
    })(
      "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"\u00f6\":\"Latin Small Letter O With Diaeresis\",\"\u20ac\":\"Euro Sign\",\"\ud83d\ude00\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}"
    )
    // Appendix B
    const bits = (hex: string) =>
      new DataView(Uint8Array.from(hex.match(/../g)!, (b) => parseInt(b, 16)).buffer).getFloat64(0)
    for (
      const [hex, text] of [
        ["0000000000000000", "0"],
        ["8000000000000000", "0"],
        ["0000000000000001", "5e-324"],
        ["8000000000000001", "-5e-324"],
        ["7fefffffffffffff", "1.7976931348623157e+308"],
        ["ffefffffffffffff", "-1.7976931348623157e+308"],
        ["4340000000000000", "9007199254740992"],
        ["c340000000000000", "-9007199254740992"],
        ["4430000000000000", "295147905179352830000"],
        ["44b52d02c7e14af5", "9.999999999999997e+22"],
        ["44b52d02c7e14af6", "1e+23"],
        ["44b52d02c7e14af7", "1.0000000000000001e+23"],
        ["444b1ae4d6e2ef4e", "999999999999999700000"],
        ["444b1ae4d6e2ef4f", "999999999999999900000"],
        ["444b1ae4d6e2ef50", "1e+21"],
        ["3eb0c6f7a0b5ed8c", "9.999999999999997e-7"],
        ["3eb0c6f7a0b5ed8d", "0.000001"],
        ["41b3de4355555553", "333333333.3333332"],
        ["41b3de4355555554", "333333333.33333325"],
        ["41b3de4355555555", "333333333.3333333"],
        ["becbf647612f3696", "-0.0000033333333333333333"],
        ["43143ff3c1cb0959", "1424953923781206.2"]
      ] as const
    ) canonical(bits(hex))(text)
    assert.isUndefined(keyOf(bits("7fffffffffffffff")))
    assert.isUndefined(keyOf(bits("7ff0000000000000")))
  })

  it("has one for what JSON can say, whatever it looks like", () => {
    const polluted = JSON.parse("{\"__proto__\":{\"admin\":true}}")
    assert.isDefined(keyOf(polluted))
    assert.notStrictEqual(keyOf(polluted), keyOf({}))
    assert.strictEqual(keyOf(Object.assign(Object.create(null), { a: 1 })), keyOf({ a: 1 }))
    assert.strictEqual(keyOf({ a: 1, b: undefined }), keyOf({ a: 1 }))
    assert.strictEqual(keyOf(-0), keyOf(0))
    assert.isDefined(keyOf(undefined))
    assert.isDefined(keyOf({ toJSON: 1 }))
    const inputs = [
      undefined,
      null,
      "null",
      "",
      "undefined",
      0,
      "0",
      false,
      [],
      {},
      [[]],
      [{}],
      { "": "" },
      ["a", "b"],
      ["ab"],
      "a,b"
    ]
    assert.strictEqual(new Set(inputs.map(keyOf)).size, inputs.length)
    // More members than are sorted by insertion.
    const many = Array.from({ length: 200 }, (_, i) => [`k${i}`, i] as const)
    assert.strictEqual(keyOf(Object.fromEntries(many)), keyOf(Object.fromEntries(many.toReversed())))
  })

  it("has none for what JSON cannot say", () => {
    class Point {
      x = 1
    }
    const cyclic: Array<unknown> = []
    cyclic.push({ cyclic })
    let deep: unknown = 0
    for (let i = 0; i < 129; i++) deep = [deep]
    let bomb: unknown = "x"
    for (let i = 0; i < 100; i++) bomb = { a: bomb, b: bomb }
    const inputs: ReadonlyArray<unknown> = [
      Number.NaN,
      Infinity,
      -Infinity,
      1n,
      new Date(0),
      new Map([["a", 1]]),
      new Set(["a"]),
      new Uint8Array(1),
      new ArrayBuffer(1),
      new Point(),
      () => 1,
      Symbol.iterator,
      [undefined],
      // oxlint-disable-next-line no-sparse-arrays
      [1, , 2],
      { toJSON: () => "x" },
      new (class extends Array<number> {})(1),
      // oxlint-disable-next-line no-new-wrappers
      new String("x"),
      "\ud800",
      "\udc00\ud800",
      `${"x".repeat(100)}\ud800`,
      { "\ud800": 1 },
      cyclic,
      deep,
      bomb,
      "x".repeat(1024 * 1024 + 1),
      Array.from({ length: 600_000 }, () => 1),
      {
        get thrower(): number {
          throw new Error("no")
        }
      },
      new Proxy({}, {
        ownKeys: () => {
          throw new Error("no")
        }
      })
    ]
    for (const [i, input] of inputs.entries()) {
      assert.isUndefined(keyOf(input), `${i}`)
      assert.isUndefined(keyOf({ nested: [input] }), `${i} nested`)
    }
    assert.isDefined(keyOf("x".repeat(1024 * 1024 - 10)))
    assert.isDefined(keyOf([[[[deep]]]].length))
  })

  it("is that of the encoded form where the tool has a Schema", () => {
    class Order extends Schema.Class<Order>("Order")({ id: Schema.String, at: Schema.Date }) {}
    const typed = ToolMeta.make({
      name: "typed",
      varies: "everyone",
      input: Schema.Struct({
        at: Schema.optionalKey(Schema.DateTimeUtc),
        id: Schema.optionalKey(Schema.String.pipe(Schema.brand("Id"))),
        big: Schema.optionalKey(Schema.BigInt),
        price: Schema.optionalKey(Schema.BigDecimal),
        order: Schema.optionalKey(Order)
      })
    })
    const key = (input: unknown) => CacheKey.make({ tool: typed, input })
    const day = (n: number) => DateTime.makeUnsafe(n)
    const inputs: ReadonlyArray<readonly [unknown, unknown]> = [
      [{ at: day(1) }, { at: day(1) }],
      [{ at: day(2) }, { at: day(2) }],
      [{ id: "x" }, { id: "x" }],
      [{ big: 12n }, { big: 12n }],
      [{ price: BigDecimal.fromStringUnsafe("1.5") }, { price: BigDecimal.fromStringUnsafe("1.50") }],
      [{ order: new Order({ id: "1", at: new Date(0) }) }, { order: new Order({ at: new Date(0), id: "1" }) }]
    ]
    for (const [left, right] of inputs) {
      assert.isDefined(key(left))
      assert.strictEqual(key(left), key(right))
    }
    assert.strictEqual(new Set(inputs.map(([left]) => key(left))).size, inputs.length)
    // Not of the tool's type, or with a member that encoding would drop although the handler sees it.
    assert.isUndefined(key({ at: "yesterday" }))
    assert.isUndefined(key({ big: 1n, extra: 1 }))
  })

  it("has the same bytes with a plain Schema as without one, whatever is given to it", () => {
    const shape = Schema.Struct({
      b: Schema.String,
      a: Schema.optionalKey(Schema.Number),
      "": Schema.optionalKey(Schema.Array(Schema.Struct({ z: Schema.Boolean, y: Schema.NullOr(Schema.String) }))),
      "10": Schema.optionalKey(Schema.String)
    })
    const odd = Schema.Struct({ __proto__x: Schema.String, ["__proto__"]: Schema.String, constructor: Schema.String })
    const next = random(7)
    const values: Array<unknown> = []
    for (let i = 0; i < 3000; i++) {
      const value: Record<string, unknown> = {}
      for (const name of ["b", "a", "", "10", "9", "__proto__", "constructor", "other"]) {
        if (next() < 0.5) {
          Object.defineProperty(value, name, {
            value: name === "" && next() < 0.8
              ? [{ z: next() < 0.5, y: null }, { y: "\\ud800", z: true }]
              : next() < 0.7
              ? words[Math.floor(next() * words.length)]
              : generate(next, 2),
            enumerable: true,
            configurable: true,
            writable: true
          })
        }
      }
      values.push(value)
    }
    const usual: ReadonlyArray<unknown> = [
      { b: "x" },
      { b: "x", a: -0 },
      { a: 1, b: "\ud83d\ude00\n\"" },
      { b: "x", "": [{ z: true, y: "\u0000" }] }
    ]
    const never: ReadonlyArray<unknown> = [
      { b: "\ud800" },
      { b: "x", a: Number.NaN },
      { b: "x", a: 1n },
      { b: new Date(0) },
      { b: "x", "": [undefined] },
      { b: "x".repeat(1024 * 1024) }
    ]
    const schemas: ReadonlyArray<Schema.Codec<any, any>> = [shape, odd, Schema.Array(shape)]
    for (const schema of schemas) {
      for (const value of [...values, ...usual, ...never]) {
        // The same tool but for its Schema, told apart by nothing but the digest, which is left out of the comparison.
        const typed = ToolMeta.make({ name: "s", varies: "everyone", input: schema })
        const plain = { ...ToolMeta.make({ name: "s", varies: "everyone" }), digest: typed.digest }
        const input = schema === shape || schema === odd ? value : [value, value]
        assert.strictEqual(CacheKey.make({ tool: typed, input }), CacheKey.make({ tool: plain, input }))
      }
    }
    for (const input of never) {
      assert.isUndefined(CacheKey.make({ tool: ToolMeta.make({ name: "s", varies: "everyone", input: shape }), input }))
    }
  })

  it("tells members apart that a plain Schema does not know", () => {
    const plain = ToolMeta.make({ name: "plain", varies: "everyone", input: Schema.Struct({ q: Schema.String }) })
    const key = (input: unknown) => CacheKey.make({ tool: plain, input })
    assert.notStrictEqual(key({ q: "x" }), key({ q: "x", extra: 1 }))
    assert.strictEqual(key({ q: "x", extra: 1 }), key({ extra: 1, q: "x" }))
    assert.isUndefined(key({ q: "x", extra: new Date(0) }))
    assert.isUndefined(key({ q: "\ud800" }))
  })

  it("lets no value slide from one part into the next", () => {
    const keys = new Set<string>()
    let made = 0
    const names = ["a", "a.b", "b", "a.b.c", "b.c", "c", "1", "11"]
    const texts = ["a", "a:b", "b", "a:b:c", "b:c", ":", "1:a", "3:a:b", "", "-", "+", "e", "t"]
    const add = (key: string | undefined) => {
      assert.isDefined(key)
      made++
      keys.add(key!)
    }
    for (const namespace of [undefined, ...names]) {
      for (const name of names) {
        add(CacheKey.make({ tool: ToolMeta.make({ namespace, name, varies: "everyone" }), input: 1 }))
      }
    }
    const mine = ToolMeta.make({ name: "mine" })
    for (const tenant of [undefined, ...texts]) {
      for (const principal of texts) {
        if (principal === "") continue
        for (const roles of [[], ["a"], ["a", "b"], ["ab"], ["1:a"]]) {
          for (const scopes of [[], ["a"], ["b"]]) {
            add(CacheKey.make({
              tool: mine,
              input: 1,
              identity: Identity.make({ tenant, principal, roles, scopes })
            }))
          }
        }
      }
    }
    for (const action of texts) {
      if (action !== "call") add(CacheKey.make({ tool: mine, action, identity: Identity.anonymous }))
    }
    assert.strictEqual(keys.size, made)
    assert.isAbove(made, 2000)
  })

  it("depends on the tool's version and schema, and on the order of neither roles nor scopes", () => {
    const make = (options: Partial<ToolMeta.Options>) =>
      CacheKey.make({ tool: ToolMeta.make({ name: "t", varies: "everyone", ...options }), input: { a: "1" } })
    assert.strictEqual(
      new Set([
        make({}),
        make({ version: "2" }),
        make({ input: Schema.Struct({ a: Schema.String }) }),
        make({ varies: "tenant" })
      ]).size,
      4
    )
    const who = (roles: ReadonlyArray<string>, scopes: ReadonlyArray<string>, method = "jwt") =>
      CacheKey.make({
        tool: ToolMeta.make({ name: "t" }),
        identity: Identity.make({ principal: "p", roles, scopes, method })
      })
    assert.strictEqual(who(["a", "b"], ["x", "y"]), who(["b", "a", "a"], ["y", "x"]))
    assert.notStrictEqual(who(["a"], []), who([], ["a"]))
    // A principal that calls itself anonymous is not the anonymous caller.
    assert.notStrictEqual(
      CacheKey.make({ tool, input: 1, identity: Identity.anonymous }),
      CacheKey.make({
        tool: ToolMeta.make({ name: "t" }),
        input: 1,
        identity: Identity.make({ principal: "anonymous" })
      })
    )
    assert.isUndefined(CacheKey.make({ tool: ToolMeta.make({ name: "t" }), input: 1 }))
    assert.isUndefined(
      CacheKey.make({ tool: ToolMeta.make({ name: "t" }), identity: Identity.make({ principal: "\ud800" }) })
    )
  })

  it("depends on the issuer of the caller, and on whether there is one", () => {
    const mine = ToolMeta.make({ name: "mine" })
    const of = (options: Partial<Identity.Options>) =>
      CacheKey.make({ tool: mine, identity: Identity.make({ principal: "ada", method: "jwt", ...options }) })
    // An empty issuer is none that `make` takes, but an identity may come from anywhere.
    const empty = CacheKey.make({
      tool: mine,
      identity: { ...Identity.make({ principal: "ada", method: "jwt" }), issuer: "" }
    })
    const keys = [
      of({}),
      empty,
      of({ issuer: "https://a.example" }),
      of({ issuer: "https://b.example" }),
      of({ issuer: "https://a.example", tenant: "acme" }),
      of({ issuer: "a", scopes: ["b"] }),
      of({ issuer: "ab", scopes: [] }),
      of({ scopes: ["a", "b"] })
    ]
    assert.strictEqual(new Set(keys).size, keys.length)
    assert.strictEqual(of({ issuer: "https://a.example" }), keys[2])
    assert.isUndefined(of({ issuer: "\ud800" }))
  })

  it("does not remember the key of an identity that can change", () => {
    const mine = ToolMeta.make({ name: "mine" })
    const loose = { ...Identity.make({ principal: "p" }), roles: ["a"] }
    const before = CacheKey.make({ tool: mine, identity: loose })
    loose.roles.push("b")
    assert.notStrictEqual(CacheKey.make({ tool: mine, identity: loose }), before)
  })
})
