/**
 * The Redis that tests talk to: that of `REDIS_URL` or the one at 127.0.0.1:6379, and where none answers there, one that
 * this run starts and stops. Vitest calls `setup` once, before any test; tests find the outcome with `inject("redis")`.
 *
 * Where there is neither a Redis nor a `redis-server` to start, the suites that need one are skipped, and told so. In CI
 * nothing is skipped: the run fails.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { createClient } from "redis"
import type { TestProject } from "vitest/node"

/** What tests can count on. */
export interface RedisForTests {
  /** Where a Redis answers, shared by all tests, or `undefined`. */
  readonly url: string | undefined
  /** Is there a `redis-server` on the PATH, so that a test can have servers of its own? */
  readonly canStart: boolean
}

declare module "vitest" {
  interface ProvidedContext {
    redis: RedisForTests
  }
}

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

/** Is it Redis that answers, and to us? A port that is open says neither. */
const answers = async (url: string, within: number): Promise<boolean> => {
  try {
    const client = createClient({ url, socket: { connectTimeout: within, reconnectStrategy: false } })
    client.on("error", () => {})
    try {
      const ping = client.connect().then(() => client.ping()).then((pong) => pong === "PONG", () => false)
      return await Promise.race([ping, sleep(within, false, { ref: false })])
    } finally {
      if (client.isOpen) client.destroy()
    }
  } catch {
    // REDIS_URL is no URL.
    return false
  }
}

/** A `redis-server` on a port of its own, which it keeps when it is started again. */
export class LocalRedis {
  readonly url: string
  readonly #port: number
  #child: ChildProcess | undefined
  // What runs out of time never comes to its finalizers.
  readonly #onExit = () => this.#child?.kill("SIGKILL")

  private constructor(port: number) {
    this.#port = port
    this.url = `redis://127.0.0.1:${port}`
  }

  /** A server that answers. Another process may take the free port first, so it tries some. */
  static async started(): Promise<LocalRedis> {
    for (let attempt = 1;; attempt++) {
      const server = new LocalRedis(await freePort())
      try {
        await server.start()
        return server
      } catch (error) {
        await server.kill()
        if (attempt === 3) throw error
      }
    }
  }

  async start(): Promise<void> {
    const options = ["--bind", "127.0.0.1", "--port", String(this.#port), "--save", "", "--appendonly", "no"]
    const child = spawn("redis-server", options, { stdio: "ignore" })
    this.#child = child
    process.once("exit", this.#onExit)
    const ended = { why: "" }
    child.once("error", (error) => ended.why = error.message)
    child.once("exit", (code, signal) => ended.why ||= `it ended with ${signal ?? code}`)
    for (const start = performance.now(); performance.now() - start < 10_000 && ended.why === "";) {
      if (await answers(this.url, 1000)) return
      await sleep(10)
    }
    throw new Error(`redis-server does not answer on port ${this.#port}: ${ended.why || "10 seconds have passed"}`)
  }

  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#child?.kill(signal)
  }

  async kill(): Promise<void> {
    process.off("exit", this.#onExit)
    const child = this.#child
    this.#child = undefined
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, "exit")
    child.kill("SIGKILL")
    await exited
  }
}

const say = (text: string): void => {
  process.stderr.write(`\nRedis: ${text}\n\n`)
}

/** Called by Vitest before the first test; what it returns is called after the last one. */
export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const given = process.env["REDIS_URL"]
  const isCi = ![undefined, "", "0", "false"].includes(process.env["CI"])
  const usual = given === undefined || given === "" ? "redis://127.0.0.1:6379" : given
  // The address may have a password in it.
  const where = usual === given ? "at REDIS_URL" : `at ${usual}`
  const url = await answers(usual, 2000) ? usual : undefined
  const canStart = spawnSync("redis-server", ["--version"], { stdio: "ignore" }).status === 0
  if (!canStart) {
    const lack = url === undefined
      ? `none answers ${where}, and there is no redis-server on the PATH to start one`
      : "one answers, but there is no redis-server on the PATH for the tests that pause and kill one"
    if (isCi) {
      // One line says it all, and nothing has begun that would have to end.
      say(`${lack}. In CI the tests that need it are not skipped.`)
      process.exit(1)
    }
    say(`${lack}. THE TESTS THAT NEED IT ARE SKIPPED.`)
    project.provide("redis", { url, canStart })
    // What was said at the beginning has scrolled away.
    return async () => say("THE TESTS THAT NEED IT WERE SKIPPED.")
  }
  if (url !== undefined) {
    project.provide("redis", { url, canStart })
    return undefined
  }
  const server = await LocalRedis.started()
  if (usual === given) say(`none answers ${where}. This run starts its own.`)
  project.provide("redis", { url: server.url, canStart })
  return () => server.kill()
}
