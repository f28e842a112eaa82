import { assert, describe, it } from "@effect/vitest"
import { type Case, type Group, type Result, runGroup } from "./harness.ts"

const lines: Array<string> = []
const measure = (cases: ReadonlyArray<Case>, now?: () => number): Promise<ReadonlyArray<Result>> => {
  lines.length = 0
  const group: Group = { name: "group", cases }
  return runGroup(group, { quick: true, print: (line) => lines.push(line), ...(now === undefined ? {} : { now }) })
}

/** A clock that only work moves, because what is measured must not depend on what else the machine does. */
const workClock = () => {
  let nanos = 0
  return {
    now: () => nanos,
    work: (micros: number): void => {
      nanos += micros * 1000
    }
  }
}

const bytesOf = async (one: Omit<Case, "name">): Promise<number> => {
  const [result] = await measure([{ name: "case", ...one }])
  return result!.bytesPerOp!
}

const making = (make: () => unknown) => (n: number) => {
  let last: unknown = undefined
  for (let i = 0; i < n; i++) last = make()
  return last
}

/** `lanes` at once, each doing its share, so that the next multiple of `lanes` is done. */
const inLanes = (lanes: number, make: () => unknown) => async (n: number) => {
  await Promise.all(Array.from({ length: lanes }, async () => {
    let last: unknown = undefined
    for (let i = 0; i < Math.ceil(n / lanes); i++) last = await make()
    return last
  }))
}

// A JSArray (32 bytes) and its elements (16 bytes and 8 for each).
const arrayOf = (length: number) => () => {
  const array: Array<number> = []
  array.length = length
  return array.fill(1)
}
const sizeOf = (length: number) => 48 + 8 * length

const near = (actual: number, expected: number, share: number): void => {
  assert.isAtLeast(actual, expected * (1 - share))
  assert.isAtMost(actual, expected * (1 + share))
}

const spin = (micros: number): void => {
  const end = performance.now() + micros / 1000
  while (performance.now() < end);
}

const rejects = async (cases: ReadonlyArray<Case>, message: string): Promise<void> => {
  let ran = false
  const error = await measure(cases.map((one) => ({
    ...one,
    run: () => {
      ran = true
    }
  }))).then(() => undefined, (error: unknown) => error)
  assert.instanceOf(error, Error)
  assert.strictEqual(error.message, message)
  assert.isFalse(ran)
}

describe("harness: bytes of an operation", () => {
  it("counts nothing for an operation that allocates nothing", async () => {
    assert.isAtMost(await bytesOf({ run: making(() => 1) }), 8)
  })

  it("counts small objects", async () => {
    near(await bytesOf({ run: making(arrayOf(10)) }), sizeOf(10), 0.1)
  })

  it("counts array buffers, once", async () => {
    near(await bytesOf({ run: making(() => new Uint8Array(10_000)) }), 10_200, 0.03)
  })

  it("counts 100 kB a piece, which the collector does not leave alone for a thousand", async () => {
    near(await bytesOf({ run: making(() => new Uint8Array(100_000)) }), 100_200, 0.03)
    // A page of the young generation has 256 kB, and what is left beside two of these is lost.
    const bytes = await bytesOf({ run: making(arrayOf(12_500)) })
    assert.isAtLeast(bytes, sizeOf(12_500))
    assert.isAtMost(bytes, 131_072)
  })

  it("counts dear operations", async () => {
    const run = making(() => {
      spin(2000)
      return arrayOf(1250)()
    })
    near(await bytesOf({ run, ops: 4 }), sizeOf(1250), 0.1)
  })

  it("divides by what 1,000 lanes really do", async () => {
    // A lane has an array and what its two steps and its promise take.
    const bytes = await bytesOf({ run: inLanes(1000, arrayOf(125)), ops: 5000 })
    assert.isAtLeast(bytes, sizeOf(125))
    assert.isAtMost(bytes, sizeOf(125) + 700)
  })

  it("adds what the collector took away when it cannot be kept from running", async () => {
    near(await bytesOf({ run: making(arrayOf(125)), allocOps: 20_000 }), sizeOf(125), 0.05)
  })

  it("has no figure rather than a wrong one when array buffers were freed meanwhile", async () => {
    const results = await measure([{
      name: "case",
      run: making(() => new Uint8Array(10_000)),
      allocOps: 10_000,
      maxBytes: 1e9
    }])
    assert.deepStrictEqual(results.map(({ bytesPerOp, ok }) => [bytesPerOp, ok]), [
      [undefined, undefined],
      [undefined, false]
    ])
    assert.match(lines.at(-1)!, /NOT MEASURED/)
  })

  it("measures over exactly as many operations as a case asks for", async () => {
    const seen: Array<number> = []
    await bytesOf({ run: (n) => seen.push(n), ops: 10, allocOps: 7 })
    assert.deepStrictEqual([...new Set(seen.slice(-5))], [7])
  })
})

describe("harness: rows", () => {
  const run = making(arrayOf(125))

  it("says which of two goals was missed", async () => {
    const results = await measure([
      { name: "base", run },
      { name: "fat", run, baseline: "base", goal: 1000, maxBytes: 100 },
      { name: "slow", run, baseline: "base", goal: 0, maxBytes: 100_000 },
      { name: "only bytes", run, maxBytes: 100 }
    ])
    const rows = new Map(results.map((result) => [result.case, result]))
    assert.deepStrictEqual(
      results.map((result) => [result.case, result.goal, result.ok]),
      [
        ["base", undefined, undefined],
        ["fat", 1000, true],
        ["fat (bytes)", 100, false],
        ["slow", 0, false],
        ["slow (bytes)", 100_000, true],
        ["only bytes", undefined, undefined],
        ["only bytes (bytes)", 100, false]
      ]
    )
    assert.deepStrictEqual(Object.keys(rows.get("fat")!).toSorted(), [
      "baseline",
      "bytesPerOp",
      "case",
      "goal",
      "group",
      "medianNs",
      "ok",
      "ratio"
    ])
    assert.strictEqual(rows.get("fat (bytes)")!.bytesPerOp, rows.get("fat")!.bytesPerOp)
    assert.match(lines.find((line) => line.includes("fat (bytes)"))!, /goal <= 100 B: MISSED$/)
    assert.match(lines.find((line) => line.includes("slow "))!, /goal <= 0: MISSED$/)
  })

  it("judges a figure by itself, upwards with atLeast", async () => {
    const figure = { figure: true, ops: 1 } as const
    const results = await measure([
      { name: "low", run: () => 5, goal: 4, ...figure },
      { name: "high", run: () => 5, goal: 4, atLeast: true, ...figure }
    ])
    assert.deepStrictEqual(results.map((result) => [result.medianNs, result.ok]), [[5, false], [5, true]])
  })

  it("takes the ratio against the baseline", async () => {
    const { now, work } = workClock()
    const [, dear] = await measure([
      { name: "base", run: making(() => work(20)) },
      { name: "dear", run: making(() => work(60)), baseline: "base" }
    ], now)
    assert.strictEqual(dear!.ratio, 3)
  })

  it("takes time per operation, of slices too", async () => {
    let done = 0
    const asked: Array<number> = []
    const { now, work } = workClock()
    const [result] = await measure([{
      name: "case",
      ops: 200,
      run: (n) => {
        asked.push(n)
        for (let i = 0; i < n; i++) work(20)
        return n
      },
      check: (result, n) => {
        done += n
        assert.strictEqual(result, n)
      }
    }], now)
    assert.isAbove(done, 0)
    assert.isTrue(asked.includes(100))
    assert.strictEqual(result!.medianNs, 20_000)
  })

  it("gives up when a case did not do its work", async () => {
    const check = () => {
      throw new Error("not done")
    }
    const error = await measure([{ name: "case", run, check }]).then(() => undefined, (error: unknown) => error)
    assert.strictEqual((error as Error).message, "not done")
  })
})

describe("harness: mistakes", () => {
  const run = () => {}

  it("refuses a goal that nothing would be judged by", () =>
    rejects([{ name: "case", run, goal: 1 }], "group: case: a goal needs a baseline or a figure"))

  it("refuses most bytes of a figure", () =>
    rejects(
      [{ name: "case", run, figure: true, maxBytes: 1 }],
      "group: case: allocation of a figure is not measured, so maxBytes would not be judged"
    ))

  it("refuses two cases of one name", () =>
    rejects([{ name: "case", run }, { name: "case", run }], "group: case: two cases are called \"case\""))

  it("refuses a case that is called like the second row of another", () =>
    rejects(
      [{ name: "case", run, maxBytes: 1 }, { name: "case (bytes)", run }],
      "group: case (bytes): two cases are called \"case (bytes)\""
    ))

  it("refuses a baseline that is not there", () =>
    rejects([{ name: "case", run, baseline: "base" }], "group: case: there is no case \"base\" to compare it with"))

  it("refuses operations that cannot be counted", () =>
    rejects([{ name: "case", run, allocOps: 0 }], "group: case: allocOps must be an integer >= 1, got 0"))
})
