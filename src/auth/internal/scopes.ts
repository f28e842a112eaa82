// Which scopes a caller lacks, where one scope may stand for others.

type Scopes = ReadonlyArray<string>

/** Says which of the required scopes somebody lacks who holds the others. */
export type MissingScopes = (required: Scopes, held: Scopes) => Scopes

// The scope itself and all that it stands for, for every scope that stands for something.
const closure = (
  where: string,
  hierarchy: Readonly<Record<string, ReadonlyArray<string>>> | undefined
): ReadonlyMap<string, ReadonlySet<string>> => {
  const direct = new Map(Object.entries(hierarchy ?? {}))
  for (const [scope, implied] of direct) {
    if (!Array.isArray(implied) || !implied.every((one) => typeof one === "string" && one.length > 0)) {
      throw new TypeError(`${where}: scopeHierarchy of ${JSON.stringify(scope)} must be a list of scopes`)
    }
  }
  const whole = new Map<string, ReadonlySet<string>>()
  for (const scope of direct.keys()) {
    const reached = new Set([scope])
    // A set that is walked while it grows visits what is added, each scope once, so a circle ends.
    for (const next of reached) {
      for (const implied of direct.get(next) ?? []) reached.add(implied)
    }
    whole.set(scope, reached)
  }
  return whole
}

/** Checks a hierarchy of scopes, which may have circles, and compares by it from then on. */
export const missingScopes = (
  where: string,
  scopeHierarchy: Readonly<Record<string, Scopes>> | undefined
): MissingScopes => {
  const hierarchy = closure(where, scopeHierarchy)
  return (required, held) => {
    const lacking = required.filter((scope) => !held.includes(scope))
    if (lacking.length === 0 || hierarchy.size === 0) return lacking
    return lacking.filter((scope) => !held.some((one) => hierarchy.get(one)?.has(scope) === true))
  }
}
