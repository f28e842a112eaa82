// What the compiler promises. `npm run check` reads this file; running it only shows that it loads.
import { describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { ToolMeta, type ToolMiddleware, ToolPipeline } from "effect-toolops"
import { type AuthError, AuthMiddleware, Identity } from "effect-toolops/auth"
import { CacheMiddleware } from "effect-toolops/cache"
import { type RateLimitError, RateLimitMiddleware } from "effect-toolops/limit"
import { ObserveMiddleware } from "effect-toolops/observe"
import { type ResilienceError, ResilienceMiddleware } from "effect-toolops/resilience"

type ErrorOf<T> = T extends Effect.Effect<any, infer E, any> ? E : never
type NeedsOf<T> = T extends Effect.Effect<any, any, infer R> ? R : never

const own = ToolMeta.make({ name: "own", readOnly: true })
const tenants = ToolMeta.make({ name: "tenants", readOnly: true, varies: "tenant" })
const shared = ToolMeta.make({ name: "shared", readOnly: true, varies: "everyone" })

class Boom extends Schema.TaggedError<Boom>("test/Boom")("Boom", {}) {}
class Database extends Context.Service<Database, { readonly one: number }>()("test/Database") {}
class Own extends Context.Service<Own, ToolMiddleware.ToolMiddleware<"own error">>()("test/Own") {}

const whoami = Effect.map(Identity.CurrentIdentity, (who) => who.principal)
const readsDatabase = Effect.flatMap(Database, ({ one }) => one > 1 ? Effect.fail(new Boom({})) : Effect.succeed(one))

const AllButCache = Layer.mergeAll(
  ObserveMiddleware.layerPassthrough,
  AuthMiddleware.layerPassthrough,
  RateLimitMiddleware.layerPassthrough,
  ResilienceMiddleware.layerPassthrough
)

describe("types of ToolPipeline", () => {
  it("adds the errors of the five stages to the handler's, and nothing else", () => {
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      const call = pipeline.run({ tool: own }, readsDatabase)
      expectTypeOf<ErrorOf<typeof call>>().toEqualTypeOf<
        Boom | AuthError.AuthError | RateLimitError.RateLimitError | ResilienceError.ResilienceError
      >()
      expectTypeOf<NeedsOf<typeof call>>().toEqualTypeOf<Database>()
    })
  })

  it("adds exactly the errors of the stages in a tuple", () => {
    Effect.gen(function*() {
      const auth = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware, AuthMiddleware.AuthMiddleware)
      const authorized = auth.run({ tool: own }, readsDatabase)
      expectTypeOf<ErrorOf<typeof authorized>>().toEqualTypeOf<Boom | AuthError.AuthError>()

      const mixed = yield* ToolPipeline.make(Own, ResilienceMiddleware.ResilienceMiddleware)
      const guarded = mixed.wrap(own, (input: number) => Effect.succeed(input))
      expectTypeOf<ErrorOf<ReturnType<typeof guarded>>>().toEqualTypeOf<"own error" | ResilienceError.ResilienceError>()

      const none = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware, CacheMiddleware.CacheMiddleware)
      const plain = none.run({ tool: own }, Effect.void)
      expectTypeOf<ErrorOf<typeof plain>>().toEqualTypeOf<never>()
    })
  })

  it("needs the tags of the tuple", () => {
    const layer = ToolPipeline.layerOf(Own, CacheMiddleware.CacheMiddleware)
    expectTypeOf(layer).toEqualTypeOf<
      Layer.Layer<ToolPipeline.ToolPipeline<"own error", never>, never, Own | CacheMiddleware.CacheMiddleware>
    >()
  })

  it("does not run while a stage is missing", () => {
    const program = Effect.flatMap(
      ToolPipeline.ToolPipeline,
      (pipeline) => pipeline.run({ tool: own }, Effect.void)
    )
    const lacking = Effect.provide(program, Layer.provide(ToolPipeline.layer, AllButCache))
    expectTypeOf<NeedsOf<typeof lacking>>().toEqualTypeOf<CacheMiddleware.CacheMiddleware>()
    // @ts-expect-error: the cache stage is neither there nor left out in so many words
    const run = () => Effect.runPromise(lacking)
    const whole = Effect.provide(
      program,
      Layer.provide(ToolPipeline.layer, Layer.merge(AllButCache, CacheMiddleware.layerPassthrough))
    )
    const runs = () => Effect.runPromise(whole)
    expectTypeOf(run).not.toBeNever()
    expectTypeOf(runs).not.toBeNever()
  })

  it("takes a pipeline with fewer errors where one with more is asked for, and not the other way round", () => {
    const asksForAll = ToolPipeline.ToolPipeline
    const few = ToolPipeline.layerOf(AuthMiddleware.AuthMiddleware)
    const provided = Effect.provide(asksForAll, few)
    expectTypeOf<NeedsOf<typeof provided>>().toEqualTypeOf<AuthMiddleware.AuthMiddleware>()

    const asksForFew = ToolPipeline.of<AuthError.AuthError, Identity.CurrentIdentity>()
    const tooMany = Effect.provide(asksForFew, ToolPipeline.layer)
    expectTypeOf<NeedsOf<typeof tooMany>>().not.toEqualTypeOf<
      | ObserveMiddleware.ObserveMiddleware
      | AuthMiddleware.AuthMiddleware
      | RateLimitMiddleware.RateLimitMiddleware
      | CacheMiddleware.CacheMiddleware
      | ResilienceMiddleware.ResilienceMiddleware
    >()

    const withoutAuth = Effect.provide(asksForAll, ToolPipeline.layerOf(Own))
    // A pipeline that provides no caller does not stand in for one that does.
    expectTypeOf<NeedsOf<typeof withoutAuth>>().not.toEqualTypeOf<Own>()
  })

  it("gives the caller to handlers, so that nobody else has to", () => {
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      const mine = pipeline.run({ tool: own }, whoami)
      const tenant = pipeline.run({ tool: tenants }, whoami)
      const wrapped = pipeline.wrap(own, () => Effect.zip(whoami, readsDatabase))
      expectTypeOf<NeedsOf<typeof mine>>().toEqualTypeOf<never>()
      expectTypeOf<NeedsOf<typeof tenant>>().toEqualTypeOf<never>()
      expectTypeOf<NeedsOf<ReturnType<typeof wrapped>>>().toEqualTypeOf<Database>()
    })
  })

  it("leaves the need for the caller where no stage meets it", () => {
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.make(Own)
      const call = pipeline.run({ tool: own }, whoami)
      expectTypeOf<NeedsOf<typeof call>>().toEqualTypeOf<Identity.CurrentIdentity>()
    })
  })

  it("refuses a handler that looks at the caller when the answer is for everyone", () => {
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      // @ts-expect-error: the answer of one caller would be given to others
      yield* pipeline.run({ tool: shared }, whoami)
      // @ts-expect-error: however deep it is buried
      yield* pipeline.run({ tool: shared }, Effect.zip(readsDatabase, whoami))
      // @ts-expect-error: also for a handler that is wrapped
      pipeline.wrap(shared, () => whoami)
      yield* pipeline.run({ tool: shared }, readsDatabase)
      pipeline.wrap(shared, () => readsDatabase)
    })
  })

  it("takes the handler's input from the tool's Schema", () => {
    Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.ToolPipeline
      const dated = ToolMeta.make({ name: "dated", input: Schema.Struct({ at: Schema.DateFromString }) })
      const guarded = pipeline.wrap(dated, (input) => Effect.succeed(input.at.getTime()))
      expectTypeOf(guarded).parameter(0).toEqualTypeOf<{ readonly at: Date }>()
      // @ts-expect-error: not what the Schema says
      guarded({ at: "today" })
      yield* pipeline.run({ tool: dated, input: { at: new Date(0) } }, Effect.void)
      // @ts-expect-error: not what the Schema says
      yield* pipeline.run({ tool: dated, input: { at: "today" } }, Effect.void)
      // @ts-expect-error: every call would be the same to the cache
      yield* pipeline.run({ tool: dated }, Effect.void)
      yield* pipeline.run({ tool: own }, Effect.void)
    })
  })
})
