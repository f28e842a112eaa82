import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, PlatformError, Redacted, Scope, Stream } from "effect"
import { BitwardenSecretProvider, SecretProvider, SecretResolver, VaultSecretProvider } from "effect-toolops/secret"
import { FetchHttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import { readFileSync } from "node:fs"
import { inspect } from "node:util"
import * as Public from "../../src/secret/index.ts"
import { outcomeOf, resolverOf } from "../secret/resolving.ts"
import { Processes, sh, stubs } from "../secret/stubs.ts"
import { makeVault } from "../secret/vaultServer.ts"

// What the Go library and its integrations got wrong about secrets, one test each.

const resolve = (text: string, variables: Record<string, string> = {}, strict = true) =>
  Effect.flatMap(SecretResolver.SecretResolver, (resolver) => resolver.resolveValue(text)).pipe(
    Effect.map(Redacted.value),
    Effect.provide(resolverOf(
      [SecretProvider.memory({ k: "v", evil: "secretref:p:k ${HOME} $$" }, { name: "p" })],
      { variables, strict }
    ))
  )

const fails = (text: string, tag: string, strict = true) =>
  Effect.map(
    Effect.flip(resolve(text, {}, strict)),
    (error) => assert.strictEqual(error.reason._tag, tag as never, text)
  )

const counting = (more: Partial<SecretProvider.Provider> = {}) => {
  const asked = { count: 0 }
  const provider = SecretProvider.make({
    name: "p",
    get: (ref) =>
      Effect.sync(() => {
        asked.count++
        return Redacted.make(`${ref} ${asked.count}`)
      }),
    ...more
  })
  return { asked, provider }
}

const value = (text: string) =>
  Effect.flatMap(
    SecretResolver.SecretResolver,
    (resolver) => Effect.map(resolver.resolveValue(text), Redacted.value)
  )

describe("secret regressions", () => {
  it.effect("a value is not scanned for references, wherever it comes from", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* resolve("${EVIL}", { EVIL: "secretref:p:k" }), "secretref:p:k")
      assert.strictEqual(yield* resolve("x${EVIL}p:k", { EVIL: "secretref:" }), "xsecretref:p:k")
      assert.strictEqual(yield* resolve("secretref:p:evil"), "secretref:p:k ${HOME} $$")
    }))

  it.effect("a malformed reference is an error and not a credential, strict or not", () =>
    Effect.gen(function*() {
      for (const text of ["secretref:p", "secretref::k", "secretref:", "token secretref:p", "${secretref:p}"]) {
        yield* fails(text, "MalformedReference")
        yield* fails(text, "MalformedReference", false)
      }
    }))

  it.effect("quotes, commas and braces stay outside of a reference in a text", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* resolve("{\"a\":\"secretref:p:k\"}"), "{\"a\":\"v\"}")
      assert.strictEqual(yield* resolve("[secretref:p:k, secretref:p:k]"), "[v, v]")
      assert.strictEqual(yield* resolve("('secretref:p:k',<secretref:p:k>;`secretref:p:k`)"), "('v',<v>;`v`)")
    }))

  it.effect("a variable without braces is refused, one that is missing too", () =>
    Effect.gen(function*() {
      yield* fails("$HOME", "MalformedReference")
      yield* fails("pa$word", "MalformedReference")
      yield* fails("${MISSING}", "VariableNotSet")
      yield* fails("${MISSING}", "VariableNotSet", false)
      assert.strictEqual(yield* resolve("pa$$word"), "pa$word")
      assert.strictEqual(yield* resolve("pa$word", {}, false), "pa$word")
    }))

  it("providers are given once, and nothing can register another while secrets are read", () => {
    const providers = [SecretProvider.memory({}, { name: "a" })]
    const layer = SecretProvider.layer(...providers)
    providers.push(SecretProvider.memory({}, { name: "b" }))
    return Effect.runPromise(
      Effect.gen(function*() {
        const service = yield* SecretProvider.SecretProvider
        assert.deepStrictEqual([...service.providers.keys()], ["a"])
        assert.isFalse("register" in service)
        assert.isFalse("register" in Public.SecretProvider)
      }).pipe(Effect.provide(layer))
    )
  })

  describe("what was missing altogether", () => {
    it.effect("a value is kept for a while, and then fetched again", () => {
      const { asked, provider } = counting()
      return Effect.gen(function*() {
        for (let i = 0; i < 3; i++) assert.strictEqual(yield* value("secretref:p:a"), "a 1")
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(yield* value("secretref:p:a"), "a 2")
        assert.strictEqual(asked.count, 2)
      }).pipe(Effect.provide(resolverOf([provider])))
    })

    it.effect("callers that ask at the same time share one fetch, also when the first of them leaves", () =>
      Effect.gen(function*() {
        const release = yield* Deferred.make<void>()
        let asked = 0
        const { provider } = counting({
          get: () => Effect.suspend(() => (asked++, Effect.as(Deferred.await(release), Redacted.make("v"))))
        })
        yield* Effect.gen(function*() {
          const fibers = yield* Effect.forEach(
            Array.from({ length: 50 }),
            () => Effect.forkChild(value("secretref:p:a"), { startImmediately: true })
          )
          yield* Fiber.interrupt(fibers[0]!)
          yield* Deferred.succeed(release, undefined)
          assert.deepStrictEqual(yield* Fiber.joinAll(fibers.slice(1)), fibers.slice(1).map(() => "v"))
          assert.strictEqual(asked, 1)
        }).pipe(Effect.provide(resolverOf([provider])))
      }))

    it.effect("a provider that does not answer holds nobody up", () => {
      const { provider } = counting({ get: () => Effect.never })
      return Effect.gen(function*() {
        const asking = yield* Effect.forkChild(Effect.flip(value("secretref:p:a")), { startImmediately: true })
        yield* TestClock.adjust("10 seconds")
        assert.deepInclude((yield* Fiber.join(asking)).reason, { _tag: "SecretUnavailable", problem: "timeout" })
      }).pipe(Effect.provide(resolverOf([provider])))
    })

    it.effect("providers end with the program", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const Providers = SecretProvider.layerEffect(
          Effect.as(
            Effect.acquireRelease(Effect.sync(() => log.push("open")), () => Effect.sync(() => log.push("close"))),
            [counting().provider]
          )
        )
        const scope = yield* Scope.make()
        yield* Layer.buildWithScope(SecretResolver.layer().pipe(Layer.provide(Providers)), scope)
        assert.deepStrictEqual(log, ["open"])
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(log, ["open", "close"])
      }))

    it.effect("a secret does not print, and an error tells nothing that a provider says", () => {
      const broken = counting({
        get: () =>
          Effect.die(
            PlatformError.systemError({ _tag: "Unknown", module: "FileSystem", method: "v-4711", cause: "v-4711" })
          )
      })
      return Effect.gen(function*() {
        const resolver = yield* SecretResolver.SecretResolver
        const exit = yield* Effect.exit(resolver.resolveValue("secretref:p:a"))
        const kept = yield* resolver.resolveValue("secretref:memory:a")
        assert.strictEqual(Redacted.value(kept), "v-4711")
        assert.isTrue(Exit.isFailure(exit))
        const texts = [
          inspect(exit, { depth: 9 }),
          JSON.stringify(exit),
          `${kept}`,
          inspect(kept),
          JSON.stringify(kept)
        ]
        if (Exit.isFailure(exit)) texts.push(Cause.pretty(exit.cause))
        for (const text of texts) assert.notInclude(text, "v-4711")
      }).pipe(Effect.provide(resolverOf([broken.provider, SecretProvider.memory({ a: "v-4711" })])))
    })

    it.effect("a secret that is rotated is noticed, and an older version can be had", () =>
      Effect.gen(function*() {
        const secrets = new Map([["a", "1"]])
        const two = yield* Effect.forkChild(
          Effect.flatMap(
            SecretResolver.SecretResolver,
            (resolver) =>
              Stream.runForEach(Stream.take(resolver.changes("secretref:memory:a"), 2), (one) =>
                Effect.sync(() => secrets.set("a", `${Redacted.value(one)}2`)))
          ).pipe(Effect.provide(resolverOf([SecretProvider.memory(secrets)])))
        )
        yield* Effect.promise(() =>
          new Promise((resolve) => setTimeout(resolve, 50))
        )
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(two)
        assert.strictEqual(secrets.get("a"), "122")

        const vault = yield* makeVault
        vault.state.secrets.set("secret/data/a", [{ value: "old" }, { value: "new" }])
        const provider = yield* VaultSecretProvider.make({
          address: vault.address,
          auth: { type: "token", token: Redacted.make("root") }
        }).pipe(Effect.provide([FetchHttpClient.layer, Processes]))
        assert.strictEqual(yield* outcomeOf(provider.get("a#value#1")), "found old")
        assert.strictEqual(yield* outcomeOf(provider.get("a")), "found new")
      }))

    it("there are providers for the environment, files, Vault, 1Password and others by their programs", () => {
      for (
        const make of [
          SecretProvider.env,
          Public.FileSecretProvider.make,
          Public.VaultSecretProvider.make,
          Public.CommandSecretProvider.make,
          Public.BitwardenSecretProvider.make
        ]
      ) assert.isFunction(make)
    })
  })

  describe("Bitwarden", () => {
    const id = "382580ab-1368-4e85-bfa3-b02e01400c9f"
    const shop = "e325ea69-a3ab-4dff-836f-b02e013fe530"
    const entry = (key: string, of = id) => `{"id":"${of}","key":"${key}","value":"v-${key}"}`
    const projects = (...names: ReadonlyArray<string>) => JSON.stringify(names.map((name) => ({ id: shop, name })))

    /** `bws` in its simplest form. */
    const bws = (list: string, secrets: string) =>
      sh(`echo "$1 $2 $3" >> "$CALLS"
case "$1 $2" in
  "project list") echo '${list}' ;;
  "secret list") echo '${secrets}' ;;
  "secret get") echo '${entry("k")}' ;;
esac`)

    const installed = (list: string, secrets: string, options: Partial<BitwardenSecretProvider.Options> = {}) =>
      Effect.gen(function*() {
        const folder = yield* stubs({ bws: bws(list, secrets) })
        const provider = yield* Effect.provide(
          BitwardenSecretProvider.make({
            accessToken: Redacted.make("t"),
            env: { PATH: folder.path, CALLS: `${folder.path}/calls` },
            ...options
          }),
          Processes
        )
        return { provider, calls: () => (folder.read("calls") ?? "").trim().split("\n").map((line) => line.trim()) }
      })

    it.effect("a value is fetched once while it is kept", () =>
      Effect.gen(function*() {
        const { calls, provider } = yield* installed("[]", "[]")
        yield* Effect.forEach([1, 2, 3], () => value(`secretref:bws:${id}`)).pipe(
          Effect.provide(resolverOf([provider]))
        )
        assert.deepStrictEqual(calls(), [`secret get ${id}`])
      }))

    it.effect("names are looked up once for many, in their project and not in the whole organisation", () =>
      Effect.gen(function*() {
        const { calls, provider } = yield* installed(projects("p"), `[${entry("k")}]`)
        const asking = Effect.forEach(Array.from({ length: 5 }), () => provider.get("project/p/key/k"), {
          concurrency: "unbounded"
        })
        yield* asking
        assert.deepStrictEqual(calls().filter((line) => !line.startsWith("secret get")), [
          "project list --output",
          `secret list ${shop}`
        ])
      }))

    it.effect("a name that two secrets have stands for neither", () =>
      Effect.gen(function*() {
        const { provider } = yield* installed(projects("p"), `[${entry("k")},${entry("k", shop)}]`)
        assert.strictEqual(yield* outcomeOf(provider.get("project/p/key/k")), "SecretUnavailable ambiguous")
        const twice = yield* installed(projects("p", "p"), `[${entry("k")}]`)
        assert.strictEqual(yield* outcomeOf(twice.provider.get("project/p/key/k")), "SecretUnavailable ambiguous")
      }))

    it.effect("projects and keys may hold slashes", () =>
      Effect.gen(function*() {
        const { provider } = yield* installed(projects("a/b"), `[${entry("c/d")}]`)
        assert.strictEqual(yield* outcomeOf(provider.get("project/a/b/key/c/d")), "found v-k")
      }))

    it.effect("remembering names can be turned off", () =>
      Effect.gen(function*() {
        const { calls, provider } = yield* installed(projects("p"), `[${entry("k")}]`, { namesTtl: 0 })
        yield* provider.get("project/p/key/k")
        yield* provider.get("project/p/key/k")
        assert.strictEqual(calls().filter((line) => line.startsWith("project list")).length, 2)
      }))

    it.effect("a question that nobody waits for is not asked to its end", () =>
      Effect.gen(function*() {
        const folder = yield* stubs({ bws: sh("echo $$ > \"$CALLS\"; exec /bin/sleep 1000") })
        const provider = yield* Effect.provide(
          BitwardenSecretProvider.make({
            accessToken: Redacted.make("t"),
            env: { PATH: folder.path, CALLS: `${folder.path}/calls` }
          }),
          Processes
        )
        const asking = yield* Effect.forkChild(provider.get(id))
        const pid = yield* Effect.promise(async () => {
          while (folder.read("calls")?.endsWith("\n") !== true) await new Promise((resolve) => setTimeout(resolve, 5))
          return Number(folder.read("calls"))
        })
        yield* Fiber.interrupt(asking)
        assert.throws(() => process.kill(pid, 0))
      }))

    it("nothing has to be compiled for it", () => {
      const { dependencies } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"))
      for (const name of Object.keys(dependencies)) assert.notMatch(name, /bitwarden/)
    })
  })
})
