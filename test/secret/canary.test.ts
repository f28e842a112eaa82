import { NodeFileSystem, NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Effect,
  Exit,
  type FileSystem,
  Layer,
  Logger,
  type Path,
  Redacted,
  References,
  type Scope,
  Stream,
  Tracer
} from "effect"
import {
  BitwardenSecretProvider,
  CommandSecretProvider,
  FileSecretProvider,
  SecretConfig,
  type SecretError,
  SecretProvider,
  SecretResolver,
  VaultSecretProvider
} from "effect-toolops/secret"
import { FetchHttpClient, HttpClient } from "effect/http"
import type { ChildProcessSpawner } from "effect/process"
import { mkdirSync, writeFileSync } from "node:fs"
import * as Http from "node:http"
import { join } from "node:path"
import { inspect } from "node:util"
import { resolverOf } from "./resolving.ts"
import { sh, stubs } from "./stubs.ts"
import { makeVault } from "./vaultServer.ts"

// A value that must be nowhere but inside of what is redacted, whatever goes wrong and however one looks at it.
const canary = "canary-7f3a91"

const Platform = Layer.merge(NodeServices.layer, FetchHttpClient.layer)

const shown = (value: unknown): ReadonlyArray<string> => {
  const texts = [
    inspect(value, { depth: 20, showHidden: true, getters: true }),
    `${value}`,
    String(JSON.stringify(value, (_, member) => typeof member === "bigint" ? String(member) : member))
  ]
  if (value instanceof Error) texts.push(value.stack ?? "", String(value.cause))
  if (Exit.isExit(value) && Exit.isFailure(value)) {
    texts.push(Cause.pretty(value.cause), ...shown(Cause.squash(value.cause)))
  }
  return texts
}

/** Everything that can be seen of an effect from outside: what comes of it, what it logs and which spans it makes. */
const everythingOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const told: Array<unknown> = []
    const spans: Array<unknown> = []
    const exit = yield* Effect.exit(effect).pipe(
      Effect.withSpan("outer"),
      Effect.provide(Logger.layer([Logger.make((entry) => void told.push(entry))])),
      Effect.provideService(References.MinimumLogLevel, "All"),
      Effect.provideService(
        Tracer.Tracer,
        Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
      )
    )
    const logged = (told as ReadonlyArray<Logger.Options<unknown>>).flatMap((entry) => [
      ...shown(entry.message),
      Cause.pretty(entry.cause)
    ])
    const traced = spans.flatMap((span) => {
      const { attributes, events, name, status } = span as Tracer.NativeSpan
      return shown([name, [...attributes], events, status])
    })
    return { exit, texts: [...shown(exit), ...logged, ...traced] }
  })

type Made = Effect.Effect<
  SecretProvider.Provider,
  never,
  | ChildProcessSpawner.ChildProcessSpawner
  | FileSystem.FileSystem
  | Path.Path
  | HttpClient.HttpClient
  | Scope.Scope
>

const command = (script: string, options: Partial<CommandSecretProvider.Options> = {}): Made =>
  Effect.flatMap(
    stubs({ stub: sh(script) }),
    ({ path }) =>
      CommandSecretProvider.make({ command: "stub", ...options, env: { PATH: path, S: Redacted.make(canary) } })
  )

const bws = (script: string): Made =>
  Effect.flatMap(
    stubs({ bws: sh(script) }),
    ({ path }) => BitwardenSecretProvider.make({ accessToken: Redacted.make(canary), env: { PATH: path } })
  )

const vault = (reply: (response: Http.ServerResponse) => void, isLogin = false): Made =>
  Effect.gen(function*() {
    const { address, state } = yield* makeVault
    const folder = yield* stubs({ jwt: canary })
    state.override = (_, response) => {
      reply(response)
      return true
    }
    return yield* VaultSecretProvider.make({
      address,
      maxBytes: 200,
      auth: isLogin
        ? { type: "kubernetes", role: canary, jwtPath: join(folder.path, "jwt") }
        : { type: "token", token: Redacted.make(canary) }
    })
  })

const says =
  (status: number, body: string = canary, headers: Http.OutgoingHttpHeaders = {}) => (response: Http.ServerResponse) =>
    void response.writeHead(status, headers).end(body)

const file = (content: string | Buffer, options: Partial<FileSecretProvider.Options> = {}): Made =>
  Effect.flatMap(stubs({}), ({ path }) => {
    writeFileSync(join(path, "a"), content)
    return FileSecretProvider.make({ directory: path, ...options })
  })

const custom = (get: Effect.Effect<Redacted.Redacted, SecretError.SecretError>): Made =>
  Effect.succeed(SecretProvider.make({ name: "custom", get: () => get }))

// Breaks down with all that it was given.
const dying = (what: unknown) =>
  Layer.mergeAll(
    NodeServices.layer,
    Layer.succeed(HttpClient.HttpClient, HttpClient.make((request) => Effect.die([what, request])))
  )

const uuid = "382580ab-1368-4e85-bfa3-b02e01400c9f"

const failures: Readonly<Record<string, readonly [make: Made, ref: string]>> = {
  "file, no text": [file(Buffer.concat([Buffer.from(canary), Buffer.from([0xff])])), "a"],
  "file, too large": [file(canary, { maxBytes: 3 }), "a"],
  "command, exit code": [command(`echo ${canary}; echo ${canary} >&2; exit 1`), "a"],
  "command, no text": [command(`printf '${canary}\\377'`), "a"],
  "command, too much": [command(`echo ${canary}`, { maxBytes: 3 }), "a"],
  "command, killed": [command(`echo ${canary}; kill -9 $$`), "a"],
  "command, not there": [command("", { command: "toolops-no-such-program", args: [canary] }), "a"],
  "bws, error": [bws(`echo "Error: ${canary} $BWS_ACCESS_TOKEN" >&2; exit 1`), uuid],
  "bws, no JSON": [bws(`echo "${canary} $BWS_ACCESS_TOKEN"`), uuid],
  "bws, another": [bws(`echo '{"id":"${canary}","value":"${canary}"}'`), uuid],
  "bws, list": [bws(`echo '[{"id":"${uuid}","name":"p","value":"${canary}"},{"id":"${canary}"}]'`), "project/p/key/k"],
  "vault, denied": [vault(says(403)), "a"],
  "vault, sealed": [vault(says(503)), "a"],
  "vault, broken": [vault(says(500)), "a"],
  "vault, not found": [vault(says(404)), "a"],
  "vault, no JSON": [vault(says(200)), "a"],
  "vault, too large": [vault(says(200, canary.repeat(20))), "a"],
  "vault, another field": [vault(says(200, `{"data":{"data":{"other":"${canary}"}}}`)), "a"],
  "vault, not a text": [vault(says(200, `{"data":{"data":{"value":["${canary}"]}}}`)), "a"],
  "vault, redirect": [vault(says(307, "", { location: `https://${canary}.example/` })), "a"],
  "vault, gone": [vault((response) => void response.destroy()), "a"],
  "vault, login denied": [vault(says(403), true), "a"],
  "vault, login no JSON": [vault(says(200), true), "a"],
  "custom, defect": [custom(Effect.die(new Error(canary))), "a"],
  "custom, throw": [
    custom(Effect.suspend(() => {
      throw new Error(canary, { cause: { canary } })
    })),
    "a"
  ],
  "custom, foreign error": [custom(Effect.fail(Object.assign(new Error(canary), { canary }) as never)), "a"]
}

describe("secrets", () => {
  for (const [name, [make, ref]] of Object.entries(failures)) {
    it.live(`show nowhere when a provider fails: ${name}`, () =>
      Effect.gen(function*() {
        // Through the resolver, in the whole text and inside of one, watched, and as configuration.
        const ways = (provider: SecretProvider.Provider): ReadonlyArray<Effect.Effect<unknown, unknown>> => {
          const text = `secretref:${provider.name}:${ref}`
          const Secrets = SecretConfig.layer.pipe(
            Layer.provideMerge(resolverOf([provider])),
            Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ KEY: text })))
          )
          const using = <A, E>(f: (resolver: SecretResolver.SecretResolver["Service"]) => Effect.Effect<A, E>) =>
            Effect.provide(Effect.flatMap(SecretResolver.SecretResolver, f), Secrets)
          return [
            using((resolver) => resolver.resolveValue(text)),
            using((resolver) => resolver.resolveAll({ a: `x\${${text}}` })),
            using((resolver) => Stream.runDrain(resolver.changes(text))),
            Effect.provide(Config.Redacted("KEY"), Secrets),
            // What is the provider's own is its maker's affair where it is not ours.
            ...(provider.name === "custom" ? [] : [provider.get(ref)])
          ]
        }
        const made = yield* everythingOf(make.pipe(
          Effect.tap((provider) =>
            Effect.sync(() => shown(provider).forEach((text) => assert.notInclude(text, canary)))
          ),
          Effect.flatMap((provider) => Effect.forEach(ways(provider), (way) => everythingOf(way))),
          Effect.provide(Platform),
          Effect.scoped
        ))
        assert.isTrue(Exit.isSuccess(made.exit))
        if (!Exit.isSuccess(made.exit)) return
        for (const { exit, texts } of made.exit.value) {
          assert.isTrue(Exit.isFailure(exit))
          for (const text of texts) assert.notInclude(text, canary)
        }
        for (const text of made.texts) assert.notInclude(text, canary)
      }))
  }

  it.live("show nowhere when the platform itself breaks down", () =>
    Effect.gen(function*() {
      const provider = yield* Effect.provide(
        VaultSecretProvider.make({
          address: "https://vault.example",
          auth: { type: "token", token: Redacted.make(canary) }
        }),
        dying(canary)
      )
      const { exit, texts } = yield* everythingOf(provider.get("a"))
      assert.isTrue(Exit.isFailure(exit))
      for (const text of texts) assert.notInclude(text, canary)
    }))

  it.live("show nowhere when all goes well, except where they are asked for", () =>
    Effect.gen(function*() {
      const { address, state } = yield* makeVault
      state.secrets.set("secret/data/a", [{ value: canary }])
      const { path } = yield* stubs({ stub: sh(`echo ${canary}`) })
      mkdirSync(join(path, "mounted"))
      writeFileSync(join(path, "mounted", "a"), canary)
      const providers = yield* Effect.provide(
        Effect.all([
          Effect.succeed(SecretProvider.memory({ a: canary })),
          Effect.succeed(SecretProvider.env({ prefixes: ["A"], variables: { A: canary } })),
          FileSecretProvider.make({ directory: join(path, "mounted") }),
          CommandSecretProvider.make({ command: join(path, "stub") }),
          VaultSecretProvider.make({ address, auth: { type: "token", token: Redacted.make("root") } })
        ]),
        Layer.mergeAll(Platform, NodeFileSystem.layer)
      )
      const text =
        "${secretref:memory:a}${secretref:env:A}${secretref:file:a}${secretref:command:a}${secretref:vault:a}"
      const { exit, texts } = yield* everythingOf(
        Effect.gen(function*() {
          const resolver = yield* SecretResolver.SecretResolver
          const whole = yield* resolver.resolveAll({ a: text, b: "secretref:memory:a", c: "secretref:vault:a" })
          return {
            whole,
            resolver,
            providers,
            direct: yield* Effect.forEach(providers, ({ get }) => Effect.exit(get("a")))
          }
        }).pipe(Effect.provide(resolverOf(providers)))
      )
      assert.isTrue(Exit.isSuccess(exit))
      if (!Exit.isSuccess(exit)) return
      assert.strictEqual(Redacted.value(exit.value.whole.a), canary.repeat(5))
      for (const one of texts) assert.notInclude(one, canary)
      for (const value of Object.values(exit.value.whole)) {
        for (const one of shown(value)) assert.notInclude(one, canary)
      }
    }))
})
