/**
 * Where keys come from: the configuration names a secret, and `Config` gives the secret itself, redacted. A reference that
 * cannot be resolved is an error, never a value.
 *
 * Run it: node -C @effect-toolops/source examples/secret.ts
 */
import { Config, ConfigProvider, Effect, Layer, Redacted } from "effect"
import { SecretConfig, SecretProvider, SecretResolver } from "effect-toolops/secret"

// What a deployment would have in its environment, and what its vault would hold.
const environment = {
  API_KEY: "secretref:memory:quotes/api-key",
  DATABASE_URL: "postgres://app:${secretref:memory:db}@db.internal/app",
  FORGOTTEN: "secretref:memory:no-such-secret",
  BROKEN: "secretref:memory"
}
const vault = SecretProvider.memory({ "quotes/api-key": "k-4711", db: "a ${PATH} that stays as it is" })

const Secrets = SecretConfig.layer.pipe(
  Layer.provide(SecretResolver.layer()),
  Layer.provide(SecretProvider.layer(vault)),
  Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord(environment)))
)

const program = Effect.gen(function*() {
  const key = yield* Config.Redacted("API_KEY")
  console.log(`API_KEY prints as ${key} and has ${Redacted.value(key).length} characters`)

  const url = Redacted.value(yield* Config.Redacted("DATABASE_URL"))
  console.log(`DATABASE_URL still has its reference: ${url.includes("secretref")}`)
  console.log(`what a secret holds is not expanded: ${url.includes("${PATH}")}`)

  for (const name of ["FORGOTTEN", "BROKEN"]) {
    const error = yield* Effect.flip(Config.Redacted(name))
    console.log(`${name} is an error: ${error.message.split("\n")[0]}`)
  }
})

await Effect.runPromise(Effect.provide(program, Secrets))
