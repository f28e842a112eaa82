#!/usr/bin/env node
// `effect-toolops`, the command. What it runs on is an optional peer of the package, so it is looked for first.
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"

// Two of its modules, since to load all of them takes longer than to check a small log.
const platform = await Promise.all([
  import("@effect/platform-node/NodeRuntime"),
  import("@effect/platform-node/NodeServices")
]).catch(() => undefined)
if (platform === undefined) {
  process.stderr.write("effect-toolops: the command needs @effect/platform-node: npm install @effect/platform-node\n")
  process.exitCode = 1
} else {
  const { run } = await import("./command.ts")
  // The manifest of the package, which is as far up from here in `src` as in `dist`.
  const { version } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
    readonly version: string
  }
  const [{ runMain }, { layer }] = platform
  runMain(Effect.provide(run(version), layer), { disableErrorReporting: true })
}
