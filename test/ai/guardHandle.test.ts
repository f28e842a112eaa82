import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Schema, Stream } from "effect"
import { ToolkitOps } from "effect-toolops/ai"
import { AiError, Prompt, Tool, Toolkit } from "effect/ai"
import { pipeline } from "./mcp.ts"

class Broken extends Schema.TaggedError<Broken>("test/guardHandle/Broken")("Broken", { part: Schema.String }) {}

const Shout = (failureMode: "error" | "return") =>
  Tool.make("shout", {
    parameters: Schema.Struct({ text: Schema.String, at: Schema.optionalKey(Schema.FiniteFromString) }),
    success: Schema.Struct({ text: Schema.String, date: Schema.optionalKey(Schema.Date) }),
    failure: Broken,
    failureMode,
    toModelOutput: ({ text }) => [Prompt.makePart("text", { text })]
  })

type Handler = (
  params: { readonly text: string },
  context: Toolkit.HandlerContext<ReturnType<typeof Shout>>
) => Effect.Effect<{ readonly text: string; readonly date?: Date }, any>

const rateLimited = new AiError.RateLimitError({})
const answer = ({ text }: { readonly text: string }) => ({ text: text.toUpperCase(), date: new Date(0) })

const handlers: { readonly [what: string]: Handler } = {
  "an answer": (params) => Effect.succeed(answer(params)),
  "an answer that takes its time": (params) => Effect.delay(Effect.sync(() => answer(params)), "2 millis"),
  "preliminary results": (params, { preliminary }) =>
    Effect.andThen(preliminary({ text: "1" }), Effect.as(preliminary({ text: "2" }), answer(params))),
  "preliminary results that take their time": (params, { preliminary }) =>
    Effect.gen(function*() {
      yield* preliminary({ text: "1" })
      yield* Effect.sleep("2 millis")
      yield* preliminary({ text: "2" })
      yield* preliminary({ text: "3" })
      yield* Effect.sleep("2 millis")
      return answer(params)
    }),
  "a preliminary result that does not fit": (params, { preliminary }) =>
    Effect.as(preliminary({ text: 1 } as never), answer(params)),
  "the id of the call": (_, { toolCallId }) => Effect.succeed({ text: String(toolCallId) }),
  "a failure": () => Effect.fail(new Broken({ part: "wheel" })),
  "a failure that takes its time": (_, { preliminary }) =>
    preliminary({ text: "1" }).pipe(
      Effect.andThen(Effect.sleep("2 millis")),
      Effect.andThen(Effect.fail(new Broken({ part: "wheel" })))
    ),
  "a failure that is not declared": () => Effect.fail("no"),
  "a failure of the model's": () => Effect.fail(rateLimited),
  "a failure of a Schema": () => Schema.decodeUnknownEffect(Schema.Struct({ text: Schema.String }))(1),
  "two failures": () => Effect.failCause(Cause.combine(Cause.fail(new Broken({ part: "a" })), Cause.fail("b"))),
  "a failure and a defect": () =>
    Effect.failCause(Cause.combine(Cause.fail(new Broken({ part: "a" })), Cause.die("b"))),
  "a failure and an interruption": () =>
    Effect.failCause(Cause.combine(Cause.fail(new Broken({ part: "a" })), Cause.interrupt())),
  "a defect and an interruption": () => Effect.failCause(Cause.combine(Cause.die("b"), Cause.interrupt())),
  "a defect": () => Effect.die("bug"),
  "an exception": () => {
    throw new Error("bug")
  },
  "an interruption": () => Effect.interrupt,
  "a result that does not fit": () => Effect.succeed({ text: 1 } as never)
}

const requests: { readonly [what: string]: readonly [params: unknown, options?: object] } = {
  "": [{ text: "a" }],
  " for parameters that are decoded": [{ text: "a", at: "12" }],
  " for parameters that do not fit": [{ text: 1 }],
  " for parameters with one too many, where that counts": [{ text: "a", b: 1 }, { onExcessProperty: "error" }]
}

const told = (error: unknown): unknown =>
  error instanceof AiError.AiError
    ? { ...error.reason, cause: undefined, is: error.reason._tag, method: error.method, module: error.module }
    : error instanceof Error
    ? `${error.name}: ${error.message}`
    : error

const observe = (
  toolkit: Toolkit.Toolkit<{ readonly shout: any }>,
  failureMode: "error" | "return",
  [params, options]: readonly [unknown, object?]
) =>
  Effect.gen(function*() {
    const { handle } = yield* toolkit
    const results: Array<unknown> = []
    const exit = yield* Effect.exit(
      Effect.flatMap(
        handle("shout", params as never, "call-1", options),
        Stream.runForEach((result) =>
          Effect.sync(() => {
            const { encodedResult, result: value, ...rest } = result as unknown as Tool.HandlerResult<Tool.Any>
            results.push({ ...rest, value: told(value), encoded: JSON.stringify(encodedResult) })
          })
        )
      )
    )
    const reasons = Exit.isSuccess(exit) ? [] : exit.cause.reasons.map((reason) =>
      Cause.isFailReason(reason)
        ? { error: told(reason.error), origin: Context.get(Cause.reasonAnnotations(reason), Toolkit.FailureOrigin) }
        : Cause.isDieReason(reason)
        ? { defect: String(reason.defect) }
        : "interrupt"
    )
    return { failureMode, results, reasons }
  })

describe("handle of a guarded toolkit", () => {
  for (const [what, handler] of Object.entries(handlers)) {
    it.live(`gives ${what} as that of the toolkit does`, () =>
      Effect.gen(function*() {
        for (const mode of ["error", "return"] as const) {
          for (const request of Object.values(requests)) {
            const guarded = ToolkitOps.guard(Toolkit.make(Shout(mode)))
            const bare = Toolkit.make(guarded.tools.shout)
            const expected = yield* Effect.provide(
              observe(bare, mode, request),
              bare.toLayer({ shout: handler as never })
            )
            const actual = yield* observe(guarded as never, mode, request).pipe(
              Effect.provide(ToolkitOps.layer(guarded, { shout: handler as never })),
              Effect.provide(pipeline())
            )
            assert.deepStrictEqual(actual, expected)
            assert.isAbove(actual.results.length + actual.reasons.length, 0)
          }
        }
      }) as Effect.Effect<void>)
  }

  it.live("hands out preliminary results before the last, and keeps to a buffer that is bounded", () =>
    Effect.gen(function*() {
      for (const capacity of ["unbounded", 1] as const) {
        const seen: Array<string> = []
        const go = yield* Deferred.make<void>()
        const Tools = ToolkitOps.guard(Toolkit.make(Shout("error")))
        const handler: Handler = (params, { preliminary }) =>
          Effect.gen(function*() {
            yield* preliminary({ text: "early" })
            yield* Deferred.await(go)
            return answer(params)
          })
        yield* Effect.gen(function*() {
          const { handle } = yield* Tools
          yield* Stream.runForEach(yield* handle("shout", { text: "late" }), (result) => {
            seen.push((result.result as { readonly text: string }).text)
            return Deferred.succeed(go, undefined)
          })
        }).pipe(
          Effect.provideService(Toolkit.PreliminaryBuffer, capacity),
          Effect.provide(ToolkitOps.layer(Tools, { shout: handler as never })),
          Effect.provide(pipeline())
        )
        assert.deepStrictEqual(seen, ["early", "LATE"])
      }
    }))

  it.live("ends a handler whose results nobody reads any more", () =>
    Effect.gen(function*() {
      for (const end of ["interrupts", "has enough"] as const) {
        const ended = yield* Deferred.make<void>()
        const began = yield* Deferred.make<void>()
        const Tools = ToolkitOps.guard(Toolkit.make(Shout("error")))
        const handler: Handler = (_, { preliminary }) =>
          Effect.andThen(preliminary({ text: "1" }), Deferred.succeed(began, undefined)).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(ended, undefined))
          )
        yield* Effect.gen(function*() {
          const { handle } = yield* Tools
          const results = Stream.unwrap(handle("shout", { text: "a" }))
          if (end === "has enough") {
            yield* Stream.runDrain(Stream.take(results, 1))
          } else {
            const reader = yield* Effect.forkChild(Stream.runDrain(results))
            yield* Deferred.await(began)
            yield* Fiber.interrupt(reader)
          }
          yield* Effect.timeout(Deferred.await(ended), "5 seconds")
        }).pipe(
          Effect.provide(ToolkitOps.layer(Tools, { shout: handler as never })),
          Effect.provide(pipeline())
        )
      }
    }))
})
