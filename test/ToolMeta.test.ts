import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { ToolMeta } from "effect-toolops"

const make = (options: object) => () => ToolMeta.make(options as ToolMeta.Options)

describe("ToolMeta", () => {
  it("takes a tool that says nothing for destructive, not idempotent, open and the caller's own", () => {
    const tool = ToolMeta.make({ name: "wipe" })
    assert.deepStrictEqual(
      [tool.readOnly, tool.destructive, tool.idempotent, tool.openWorld, tool.varies],
      [false, true, false, true, "identity"]
    )
    assert.deepStrictEqual([tool.tags, tool.scopes], [[], []])
  })

  it("takes a read-only tool for not destructive", () => {
    assert.isFalse(ToolMeta.make({ name: "read", readOnly: true }).destructive)
  })

  it("derives id and span name from namespace and name", () => {
    const plain = ToolMeta.make({ name: "search" })
    const spaced = ToolMeta.make({ namespace: "docs", name: "search" })
    assert.deepStrictEqual([plain.id, plain.spanName], ["search", "tool.exec.search"])
    assert.deepStrictEqual([spaced.id, spaced.spanName], ["docs:search", "tool.exec.docs.search"])
  })

  it("keeps nothing that a caller can change afterwards", () => {
    const tags = ["a"]
    const policy = { dependency: "x" }
    const tool = ToolMeta.make({ name: "t", tags, policy })
    tags.push("write")
    policy.dependency = "y"
    assert.deepStrictEqual([tool.tags, tool.policy.dependency], [["a"], "x"])
    assert.isTrue(Object.isFrozen(tool) && Object.isFrozen(tool.tags) && Object.isFrozen(tool.policy))
  })

  describe("refuses", () => {
    const longest = "x".repeat(128)
    it("names outside A-Z a-z 0-9 _ - . or of 0 or more than 128 characters", () => {
      for (const name of ["", "a:b", "a b", "é", "a\n", "a/b", "*", `${longest}x`, "a\u0000", undefined, 1, null]) {
        assert.throws(make({ name }), /ToolMeta\.make: name must be 1 to 128 of the characters/)
        if (name === undefined) continue
        assert.throws(make({ name: "ok", namespace: name }), /ToolMeta\.make: namespace must be 1 to 128/)
      }
      for (const name of [longest, "a", "A-Z_0.9"]) assert.strictEqual(ToolMeta.make({ name }).id, name)
    })

    it("annotations that contradict each other", () => {
      assert.throws(make({ name: "t", readOnly: true, destructive: true }), /both readOnly and destructive/)
      assert.doesNotThrow(make({ name: "t", readOnly: true, destructive: false }))
      assert.doesNotThrow(make({ name: "t", readOnly: false, destructive: false }))
    })

    it("unknown members, also in the policy, and names them", () => {
      assert.throws(make({ name: "t", readonly: true }), /unknown option "readonly", expected one of namespace, name/)
      assert.throws(make({ name: "t", policy: { timeOut: 1 } }), /ToolMeta\.make: policy: unknown option "timeOut"/)
    })

    it("members of the wrong kind and names them", () => {
      assert.throws(make({ name: "t", readOnly: "yes" }), /readOnly must be true or false, got string/)
      assert.throws(make({ name: "t", idempotent: 1 }), /idempotent must be true or false, got number/)
      assert.throws(make({ name: "t", tags: "write" }), /tags must be an array of non-empty strings/)
      assert.throws(make({ name: "t", scopes: [""] }), /scopes must be an array of non-empty strings/)
      assert.throws(make({ name: "t", version: 1 }), /version must be a string, got number/)
      assert.throws(make({ name: "t", varies: "nobody" }), /varies must be one of identity, tenant, everyone/)
      assert.throws(make({ name: "t", input: { type: "object" } }), /input must be a Schema, got object/)
    })
  })

  describe("digest", () => {
    const base = {
      namespace: "docs",
      name: "search",
      version: "1",
      description: "Searches.",
      tags: ["a"],
      category: "docs",
      scopes: ["s"],
      input: Schema.Struct({ q: Schema.String }),
      success: Schema.String,
      failure: Schema.String
    } satisfies ToolMeta.Options
    const digest = (options: Partial<ToolMeta.Options>) => ToolMeta.make({ ...base, ...options }).digest

    it("is the same for the same description", () => {
      assert.match(digest({}), /^[0-9a-f]{64}$/)
      assert.strictEqual(digest({}), digest({ input: Schema.Struct({ q: Schema.String }) }))
    })

    it("changes with each member that a client can see, and with nothing else", () => {
      const changes: ReadonlyArray<Partial<ToolMeta.Options>> = [
        {},
        { namespace: "doc" },
        { name: "find" },
        { version: "2" },
        { description: "Finds." },
        { tags: ["b"] },
        { category: "other" },
        { scopes: ["t"] },
        { readOnly: true },
        { destructive: false },
        { idempotent: true },
        { openWorld: false },
        { varies: "everyone" },
        { varies: "tenant" },
        { input: Schema.Struct({ q: Schema.Number }) },
        { input: undefined },
        { success: Schema.Number },
        { failure: Schema.Number }
      ]
      assert.strictEqual(new Set(changes.map(digest)).size, changes.length)
      assert.strictEqual(digest({ policy: { dependency: "x" } }), digest({}))
    })
  })

  it("recognises its own values", () => {
    assert.isTrue(ToolMeta.isToolMeta(ToolMeta.make({ name: "t" })))
    for (const other of [undefined, null, {}, { ...ToolMeta.make({ name: "t" }) }]) {
      assert.isFalse(ToolMeta.isToolMeta(other))
    }
  })
})
