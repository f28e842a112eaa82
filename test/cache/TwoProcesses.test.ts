import { afterEach, assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import { inject } from "vitest"
import { LocalRedis } from "../support/redis.ts"
import { startWorkers } from "../support/workers.ts"

interface Worked {
  readonly runs: number
  readonly answers: ReadonlyArray<number>
}

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, one) => total + one, 0)

describe.skipIf(!inject("redis").canStart)("the cache in two processes with one Redis", () => {
  const cleanup: Array<() => unknown> = []
  afterEach(async () => {
    for (const one of cleanup.splice(0)) await one()
  })

  const workers = async (callers: number, millis: number) => {
    const redis = await LocalRedis.started()
    const args = [redis.url, "test:flight:", String(callers), String(millis)]
    const started = await startWorkers(join(import.meta.dirname, "flightWorker.ts"), [args, args])
    cleanup.push(() => started.stop(), () => redis.kill())
    return started
  }

  it("runs the handler of a stampede once, and gives its answer to every caller of both", async () => {
    const both = await workers(500, 200)
    both.begin()
    const worked = await both.printed<Worked>()
    assert.strictEqual(sum(worked.map((one) => one!.runs)), 1)
    const answers = new Set(worked.flatMap((one) => one!.answers))
    assert.strictEqual(answers.size, 1)
  }, 30_000)

  it("lets the other process take over from one that is killed in the middle of it", async () => {
    const both = await workers(500, 2000)
    both.begin(0)
    await both.message(0)
    // The second asks while the first one's handler runs.
    both.begin(1)
    await new Promise((resolve) => setTimeout(resolve, 300))
    const killed = performance.now()
    both.kill(0)
    await both.message(1)
    // The handler took over when the lease of half a second had run out, and 500 callers wait for one run of it.
    assert.isBelow(performance.now() - killed, 2000)
    const [dead, heir] = await both.printed<Worked>()
    assert.isUndefined(dead)
    assert.strictEqual(heir!.runs, 1)
    assert.strictEqual(heir!.answers.length, 1)
  }, 30_000)
})
