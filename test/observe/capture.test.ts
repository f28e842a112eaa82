import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Redacted, Schema } from "effect"
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
