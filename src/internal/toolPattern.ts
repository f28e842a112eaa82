// Patterns that name tools: an exact id, `namespace:*`, or `*`. Nothing else, so that a pattern never means more than
// its reader thinks.

/** Characters and length of a tool's name and of its namespace. */
export const namePart = /^[A-Za-z0-9_.-]{1,128}$/

/** How closely a pattern names a tool. `undefined` when it does not. */
export type Specificity = 0 | 1 | 2

/** Says whether `pattern` may be used at all. */
export const isToolPattern = (pattern: string): boolean => {
  if (pattern === "*") return true
  const colon = pattern.indexOf(":")
  if (colon === -1) return namePart.test(pattern)
  const name = pattern.slice(colon + 1)
  return namePart.test(pattern.slice(0, colon)) && (name === "*" || namePart.test(name))
}

/** Checks a list of patterns given as an option. */
export const checkToolPatterns = (where: string, name: string, patterns: ReadonlyArray<string>): void => {
  for (const pattern of patterns) {
    if (!isToolPattern(pattern)) {
      throw new TypeError(
        `${where}: ${name} must hold exact tool ids, "namespace:*" or "*", got ${JSON.stringify(pattern)}`
      )
    }
  }
}

/** 2 for the exact id, 1 for its namespace, 0 for `*`, `undefined` for no match. */
export const matchToolPattern = (
  pattern: string,
  tool: { readonly id: string; readonly namespace?: string | undefined }
): Specificity | undefined => {
  if (pattern === tool.id) return 2
  if (pattern === "*") return 0
  return tool.namespace !== undefined && pattern === `${tool.namespace}:*` ? 1 : undefined
}
