import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Fiber, Layer, Redacted } from "effect"
import { BitwardenSecretProvider, SecretProvider } from "effect-toolops/secret"
import { TestClock } from "effect/testing"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { outcomeOf } from "./resolving.ts"
import { node, Processes, stubs } from "./stubs.ts"

const organizationId = "10e8cbfa-7bd2-4361-bd6f-b02e013f9c41"
const shop = "e325ea69-a3ab-4dff-836f-b02e013fe530"
const other = "f1fe5978-e9cd-4c1a-90fb-b02e01400000"
const ids = {
  db: "382580ab-1368-4e85-bfa3-b02e01400c9f",
  slash: "fc3a93f4-2a16-445b-b0c4-aeaf0102f0ff",
  twin: "7d9ad9a7-1d4c-4b0e-8a4e-b02e01400001",
  twin2: "7d9ad9a7-1d4c-4b0e-8a4e-b02e01400002"
}

const project = (id: string, name: string) => ({
  id,
  organizationId,
  name,
  creationDate: "2023-06-28T20:13:20.643567Z",
  revisionDate: "2023-06-28T20:13:20.643567Z"
})

const secret = (id: string, key: string, value: string, projectId = shop) => ({
  id,
  organizationId,
  projectId,
  key,
  value,
  note: "",
  creationDate: "2023-06-28T20:13:20.643567Z",
  revisionDate: "2023-06-28T20:13:20.643567Z"
})

/** What the stub knows: shapes as bws prints them. */
const initial = {
  projects: [project(shop, "Web shop"), project(other, "other/key-team")],
  secrets: [
    secret(ids.db, "db", "pa$s ${X} secretref:bws:db"),
    secret(ids.slash, "a/b%c", "s"),
    secret(ids.twin, "twin", "1"),
    secret(ids.twin2, "twin", "2")
  ]
}

// Speaks as `bws` does: JSON with an indentation of two, errors on standard error, exit code 1.
const bws = node(`
const { appendFileSync, readFileSync } = require("node:fs")
const { dirname, join } = require("node:path")
const folder = dirname(process.argv[1])
const args = process.argv.slice(2)
appendFileSync(join(folder, "calls"), JSON.stringify({ args, env: process.env }) + "\\n")
const world = JSON.parse(readFileSync(join(folder, "world.json"), "utf8"))
const fail = (text) => { process.stderr.write(text); process.exit(1) }
const print = (value) => process.stdout.write(JSON.stringify(value, null, 2) + "\\n")
if (world.fail) fail(world.fail)
if (world.hang) setInterval(() => {}, 1000)
else if (world.print !== undefined) process.stdout.write(world.print)
else {
  if (process.env.BWS_ACCESS_TOKEN !== "0.token") fail("Error: \\n   0: Access token is not in a valid format: Doesn't contain a decryption key\\n")
  const options = args.splice(-2)
  if (options.join(" ") !== "--output json") fail("unexpected options")
  const [noun, verb, id] = args
  if (noun === "project" && verb === "list") print(world.projects)
  else if (noun === "secret" && verb === "list") print(world.secrets.filter((secret) => secret.projectId === id))
  else if (noun === "secret" && verb === "get") {
    const found = world.secrets.find((secret) => secret.id === id)
    if (found === undefined) fail('Error: \\n   0: Received error message from server: [404 Not Found] {"message":"Resource not found.","object":"error"}\\n')
    print(found)
  } else fail("error: unrecognized subcommand")
}
`)

const installed = (options: Partial<BitwardenSecretProvider.Options> = {}) =>
  Effect.gen(function*() {
    const folder = yield* stubs({ bws })
    const tell = (world: object) => writeFileSync(join(folder.path, "world.json"), JSON.stringify(world))
    tell(initial)
    const provider = yield* Effect.provide(
      BitwardenSecretProvider.make({
        accessToken: Redacted.make("0.token"),
        ...options,
        env: { PATH: folder.path, ...options.env }
      }),
      Processes
    )
    /** What the program was called with since the last look. */
    let seen = 0
    const calls = () => {
      const all = (folder.read("calls") ?? "").split("\n").slice(0, -1)
      return all.slice(seen, seen = all.length).map((line) =>
        JSON.parse(line) as { readonly args: ReadonlyArray<string>; readonly env: Readonly<Record<string, string>> }
      )
    }
    return {
      folder,
      tell,
      calls,
      asked: () => calls().map(({ args }) => args.slice(0, -2).join(" ")),
      get: (ref: string) => outcomeOf(provider.get(ref))
    }
  })

describe("BitwardenSecretProvider", () => {
  it.effect("gets a secret by its id", () =>
    Effect.gen(function*() {
      const { asked, get } = yield* installed()
      assert.strictEqual(yield* get(ids.db), "found pa$s ${X} secretref:bws:db")
      assert.strictEqual(yield* get(ids.db.toUpperCase()), "found pa$s ${X} secretref:bws:db")
      assert.deepStrictEqual(asked(), [`secret get ${ids.db}`, `secret get ${ids.db}`])
      assert.strictEqual(yield* get(organizationId), "SecretNotFound")
    }))

  it.effect("gets a secret by the names of project and key, and remembers ids only", () =>
    Effect.gen(function*() {
      const { asked, get, tell } = yield* installed()
      assert.strictEqual(yield* get("project/Web shop/key/db"), "found pa$s ${X} secretref:bws:db")
      assert.deepStrictEqual(asked(), ["project list", `secret list ${shop}`, `secret get ${ids.db}`])
      tell({ ...initial, secrets: [secret(ids.db, "db", "rotated")] })
      assert.strictEqual(yield* get("project/Web shop/key/db"), "found rotated")
      assert.deepStrictEqual(asked(), [`secret get ${ids.db}`])
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* get("project/Web shop/key/db"), "found rotated")
      assert.deepStrictEqual(asked(), ["project list", `secret list ${shop}`, `secret get ${ids.db}`])
    }))

  it.effect("takes slashes and percent signs in names", () =>
    Effect.gen(function*() {
      const { get, tell } = yield* installed()
      assert.strictEqual(yield* get("project/Web shop/key/a/b%25c"), "found s")
      assert.strictEqual(yield* get("project/Web%20shop/key/a%2Fb%25c"), "found s")
      tell({ projects: [project(other, "x/key/y")], secrets: [secret(ids.db, "k", "v", other)] })
      assert.strictEqual(yield* get("project/x/key/y/key/k"), "ReferenceRefused")
      assert.strictEqual(yield* get("project/x%2Fkey/y/key/k"), "found v")
    }))

  it.effect("gives none of two secrets that go by one name", () =>
    Effect.gen(function*() {
      const { get, tell } = yield* installed()
      assert.strictEqual(yield* get("project/Web shop/key/twin"), "SecretUnavailable ambiguous")
      assert.strictEqual(yield* get(ids.twin2), "found 2")
      tell({ ...initial, projects: [project(shop, "Web shop"), project(other, "Web shop")] })
      const fresh = yield* installed()
      fresh.tell({ ...initial, projects: [project(shop, "Web shop"), project(other, "Web shop")] })
      assert.strictEqual(yield* fresh.get("project/Web shop/key/db"), "SecretUnavailable ambiguous")
      // As soon as there is one of them only.
      tell({ ...initial, secrets: [secret(ids.twin, "twin", "1")] })
      assert.strictEqual(yield* get("project/Web shop/key/twin"), "found 1")
    }))

  it.effect("finds a secret that has been made anew under its name, and one that is new", () =>
    Effect.gen(function*() {
      const { asked, get, tell } = yield* installed()
      yield* get("project/Web shop/key/db")
      tell({ ...initial, secrets: [secret(ids.twin, "db", "anew"), secret(ids.twin2, "new", "n")] })
      asked()
      assert.strictEqual(yield* get("project/Web shop/key/db"), "found anew")
      assert.deepStrictEqual(asked(), [
        `secret get ${ids.db}`,
        "project list",
        `secret list ${shop}`,
        `secret get ${ids.twin}`
      ])
      assert.strictEqual(yield* get("project/Web shop/key/new"), "found n")
      asked()
      // One more look for what is not there, and not two.
      assert.strictEqual(yield* get("project/Web shop/key/nope"), "SecretNotFound")
      assert.isAtMost(asked().length, 2)
      assert.strictEqual(yield* get("project/nope/key/db"), "SecretNotFound")
    }))

  it.effect("lists once for many who ask at the same time, and every time when it remembers nothing", () =>
    Effect.gen(function*() {
      const { asked, get } = yield* installed()
      const refs = ["db", "a/b%25c", "db", "db"].map((key) => `project/Web shop/key/${key}`)
      yield* Effect.forEach(refs, get, { concurrency: "unbounded" })
      assert.deepStrictEqual(asked().filter((line) => !line.startsWith("secret get")), [
        "project list",
        `secret list ${shop}`
      ])
      const never = yield* installed({ namesTtl: 0 })
      yield* never.get(refs[0]!)
      yield* never.get(refs[0]!)
      assert.strictEqual(never.asked().filter((line) => line === "project list").length, 2)
    }))

  it.effect("refuses what is neither an id nor a name, without starting anything", () =>
    Effect.gen(function*() {
      const { calls, get } = yield* installed()
      const refs = [
        "",
        "db",
        "--help",
        `${ids.db} --help`,
        ids.db.slice(1),
        "project/a",
        "project//key/k",
        "project/a/key/",
        "project/a/key/%zz",
        "project/a/key/%00",
        "projects/a/key/k"
      ]
      for (const ref of refs) assert.strictEqual(yield* get(ref), "ReferenceRefused", ref)
      assert.deepStrictEqual(calls(), [])
    }))

  it.effect("hands on no id that is none", () =>
    Effect.gen(function*() {
      const { asked, get, tell } = yield* installed()
      tell({ ...initial, projects: [project("--help", "p")] })
      assert.strictEqual(yield* get("project/p/key/db"), "SecretUnavailable unreadable")
      assert.deepStrictEqual(asked(), ["project list"])
    }))

  it.effect("tells the token in the environment only", () =>
    Effect.gen(function*() {
      const { calls, get } = yield* installed({ serverUrl: "https://vault.example.eu" })
      yield* get("project/Web shop/key/db")
      const seen = calls()
      assert.strictEqual(seen.length, 3)
      for (const { args, env } of seen) {
        assert.notInclude(args.join(" "), "token")
        assert.deepInclude(env, { BWS_ACCESS_TOKEN: "0.token", BWS_SERVER_URL: "https://vault.example.eu" })
        const names = Object.keys(env).filter((name) => !/^(?:PATH|HOME|__CF_.*)$/.test(name))
        assert.sameMembers(names, ["BWS_ACCESS_TOKEN", "BWS_SERVER_URL", "NO_COLOR"])
      }
    }))

  it.effect("tells the server without the slashes at its end, since bws puts a path behind it", () =>
    Effect.gen(function*() {
      const servers = {
        "https://vault.example/": "https://vault.example",
        "https://vault.example:8443//": "https://vault.example:8443",
        "https://vault.example/bitwarden": "https://vault.example/bitwarden",
        "https://vault.example/bitwarden/": "https://vault.example/bitwarden"
      }
      for (const [serverUrl, told] of Object.entries(servers)) {
        const { calls, get } = yield* installed({ serverUrl })
        yield* get("382580ab-1368-4e85-bfa3-b02e01400c9f")
        assert.deepStrictEqual(calls().map(({ env }) => env["BWS_SERVER_URL"]), [told])
      }
    }))

  it.effect("tells apart what is not there, what is denied, what is slow and what is no answer", () =>
    Effect.gen(function*() {
      const { get, tell } = yield* installed()
      const error = (status: string) =>
        `Error: \n   0: Received error message from server: [${status}] {"message":"m"}\n`
      const texts = [
        [error("404 Not Found"), "SecretNotFound"],
        ["Error: The requested item was not found or is not accessible.\n", "SecretNotFound"],
        [error("401 Unauthorized"), "SecretUnavailable denied"],
        ["Error: The server rejected the access token (401 Unauthorized).\n", "SecretUnavailable denied"],
        ["Error: Access denied (403 Forbidden).\n", "SecretUnavailable denied"],
        [error("400 Bad Request").replace("m\"}", "invalid_client\"}"), "SecretUnavailable denied"],
        ["Error: \n   0: Missing access token\n", "SecretUnavailable denied"],
        [error("429 Too Many Requests"), "SecretUnavailable failed"],
        ["Error: Could not resolve host vault.example.\n", "SecretUnavailable failed"]
      ]
      for (const [fail, outcome] of texts) {
        tell({ fail })
        assert.strictEqual(yield* get(ids.db), outcome, fail)
      }
      for (const print of ["", "{", "null", "[]", "{}", JSON.stringify(secret(ids.twin, "db", "another's"))]) {
        tell({ print })
        assert.strictEqual(yield* get(ids.db), "SecretUnavailable unreadable", print)
      }
      for (const print of ["{}", "[null]", "[{\"id\":\"--x\",\"name\":\"Web shop\"}]"]) {
        tell({ print })
        assert.strictEqual(yield* get("project/Web shop/key/db"), "SecretUnavailable unreadable", print)
      }
      tell({ print: JSON.stringify(secret(ids.db, "db", "")) })
      assert.strictEqual(yield* get(ids.db), "SecretNotFound")
      tell({ hang: true })
      const asking = yield* Effect.forkChild(get(ids.db), { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(asking), "SecretUnavailable timeout")
    }))

  it("refuses options that make no sense", () => {
    const made = (options: object) => () =>
      BitwardenSecretProvider.make({ accessToken: Redacted.make("t"), ...options })
    assert.throws(made({ accessToken: "t" }), "accessToken must be a Redacted")
    assert.throws(made({ accessToken: Redacted.make("") }), "accessToken")
    assert.throws(made({ serverUrl: "http://vault.example" }), "url must be https")
    assert.throws(made({ serverUrl: "https://vault.example/?a=b" }), "query")
    assert.throws(made({ serverUrl: "https://vault.example/?" }), "query")
    assert.throws(made({ serverUrl: "https://vault.example/#a" }), "fragment")
    assert.throws(made({ namesTtl: -1 }), "namesTtl")
    assert.throws(made({ args: ["-t"] }), "args")
  })

  it.effect("takes its options from the configuration", () =>
    Effect.gen(function*() {
      const { folder } = yield* installed()
      const Secrets = BitwardenSecretProvider.layerConfig({
        accessToken: Config.Redacted("BWS_ACCESS_TOKEN"),
        command: Config.succeed(join(folder.path, "bws"))
      })
      const { providers } = yield* Effect.provide(
        SecretProvider.SecretProvider,
        Secrets.pipe(
          Layer.provide(Processes),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ BWS_ACCESS_TOKEN: "0.token" })))
        )
      )
      assert.strictEqual(yield* outcomeOf(providers.get("bws")!.get(ids.slash)), "found s")
    }))
})
