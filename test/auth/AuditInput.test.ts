import { afterAll, assert, describe, it } from "@effect/vitest"
import { Console, Effect, Redacted, Schema } from "effect"
import { ToolMeta } from "effect-toolops"
import { AuditLog, AuditRecord, Identity } from "effect-toolops/auth"
import { Redaction } from "effect-toolops/observe"
import { createHash, createHmac } from "node:crypto"
import { aliceKey, audited, pipelineWith, secret, write } from "./audited.ts"
import { layer, linesOf, makeFolders } from "./auditFiles.ts"

const folders = makeFolders()
afterAll(folders.remove)

const found = Effect.succeed("found")
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex")

/** What the log holds of one call's input. */
const inputOf = (options: AuditLog.MemoryOptions, input: unknown, tool: ToolMeta.ToolMeta = write) =>
  Effect.gen(function*() {
    const { records, run } = yield* audited(options)
    yield* run(tool, found, { input })
    return (yield* records)[0]?.input
  })

const tool = (options: Partial<ToolMeta.Options>) => ToolMeta.make({ namespace: "docs", name: "t", ...options })

const cycle: Record<string, unknown> = {}
cycle["self"] = cycle

describe("the input of a call in the audit log", () => {
  it.effect("is the SHA-256 of its canonical JSON", () =>
    Effect.gen(function*() {
      const digest = sha256("{\"a\":[1,true,null],\"b\":\"x\"}")
      assert.deepStrictEqual(yield* inputOf({}, { b: "x", a: [1, true, null] }), { digest, fields: undefined })
      assert.deepStrictEqual(yield* inputOf({}, { a: [1, true, null], b: "x", c: undefined }), {
        digest,
        fields: undefined
      })
      assert.strictEqual((yield* inputOf({}, "x"))?.digest, sha256("\"x\""))
    }))

  it.effect("is an HMAC under the log's key, so that it cannot be guessed", () =>
    Effect.gen(function*() {
      const key = "a key of the audit log"
      const input = yield* inputOf({ inputKey: Redacted.make(key) }, { pin: 1234 })
      assert.strictEqual(input?.digest, createHmac("sha256", key).update("{\"pin\":1234}").digest("hex"))
    }))

  it.effect("is digested as its Schema says when it is no JSON itself", () =>
    Effect.gen(function*() {
      const dated = tool({ input: Schema.Struct({ at: Schema.Date, n: Schema.BigInt }) })
      const input = { at: new Date(0), n: 5n }
      assert.strictEqual(
        (yield* inputOf({}, input, dated))?.digest,
        sha256("{\"at\":\"1970-01-01T00:00:00.000Z\",\"n\":\"5\"}")
      )
    }))

  for (
    const [name, input] of Object.entries({
      "nothing": undefined,
      "a cycle": cycle,
      "NaN": { n: NaN },
      "a date without a Schema": { at: new Date(0) },
      "a getter that throws": {
        get bad() {
          throw new Error("canary")
        }
      },
      "a proxy that throws": new Proxy({}, {
        ownKeys: () => {
          throw new Error("canary")
        },
        getOwnPropertyDescriptor: () => {
          throw new Error("canary")
        }
      })
    })
  ) {
    it.effect(`has no digest and breaks no call when it is ${name}`, () =>
      Effect.gen(function*() {
        const options = { fields: { "*": ["bad", "n", "at"] } }
        const told = yield* inputOf(options, input)
        assert.isUndefined(told?.digest)
        assert.deepStrictEqual({ ...told?.fields }, {})
      }))
  }

  it.effect("is not told at all where that is asked for", () =>
    Effect.gen(function*() {
      assert.isUndefined(yield* inputOf({ input: "none" }, { a: 1 }))
    }))

  it.effect("is what it was when the call was let in", () =>
    Effect.gen(function*() {
      const { records, run } = yield* audited({ fields: { "*": ["a"] } })
      const input = { a: 1 }
      yield* run(
        write,
        Effect.sync(() => {
          input.a = 2
        }),
        { input }
      )
      assert.deepStrictEqual((yield* records)[0]?.input?.digest, sha256("{\"a\":1}"))
      assert.deepStrictEqual({ ...(yield* records)[0]?.input?.fields }, { a: 1 })
    }))

  it.effect("is told by the fields that the closest pattern names", () =>
    Effect.gen(function*() {
      const input = {
        q: "effect",
        limit: 3,
        exact: true,
        none: null,
        deep: { q: "canary" },
        list: ["canary"],
        other: "canary"
      }
      const fields = {
        "*": ["other"],
        "docs:*": ["other", "q"],
        "docs:t": ["q", "limit", "exact", "none", "deep", "list", "absent", "toString"]
      }
      const told = yield* inputOf({ fields, input: "none" }, input, tool({}))
      assert.deepStrictEqual({ ...told?.fields }, { q: "effect", limit: 3, exact: true, none: null })
      assert.isUndefined(told?.digest)
      const elsewhere = yield* inputOf({ fields }, input, tool({ name: "u" }))
      assert.deepStrictEqual({ ...elsewhere?.fields }, { other: "canary", q: "effect" })
    }))

  it.effect("is cut where it is long", () =>
    Effect.gen(function*() {
      const told = yield* inputOf({ fields: { "*": ["q"] } }, { q: "x".repeat(100_000) })
      assert.strictEqual(told?.fields?.["q"], "x".repeat(256))
    }))

  // What is cut off must take with it what was whole only with it: by any number of characters, and behind secrets that
  // made room when they were replaced.
  const halves: ReadonlyArray<readonly [string, string]> = [
    ["postgres://u:", "CANARY-password-123456@db/x"],
    ["-----BEGIN PRIVATE KEY-----\n", `${"CANARY".repeat(20)}\n-----END PRIVATE KEY-----`],
    ["Bearer ", "CANARYtokenvalue1234567890"],
    ["", "sk-CANARYCANARYCANARYCANARY"]
  ]

  it.effect("holds no piece of a secret that the cut has halved", () =>
    Effect.gen(function*() {
      const { clear, records, run } = yield* audited({ fields: { "*": ["q"] }, input: "none" })
      const told = Effect.fnUntraced(function*(q: string) {
        yield* clear
        yield* run(write, found, { input: { q } })
        return String((yield* records)[0]?.input?.fields?.["q"])
      })
      for (const [head, rest] of halves) {
        for (const limit of [256, 1024, 8192]) {
          for (let over = -1; over <= head.length + rest.length + 1; over += 3) {
            const room = limit - head.length - rest.length + over
            const words = "word ".repeat(Math.ceil(room / 5)).slice(0, room - 1)
            const q = `${words} ${head}${rest} ${"more ".repeat(2000)}`
            const plain = yield* told(q)
            assert.notMatch(plain, /CAN/)
            assert.isTrue(plain.startsWith("word word"))
            // All of it is replaced by a few characters, so what is at the cut comes to the front.
            const shrunk = yield* told(`Bearer ${"a".repeat(room - 8)} ${head}${rest} ${"more ".repeat(2000)}`)
            assert.notMatch(shrunk, /CAN/)
          }
        }
      }
    }), 60_000)

  const Named = Schema.Struct({
    q: Schema.String,
    plain: Redaction.sensitive(Schema.String),
    optional: Schema.optional(Redaction.sensitive(Schema.String)),
    either: Schema.Union([Schema.Number, Redaction.sensitive(Schema.String)]),
    coded: Redaction.sensitive(Schema.NumberFromString)
  })
  const marked = ["q", "plain", "optional", "either", "coded"]
  const values = { q: "q", plain: "canary", optional: "canary", either: "canary", coded: 4711 }
  for (
    const [name, schema] of Object.entries({
      "a Schema": Named,
      "one reading of a Schema": Schema.Union([Schema.Struct({ q: Schema.String, plain: Schema.String }), Named]),
      "a recursive Schema": Schema.suspend((): Schema.Codec<typeof Named.Type, unknown> => Named)
    })
  ) {
    it.effect(`never tells what ${name} marks as sensitive, whoever names it`, () =>
      Effect.gen(function*() {
        const told = yield* inputOf({ fields: { "*": marked } }, values, tool({ input: schema }))
        assert.deepStrictEqual({ ...told?.fields }, { q: "q" })
      }))
  }

  it.effect("keeps no tool from being called, whatever its Schema does", () =>
    Effect.gen(function*() {
      const broken = Schema.suspend((): Schema.Codec<{ readonly q: string }, unknown> => {
        throw new Error("canary")
      })
      const told = yield* inputOf({ fields: { "*": ["q"] } }, { q: "x" }, tool({ input: broken }))
      // What cannot be looked through may be sensitive.
      assert.deepStrictEqual(told, { digest: sha256("{\"q\":\"x\"}"), fields: undefined })
    }))

  it.effect("is not looked at when the call is refused again", () =>
    Effect.gen(function*() {
      const { records, run } = yield* audited()
      let reads = 0
      const input = {
        get a() {
          reads += 1
          return 1
        }
      }
      yield* Effect.exit(run(secret, found, { input }))
      const once = reads
      for (let i = 0; i < 10; i++) yield* Effect.exit(run(secret, found, { input }))
      assert.strictEqual(reads, once)
      assert.strictEqual((yield* records)[0]?.input?.digest, sha256("{\"a\":1}"))
    }))
})

describe("secrets and the audit log", () => {
  it.effect("do not meet, wherever a secret comes in", () => {
    const lines: Array<string> = []
    const console: Console.Console = { ...globalThis.console, error: (text: string) => void lines.push(text) }
    const canary = "canary4711"
    const phrases = [
      `Bearer ${canary}`,
      `postgres://app:${canary}@db/x`,
      `password=${canary}`,
      `-----BEGIN PRIVATE KEY-----\n${canary}\n-----END PRIVATE KEY-----`
    ]
    return Effect.gen(function*() {
      const fields = { "*": ["note", "token"] }
      const paths: Array<string> = []
      const logs = (["best-effort", "required"] as const).flatMap((mode) => {
        const path = folders.freshPath()
        paths.push(path)
        return [AuditLog.layerConsole({ mode, fields }), layer(path, { mode, fields })]
      })
      for (const each of logs) {
        const { log, run } = yield* pipelineWith(each)
        const dying = [
          Effect.succeed(canary),
          Effect.fail(new Error(canary)),
          Effect.fail({ _tag: "Tagged", message: canary }),
          Effect.die(canary),
          Effect.interrupt
        ]
        for (const note of phrases) {
          for (const handler of dying) {
            yield* Effect.exit(run(write, handler, { note, other: canary, deep: { note: canary } }))
            yield* Effect.exit(run(secret, handler, { note, other: canary }))
          }
        }
        yield* log.flush
      }
      const written = [lines, ...paths.map(linesOf)]
      assert.deepStrictEqual(written.map((each) => each.length > 20), [true, true, true])
      assert.isAbove(lines.join("\n").split("\n").length, 60)
      for (const text of written.map((each) => each.join("\n"))) {
        for (const hidden of [canary, aliceKey, "metadata-canary"]) assert.notInclude(text, hidden)
        assert.include(text, "<redacted>")
      }
    }).pipe(Effect.provideService(Console.Console, console))
  })
})

describe("AuditRecord", () => {
  it.effect("is one line whatever is in it, and reads as it was written", () =>
    Effect.gen(function*() {
      const hostile = "a\n\r\u0000\u001b[2J\u007f\u009b\u2028\u2029\u202e|=\\\"{}\ud800"
      const record: AuditRecord.AuditRecord = {
        version: 1,
        kind: "call",
        callId: hostile,
        time: 1,
        offsetMillis: 0.5,
        caller: { principal: hostile, method: hostile, tenant: hostile },
        tool: { id: "t", action: hostile },
        input: { fields: { [hostile]: hostile } },
        outcome: "ok"
      }
      const line = AuditRecord.toLine(record)
      // oxlint-disable-next-line no-control-regex -- what must not be in a line
      assert.notMatch(line, /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202e\ud800]/)
      assert.deepStrictEqual(yield* AuditRecord.fromLine(line), record)
    }))

  it.effect("is not read where it is none", () =>
    Effect.gen(function*() {
      for (const line of ["", "{", "null", "{}", "{\"version\":2}", "{\"version\":1,\"kind\":\"other\"}"]) {
        yield* Effect.flip(AuditRecord.fromLine(line))
      }
    }))

  it.effect("cuts what others have chosen, and still tells it apart", () =>
    Effect.gen(function*() {
      const { pipeline, records } = yield* audited()
      const long = "p".repeat(300)
      for (const principal of [`${long}1`, `${long}2`]) {
        yield* Effect.exit(
          pipeline.run({ tool: secret, callId: "c".repeat(1000) }, found).pipe(
            Effect.provideService(Identity.CurrentIdentity, Identity.make({ principal }))
          )
        )
      }
      const [one, two] = yield* records
      assert.strictEqual(one?.caller?.principal.length, 256)
      assert.notStrictEqual(one?.caller?.principal, two?.caller?.principal)
      assert.strictEqual(one?.callId.length, 256)
    }))

  it.effect("tells who called each time, although somebody's own identity changes", () =>
    Effect.gen(function*() {
      const { pipeline, records } = yield* audited()
      const changing: { -readonly [K in keyof Identity.Identity]: Identity.Identity[K] } = {
        ...Identity.make({ principal: "x", roles: ["reader"] })
      }
      for (const principal of ["x", "y", "x"]) {
        changing.principal = principal
        yield* Effect.provideService(pipeline.run({ tool: write }, found), Identity.CurrentIdentity, changing)
      }
      assert.deepStrictEqual((yield* records).map((record) => record.caller?.principal), ["x", "y", "x"])
    }))

  it.effect("breaks no call of a caller that cannot be read", () =>
    Effect.gen(function*() {
      const { pipeline, records } = yield* audited()
      const broken = new Proxy(Identity.make({ principal: "x", roles: ["reader"] }), {
        get: (target, name) => {
          if (name === "claims") throw new Error("canary")
          return Reflect.get(target, name) as unknown
        }
      })
      const answer = pipeline.run({ tool: write }, found).pipe(
        Effect.provideService(Identity.CurrentIdentity, broken)
      )
      assert.strictEqual(yield* answer, "found")
      assert.deepStrictEqual((yield* records)[0]?.caller, { principal: "_unreadable", method: "_unreadable" })
    }))
})
