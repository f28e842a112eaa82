import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { Agent, request } from "node:http"
import { fileURLToPath } from "node:url"
import type { Case, Group } from "./harness.ts"
import { key } from "./mcp/key.ts"

// The servers are processes of their own, so that what is told of them is not of the load beside them. Two figures: the
// time of a call as the client sees it, and the processor time that the server spends on it, which another program on the
// machine disturbs less.

interface Server {
  readonly child: ChildProcess
  readonly url: string
  readonly session: string
  /** Processor time so far, in nanoseconds. */
  readonly spent: () => Promise<number>
}

const connections = 50
const agent = new Agent({ keepAlive: true, maxSockets: connections })

const post = (url: string, session: string | undefined, body: object): Promise<{ session: string; text: string }> =>
  new Promise((resolve, reject) => {
    const text = JSON.stringify(body)
    const sent = request(url, {
      agent,
      method: "POST",
      headers: {
        "content-type": "application/json",
        "content-length": Buffer.byteLength(text),
        accept: "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
        "x-api-key": key,
        ...session === undefined ? {} : { "mcp-session-id": session }
      }
    }, (incoming) => {
      let received = ""
      incoming.setEncoding("utf8").on("data", (chunk: string) => received += chunk)
      incoming.on("end", () => resolve({ session: String(incoming.headers["mcp-session-id"]), text: received }))
    })
    sent.on("error", reject)
    sent.end(text)
  })

const start = async (which: "bare" | "guarded" | "sdk"): Promise<Server> => {
  const file = fileURLToPath(new URL("mcp/server.ts", import.meta.url))
  const child = spawn(process.execPath, ["-C", "@effect-toolops/source", file, which], {
    stdio: ["ignore", "ignore", "inherit", "ipc"]
  })
  const [url] = await once(child, "message") as [string]
  const { session } = await post(url, undefined, {
    jsonrpc: "2.0",
    id: 0,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "bench", version: "0.0.0" } }
  })
  return {
    child,
    url,
    session,
    spent: async () => {
      child.send("usage")
      const [{ system, user }] = await once(child, "message") as [NodeJS.CpuUsage]
      return (user + system) * 1_000
    }
  }
}

let serial = 0
const called = async ({ session, url }: Server, name: string, text: string): Promise<void> => {
  serial += 1
  const params = { name, arguments: { text } }
  const answer = await post(url, session, { jsonrpc: "2.0", id: serial, method: "tools/call", params })
  if (!answer.text.includes(`"structuredContent":{"text":"${text}"}`)) throw new Error(`no answer: ${answer.text}`)
}

const inFlight = async (lanes: number, n: number, one: () => Promise<void>): Promise<number> => {
  let left = n
  await Promise.all(Array.from({ length: lanes }, async () => {
    while (left-- > 0) await one()
  }))
  return n
}

const check = (done: unknown, n: number): void => {
  if (done !== n) throw new Error("not all calls were made")
}

const connect = async (url: string): Promise<Client> => {
  const client = new Client({ name: "bench", version: "0.0.0" })
  await client.connect(
    new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { "x-api-key": key } } })
  )
  return client
}

export default async (): Promise<ReadonlyArray<Group>> => {
  const servers = [await start("bare"), await start("guarded"), await start("sdk")] as const
  const [bare, guarded] = servers
  const names = ["the bare Effect server", "guarded, a miss each", "the official SDK's server"] as const
  const clients = await Promise.all(servers.map(({ url }) => connect(url)))
  // Every text is new, so that nothing is known already.
  const fresh = (server: Server, tool = "echo") => () => called(server, tool, `text ${serial}`)
  const against = (index: number): Pick<Case, "baseline" | "goal"> =>
    index === 0 ? {} : index === 1 ? { baseline: names[0], goal: 1 / 0.95 } : { baseline: names[0] }

  const wall = (servers: ReadonlyArray<Server>, tool: string) =>
    servers.map((server, index): Case => ({
      name: names[index]!,
      ops: 2_000,
      run: (n) => inFlight(connections, n, fresh(server, tool)),
      check,
      ...against(index)
    }))
  const processor = (servers: ReadonlyArray<Server>, tool: string) =>
    servers.map((server, index): Case => ({
      name: names[index]!,
      ops: 2_000,
      figure: true,
      run: async (n) => {
        const before = await server.spent()
        await inFlight(connections, n, fresh(server, tool))
        return (await server.spent() - before) / n
      },
      ...against(index)
    }))
  const official = clients.map((client, index): Case => ({
    name: names[index]!,
    ops: 1_000,
    run: (n) =>
      inFlight(16, n, async () => {
        serial += 1
        const result = await client.callTool({ name: "echo", arguments: { text: `text ${serial}` } })
        if (result.isError === true) throw new Error("no answer")
      }),
    check,
    ...against(index)
  }))
  return [
    { name: `mcp: time of a call, ${connections} connections`, cases: wall(servers, "echo") },
    {
      name: `mcp: the server's processor time of a call, ${connections} connections`,
      cases: processor(servers, "echo")
    },
    // The other path through a guarded toolkit: the handler goes on in a later turn than that in which it has begun.
    {
      name: `mcp: time of a call of a tool that yields, ${connections} connections`,
      cases: wall([bare, guarded], "later")
    },
    {
      name: `mcp: the server's processor time of a call of a tool that yields, ${connections} connections`,
      cases: processor([bare, guarded], "later")
    },
    { name: "mcp: time of a call, official client, 16 in flight", cases: official },
    {
      name: "mcp: a tool of 5 ms, one call after the other",
      cases: [
        { name: "without the layer", ops: 40, run: (n) => inFlight(1, n, () => called(bare, "slow", "same")), check },
        {
          name: "with it, known already",
          ops: 400,
          run: (n) => inFlight(1, n, () => called(guarded, "slow", "same")),
          check,
          baseline: "without the layer",
          goal: 0.1
        },
        // What is left of a call when neither tool nor layer take any time: one round trip of this client.
        {
          name: "without it, a tool of no time",
          ops: 400,
          run: (n) => inFlight(1, n, fresh(bare)),
          check,
          baseline: "without the layer"
        }
      ],
      close: async () => {
        await Promise.all(clients.map((client) => client.close()))
        agent.destroy()
        for (const { child } of servers) child.disconnect()
      }
    }
  ]
}
