/**
 * A guarded tool on a server of the official MCP SDK. The SDK validates the arguments and speaks the protocol; who may
 * call, how often, and what is known already is the pipeline's.
 *
 * Run it: node -C @effect-toolops/source examples/host-mcp-sdk.ts
 */
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js"
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js"
import { z } from "zod"
import { call, dispose, forecast, key, runs } from "./hosts/guarded.ts"

const serverWith = (credentials: Readonly<Record<string, string>>) => {
  const server = new McpServer({ name: "weather", version: "1.0.0" })
  server.registerTool(
    "weather_forecast",
    {
      description: forecast.description ?? "",
      inputSchema: { city: z.string() },
      annotations: { readOnlyHint: forecast.readOnly }
    },
    async ({ city }, extra) => {
      // Over HTTP the credentials are in the headers of the request, else they come from where the server was started.
      const headers = extra.requestInfo?.headers ?? credentials
      const answer = await call({ city }, { headers, signal: extra.signal })
      return "value" in answer
        ? { content: [{ type: "text", text: answer.value }] }
        : { isError: true, content: [{ type: "text", text: JSON.stringify(answer.refusal) }] }
    }
  )
  return server
}

const ask = async (who: string, credentials: Readonly<Record<string, string>>, cities: ReadonlyArray<string>) => {
  const [near, far] = InMemoryTransport.createLinkedPair()
  const server = serverWith(credentials)
  const client = new Client({ name: "example", version: "1.0.0" })
  await Promise.all([server.connect(far), client.connect(near)])
  for (const city of cities) {
    const result = await client.callTool({ name: "weather_forecast", arguments: { city } })
    const [{ text }] = result.content as [{ readonly text: string }]
    console.log(`${who.padEnd(8)} ${result.isError === true ? `refused: ${JSON.parse(text).reason}` : text}`)
  }
  await client.close()
}

await ask("nobody", {}, ["Turin"])
await ask("ada", { "x-api-key": key }, ["Turin", "Turin", "Lisbon", "Lisbon"])
console.log(`the handler ran ${runs} times`)
await dispose()
