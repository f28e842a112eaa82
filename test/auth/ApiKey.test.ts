import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, DateTime, Effect, Layer, Redacted } from "effect"
import { ApiKey, Authenticator } from "effect-toolops/auth"
import { TestClock } from "effect/testing"
import * as Crypto from "node:crypto"
import { inspect } from "node:util"
import * as ApiKeyStoreTest from "./ApiKeyStoreTest.ts"

const text = "a key that is long enough"
const key = Redacted.make(text)

const outcome = (value: string | ReadonlyArray<string>, name = "X-API-Key") =>
  Effect.flatMap(
    Authenticator.Authenticator,
    (authenticator) =>
      Effect.match(Authenticator.identify(authenticator, { [name]: value }), {
        onFailure: (error): string => error.reason._tag,
        onSuccess: (identity): string => identity.principal
      })
  )

const withKeys = (keys: ReadonlyArray<ApiKey.Registration>, options: ApiKey.Options = {}) =>
  ApiKey.layer(options).pipe(Layer.provideMerge(ApiKey.layerMemory({ keys })))

ApiKeyStoreTest.suite("ApiKey.layerMemory", () => ApiKey.layerMemory())

describe("ApiKey", () => {
  it.effect("gives an identity with everything that was registered", () =>
    Effect.gen(function*() {
      const authenticator = yield* Authenticator.Authenticator
      const identity = yield* Authenticator.identify(authenticator, { "x-api-key": text })
      assert.deepInclude(identity, {
        principal: "ada",
        tenant: "acme",
        roles: ["reader"],
        scopes: ["files:read"],
        method: "api_key"
      })
      assert.deepStrictEqual(identity.claims, { plan: "free", keyId: "k" })
    }).pipe(Effect.provide(withKeys([{
      id: "k",
      key,
      principal: "ada",
      tenant: "acme",
      roles: ["reader"],
      scopes: ["files:read"],
      metadata: { plan: "free", keyId: "forged" }
    }]))))

  it.effect("is read from its header in any case, and from one header with one value", () =>
    Effect.gen(function*() {
      for (const name of ["X-API-Key", "x-api-key", "X-Api-Key", "X-API-KEY"]) {
        assert.strictEqual(yield* outcome(text, name), "ada", name)
      }
      assert.strictEqual(yield* outcome([text]), "ada")
      assert.strictEqual(yield* outcome([]), "MissingCredentials")
      for (const value of ["", [text, text], `${text}, ${text}`, ` ${text}`, `${text} `, text.toUpperCase()]) {
        assert.strictEqual(yield* outcome(value), "InvalidCredentials", String(value))
      }
      const authenticator = yield* Authenticator.Authenticator
      const twice = yield* Effect.flip(Authenticator.identify(authenticator, { "x-api-key": text, "X-API-Key": text }))
      assert.strictEqual(twice.reason._tag, "InvalidCredentials")
    }).pipe(Effect.provide(withKeys([{ id: "k", key, principal: "ada" }]))))

  it.effect("is valid from notBefore on and before expiresAt, not at it", () =>
    Effect.gen(function*() {
      for (
        const [time, answer] of [
          [999, "TokenInactive"],
          [1000, "ada"],
          [1999, "ada"],
          [2000, "TokenExpired"]
        ] as const
      ) {
        yield* TestClock.setTime(time)
        assert.strictEqual(yield* outcome(text), answer, String(time))
      }
    }).pipe(Effect.provide(withKeys([{
      id: "k",
      key,
      principal: "ada",
      notBefore: DateTime.makeUnsafe(1000),
      expiresAt: DateTime.makeUnsafe(2000)
    }]))))

  it.effect("is refused from the moment of its revocation", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* outcome(text), "ada")
      yield* (yield* ApiKey.ApiKeyStore).revoke("k")
      assert.strictEqual(yield* outcome(text), "InvalidCredentials")
    }).pipe(Effect.provide(withKeys([{ id: "k", key, principal: "ada" }]))))

  it.effect("is not taken for another whose hash begins with the same 32 bits", () => {
    const seen = new Map<string, string>()
    let pair: readonly [string, string] | undefined = undefined
    for (let i = 0; pair === undefined; i++) {
      const candidate = `a key for the tests ${i}`
      const start = Crypto.hash("sha256", candidate).slice(0, 8)
      const other = seen.get(start)
      if (other !== undefined) pair = [other, candidate]
      seen.set(start, candidate)
    }
    const [one, other] = pair
    const known = withKeys([{ id: "k", key: Redacted.make(one), principal: "ada" }])
    return Effect.gen(function*() {
      assert.strictEqual(yield* outcome(one), "ada")
      assert.strictEqual(yield* outcome(other), "InvalidCredentials")
      const keys = yield* ApiKey.ApiKeyStore
      yield* keys.register({ id: "l", key: Redacted.make(other), principal: "eve" })
      assert.deepStrictEqual([yield* outcome(one), yield* outcome(other)], ["ada", "eve"])
      yield* keys.revoke("k")
      assert.deepStrictEqual([yield* outcome(one), yield* outcome(other)], ["InvalidCredentials", "eve"])
    }).pipe(Effect.provide(known))
  })

  it.effect("is told apart by the pepper", () => {
    const pepper = Redacted.make("p".repeat(32))
    const hash = Crypto.createHmac("sha256", "p".repeat(32)).update(text).digest("hex")
    return Effect.gen(function*() {
      const given = (options: ApiKey.Options) =>
        Effect.provide(
          outcome(text),
          ApiKey.layer(options).pipe(
            Layer.provide(ApiKey.layerMemory({ pepper, keys: [{ id: "k", key, principal: "ada" }] }))
          )
        )
      assert.strictEqual(yield* given({ pepper }), "ada")
      assert.strictEqual(yield* given({}), "InvalidCredentials")
      assert.strictEqual(yield* given({ pepper: Redacted.make("q".repeat(32)) }), "InvalidCredentials")
      assert.strictEqual(ApiKey.hashKey(key, pepper), hash)
      assert.strictEqual(ApiKey.hashKey(key), Crypto.createHash("sha256").update(text).digest("hex"))
    })
  })

  describe("what is asked of the store", () => {
    const counting = (answer: ApiKey.ApiKeyStore["Service"]["find"]) => {
      const asked: Array<string> = []
      const store = {
        find: (hash: string) => {
          asked.push(hash)
          return answer(hash)
        },
        register: () => Effect.die("not here"),
        revoke: () => Effect.die("not here"),
        list: Effect.succeed([])
      }
      return { asked, authenticator: ApiKey.make(store) }
    }
    const ask = (authenticator: Authenticator.Service, value: string) =>
      Effect.match(Authenticator.identify(authenticator, { "x-api-key": value }), {
        onFailure: (error): string => error.reason._tag,
        onSuccess: (identity): string => identity.principal
      })

    it.effect("is nothing for a key that is too long, or generated and misspelt", () =>
      Effect.gen(function*() {
        const { asked, authenticator } = counting(() => Effect.succeedNone)
        const generated = Redacted.value(yield* ApiKey.generate())
        for (let i = 3; i < generated.length; i++) {
          const other = generated[i] === "x" ? "y" : "x"
          assert.strictEqual(
            yield* ask(authenticator, generated.slice(0, i) + other + generated.slice(i + 1)),
            "InvalidCredentials"
          )
        }
        for (const value of [generated.slice(0, -1), `${generated}0`, "tk_", "x".repeat(513), "x".repeat(1e6)]) {
          yield* ask(authenticator, value)
        }
        assert.deepStrictEqual(asked, [])
        yield* ask(authenticator, generated)
        yield* ask(authenticator, "x".repeat(512))
        assert.strictEqual(asked.length, 2)
      }))

    it.effect("is not believed when it answers with another key", () =>
      Effect.gen(function*() {
        const { authenticator } = counting(() =>
          Effect.succeedSome({
            id: "k",
            hash: ApiKey.hashKey(Redacted.make("another key than the one")),
            principal: "eve",
            tenant: undefined,
            roles: [],
            scopes: [],
            metadata: {},
            notBefore: undefined,
            expiresAt: undefined
          })
        )
        assert.strictEqual(yield* ask(authenticator, text), "InvalidCredentials")
      }))

    it.effect("refuses the call when there is no answer", () =>
      Effect.gen(function*() {
        const down = new ApiKey.ApiKeyStoreError({ reason: new ApiKey.StoreUnavailable({ cause: new Error("down") }) })
        for (const broken of [Effect.fail(down), Effect.die("down")]) {
          assert.strictEqual(yield* ask(counting(() => broken).authenticator, text), "AuthUnavailable")
        }
      }))
  })

  describe("generate", () => {
    it.effect("makes keys that are long, differ, carry their prefix, and are not to be seen", () =>
      Effect.gen(function*() {
        const seen = new Set<string>()
        for (let i = 0; i < 1000; i++) {
          const made = yield* ApiKey.generate({ prefix: "acme" })
          assert.match(Redacted.value(made), /^acme_[0-9A-Za-z]{49}$/)
          assert.notInclude(`${made} ${inspect(made)} ${JSON.stringify(made)}`, Redacted.value(made).slice(5))
          seen.add(Redacted.value(made))
        }
        assert.strictEqual(seen.size, 1000)
      }))

    it.effect("makes keys that are taken, whatever the prefix", () =>
      Effect.gen(function*() {
        for (const prefix of ["tk", "acme"]) {
          const made = yield* ApiKey.generate({ prefix })
          const answer = yield* Effect.provide(
            outcome(Redacted.value(made)),
            withKeys([{ id: "k", key: made, principal: "ada" }], { prefix })
          )
          assert.strictEqual(answer, "ada")
        }
      }))
  })

  describe("refuses at construction", () => {
    const hash = "0".repeat(64)
    const refused: ReadonlyArray<readonly [string, any, RegExp]> = [
      ["neither key nor hash", { id: "k", principal: "ada" }, /either its key or its hash/],
      ["both", { id: "k", key, hash, principal: "ada" }, /either its key or its hash/],
      ["a key in the clear", { id: "k", key: text, principal: "ada" }, /Redacted/],
      ["an empty key", { id: "k", key: Redacted.make(""), principal: "ada" }, /at least 16/],
      ["an empty hash", { id: "k", hash: "", principal: "ada" }, /hexadecimal/],
      ["a hash in upper case", { id: "k", hash: "A".repeat(64), principal: "ada" }, /hexadecimal/],
      [
        "a key that begins like a generated one",
        { id: "k", key: Redacted.make(`tk_${text}`), principal: "ada" },
        /checksum/
      ],
      ["a key that has the form of a generated one", {
        id: "k",
        key: Redacted.make(`acme_${"a".repeat(49)}`),
        principal: "ada"
      }, /checksum/],
      ["no principal", { id: "k", key }, /principal/],
      ["no id", { key, principal: "ada" }, /id/],
      ["a text for roles", { id: "k", key, principal: "ada", roles: "admin" }, /roles/],
      ["an end that is a text", { id: "k", key, principal: "ada", expiresAt: "2030-01-01" }, /DateTime/],
      ["an unknown member", { id: "k", key, principal: "ada", expires_at: 1 }, /unknown option/],
      ["an end before the beginning", {
        id: "k",
        key,
        principal: "ada",
        notBefore: DateTime.makeUnsafe(2),
        expiresAt: DateTime.makeUnsafe(1)
      }, /before expiresAt/]
    ]
    for (const [name, registration, message] of refused) {
      it(name, () => {
        const thrown = assert.throws(() => ApiKey.layerMemory({ keys: [registration] }), message)
        assert.notInclude(String(thrown), text)
      })
    }

    it("two keys with one id or one hash", () => {
      const other = Redacted.make("another key that is long")
      assert.throws(
        () => ApiKey.layerMemory({ keys: [{ id: "k", key, principal: "a" }, { id: "l", key, principal: "b" }] }),
        /there twice/
      )
      assert.throws(
        () => ApiKey.layerMemory({ keys: [{ id: "k", key, principal: "a" }, { id: "k", key: other, principal: "b" }] }),
        /there twice/
      )
    })

    it("options that make no sense", () => {
      const store = Effect.runSync(Effect.provide(ApiKey.ApiKeyStore, ApiKey.layerMemory()))
      for (
        const options of [
          { header: "X API Key" },
          { header: "" },
          { header: "authorization" },
          { prefix: "a_b" },
          { pepper: Redacted.make("short") },
          { maxLength: 0 },
          { algorithm: "plain" } as object
        ]
      ) assert.throws(() => ApiKey.make(store, options), /ApiKey.make/)
    })
  })

  it.effect("takes options and keys from configuration", () => {
    const Keys = ApiKey.layerConfig({ header: Config.String("HEADER") }).pipe(Layer.provide(
      ApiKey.layerMemoryConfig({
        keys: Config.map(Config.Redacted("KEY"), (key) => [{ id: "k", key, principal: "ada" }])
      })
    ))
    const env = ConfigProvider.layer(ConfigProvider.fromUnknown({ HEADER: "X-Own", KEY: text }))
    return Effect.map(Effect.provide(outcome(text, "x-own"), Layer.provide(Keys, env)), (answer) => {
      assert.strictEqual(answer, "ada")
    })
  })
})
