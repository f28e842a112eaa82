// Errors that say nothing about the answer, only that the tool could not be reached. They are told by their tags, since
// stages do not import each other and a transport's errors come from packages that may not be there.

const reasons: ReadonlySet<unknown> = new Set(["CircuitOpen", "TimedOut"])

const transports: ReadonlySet<unknown> = new Set(["TransportError", "SocketError", "SocketOpenError", "TimeoutError"])

// Codes of Node's system errors.
const codes: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EPIPE",
  "ETIMEDOUT"
])

/** Says whether an old answer is better than this error. */
export const isUnavailable = (error: unknown, also: ((error: unknown) => boolean) | undefined): boolean => {
  if (isTransport(error, 0)) return true
  if (also === undefined) return false
  try {
    return also(error) === true
  } catch {
    return false
  }
}

const isTransport = (error: unknown, depth: number): boolean => {
  // An error may be its own cause.
  if (typeof error !== "object" || error === null || depth > 8) return false
  const tag = "_tag" in error ? error._tag : undefined
  const reason = "reason" in error ? error.reason : undefined
  if (tag === "ResilienceError") {
    const kind = typeof reason === "object" && reason !== null && "_tag" in reason ? reason._tag : undefined
    return reasons.has(kind) || (kind === "RetriesExhausted" && isTransport(reason, depth + 1))
  }
  return transports.has(tag) || ("code" in error && codes.has(error.code)) || isTransport(reason, depth + 1) ||
    ("cause" in error && isTransport(error.cause, depth + 1))
}
