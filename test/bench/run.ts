/**
 * `npm run bench -- [<group> ...] [--quick] [--json <file>]`: runs the named groups, or all of them.
 *
 * A group is a file `<group>.bench.ts` beside this one whose default export makes it. Exit code 1 means that something
 * could not be measured; a missed goal is told and leaves it at 0, because the machine has a say in that.
 */
import { readdirSync } from "node:fs"
import { parseArgs } from "node:util"
import { type Group, type Result, runGroup, type Settings, writeJson } from "./harness.ts"

const suffix = ".bench.ts"
const available = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(suffix))
  .map((file) => file.slice(0, -suffix.length))

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

const fail = (message: string): never => {
  console.error(`bench: ${message}`)
  process.exit(1)
}

const parse = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { quick: { type: "boolean", default: false }, json: { type: "string" } }
    })
  } catch (error) {
    return fail(messageOf(error))
  }
}

const { positionals, values } = parse()
for (const name of positionals) {
  if (!available.includes(name)) fail(`no group ${JSON.stringify(name)}, there are ${available.join(", ")}`)
}

const settings: Settings = { quick: values.quick }
const results: Array<Result> = []
const save = (): void => {
  if (values.json === undefined) return
  try {
    writeJson(values.json, results)
  } catch (error) {
    fail(`cannot write ${JSON.stringify(values.json)}: ${messageOf(error)}`)
  }
}
// Before minutes go into what could not be kept.
save()

let broken = 0
/** One broken group must not cost the figures of the others. */
const attempt = async <A>(what: string, run: () => Promise<A> | A): Promise<A | undefined> => {
  try {
    return await run()
  } catch (error) {
    broken += 1
    console.error(`\nbench: ${what} failed:`, error)
    return undefined
  }
}

for (const name of new Set(positionals.length === 0 ? available : positionals)) {
  const groups = await attempt(name, async () => {
    const module = await import(`./${name}${suffix}`) as {
      readonly default: (settings: Settings) => Promise<ReadonlyArray<Group>> | ReadonlyArray<Group>
    }
    return module.default(settings)
  })
  for (const group of groups ?? []) {
    results.push(...await attempt(`group ${JSON.stringify(group.name)}`, () => runGroup(group, settings)) ?? [])
    await attempt(`closing group ${JSON.stringify(group.name)}`, () => group.close?.())
    save()
  }
}
const missed = results.filter((result) => result.ok === false)
if (missed.length > 0) {
  console.log(`\n${missed.length} of ${results.filter((r) => r.ok !== undefined).length} goals missed`)
}
process.exit(broken > 0 ? 1 : 0)
