import { spawn } from "node:child_process"
import { once } from "node:events"
import { text } from "node:stream/consumers"

/** Node's arguments that run a script against the sources. */
export const fromSource = ["-C", "@effect-toolops/source"]

/**
 * Processes that run `script` with the arguments of each, and begin together: each tells with a message that it is ready,
 * and begins when its input ends. `printed` is what each has written, as JSON; of one that was killed, nothing.
 */
export const startWorkers = async (script: string, args: ReadonlyArray<ReadonlyArray<string>>) => {
  const workers = args.map((own) =>
    spawn(process.execPath, [...fromSource, script, ...own], { stdio: ["pipe", "pipe", "inherit", "ipc"] })
  )
  const output = workers.map((child) => text(child.stdout!))
  await Promise.all(workers.map((child) => Promise.race([once(child, "message"), once(child, "exit")])))
  return {
    begin: (index?: number) => {
      for (const child of index === undefined ? workers : [workers[index]!]) child.stdin!.end()
    },
    kill: (index: number) => workers[index]!.kill("SIGKILL"),
    /** When the worker says the next thing. */
    message: (index: number) => once(workers[index]!, "message"),
    printed: async <A>(): Promise<ReadonlyArray<A | undefined>> => {
      const texts = await Promise.all(output)
      return texts.map((text) => text === "" ? undefined : JSON.parse(text) as A)
    },
    stop: () => {
      for (const child of workers) child.kill("SIGKILL")
    }
  }
}
