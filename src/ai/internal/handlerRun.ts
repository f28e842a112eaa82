import * as AiError from "effect/ai/AiError"
import * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as Stream from "effect/Stream"
import * as ToolRefusal from "../ToolRefusal.ts"

// What `Toolkit.handle` of `effect/ai` does with parameters that fit, without the queue and the five streams around it that
// it takes to get one result out of a handler: they cost several times what the pipeline does.

type Result = Tool.HandlerResult<Tool.Any>
type Results = Stream.Stream<Result, unknown, unknown>

/** What depends on a tool and its handler alone. */
export interface Prepared {
  readonly decode: (params: unknown, options?: SchemaAST.ParseOptions) => Effect.Effect<unknown, unknown, unknown>
  readonly start: (
    params: unknown,
    callId: string | undefined
  ) => Effect.Effect<Results, never, unknown>
}

export const prepare = (
  tool: Tool.Any,
  run: (params: unknown, context: Toolkit.HandlerContext<any>) => Effect.Effect<unknown, unknown, unknown>,
  services: Context.Context<never>
): Prepared => {
  const answer = answerOf(tool)
  const fill = withServices(services)
  return {
    decode: Schema.isSchema(tool.parametersSchema)
      ? Schema.decodeUnknownEffect(tool.parametersSchema as Schema.Codec<unknown, unknown, unknown>)
      : Effect.succeed,
    // On a turn of its own, as `Toolkit.handle` does it: a server that answers in the turn in which it has read a request
    // reads, writes and wakes its client once for each, where it could do so for all that have arrived.
    start: (params, callId) =>
      Effect.suspend(() => {
        const outlet = new Outlet(answer)
        const context: Toolkit.HandlerContext<any> = {
          toolCallId: callId,
          preliminary: (result) => Effect.sync(() => outlet.offer(result))
        }
        return Effect.flatMap(Effect.yieldNow, () =>
          Effect.map(
            Effect.forkChild(
              Effect.onExitPrimitive(Effect.updateContext(run(params, context), fill), outlet.end),
              { startImmediately: true }
            ),
            (child) => outlet.read(child)
          ))
      })
  }
}

// The services that the handler's layer had, where the caller has none of that name.
const withServices = (services: Context.Context<never>) => {
  const keys = [...services.mapUnsafe.keys()]
  return <R>(context: Context.Context<R>): Context.Context<R> => {
    const present = context.mapUnsafe
    for (let i = 0; i < keys.length; i++) {
      if (!present.has(keys[i]!)) return Context.merge(services, context)
    }
    return context
  }
}

/** Hands out what a handler gives: what it has so far, then what it ends with. */
class Outlet {
  readonly #answer: Answer
  // What has been offered, and what of it is being handed out: an array that items are taken off costs more the longer it is.
  #offered: Array<unknown> = []
  #taken: ReadonlyArray<unknown> = []
  #at = 0
  #exit: Exit.Exit<unknown, unknown> | undefined
  #isRead = false
  #wake: (() => void) | undefined

  constructor(answer: Answer) {
    this.#answer = answer
  }

  /** Takes a preliminary result. Nothing may follow the last result, whoever still holds what reports. */
  offer(result: unknown): void {
    if (this.#exit !== undefined) return
    this.#offered.push(result)
    this.#wake?.()
  }

  /** What the handler has ended with, the first time that it is said. */
  readonly end = (exit: Exit.Exit<unknown, unknown>): undefined => {
    if (this.#exit !== undefined) return
    this.#exit = exit
    this.#wake?.()
  }

  read(child: Fiber.Fiber<unknown, unknown>): Results {
    const results = Stream.fromPull(Effect.succeed(this.#pull))
    const exit = child.pollUnsafe()
    if (exit === undefined) {
      // A fiber that is interrupted before its first operation ends without the handler.
      child.addObserver(this.end)
      return Stream.ensuring(results, Fiber.interrupt(child))
    }
    this.end(exit)
    return results
  }

  readonly #pull: Effect.Effect<readonly [Result, ...Array<Result>], unknown, unknown> = Effect.suspend(() => {
    if (this.#at === this.#taken.length) {
      this.#taken = this.#offered
      this.#offered = []
      this.#at = 0
    }
    if (this.#at < this.#taken.length) {
      return Effect.mapEager(this.#answer.preliminary(this.#taken[this.#at++]), (result) => [result] as const)
    }
    if (this.#exit === undefined) return Effect.andThen(this.#change, this.#pull)
    if (this.#isRead) return Cause.done()
    this.#isRead = true
    return Effect.mapEager(this.#answer.last(this.#exit), (result) => [result] as const)
  })

  readonly #change: Effect.Effect<void> = Effect.callback((resume) => {
    // The fiber may have let others run since it has looked.
    if (this.#exit !== undefined || this.#offered.length > 0) return resume(Effect.void)
    this.#wake = () => resume(Effect.void)
    return Effect.sync(() => {
      this.#wake = undefined
    })
  })
}

interface Answer {
  readonly preliminary: (value: unknown) => Effect.Effect<Result, unknown, unknown>
  readonly last: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<Result, unknown, unknown>
}

type Encode = (value: unknown) => Effect.Effect<unknown, Schema.SchemaError, unknown>

/** The results of a tool, as its Schemas and its failure mode want them. */
const answerOf = (tool: Tool.Any): Answer => {
  const encodeSuccess = Schema.encodeUnknownEffect(
    tool.successSchema as Schema.Codec<any, any, unknown, unknown>
  ) as Encode
  const encodeFailure = Schema.encodeUnknownEffect(
    Tool.failureResultSchema(tool) as Schema.Codec<any, any, unknown, unknown>
  ) as Encode
  const aiError = (reason: AiError.AiErrorReason): AiError.AiError =>
    AiError.make({ module: "Toolkit", method: `${tool.name}.handle`, reason })
  const encoded = (result: any, encode: Encode): Effect.Effect<unknown, AiError.AiError, unknown> =>
    Effect.mapErrorEager(encode(result), ({ message }) =>
      aiError(
        new AiError.ToolResultEncodingError({ toolName: tool.name, toolResult: result, description: message })
      ))
  const told = (error: unknown): unknown =>
    Schema.isSchemaError(error)
      ? aiError(
        new AiError.InvalidToolResultError({
          toolName: tool.name,
          description: `Tool handler returned invalid result: ${error.message}`
        })
      )
      : AiError.isAiErrorReason(error)
      ? aiError(error)
      : error

  const succeeded = (value: any, preliminary: boolean): Effect.Effect<Result, unknown, unknown> =>
    Effect.mapEager(encoded(value, encodeSuccess), (encodedResult) => {
      const result: Result = { result: value, isFailure: false, preliminary, encodedResult }
      return preliminary || tool.toModelOutput === undefined
        ? result
        : { ...result, modelOutput: tool.toModelOutput(value) }
    })
  const failed = (error: unknown): Effect.Effect<Result, unknown, unknown> => {
    const result: any = told(error)
    return Effect.map(
      encoded(result, encodeFailure),
      (encodedResult) => ({
        result,
        isFailure: true,
        failureOrigin: originOf(error),
        preliminary: false,
        encodedResult
      })
    )
  }

  const onFailure: (cause: Cause.Cause<unknown>) => Effect.Effect<Result, unknown, unknown> =
    tool.failureMode === "return"
      ? (cause) => {
        const reason = cause.reasons.find(Cause.isFailReason)
        if (reason === undefined) return Effect.failCause(cause)
        // Beside a defect a failure is no answer, but one more defect.
        return Cause.hasDies(cause) ? Effect.orDie(Effect.failCause(cause)) : failed(reason.error)
      }
      : (cause) => {
        const [reason] = cause.reasons
        // Only a refusal alone is an answer.
        if (
          cause.reasons.length === 1 && Cause.isFailReason(reason) && reason.error instanceof ToolRefusal.ToolRefusal
        ) return Effect.succeed(refusalResult(reason.error))
        // Callers are told where the failure is from.
        return Effect.failCause(Cause.map(
          Cause.fromReasons(cause.reasons.map((reason) =>
            Cause.isFailReason(reason)
              ? reason.annotate(Context.make(Toolkit.FailureOrigin, originOf(reason.error)), { overwrite: true })
              : reason
          )),
          told
        ))
      }
  return {
    preliminary: (value) => succeeded(value, true),
    last: (exit) => exit._tag === "Success" ? succeeded(exit.value, false) : onFailure(exit.cause)
  }
}

const originOf = (error: unknown): Tool.FailureOrigin => Schema.isSchemaError(error) ? "result" : "handler"

export const refusalResult = <T extends Tool.Any>(refusal: ToolRefusal.ToolRefusal): Tool.HandlerResult<T> => ({
  // `guard` has declared the refusal as a failure of the tool, so it is one of its results.
  result: refusal as Tool.Result<T>,
  encodedResult: { ...refusal },
  isFailure: true,
  failureOrigin: "handler",
  preliminary: false
})
