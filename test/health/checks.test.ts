import { NodeHttpClient, NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer, Logger, Schedule } from "effect"
import { HealthRegistry, HttpCheck, RedisCheck } from "effect-toolops/health"
import { FetchHttpClient, type HttpClient } from "effect/http"
import { Redis } from "effect/persistence"
import { createServer, type RequestListener } from "node:http"
import type { AddressInfo } from "node:net"
import { inspect } from "node:util"
import { inject } from "vitest"
import { LocalRedis } from "../support/redis.ts"

/** What the check of `layer` says, asked once. */
const checked = (layer: Layer.Layer<never, unknown, HealthRegistry.HealthRegistry>, name: string) =>
  Effect.flatMap(HealthRegistry.HealthRegistry, (registry) => registry.check(name)).pipe(
    Effect.provide(Layer.provideMerge(layer, HealthRegistry.layer))
  )

const served = (listener: RequestListener) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>>((resume) => {
        const server = createServer(listener)
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          server.close()
          server.closeAllConnections()
        })
    ),
    (server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}/secret-path?key=k-1`
  )

const clients: ReadonlyArray<readonly [string, Layer.Layer<HttpClient.HttpClient>]> = [
  ["fetch", FetchHttpClient.layer],
  ["undici", NodeHttpClient.layerUndici],
  ["node:http", NodeHttpClient.layerNodeHttp]
]

describe.each(clients)("HttpCheck with %s", (_, client) => {
  const ask = (options: HttpCheck.Options) =>
    checked(HttpCheck.layer({ timeout: "5 seconds", ...options }).pipe(Layer.provide(client)), "http")

  it.live("goes by the status, and does not follow where it is sent", () =>
    Effect.gen(function*() {
      const asked: Array<string> = []
      const url = yield* served((request, response) => {
        asked.push(`${request.method}`)
        const status = Number(new URL(request.url!, "http://x").searchParams.get("status"))
        response.writeHead(status, status === 302 ? { location: "/elsewhere?status=200" } : {}).end("body")
      })
      for (
        const [status, expected] of [[200, "healthy"], [204, "healthy"], [302, "unhealthy"], [
          503,
          "unhealthy"
        ]] as const
      ) {
        const result = yield* ask({ url: `${url}&status=${status}` })
        assert.strictEqual(result.status, expected, String(status))
        assert.deepStrictEqual(result.details, { httpStatus: status })
      }
      assert.strictEqual(
        (yield* ask({ url: `${url}&status=404`, method: "HEAD", statuses: [404, 404] })).status,
        "healthy"
      )
      assert.deepStrictEqual(asked, ["GET", "GET", "GET", "GET", "HEAD"])
    }))

  it.live("says that there was no answer in time, and not whom it asked", () =>
    Effect.gen(function*() {
      const hanging = yield* served(() => {})
      const late = yield* ask({ url: hanging, timeout: "50 millis" })
      assert.deepInclude(late, { status: "unhealthy", reason: "timeout" })
      const refused = yield* ask({ url: "http://127.0.0.1:1/secret-path?key=k-1" })
      assert.strictEqual(refused.status, "unhealthy")
      assert.notMatch(inspect([late, refused], { depth: 9 }), /secret-path|k-1/)
    }))
})

it("HttpCheck refuses nonsense, without showing the address", () => {
  for (const url of ["", "/health", "ftp://k-1@host", "file:///k-1"]) {
    assert.throws(() => HttpCheck.make({ url }), /^HttpCheck.make: url must be an absolute http or https URL$/)
  }
  assert.throws(
    () => HttpCheck.make({ url: "http://a", statuses: [300, 200] }),
    /statuses\[1\] must be an integer from 300/
  )
  assert.throws(() => HttpCheck.make({ url: "http://a", method: "POST" as "GET" }), /method must be one of GET, HEAD/)
})

it.live("HttpCheck and RedisCheck take their options from the configuration", () =>
  Effect.gen(function*() {
    const url = yield* served((_request, response) => response.writeHead(404).end())
    const silent = yield* Redis.make({
      send: () => Effect.never,
      subscribe: () => Effect.never,
      connect: Effect.never
    })
    const registry = yield* HealthRegistry.HealthRegistry
    const Checks = Layer.merge(
      HttpCheck.layerConfig({
        url: Config.String("URL"),
        statuses: Config.succeed([400, 499]),
        timeout: Config.Duration("TIMEOUT")
      }).pipe(Layer.provide(FetchHttpClient.layer)),
      RedisCheck.layerConfig({ name: Config.String("NAME"), timeout: Config.succeed("10 millis") }).pipe(
        Layer.provide(Layer.succeed(Redis.Redis, silent))
      )
    )
    const env = { URL: url, TIMEOUT: "5 seconds", NAME: "sessions" }
    const Env = ConfigProvider.layer(ConfigProvider.fromEnvRecord(env))
    yield* Effect.gen(function*() {
      assert.strictEqual((yield* registry.check("http")).status, "healthy")
      assert.strictEqual((yield* registry.check("sessions")).reason, "timeout")
    }).pipe(Effect.provide(Layer.provide(Checks, Env)))
  }).pipe(Effect.provide(HealthRegistry.layer)))

describe.skipIf(!inject("redis").canStart)("RedisCheck", () => {
  it.live("is healthy while Redis answers, and says so again when it is back", () =>
    Effect.gen(function*() {
      const redis = yield* Effect.acquireRelease(
        Effect.promise(() => LocalRedis.started()),
        (redis) => Effect.promise(() => redis.kill())
      )
      const client = Layer.orDie(NodeRedis.layer({ url: redis.url, socket: { reconnectStrategy: 20 } })).pipe(
        Layer.provide(Logger.layer([]))
      )
      const check = RedisCheck.layer({ timeout: "300 millis", interval: "20 millis" }).pipe(Layer.provide(client))
      yield* Effect.gen(function*() {
        const registry = yield* HealthRegistry.HealthRegistry
        const becomes = (status: string) =>
          registry.check("redis").pipe(
            Effect.flatMap((result) => result.status === status ? Effect.succeed(result) : Effect.fail(result)),
            Effect.retry(Schedule.spaced("20 millis")),
            Effect.timeout("20 seconds")
          )
        yield* becomes("healthy")
        redis.signal("SIGSTOP")
        assert.strictEqual((yield* becomes("unhealthy")).reason, "timeout")
        redis.signal("SIGCONT")
        yield* becomes("healthy")
        yield* Effect.promise(() => redis.kill())
        yield* becomes("unhealthy")
        yield* Effect.promise(() => redis.start())
        yield* becomes("healthy")
      }).pipe(Effect.provide(Layer.provideMerge(check, HealthRegistry.layer)))
    }), 60_000)
})
