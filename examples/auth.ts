/**
 * Who may call: API keys say who it is, roles say what they may do.
 *
 * Run it: node -C @effect-toolops/source examples/auth.ts
 */
import { Effect, Layer, Redacted } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import { ApiKey, AuthMiddleware, Identity, Rbac } from "effect-toolops/auth"

const search = ToolMeta.make({ namespace: "docs", name: "search", readOnly: true })
const remove = ToolMeta.make({ namespace: "docs", name: "remove" })
const publish = ToolMeta.make({ namespace: "docs", name: "publish", scopes: ["docs:publish"] })

const ada = await Effect.runPromise(ApiKey.generate())
const eve = await Effect.runPromise(ApiKey.generate())

const Auth = AuthMiddleware.layer.pipe(Layer.provide([
  ApiKey.layer().pipe(Layer.provide(
    ApiKey.layerMemory({ keys: [{ id: "ada-1", key: ada, principal: "ada", roles: ["editor"] }] })
  )),
  Rbac.layer({
    roles: {
      reader: { allowedTools: ["docs:search"], allowedActions: ["call"] },
      editor: {
        inherits: ["reader"],
        allowedTools: ["docs:*"],
        allowedActions: ["call"],
        // A denial wins over every grant, inherited or not.
        deniedTools: ["docs:remove"]
      }
    }
  })
]))

const program = Effect.gen(function*() {
  const pipeline = yield* ToolPipeline.make(AuthMiddleware.AuthMiddleware)
  // The handler sees who calls, and never the key.
  const handler = Effect.map(Identity.CurrentIdentity, (caller) => `done for ${caller.principal}`)
  const attempt = (title: string, tool: ToolMeta.ToolMeta, key?: Redacted.Redacted<string>) =>
    pipeline.run({ tool, headers: key === undefined ? {} : { "X-Api-Key": Redacted.value(key) } }, handler).pipe(
      Effect.catch((error) => Effect.succeed(`refused: ${error.reason._tag}`)),
      Effect.map((answer) => console.log(`${title.padEnd(32)} ${answer}`))
    )
  yield* attempt("no key", search)
  yield* attempt("a key that nobody has", search, eve)
  yield* attempt("ada searches", search, ada)
  yield* attempt("ada removes", remove, ada)
  yield* attempt("ada publishes without the scope", publish, ada)
})

await Effect.runPromise(Effect.provide(program, Auth))
