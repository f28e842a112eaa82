import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { ToolPolicy } from "effect-toolops/ai"
import { Tool } from "effect/ai"

const Echo = Tool.make("text_echo", { parameters: Schema.Struct({ text: Schema.String }), success: Schema.String })
  .annotate(Tool.Readonly, true)

describe("ToolPolicy", () => {
  it("takes name, description and annotations over", () => {
    const meta = ToolPolicy.metaOf(
      Tool.make("github_create_issue", { description: "Opens an issue" })
        .annotate(Tool.Idempotent, true)
        .annotate(Tool.OpenWorld, false)
        .annotate(ToolPolicy.ToolPolicy, { scopes: ["issues:write"], tags: ["slow"], varies: "tenant", version: "2" })
    )
    assert.strictEqual(meta.id, "github:create_issue")
    assert.strictEqual(meta.description, "Opens an issue")
    assert.deepStrictEqual(
      [meta.readOnly, meta.destructive, meta.idempotent, meta.openWorld, meta.varies, meta.version],
      [false, true, true, false, "tenant", "2"]
    )
    assert.deepStrictEqual(meta.scopes, ["issues:write"])
    assert.deepStrictEqual(meta.tags, ["slow"])
  })

  it("takes an unannotated tool for destructive and not idempotent", () => {
    const meta = ToolPolicy.metaOf(Tool.make("anything"))
    assert.deepStrictEqual([meta.id, meta.readOnly, meta.destructive, meta.idempotent], [
      "anything",
      false,
      true,
      false
    ])
  })

  it("takes a read-only tool for not destructive, and refuses one that says it is", () => {
    assert.isFalse(ToolPolicy.metaOf(Echo).destructive)
    assert.throws(() => ToolPolicy.metaOf(Echo.annotate(Tool.Destructive, true)), /both readOnly and destructive/)
  })

  it("names tools by convention, by option, or not at all", () => {
    const idOf = (name: string, options?: ToolPolicy.Options) => ToolPolicy.metaOf(Tool.make(name), options).id
    assert.strictEqual(idOf("docs.read_all"), "docs:read_all")
    assert.strictEqual(idOf("_private"), "_private")
    assert.strictEqual(idOf("docs_"), "docs_")
    assert.strictEqual(idOf("docs_read", { namespace: "docs" }), "docs:read")
    assert.strictEqual(idOf("docsread", { namespace: "docs" }), "docs:docsread")
    assert.strictEqual(idOf("read", { namespace: "docs" }), "docs:read")
    assert.strictEqual(idOf("get_weather", { namespace: false }), "get_weather")
  })
})
