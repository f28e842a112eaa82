/**
 * A plain `node:http` server whose handler calls a guarded tool. What refuses a call says how HTTP is told.
 *
 * Run it: node -C @effect-toolops/source examples/host-http.ts
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { call, dispose, key, runs } from "./hosts/guarded.ts"

const statusOf: Readonly<Record<string, number>> = {
  MissingCredentials: 401,
  InvalidCredentials: 401,
  Forbidden: 403,
  RateLimited: 429
}

const handle = async (request: IncomingMessage, response: ServerResponse) => {
  const city = new URL(request.url ?? "/", "http://localhost").searchParams.get("city") ?? ""
  // Whoever hangs up interrupts the call.
  const gone = new AbortController()
  response.on("close", () => gone.abort())
  const answer = await call({ city }, { headers: request.headers, signal: gone.signal })
  if ("value" in answer) {
    response.end(answer.value)
    return
  }
  const { message, reason, retryAfterMillis } = answer.refusal
  response.statusCode = statusOf[reason] ?? 503
  if (retryAfterMillis !== undefined) response.setHeader("retry-after", Math.ceil(retryAfterMillis / 1_000))
  response.end(message)
}

const server = createServer((request, response) => {
  // What is left is our own mistake, or nobody there to be told.
  handle(request, response).catch(() => response.destroy())
})
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
const { port } = server.address() as AddressInfo

const ask = async (city: string, headers: Record<string, string> = {}) => {
  const response = await fetch(`http://127.0.0.1:${port}/forecast?city=${city}`, { headers })
  const wait = response.headers.has("retry-after") ? " (retry-after is set)" : ""
  console.log(`${city.padEnd(8)} ${response.status} ${(await response.text()).split(".")[0]}${wait}`)
}

await ask("Turin")
for (const city of ["Turin", "Turin", "Lisbon", "Lisbon"]) await ask(city, { "X-API-Key": key })
console.log(`the handler ran ${runs} times`)

server.close()
await dispose()
