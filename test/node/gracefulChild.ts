import { spawn } from "node:child_process"
import { once } from "node:events"
import { Agent, get as httpGet, request as httpRequest } from "node:http"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"

/** What a request came to: an answer, or the code of the error that it ended with. */
export interface Answer {
  readonly status: number
  readonly text: string
}

/** Waits until `condition` holds. The test's own time limit is the only one. */
export const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  while (!await condition()) await sleep(20)
}

/** Starts `gracefulServer.ts` as a process of its own. */
export const startServer = async (environment: Record<string, string> = {}) => {
  const file = fileURLToPath(new URL("gracefulServer.ts", import.meta.url))
  const child = spawn(process.execPath, ["-C", "@effect-toolops/source", file], {
    env: { ...process.env, NODE_OPTIONS: "", ...environment },
    stdio: ["ignore", "pipe", "inherit"]
  })
  let stdout = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text)
  const exited = once(child, "close").then(([code, signal]: ReadonlyArray<unknown>) => ({ code, signal }))
  const lines = (): ReadonlyArray<string> => stdout.split("\n").filter((line) => /^[a-z]+( \d+)?$/.test(line))
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity })
  await until(() => stdout.includes("listening ") || child.exitCode !== null)
  const port = Number(/listening (\d+)/.exec(stdout)?.[1])

  const ask = (path: string, method: "GET" | "POST" = "GET"): Promise<Answer> =>
    new Promise((resolve) => {
      const failed = (error: Error) =>
        resolve({ status: 0, text: "code" in error ? String(error.code) : error.message })
      const send = method === "GET" ? httpGet : httpRequest
      const request = send({ host: "127.0.0.1", port, path, method, agent }, (response) => {
        let text = ""
        response.setEncoding("utf8").on("data", (chunk: string) => text += chunk)
          .on("end", () => resolve({ status: response.statusCode ?? 0, text }))
          .on("error", failed)
      }).on("error", failed)
      request.end()
    })

  return {
    child,
    exited,
    lines,
    ask,
    printed: (line: string) => until(() => lines().includes(line)),
    [Symbol.asyncDispose]: async () => {
      agent.destroy()
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL")
      await exited
    }
  }
}
