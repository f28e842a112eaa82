import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import * as Docs from "../../examples/server/docs.ts"
import { load } from "../../examples/server/settings.ts"
import { run, start } from "./run.ts"

const withFolder = async (use: (folder: string) => Promise<void>) => {
  const folder = await mkdtemp(join(tmpdir(), "effect-toolops-test-"))
  try {
    await use(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

// A mistake is told in one line that begins with the name of what is wrong, and never with a stack.
const refuses = async (
  field: string,
  environment: Record<string, string>,
  about: RegExp,
  args?: ReadonlyArray<string>
) => {
  const { code, stderr, stdout } = await run("server.ts", environment, args)
  assert.deepStrictEqual([code, stdout], [1, ""])
  assert.match(stderr, new RegExp(`^${field}: [^\\n]+\\n$`))
  assert.match(stderr, about)
}

const mistakes: ReadonlyArray<readonly [title: string, variable: string, value: string, about: RegExp]> = [
  ["a port that is no number", "TOOLOPS_PORT", "eighty", /from 0 to 65535/],
  ["a port that is none", "TOOLOPS_PORT", "65536", /from 0 to 65535/],
  ["a port with a fraction", "TOOLOPS_PORT", "80.5", /from 0 to 65535/],
  ["a limit of nothing", "TOOLOPS_LIMIT", "0", /whole number from 1/],
  ["a limit with a unit", "TOOLOPS_LIMIT", "60/min", /whole number from 1/],
  ["a variable that does not exist", "TOOLOPS_PROT", "8080", /expected one of TOOLOPS_HOST, TOOLOPS_PORT/],
  ["a key file that is not there", "TOOLOPS_KEYS_FILE", "/no/such/file.json", /cannot read \/no\/such\/file\.json/],
  ["a role over stdio that is none", "TOOLOPS_STDIO_ROLE", "admin", /reader or writer/],
  ["an address that is not HTTP", "TOOLOPS_QUOTES_URL", "ftp://example.com", /http or https/]
]

describe("the example server's settings", () => {
  for (const [title, variable, value, about] of mistakes) {
    it.effect(`refuse ${title}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(load({ [variable]: value }))
        assert.strictEqual(error.field, variable)
        assert.match(error.message, about)
      }))
  }

  const key = "a-secret-that-is-long-enough"
  const entry = { key, principal: "ada", roles: ["reader"] }
  const badFiles: ReadonlyArray<readonly [title: string, content: string]> = [
    ["that is not JSON", `[{"key": "${key}"`],
    ["that is no list", JSON.stringify(entry)],
    ["with a key that is there twice", JSON.stringify([entry, entry])],
    ["with a short key", JSON.stringify([{ ...entry, key: "short" }])],
    ["with a key that fits in no header", JSON.stringify([{ ...entry, key: `${key}\n` }])],
    ["with a role that is none", JSON.stringify([{ ...entry, roles: ["admin"] }])],
    ["with a member that is not known", JSON.stringify([{ ...entry, role: "reader" }])]
  ]
  for (const [title, content] of badFiles) {
    it.effect(`refuse a key file ${title}, and do not print it`, () =>
      Effect.promise(() =>
        withFolder(async (folder) => {
          const path = join(folder, "keys.json")
          await writeFile(path, content)
          const error = await Effect.runPromise(Effect.flip(load({ TOOLOPS_KEYS_FILE: path })))
          assert.strictEqual(error.field, "TOOLOPS_KEYS_FILE")
          assert.notInclude(inspect(error, { depth: 9 }), key)
          assert.notInclude(error.message, "\n")
        })
      ))
  }

  it.effect("take keys from a file, and do not print them", () =>
    Effect.promise(() =>
      withFolder(async (folder) => {
        const path = join(folder, "keys.json")
        const key = "a-secret-that-is-long-enough"
        await writeFile(path, JSON.stringify([{ key, principal: "ada", roles: ["writer"] }]))
        const settings = await Effect.runPromise(load({ TOOLOPS_KEYS_FILE: path }))
        assert.deepStrictEqual(settings.keys.map((one) => [one.principal, one.roles]), [["ada", ["writer"]]])
        assert.strictEqual(Redacted.value(settings.keys[0]!.key), key)
        assert.notInclude(inspect(settings, { depth: 9 }), key)
      })
    ))

  it.effect("need nothing, and make new keys each time", () =>
    Effect.gen(function*() {
      const [first, second] = [yield* load({}), yield* load({ TOOLOPS_PORT: "", UNRELATED: "1" })]
      assert.deepStrictEqual([first.host, first.port, first.callsPerMinute], ["127.0.0.1", 8787, 60])
      assert.notStrictEqual(Redacted.value(first.keys[0]!.key), Redacted.value(second.keys[0]!.key))
    }))
})

describe("the example server's documents", () => {
  it.effect("are those of the folder, whatever path is asked for", () =>
    Effect.gen(function*() {
      const docs = yield* Docs.Docs
      const [first] = yield* docs.search("Effect", 1)
      assert.include(yield* docs.read(first!.path), first!.text)
      const outside = [
        "../package.json",
        "/etc/passwd",
        "src/../../package.json",
        `./${first!.path}`,
        "",
        "constructor"
      ]
      for (const path of outside) {
        const error = yield* Effect.flip(docs.read(path))
        assert.strictEqual(error._tag, "DocumentNotFound")
      }
    }).pipe(Effect.provide(Docs.layer.pipe(Layer.provide(NodeServices.layer)))))
})

describe.concurrent("the example server", () => {
  it("refuses a port that is no number", () => refuses("TOOLOPS_PORT", { TOOLOPS_PORT: "eighty" }, /from 0 to 65535/))

  it("refuses a notes file that cannot be", () =>
    refuses("TOOLOPS_NOTES", { TOOLOPS_NOTES: "/no/such/folder/notes.sqlite", TOOLOPS_PORT: "0" }, /cannot open/))

  it("refuses a host that is not this machine's", () =>
    refuses("TOOLOPS_HOST", { TOOLOPS_HOST: "192.0.2.1", TOOLOPS_PORT: "0" }, /cannot listen on 192\.0\.2\.1/))

  it("refuses an argument that it does not know", () => refuses("--port=80", {}, /unknown argument/, ["--port=80"]))

  it("refuses a key file that is not there", () =>
    refuses("TOOLOPS_KEYS_FILE", { TOOLOPS_KEYS_FILE: "/no/such/file.json" }, /cannot read/))

  it("refuses a port that is taken", async () => {
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve))
    const { port } = other.address() as AddressInfo
    try {
      await refuses("TOOLOPS_PORT", { TOOLOPS_PORT: String(port) }, new RegExp(`port ${port} is taken`))
    } finally {
      other.close()
    }
  })

  it("answers what it tells to try, and stops cleanly on SIGTERM", () =>
    withFolder(async (folder) => {
      const { child, closed, printed, printedError } = start("server.ts", { TOOLOPS_PORT: "0", TMPDIR: folder })
      const text = await printed("/readyz\n")
      const [, url] = /Listening on (\S+)\/mcp/.exec(text)!
      const [, key] = /^reader=(\S+)$/m.exec(text)!
      assert.strictEqual((await fetch(`${url}/healthz`)).status, 200)
      assert.strictEqual((await fetch(`${url}/readyz`)).status, 200)
      const call = (headers: Record<string, string>) =>
        fetch(`${url}/mcp`, {
          method: "POST",
          headers: {
            "content-type": "application/json",
            accept: "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "docs_search",
            ...headers
          },
          body: /'(\{"jsonrpc".*\}\}\})'/s.exec(text)![1]!.replace(`'$2'`, "docs_search").replace(
            `'"$3"'`,
            `{"query":"Layer.provide"}`
          )
        })
      assert.include(await (await call({ "x-api-key": key! })).text(), `"isError":false`)
      assert.include(await (await call({})).text(), "Tool 'docs_search' not found")
      await printedError("unauthenticated")
      assert.match(await (await fetch(`${url}/metrics`)).text(), /tool_call_total\{outcome="unauthenticated"/)
      child.kill("SIGTERM")
      const { code, stderr } = await closed
      assert.strictEqual(code, 0)
      const lines = stderr.trim().split("\n")
      assert.deepStrictEqual(lines.map((line) => JSON.parse(line).outcome), ["ok", "unauthenticated"])
      assert.notInclude(stderr, key!)
      assert.notInclude(stderr, "Layer.provide")
      // The notes were in a temporary file.
      assert.deepStrictEqual(await readdir(folder), [])
    }))

  it("stops cleanly on SIGINT", async () => {
    const { child, closed, printed } = start("server.ts", { TOOLOPS_PORT: "0" })
    await printed("/readyz\n")
    child.kill("SIGINT")
    const { code, stderr } = await closed
    assert.deepStrictEqual([code, stderr], [0, ""])
  })
})
