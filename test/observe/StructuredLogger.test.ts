import { assert, describe, it, vi } from "@effect/vitest"
import { Cause, Effect, Layer, Logger, Tracer } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { CallLine, CurrentCall, ObserveMiddleware, Redaction, StructuredLogger } from "effect-toolops/observe"
import { TestClock, TestConsole } from "effect/testing"
import { spawn } from "node:child_process"
import { EventEmitter, once } from "node:events"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { fromSource } from "../support/workers.ts"

const collecting = (options?: StructuredLogger.Options) => {
  const lines: Array<string> = []
  const layer = StructuredLogger.layer({ ...options, write: (line) => lines.push(line) })
  return { layer, lines, parsed: () => lines.map((line) => JSON.parse(line)) }
}

/** A redaction that changes nothing, to see what the logger itself does. */
const none: Redaction.Redaction = { isSensitiveKey: () => false, text: (text) => text, value: (value) => value }

// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const raw = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/

/** A program that logs to a standard error that its parent closes, or reads when the program says how much it holds. */
const logging = async (mode: "closed" | "late") => {
  const child = spawn(process.execPath, [...fromSource, join(import.meta.dirname, "stderrChild.ts"), mode], {
    stdio: ["ignore", "pipe", "pipe"]
  })
  let stderr = Promise.resolve("")
  if (mode === "closed") child.stderr.destroy()
  else child.stdout.once("data", () => stderr = text(child.stderr))
  try {
    const stdout = text(child.stdout)
    const [code] = await once(child, "close")
    return { code, stdout: await stdout, stderr: await stderr }
  } finally {
    child.kill("SIGKILL")
  }
}

const random = (seed: number) => () => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return seed / 2 ** 32
}

/** Texts of what terminals, log readers and JSON act on. */
const hostileTexts = (seed: number): () => string => {
  const next = random(seed)
  const pieces = [
    "\n",
    "\r\n",
    "\u001b[31m",
    "\u009b2J",
    "\u2028",
    "\u2029",
    "\u0000",
    "\u007f",
    "\u0085",
    "\u202e",
    "\ufeff",
    "\ufff9",
    "\"",
    "\\",
    "\\u000a",
    "</script>",
    "\ud800",
    "\udfff",
    "\u{1f600}",
    "é",
    "a",
    "{",
    "}",
    ","
  ]
  return () => {
    let out = ""
    for (let length = 1 + Math.floor(next() * 6); length > 0; length--) {
      out += next() < 0.2
        ? String.fromCharCode(Math.floor(next() * 0xffff))
        : pieces[Math.floor(next() * pieces.length)]
    }
    return out
  }
}

describe("StructuredLogger", () => {
  it.effect("writes one flat JSON object per entry", () => {
    const { layer, parsed } = collecting()
    return Effect.gen(function*() {
      yield* Effect.logWarning("hello", { user: { password: "p" } }, 2).pipe(
        Effect.annotateLogs({ request: "r", token: "t" }),
        Effect.withLogSpan("work")
      )
      yield* Effect.logError(Cause.fail(new Error("postgres://u:p@h")))
      yield* Effect.log({ only: "data" })
      const [first, second, third] = parsed()
      assert.deepStrictEqual(first, {
        time: "1970-01-01T00:00:00.000Z",
        level: "WARN",
        message: "hello",
        data: [{ user: { password: "<redacted>" } }, 2],
        spans: { work: 0 },
        annotations: { request: "r", token: "<redacted>" }
      })
      assert.deepStrictEqual([second.level, second.message], ["ERROR", ""])
      assert.include(second.cause, "postgres://<redacted>@h")
      assert.deepStrictEqual([third.message, third.data], ["", { only: "data" }])
    }).pipe(Effect.provide(layer))
  })

  it.effect("writes a call, and what its handler logs, with the names of tool, call and trace", () => {
    const { layer, parsed } = collecting()
    const search = ToolMeta.make({ namespace: "docs", name: "search" })
    const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })
    return Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware)
      const handler = Effect.andThen(Effect.log("inside"), Effect.fail(new Error("password=hunter2")))
      yield* Effect.exit(pipeline.run({ tool: search, callId: "c1" }, handler))
      const [inside, call] = parsed()
      assert.deepInclude(inside, { message: "inside", tool: "docs:search", callId: "c1" })
      assert.deepInclude(call, {
        level: "ERROR",
        message: "tool call",
        tool: "docs:search",
        callId: "c1",
        outcome: "failed",
        durationMs: 0,
        attempts: 1,
        errorType: "error",
        error: "password=<redacted>"
      })
      assert.strictEqual(inside.traceId, call.traceId)
      assert.match(call.spanId, /^[0-9a-f]{16}$/)
    }).pipe(
      Effect.provide(Layer.mergeAll(layer, ObserveMiddleware.layer(), Layer.succeed(Tracer.Tracer, tracer)))
    )
  })

  it.effect("lets nobody overwrite its own members", () => {
    const { layer, lines, parsed } = collecting()
    const forged = { level: "DEBUG", time: "never", message: "forged", tool: "x", outcome: "ok", traceId: "0" }
    return Effect.gen(function*() {
      yield* Effect.logError("real", forged).pipe(Effect.annotateLogs(forged))
      const [line] = parsed()
      assert.deepStrictEqual([line.level, line.message, line.tool], ["ERROR", "real", undefined])
      assert.strictEqual(lines[0]?.match(/"level":/g)?.length, 3)
      assert.deepStrictEqual(Object.keys(line), ["time", "level", "message", "data", "annotations"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("writes each of 100,000 hostile texts on one line that parses back to the same text", () => {
    const { layer, lines, parsed } = collecting({ redaction: none })
    const text = hostileTexts(7)
    return Effect.gen(function*() {
      // Four texts a line: message, a key and a value of an annotation, data.
      for (let i = 0; i < 25_000; i++) {
        const [message, key, annotation, data] = [text(), text(), text(), text()]
        yield* Effect.log(message, data).pipe(Effect.annotateLogs(key, annotation))
        const line = lines.pop() ?? ""
        if (raw.test(line)) assert.fail(`raw control character in ${JSON.stringify(line)}`)
        const { annotations, ...parsed } = JSON.parse(line)
        if (parsed.message !== message || parsed.data !== data || annotations[key] !== annotation) {
          assert.fail(`${JSON.stringify([message, key, annotation, data])} came back as ${line}`)
        }
      }
      assert.deepStrictEqual(parsed(), [])
    }).pipe(Effect.provide(layer))
  })

  it.effect("does the same with 100,000 texts in what is said of calls and failures", () => {
    const { layer, lines } = collecting({
      redaction: { ...none, value: (value) => value instanceof Map ? Object.fromEntries(value) : value }
    })
    const text = hostileTexts(8)
    const read = () => {
      const line = lines.pop() ?? ""
      if (raw.test(line)) assert.fail(`raw control character in ${JSON.stringify(line)}`)
      return { line, told: JSON.parse(line) }
    }
    return Effect.gen(function*() {
      const names = ["tool", "callId", "rule", "errorType", "error"] as const
      for (let i = 0; i < 14_000; i++) {
        const facts = { tool: text(), callId: text(), rule: text(), errorType: text(), error: text() }
        yield* Effect.log(
          new CallLine.CallLine({
            ...facts,
            outcome: "failed",
            durationMs: 1,
            attempts: 1,
            cache: undefined,
            suppressed: 0
          })
        )
        const { line, told } = read()
        if (names.some((name) => told[name] !== facts[name])) {
          assert.fail(`${JSON.stringify(facts)} came back as ${line}`)
        }
      }
      for (let i = 0; i < 10_000; i++) {
        const [label, error, callId] = [text(), text(), text()]
        yield* Effect.logError("x", Cause.fail(new Error(error))).pipe(
          Effect.withLogSpan(label),
          Effect.provideService(CurrentCall.CurrentCall, { tool: ToolMeta.make({ name: "t" }), action: "call", callId })
        )
        const { line, told } = read()
        if (!told.cause.includes(error) || told.callId !== callId || told.spans[label] !== 0) {
          assert.fail(`${JSON.stringify([label, error, callId])} came back as ${line}`)
        }
      }
    }).pipe(Effect.provide(layer))
  })

  it.effect("cuts cyclic, huge and throwing values and never loses the line", () => {
    const { layer, lines, parsed } = collecting()
    const cyclic: Record<string, unknown> = {}
    cyclic["self"] = cyclic
    const hostile = new Proxy({}, {
      get: () => {
        throw new Error("no")
      },
      ownKeys: () => {
        throw new Error("no")
      }
    })
    return Effect.gen(function*() {
      yield* Effect.log("a", cyclic)
      yield* Effect.log("b", hostile)
      yield* Effect.log("c", "x".repeat(10_000_000))
      yield* Effect.log("d", 1n, undefined, () => 1, Symbol("s"))
      yield* Effect.log("e").pipe(Effect.annotateLogs({ cyclic, hostile }))
      yield* Effect.log(undefined)
      assert.strictEqual(parsed().length, 6)
      assert.isBelow(Math.max(...lines.map((line) => line.length)), 20_000)
    }).pipe(Effect.provide(layer))
  })

  it.effect("writes a line whatever throws when it is read", () => {
    const { layer, lines, parsed } = collecting()
    const throwing = (): never => {
      throw new Error("no")
    }
    const unreadable = new Proxy({}, { get: throwing, has: throwing, getPrototypeOf: throwing, ownKeys: throwing })
    const withThrowing = (name: string) => Object.defineProperty(new Error("a"), name, { get: throwing })
    const revoked = Proxy.revocable({}, {})
    revoked.revoke()
    const causes = [
      Cause.fail(Object.defineProperty({}, "message", { get: throwing })),
      Cause.die(withThrowing("message")),
      Cause.die(withThrowing("name")),
      Cause.die(withThrowing("stack")),
      Cause.fail({ toString: throwing }),
      Cause.fail(unreadable),
      Cause.die(revoked.proxy)
    ]
    return Effect.gen(function*() {
      for (const cause of causes) yield* Effect.logError("x", cause)
      assert.strictEqual(lines.length, causes.length)
      for (const line of parsed()) assert.deepStrictEqual([line.level, line.message], ["ERROR", "x"])
      assert.include(parsed().map((line) => line.cause), "[unreadable]")
      lines.length = 0
      yield* Effect.log(new Proxy({}, { getPrototypeOf: throwing }))
      assert.deepStrictEqual(parsed().map((line) => line.data), ["[unreadable]"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("writes a line also with a redaction that throws", () => {
    const { layer, parsed } = collecting({
      redaction: {
        ...none,
        text: () => {
          throw new Error("no")
        }
      }
    })
    return Effect.gen(function*() {
      yield* Effect.logError("x")
      assert.deepStrictEqual(parsed(), [{ time: "1970-01-01T00:00:00.000Z", level: "ERROR", message: "[unreadable]" }])
    }).pipe(Effect.provide(layer))
  })

  it.effect("bounds a line, and not its texts alone", () => {
    const { layer, lines } = collecting()
    const long = "y".repeat(8000)
    const many = Array.from({ length: 999 }, () => long)
    return Effect.gen(function*() {
      yield* Effect.log("a", many)
      yield* Effect.log("a").pipe(Effect.annotateLogs(Object.fromEntries(many.map((text, i) => [`k${i}`, text]))))
      yield* Effect.log("a", Object.fromEntries(many.map((text, i) => [`${i}${text}`, i])))
      yield* Effect.log("a", many.map((text) => new Error(text)))
      assert.strictEqual(lines.length, 4)
      assert.isBelow(Math.max(...lines.map((line) => line.length)), 100_000)
    }).pipe(Effect.provide(layer))
  })

  it.effect("tells the time of each line", () => {
    const { layer, parsed } = collecting()
    return Effect.gen(function*() {
      for (const step of ["999 millis", "1 milli", "1 hour", "42 millis"] as const) {
        yield* TestClock.adjust(step)
        yield* Effect.log("x")
      }
      assert.deepStrictEqual(parsed().map((line) => line.time), [
        "1970-01-01T00:00:00.999Z",
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T01:00:01.000Z",
        "1970-01-01T01:00:01.042Z"
      ])
    }).pipe(Effect.provide(layer))
  })

  it.effect("cuts and redacts the name that a caller gave its call", () => {
    const { layer, lines, parsed } = collecting()
    const tool = ToolMeta.make({ name: "t" })
    return Effect.gen(function*() {
      const pipeline = yield* ToolPipeline.make(ObserveMiddleware.ObserveMiddleware)
      for (const callId of ["x".repeat(1000), "Bearer canary-token-1234"]) {
        yield* pipeline.run({ tool, callId }, Effect.log("inside"))
      }
      assert.deepStrictEqual(parsed().map((line) => line.callId), [
        "x".repeat(256),
        "x".repeat(256),
        "Bearer <redacted>",
        "Bearer <redacted>"
      ])
      assert.notInclude(lines.join("\n"), "canary")
    }).pipe(Effect.provide(Layer.mergeAll(layer, ObserveMiddleware.layer())))
  })

  it.effect("survives a sink that throws", () =>
    Effect.gen(function*() {
      yield* Effect.log("lost")
    }).pipe(Effect.provide(StructuredLogger.layer({
      write: () => {
        throw new Error("EPIPE")
      }
    }))))

  it("does not end the program when whoever reads its standard error has gone", async () => {
    const { code, stdout } = await logging("closed")
    assert.deepStrictEqual([code, stdout], [0, "no metric\ndone\n"])
  })

  it("holds little for a slow reader of standard error, and counts and tells what it left out", async () => {
    const { code, stderr, stdout } = await logging("late")
    assert.strictEqual(code, 0)
    const held = Number(/held (\d+)/.exec(stdout)?.[1])
    assert.isAbove(held, 500_000)
    assert.isBelow(held, 2 ** 20 + 10_000)
    const lines = stderr.trim().split("\n").map((line) => JSON.parse(line))
    const [notice, last] = lines.slice(-2)
    assert.deepStrictEqual([last.message, notice.level, notice.message], ["again", "WARN", "log lines dropped"])
    assert.isAbove(notice.dropped, 1000)
    assert.strictEqual(lines.length - 2 + notice.dropped, 2000)
    assert.include(stdout, `log_dropped_total ${notice.dropped}\n`)
  })

  it.live("waits once for a reader of standard error that falls behind again and again", () => {
    const stream = Object.assign(new EventEmitter(), { writableLength: 0 })
    const stderr = vi.spyOn(process, "stderr", "get").mockReturnValue(stream as unknown as typeof process.stderr)
    const lines: Array<{ readonly message: string; readonly dropped?: number }> = []
    const error = vi.spyOn(console, "error").mockImplementation((line) => void lines.push(JSON.parse(line)))
    const said = () => lines.splice(0).map(({ dropped, message }) => dropped ?? message)
    return Effect.gen(function*() {
      for (let i = 0; i < 20; i++) {
        stream.writableLength = 2 ** 21
        yield* Effect.andThen(Effect.log("lost"), Effect.log("lost"))
        // Some of it was read, and never all.
        stream.writableLength = 2 ** 19
        yield* Effect.log("told")
        assert.deepStrictEqual(said(), [2, "told"])
        assert.strictEqual(stream.listenerCount("drain"), 1)
      }
      stream.emit("drain")
      assert.deepStrictEqual([said(), stream.listenerCount("drain")], [[], 0])
      stream.writableLength = 2 ** 21
      yield* Effect.log("lost")
      stream.emit("drain")
      assert.deepStrictEqual([said(), stream.listenerCount("drain")], [[1], 0])
    }).pipe(
      Effect.provide(StructuredLogger.layer()),
      Effect.ensuring(Effect.sync(() => [stderr, error].forEach((spy) => spy.mockRestore())))
    )
  })

  it.effect("writes to standard error unless told otherwise, so that standard output stays free", () =>
    Effect.gen(function*() {
      yield* Effect.log("hello")
      assert.deepStrictEqual(yield* TestConsole.logLines, [])
      assert.strictEqual((yield* TestConsole.errorLines).length, 1)
    }).pipe(Effect.provide(StructuredLogger.layer()), Effect.provide(TestConsole.layer)))

  it("refuses options that exclude each other", () => {
    assert.throws(() => StructuredLogger.make({ redact: [], redaction: none }), "exclude")
    assert.throws(() => StructuredLogger.make({ rdact: [] } as never), "unknown option \"rdact\"")
    assert.isTrue(Logger.isLogger(StructuredLogger.make()))
  })
})
