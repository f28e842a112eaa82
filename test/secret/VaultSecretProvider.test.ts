import { NodeFileSystem, NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Fiber, Layer, Redacted, Stream } from "effect"
import { SecretProvider, SecretResolver, VaultSecretProvider } from "effect-toolops/secret"
import { FetchHttpClient, HttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Http from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { outcomeOf, resolverOf } from "./resolving.ts"
import { makeVault } from "./vaultServer.ts"

const Platform = Layer.merge(FetchHttpClient.layer, NodeFileSystem.layer)

const token = (text = "root") => ({ type: "token", token: Redacted.make(text) }) as const

/** A server and a provider that asks it. */
const connected = (options: Partial<VaultSecretProvider.Options> = {}, Services = Platform) =>
  Effect.gen(function*() {
    const vault = yield* makeVault
    vault.state.secrets.set("secret/data/shop/db", [{ password: "old" }, { password: "new", user: "ada", value: "v" }])
    // Clients have connections, which end with their layer.
    const services = yield* Layer.build(Services)
    const provider = yield* Effect.provideContext(
      VaultSecretProvider.make({ address: vault.address, auth: token(), ...options }),
      services
    )
    return { ...vault, provider, get: (ref: string) => outcomeOf(provider.get(ref)) }
  })

/** The same for a service account of Kubernetes. */
const connectedAs = (
  account: object = {},
  prepare: (state: Effect.Success<typeof makeVault>["state"]) => void = () => {}
) =>
  Effect.gen(function*() {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "toolops-jwt-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true }))
    )
    const jwtPath = join(folder, "token")
    writeFileSync(jwtPath, "jwt-1\n")
    const vault = yield* makeVault
    vault.state.secrets.set("secret/data/a", [{ value: "s" }])
    prepare(vault.state)
    const provider = yield* Effect.provide(
      VaultSecretProvider.make({
        address: vault.address,
        auth: { type: "kubernetes", role: "app", jwtPath, ...account }
      }),
      Platform
    )
    return { ...vault, jwtPath, get: (ref: string) => outcomeOf(provider.get(ref)) }
  })

/** Waits in real time until something is so, since requests do not know the clock of the test. */
const until = (isSo: () => boolean) =>
  Effect.promise(async () => {
    while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 2))
  })

const paths = (seen: ReadonlyArray<{ readonly path: string }>) => seen.map(({ path }) => path)

describe("VaultSecretProvider", () => {
  it.effect("reads a field of a secret, in its present version or an older one", () =>
    Effect.gen(function*() {
      const { get, state } = yield* connected()
      state.secrets.set("secret/data/deleted", [{ value: "1" }, undefined])
      const refs = {
        "shop/db#password": "found new",
        "shop/db#user": "found ada",
        "shop/db": "found v",
        "shop/db#password#1": "found old",
        "shop/db#user#1": "SecretNotFound",
        "shop/db#password#3": "SecretNotFound",
        "shop/db#nope": "SecretNotFound",
        "shop/db#__proto__": "SecretNotFound",
        "shop/nope": "SecretNotFound",
        deleted: "SecretNotFound",
        "deleted#value#1": "found 1"
      }
      for (const [ref, outcome] of Object.entries(refs)) assert.strictEqual(yield* get(ref), outcome, ref)
    }))

  it.effect("hands on a secret that has been rotated to who watches it, and to a text that holds two", () =>
    Effect.gen(function*() {
      const { provider, state } = yield* connected()
      yield* Effect.gen(function*() {
        const resolver = yield* SecretResolver.SecretResolver
        const seen: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(
            resolver.changes("${secretref:vault:shop/db#user}:${secretref:vault:shop/db#password}"),
            (value) => Effect.sync(() => void seen.push(Redacted.value(value)))
          )
        )
        yield* until(() => seen.length === 1)
        state.secrets.set("secret/data/shop/db", [{}, {}, { user: "ada", password: "newest" }])
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
        yield* TestClock.adjust("1 minute")
        yield* until(() => seen.length === 2)
        assert.deepStrictEqual(seen, ["ada:new", "ada:newest"])
      }).pipe(Effect.scoped, Effect.provide(resolverOf([provider])))
    }))

  it.effect("asks in its namespace and mount, and encodes what a path may not hold", () =>
    Effect.gen(function*() {
      const { get, seen, state } = yield* connected({ namespace: "team/a", mount: "kv/v2", field: "f" })
      state.namespace = "team/a"
      state.secrets.set("kv/v2/data/a%20b/c%3Fd%23e%2Ff%25", [{ f: "s", "x#y": "t" }])
      assert.strictEqual(yield* get("a b/c?d%23e%2Ff%25"), "found s")
      assert.strictEqual(yield* get("a b/c?d%23e%2Ff%25#x%23y"), "found t")
      const request = seen.at(-1)!
      assert.deepInclude(request.headers, { "x-vault-token": "root", "x-vault-namespace": "team/a" })
      assert.notInclude(request.path, "root")
    }))

  it.effect("refuses references that are none, and asks nobody", () =>
    Effect.gen(function*() {
      const { get, seen } = yield* connected()
      yield* until(() => seen.length === 1)
      const refs = [
        "",
        "/a",
        "a/",
        "a//b",
        "../sys/seal-status",
        "a/../b",
        "a/%2e%2e/b",
        "a/..%2F..%2Fsys%2Fmounts",
        "a/b%2F%2E",
        "a/.%2Fb",
        "a#",
        "a#f#0",
        "a#f#-1",
        "a#f#1.5",
        "a#f#1#2",
        "a#f#",
        "a%zz",
        "a%00",
        "#f"
      ]
      for (const ref of refs) assert.strictEqual(yield* get(ref), "ReferenceRefused", ref)
      assert.deepStrictEqual(paths(seen), ["/v1/auth/token/lookup-self"])
    }))

  it.effect("tells apart a sealed server, a refusal, a failure and an answer that is none", () =>
    Effect.gen(function*() {
      const { get, state } = yield* connected({ maxBytes: 1000 })
      state.isSealed = true
      assert.strictEqual(yield* get("shop/db"), "SecretUnavailable sealed")
      state.isSealed = false
      assert.strictEqual(yield* get("shop/db"), "found v")
      state.forbidden.add("/v1/secret/data/shop/db")
      assert.strictEqual(yield* get("shop/db"), "SecretUnavailable denied")
      state.forbidden.clear()
      state.tokens.delete("root")
      assert.strictEqual(yield* get("shop/db"), "SecretUnavailable denied")
      const replies: ReadonlyArray<readonly [number, string, string]> = [
        [500, "{}", "SecretUnavailable failed"],
        [429, "{}", "SecretUnavailable failed"],
        [204, "", "SecretUnavailable failed"],
        [200, "", "SecretUnavailable unreadable"],
        [200, "{", "SecretUnavailable unreadable"],
        [200, "null", "SecretNotFound"],
        [200, "{\"data\":{\"data\":null}}", "SecretNotFound"],
        [200, "{\"data\":{\"data\":{\"value\":\"\"}}}", "SecretNotFound"],
        [200, "{\"data\":{\"data\":{\"value\":1}}}", "SecretUnavailable unreadable"],
        [200, "{\"data\":{\"data\":{\"value\":{\"a\":\"b\"}}}}", "SecretUnavailable unreadable"],
        [200, `{"data":{"data":{"value":"${"x".repeat(1000)}"}}}`, "SecretUnavailable unreadable"]
      ]
      for (const [status, body, outcome] of replies) {
        state.override = (_, response) => {
          response.writeHead(status).end(status === 204 ? undefined : body)
          return true
        }
        assert.strictEqual(yield* get("shop/db"), outcome, `${status} ${body.slice(0, 40)}`)
      }
      // No length is told, so what is too much shows while it comes.
      state.override = (_, response) => {
        response.writeHead(200)
        const more = () => response.write("x".repeat(500), () => response.destroyed || setTimeout(more, 1))
        more()
        return true
      }
      assert.strictEqual(yield* get("shop/db"), "SecretUnavailable unreadable")
      state.override = (_, response) => {
        response.destroy()
        return true
      }
      assert.strictEqual(yield* get("shop/db"), "SecretUnavailable failed")
    }))

  it.effect("gives up on a server that is slow, before it answers and while it does", () =>
    Effect.gen(function*() {
      const { arrival, get, state } = yield* connected({ timeout: "3 seconds" })
      for (const begins of [false, true]) {
        state.override = (_, response) => {
          if (begins) response.writeHead(200).write("{")
          return true
        }
        const arrived = arrival("/v1/secret/data/shop/db")
        const asking = yield* Effect.forkChild(get("shop/db"))
        yield* arrived
        yield* TestClock.adjust("2999 millis")
        assert.isUndefined(asking.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Fiber.join(asking), "SecretUnavailable timeout")
      }
    }))

  it.effect("takes its token nowhere else, whatever the client would do", () =>
    Effect.gen(function*() {
      const elsewhere: Array<string> = []
      const other = Http.createServer((request, response) => {
        elsewhere.push(JSON.stringify(request.headers))
        response.end("{\"data\":{\"data\":{\"value\":\"stolen\"}}}")
      })
      yield* Effect.acquireRelease(
        Effect.promise(() => new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve))),
        () => Effect.promise(() => new Promise((resolve) => other.close(resolve)))
      )
      const { port } = other.address() as { readonly port: number }
      for (const Client of [FetchHttpClient.layer, NodeHttpClient.layerUndici, NodeHttpClient.layerNodeHttp]) {
        const { get, state } = yield* connected({}, Layer.merge(Client, NodeFileSystem.layer))
        state.secrets.set("secret/data/a%20b/c%3Fd%23e", [{ f: "s" }])
        assert.strictEqual(yield* get("a b/c?d%23e#f#1"), "found s")
        state.override = (request, response) => {
          if (!request.path.includes("/data/")) return false
          response.writeHead(307, { location: `http://127.0.0.1:${port}${request.path}` }).end()
          return true
        }
        assert.strictEqual(yield* get("shop/db"), "SecretUnavailable failed")
      }
      assert.deepStrictEqual(elsewhere, [])
    }))

  it.effect("does not believe what a client that follows redirects by itself brings from elsewhere", () =>
    Effect.gen(function*() {
      const other = yield* makeVault
      other.state.secrets.set("secret/data/shop/db", [{ value: "stolen" }])
      const Following = Layer.effect(
        HttpClient.HttpClient,
        Effect.map(HttpClient.HttpClient, HttpClient.followRedirects())
      )
      for (const Client of [FetchHttpClient.layer, NodeHttpClient.layerUndici, NodeHttpClient.layerNodeHttp]) {
        const { get, state } = yield* connected(
          {},
          Layer.merge(Layer.provide(Following, Client), NodeFileSystem.layer)
        )
        state.override = (request, response) => {
          if (!request.path.includes("/data/")) return false
          response.writeHead(307, { location: `${other.address}${request.path}` }).end()
          return true
        }
        assert.strictEqual(yield* get("shop/db"), "SecretUnavailable failed")
      }
    }))

  it.effect("keeps a token alive, and leaves alone one that does not end", () =>
    Effect.gen(function*() {
      const vault = yield* makeVault
      vault.state.tokens.set("periodic", { seconds: 300, isRenewable: true, renewals: [300, 300, 0] })
      yield* Effect.provide(VaultSecretProvider.make({ address: vault.address, auth: token("periodic") }), Platform)
      yield* Effect.provide(VaultSecretProvider.make({ address: vault.address, auth: token() }), Platform)
      yield* until(() => vault.seen.length === 2)
      const renewals = () => vault.seen.filter(({ path }) => path === "/v1/auth/token/renew-self")
      for (const count of [1, 2, 3]) {
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
        yield* TestClock.adjust("199 seconds")
        assert.strictEqual(renewals().length, count - 1)
        yield* TestClock.adjust("1 second")
        yield* until(() => renewals().length === count)
      }
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
      yield* TestClock.adjust("1 day")
      assert.strictEqual(renewals().length, 3)
      assert.isTrue(
        renewals().every(({ headers, method }) => method === "POST" && headers["x-vault-token"] === "periodic")
      )
    }))

  it.effect("goes on renewing after the server was away", () =>
    Effect.gen(function*() {
      const vault = yield* makeVault
      vault.state.tokens.set("periodic", { seconds: 300, isRenewable: true, renewals: [300, 300] })
      vault.state.isSealed = true
      yield* Effect.provide(VaultSecretProvider.make({ address: vault.address, auth: token("periodic") }), Platform)
      yield* until(() => vault.seen.length === 1)
      vault.state.isSealed = false
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
      yield* TestClock.adjust("1 second")
      yield* until(() => vault.seen.length === 2)
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
      yield* TestClock.adjust("200 seconds")
      yield* until(() => paths(vault.seen).includes("/v1/auth/token/renew-self"))
    }))

  describe("with Kubernetes", () => {
    it.effect("logs in once for many, and uses the token that it was given", () =>
      Effect.gen(function*() {
        const { get, seen } = yield* connectedAs()
        const outcomes = yield* Effect.forEach(Array.from({ length: 10 }), () => get("a"), { concurrency: "unbounded" })
        assert.deepStrictEqual(outcomes, outcomes.map(() => "found s"))
        const [login, ...reads] = seen
        assert.deepInclude(login, { method: "POST", path: "/v1/auth/kubernetes/login" })
        assert.deepStrictEqual(JSON.parse(login!.body), { role: "app", jwt: "jwt-1" })
        assert.isUndefined(login!.headers["x-vault-token"])
        assert.deepStrictEqual(reads.map(({ headers }) => headers["x-vault-token"]), reads.map(() => "login-1"))
      }))

    it.effect("asks at the mount of the method, with the token that is in the file now", () =>
      Effect.gen(function*() {
        const { get, jwtPath, seen, state } = yield* connectedAs({ mount: "team/k8s" }, (before) => {
          before.lease = { seconds: 3600, isRenewable: false, renewals: [] }
        })
        assert.strictEqual(yield* get("a"), "found s")
        writeFileSync(jwtPath, "jwt-2")
        state.jwt = "jwt-2"
        yield* TestClock.adjust("1 hour")
        yield* until(() => state.logins === 2)
        assert.strictEqual(yield* get("a"), "found s")
        assert.deepStrictEqual(
          seen.filter(({ method }) => method === "POST").map(({ body, path }) => [path, JSON.parse(body).jwt]),
          [["/v1/auth/team/k8s/login", "jwt-1"], ["/v1/auth/team/k8s/login", "jwt-2"]]
        )
      }))

    it.effect("renews the token, and logs in anew before the end that no renewal moves", () =>
      Effect.gen(function*() {
        const { get, seen, state } = yield* connectedAs({}, (before) => {
          before.lease = { seconds: 900, isRenewable: true, renewals: [900, 300] }
        })
        yield* get("a")
        const posts = () => seen.filter(({ method }) => method === "POST").map(({ path }) => path.replace(/.*\//, ""))
        for (const expected of [["renew-self"], ["renew-self", "login"], ["renew-self"]]) {
          const before = posts().length
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
          yield* TestClock.adjust("10 minutes")
          yield* until(() => posts().length === before + expected.length)
          assert.deepStrictEqual(posts().slice(before), expected)
          assert.strictEqual(yield* get("a"), "found s")
        }
        assert.strictEqual(state.logins, 2)
      }))

    it.effect("uses no token that has ended while it could not log in", () =>
      Effect.gen(function*() {
        const { get, seen, state } = yield* connectedAs({}, (before) => {
          before.lease = { seconds: 900, isRenewable: false, renewals: [] }
        })
        assert.strictEqual(yield* get("a"), "found s")
        state.isSealed = true
        for (let minute = 0; minute < 20; minute++) {
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))
          yield* TestClock.adjust("1 minute")
        }
        state.isSealed = false
        assert.strictEqual(yield* get("a"), "found s")
        assert.strictEqual(seen.at(-1)!.headers["x-vault-token"], "login-2")
      }))

    it.effect("logs in anew when its token is refused, but not time and again", () =>
      Effect.gen(function*() {
        const { get, state } = yield* connectedAs()
        assert.strictEqual(yield* get("a"), "found s")
        // Somebody has revoked it.
        state.tokens.delete("login-1")
        assert.strictEqual(yield* get("a"), "SecretUnavailable denied")
        yield* TestClock.adjust("30 seconds")
        const outcomes = yield* Effect.forEach(["a", "a", "a"], get, { concurrency: "unbounded" })
        assert.deepStrictEqual(outcomes, ["found s", "found s", "found s"])
        assert.strictEqual(state.logins, 2)
        // A policy that refuses this refuses it to the next token too.
        state.forbidden.add("/v1/secret/data/b")
        for (let i = 0; i < 5; i++) assert.strictEqual(yield* get("b"), "SecretUnavailable denied")
        assert.strictEqual(state.logins, 2)
      }))

    it.effect("keeps a good token when a policy refuses something while nobody can log in", () =>
      Effect.gen(function*() {
        const { get, seen, state } = yield* connectedAs()
        const logins = () => seen.filter(({ path }) => path.endsWith("/login")).length
        assert.strictEqual(yield* get("a"), "found s")
        state.forbidden.add("/v1/secret/data/b")
        state.override = (request, response) => {
          if (!request.path.endsWith("/login")) return false
          response.writeHead(503).end("{}")
          return true
        }
        for (const attempts of [2, 3]) {
          yield* TestClock.adjust("30 seconds")
          const outcomes = yield* Effect.forEach(["b", "a", "b", "a"], get, { concurrency: "unbounded" })
          assert.deepStrictEqual(outcomes, [
            "SecretUnavailable denied",
            "found s",
            "SecretUnavailable denied",
            "found s"
          ])
          // One that failed is not tried again at once either.
          assert.strictEqual(yield* get("b"), "SecretUnavailable denied")
          assert.strictEqual(logins(), attempts)
          yield* TestClock.adjust("29999 millis")
          assert.strictEqual(yield* get("b"), "SecretUnavailable denied")
          assert.strictEqual(logins(), attempts)
          yield* TestClock.adjust("1 millis")
        }
      }))

    it.effect("asks once for many while nobody can log in, and not again for a second", () =>
      Effect.gen(function*() {
        const { get, seen, state } = yield* connectedAs({}, (before) => {
          before.override = (_, response) => {
            setTimeout(() => response.writeHead(503).end("{}"), 50)
            return true
          }
        })
        const refs = Array.from({ length: 20 }, (_, index) => `a${index}`)
        const outcomes = yield* Effect.forEach(refs, get, { concurrency: "unbounded" })
        assert.deepStrictEqual(outcomes, refs.map(() => "SecretUnavailable sealed"))
        yield* TestClock.adjust("999 millis")
        state.override = undefined
        assert.strictEqual(yield* get("a"), "SecretUnavailable sealed")
        assert.deepStrictEqual(paths(seen), ["/v1/auth/kubernetes/login"])
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* get("a"), "found s")
        assert.strictEqual(state.logins, 1)
      }))

    it.effect("does not go back from a new login to a token whose renewal comes late", () =>
      Effect.gen(function*() {
        const { arrival, get, seen, state } = yield* connectedAs({}, (before) => {
          before.lease = { seconds: 900, isRenewable: true, renewals: [900] }
        })
        assert.strictEqual(yield* get("a"), "found s")
        const late: Array<() => void> = []
        state.override = (request, response) => {
          if (!request.path.endsWith("/renew-self")) return false
          const auth = { client_token: "login-1", lease_duration: 900, renewable: true }
          late.push(() => response.writeHead(200).end(JSON.stringify({ auth })))
          return true
        }
        const renewing = arrival("/v1/auth/token/renew-self")
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
        yield* TestClock.adjust("10 minutes")
        yield* renewing
        state.tokens.delete("login-1")
        assert.strictEqual(yield* get("a"), "found s")
        yield* until(() => late.length === 1)
        late[0]!()
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))
        assert.strictEqual(yield* get("a"), "found s")
        assert.strictEqual(state.logins, 2)
        assert.deepStrictEqual(
          seen.filter(({ path }) => path.includes("/data/")).map(({ headers }) => headers["x-vault-token"]),
          ["login-1", "login-1", "login-2", "login-2"]
        )
      }))

    it.effect("says why it cannot log in, and can when it may", () =>
      Effect.gen(function*() {
        const { get, jwtPath, state } = yield* connectedAs({}, (before) => {
          before.jwt = "jwt-9"
        })
        assert.strictEqual(yield* get("a"), "SecretUnavailable denied")
        writeFileSync(jwtPath, "x".repeat(16_385))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* get("a"), "SecretUnavailable unreadable")
        rmSync(jwtPath)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* get("a"), "SecretUnavailable failed")
        writeFileSync(jwtPath, "jwt-9")
        state.override = (_, response) => {
          response.writeHead(404).end("{\"errors\":[]}")
          return true
        }
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* get("a"), "SecretUnavailable failed")
        state.override = undefined
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* get("a"), "found s")
      }))
  })

  it("refuses options that make no sense or are not safe", () => {
    const made = (options: object) => () =>
      VaultSecretProvider.make({ address: "https://vault.example", auth: token(), ...options })
    assert.throws(made({ address: "http://vault.example:8200" }), "https")
    assert.doesNotThrow(made({ address: "http://vault.example:8200", allowInsecureHttp: true }))
    assert.throws(made({ address: "https://u:p@vault.example" }), "credentials")
    assert.throws(made({ address: "https://vault.example/?a=b" }), "query")
    assert.throws(made({ auth: { type: "token", token: "root" } }), "auth.token must be a Redacted")
    assert.throws(made({ auth: token("root\n") }), "auth.token")
    assert.throws(made({ auth: { type: "kubernetes" } }), "auth.role")
    assert.throws(made({ auth: { type: "kubernetes", role: "r", mount: "../sys" } }), "auth.mount")
    assert.throws(made({ auth: { type: "ldap" } }), "auth.type")
    assert.throws(made({ auth: undefined }), "auth.type")
    assert.throws(made({ mount: "a/../b" }), "mount")
    assert.throws(made({ namespace: "a b" }), "namespace")
    assert.throws(made({ field: "" }), "field")
    assert.throws(made({ timeout: 0 }), "timeout")
    assert.throws(made({ maxBytes: 1e9 }), "maxBytes")
    assert.throws(made({ token: "x" }), "token")
  })

  it.effect("takes its options from the configuration", () =>
    Effect.gen(function*() {
      const vault = yield* makeVault
      vault.state.secrets.set("secret/data/a", [{ value: "s" }])
      const Secrets = VaultSecretProvider.layerConfig({
        address: Config.String("VAULT_ADDR"),
        auth: { type: Config.succeed("token" as const), token: Config.Redacted("VAULT_TOKEN") }
      })
      const env = { VAULT_ADDR: vault.address, VAULT_TOKEN: "root" }
      const { providers } = yield* Effect.provide(
        SecretProvider.SecretProvider,
        Secrets.pipe(Layer.provide(Platform), Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(env))))
      )
      assert.strictEqual(yield* outcomeOf(providers.get("vault")!.get("a")), "found s")
    }))
})
