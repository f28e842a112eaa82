// The layers whose options come from configuration. Each option that is set changes what the layer does.
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Exit, Layer, Redacted, Schema } from "effect"
import { ToolMeta } from "effect-toolops"
import { ApiKey, Authenticator, Authorizer, HttpAuth, Identity, Jwks, Jwt } from "effect-toolops/auth"
import { SqliteApiKeyStore } from "effect-toolops/node"
import { HttpClient, HttpClientResponse, HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import * as Crypto from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { audience, bearer, claims, issuer, secret, token } from "./tokens.ts"

const env = (values: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromUnknown(values))

const outcome = (headers: Record<string, string>) =>
  Effect.flatMap(
    Authenticator.Authenticator,
    (authenticator) =>
      Effect.match(Authenticator.identify(authenticator, headers), {
        onFailure: (error): string => error.reason._tag,
        onSuccess: (identity): string => identity.principal
      })
  )

describe("configuration", () => {
  describe("of tokens and their key set", () => {
    const pair = Crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
    const keys = { keys: [{ ...pair.publicKey.export({ format: "jwk" }), kid: "1" }] }
    const asked: Array<string> = []
    const Client = Layer.succeed(
      HttpClient.HttpClient,
      HttpClient.make((request, url) =>
        Effect.sync(() => {
          asked.push(url.href)
          return HttpClientResponse.fromWeb(request, Response.json(keys))
        })
      )
    )
    const Tokens = Jwt.layerJwksConfig({
      algorithms: Config.succeed(["ES256"] as const),
      issuer: Config.String("ISSUER"),
      audience: Config.String("AUDIENCE")
    }).pipe(
      Layer.provide(Jwks.layerConfig({ url: Config.String("KEYS"), maxKeys: Config.Int("MAX_KEYS") })),
      Layer.provide(Client)
    )
    const value = token({
      header: { alg: "ES256", kid: "1" },
      payload: claims,
      algorithm: "ES256",
      key: pair.privateKey
    })
    const all = { ISSUER: issuer, AUDIENCE: audience, KEYS: "https://issuer.example/keys", MAX_KEYS: "1" }
    const given = (values: Record<string, string>) =>
      Effect.provide(outcome(bearer(value)), Layer.provide(Tokens, env(values)))

    it.effect("names issuer, audience, and where the keys are", () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* given(all), "ada")
        assert.deepStrictEqual(asked, ["https://issuer.example/keys"])
        assert.strictEqual(yield* given({ ...all, ISSUER: "https://other.example" }), "InvalidCredentials")
        assert.strictEqual(yield* given({ ...all, AUDIENCE: "https://other.example" }), "InvalidCredentials")
      }))

    it.effect("is refused as a whole when a part is missing or makes no sense", () =>
      Effect.gen(function*() {
        const { ISSUER: _, ...without } = all
        const missing = yield* Effect.flip(given(without))
        assert.instanceOf(missing, Config.ConfigError)
        for (
          const bad of [{ ...all, ISSUER: "" }, { ...all, KEYS: "http://issuer.example" }, { ...all, MAX_KEYS: "0" }]
        ) {
          assert.isTrue(Exit.isFailure(yield* Effect.exit(given(bad))), JSON.stringify(bad))
        }
      }))
  })

  it.effect("puts a policy of one's own into shadow mode", () => {
    const Policy = Authorizer.layerConfig(() => false, {
      mode: Config.map(Config.String("MODE"), (mode) => mode as "enforce" | "shadow")
    })
    const decided = (mode: string) =>
      Effect.flatMap(Authorizer.Authorizer, (authorizer) =>
        authorizer.authorize({
          identity: Identity.anonymous,
          tool: ToolMeta.make({ name: "tool" }),
          action: "call",
          input: undefined
        })).pipe(Effect.provide(Layer.provide(Policy, env({ MODE: mode }))))
    return Effect.gen(function*() {
      assert.deepInclude(yield* decided("enforce"), { allow: false, wouldRefuse: false })
      assert.deepInclude(yield* decided("shadow"), { allow: true, wouldRefuse: true })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(decided("off"))))
    })
  })

  describe("of the edge", () => {
    const Tokens = Jwt.layer({ algorithms: ["HS256"], keys: [{ secret: Redacted.make(secret) }], issuer, audience })
    const exp = Math.floor(Date.now() / 1000) + 300
    const value = token({ header: { alg: "HS256" }, payload: { ...claims, exp, scope: "a" } })
    const options = {
      requiredScopes: Config.map(Config.String("SCOPES"), (scopes) => scopes.split(" "))
    }
    const Routes = HttpRouter.add("GET", "/me", HttpServerResponse.text("in")).pipe(
      Layer.provide(HttpAuth.middlewareConfig(options).layer)
    )
    const Api = HttpApi.make("api").add(
      HttpApiGroup.make("who").add(
        HttpApiEndpoint.get("me", "/me", { success: Schema.String }).middleware(HttpAuth.HttpApiAuth)
      )
    )
    const Endpoints = HttpApiBuilder.layer(Api).pipe(
      Layer.provide(
        HttpApiBuilder.group(Api, "who", (handlers) => handlers.handle("me", () => Effect.succeed("in")))
      ),
      Layer.provide(HttpAuth.layerHttpApiConfig(options)),
      Layer.provide(HttpServer.layerServices)
    )
    for (const [name, App] of [["routes", Routes], ["an HttpApi", Endpoints]] as const) {
      it.live(`names the scopes that ${name} need`, () =>
        Effect.gen(function*() {
          for (const [scopes, status] of [["a", 200], ["a b", 403]] as const) {
            const { dispose, handler } = HttpRouter.toWebHandler(
              App.pipe(Layer.provide(Tokens), Layer.provide(env({ SCOPES: scopes })), Layer.orDie),
              { disableLogger: true }
            )
            const response = yield* Effect.promise(() =>
              handler(new Request("https://tools.example/me", { headers: bearer(value) }))
            )
            assert.strictEqual(response.status, status)
            if (status === 403) assert.include(response.headers.get("www-authenticate"), "scope=\"a b\"")
            yield* Effect.promise(dispose)
          }
        }))
    }
  })

  it.live("says in which file keys are kept", () =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "toolops-keys-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const Keys = SqliteApiKeyStore.layerConfig({ path: Config.String("PATH_OF_KEYS") })
      const within = <A, E>(file: string, effect: Effect.Effect<A, E, ApiKey.ApiKeyStore>) =>
        Effect.provide(effect, Layer.provide(Keys, env({ PATH_OF_KEYS: join(directory, file) })))
      const ids = Effect.flatMap(ApiKey.ApiKeyStore, (keys) => Effect.map(keys.list, (all) => all.map(({ id }) => id)))
      const key = Redacted.make("a key for the tests")
      yield* within(
        "one",
        Effect.flatMap(ApiKey.ApiKeyStore, (keys) => keys.register({ id: "k", key, principal: "ada" }))
      )
      assert.deepStrictEqual(yield* within("one", ids), ["k"])
      assert.deepStrictEqual(yield* within("two", ids), [])
    }))
})
