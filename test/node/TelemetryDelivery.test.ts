import { assert, describe, it } from "@effect/vitest"
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base"
import { Context, Metric } from "effect"
import { Telemetry, TelemetryConfigError } from "effect-toolops/node"
import { afterEach, vi } from "vitest"
import { type Answer, Delivery } from "../../src/node/internal/telemetryDelivery.ts"
import { httpTarget } from "../../src/node/internal/telemetryHttp.ts"
import { Losses } from "../../src/node/internal/telemetryLosses.ts"
import { resolve } from "../../src/node/internal/telemetrySettings.ts"
import { BoundedProcessor } from "../../src/node/internal/telemetrySpans.ts"
import { answer, startCollector } from "./collector.ts"

const minute = 60_000

/** A delivery to something that always wants to be asked later, and the times at which it was asked. */
const refusedForNow = (afterMillis?: number) => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] })
  const registry: Metric.MetricRegistry = new Map()
  const times: Array<number> = []
  const later: Answer = { _tag: "Later", afterMillis }
  const target = {
    post: () => {
      times.push(performance.now())
      return Promise.resolve(later)
    },
    close: () => {}
  }
  const delivery = new Delivery(target, new Losses("traces", Context.make(Metric.MetricRegistry, registry)))
  const lost = () =>
    [...registry.values()].filter(({ id, attributes }) =>
      id === Telemetry.dropped.name && attributes?.["reason"] === "unreachable"
    ).map(({ hooks }) => (hooks.get(Context.empty()) as { readonly count: number }).count)
  return { delivery, times, lost }
}

describe("Delivery", () => {
  afterEach(() => void vi.useRealTimers())

  for (const [chance, share] of [[0, 0.5], [1, 1]] as const) {
    it(`waits twice as long each time, 10 seconds at most, and gives up after a minute: ${share} of it`, async () => {
      const random = vi.spyOn(Math, "random").mockReturnValue(chance)
      try {
        const { delivery, lost, times } = refusedForNow()
        delivery.send(new Uint8Array(), 3, () => {})
        await vi.advanceTimersByTimeAsync(3 * minute)
        const waits = times.slice(1).map((at, i) => at - times[i]!)
        const wanted = [500, 1000, 2000, 4000, 8000].map((each) => each * share)
        assert.deepStrictEqual(waits.slice(0, 5), wanted)
        assert.isTrue(waits.slice(5).every((each) => each === 10_000 * share))
        const took = times.at(-1)! - times[0]!
        assert.isTrue(took >= minute && took <= minute + 10_000, `${took} ms`)
        assert.deepStrictEqual(lost(), [3])
      } finally {
        random.mockRestore()
      }
    })
  }

  it("asks again when the receiver has said, and not before", async () => {
    const { delivery, times } = refusedForNow(5 * minute)
    delivery.send(new Uint8Array(), 1, () => {})
    await vi.advanceTimersByTimeAsync(5 * minute - 1)
    assert.strictEqual(times.length, 1)
    await vi.advanceTimersByTimeAsync(2)
    assert.strictEqual(times.length, 2)
  })
})

describe("httpTarget", () => {
  it("reads Retry-After as seconds or as a date, and believes no more than 5 minutes of it", async () => {
    const afterOf = async (header: string): Promise<number | undefined> => {
      const at = await startCollector(answer(429, { "retry-after": header }))
      const target = httpTarget({ url: at.url, headers: {}, timeoutMillis: minute, rejectedOf: () => 0 })
      try {
        const said = await target.post(new Uint8Array(), new AbortController().signal)
        assert.strictEqual(said._tag, "Later")
        return said._tag === "Later" ? said.afterMillis : undefined
      } finally {
        target.close()
        await at.close()
      }
    }
    assert.strictEqual(await afterOf("2"), 2000)
    for (const header of ["301", "2147483648", "99999999999", "9".repeat(400), "Fri, 31 Dec 9999 23:59:59 GMT"]) {
      assert.strictEqual(await afterOf(header), 5 * minute, header)
    }
    assert.strictEqual(await afterOf("Fri, 31 Dec 1999 23:59:59 GMT"), 0)
    assert.strictEqual(await afterOf("soon"), undefined)
  })
})

describe("BoundedProcessor", () => {
  it("has no place taken by spans of traces that are not sampled", async () => {
    const registry: Metric.MetricRegistry = new Map()
    const losses = new Losses("traces", Context.make(Metric.MetricRegistry, registry))
    const settings = resolve("test", { serviceName: "test", endpoint: "http://localhost:1", tracing: { maxQueue: 2 } })
    if (settings instanceof TelemetryConfigError.TelemetryConfigError || settings.tracing === undefined) throw settings
    const posted: Array<Uint8Array> = []
    const accepted: Answer = { _tag: "Accepted", rejected: 0 }
    const post = (body: Uint8Array) => {
      posted.push(body)
      return Promise.resolve(accepted)
    }
    const delivery = new Delivery({ post, close: () => {} }, losses)
    const processor = new BoundedProcessor(settings, settings.tracing, delivery, losses)
    const tracer = new BasicTracerProvider().getTracer("test")
    const end = (traceFlags: number) => {
      const span = tracer.startSpan("work")
      const spanContext = () => ({ ...span.spanContext(), traceFlags })
      processor.onEnd(Object.assign(Object.create(span), { spanContext }))
    }
    for (let i = 0; i < 10; i++) end(0)
    end(1)
    end(1)
    await processor.shutdown()
    await delivery.idle()
    const counts = [...registry.values()].map(({ attributes, hooks }) => [
      attributes?.["reason"] ?? "sent",
      (hooks.get(Context.empty()) as { readonly count: number }).count
    ])
    assert.deepStrictEqual(counts.filter(([, count]) => count !== 0), [["sent", 2]])
    assert.strictEqual(posted.length, 1)
  })
})
