import { Effect, Exit, Layer, Scope } from "effect"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { HttpRouter } from "effect/http"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { connect } from "node:net"
import { join } from "node:path"
import type { Case, Group, Settings } from "./harness.ts"

const connections = 32

/** Starts one of the servers in a process of its own, so that it and the client do not share an event loop. */
const started = async (which: "bare" | "router" | "routes" | "spans") => {
  const file = join(import.meta.dirname, "health", "server.ts")
  const child = spawn(process.execPath, ["-C", "@effect-toolops/source", file, which], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  const [line] = await once(child.stdout, "data")
  const port = Number(String(line))
  const response = await fetch(`http://127.0.0.1:${port}/healthz`)
  if (await response.text() !== "{\"status\":\"healthy\"}\n") throw new Error(`${which} does not answer`)
  return { port, child }
}

/** Requests a second that `wrk` gets from a server. */
const byWrk = (port: number, seconds: number): number => {
  const options = ["-t1", `-c${connections}`, `-d${seconds}s`, `http://127.0.0.1:${port}/healthz`]
  const { status, stdout } = spawnSync("wrk", options, { encoding: "utf8" })
  const figure = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1])
  if (status !== 0 || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`wrk: ${stdout}`)
  return figure
}

const request = Buffer.from("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")

/** Requests a second that sockets of our own get, each with one request at a time on a connection that is kept. */
const bySockets = async (port: number, seconds: number): Promise<number> => {
  const begun = performance.now()
  const end = begun + seconds * 1000
  let answers = 0
  await Promise.all(Array.from({ length: connections }, async () => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true })
    await once(socket, "connect")
    await new Promise<void>((resolve, reject) => {
      socket.on("error", reject)
      // The answer fits in one segment and ends with the only line feed that follows a brace.
      socket.on("data", (chunk) => {
        if (chunk[chunk.length - 2] !== 125) return
        answers += 1
        if (performance.now() >= end) resolve()
        else socket.write(request)
      })
      socket.write(request)
    })
    socket.destroy()
  }))
  return answers / ((performance.now() - begun) / 1000)
}

/** The least that `wrk` measures for. */
const seconds = 1

const probes = async (): Promise<Group> => {
  const [bare, router, routes, spans] = [
    await started("bare"),
    await started("router"),
    await started("routes"),
    await started("spans")
  ]
  const hasWrk = spawnSync("wrk", ["-v"]).error === undefined
  const measure = (port: number) => hasWrk ? byWrk(port, seconds) : bySockets(port, seconds)
  return {
    name: `health: /healthz, requests a second from ${hasWrk ? "wrk" : "sockets of our own"}`,
    cases: [
      { name: "bare node:http", run: () => measure(bare.port), figure: true, ops: 1 },
      // The platform's part of the cost: what is below this is ours.
      {
        name: "one prepared answer on an HttpRouter",
        run: () => measure(router.port),
        figure: true,
        ops: 1,
        baseline: "bare node:http"
      },
      {
        name: "HealthRoutes",
        run: () => measure(routes.port),
        figure: true,
        ops: 1,
        baseline: "bare node:http",
        goal: 0.85,
        atLeast: true
      },
      {
        name: "HealthRoutes, with a span of each probe",
        run: () => measure(spans.port),
        figure: true,
        ops: 1,
        baseline: "bare node:http"
      }
    ],
    close: () => {
      for (const { child } of [bare, router, routes, spans]) child.kill()
    }
  }
}

const reports = async (): Promise<Group> => {
  const scope = Effect.runSync(Scope.make())
  const registry = Effect.runSync(HealthRegistry.make)
  for (let i = 0; i < 50; i++) {
    const check = HealthCheck.make({
      name: `check-${i}`,
      interval: "1 hour",
      check: Effect.succeed({ status: "healthy", details: { used: i, limit: 100, name: "a detail" } })
    })
    await Effect.runPromise(Scope.provide(registry.register(check), scope))
  }
  const { dispose, handler } = HttpRouter.toWebHandler(
    HealthRoutes.layer({ details: () => Effect.succeed(true) }).pipe(
      Layer.provide(Layer.succeed(HealthRegistry.HealthRegistry, registry))
    ),
    { disableLogger: true }
  )
  const told: any = await (await handler(new Request("http://localhost/health"))).json()
  if (Object.keys(told.checks).length !== 50) throw new Error("not all checks are told")

  /** Microseconds for one, of `n` one after the other. */
  const micros = (run: (n: number) => Promise<unknown>): Case["run"] => async (n) => {
    const begun = process.hrtime.bigint()
    await run(n)
    return Number(process.hrtime.bigint() - begun) / n / 1000
  }
  const asked = micros((n) =>
    Effect.runPromise(Effect.gen(function*() {
      for (let i = 0; i < n; i++) {
        const { checks } = yield* registry.reportAll
        if (checks.length !== 50) throw new Error("not all checks are reported")
      }
    }))
  )
  const answered = micros(async (n) => {
    for (let i = 0; i < n; i++) {
      const response = await handler(new Request("http://localhost/health"))
      if ((await response.text()).length < 5000) throw new Error("not all checks are told")
    }
  })
  return {
    name: "health: 50 checks with kept results, microseconds",
    cases: [
      { name: "report", run: asked, figure: true, ops: 2000, goal: 50 },
      // With the request, the answer and its text, which cost more than what they tell.
      { name: "the same as an answer to a web request", run: answered, figure: true, ops: 500 }
    ],
    close: async () => {
      await dispose()
      await Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
}

export default async (_settings: Settings): Promise<ReadonlyArray<Group>> => [await reports(), await probes()]
