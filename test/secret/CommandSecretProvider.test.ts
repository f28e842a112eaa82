import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Context, Effect, Exit, Fiber, Layer, Redacted, Scope } from "effect"
import { CommandSecretProvider, SecretProvider, SecretResolver } from "effect-toolops/secret"
import { TestClock } from "effect/testing"
import { existsSync, readFileSync } from "node:fs"
import { outcomeOf } from "./resolving.ts"
import { Processes, sh, stubs } from "./stubs.ts"

/** A provider that runs one script, which is on its PATH and on nobody else's. */
const running = (script: string, options: Partial<CommandSecretProvider.Options> = {}) =>
  Effect.gen(function*() {
    const folder = yield* stubs({ stub: sh(script) })
    const provider = yield* Effect.provide(
      CommandSecretProvider.make({
        command: "stub",
        ...options,
        env: { PATH: folder.path, FOLDER: folder.path, ...options.env }
      }),
      Processes
    )
    return { folder, get: (ref: string) => outcomeOf(provider.get(ref)) }
  })

// What has ended may stay on as an entry that nobody has fetched yet, where the first process of a container does not.
const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return !existsSync("/proc/self/stat") || !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

/** The number that a script has written to a file, as soon as it is there. */
const pidFrom = (read: () => string | undefined) =>
  Effect.promise(async () => {
    for (;;) {
      const text = read()
      if (text?.endsWith("\n")) return Number(text)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  })

describe("CommandSecretProvider", () => {
  it.effect("gives what the program prints, less one newline", () =>
    Effect.gen(function*() {
      for (
        const [script, outcome] of [
          ["printf 'a'", "found a"],
          ["printf 'b\\n'", "found b"],
          ["printf 'c\\r\\n'", "found c"],
          ["printf 'd\\n\\n'", "found d\n"],
          ["printf ' e '", "found  e "],
          ["printf ''", "SecretNotFound"],
          ["printf '\\n'", "SecretNotFound"],
          ["printf '\\377\\376'", "SecretUnavailable unreadable"],
          ["printf 'f'; exit 1", "SecretUnavailable failed"],
          ["printf 'g'; kill -9 $$", "SecretUnavailable failed"]
        ] as const
      ) {
        const { get } = yield* running(script)
        assert.strictEqual(yield* get("r"), outcome, script)
      }
    }))

  it.effect("hands the reference over as one argument, after --, whatever it holds", () =>
    Effect.gen(function*() {
      const { get } = yield* running(`for a in "$@"; do printf '<%s>' "$a"; done`, { args: ["show", "-o"] })
      const refs = ["web/token", "a b", "$(id)", "`id`", "; id", "a'b\"c", "*", "a\\nb", "{ref}", "${HOME}", "a|b>c"]
      for (const ref of refs) assert.strictEqual(yield* get(ref), `found <show><-o><--><${ref}>`)
      const op = yield* running(`for a in "$@"; do printf '<%s>' "$a"; done`, {
        args: ["read"],
        argument: "op://{ref}"
      })
      assert.strictEqual(yield* op.get("v/$&/f"), "found <read><--><op://v/$&/f>")
      const plain = yield* running(`for a in "$@"; do printf '<%s>' "$a"; done`, { separator: false })
      assert.strictEqual(yield* plain.get("a"), "found <a>")
    }))

  it.effect("refuses what could be an option or is no name, and does not start the program for it", () =>
    Effect.gen(function*() {
      for (const separator of [true, false]) {
        const { folder, get } = yield* running(`echo x >> "$FOLDER/ran"; echo s`, { separator, argument: "{ref}" })
        for (const ref of ["-o", "--help", "-", "", "a\0b", "a\nb", "\ud800"]) {
          assert.strictEqual(yield* get(ref), "ReferenceRefused")
        }
        assert.isUndefined(folder.read("ran"))
        assert.strictEqual(yield* get("a-o"), "found s")
        assert.isDefined(folder.read("ran"))
      }
    }))

  it.effect("gives the program the variables it needs and none of this process", () =>
    Effect.gen(function*() {
      process.env.TOOLOPS_TEST_CANARY = "canary"
      yield* Effect.addFinalizer(() => Effect.sync(() => delete process.env.TOOLOPS_TEST_CANARY))
      const { folder, get } = yield* running("exec /usr/bin/env", { env: { TOKEN: Redacted.make("t") } })
      const seen = (yield* get("r")).replace("found ", "").split("\n").toSorted()
      assert.deepStrictEqual(
        seen.filter((line) => !/^(?:PWD|_|SHLVL|OLDPWD)=/.test(line)),
        [`FOLDER=${folder.path}`, `HOME=${process.env.HOME}`, `PATH=${folder.path}`, "TOKEN=t"]
      )
      const other = yield* running("exec /usr/bin/env", { inherit: ["TOOLOPS_TEST_CANARY"] })
      assert.include(yield* other.get("r"), "TOOLOPS_TEST_CANARY=canary")
    }))

  it.effect("ends a program that prints more than it may, and one that never stops", () =>
    Effect.gen(function*() {
      const exact = yield* running("printf '0123456789'", { maxBytes: 10 })
      assert.strictEqual(yield* exact.get("r"), "found 0123456789")
      const more = yield* running("printf '0123456789a'", { maxBytes: 10 })
      assert.strictEqual(yield* more.get("r"), "SecretUnavailable unreadable")
      const endless = yield* running(`echo $$ > "$FOLDER/pid"; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done`)
      assert.strictEqual(yield* endless.get("r"), "SecretUnavailable unreadable")
      assert.isFalse(isAlive(Number(endless.folder.read("pid"))))
    }))

  it.effect("does not wait for who reads its complaints, however many there are", () =>
    Effect.gen(function*() {
      const { get } = yield* running("i=0; while [ $i -lt 20000 ]; do echo complaint >&2; i=$((i+1)); done; printf s")
      assert.strictEqual(yield* get("r"), "found s")
    }))

  it.effect("kills a program that takes too long, also one that ignores it, with what it has started", () =>
    Effect.gen(function*() {
      const { folder, get } = yield* running(
        `trap '' TERM; /bin/sleep 1000 & echo $! > "$FOLDER/child"; echo $$ > "$FOLDER/pid"; while :; do /bin/sleep 1; done`
      )
      const asking = yield* Effect.forkChild(get("r"))
      const pid = yield* pidFrom(() => folder.read("pid"))
      assert.isTrue(isAlive(pid))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(asking), "SecretUnavailable timeout")
      assert.isFalse(isAlive(pid))
      assert.isFalse(isAlive(Number(folder.read("child"))))
    }))

  it.effect("kills the program when nobody asks any more", () =>
    Effect.gen(function*() {
      const { folder, get } = yield* running(`echo $$ > "$FOLDER/pid"; exec /bin/sleep 1000`)
      const asking = yield* Effect.forkChild(get("r"))
      const pid = yield* pidFrom(() => folder.read("pid"))
      yield* Fiber.interrupt(asking)
      assert.isFalse(isAlive(pid))
    }))

  it.effect("has killed the program when the resolver has closed, also one that ignores SIGTERM", () =>
    Effect.gen(function*() {
      const folder = yield* stubs({
        stub: sh(`trap '' TERM; echo $$ > "$FOLDER/pid"; while :; do /bin/sleep 1; done`)
      })
      const Commands = CommandSecretProvider.layer({
        command: "stub",
        env: { PATH: folder.path, FOLDER: folder.path }
      })
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        SecretResolver.layer().pipe(Layer.provide(Commands), Layer.provide(Processes)),
        scope
      )
      const resolver = Context.get(context, SecretResolver.SecretResolver)
      const asking = yield* Effect.forkChild(
        outcomeOf(resolver.resolveValue("secretref:command:r")),
        { startImmediately: true }
      )
      const pid = yield* pidFrom(() => folder.read("pid"))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(isAlive(pid))
      assert.strictEqual(yield* Fiber.join(asking), "SecretUnavailable failed")
    }))

  it.effect("runs no more at a time than it may", () =>
    Effect.gen(function*() {
      const { folder, get } = yield* running(
        `echo + >> "$FOLDER/log"; /bin/sleep 0.05; echo - >> "$FOLDER/log"; printf s`,
        { maxConcurrent: 2 }
      )
      yield* Effect.forEach(["a", "b", "c", "d", "e"], get, { concurrency: "unbounded" })
      let now = 0
      let most = 0
      for (const sign of folder.read("log")!.trim().split("\n")) most = Math.max(most, now += sign === "+" ? 1 : -1)
      assert.strictEqual(most, 2)
    }))

  it.effect("fails where there is no such program", () =>
    Effect.gen(function*() {
      const provider = yield* Effect.provide(
        CommandSecretProvider.make({ command: "toolops-no-such-program" }),
        Processes
      )
      assert.strictEqual(yield* outcomeOf(provider.get("r")), "SecretUnavailable failed")
    }))

  it("refuses options that make no sense", () => {
    const made = (options: object) => () => CommandSecretProvider.make({ command: "c", ...options })
    assert.throws(made({ command: "" }), "command must be a non-empty string")
    assert.throws(made({ argument: "x" }), "argument")
    assert.throws(made({ argument: "{ref}{ref}" }), "argument")
    assert.throws(made({ argument: "--id={ref}" }), "argument")
    assert.throws(made({ args: ["a\0"] }), "args")
    assert.throws(made({ env: { A: 1 } }), "env")
    assert.throws(made({ env: { "A=B": "1" } }), "env")
    assert.throws(made({ timeout: 0 }), "timeout")
    assert.throws(made({ maxBytes: 0 }), "maxBytes")
    assert.throws(made({ maxConcurrent: 0 }), "maxConcurrent")
    assert.throws(made({ shell: true }), "shell")
  })

  it.effect("takes its options from the configuration", () =>
    Effect.gen(function*() {
      const folder = yield* stubs({ stub: sh(`printf '%s' "$2"`) })
      const Commands = CommandSecretProvider.layerConfig({
        name: Config.succeed("op"),
        command: Config.String("COMMAND")
      })
      const { providers } = yield* Effect.provide(
        SecretProvider.SecretProvider,
        Commands.pipe(
          Layer.provide(Processes),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ COMMAND: `${folder.path}/stub` })))
        )
      )
      assert.strictEqual(yield* outcomeOf(providers.get("op")!.get("a/b")), "found a/b")
    }))
})
