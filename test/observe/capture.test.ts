import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Redacted, Schema, SchemaGetter } from "effect"
import { ToolMeta } from "effect-toolops"
import { ObserveMiddleware, Redaction } from "effect-toolops/observe"
import { attributes, observed } from "./observed.ts"

/** What the root span holds of arguments and result. */
const captured = (
  schema: Schema.Codec<any, any> | undefined,
  value: unknown,
  capture: ObserveMiddleware.Options["capture"] = { arguments: true }
) => {
  const { run, spans } = observed({ observe: { capture } })
  const tool = ToolMeta.make({ name: "t", input: schema, success: schema })
  return Effect.map(run((pipeline) => pipeline.run({ tool, input: value }, Effect.succeed(value))), () => {
    const told = attributes(spans[0])
    const parse = (json: unknown) => json === undefined ? undefined : JSON.parse(String(json))
    return {
      arguments: parse(told["gen_ai.tool.call.arguments"]),
      result: parse(told["gen_ai.tool.call.result"]),
      all: JSON.stringify(spans.map((span) => [...span.attributes]))
    }
  })
}

const User = Schema.Struct({
  name: Schema.String,
  ssn: Redaction.sensitive(Schema.String),
  card: Schema.optionalKey(Redaction.sensitive(Schema.Struct({ number: Schema.String })))
})

describe("capture", () => {
  it.effect("records neither arguments nor results unless asked", () =>
    Effect.gen(function*() {
      const told = yield* captured(User, { name: "canary", ssn: "canary" }, {})
      assert.deepStrictEqual([told.arguments, told.result], [undefined, undefined])
      assert.notInclude(told.all, "canary")
    }))

  it.effect("records what the schema names, without what it marks and what it does not name", () =>
    Effect.gen(function*() {
      const value = { name: "ada", ssn: "canary", card: { number: "canary" }, extra: "canary" }
      const told = yield* captured(User, value, { arguments: true, result: true })
      assert.deepStrictEqual([told.arguments, told.result], [{ name: "ada" }, { name: "ada" }])
    }))

  it.effect("records the named fields alone, and nothing of a tool without a schema", () =>
    Effect.gen(function*() {
      const Input = Schema.Struct({ a: Schema.String, b: Schema.String, password: Schema.String })
      const value = { a: "1", b: "canary", password: "canary" }
      assert.deepStrictEqual((yield* captured(Input, value, { arguments: ["a", "password"] })).arguments, {
        a: "1",
        password: "<redacted>"
      })
      assert.isUndefined((yield* captured(undefined, value)).arguments)
    }))

  it.effect("finds marks in lists, records, unions, recursion, classes, options and checked schemas", () => {
    class Account
      extends Schema.Class<Account>("Account")({ id: Schema.Number, pin2: Redaction.sensitive(Schema.String) })
    {}
    interface Tree {
      readonly label: string
      readonly hidden: string
      readonly children: ReadonlyArray<Tree>
    }
    const Tree: Schema.Codec<Tree> = Schema.Struct({
      label: Schema.String,
      hidden: Redaction.sensitive(Schema.String),
      children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
    })
    const Input = Schema.Struct({
      list: Schema.Array(User),
      record: Schema.Record(Schema.String, User),
      either: Schema.Union([
        Schema.Struct({ a: Schema.String, x: Schema.String }),
        Schema.Struct({ b: Schema.String, x: Redaction.sensitive(Schema.String) })
      ]),
      tree: Tree,
      account: Account,
      option: Schema.Option(User),
      plain: Schema.Option(Schema.String),
      wrapped: Schema.Redacted(Schema.String),
      checked: Redaction.sensitive(Schema.String.check(Schema.isMinLength(1))),
      late: Schema.String.pipe(Redaction.sensitive).check(Schema.isMinLength(1)),
      key: Schema.String.pipe(Schema.annotateKey({ "effect-toolops/sensitive": true })),
      unknown: Schema.Unknown
    })
    const user = { name: "n", ssn: "canary" }
    const tree = (depth: number): Tree => ({
      label: "l",
      hidden: "canary",
      children: depth === 0 ? [] : [tree(depth - 1)]
    })
    return Effect.gen(function*() {
      const told = yield* captured(Input, {
        list: [user, user],
        record: { k: user },
        either: { a: "1", x: "canary" },
        tree: tree(2),
        account: new Account({ id: 1, pin2: "canary" }),
        option: Option.some(user),
        plain: Option.some("kept"),
        wrapped: Redacted.make("canary"),
        checked: "canary",
        late: "canary",
        key: "canary",
        unknown: { token: "canary", ok: 1 }
      })
      assert.notInclude(told.all, "canary")
      assert.deepStrictEqual(told.arguments, {
        list: [{ name: "n" }, { name: "n" }],
        record: { k: { name: "n" } },
        either: { a: "1" },
        tree: { label: "l", children: [{ label: "l", children: [{ label: "l", children: [] }] }] },
        account: { id: 1 },
        option: {},
        plain: { _id: "Option", _tag: "Some", value: "kept" },
        unknown: { token: "<redacted>", ok: 1 }
      })
    })
  })

  it.effect("captures nothing of what is decoded from a marked schema, unless the mark is on both sides", () => {
    const Note = Schema.Struct({ note: Schema.String })
    const same = {
      decode: SchemaGetter.passthrough<typeof Note.Type>(),
      encode: SchemaGetter.passthrough<typeof Note.Type>()
    }
    const Marked = Schema.Struct({ note: Redaction.sensitive(Schema.String) })
    const Input = Schema.Struct({
      inside: Marked.pipe(Schema.decodeTo(Note, same)),
      itself: Redaction.sensitive(Note).pipe(Schema.decodeTo(Note, same)),
      deep: Schema.Array(Schema.Struct({ a: Marked })).pipe(
        Schema.decodeTo(Schema.Array(Schema.Struct({ a: Note })), {
          decode: SchemaGetter.passthrough(),
          encode: SchemaGetter.passthrough()
        })
      ),
      optional: User.pipe(Schema.withDecodingDefault(Effect.succeed({ name: "n", ssn: "s" }))),
      key: Redaction.sensitive(Schema.String).pipe(Schema.optionalKey),
      plain: Note
    })
    return Effect.gen(function*() {
      const note = { note: "canary" }
      const told = yield* captured(Input, {
        inside: note,
        itself: note,
        deep: [{ a: note }],
        optional: { name: "n", ssn: "canary" },
        key: "canary",
        plain: { note: "kept" }
      })
      assert.notInclude(told.all, "canary")
      assert.deepStrictEqual(told.arguments, { optional: { name: "n" }, plain: { note: "kept" } })
    })
  })

  it.effect("captures nothing of a record whose keys are marked", () => {
    const Email = Redaction.sensitive(Schema.String)
    interface Tree {
      readonly [name: string]: Tree
    }
    const Tree: Schema.Codec<Tree> = Schema.Record(Schema.String, Schema.suspend((): Schema.Codec<Tree> => Tree))
    const Input = Schema.Struct({
      byEmail: Schema.Record(Email, Schema.Number),
      byChecked: Schema.Record(Schema.String.check(Schema.isMinLength(1)).pipe(Redaction.sensitive), Schema.Number),
      option: Schema.Option(Schema.Record(Email, Schema.Number)),
      byName: Schema.Record(Schema.String, Schema.Number),
      tree: Schema.Option(Tree)
    })
    return Effect.gen(function*() {
      const secret = { "canary@x": 1 }
      const kept = { _id: "Option", _tag: "Some", value: { a: {} } }
      const told = yield* captured(Input, {
        byEmail: secret,
        byChecked: secret,
        option: Option.some(secret),
        byName: { a: 1 },
        tree: Option.some({ a: {} })
      })
      assert.notInclude(told.all, "canary")
      assert.deepStrictEqual(told.arguments, { byEmail: {}, byChecked: {}, option: {}, byName: { a: 1 }, tree: kept })
    })
  })

  it.effect("comes to an end of what refers to itself", () =>
    Effect.gen(function*() {
      interface Graph {
        readonly label: string
        readonly next: Array<Graph>
      }
      const Graph: Schema.Codec<Graph> = Schema.Struct({
        label: Schema.String,
        next: Schema.mutable(Schema.Array(Schema.suspend((): Schema.Codec<Graph> => Graph)))
      })
      const graph: Graph = { label: "l", next: [] }
      graph.next.push(...Array.from({ length: 10 }, () => graph))
      const told = yield* captured(Graph, graph)
      assert.include(told.all, "too deep")
    }))

  it.effect("comes to an end of a schema that a function makes anew wherever it refers to itself", () =>
    Effect.gen(function*() {
      let made = 0
      const anew = <S>(schema: S): S => {
        made += 1
        // Where nothing bounds it, the test would not end.
        if (made > 30_000) throw new Error("unbounded")
        return schema
      }
      interface Node {
        readonly v: string
        readonly children: ReadonlyArray<Node>
      }
      const plain = (): Schema.Codec<Node> =>
        anew(Schema.Struct({ v: Schema.String, children: Schema.Array(Schema.suspend(plain)) }))
      const renamed = (): Schema.Codec<Node, unknown> =>
        anew(
          Schema.Struct({ v: Schema.String, children: Schema.Array(Schema.suspend(renamed)) }).pipe(
            Schema.encodeKeys({ v: "canary" })
          )
        )
      const either = (): Schema.Codec<string> => anew(Schema.Union([Schema.String, Schema.suspend(either)]))
      const value: Node = { v: "a", children: [{ v: "b", children: [] }] }
      assert.deepStrictEqual((yield* captured(plain(), value)).arguments, value)
      const Input = Schema.Struct({
        kept: Schema.String,
        renamed: renamed(),
        option: Schema.Option(Schema.suspend(plain)),
        either: either()
      })
      const told = yield* captured(Input, { kept: "k", renamed: value, option: Option.some(value), either: "e" })
      // What is not known to be without a mark may have one.
      assert.deepStrictEqual(told.arguments, { kept: "k", option: {} })
      assert.isBelow(made, 30_000)
    }))

  it.effect("cuts what is long and what is deep", () =>
    Effect.gen(function*() {
      interface Tree {
        readonly label: string
        readonly child?: Tree
      }
      const Tree: Schema.Codec<Tree> = Schema.Struct({
        label: Schema.String,
        child: Schema.optionalKey(Schema.suspend((): Schema.Codec<Tree> => Tree))
      })
      let tree: Tree = { label: "end" }
      for (let i = 0; i < 50_000; i++) tree = { label: "l", child: tree }
      const deep = yield* captured(Tree, tree)
      assert.include(deep.all, "too deep")
      assert.isBelow(deep.all.length, 2000)

      const { run, spans } = observed({ observe: { capture: { arguments: true } } })
      const tool = ToolMeta.make({ name: "t", input: Schema.Array(Schema.String) })
      const input = Array.from({ length: 100 }, () => `${"x".repeat(200)}\u{1f600}`)
      yield* run((pipeline) => pipeline.run({ tool, input }, Effect.void))
      const told = String(attributes(spans[0])["gen_ai.tool.call.arguments"])
      assert.strictEqual(told.length, 8192 + "[cut]".length)
      assert.isTrue(told.endsWith("[cut]"))
    }))

  it.effect("takes values that do not fit the schema without breaking the call", () =>
    Effect.gen(function*() {
      for (const value of [null, 1, "x", [1], { name: { deep: "canary" } }, { list: "canary" }]) {
        assert.notInclude((yield* captured(User, value)).all, "canary")
      }
      const hostile = new Proxy({}, {
        ownKeys: () => {
          throw new Error("no")
        }
      })
      assert.isUndefined((yield* captured(User, hostile)).arguments)
    }))
})
