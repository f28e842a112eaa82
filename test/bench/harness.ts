/**
 * The benchmark harness: cases of one group run interleaved in one process, so that what disturbs the machine disturbs
 * them alike and their ratios can be trusted where bare times cannot.
 *
 * A case is an async function that does `n` operations one after the other and returns something to check. Rounds: every
 * case once per round, in an order that rotates; the figure of a case is its median round, its ratio the median of the
 * rounds' ratios against the baseline of the same round.
 */
import { writeFileSync } from "node:fs"

/** What `--json` writes, one per case. */
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
 *   with `atLeast`.
 * - `maxBytes`: the most bytes that an operation may allocate.
 * - `ops`: operations per round, when the default (calibrated to about 20 ms) does not fit.
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
  readonly figure?: boolean
}

/** A named list of cases, made when the group is asked for and closed afterwards. */
export interface Group {
  readonly name: string
  readonly cases: ReadonlyArray<Case>
  readonly close?: () => Promise<void> | void
}

export interface Settings {
  readonly quick: boolean
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const timed = async (one: Case, n: number): Promise<number> => {
  const start = process.hrtime.bigint()
  const result = await one.run(n)
  const elapsed = Number(process.hrtime.bigint() - start)
  one.check?.(result, n)
  if (one.figure !== true) return elapsed / n
  if (typeof result !== "number" || !Number.isFinite(result)) throw new Error(`${one.name}: no figure came back`)
  return result
}

// The heap only grows between collections, so what one run without a collection adds is what it allocated. Rounds in
// which the collector ran come out too small, hence the maximum of several short ones.
const allocated = async (one: Case): Promise<number> => {
  const n = 200
  let most = 0
  for (let i = 0; i < 7; i++) {
    globalThis.gc?.()
    const before = process.memoryUsage().heapUsed
    const result = await one.run(n)
    const after = process.memoryUsage().heapUsed
    one.check?.(result, n)
    most = Math.max(most, (after - before) / n)
  }
  return Math.round(most)
}

const calibrate = async (one: Case, targetMs: number): Promise<number> => {
  if (one.ops !== undefined) return one.ops
  let n = 64
  for (;;) {
    const start = performance.now()
    await one.run(n)
    const elapsed = performance.now() - start
    if (elapsed >= targetMs || n >= 1 << 20) {
      return Math.max(16, Math.min(1 << 20, Math.round((n * targetMs) / elapsed)))
    }
    n *= 4
  }
}

const show = (ns: number): string =>
  ns >= 1e6 ? `${(ns / 1e6).toFixed(2)} ms` : ns >= 1e3 ? `${(ns / 1e3).toFixed(2)} us` : `${ns.toFixed(0)} ns`

/** Runs one group and prints it as a table. */
export const runGroup = async (group: Group, settings: Settings): Promise<ReadonlyArray<Result>> => {
  const rounds = settings.quick ? 7 : 21
  const targetMs = settings.quick ? 5 : 20
  const sizes = new Map<Case, number>()
  for (const one of group.cases) {
    const n = await calibrate(one, targetMs)
    sizes.set(one, n)
    if (one.figure !== true) {
      await timed(one, n)
      await timed(one, n)
    }
  }
  const times = new Map<string, Array<number>>(group.cases.map((one) => [one.name, []]))
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < group.cases.length; i++) {
      const one = group.cases[(i + round) % group.cases.length]!
      times.get(one.name)!.push(await timed(one, sizes.get(one)!))
    }
  }
  const results: Array<Result> = []
  for (const one of group.cases) {
    const own = times.get(one.name)!
    const base = one.baseline === undefined ? undefined : times.get(one.baseline)
    if (one.baseline !== undefined && base === undefined) throw new Error(`${one.name}: no case ${one.baseline}`)
    const ratio = base === undefined ? undefined : median(own.map((value, i) => value / base[i]!))
    const bytesPerOp = one.figure === true ? undefined : await allocated(one)
    const judged = ratio ?? (one.figure === true ? median(own) : undefined)
    const meetsGoal = one.goal === undefined || judged === undefined
      ? undefined
      : one.atLeast === true
      ? judged >= one.goal
      : judged <= one.goal
    const meetsBytes = one.maxBytes === undefined || bytesPerOp === undefined ? undefined : bytesPerOp <= one.maxBytes
    const ok = meetsGoal === undefined ? meetsBytes : meetsBytes === undefined ? meetsGoal : meetsGoal && meetsBytes
    results.push({
      group: group.name,
      case: one.name,
      medianNs: Math.round(median(own) * 1000) / 1000,
      ...(bytesPerOp === undefined ? {} : { bytesPerOp }),
      ...(one.baseline === undefined ? {} : { baseline: one.baseline }),
      ...(ratio === undefined ? {} : { ratio: Math.round(ratio * 1000) / 1000 }),
      ...(one.goal === undefined ? one.maxBytes === undefined ? {} : { goal: one.maxBytes } : { goal: one.goal }),
      ...(ok === undefined ? {} : { ok })
    })
  }
  print(group, results)
  return results
}

const print = (group: Group, results: ReadonlyArray<Result>): void => {
  const width = Math.max(...results.map((result) => result.case.length))
  console.log(`\n${group.name}`)
  for (const result of results) {
    const one = group.cases.find((candidate) => candidate.name === result.case)
    const time = one?.figure === true ? String(result.medianNs) : show(result.medianNs)
    const bytes = result.bytesPerOp === undefined ? "" : `${result.bytesPerOp} B`
    const ratio = result.ratio === undefined ? "" : `${result.ratio.toFixed(2)} x ${result.baseline}`
    const goal = result.ok === undefined
      ? ""
      : `goal ${one?.atLeast === true ? ">=" : "<="} ${result.goal}: ${result.ok ? "met" : "MISSED"}`
    console.log(
      `  ${result.case.padEnd(width)}  ${time.padStart(10)}  ${bytes.padStart(9)}  ${ratio}  ${goal}`.trimEnd()
    )
  }
}

/** Writes the results of all groups that ran. */
export const writeJson = (file: string, results: ReadonlyArray<Result>): void =>
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`)
