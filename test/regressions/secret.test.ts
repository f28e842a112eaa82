import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { SecretProvider, SecretResolver } from "effect-toolops/secret"

// What the Go library got wrong about secrets, one test each.

const resolve = (text: string, variables: Record<string, string> = {}) =>
  Effect.flatMap(SecretResolver.SecretResolver, (resolver) => resolver.resolveValue(text)).pipe(
    Effect.map(Redacted.value),
    Effect.provide(
      SecretResolver.layer({ variables }).pipe(
        Layer.provide(
          SecretProvider.layer(SecretProvider.memory({ k: "v", evil: "secretref:p:k ${HOME} $$" }, { name: "p" }))
        )
      )
    )
  )

const fails = (text: string, tag: string) =>
  Effect.map(Effect.flip(resolve(text)), (error) => assert.strictEqual(error.reason._tag, tag as never, text))

describe("secret regressions", () => {
  it.effect("a value is not scanned for references, wherever it comes from", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* resolve("${EVIL}", { EVIL: "secretref:p:k" }), "secretref:p:k")
      assert.strictEqual(yield* resolve("x${EVIL}p:k", { EVIL: "secretref:" }), "xsecretref:p:k")
      assert.strictEqual(yield* resolve("secretref:p:evil"), "secretref:p:k ${HOME} $$")
    }))

  it.effect("a malformed reference is an error and not a credential", () =>
    Effect.forEach(
      ["secretref:p", "secretref::k", "secretref:", "token secretref:p", "${secretref:p}"],
      (text) => fails(text, "MalformedReference")
    ))

  it.effect("quotes, commas and braces stay outside of a reference in a text", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* resolve("{\"a\":\"secretref:p:k\"}"), "{\"a\":\"v\"}")
      assert.strictEqual(yield* resolve("[secretref:p:k, secretref:p:k]"), "[v, v]")
    }))

  it.effect("a variable without braces is refused, one that is missing too", () =>
    Effect.gen(function*() {
      yield* fails("$HOME", "MalformedReference")
      yield* fails("pa$word", "MalformedReference")
      yield* fails("${MISSING}", "VariableNotSet")
      assert.strictEqual(yield* resolve("pa$$word"), "pa$word")
    }))
})
