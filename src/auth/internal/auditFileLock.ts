import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Random from "effect/Random"
import { randomBytes } from "../../internal/hash.ts"
import * as Disk from "./auditDisk.ts"

// One writer per file. `effect/FileSystem` has no lock that ends with its process, so who writes says so by a link named
// `<path>.lock.<process>-<random>` that leads nowhere and whose text says who it is: a link comes into being with its text,
// at once or not at all. Every writer makes its own, and then looks for others. As no name is ever used twice, to remove the
// link of a process that is gone cannot remove anybody else's; as everybody makes a link before looking, of two that start
// together at least one sees the other.

/** Who a writer is. Texts are as in a URI, and empty where the platform does not tell. */
interface Writer {
  readonly pid: number
  /** When the process started, in the clock ticks of its machine: numbers of processes are used again. */
  readonly started: string
  readonly host: string
  readonly boot: string
  /** The space in which the number of the process is meant: containers have their own. */
  readonly space: string
}

const members = ["pid", "started", "host", "boot", "space"] as const

const encode = (writer: Writer): string => members.map((name) => writer[name]).join(" ")

const decode = (text: string): Writer | undefined => {
  const parts = text.split(" ")
  const pid = Number(parts[0])
  if (parts.length !== members.length || !Number.isSafeInteger(pid)) return undefined
  return { pid, started: parts[1]!, host: parts[2]!, boot: parts[3]!, space: parts[4]! }
}

const readText = (fs: FileSystem.FileSystem, path: string): Effect.Effect<string> =>
  Effect.map(Effect.orElseSucceed(fs.readFileString(path), () => ""), (text) => encodeURIComponent(text.trim()))

/** The 22nd field of /proc/<pid>/stat. The second one is a name in parentheses, which may hold anything. */
const startOf = (fs: FileSystem.FileSystem, pid: number | "self"): Effect.Effect<string> =>
  Effect.map(
    Effect.orElseSucceed(fs.readFileString(`/proc/${pid}/stat`), () => ""),
    (stat) => stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""
  )

const self = Effect.fnUntraced(function*(fs: FileSystem.FileSystem): Effect.fn.Return<Writer> {
  return {
    pid: globalThis.process?.pid ?? 0,
    started: yield* startOf(fs, "self"),
    host: yield* readText(fs, "/proc/sys/kernel/hostname"),
    boot: yield* readText(fs, "/proc/sys/kernel/random/boot_id"),
    space: encodeURIComponent(yield* Effect.orElseSucceed(fs.readLink("/proc/self/ns/pid"), () => ""))
  }
})

/** Whether a writer is gone for certain. Who cannot be asked counts as there. */
const isGone = Effect.fnUntraced(
  function*(fs: FileSystem.FileSystem, writer: Writer, me: Writer): Effect.fn.Return<boolean> {
    if (writer.host !== me.host) return false
    if (writer.boot !== me.boot) return true
    if (writer.space !== me.space) return false
    try {
      // Signal 0 only asks. Processes of other users answer with EPERM, and are there.
      globalThis.process.kill(writer.pid, 0)
    } catch (error) {
      return typeof error === "object" && error !== null && "code" in error && error.code === "ESRCH"
    }
    return writer.started !== "" && (yield* startOf(fs, writer.pid)) !== writer.started
  }
)

/** The right to write to a file. To release it is right at any time, and right to do more than once. */
export interface Lock {
  readonly acquire: Effect.Effect<void, Disk.FileProblem>
  readonly release: Effect.Effect<void>
}

/** The lock of a file, not yet acquired. */
export const lockOf = (fs: FileSystem.FileSystem, path: string): Lock => {
  let mine = ""
  const release = Effect.suspend(() => mine === "" ? Effect.void : Effect.ignore(fs.remove(mine)))
  const setMine = (link: string): void => {
    mine = link
  }
  return { acquire: acquire(fs, path, setMine, release), release }
}

const acquire = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  path: string,
  setMine: (link: string) => void,
  release: Effect.Effect<void>
): Effect.fn.Return<void, Disk.FileProblem> {
  const { base, folder } = Disk.split(path)
  const prefix = `${base}.lock.`
  const me = yield* self(fs)
  let mine = ""

  // The first other writer that is not gone. Removes the links of those that are.
  const other = Effect.gen(function*() {
    const names = yield* Effect.mapError(fs.readDirectory(folder), Disk.unavailable(`${folder} cannot be listed`))
    for (const name of names) {
      const link = path.slice(0, path.length - base.length) + name
      if (!name.startsWith(prefix) || link === mine) continue
      const text = yield* Effect.orElseSucceed(fs.readLink(link), () => undefined)
      // It was there when the folder was listed: its writer has just ended.
      if (text === undefined && (yield* Disk.look(fs, link)) === undefined) continue
      const writer = text === undefined ? undefined : decode(text)
      if (writer === undefined || !(yield* isGone(fs, writer, me))) return { link, writer }
      yield* Effect.ignore(fs.remove(link))
    }
    return undefined
  })

  for (let attempt = 1;; attempt++) {
    mine = `${path}.lock.${me.pid}-${
      Array.from(randomBytes(12), (byte) => byte.toString(16).padStart(2, "0")).join("")
    }`
    setMine(mine)
    yield* Effect.mapError(fs.symlink(encode(me), mine), Disk.unavailable(`${mine} cannot be made`))
    const found = yield* other
    if (found === undefined) return
    yield* release
    // Two that start together may both give way, so each tries again at a time of its own.
    if (attempt === 4) return yield* Effect.fail(refusal(path, found.link, found.writer))
    yield* Effect.sleep(10 + (yield* Random.nextIntBetween(0, 40)))
  }
})

const refusal = (path: string, link: string, writer: Writer | undefined): Disk.FileProblem => {
  const who = writer === undefined ? "a writer that does not say who it is" : `process ${writer.pid}` +
    (writer.host === "" ? "" : ` on ${writer.host}`)
  return { kind: "locked", detail: `${path} is being written by ${who}. If it is gone, remove ${link}` }
}
