import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

export interface Run {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  readonly millis: number
}

/** Starts an example as a process of its own, as its reader would. Nothing of this process's environment that configures it is passed on. */
export const start = (file: string, environment: Record<string, string> = {}, args: ReadonlyArray<string> = []) => {
  const inherited = Object.entries(process.env).filter(([name]) =>
    !name.startsWith("TOOLOPS_") && !name.startsWith("VITEST") && name !== "NODE_OPTIONS"
  )
  const began = performance.now()
  const child = spawn(process.execPath, ["-C", "@effect-toolops/source", `examples/${file}`, ...args], {
    cwd: root,
    env: { ...Object.fromEntries(inherited), ...environment },
    stdio: ["ignore", "pipe", "pipe"]
  })
  let stdout = ""
  let stderr = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text)
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text)
  const closed = once(child, "close").then(([code]: ReadonlyArray<number | null>): Run => ({
    code: code ?? null,
    stdout,
    stderr,
    millis: performance.now() - began
  }))
  const waitFor = async (text: string, output: () => string): Promise<string> => {
    while (!output().includes(text)) {
      if (child.exitCode !== null) throw new Error(`ended before it printed ${text}: ${stderr}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return output()
  }
  return {
    child,
    closed,
    /** Waits until the output has `text`. */
    printed: (text: string) => waitFor(text, () => stdout),
    /** Waits until what is printed as errors has `text`. */
    printedError: (text: string) => waitFor(text, () => stderr)
  }
}

/** Runs an example to its end; one that does not end by itself is killed and has no exit code. */
export const run = async (
  file: string,
  environment: Record<string, string> = {},
  args: ReadonlyArray<string> = []
): Promise<Run> => {
  const { child, closed } = start(file, environment, args)
  const deadline = setTimeout(() => child.kill("SIGKILL"), 28_000)
  const result = await closed
  clearTimeout(deadline)
  return result
}
