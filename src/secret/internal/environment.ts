import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"

/**
 * Looks variables up, in `variables` or in those of the process. `ConfigProvider.fromEnv` knows how to find the latter
 * in any runtime; it copies them, so what a lookup says does not change.
 */
export const environment = (
  variables: Readonly<Record<string, string | undefined>> | undefined
): (name: string) => string | undefined => {
  const given = variables === undefined ? undefined : definedOnly(variables)
  const provider = ConfigProvider.fromEnv(
    given === undefined ? { preserveEmptyStrings: true } : { env: given, preserveEmptyStrings: true }
  )
  return (name) => {
    // Never fails and never waits: the variables are in memory.
    const node = Effect.runSync(Effect.orDie(provider.load([name])))
    return node?.value
  }
}

const definedOnly = (variables: Readonly<Record<string, string | undefined>>): Record<string, string> => {
  const out: Record<string, string> = Object.create(null)
  for (const [name, value] of Object.entries(variables)) if (value !== undefined) out[name] = value
  return out
}
