/** A TCP proxy that stands between a client and a server and misbehaves on request. */
import { Effect } from "effect"
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"

/**
 * - `pass`: bytes go through. `delay`: replies come so many milliseconds late. `garbage`: replies are noise, after
 *   which the connection ends. `noise`: the same, but the connection stays. `extra`: one reply more than was asked for,
 *   after which bytes go through.
 * - `reset`: connections are cut as soon as something is sent. `hang`: everything is held back until the mode changes.
 */
export type Mode = "pass" | "garbage" | "noise" | "extra" | "reset" | "hang" | { readonly delay: number }

export interface Proxy {
  readonly port: number
  mode: Mode
}

/** Starts a proxy to a port of this machine; it ends with the scope. */
export const tcpProxy = (target: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets = new Set<Socket>()
      const held: Array<() => void> = []
      const server = createServer((client) => {
        const upstream = connect(target, "127.0.0.1")
        for (const socket of [client, upstream]) {
          socket.setNoDelay(true)
          socket.on("error", () => {})
          sockets.add(socket)
          socket.on("close", () => {
            sockets.delete(socket)
            client.destroy()
            upstream.destroy()
          })
        }
        client.on("data", (chunk) => {
          if (proxy.mode === "reset") client.resetAndDestroy()
          else if (proxy.mode === "hang") held.push(() => upstream.write(chunk))
          else upstream.write(chunk)
        })
        upstream.on("data", (chunk) => {
          if (proxy.mode === "garbage") client.end("?!\u0000 garbage\r\n")
          else if (proxy.mode === "noise") client.write("?!\u0000 garbage\r\n")
          else if (proxy.mode === "extra") {
            proxy.mode = "pass"
            client.write(Buffer.concat([Buffer.from("+EXTRA\r\n"), chunk]))
          } else if (typeof proxy.mode === "object") {
            setTimeout(() => client.writable && client.write(chunk), proxy.mode.delay)
          } else if (proxy.mode === "hang") {
            held.push(() => client.write(chunk))
          } else client.write(chunk)
        })
      }).listen(0, "127.0.0.1")
      await once(server, "listening")
      let mode: Mode = "pass"
      const proxy: Proxy & { readonly close: () => void } = {
        port: (server.address() as AddressInfo).port,
        get mode() {
          return mode
        },
        set mode(next) {
          mode = next
          if (next !== "hang") { for (const send of held.splice(0)) send() }
        },
        close: () => {
          server.close()
          for (const socket of sockets) socket.destroy()
        }
      }
      return proxy
    }),
    (proxy) => Effect.sync(proxy.close)
  )
