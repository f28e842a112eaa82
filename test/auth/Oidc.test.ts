// Against a real authorization server on loopback.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { Authenticator, Jwks, Jwt, TokenIntrospection } from "effect-toolops/auth"
import { FetchHttpClient } from "effect/http"
import * as Crypto from "node:crypto"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
// @ts-expect-error the package has no types
import { Provider } from "oidc-provider"
import { bearer } from "./tokens.ts"

const tools = "https://tools.example"
const opaque = "https://opaque.example"
const other = "https://other.example"
const clientSecret = "a client secret: with + and / in it"

const keyPair = (kid: string) => ({
  ...Crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" }),
  kid,
  use: "sig",
  alg: "ES256"
})

/** A server whose keys can be exchanged while it runs, and that can be told to misbehave. */
const authorizationServer = Effect.acquireRelease(
  Effect.promise(async () => {
    const state = { hang: false, handler: undefined as undefined | Http.RequestListener }
    const server = Http.createServer((request, response) => {
      if (!state.hang) state.handler!(request, response)
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const useKeys = (...keys: ReadonlyArray<object>) => {
      const provider = new Provider(url, {
        jwks: { keys },
        clients: [{
          client_id: "agent",
          client_secret: clientSecret,
          id_token_signed_response_alg: "ES256",
          grant_types: ["client_credentials"],
          redirect_uris: [],
          response_types: []
        }],
        scopes: ["files:read"],
        features: {
          devInteractions: { enabled: false },
          clientCredentials: { enabled: true },
          introspection: { enabled: true, allowedPolicy: () => true },
          revocation: { enabled: true, allowedPolicy: () => true },
          resourceIndicators: {
            enabled: true,
            defaultResource: () => tools,
            useGrantedResource: () => true,
            getResourceServerInfo: (_: unknown, resource: string) => ({
              scope: "files:read",
              audience: resource,
              accessTokenTTL: 600,
              accessTokenFormat: resource === opaque ? "opaque" : "jwt",
              jwt: { sign: { alg: "ES256" } }
            })
          }
        }
      })
      state.handler = provider.callback()
    }
    useKeys(keyPair("one"))
    return { server, state, url, useKeys }
  }),
  ({ server }) =>
    Effect.sync(() => {
      server.closeAllConnections()
      server.close()
    })
)

const basic = `Basic ${btoa(`agent:${new URLSearchParams([["", clientSecret]]).toString().slice(1)}`)}`

const post = (url: string, form: Record<string, string>) =>
  Effect.promise(async () => {
    const response = await fetch(url, {
      method: "POST",
      headers: { authorization: basic, "content-type": "application/x-www-form-urlencoded" },
      body: new URLSearchParams(form)
    })
    const text = await response.text()
    assert.strictEqual(response.status, 200, text)
    return text === "" ? {} : JSON.parse(text) as Record<string, string>
  })

const tokenFor = (url: string, resource: string) =>
  Effect.map(
    post(`${url}/token`, { grant_type: "client_credentials", scope: "files:read", resource }),
    (answer) => answer.access_token!
  )

const built = <E>(layer: Layer.Layer<Authenticator.Authenticator, E>) =>
  Effect.map(Layer.build(layer), (context) => {
    const authenticator = Context.get(context, Authenticator.Authenticator)
    return (token: string) =>
      Effect.match(Authenticator.identify(authenticator, bearer(token)), {
        onFailure: (error): string => error.reason._tag,
        onSuccess: (identity): string => `${identity.principal} ${identity.scopes.join()}`
      })
  })

const withJwks = (url: string, audience = tools, options: Partial<Jwks.Options> = {}) =>
  built(
    Jwt.layerJwks({ algorithms: ["ES256"], issuer: url, audience, typ: "at+jwt" }).pipe(
      Layer.provide(Jwks.layer({ url: `${url}/jwks`, timeout: "500 millis", ...options })),
      Layer.provide(FetchHttpClient.layer)
    )
  )

const withIntrospection = (url: string, options: Partial<TokenIntrospection.Options> = {}) =>
  built(
    TokenIntrospection.layer({
      url: `${url}/token/introspection`,
      clientId: "agent",
      clientSecret: Redacted.make(clientSecret),
      audience: opaque,
      issuer: url,
      principalClaim: "client_id",
      timeout: "500 millis",
      cacheTtl: 0,
      ...options
    }).pipe(Layer.provide(FetchHttpClient.layer))
  )

describe("a real authorization server", () => {
  it.live("issues access tokens that are taken here and not elsewhere", () =>
    Effect.gen(function*() {
      const { url } = yield* authorizationServer
      const judge = yield* withJwks(url)
      assert.strictEqual(yield* judge(yield* tokenFor(url, tools)), "agent files:read")
      assert.strictEqual(yield* judge(yield* tokenFor(url, other)), "InvalidCredentials")
      const elsewhere = yield* withJwks(url, other)
      assert.strictEqual(yield* elsewhere(yield* tokenFor(url, tools)), "InvalidCredentials")
      assert.strictEqual(yield* judge(yield* tokenFor(url, opaque)), "TokenMalformed")
    }))

  it.live("changes its keys in mid-run, and another server's keys are not its own", () =>
    Effect.gen(function*() {
      const { url, useKeys } = yield* authorizationServer
      const judge = yield* withJwks(url)
      const old = yield* tokenFor(url, tools)
      assert.strictEqual(yield* judge(old), "agent files:read")
      useKeys(keyPair("two"))
      assert.strictEqual(yield* judge(yield* tokenFor(url, tools)), "agent files:read")
      assert.strictEqual(yield* judge(old), "KeyNotFound")
      const foreign = yield* authorizationServer
      const forged = yield* tokenFor(foreign.url, tools)
      assert.strictEqual(yield* judge(forged), "KeyNotFound")
      foreign.useKeys(keyPair("two"))
      assert.strictEqual(yield* judge(yield* tokenFor(foreign.url, tools)), "InvalidCredentials")
    }))

  it.live("answers for opaque tokens, until they are revoked", () =>
    Effect.gen(function*() {
      const { url } = yield* authorizationServer
      const judge = yield* withIntrospection(url)
      const token = yield* tokenFor(url, opaque)
      assert.notInclude(token, ".")
      assert.strictEqual(yield* judge(token), "agent files:read")
      const inBody = yield* withIntrospection(url, { audience: [other, opaque] })
      assert.strictEqual(yield* inBody(token), "agent files:read")
      const elsewhere = yield* withIntrospection(url, { audience: other })
      assert.strictEqual(yield* elsewhere(token), "InvalidCredentials")
      assert.strictEqual(yield* judge(`${token}x`), "TokenInactive")
      yield* post(`${url}/token/revocation`, { token })
      assert.strictEqual(yield* judge(token), "TokenInactive")
    }))

  it.live("does not answer a client with a wrong secret", () =>
    Effect.gen(function*() {
      const { url } = yield* authorizationServer
      const judge = yield* withIntrospection(url, { clientSecret: Redacted.make("wrong") })
      assert.strictEqual(yield* judge(yield* tokenFor(url, opaque)), "AuthUnavailable")
    }))

  it.live("may hang or reset: known keys are used, everything else is refused", () =>
    Effect.gen(function*() {
      const { server, state, url } = yield* authorizationServer
      const known = yield* withJwks(url)
      const first = yield* tokenFor(url, tools)
      const second = yield* tokenFor(url, tools)
      const opaqueToken = yield* tokenFor(url, opaque)
      assert.strictEqual(yield* known(first), "agent files:read")
      state.hang = true
      assert.strictEqual(yield* known(second), "agent files:read")
      const fresh = yield* withJwks(url)
      assert.strictEqual(yield* fresh(second), "AuthUnavailable")
      const introspection = yield* withIntrospection(url)
      assert.strictEqual(yield* introspection(opaqueToken), "AuthUnavailable")
      server.closeAllConnections()
      server.close()
      const gone = yield* withIntrospection(url)
      assert.strictEqual(yield* gone(opaqueToken), "AuthUnavailable")
      assert.strictEqual(yield* known(second), "agent files:read")
    }))
})
