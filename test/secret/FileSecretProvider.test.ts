import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Config,
  ConfigProvider,
  Context,
  Effect,
  Fiber,
  FileSystem,
  Layer,
  PlatformError,
  Queue,
  Redacted,
  Stream
} from "effect"
import { FileSecretProvider, SecretProvider, SecretResolver } from "effect-toolops/secret"
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { outcomeOf, resolverOf } from "./resolving.ts"

/** A directory that is gone afterwards. */
const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "toolops-secrets-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** The provider of a directory, asked for one reference after the other. */
const asking = (path: string, refs: ReadonlyArray<string>, options: Partial<FileSecretProvider.Options> = {}) =>
  Effect.flatMap(
    FileSecretProvider.make({ directory: path, ...options }),
    (provider) => Effect.forEach(refs, (ref) => outcomeOf(provider.get(ref)))
  ).pipe(Effect.provide(NodeServices.layer))

/** Puts files into a directory as Kubernetes does: behind `..data`, which is replaced in one step. */
const mount = (root: string, version: string, files: Readonly<Record<string, string>>) => {
  mkdirSync(join(root, `..${version}`))
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(root, `..${version}`, name), content)
    try {
      symlinkSync(join("..data", name), join(root, name))
    } catch {
      // There from the version before.
    }
  }
  symlinkSync(`..${version}`, join(root, "..data_tmp"))
  renameSync(join(root, "..data_tmp"), join(root, "..data"))
}

describe("FileSecretProvider", () => {
  it.effect("reads files below its directory, less one newline at their end", () =>
    Effect.gen(function*() {
      const root = yield* directory
      mkdirSync(join(root, "db"))
      const files = { plain: "a", newline: "b\n", windows: "c\r\n", two: "d\n\n", inner: "e\nf\n", "db/password": "g" }
      for (const [name, content] of Object.entries(files)) writeFileSync(join(root, name), content)
      assert.deepStrictEqual(yield* asking(root, Object.keys(files)), [
        "found a",
        "found b",
        "found c",
        "found d\n",
        "found e\nf",
        "found g"
      ])
    }))

  it.effect("takes no path that leads out, whatever it leads to", () =>
    Effect.gen(function*() {
      const outer = yield* directory
      const root = join(outer, "mounted")
      mkdirSync(join(root, "sub"), { recursive: true })
      writeFileSync(join(outer, "outside"), "o")
      writeFileSync(join(outer, "mounted-too"), "o")
      writeFileSync(join(root, "inside"), "i")
      symlinkSync("../outside", join(root, "relative"))
      symlinkSync(join(outer, "outside"), join(root, "absolute"))
      symlinkSync("../../mounted-too", join(root, "sub", "neighbour"))
      symlinkSync(outer, join(root, "up"))
      symlinkSync("relative", join(root, "twice"))
      symlinkSync("../inside", join(root, "sub", "within"))
      const refused = [
        "../outside",
        "sub/../../outside",
        "/etc/passwd",
        "sub//within",
        "./inside",
        "..",
        ".",
        "",
        "inside/",
        "sub\\..\\inside",
        "inside\0",
        "..data/inside",
        "relative",
        "absolute",
        "sub/neighbour",
        "up/outside",
        "twice"
      ]
      for (const [index, outcome] of (yield* asking(root, refused)).entries()) {
        assert.strictEqual(outcome, "ReferenceRefused", refused[index])
      }
      assert.deepStrictEqual(yield* asking(root, ["sub/within", "inside"]), ["found i", "found i"])
    }))

  it.effect("gives nothing from outside when a link is put in the place of a file or folder while it is read", () =>
    Effect.gen(function*() {
      const outer = yield* directory
      const root = join(outer, "mounted")
      mkdirSync(join(root, "sub"), { recursive: true })
      mkdirSync(join(outer, "elsewhere"))
      for (const path of [join(root, "sub", "a"), join(root, "b")]) writeFileSync(path, "inside")
      writeFileSync(join(outer, "elsewhere", "a"), "outside")
      const swaps: Record<string, () => void> = {
        "sub/a": () => {
          renameSync(join(root, "sub"), join(root, "moved"))
          symlinkSync("../elsewhere", join(root, "sub"))
        },
        b: () => {
          unlinkSync(join(root, "b"))
          symlinkSync("../elsewhere/a", join(root, "b"))
        }
      }
      for (const method of ["stat", "open"] as const) {
        for (const [ref, swap] of Object.entries(swaps)) {
          let isDone = false
          const once = Effect.sync(() => {
            if (!isDone) swap()
            isDone = true
          })
          const Swapping = Layer.effect(
            FileSystem.FileSystem,
            Effect.map(FileSystem.FileSystem, (fs): FileSystem.FileSystem => ({
              ...fs,
              stat: (path) => Effect.andThen(method === "stat" ? once : Effect.void, fs.stat(path)),
              open: (...args) => Effect.andThen(method === "open" ? once : Effect.void, fs.open(...args))
            }))
          )
          const provider = yield* FileSecretProvider.make({ directory: root }).pipe(
            Effect.provide(Layer.merge(NodeServices.layer, Layer.provide(Swapping, NodeServices.layer)))
          )
          assert.strictEqual(yield* outcomeOf(provider.get(ref)), "ReferenceRefused", `${ref} at ${method}`)
          assert.isTrue(isDone)
          rmSync(join(root, ref.split("/")[0]!), { recursive: true })
          if (ref === "b") writeFileSync(join(root, "b"), "inside")
          else renameSync(join(root, "moved"), join(root, "sub"))
        }
      }
    }))

  it.effect("gives nothing from outside when a folder is a link from the first look to the last", () =>
    Effect.gen(function*() {
      const outer = yield* directory
      const root = join(outer, "mounted")
      for (const folder of [join(root, "sub"), join(outer, "elsewhere")]) mkdirSync(folder, { recursive: true })
      writeFileSync(join(root, "sub", "a"), "inside!")
      writeFileSync(join(outer, "elsewhere", "a"), "outside")
      let isAway = false
      let reads = 0
      const lead = Effect.sync(() => {
        if (isAway || reads > 0) return
        isAway = true
        renameSync(join(root, "sub"), join(root, "moved"))
        symlinkSync("../elsewhere", join(root, "sub"))
      })
      const back = Effect.sync(() => {
        if (!isAway) return
        isAway = false
        reads += 1
        unlinkSync(join(root, "sub"))
        renameSync(join(root, "moved"), join(root, "sub"))
      })
      const Swapping = Layer.effect(
        FileSystem.FileSystem,
        Effect.map(FileSystem.FileSystem, (fs): FileSystem.FileSystem => ({
          ...fs,
          stat: (path) => Effect.andThen(lead, fs.stat(path)),
          realPath: (path) => Effect.andThen(back, fs.realPath(path))
        }))
      )
      const provider = yield* FileSecretProvider.make({ directory: root }).pipe(
        Effect.provide(Layer.merge(NodeServices.layer, Layer.provide(Swapping, NodeServices.layer)))
      )
      // Noticed, and read again when all is as it should be.
      assert.strictEqual(yield* outcomeOf(provider.get("sub/a")), "found inside!")
      assert.strictEqual(reads, 1)
    }))

  it.effect("gives nothing from outside when a link is there only while the file is opened", () =>
    Effect.gen(function*() {
      const outer = yield* directory
      const root = join(outer, "mounted")
      mkdirSync(root)
      writeFileSync(join(outer, "elsewhere"), "outside")
      writeFileSync(join(root, "a"), "inside!")
      const put = (swap: () => void) => Effect.sync(swap)
      const lead = put(() => {
        renameSync(join(root, "a"), join(root, "kept"))
        symlinkSync("../elsewhere", join(root, "a"))
      })
      const back = put(() => {
        unlinkSync(join(root, "a"))
        renameSync(join(root, "kept"), join(root, "a"))
      })
      const Swapping = Layer.effect(
        FileSystem.FileSystem,
        Effect.map(FileSystem.FileSystem, (fs): FileSystem.FileSystem => ({
          ...fs,
          open: (...args) => Effect.andThen(lead, Effect.tap(fs.open(...args), () => back))
        }))
      )
      const provider = yield* FileSecretProvider.make({ directory: root }).pipe(
        Effect.provide(Layer.merge(NodeServices.layer, Layer.provide(Swapping, NodeServices.layer)))
      )
      assert.strictEqual(yield* outcomeOf(provider.get("a")), "SecretUnavailable failed")
    }))

  it.effect.skipIf(process.platform !== "linux")(
    "gives nothing from outside when a folder is a link whenever the file is looked at, and none when the path is",
    () =>
      Effect.gen(function*() {
        const outer = yield* directory
        const root = join(outer, "mounted")
        for (const folder of [join(root, "sub"), join(outer, "elsewhere")]) mkdirSync(folder, { recursive: true })
        writeFileSync(join(root, "sub", "a"), "inside!")
        writeFileSync(join(outer, "elsewhere", "a"), "outside")
        let isAway = false
        let swaps = 0
        const lead = Effect.sync(() => {
          if (isAway) return
          isAway = true
          swaps++
          renameSync(join(root, "sub"), join(root, "moved"))
          symlinkSync("../elsewhere", join(root, "sub"))
        })
        const back = Effect.sync(() => {
          if (!isAway) return
          isAway = false
          unlinkSync(join(root, "sub"))
          renameSync(join(root, "moved"), join(root, "sub"))
        })
        const Swapping = Layer.effect(
          FileSystem.FileSystem,
          Effect.map(FileSystem.FileSystem, (fs): FileSystem.FileSystem => ({
            ...fs,
            stat: (path) => Effect.andThen(lead, fs.stat(path)),
            open: (...args) => Effect.andThen(lead, fs.open(...args)),
            realPath: (path) => Effect.andThen(back, fs.realPath(path))
          }))
        )
        const provider = yield* FileSecretProvider.make({ directory: root }).pipe(
          Effect.provide(Layer.merge(NodeServices.layer, Layer.provide(Swapping, NodeServices.layer)))
        )
        assert.strictEqual(yield* outcomeOf(provider.get("sub/a")), "SecretUnavailable failed")
        assert.isAbove(swaps, 1)
      })
  )

  it.effect("gives nothing when the system does not say where the open file is, unless it tells that of no file", () =>
    Effect.gen(function*() {
      const root = yield* directory
      writeFileSync(join(root, "a"), "inside!")
      for (
        const [_tag, outcome] of [
          ["NotFound", "found inside!"],
          ["PermissionDenied", "SecretUnavailable failed"],
          ["Unknown", "SecretUnavailable failed"]
        ] as const
      ) {
        const Silent = Layer.effect(
          FileSystem.FileSystem,
          Effect.map(FileSystem.FileSystem, (fs): FileSystem.FileSystem => ({
            ...fs,
            readLink: () => Effect.fail(PlatformError.systemError({ _tag, module: "FileSystem", method: "readLink" }))
          }))
        )
        const provider = yield* FileSecretProvider.make({ directory: root }).pipe(
          Effect.provide(Layer.merge(NodeServices.layer, Layer.provide(Silent, NodeServices.layer)))
        )
        assert.strictEqual(yield* outcomeOf(provider.get("a")), outcome)
      }
    }))

  it.effect("says what is not there, what may not be read and what is no text", () =>
    Effect.gen(function*() {
      const root = yield* directory
      writeFileSync(join(root, "empty"), "")
      writeFileSync(join(root, "newline"), "\n")
      writeFileSync(join(root, "exact"), "x".repeat(10))
      writeFileSync(join(root, "large"), "x".repeat(11))
      writeFileSync(join(root, "binary"), Buffer.from([0xff, 0xfe, 0x00]))
      mkdirSync(join(root, "folder"))
      symlinkSync("loop", join(root, "loop"))
      symlinkSync("gone", join(root, "dangling"))
      execFileSync("mkfifo", [join(root, "pipe")])
      const refs = [
        "empty",
        "newline",
        "exact",
        "large",
        "binary",
        "folder",
        "loop",
        "dangling",
        "pipe",
        "nope",
        "exact/x"
      ]
      assert.deepStrictEqual(yield* asking(root, refs, { maxBytes: 10 }), [
        "SecretNotFound",
        "SecretNotFound",
        `found ${"x".repeat(10)}`,
        "SecretUnavailable unreadable",
        "SecretUnavailable unreadable",
        "SecretNotFound",
        ...Array.from({ length: 5 }, () => "SecretNotFound")
      ])
    }))

  it.effect("says denied where the file system does", () =>
    Effect.gen(function*() {
      // Whoever runs the tests may be root, to whom nothing is denied.
      const denied = PlatformError.systemError({ _tag: "PermissionDenied", module: "FileSystem", method: "open" })
      const broken = PlatformError.systemError({ _tag: "Unknown", module: "FileSystem", method: "realPath" })
      for (const [error, outcome] of [[denied, "denied"], [broken, "failed"]] as const) {
        const provider = yield* FileSecretProvider.make({ directory: "/mounted" }).pipe(
          Effect.provide(Layer.merge(
            FileSystem.layerNoop({ realPath: () => Effect.fail(error) }),
            NodeServices.layer.pipe(
              Layer.build,
              Effect.map((context) => Context.omit(FileSystem.FileSystem)(context)),
              Layer.effectContext
            )
          ))
        )
        assert.strictEqual(yield* outcomeOf(provider.get("a")), `SecretUnavailable ${outcome}`)
      }
    }))

  it.live("follows the links of Kubernetes, and reads one version or the other while they are swapped", () =>
    Effect.gen(function*() {
      const root = yield* directory
      mount(root, "0", { password: "version 0" })
      const provider = yield* Effect.provide(FileSecretProvider.make({ directory: root }), NodeServices.layer)
      assert.strictEqual(yield* outcomeOf(provider.get("password")), "found version 0")
      const reading = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 1000 }), () => outcomeOf(provider.get("password")), { concurrency: 4 })
      )
      for (let version = 1; version <= 50; version++) {
        mount(root, String(version), { password: `version ${version}` })
        rmSync(join(root, `..${version - 1}`), { recursive: true })
        yield* Effect.sleep("10 millis")
      }
      for (const outcome of yield* Fiber.join(reading)) assert.match(outcome, /^found version \d+$/)
      assert.strictEqual(yield* outcomeOf(provider.get("password")), "found version 50")
    }))

  it.live("is read again whenever it is asked, and tells who watches at once", () =>
    Effect.gen(function*() {
      const root = yield* directory
      mount(root, "0", { password: "old" })
      const provider = yield* Effect.provide(FileSecretProvider.make({ directory: root }), NodeServices.layer)
      const Resolver = resolverOf([provider], { refreshInterval: "1 hour" })
      yield* Effect.gen(function*() {
        const resolver = yield* SecretResolver.SecretResolver
        const seen = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          Stream.runForEach(resolver.changes("secretref:file:password"), (value) =>
            Queue.offer(seen, Redacted.value(value)))
        )
        assert.strictEqual(yield* Queue.take(seen), "old")
        mount(root, "1", { password: "new" })
        assert.strictEqual(Redacted.value(yield* resolver.resolveValue("secretref:file:password")), "new")
        assert.strictEqual(yield* Queue.take(seen), "new")
        mount(root, "2", { password: "newer" })
        assert.strictEqual(yield* Queue.take(seen), "newer")
      }).pipe(Effect.scoped, Effect.provide(Resolver))
    }))

  it.effect("refuses a directory that depends on where the program was started", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(asking("secrets", []))
      assert.include(String(exit), "directory must be an absolute path")
      assert.throws(() => FileSecretProvider.make({ directory: "/a", maxBytes: 0 }), "maxBytes")
    }))

  it.effect("takes its options from the configuration", () =>
    Effect.gen(function*() {
      const root = yield* directory
      writeFileSync(join(root, "a"), "1")
      const Files = FileSecretProvider.layerConfig({
        directory: Config.String("SECRETS"),
        name: Config.succeed("mounted")
      })
      const { providers } = yield* Effect.provide(
        SecretProvider.SecretProvider,
        Files.pipe(
          Layer.provide(NodeServices.layer),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ SECRETS: root })))
        )
      )
      assert.strictEqual(yield* outcomeOf(providers.get("mounted")!.get("a")), "found 1")
    }))
})
