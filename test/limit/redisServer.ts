import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"

/** A Redis of a test's own, to be paused and killed. */
export interface RedisServer {
  readonly url: string
  readonly pause: () => void
  readonly resume: () => void
  readonly kill: () => Promise<void>
  readonly start: () => Promise<void>
}

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

const answers = async (port: number): Promise<void> => {
  for (let attempt = 0; attempt < 200; attempt++) {
    const socket = connect(port, "127.0.0.1")
    const open = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true))
      socket.once("error", () => resolve(false))
    })
    socket.destroy()
    if (open) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error("redis-server does not start")
}

/** Starts a server that ends with the scope. */
export const redisServer = Effect.acquireRelease(
  Effect.promise(async () => {
    const port = await freePort()
    let child: ChildProcess | undefined
    // A test that runs out of time never comes to its finalizers.
    process.once("exit", () => child?.kill("SIGKILL"))
    const server: RedisServer = {
      url: `redis://127.0.0.1:${port}`,
      pause: () => child?.kill("SIGSTOP"),
      resume: () => child?.kill("SIGCONT"),
      kill: async () => {
        if (child === undefined) return
        const exited = once(child, "exit")
        child.kill("SIGKILL")
        child = undefined
        await exited
      },
      start: async () => {
        child = spawn("redis-server", ["--port", String(port), "--save", "", "--appendonly", "no"], { stdio: "ignore" })
        await answers(port)
      }
    }
    await server.start()
    return server
  }),
  (server) => Effect.promise(() => server.kill())
)

/** Lets real time go by, whatever the clock of the test says. */
export const realSleep = (millis: number): Effect.Effect<void> =>
  Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))
