/** Runs the protocol's conformance suite against the same server with and without the layer, and compares what it says. */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { serve } from "./server.ts"

export const revisions = ["2025-11-25", "2026-07-28"] as const

const suite = fileURLToPath(
  new URL("../../node_modules/@modelcontextprotocol/conformance/dist/index.js", import.meta.url)
)

interface Check {
  readonly id: string
  readonly status: string
  readonly errorMessage?: string
  readonly details?: unknown
}

/** What the suite has said, by scenario and check. Addresses and times, which are never the same, are left out. */
export type Report = ReadonlyMap<string, { readonly status: string; readonly words: string }>

const read = async (folder: string, url: string): Promise<Report> => {
  const report = new Map<string, { status: string; words: string }>()
  for (const run of (await readdir(folder)).toSorted()) {
    const scenario = run.replace(/^server-/, "").replace(/-\d{4}-\d\d-\d\dT.*$/, "")
    const checks: ReadonlyArray<Check> = JSON.parse(await readFile(join(folder, run, "checks.json"), "utf8"))
    for (const [index, { details, errorMessage, id, status }] of checks.entries()) {
      const words = JSON.stringify([errorMessage, details] satisfies ReadonlyArray<unknown>)
        .replaceAll(new URL(url).origin, "<origin>")
        .replaceAll(new URL(url).host, "<host>")
        .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "<uuid>")
        .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "<time>")
        .replaceAll(/[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} GMT/g, "<time>")
        // The suite takes the time in milliseconds for ids of its requests.
        .replaceAll(/\b1\d{12}\b/g, "<id>")
      report.set(`${scenario} / ${id} ${index}`, { status, words })
    }
  }
  return report
}

const runSuite = (which: "with" | "without", revision: typeof revisions[number]): Effect.Effect<Report> =>
  Effect.scoped(Effect.gen(function*() {
    const url = yield* serve(which)
    return yield* Effect.promise(async () => {
      const folder = await mkdtemp(join(tmpdir(), "effect-toolops-conformance-"))
      try {
        const args = [suite, "server", "--url", url, "--requirements", revision, "--output-dir", folder]
        const child = spawn(process.execPath, args, { stdio: "ignore" })
        await once(child, "close")
        return await read(folder, url)
      } finally {
        await rm(folder, { recursive: true, force: true })
      }
    })
  }))

/** The scenarios for authorization that the suite has for clients. */
export const clientAuthScenarios: Effect.Effect<ReadonlyArray<string>> = Effect.promise(async () => {
  const child = spawn(process.execPath, [suite, "list", "--client"], { stdio: ["ignore", "pipe", "ignore"] })
  let said = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => said += text)
  await once(child, "close")
  return [...said.matchAll(/^ +- (auth\/\S+)/gm)].map(([, name]) => name!)
})

export interface Comparison {
  readonly revision: string
  readonly checks: number
  readonly passWithout: number
  readonly passWith: number
  /** Checks that pass without the layer and do not pass with it. */
  readonly lost: ReadonlyArray<string>
  /** Checks of which the suite says something else. */
  readonly otherwise: ReadonlyArray<readonly [check: string, without: string, withLayer: string]>
}

export const compare = (revision: typeof revisions[number]): Effect.Effect<Comparison> =>
  Effect.gen(function*() {
    const without = yield* runSuite("without", revision)
    const withLayer = yield* runSuite("with", revision)
    const passing = (report: Report) => [...report.values()].filter(({ status }) => status === "SUCCESS").length
    const told = (report: Report, check: string) => {
      const said = report.get(check)
      return said === undefined ? "nothing" : `${said.status} ${said.words}`
    }
    const checks = [...new Set([...without.keys(), ...withLayer.keys()])]
    return {
      revision,
      checks: checks.length,
      passWithout: passing(without),
      passWith: passing(withLayer),
      lost: checks.filter((check) =>
        without.get(check)?.status === "SUCCESS" && withLayer.get(check)?.status !== "SUCCESS"
      ),
      otherwise: checks
        .filter((check) => told(without, check) !== told(withLayer, check))
        .map((check) => [check, told(without, check), told(withLayer, check)] as const)
    }
  })
