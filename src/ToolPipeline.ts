/**
 * Every tool call passes the pipeline: observe -> auth -> limit -> cache -> resilience -> handler.
 *
 * As a formula, outermost first:
 * `Observe(Auth(Limit(Cache(Bulkhead(Breaker(Retry(Timeout(Execution(handler)))))))))`.
 *
 * A pipeline is a list of stages, compiled once per tool. It decides nothing itself: what a stage does is in the stage's
 * own module, and this is the only module that knows all five.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { AuthError } from "./auth/AuthError.ts"
import { AuthMiddleware } from "./auth/AuthMiddleware.ts"
import { CurrentIdentity } from "./auth/Identity.ts"
import { CacheMiddleware } from "./cache/CacheMiddleware.ts"
import * as Drain from "./health/DrainMiddleware.ts"
import type { RateLimitError } from "./limit/RateLimitError.ts"
import { RateLimitMiddleware } from "./limit/RateLimitMiddleware.ts"
import { ObserveMiddleware } from "./observe/ObserveMiddleware.ts"
import type { ResilienceError } from "./resilience/ResilienceError.ts"
import { ResilienceMiddleware } from "./resilience/ResilienceMiddleware.ts"
import * as ToolCall from "./ToolCall.ts"
import { isToolMeta, type ToolMeta, type Varies } from "./ToolMeta.ts"
import * as ToolMiddleware from "./ToolMiddleware.ts"

/**
 * What the five stages may refuse a call with.
 *
 * @category errors
 * @since 0.1.0
 */
export type PipelineError = AuthError | RateLimitError | ResilienceError

/**
 * What a handler must not need when `varies` says that its answer is for everyone: the answer of one caller would be
 * given to the others. Evaluates to a type that nothing has, named after the mistake.
 *
 * **Gotchas**
 *
 * The compiler sees it where the tool's type says `everyone`. Where it does not (a nested call, a tool in a list), the
 * handler of such a tool runs without `CurrentIdentity` and without the request's headers, and a tool that it calls finds
 * no caller.
 *
 * @category utility types
 * @since 0.1.0
 */
export type HandlerRule<V extends Varies, R> = [V] extends ["everyone"]
  ? [Extract<R, CurrentIdentity>] extends [never] ? unknown
  : { readonly "~effect-toolops/error": "a tool that varies by everyone must not look at CurrentIdentity" }
  : unknown

/**
 * A compiled list of stages. `E` is what they may refuse with, `Provides` what they give to handlers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pipeline<out E, Provides = never> {
  /** The names of the stages, outermost first. */
  readonly stages: ReadonlyArray<string>

  /** Runs `handler` as the answer to `call`. The handler may be started more than once, or not at all. */
  readonly run: <A, E1, R, const V extends Varies = Varies, Input = any>(
    call: ToolCall.ToolCall<V> | ToolCall.Options<V, Input>,
    handler: Effect.Effect<A, E1, R> & HandlerRule<V, R>
  ) => Effect.Effect<A, E | E1, Exclude<R, Provides>>

  /**
   * Turns a handler into a function that is guarded by the pipeline. Everything that depends on the tool alone is done
   * here, so keep the function. A policy that makes no sense throws here.
   */
  readonly wrap: <Input, A, E1, R, const V extends Varies = Varies>(
    tool: ToolMeta<Input, V>,
    handler: ((input: Input, call: ToolCall.ToolCall) => Effect.Effect<A, E1, R>) & HandlerRule<V, R>
  ) => (input: Input, options?: ToolCall.CallOptions) => Effect.Effect<A, E | E1, Exclude<R, Provides>>

  /** What each stage would do with `call`, outermost first. The handler is not needed and nothing is spent. */
  readonly explain: (call: ToolCall.ToolCall | ToolCall.Options) => Effect.Effect<ReadonlyArray<StagePlan>>
}

/**
 * One line of a plan.
 *
 * @category models
 * @since 0.1.0
 */
export interface StagePlan extends ToolMiddleware.Explanation {
  readonly stage: string
}

/**
 * The need for a pipeline that refuses with nothing but `E` and provides `Provides`. It is met by any pipeline that
 * refuses with less or provides more.
 *
 * @category models
 * @since 0.1.0
 */
export interface ToolPipeline<in E = PipelineError, out Provides = CurrentIdentity> {
  readonly "~effect-toolops/ToolPipeline": { readonly accepts: (error: E) => void; readonly provides: () => Provides }
}

/**
 * The pipeline of a program.
 *
 * **Example** (Guarding a handler)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { ToolMeta, ToolPipeline } from "effect-toolops"
 * import { AuthMiddleware } from "effect-toolops/auth"
 * import { CacheMiddleware } from "effect-toolops/cache"
 * import { RateLimitMiddleware } from "effect-toolops/limit"
 * import { ObserveMiddleware } from "effect-toolops/observe"
 * import { ResilienceMiddleware } from "effect-toolops/resilience"
 *
 * const echo = ToolMeta.make({ name: "echo", readOnly: true })
 *
 * const program = Effect.gen(function*() {
 *   const pipeline = yield* ToolPipeline.ToolPipeline
 *   return yield* pipeline.run({ tool: echo, input: "hi" }, Effect.succeed("hi"))
 * })
 *
 * const Live = ToolPipeline.layer.pipe(Layer.provide([
 *   ObserveMiddleware.layerPassthrough,
 *   AuthMiddleware.layerPassthrough,
 *   RateLimitMiddleware.layerPassthrough,
 *   CacheMiddleware.layerPassthrough,
 *   ResilienceMiddleware.layer()
 * ]))
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Live))) // => "hi"
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export const ToolPipeline: Context.Service<ToolPipeline, Pipeline<PipelineError, CurrentIdentity>> = Context.Service(
  "effect-toolops/ToolPipeline"
)

/**
 * The same service under a narrower type, for a pipeline made by `layerOf`: its errors are those of its stages.
 *
 * @category services
 * @since 0.1.0
 */
export const of = <E, Provides = never>(): Context.Service<ToolPipeline<E, Provides>, Pipeline<E, Provides>> =>
  Context.Service("effect-toolops/ToolPipeline")

/** The tag of a stage. */
type StageTag = Context.Key<any, ToolMiddleware.ToolMiddleware<any, any>>

/**
 * What the stages of a tuple may refuse with.
 *
 * @category utility types
 * @since 0.1.0
 */
export type ErrorOf<Stages extends ReadonlyArray<StageTag>> = Stages[number] extends infer Tag
  ? Tag extends Context.Key<any, ToolMiddleware.ToolMiddleware<infer E, any>> ? E : never
  : never

/**
 * What the stages of a tuple give to handlers.
 *
 * @category utility types
 * @since 0.1.0
 */
export type ProvidesOf<Stages extends ReadonlyArray<StageTag>> = Stages[number] extends infer Tag
  ? Tag extends Context.Key<any, ToolMiddleware.ToolMiddleware<any, infer Provides>> ? Provides : never
  : never

type RequirementOf<Stages extends ReadonlyArray<StageTag>> = Context.Service.Identifier<Stages[number]>

/** What the stages made of one tool. `A`, `E` and `R` of a call pass through it unchanged, which no type can say here. */
interface Path {
  readonly run: (
    call: ToolCall.ToolCall,
    handler: (call: ToolCall.ToolCall) => Effect.Effect<any, any, any>
  ) => Effect.Effect<any, any, any>
  /** What a stage threw when it was asked about the tool. */
  readonly problem: { readonly thrown: unknown } | undefined
}

// The answer of a tool for everyone goes to everyone, so neither its handler nor a tool that it calls may know the
// caller, however the compiler was got round.
const forgetCaller = (context: Context.Context<any>): Context.Context<any> =>
  Context.add(Context.omit(CurrentIdentity)(context), ToolCall.RequestHeaders, undefined)

const compile = (stages: ReadonlyArray<ToolMiddleware.ToolMiddleware<any, any>>, tool: ToolMeta): Path => {
  // Innermost first, the order in which effects are put around each other.
  const around: Array<ToolMiddleware.AroundAgain<any>> = []
  const repeats: Array<boolean> = []
  let problem: { readonly thrown: unknown } | undefined = undefined
  const add = (seatOf: (tool: ToolMeta) => ToolMiddleware.Around<any>): void => {
    try {
      const seat = seatOf(tool)
      if (ToolMiddleware.isPassthrough(seat)) return
      around.push(seat)
      repeats.push(ToolMiddleware.asksForAgain(seat))
    } catch (thrown) {
      // In its place, so that the stages further out see and record what every call of the tool comes to.
      problem ??= { thrown }
      around.push(() => Effect.die(thrown))
      repeats.push(false)
    }
  }
  for (const stage of stages.toReversed()) if (stage.forExecution !== undefined) add(stage.forExecution)
  for (const stage of stages.toReversed()) add(stage.forTool)
  const isForEveryone = tool.varies === "everyone"
  const build = (
    call: ToolCall.ToolCall,
    handler: (call: ToolCall.ToolCall) => Effect.Effect<any, any, any>,
    seats: number
  ): Effect.Effect<any, any, any> => {
    let path: Effect.Effect<any, any, any> = Effect.suspend(() => {
      call.record.attempts += 1
      return isForEveryone
        ? Effect.updateContext(Effect.suspend(() => handler(ToolCall.withoutCaller(call))), forgetCaller)
        : handler(call)
    })
    for (let i = 0; i < seats; i++) {
      try {
        path = repeats[i]!
          ? around[i]!(call, path, (other) => build(other, handler, i))
          : around[i]!(call, path)
      } catch (thrown) {
        path = Effect.die(thrown)
      }
    }
    return path
  }
  return { run: (call, handler) => build(call, handler, around.length), problem }
}

const fromStages = <E, Provides>(
  stages: ReadonlyArray<ToolMiddleware.ToolMiddleware<E, any>>
): Pipeline<E, Provides> => {
  // Weak, so that tools made on the fly are forgotten with their last call.
  const paths = new WeakMap<ToolMeta, Path>()
  const pathOf = (tool: ToolMeta): Path => {
    let path = paths.get(tool)
    if (path === undefined) {
      if (!isToolMeta(tool)) throw new TypeError("ToolPipeline: a tool must be made by ToolMeta.make")
      path = compile(stages, tool)
      paths.set(tool, path)
    }
    return path
  }
  return {
    stages: stages.map((stage) => stage.name),
    run: (call, handler) =>
      Effect.suspend(() => {
        const current = ToolCall.restart(call)
        return pathOf(current.tool).run(current, () => handler)
      }),
    wrap: (tool, handler) => {
      const path = pathOf(tool)
      if (path.problem !== undefined) throw path.problem.thrown
      return (input, options) =>
        Effect.suspend(() => path.run(ToolCall.start(tool, input, options), (call) => handler(input, call)))
    },
    explain: (call) =>
      Effect.suspend(() => {
        const current = ToolCall.restart(call)
        // In order: what a stage finds out about the caller is what the ones after it go by.
        return Effect.forEach(stages, (stage) =>
          stage.explain === undefined
            ? Effect.succeed<StagePlan>({ stage: stage.name, verdict: "pass", detail: {} })
            : Effect.map(stage.explain(current.tool)(current), (plan): StagePlan => ({ stage: stage.name, ...plan })))
      })
  }
}

/**
 * Makes a pipeline of the given stages, outermost first. Use it where the exact error type matters and no service is
 * needed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Stages extends ReadonlyArray<StageTag>>(
  ...stages: Stages
): Effect.Effect<Pipeline<ErrorOf<Stages>, ProvidesOf<Stages>>, never, RequirementOf<Stages>> =>
  Effect.map(
    Effect.context<RequirementOf<Stages>>(),
    (context) => fromStages(stages.map((stage) => Context.getUnsafe(context, stage)))
  )

/**
 * Provides a pipeline of your own stages, outermost first.
 *
 * **Details**
 *
 * Errors and requirements are those of the tuple. A program that asks for `ToolPipeline.ToolPipeline` takes it as long
 * as it has an auth stage; `ToolPipeline.of<E, Provides>()` asks for exactly what the tuple has.
 *
 * **Gotchas**
 *
 * There is one pipeline in a context: of two layers that are merged the later one stands, whatever the types of both say.
 * For a second pipeline beside it use `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerOf = <const Stages extends ReadonlyArray<StageTag>>(
  ...stages: Stages
): Layer.Layer<ToolPipeline<ErrorOf<Stages>, ProvidesOf<Stages>>, never, RequirementOf<Stages>> =>
  Layer.effect(of<ErrorOf<Stages>, ProvidesOf<Stages>>(), make(...stages))

/**
 * Provides the pipeline of the five stages. A stage that is missing is a compile error where the layer is provided; each
 * stage's `layerPassthrough` leaves it out in so many words.
 *
 * **Details**
 *
 * Where a `HealthRegistry` is in the layer's context, `DrainMiddleware` stands between observe and auth: while the program
 * shuts down, new calls are refused with the `ResilienceError` reason `Draining`, and recorded like any other refusal.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<
  ToolPipeline,
  never,
  ObserveMiddleware | AuthMiddleware | RateLimitMiddleware | CacheMiddleware | ResilienceMiddleware
> = Layer.effect(
  of<PipelineError, CurrentIdentity>(),
  Effect.flatMap(Drain.present, (drain) =>
    drain === undefined
      ? make(ObserveMiddleware, AuthMiddleware, RateLimitMiddleware, CacheMiddleware, ResilienceMiddleware)
      : Effect.provideService(
        make(
          ObserveMiddleware,
          Drain.DrainMiddleware,
          AuthMiddleware,
          RateLimitMiddleware,
          CacheMiddleware,
          ResilienceMiddleware
        ),
        Drain.DrainMiddleware,
        drain
      ))
)
