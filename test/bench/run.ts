/**
 * `npm run bench -- [<group> ...] [--quick] [--json <file>]`: runs the named groups, or all of them.
 *
 * A group is a file `<group>.bench.ts` beside this one whose default export makes it.
 */
import { readdirSync } from "node:fs"
import { parseArgs } from "node:util"
import { type Group, type Result, runGroup, type Settings, writeJson } from "./harness.ts"

const suffix = ".bench.ts"
const available = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(suffix))
  .map((file) => file.slice(0, -suffix.length))

const fail = (message: string): never => {
  console.error(message)
  process.exit(1)
}

const parse = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { quick: { type: "boolean", default: false }, json: { type: "string" } }
    })
  } catch (error) {
    return fail(`bench: ${error instanceof Error ? error.message : String(error)}`)
  }
}

const { positionals, values } = parse()
for (const name of positionals) {
  if (!available.includes(name)) fail(`bench: no group ${JSON.stringify(name)}, there are ${available.join(", ")}`)
}

const settings: Settings = { quick: values.quick }
const results: Array<Result> = []
for (const name of positionals.length === 0 ? available : positionals) {
  const module = await import(`./${name}${suffix}`) as {
    readonly default: (settings: Settings) => Promise<ReadonlyArray<Group>> | ReadonlyArray<Group>
  }
  for (const group of await module.default(settings)) {
    results.push(...await runGroup(group, settings))
    await group.close?.()
  }
}
if (values.json !== undefined) writeJson(values.json, results)
const missed = results.filter((result) => result.ok === false)
if (missed.length > 0) {
  console.log(`\n${missed.length} of ${results.filter((r) => r.ok !== undefined).length} goals missed`)
}
process.exit(0)
