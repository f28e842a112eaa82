/**
 * `node server.ts bare` answers every request as `/healthz` does, with `node:http` alone; `node server.ts routes` serves
 * `HealthRoutes` without spans or log lines of probes, `spans` with spans; `router` answers the same from an `HttpRouter` that
 * knows nothing else, which is as fast as anything on one can be. Each prints its port.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { HttpMiddleware, HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

const body = "{\"status\":\"healthy\"}\n"

const bare = () => {
  const server = createServer((_request, response) => {
    response.writeHead(200, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      "cache-control": "no-store"
    })
    response.end(body)
  })
  server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port))
}

const one = HttpServerResponse.text(body, {
  contentType: "application/json",
  headers: { "cache-control": "no-store" }
})

const routes = (which: string | undefined) => {
  const Checks = HealthRegistry.layerCheck(HealthCheck.make({ name: "always", check: Effect.void }))
  const Told = Layer.effectDiscard(Effect.map(HttpServer.HttpServer, ({ address }) => {
    if ("port" in address) console.log(address.port)
  }))
  const Server = HttpRouter.serve(
    which === "router"
      ? HttpRouter.use((router) => router.add("GET", "/healthz", Effect.succeed(one)))
      : HealthRoutes.layer().pipe(Layer.provide(Checks), Layer.provide(HealthRegistry.layer)),
    {
      disableListenLog: true,
      disableLogger: true
    }
  )
  Effect.runFork(Layer.launch(
    Layer.merge(Told, Server).pipe(
      Layer.provide(which === "spans" ? Layer.empty : HttpMiddleware.layerTracerDisabledForUrls(["/healthz"])),
      Layer.provide(NodeHttpServer.layerServer(() => createServer(), { port: 0, host: "127.0.0.1" }))
    )
  ))
}

if (process.argv[2] === "bare") bare()
else routes(process.argv[2])
