/**
 * The benchmark harness: cases of one group run interleaved in one process, so that what disturbs the machine disturbs
 * them alike and their ratios can be trusted where bare times cannot.
 *
 * A case is an async function that does `n` operations one after the other and returns something to check. Rounds: every
 * case once per round, cut into slices that take turns, in an order that rotates; the figure of a case is its median
 * round, its ratio the median of the rounds' ratios against the baseline of the same round.
 *
 * `npm run bench` keeps V8 on one thread. Otherwise a case that allocates waits for collector and compiler threads that
 * a busy machine does not run, and its ratio to one that does not grows several times over.
 */
import { writeFileSync } from "node:fs"
import { GCProfiler, setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

/**
 * What `--json` writes, one per case. `goal` and `ok` are about the ratio or the figure; a case with `maxBytes` has a
 * second row, `<case> (bytes)`, whose `goal` and `ok` are about `bytesPerOp`.
 */
export interface Result {
  readonly group: string
  readonly case: string
  readonly medianNs: number
  readonly bytesPerOp?: number
  readonly baseline?: string
  readonly ratio?: number
  readonly goal?: number
  readonly ok?: boolean
}

/**
 * One case.
 *
 * - `run`: does `n` operations. Called with a small `n` for warm-up first.
 * - `check`: throws when what `run` returned shows that the work was not done.
 * - `baseline`: the case that the ratio is taken against. `goal`: the highest ratio that is good enough, or the lowest
 *   with `atLeast`. A goal without a baseline or a figure would never be judged, so it throws.
 * - `maxBytes`: the most bytes that an operation may allocate.
 * - `ops`: operations per round, when the default (calibrated to about 20 ms) does not fit.
 * - `allocOps`: operations that allocation is measured over, exactly. Default 1,000, fewer when they are dear or
 *   allocate so much that the collector would run.
 * - `figure`: for cases that measure something else than time per operation: `run` returns it as a number, in the unit
 *   that the goal is in.
 */
export interface Case {
  readonly name: string
  readonly run: (n: number) => Promise<unknown> | unknown
  readonly check?: (result: unknown, n: number) => void
  readonly baseline?: string
  readonly goal?: number
  readonly atLeast?: boolean
  readonly maxBytes?: number
  readonly ops?: number
  readonly allocOps?: number
  readonly figure?: boolean
}

/** A named list of cases, made when the group is asked for and closed afterwards. */
export interface Group {
  readonly name: string
  readonly cases: ReadonlyArray<Case>
  readonly close?: () => Promise<void> | void
}

/**
 * How to run: `quick` for fewer and shorter rounds, `print` to have the table somewhere else than on the console, `now`
 * for a clock in nanoseconds other than the process's own.
 */
export interface Settings {
  readonly quick: boolean
  readonly print?: (line: string) => void
  readonly now?: () => number
}

const processNow = (): number => Number(process.hrtime.bigint())

const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const timed = async (one: Case, n: number, now: () => number): Promise<number> => {
  const start = now()
  const result = await one.run(n)
  const elapsed = now() - start
  one.check?.(result, n)
  if (one.figure !== true) return elapsed
  if (typeof result !== "number" || !Number.isFinite(result)) throw new Error(`${one.name}: no figure came back`)
  return result
}

// There without --expose-gc too, as under a test runner.
const collect: () => void = globalThis.gc ?? (() => {
  setFlagsFromString("--expose-gc")
  return runInNewContext("gc") as () => void
})()

/** One run of a case; `bytes` are undefined when a collection made them unknowable. */
interface Window {
  readonly bytes: number | undefined
  readonly clean: boolean
}

// What one run adds to memory is what it allocated, unless the collector ran: then what each collection took from the
// heap has to be added again, which is good to a few percent. Array buffers are freed some time later by another thread,
// so once they matter there is no figure.
const window = async (one: Case, n: number): Promise<Window> => {
  // The second collection waits for what the first one left to other threads.
  collect()
  collect()
  const collections = new GCProfiler()
  collections.start()
  const before = process.memoryUsage()
  const result = await one.run(n)
  const after = process.memoryUsage()
  const { statistics } = collections.stop()
  one.check?.(result, n)
  // `external` includes `arrayBuffers`.
  const external = after.external - before.external
  const grown = after.heapUsed - before.heapUsed
  if (statistics.length === 0) return { bytes: (grown + external) / n, clean: true }
  let heap = grown
  let lowest = Infinity
  let highest = -Infinity
  for (const { afterGC, beforeGC } of statistics) {
    heap += beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize
    lowest = Math.min(lowest, beforeGC.heapStatistics.externalMemory, afterGC.heapStatistics.externalMemory)
    highest = Math.max(highest, beforeGC.heapStatistics.externalMemory, afterGC.heapStatistics.externalMemory)
  }
  const moved = Math.max(Math.abs(external), highest - lowest)
  return { bytes: moved > heap * 0.02 ? undefined : (heap + external) / n, clean: false }
}

/**
 * The bytes of heap, array buffers and other external memory that an operation allocates: the median of the rounds in
 * which the collector did not run. Operations are halved until there are some. Cases that say `ops` or `allocOps` may
 * need that many (1,000 lanes cannot do 500 operations), so they are measured with collections if it must be.
 */
const allocated = async (one: Case, nsPerOp: number): Promise<number | undefined> => {
  let n = one.allocOps ?? Math.max(1, Math.min(1000, one.ops ?? Math.floor(5e7 / nsPerOp)))
  const least = one.allocOps ?? (one.ops === undefined ? 1 : n)
  // The first one is for what is allocated once.
  await window(one, n)
  for (;;) {
    const windows: Array<Window> = []
    for (let i = 0; i < 7; i++) {
      windows.push(await window(one, n))
      // Nothing to wait for when every one of them has had a collection.
      if (n > least && i === 2 && windows.every(({ clean }) => !clean)) break
    }
    const clean = windows.filter((one) => one.clean)
    if (clean.length >= 3 || n <= least) {
      const known = (clean.length >= 3 ? clean : windows).flatMap(({ bytes }) => bytes === undefined ? [] : [bytes])
      return known.length < 3 ? undefined : Math.max(0, Math.round(median(known)))
    }
    n = Math.max(least, n >> 1)
  }
}

// Some cases run 1,000 lanes and do the next multiple of 1,000.
const whole = (n: number): number => n < 1000 ? n : Math.round(n / 1000) * 1000

const calibrate = async (one: Case, targetMs: number, now: () => number): Promise<number> => {
  if (one.ops !== undefined) return one.ops
  let n = 64
  for (;;) {
    const start = now()
    await one.run(n)
    const elapsed = (now() - start) / 1e6
    if (elapsed >= targetMs || n >= 1 << 20) {
      return whole(Math.max(16, Math.min(1 << 20, Math.round((n * targetMs) / elapsed))))
    }
    n *= 4
  }
}

/** The operations of one round in slices. What cannot be cut, such as a figure, is one slice. */
const sliced = (one: Case, n: number, slices: number): ReadonlyArray<number> => {
  const unit = n >= 1000 ? 1000 : 1
  if (one.figure === true || n % unit !== 0 || n < slices * unit) return [n]
  const units = n / unit
  return Array.from(
    { length: slices },
    (_, i) => (Math.floor((units * (i + 1)) / slices) - Math.floor((units * i) / slices)) * unit
  )
}

const validate = (group: Group): void => {
  const refuse = (one: Case, problem: string): never => {
    throw new Error(`${group.name}: ${one.name}: ${problem}`)
  }
  const rows = new Set<string>()
  for (const one of group.cases) {
    for (const row of one.maxBytes === undefined ? [one.name] : [one.name, bytesRow(one)]) {
      if (rows.has(row)) refuse(one, `two cases are called ${JSON.stringify(row)}`)
      rows.add(row)
    }
    if (one.baseline !== undefined && !group.cases.some(({ name }) => name === one.baseline)) {
      refuse(one, `there is no case ${JSON.stringify(one.baseline)} to compare it with`)
    }
    if (one.goal !== undefined && one.baseline === undefined && one.figure !== true) {
      refuse(one, "a goal needs a baseline or a figure")
    }
    if (one.maxBytes !== undefined && one.figure === true) {
      refuse(one, "allocation of a figure is not measured, so maxBytes would not be judged")
    }
    for (const [option, value] of [["ops", one.ops], ["allocOps", one.allocOps]] as const) {
      if (value !== undefined && !(Number.isInteger(value) && value >= 1)) {
        refuse(one, `${option} must be an integer >= 1, got ${value}`)
      }
    }
  }
}

const bytesRow = (one: Case): string => `${one.name} (bytes)`

const show = (ns: number): string =>
  ns >= 1e6 ? `${(ns / 1e6).toFixed(2)} ms` : ns >= 1e3 ? `${(ns / 1e3).toFixed(2)} us` : `${ns.toFixed(0)} ns`

/** Runs one group and prints it as a table. */
export const runGroup = async (group: Group, settings: Settings): Promise<ReadonlyArray<Result>> => {
  validate(group)
  const now = settings.now ?? processNow
  const rounds = settings.quick ? 7 : 31
  const targetMs = settings.quick ? 5 : 20
  const slices = settings.quick ? 2 : 4
  const plans = new Map<Case, ReadonlyArray<number>>()
  for (const one of group.cases) {
    const n = await calibrate(one, targetMs, now)
    plans.set(one, sliced(one, n, slices))
    if (one.figure !== true) {
      await timed(one, n, now)
      await timed(one, n, now)
    }
  }
  const times = new Map<string, Array<number>>(group.cases.map((one) => [one.name, []]))
  for (let round = 0; round < rounds; round++) {
    const sums = new Map<Case, number>()
    for (let slice = 0; slice < slices; slice++) {
      for (let i = 0; i < group.cases.length; i++) {
        const one = group.cases[(i + round + slice) % group.cases.length]!
        const n = plans.get(one)![slice]
        // A figure takes as long as it takes and is not noisy for being short.
        if (one.figure === true && round >= 21) continue
        if (n !== undefined) sums.set(one, (sums.get(one) ?? 0) + await timed(one, n, now))
      }
    }
    for (const [one, sum] of sums) {
      const ops = one.figure === true ? 1 : plans.get(one)!.reduce((total, n) => total + n, 0)
      times.get(one.name)!.push(sum / ops)
    }
  }
  const results: Array<Result> = []
  for (const one of group.cases) {
    const own = times.get(one.name)!
    const base = one.baseline === undefined ? undefined : times.get(one.baseline)
    const ratio = base === undefined ? undefined : median(own.map((value, i) => value / base[i]!))
    const bytesPerOp = one.figure === true ? undefined : await allocated(one, median(own))
    const judged = ratio ?? median(own)
    const measured = {
      group: group.name,
      medianNs: Math.round(median(own) * 1000) / 1000,
      ...(bytesPerOp === undefined ? {} : { bytesPerOp })
    }
    results.push({
      ...measured,
      case: one.name,
      ...(one.baseline === undefined ? {} : { baseline: one.baseline }),
      ...(ratio === undefined ? {} : { ratio: Math.round(ratio * 1000) / 1000 }),
      ...(one.goal === undefined
        ? {}
        : { goal: one.goal, ok: one.atLeast === true ? judged >= one.goal : judged <= one.goal })
    })
    if (one.maxBytes !== undefined) {
      const ok = bytesPerOp !== undefined && bytesPerOp <= one.maxBytes
      results.push({ ...measured, case: bytesRow(one), goal: one.maxBytes, ok })
    }
  }
  print(group, results, settings.print ?? console.log)
  return results
}

const print = (group: Group, results: ReadonlyArray<Result>, line: (line: string) => void): void => {
  const width = Math.max(...results.map((result) => result.case.length))
  line(`\n${group.name}`)
  for (const result of results) {
    // A row that is no case is the second row of one.
    const one = group.cases.find((candidate) => candidate.name === result.case)
    const time = one === undefined ? "" : one.figure === true ? String(result.medianNs) : show(result.medianNs)
    const bytes = result.bytesPerOp === undefined ? "" : `${result.bytesPerOp} B`
    const ratio = result.ratio === undefined ? "" : `${result.ratio.toFixed(2)} x ${result.baseline}`
    const verdict = result.ok === true
      ? "met"
      : one === undefined && result.bytesPerOp === undefined
      ? "NOT MEASURED, try another allocOps"
      : "MISSED"
    const goal = result.ok === undefined
      ? ""
      : `goal ${one?.atLeast === true ? ">=" : "<="} ${result.goal}${one === undefined ? " B" : ""}: ${verdict}`
    line(
      `  ${result.case.padEnd(width)}  ${time.padStart(10)}  ${bytes.padStart(9)}  ${ratio}  ${goal}`.trimEnd()
    )
  }
}

/** Writes the results of all groups that ran. */
export const writeJson = (file: string, results: ReadonlyArray<Result>): void =>
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`)
