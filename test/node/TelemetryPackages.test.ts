import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { fromSource } from "../support/workers.ts"

// Node's own hooks, so that the packages are missing as they are where nobody has installed them.
const withoutPackages = `data:text/javascript,${
  encodeURIComponent(`
    import { registerHooks } from "node:module"
    registerHooks({
      resolve(specifier, context, next) {
        if (!/^@(opentelemetry|effect\\/opentelemetry)/.test(specifier)) return next(specifier, context)
        throw Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" })
      }
    })`)
}`

const program = `
  import { Effect, Layer } from "effect"
  import { Telemetry } from "effect-toolops/node"
  const reasonOf = (options) =>
    Effect.scoped(Layer.build(Telemetry.layer({ serviceName: "docs", endpoint: "http://localhost:1", ...options }))).pipe(
      Effect.as("none"),
      Effect.catch((error) => Effect.succeed(error.reason._tag)),
      Effect.runPromise
    )
  console.log(JSON.stringify([
    await reasonOf({ tracing: { exporter: "otlp" } }),
    await reasonOf({ metrics: { exporter: "stdout" } }),
    await reasonOf({ tracing: { exporter: "none" }, metrics: { exporter: "prometheus" }, logging: {} })
  ]))`

describe("Telemetry without the packages of its exporters", () => {
  it("says which are missing where they are needed, and does the rest without them", () => {
    const printed = execFileSync(
      process.execPath,
      ["--import", withoutPackages, ...fromSource, "--input-type=module", "-e", program],
      { cwd: import.meta.dirname, encoding: "utf8" }
    )
    assert.deepStrictEqual(JSON.parse(printed), ["PackagesMissing", "PackagesMissing", "none"])
  })
})
