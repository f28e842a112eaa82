import * as Duration from "effect/Duration"

// Option checks shared by every constructor. All throw a `RangeError` or `TypeError` that says who, what, and what came.

const show = (value: unknown): string => {
  switch (typeof value) {
    case "number":
    case "boolean":
    case "undefined":
      return String(value)
    case "bigint":
      return `${value}n`
    // A string may be a misplaced secret, so only its kind is told.
    default:
      return value === null
        ? "null"
        : Array.isArray(value)
        ? "an array"
        : typeof value === "object"
        ? "an object"
        : `a ${typeof value}`
  }
}

/** A whole number of at least `minimum` and at most `maximum`. */
export const integer = (
  where: string,
  name: string,
  value: number,
  minimum: number,
  maximum = Number.MAX_SAFE_INTEGER
): number => {
  if (!Number.isSafeInteger(value) || value < minimum || value > maximum) {
    const range = maximum === Number.MAX_SAFE_INTEGER ? `>= ${minimum}` : `from ${minimum} to ${maximum}`
    throw new RangeError(`${where}: ${name} must be an integer ${range}, got ${show(value)}`)
  }
  return value
}

/** A finite number of at least `minimum` (exclusive when `above` is set) and at most `maximum`. */
export const finite = (
  where: string,
  name: string,
  value: number,
  range: { readonly minimum?: number; readonly above?: number; readonly maximum?: number }
): number => {
  const { above, maximum, minimum } = range
  if (
    typeof value !== "number" || !Number.isFinite(value) ||
    (minimum !== undefined && value < minimum) ||
    (above !== undefined && value <= above) ||
    (maximum !== undefined && value > maximum)
  ) {
    const parts = [
      minimum === undefined ? undefined : `>= ${minimum}`,
      above === undefined ? undefined : `> ${above}`,
      maximum === undefined ? undefined : `<= ${maximum}`
    ].filter((part) => part !== undefined)
    throw new RangeError(`${where}: ${name} must be a number ${parts.join(" and ")}, got ${show(value)}`)
  }
  return value
}

/** A duration in milliseconds: positive unless `allowZero`, finite unless `allowInfinite`. */
export const millis = (
  where: string,
  name: string,
  value: Duration.Input,
  options?: { readonly allowZero?: boolean; readonly allowInfinite?: boolean }
): number => {
  // `NaN` and negative numbers are clamped to zero by `Duration`, so they are caught before it sees them.
  const isBadNumber = typeof value === "number" && !(value >= 0)
  const decoded = isBadNumber ? undefined : decodeDuration(value)
  if (
    decoded === undefined ||
    (decoded === 0 && options?.allowZero !== true) ||
    (decoded === Infinity && options?.allowInfinite !== true)
  ) {
    const low = options?.allowZero === true ? ">= 0" : "> 0"
    const high = options?.allowInfinite === true ? "" : " and finite"
    const came = decoded === undefined ? show(value) : `${decoded} ms`
    throw new RangeError(`${where}: ${name} must be a duration ${low}${high}, got ${came}`)
  }
  return decoded
}

const decodeDuration = (value: Duration.Input): number | undefined => {
  const duration = Duration.fromInput(value)
  if (duration._tag === "None") return undefined
  const result = Duration.toMillis(duration.value)
  return result >= 0 ? result : undefined
}

/** Refuses what is not an object. A number in place of options has no member that would be unknown. */
export const object = (where: string, value: unknown): void => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(`${where}: expected an object of options, got ${show(value)}`)
  }
}

/** Refuses members that `known` does not list, so that a typo is not silently ignored. */
export const known = (where: string, options: object, names: ReadonlyArray<string>): void => {
  object(where, options)
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      throw new TypeError(`${where}: unknown option ${JSON.stringify(name)}, expected one of ${names.join(", ")}`)
    }
  }
}

/** A string that is not empty. */
export const text = (where: string, name: string, value: string): string => {
  if (typeof value !== "string" || value === "") {
    throw new TypeError(
      `${where}: ${name} must be a string that is not empty, got ${value === "" ? "\"\"" : show(value)}`
    )
  }
  return value
}

/** Options that each make sense and do not go together. */
export class Conflict extends TypeError {}

/** Runs a check of options that are not complete yet: what they hold must make sense, and need not go together. */
export const incomplete = (check: () => void): void => {
  try {
    check()
  } catch (error) {
    if (!(error instanceof Conflict)) throw error
  }
}

/** One of the given words. */
export const oneOf = <const A extends string>(
  where: string,
  name: string,
  value: string,
  words: ReadonlyArray<A>
): A => {
  const found = words.find((word) => word === value)
  if (found === undefined) {
    throw new TypeError(`${where}: ${name} must be one of ${words.join(", ")}, got ${show(value)}`)
  }
  return found
}
