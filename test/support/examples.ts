/**
 * Turns every `ts` fence of README.md and of the docstrings in `src` into a test below `test/.examples`, so that an
 * example that no longer compiles or no longer says the truth fails like any other test.
 *
 * A line `expression // => value` becomes an assertion. A fence marked `no-run` is compiled only. `vitest.config.ts`
 * calls `writeExamples` before tests are collected, and `npm run check` runs this file before the compiler.
 */
import { globSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")
const folder = join(root, "test/.examples")

interface Fence {
  readonly line: number
  readonly runs: boolean
  readonly code: string
}

const fencesOf = (text: string): ReadonlyArray<Fence> => {
  const fences: Array<Fence> = []
  let open: { readonly line: number; readonly runs: boolean; readonly code: Array<string> } | undefined
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.replace(/^ \* ?/, "")
    const fence = /^```(\w*)(.*)$/.exec(line)
    if (open === undefined) {
      if (fence?.[1] === "ts") open = { line: index + 1, runs: !fence[2]!.includes("no-run"), code: [] }
    } else if (fence !== null) {
      fences.push({ ...open, code: open.code.join("\n") })
      open = undefined
    } else {
      open.code.push(line)
    }
  }
  return fences
}

const toTest = (file: string, fence: Fence): string => {
  const imports: Array<string> = []
  const body = fence.code.replace(/^import [^"]*"[^"]+"$/gm, (statement) => {
    imports.push(statement)
    return ""
  })
  const asserted = body.replace(
    /^( *)(\S.*?) \/\/ => (.+)$/gm,
    (_, indent: string, expression: string, value: string) => `${indent}assert.deepStrictEqual(${expression}, ${value})`
  )
  return [
    "import { assert as assert_, it as it_ } from \"vitest\"",
    ...imports,
    "const assert: typeof assert_ = assert_",
    `it_${fence.runs ? "" : ".skip"}(${JSON.stringify(`${file}:${fence.line}`)}, async () => {`,
    asserted,
    "assert.isTrue(true)",
    "})",
    ""
  ].join("\n")
}

const readIfThere = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}

/** Brings the tests up to date and returns how many there are. What has not changed is left alone: a run may read it. */
export const writeExamples = (): number => {
  mkdirSync(folder, { recursive: true })
  const stale = new Set(readdirSync(folder))
  let count = 0
  for (const file of ["README.md", ...globSync("src/**/*.ts", { cwd: root }).toSorted()]) {
    for (const fence of fencesOf(readFileSync(join(root, file), "utf8"))) {
      const name = `${file.replace(/^src\//, "").replace(/\W+/g, "-")}-${fence.line}.test.ts`
      const test = toTest(file, fence)
      if (readIfThere(join(folder, name)) !== test) writeFileSync(join(folder, name), test)
      stale.delete(name)
      count += 1
    }
  }
  for (const name of stale) rmSync(join(folder, name), { force: true })
  return count
}

if (process.argv[1] === import.meta.filename) console.log(`${writeExamples()} examples`)
