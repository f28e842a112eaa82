// What every store of API keys does.
import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Effect, Exit, type Layer, Option, Redacted } from "effect"
import { ApiKey, Authenticator } from "effect-toolops/auth"

const key = (text: string) => Redacted.make(`a key for the tests: ${text}`)

export const suite = (name: string, store: () => Layer.Layer<ApiKey.ApiKeyStore, unknown>) => {
  const run = <A, E>(effect: Effect.Effect<A, E, ApiKey.ApiKeyStore>) => Effect.provide(effect, store())

  describe(`${name}, as a store of API keys`, () => {
    it.effect("finds a registered key by its hash, with all that was said of it", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        const notBefore = DateTime.makeUnsafe(1000)
        const expiresAt = DateTime.makeUnsafe(2000)
        yield* keys.register({
          id: "k",
          key: key("one"),
          principal: "ada",
          tenant: "acme",
          roles: ["a", "b"],
          scopes: ["s"],
          metadata: { plan: { name: "free" } },
          notBefore,
          expiresAt
        })
        const hash = ApiKey.hashKey(key("one"))
        const found = Option.getOrThrow(yield* keys.find(hash))
        assert.deepStrictEqual({ ...found }, {
          id: "k",
          hash,
          principal: "ada",
          tenant: "acme",
          roles: ["a", "b"],
          scopes: ["s"],
          metadata: { plan: { name: "free" } },
          notBefore,
          expiresAt
        })
      })))

    it.effect("finds nothing for another hash, however much it looks like one that is there", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        yield* keys.register({ id: "k", key: key("one"), principal: "ada" })
        const hash = ApiKey.hashKey(key("one"))
        for (const other of ["", hash.toUpperCase(), hash.slice(1), `${hash} `, "%", "k", `${hash}' OR '1'='1`]) {
          assert.isTrue(Option.isNone(yield* keys.find(other)), other)
        }
      })))

    it.effect("tells keys apart whose hashes begin or end alike", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        const hashes = [
          `${"ab".repeat(31)}cd`,
          "ab".repeat(32),
          `cd${"ab".repeat(31)}`,
          `${"ab".repeat(4)}${"0".repeat(56)}`
        ]
        for (const [i, hash] of hashes.entries()) yield* keys.register({ id: `k${i}`, hash, principal: `p${i}` })
        const found = () =>
          Effect.forEach(hashes, (hash) =>
            Effect.map(
              keys.find(hash),
              Option.match({ onNone: () => "none", onSome: ({ principal }) => principal })
            ))
        assert.deepStrictEqual(yield* found(), ["p0", "p1", "p2", "p3"])
        yield* keys.revoke("k0")
        assert.deepStrictEqual(yield* found(), ["none", "p1", "p2", "p3"])
        yield* keys.revoke("k3")
        assert.deepStrictEqual(yield* found(), ["none", "p1", "p2", "none"])
        yield* keys.register({ id: "again", hash: hashes[0]!, principal: "p4" })
        assert.deepStrictEqual(yield* found(), ["p4", "p1", "p2", "none"])
      })))

    it.effect("keeps metadata as it was registered, whatever becomes of the object that it was registered with", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        const metadata = { plan: { name: "free" } }
        yield* keys.register({ id: "k", key: key("one"), principal: "ada", metadata })
        metadata.plan.name = "changed"
        const authenticator = ApiKey.make(keys)
        const plan = Effect.map(
          Authenticator.identify(authenticator, { "x-api-key": Redacted.value(key("one")) }),
          (identity) => identity.claims.plan as { name: string }
        )
        const found = yield* plan
        assert.deepStrictEqual(found, { name: "free" })
        // Nor can one call change what the next one sees.
        assert.throws(() => Object.assign(found, { name: "paid" }), TypeError)
        assert.deepStrictEqual(yield* plan, { name: "free" })
      })))

    it.effect("refuses metadata that cannot be written down", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        const circle: Record<string, unknown> = {}
        circle.self = circle
        for (const metadata of [circle, { n: 1n }, [] as never, "text" as never]) {
          const exit = yield* Effect.exit(keys.register({ id: "k", key: key("one"), principal: "ada", metadata }))
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause), String(metadata))
        }
        assert.deepStrictEqual(yield* keys.list, [])
      })))

    it.effect("refuses a second key of the same id or the same hash, and keeps the first", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        yield* keys.register({ id: "k", key: key("one"), principal: "ada" })
        for (
          const again of [
            { id: "k", key: key("two"), principal: "eve" },
            { id: "l", key: key("one"), principal: "eve" },
            { id: "m", hash: ApiKey.hashKey(key("one")), principal: "eve" }
          ]
        ) {
          const error = yield* Effect.flip(keys.register(again))
          assert.strictEqual(error.reason._tag, "DuplicateKey")
        }
        const all = yield* keys.list
        assert.deepStrictEqual(all.map(({ id, principal }) => [id, principal]), [["k", "ada"]])
      })))

    it.effect("forgets a revoked key at once and for good", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        yield* keys.register({ id: "k", key: key("one"), principal: "ada" })
        assert.isTrue(yield* keys.revoke("k"))
        assert.isTrue(Option.isNone(yield* keys.find(ApiKey.hashKey(key("one")))))
        assert.isFalse(yield* keys.revoke("k"))
        assert.deepStrictEqual(yield* keys.list, [])
      })))

    it.effect("lists keys by id and never the keys themselves", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        for (const id of ["c", "a", "b"]) yield* keys.register({ id, key: key(id), principal: id })
        const all = yield* keys.list
        assert.deepStrictEqual(all.map(({ id }) => id), ["a", "b", "c"])
        assert.notInclude(JSON.stringify(all), "a key for the tests")
      })))

    it.effect("dies for a registration that makes no sense", () =>
      run(Effect.gen(function*() {
        const keys = yield* ApiKey.ApiKeyStore
        const exit = yield* Effect.exit(keys.register({ id: "k", principal: "ada" }))
        assert.strictEqual(exit._tag, "Failure")
        assert.deepStrictEqual(yield* keys.list, [])
      })))
  })
}
