/**
 * A server that tests send signals to. It prints one line per event: `listening <port>`, `start`, `end` and `interrupted`
 * of slow calls, `audit <records>` when its audit log is flushed, `exporter` when what stands for an exporter is closed.
 *
 * Settings come from the environment: DELAY and GRACE in milliseconds, HANG=1 for a layer that never closes, OTLP for the
 * address of a collector, which gets nothing before the end.
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { AuditLog, Authenticator, AuthMiddleware, Authorizer } from "effect-toolops/auth"
import { CacheMiddleware } from "effect-toolops/cache"
import { HealthCheck, HealthRegistry, HealthRoutes } from "effect-toolops/health"
import { RateLimitMiddleware } from "effect-toolops/limit"
import { EventLoopCheck, Graceful, Telemetry } from "effect-toolops/node"
import { ObserveMiddleware } from "effect-toolops/observe"
import { ResilienceMiddleware } from "effect-toolops/resilience"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { writeSync } from "node:fs"
import { createServer } from "node:http"

// Written at once, so that what is printed is in the order in which it happened.
const print = (line: string): void => void writeSync(1, `${line}\n`)
const setting = (name: string): number => Number(process.env[name] ?? 0)

let audited = 0
const Audit = AuditLog.layer({ write: (records) => Effect.sync(() => void (audited += records.length)) })
const AuditTold = Layer.effectDiscard(Effect.addFinalizer(() => Effect.sync(() => print(`audit ${audited}`))))
const Exporter = Layer.effectDiscard(Effect.addFinalizer(() => Effect.sync(() => print("exporter"))))
const Hanging = process.env["HANG"] === "1"
  ? Layer.effectDiscard(Effect.addFinalizer(() => Effect.andThen(Effect.sync(() => print("hanging")), Effect.never)))
  : Layer.empty

const endpoint = process.env["OTLP"]
const Collected = endpoint === undefined ? Layer.empty : Telemetry.layer({
  serviceName: "graceful",
  endpoint,
  tracing: { exporter: "otlp", interval: "1 hour" },
  metrics: { exporter: "otlp", interval: "1 hour" }
})

const Pipeline = ToolPipeline.layer.pipe(Layer.provide([
  ObserveMiddleware.layer({ log: false }),
  AuthMiddleware.layer.pipe(Layer.provide([Authenticator.layerAnonymous, Authorizer.layerAllowAll, Audit])),
  RateLimitMiddleware.layerPassthrough,
  CacheMiddleware.layerPassthrough,
  ResilienceMiddleware.layer({ defaults: { bulkhead: { maxConcurrent: 20_000 } } })
]))

const work = ToolMeta.make({ name: "work" })

const Calls = HttpRouter.use((router) =>
  Effect.gen(function*() {
    const pipeline = yield* ToolPipeline.ToolPipeline
    const registry = yield* HealthRegistry.HealthRegistry
    const run = pipeline.wrap(work, (millis: number) =>
      Effect.onInterrupt(
        Effect.andThen(
          Effect.sync(() => millis >= 1000 && print("start")),
          Effect.andThen(Effect.sleep(millis), Effect.sync(() => millis >= 1000 && print("end")))
        ),
        () => Effect.sync(() => print("interrupted"))
      ))
    yield* router.add("GET", "/work/:millis", (request) =>
      run(Number(request.url.split("/").at(-1))).pipe(
        Effect.as(HttpServerResponse.text("done")),
        Effect.catchTags({
          ResilienceError: ({ reason, retryAfter }) =>
            Effect.succeed(HttpServerResponse.text(reason._tag, {
              status: 503,
              headers: retryAfter === undefined ? {} : { "retry-after": "1" }
            })),
          AuthError: () => Effect.succeed(HttpServerResponse.text("refused", { status: 401 })),
          RateLimitError: () => Effect.succeed(HttpServerResponse.text("limited", { status: 429 }))
        })
      ))
    // So many calls of five seconds each, at all times from now on.
    const stay = pipeline.wrap(ToolMeta.make({ name: "stay" }), () => Effect.sleep("5 seconds"))
    yield* router.add("POST", "/crowd/:size", (request) =>
      Effect.as(
        Effect.forEach(
          Array.from({ length: Number(request.url.split("/").at(-1)) }),
          () => Effect.forkDetach(Effect.forever(Effect.ignore(stay(undefined)))),
          { discard: true }
        ),
        HttpServerResponse.text("started")
      ))
    yield* router.add("GET", "/in-flight", Effect.map(registry.inFlight, (n) => HttpServerResponse.text(String(n))))
    yield* router.add("POST", "/block/:millis", (request) =>
      Effect.sync(() => {
        const until = performance.now() + Number(request.url.split("/").at(-1))
        while (performance.now() < until);
        return HttpServerResponse.text("blocked")
      }))
  })
)

const Routes = Layer.mergeAll(
  Calls,
  HealthRoutes.layer({ details: () => Effect.succeed(true) }).pipe(
    Layer.provide(HealthRegistry.layerCheck(HealthCheck.make({ name: "always", check: Effect.void }))),
    Layer.provide(EventLoopCheck.layer({ interval: "100 millis", failAfter: 1 }))
  )
)

const Server = HttpRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
  Layer.provide(Pipeline),
  Layer.provideMerge(NodeHttpServer.layerServer(() => createServer(), {
    port: 0,
    host: "127.0.0.1",
    gracefulShutdownTimeout: "2 seconds"
  }))
)

const Told = Layer.effectDiscard(Effect.map(HttpServer.HttpServer, ({ address }) => {
  if ("port" in address) print(`listening ${address.port}`)
}))

const Program = Told.pipe(
  Layer.provideMerge(Graceful.layer({ delay: setting("DELAY"), grace: setting("GRACE") })),
  Layer.provideMerge(Server),
  Layer.provide(HealthRegistry.layer),
  Layer.provide(AuditTold),
  Layer.provide(Exporter),
  Layer.provide(Collected),
  Layer.provide(Hanging)
)

NodeRuntime.runMain(Layer.launch(Program), { teardown: Graceful.teardown })
