import type * as HealthCheck from "../HealthCheck.ts"

/** What every ready-made check takes besides its own: how it counts and how often it runs. */
export type CheckOptions = Partial<Omit<HealthCheck.Options, "check">>

/** The names of `CheckOptions`. */
export const checkOptionNames: ReadonlyArray<keyof CheckOptions> = [
  "name",
  "critical",
  "groups",
  "timeout",
  "interval",
  "background",
  "failAfter",
  "passAfter"
]

/** Those of the options that go to `HealthCheck.make`. */
export const checkOptionsOf = (options: CheckOptions): CheckOptions =>
  Object.fromEntries(
    checkOptionNames.filter((name) => options[name] !== undefined).map((name) => [name, options[name]])
  )
