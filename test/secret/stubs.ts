import { NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A folder of programs that are nowhere else, and what they write down. Gone afterwards. */
export const stubs = (programs: Readonly<Record<string, string>>) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "toolops-stubs-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    ),
    (path) => {
      for (const [name, source] of Object.entries(programs)) {
        writeFileSync(join(path, name), source)
        chmodSync(join(path, name), 0o755)
      }
      return {
        path,
        read: (name: string) => existsSync(join(path, name)) ? readFileSync(join(path, name), "utf8") : undefined
      }
    }
  )

/** A shell script. */
export const sh = (body: string): string => `#!/bin/sh\n${body}\n`

/** A Node program. It does not need to be found on the PATH. */
export const node = (body: string): string => `#!${process.execPath}\n${body}\n`

export const Processes = NodeServices.layer
