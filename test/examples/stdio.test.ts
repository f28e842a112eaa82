import { assert, describe, it } from "@effect/vitest"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js"
import { fileURLToPath } from "node:url"
import { run } from "./run.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

interface Session {
  readonly client: Client
  readonly logged: () => string
}

const withServer = async (environment: Record<string, string>, use: (session: Session) => Promise<void>) => {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: ["-C", "@effect-toolops/source", "examples/server.ts", "--stdio"],
    cwd: root,
    env: environment,
    stderr: "pipe"
  })
  let logged = ""
  transport.stderr!.on("data", (text: unknown) => logged += String(text))
  const client = new Client({ name: "stdio-test", version: "0.0.0" })
  const errors: Array<Error> = []
  Object.assign(client, { onerror: (error: Error) => errors.push(error) })
  await client.connect(transport)
  try {
    await use({ client, logged: () => logged })
  } finally {
    await client.close()
  }
  // Nothing but messages of the protocol came over standard output.
  assert.deepStrictEqual(errors, [])
}

const namesOf = async (client: Client) => (await client.listTools()).tools.map((tool) => tool.name)

describe.concurrent("the example server over stdio", () => {
  it("takes its caller from the configuration: a reader", () =>
    withServer({}, async ({ client, logged }) => {
      assert.deepStrictEqual(await namesOf(client), ["docs_search", "docs_read", "notes_list", "quotes_latest"])
      const found = await client.callTool({ name: "docs_search", arguments: { query: "Layer.provide", limit: 1 } })
      assert.isFalse(found.isError)
      const hidden = await client.callTool({ name: "notes_add", arguments: { text: "x" } }).catch(String)
      const absent = await client.callTool({ name: "notes_del", arguments: { text: "x" } }).catch(String)
      assert.strictEqual(String(hidden).replace("notes_add", "notes_del"), absent)
      while (!logged().includes("denied")) await new Promise((resolve) => setTimeout(resolve, 10))
      const lines = logged().trim().split("\n").map((line) => JSON.parse(line))
      assert.deepStrictEqual(lines.map((line) => [line.tool, line.outcome]), [["docs:search", "ok"], [
        "notes:add",
        "denied"
      ]])
    }))

  it("takes its caller from the configuration: a writer", () =>
    withServer({ TOOLOPS_STDIO_ROLE: "writer" }, async ({ client }) => {
      assert.include(await namesOf(client), "notes_add")
      const added = await client.callTool({ name: "notes_add", arguments: { text: "over stdio" } })
      assert.deepStrictEqual(added.structuredContent, { id: 1 })
      const { structuredContent } = await client.callTool({ name: "notes_list", arguments: {} })
      const { notes } = structuredContent as { readonly notes: ReadonlyArray<{ readonly author: string }> }
      assert.deepStrictEqual(notes.map((note) => note.author), ["stdio"])
    }))

  it("limits it like any other caller", () =>
    withServer({ TOOLOPS_LIMIT: "2" }, async ({ client }) => {
      const results = await Promise.all(
        Array.from({ length: 5 }, () => client.callTool({ name: "notes_list", arguments: {} }))
      )
      const refused = results.filter((result) => result.isError === true)
      assert.strictEqual(refused.length, 3)
      const [{ text }] = refused[0]!.content as [{ readonly text: string }]
      assert.include(JSON.parse(text), { reason: "RateLimited", retryable: true })
    }))

  it("ends when its input ends", async () => {
    const { code, stderr, stdout } = await run("server.ts", {}, ["--stdio"])
    assert.deepStrictEqual([code, stdout, stderr], [0, "", ""])
  })
})
